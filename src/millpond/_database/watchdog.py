"""Deadlines of statements, for threads: what a server cannot be told to end by itself is ended from outside.

Why: a thread that waits for an answer cannot look at a clock.  One thread, started with the first deadline and gone
when there are none for a while, does it for all; whatever takes time is done in a thread of its own, so that one server
that hangs does not keep the deadlines of others.

Rules:
- Ending goes in two steps: first the statement (by a second connection, or a call of the driver), and if that fails, or
  the caller still waits a moment later, the link.  An order that is under way is given a little more time.
- Once a statement was to be ended, its connection is never used again outside of the transaction that it is in: the
  order to end it might arrive late, and hit what comes next.
- Almost every deadline is disarmed long before it has passed: it then holds on to nothing, and is weeded out.
- A forked child has no thread of its parent's, and begins anew.
- Locks, threads and the clock are looked up when a watchdog is made: gevent may have been patched in by then.
"""

from __future__ import annotations

import heapq
import itertools
import logging
import os
import threading
import time
import weakref
from collections.abc import Callable
from typing import Final, TypeAlias

GRACE_S: Final = 1.0  # between the first step and the second
ROUNDS: Final = 3  # of grace for an order to end a statement that is still under way
LINGERING_S: Final = 5.0  # how long the thread stays without a deadline to watch
ROOM_MIN: Final = 256  # deadlines that may be there before those that were disarmed are weeded out

logger = logging.getLogger("millpond")


class Watch:
    """One deadline.

    Args:
        end_statement: ends the statement; None: there is no way to, and the link is cut at once.
        cut_link: makes whoever waits for an answer stop.

    Attributes:
        fired: the deadline has passed while the statement ran.
        is_over: the statement is done.
    """

    __slots__ = ("_cut_link", "_end_statement", "_lock", "_rounds", "_settled", "fired", "is_over")

    def __init__(self, end_statement: Callable[[], None] | None, cut_link: Callable[[], object]) -> None:
        self._end_statement = end_statement
        self._cut_link: Callable[[], object] | None = cut_link
        self._lock = threading.Lock()
        self._settled: threading.Event | None = None  # there once it has fired
        self._rounds = ROUNDS
        self.fired = False
        self.is_over = False

    def disarm(self) -> bool:
        """Say that the statement is done; return whether somebody had begun to end it."""
        with self._lock:
            self.is_over = True
            self._end_statement = self._cut_link = None  # and hold on to no connection
            return self.fired

    def wait_until_settled(self, seconds: float) -> bool:
        """Wait until nobody is about to end the statement any more; say whether it came to that."""
        return self._settled is None or self._settled.wait(seconds)

    def fire(self) -> bool:
        """Begin to end the statement; say whether the link is to be cut if that does not help."""
        with self._lock:
            if self.is_over or self.fired:
                return False
            self._settled = threading.Event()
            self.fired = True
            end = self._end_statement
        if end is None:
            self.cut()
            return False
        threading.Thread(target=self._end, args=(end, self._settled), name="millpond-deadline", daemon=True).start()
        return True

    def press(self) -> bool:
        """Cut the link, unless the order to end the statement is still under way; say whether to come again."""
        self._rounds -= 1
        if self._settled is not None and not self._settled.is_set() and self._rounds > 0 and not self.is_over:
            return True
        self.cut()
        return False

    def cut(self) -> None:
        """Cut the link, unless the statement is done."""
        with self._lock:  # held meanwhile: the connection is its caller's again as soon as disarm() returns
            if self._cut_link is not None:
                self._cut_link()
        if self._settled is not None:
            self._settled.set()

    def _end(self, end: Callable[[], None], settled: threading.Event) -> None:
        try:
            end()
        except Exception as error:  # noqa: BLE001  the link is cut instead
            logger.debug("a statement could not be ended at its deadline: %r", error)
            self.cut()
        finally:
            settled.set()


Due: TypeAlias = tuple[float, int, Watch]
_watchdogs: weakref.WeakSet[Watchdog] = weakref.WeakSet()


class Watchdog:
    """All deadlines of one database."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._numbers = itertools.count()
        self.begin()
        _watchdogs.add(self)

    def begin(self) -> None:
        """Have nothing to watch, and nobody who does."""
        self._changed = threading.Condition(threading.Lock())
        self._due: list[Due] = []
        self._room = ROOM_MIN
        self._runs = False

    def watch(self, seconds: float, watch: Watch) -> None:
        """Have *watch* looked at in that many seconds: fired, or pressed if it has fired before."""
        with self._changed:
            entry = (self._clock() + seconds, next(self._numbers), watch)
            if len(self._due) >= self._room:
                self._due = [due for due in self._due if not due[2].is_over]
                heapq.heapify(self._due)
                self._room = max(ROOM_MIN, 2 * len(self._due))
            heapq.heappush(self._due, entry)
            if not self._runs:
                self._runs = True
                threading.Thread(target=self._run, name="millpond-watchdog", daemon=True).start()
            elif self._due[0] is entry:
                self._changed.notify()

    def _run(self) -> None:
        while True:
            with self._changed:
                watch = self._next()
                if watch is None:
                    self._runs = False
                    return
            if watch.press() if watch.fired else watch.fire():
                self.watch(GRACE_S, watch)

    def _next(self) -> Watch | None:
        """Wait for the next deadline, and return whose it is; None: there was nothing for a while."""
        idle_until = self._clock() + LINGERING_S
        while True:
            now = self._clock()
            if self._due and self._due[0][0] <= now:
                return heapq.heappop(self._due)[2]
            until = self._due[0][0] if self._due else idle_until
            if until <= now:
                return None
            self._changed.wait(until - now)


def _after_fork_in_child() -> None:
    for watchdog in list(_watchdogs):
        watchdog.begin()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
