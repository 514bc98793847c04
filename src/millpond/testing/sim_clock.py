"""A clock that stands still until it is told to go on: for tests that must not sleep.

It goes wherever millpond takes a clock (a pool's ``runtime``, the simulator).  It must never go back: instants are
compared everywhere, and a deadline that was reached stays reached.
"""

from __future__ import annotations

import math


class SimClock:
    """A monotonic clock under a test's control; call it to read it.

    Args:
        start: the first reading, in seconds; any finite number.
    """

    __slots__ = ("now",)

    def __init__(self, start: float = 0.0) -> None:
        if not math.isfinite(start):
            raise ValueError(f"start={start!r}: a clock starts at a finite number of seconds")
        self.now = float(start)

    def __call__(self) -> float:
        """Return the present reading in seconds."""
        return self.now

    def advance(self, seconds: float) -> float:
        """Let time pass.

        Args:
            seconds: how much; 0 or more.

        Returns:
            The new reading.

        Raises:
            ValueError: time would stand still for ever or go back; the caller's fault.
        """
        if not 0 <= seconds < math.inf:
            raise ValueError(f"seconds={seconds!r}: time passes by 0 or more seconds")
        self.now += seconds
        return self.now

    def advance_to(self, instant: float) -> float:
        """Let time pass until *instant*, exactly; an instant that has passed changes nothing.

        Returns:
            The new reading.

        Raises:
            ValueError: *instant* is no finite number; the caller's fault.
        """
        if not math.isfinite(instant):
            raise ValueError(f"instant={instant!r}: a clock is set to a finite number of seconds")
        self.now = max(self.now, float(instant))
        return self.now

    def __repr__(self) -> str:
        return f"SimClock({self.now!r})"
