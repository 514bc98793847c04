"""The pace of the core: the numbers that several of its modules go by, and that no user sets.

Why: whoever puts something off must mean the same by "later" as whoever comes back to it.  A number that one module
alone goes by stands in that module; one that a user may set is in :class:`millpond._core.ports.Limits`.
"""

from __future__ import annotations

ROUND = 32  # of anything that is looked after in one tick; the rest follow in the next, at once
HOUSEKEEPING_S = 1.0  # the longest time between two ticks while something could have been lost
START_ANSWER_S = 0.25  # a dialer that has not begun by then is asked for again, or the caller dials
OVERRUN_S = 0.5  # a driver may overrun its deadline by so much before its call is given up
