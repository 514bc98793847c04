"""What the tasks of a loop are called.

Why: whoever waits in vain is told which tasks hold the connections, and only a list of all tasks says so.  Where 8,000
wait and time out together, a list for each of them kept their loop busy for 11 s: its price grows with the square.

Rules: a list that costs next to nothing is made anew each time, so that it is right.  One that does not is given out
again until ten times its price has passed.
"""

from __future__ import annotations

import asyncio
import time
from asyncio import AbstractEventLoop
from collections.abc import Callable

CHEAP_S = 0.0005  # of the processor: some thousand tasks
PRICES = 10.0


class TaskNames:
    """The names of all tasks of a loop, by their identities.

    Args:
        clock: seconds on a clock that never goes back.
        cpu: seconds of the processor that this thread has used: a thread that was stopped meanwhile made no list.
    """

    __slots__ = ("_clock", "_cpu", "_names", "_stale_at")

    def __init__(
        self, clock: Callable[[], float] = time.monotonic, cpu: Callable[[], float] = time.thread_time
    ) -> None:
        self._clock = clock
        self._cpu = cpu
        self._names: dict[int, str] = {}
        self._stale_at = clock()

    def of(self, loop: AbstractEventLoop) -> dict[int, str]:
        """Return them."""
        now = self._clock()
        if now < self._stale_at:
            return self._names
        begun = self._cpu()
        names = {id(task): task.get_name() for task in asyncio.all_tasks(loop)}
        price_s = self._cpu() - begun
        if price_s > CHEAP_S:
            self._names, self._stale_at = names, now + price_s * PRICES
        return names
