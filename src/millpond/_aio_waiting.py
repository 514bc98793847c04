"""How tasks park until a connection comes to them, or their time is up.

Why: a hand-over under contention is what a queue costs each of its callers, so what is in here is short.  Whoever
parks has a future and nothing else: it is made with their ticket, and to wake them early is to have it done already.
One timer serves all: nearly all are woken before their time, and come with ascending deadlines.  A timer of its own
for each would cost a hand-over 2 us.

Rules: whoever is woken leaves an entry behind that is done, and costs nothing until there are as many of these as of
others; then all are weeded out at once.  Nothing in here holds a task, a ticket or a context: an entry is a future.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
from asyncio import AbstractEventLoop
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

from ._core.states import FOREVER, RETIRED
from .aio_lease import NOTHING

WEEDED_AT = 64  # entries; from there on, at twice as many as were left the last time


def wake(future: asyncio.Future[None]) -> None:
    """Wake whoever is parked there, or keep them from falling asleep; twice is harmless, and so is too late."""
    if not future.done():
        future.set_result(None)


def context_of(future: asyncio.Future[None]) -> contextvars.Context | None:
    """Return the context of the task that is parked there; None if it is not yet: then it runs now."""
    callbacks: list[tuple[Any, contextvars.Context]] | None = getattr(future, "_callbacks", None)
    return callbacks[0][1] if callbacks else None


class Sleepers:
    """Those of one pool who are parked, and the timer for all of them."""

    __slots__ = ("_asleep", "_clock", "_last_at", "_loop", "_rings_at", "_timer", "_weeded_at", "new_future")

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._loop: AbstractEventLoop | None = None
        self.new_future: Callable[[], asyncio.Future[None]] = asyncio.Future
        self._asleep: deque[tuple[float, asyncio.Future[None]]] = deque()  # by their deadlines
        self._last_at = RETIRED  # the deadline of the last of them
        self._weeded_at = WEEDED_AT
        self._timer: asyncio.TimerHandle | None = None
        self._rings_at = FOREVER

    def bind(self, loop: AbstractEventLoop) -> None:
        """Learn whose timers these are."""
        self._loop = loop
        usual = getattr(type(loop), "create_future", None) is asyncio.BaseEventLoop.create_future
        self.new_future = functools.partial(asyncio.Future, loop=loop) if usual else loop.create_future  # in C

    def park(self, parked: Any, until: float) -> Awaitable[None]:
        """Return what ends when a ticket or watcher is woken, or the time has come."""
        future: asyncio.Future[None] = parked.waiter
        if future.done():  # woken before this, or parked before
            parked.waiter = self.new_future()
            return NOTHING
        now = self._clock()
        return self.sleep(future, until, now) if now < until else NOTHING

    def sleep(self, future: asyncio.Future[None], until: float, now: float) -> asyncio.Future[None]:
        """See to it that a future is done at *until*, which is yet to come; return it."""
        asleep = self._asleep
        if until < self._last_at or len(asleep) >= self._weeded_at:
            self._weed()
        if until < self._last_at:
            timer = self._ring_in(until - now, functools.partial(wake, future))
            future.add_done_callback(lambda _: timer.cancel())
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
        assert self._loop is not None, "bug: nobody can park before there is a loop"
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
