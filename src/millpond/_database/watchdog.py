"""Deadlines of statements, for threads: what a server cannot be told to end by itself is ended from outside.

Why: a thread that waits for an answer cannot look at a clock.  One thread, started with the first deadline and gone
when there are none for a while, does it for all; whatever takes time is done in a thread of its own, so that one server
that hangs does not keep the deadlines of others.

Rules:
- Ending goes in two steps: first the statement (by a second connection, or a call of the driver), and if the caller
  still waits a moment later, the link.  A caller never waits for longer than both together.
- Once a statement was to be ended, its connection is never used again outside of the transaction that it is in: the
  order to end it might arrive late, and hit what comes next.
- Locks, threads and the clock are looked up when a watchdog is made: gevent may have been patched in by then.
"""

from __future__ import annotations

import heapq
import itertools
import logging
import threading
import time
from collections.abc import Callable
from typing import Final

GRACE_S: Final = 1.0  # between the first step and the second
LINGERING_S: Final = 5.0  # how long the thread stays without a deadline to watch

logger = logging.getLogger("millpond")


class Watch:
    """One deadline.

    Args:
        end_statement: ends the statement; None: there is no way to, and the link is cut at once.
        cut_link: makes whoever waits for an answer stop.

    Attributes:
        fired: the deadline has passed while the statement ran.
    """

    def __init__(self, end_statement: Callable[[], None] | None, cut_link: Callable[[], object]) -> None:
        self._end_statement = end_statement
        self._cut_link = cut_link
        self._lock = threading.Lock()
        self._is_over = False
        self._settled = threading.Event()
        self.fired = False

    def disarm(self) -> bool:
        """Say that the statement is done; return whether somebody had begun to end it."""
        with self._lock:
            self._is_over = True
            return self.fired

    def wait_until_settled(self, seconds: float) -> bool:
        """Wait until nobody is about to end the statement any more; say whether it came to that."""
        return self._settled.wait(seconds)

    def fire(self) -> bool:
        """Begin to end the statement; say whether the link is to be cut if that does not help."""
        with self._lock:
            if self._is_over or self.fired:
                return False
            self.fired = True
        if self._end_statement is None:
            self.cut()
            return False
        threading.Thread(target=self._end, name="millpond-deadline", daemon=True).start()
        return True

    def cut(self) -> None:
        """Cut the link, unless the statement is done."""
        with self._lock:  # held meanwhile: the connection is its caller's again as soon as disarm() returns
            if not self._is_over:
                self._cut_link()
        self._settled.set()

    def _end(self) -> None:
        assert self._end_statement is not None
        try:
            self._end_statement()
        except Exception as error:  # noqa: BLE001  the link is cut instead, in a moment
            logger.debug("a statement could not be ended at its deadline: %r", error)
        finally:
            self._settled.set()


class Watchdog:
    """All deadlines of one database."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._changed = threading.Condition(threading.Lock())
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()
        self._runs = False

    def watch(self, seconds: float, watch: Watch) -> None:
        """Have *watch* fire in that many seconds."""

        def fire() -> None:
            if watch.fire():
                self._add(GRACE_S, watch.cut)

        self._add(seconds, fire)

    def _add(self, seconds: float, action: Callable[[], None]) -> None:
        with self._changed:
            entry = (self._clock() + seconds, next(self._numbers), action)
            heapq.heappush(self._due, entry)
            if not self._runs:
                self._runs = True
                threading.Thread(target=self._run, name="millpond-watchdog", daemon=True).start()
            elif self._due[0] is entry:
                self._changed.notify()

    def _run(self) -> None:
        while True:
            with self._changed:
                action = self._next()
                if action is None:
                    self._runs = False
                    return
            action()

    def _next(self) -> Callable[[], None] | None:
        """Wait for the next deadline, and return what is to be done; None: there was nothing for a while."""
        idle_until = self._clock() + LINGERING_S
        while True:
            now = self._clock()
            if self._due and self._due[0][0] <= now:
                return heapq.heappop(self._due)[2]
            until = self._due[0][0] if self._due else idle_until
            if until <= now:
                return None
            self._changed.wait(until - now)
