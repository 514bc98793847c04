"""Deadlines of statements, for threads: what a server cannot be told to end by itself is ended from outside.

Why: a thread that waits for an answer cannot look at a clock.  One thread, started with the first deadline and gone
when there are none for a while, does it for all; whatever takes time is done in a thread of its own, so that one server
that hangs does not keep the deadlines of others.

Rules:
- Ending goes in two steps: first the statement (by a second connection, or a call of the driver), and if that fails, or
  the caller still waits a moment later, the link.  An order that is under way is given a little more time.
- Once a statement was to be ended, its connection is never used again outside of the transaction that it is in: the
  order to end it might arrive late, and hit what comes next.
- Almost every deadline is disarmed long before it has passed: it is kept no longer then, and holds on to nothing.
- Finalizers leave streams and transactions, in the middle of anything: see ``_deadlines.py``.
- A forked child has no thread of its parent's, and begins anew.
- Locks, threads and the clock are looked up when they are needed: gevent may have been patched in by then.
"""

from __future__ import annotations

import _thread
import dataclasses
import logging
import os
import threading
import time
import weakref
from collections.abc import Callable
from typing import Any, Final

from millpond._crew import Runtime
from millpond._deadlines import NEVER, Deadlines, Fate
from millpond.forks import everyone_in

GRACE_S: Final = 1.0  # between the first step and the second
ROUNDS: Final = 3  # of grace for an order to end a statement that is still under way

logger = logging.getLogger("millpond")


class Watch:
    """One deadline.

    Args:
        end_statement: ends the statement; None: there is no way to, and the link is cut at once.
        cut_link: makes whoever waits for an answer stop.

    Attributes:
        due_at: when it is to be looked at: fired, or pressed if it has fired before.
        kept_by: who does that.
        fired: the deadline has passed while the statement ran.
        is_over: the statement is done.
    """

    __slots__ = (
        *("_cut_link", "_end_statement", "_link", "_rounds", "_settled", "_statement"),
        *("due_at", "fired", "is_over", "kept_by"),
    )

    def __init__(self, end_statement: Callable[[], None] | None, cut_link: Callable[[], object]) -> None:
        self._end_statement = end_statement
        self._cut_link: Callable[[], object] | None = cut_link
        self._statement = Fate()
        self._link = Fate()
        self._settled: Latch | None = None  # there once it has fired
        self._rounds = ROUNDS
        self.due_at = NEVER
        self.kept_by: Deadlines | None = None
        self.fired = False
        self.is_over = False

    def disarm(self) -> bool:
        """Say that the statement is done; return whether somebody had begun to end it."""
        self.is_over = True
        done_in_time = self._statement.done()
        self._link.done()  # the connection is its caller's again, unless this is a finalizer in the thread that cuts it
        if self.kept_by is not None:
            self.kept_by.let_go(self)
        self._end_statement = self._cut_link = None  # and hold on to no connection
        return not done_in_time

    def wait_until_settled(self, seconds: float) -> bool:
        """Wait until nobody is about to end the statement any more; say whether it came to that."""
        return self._settled is None or self._settled.wait(seconds)

    def fall_due(self, now: float) -> float | None:
        """Do what is to be done now; return when to come again, if that may be needed."""
        again = self.press() if self.fired else self.fire()
        return now + GRACE_S if again else None

    def fire(self) -> bool:
        """Begin to end the statement; say whether the link is to be cut if that does not help."""
        settled = Latch()
        if not self._statement.cut(lambda: self._note_fired(settled), threading.RLock()):
            return False
        end = self._end_statement
        if end is None:
            self.cut()
            return False
        try:
            _thread.start_new_thread(self._end, (end, settled))
        except RuntimeError as error:
            logger.warning("a statement could not be ended at its deadline, and its link is cut: %s", error)
            self.cut()
            return False
        return True

    def _note_fired(self, settled: Latch) -> None:
        self._settled = settled
        self.fired = True

    def press(self) -> bool:
        """Cut the link, unless the order to end the statement is still under way; say whether to come again."""
        self._rounds -= 1
        if self._settled is not None and not self._settled.is_set and self._rounds > 0 and not self.is_over:
            return True
        self.cut()
        return False

    def cut(self) -> None:
        """Cut the link, unless the statement is done."""
        self._link.cut(self._cut_now, threading.RLock())
        if self._settled is not None:
            self._settled.set()

    def _cut_now(self) -> None:
        cut_link = self._cut_link
        if cut_link is not None:
            cut_link()

    def _end(self, end: Callable[[], None], settled: Latch) -> None:
        try:
            end()
        except Exception as error:  # noqa: BLE001  the link is cut instead
            logger.debug("a statement could not be ended at its deadline: %r", error)
            self.cut()
        finally:
            settled.set()

    def forget(self) -> None:
        """Wait for nobody: in a forked child, whoever was at it is no more."""
        self._statement.forget()
        self._link.forget()
        self._settled = None


class Latch:
    """Something to be waited for that happens once.

    Not a :class:`threading.Event`: its lock would be waited for by a finalizer that runs in the middle of ``set()``.
    """

    __slots__ = ("_shut",)

    def __init__(self) -> None:
        self._shut: Any = _thread.allocate_lock()
        self._shut.acquire()

    @property
    def is_set(self) -> bool:
        """Whether it has happened."""
        return not self._shut.locked()

    def set(self) -> None:
        """Let all go on who wait."""
        try:
            self._shut.release()
        except RuntimeError:  # it was open
            return

    def wait(self, seconds: float) -> bool:
        """Wait so long at most; say whether it has happened."""
        happened: bool = self._shut.acquire(timeout=seconds)
        if happened:
            self.set()  # for the next
        return happened


_watchdogs: weakref.WeakSet[Watchdog] = weakref.WeakSet()


class Watchdog:
    """All deadlines of one database."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._begin()
        _watchdogs.add(self)

    def _begin(self) -> None:
        self._deadlines = Deadlines(dataclasses.replace(Runtime.of_host(), clock=self._clock))

    def watch(self, seconds: float, watch: Watch) -> None:
        """Have *watch* fall due in that many seconds.

        Raises:
            RuntimeError: no thread could be started for that: the host's fault.
        """
        watch.due_at = self._clock() + seconds
        watch.kept_by = self._deadlines
        kept = False
        try:
            kept = self._deadlines.keep(watch)
        finally:
            if not kept:  # or interrupted by a signal: nobody else knows this watch
                watch.disarm()
        if not kept:
            raise RuntimeError("no thread could be started to end a statement in time; it was not sent")

    def after_fork(self) -> None:
        """Begin anew in a child, in which the thread is no more."""
        inherited: set[Any] = self._deadlines.kept.copy()
        self._begin()
        for watch in inherited:
            watch.forget()


def _after_fork_in_child() -> None:
    for watchdog in everyone_in(_watchdogs):
        watchdog.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
