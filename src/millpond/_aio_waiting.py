"""How tasks park until a connection comes to them, or their time is up.

Why: a hand-over under contention is what a queue costs each of its callers, so what is in here is short.  One timer
serves all who are parked: nearly all are woken before their time, and come with ascending deadlines.  A timer of its
own for each would cost a hand-over 2 us.

Rules: whoever is woken leaves an entry behind that is done, and costs nothing until there are as many of these as of
others; then all are weeded out at once.  Nothing in here holds a task, a ticket or a context: an entry is a future.
"""

from __future__ import annotations

import asyncio
import contextvars
from asyncio import AbstractEventLoop
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

from ._core.states import FOREVER, RETIRED
from .aio_lease import NOTHING

WEEDED_AT = 64  # entries; from there on, at twice as many as were left the last time


class Waiter:
    """One task that is parked, or is about to be, and the context it asked in."""

    __slots__ = ("context", "future", "timer", "woken")

    def __init__(self) -> None:
        self.context = contextvars.copy_context()
        self.future: asyncio.Future[None] | None = None  # while it is parked
        self.timer: asyncio.TimerHandle | None = None  # its own, if the one for all does not do
        self.woken = False  # before it was parked

    def wake(self) -> None:
        """Wake the task, or keep it from falling asleep; waking it twice is harmless."""
        future = self.future
        if future is None:
            self.woken = True
            return
        self.future = None
        if self.timer is not None:
            self._drop_timer()
        if not future.done():  # it was not cancelled, nor was its time up
            future.set_result(None)

    def rise(self) -> None:
        """Its task was called away."""
        self.future = None
        self._drop_timer()

    def _drop_timer(self) -> None:
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None


class Sleepers:
    """Those of one pool who are parked, and the timer for all of them."""

    __slots__ = ("_asleep", "_clock", "_last_at", "_loop", "_rings_at", "_timer", "_weeded_at")

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._loop: AbstractEventLoop | None = None
        self._asleep: deque[tuple[float, asyncio.Future[None]]] = deque()  # by their deadlines
        self._last_at = RETIRED  # the deadline of the last of them
        self._weeded_at = WEEDED_AT
        self._timer: asyncio.TimerHandle | None = None
        self._rings_at = FOREVER

    def bind(self, loop: AbstractEventLoop) -> None:
        """Learn whose timers these are."""
        self._loop = loop

    def park(self, parked: Any, until: float) -> Awaitable[None]:
        """Return what ends when a ticket or watcher is woken, or the time has come."""
        waiter: Waiter = parked.waiter
        now = self._clock()
        if waiter.woken or until <= now:
            waiter.woken = False
            return NOTHING
        return self.sleep(waiter, until, now)

    def sleep(self, waiter: Waiter, until: float, now: float) -> asyncio.Future[None]:
        """Return what ends when somebody is woken who was not yet, or at *until*, which is yet to come."""
        assert self._loop is not None, "bug: nobody can park before there is a loop"
        waiter.future = future = self._loop.create_future()
        asleep = self._asleep
        if until < self._last_at or len(asleep) >= self._weeded_at:
            self._weed()
        if until < self._last_at:
            waiter.timer = self._ring_in(until - now, waiter.wake)
        elif until < FOREVER:
            self._last_at = until
            asleep.append((until, future))
            if until < self._rings_at:
                self._arm(until, now)
        return future

    def rest(self) -> None:
        """Let the timer be: nobody is parked, nor will be."""
        self._weed()
        if self._timer is not None and not self._asleep:
            self._timer.cancel()
            self._timer, self._rings_at = None, FOREVER

    def _weed(self) -> None:
        """Leave those who are still asleep; whoever came with a far deadline and is gone is in nobody's way."""
        asleep = self._asleep
        while asleep and asleep[-1][1].done():
            asleep.pop()
        if len(asleep) >= self._weeded_at:
            left = [entry for entry in asleep if not entry[1].done()]
            asleep.clear()
            asleep.extend(left)
            self._weeded_at = max(WEEDED_AT, 2 * len(left))
        self._last_at = asleep[-1][0] if asleep else RETIRED

    def _ring_in(self, seconds: float, callback: Callable[[], None]) -> asyncio.TimerHandle:
        assert self._loop is not None, "bug: see above"
        return self._loop.call_later(seconds, callback, context=contextvars.Context())  # keeps nobody's alive

    def _arm(self, at: float, now: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer, self._rings_at = self._ring_in(at - now, self._ring), at

    def _ring(self) -> None:
        """Wake those whose time has come."""
        self._timer, self._rings_at = None, FOREVER
        asleep = self._asleep
        while asleep:
            until, future = asleep[0]
            if not future.done():
                now = self._clock()
                if now < until:
                    self._arm(until, now)
                    return
                future.set_result(None)
            asleep.popleft()
