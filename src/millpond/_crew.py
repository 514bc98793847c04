"""The threads of a pool: an alarm clock, and short-lived workers for whatever may take time.

None of them is alive without need: a pool at rest has at most its alarm clock, a pool that is closed has none.  All are
daemons, so a program that forgets to close ends at once.  Locks and threads are taken from a :class:`Runtime`, which is
looked up when a pool is made and not when this module is imported: gevent may patch in between.

Rules: nothing in here knows slots or tickets.  :meth:`AlarmClock.nudge` is called from finalizers: it takes no lock.
"""

from __future__ import annotations

import _thread
import contextvars
import random
import sys
import time
import weakref
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from ._core.states import FOREVER

PROOF_S = 0.25  # where no worker was ever seen at work, none is waited for longer than this
LINGER_S = 5.0  # an alarm clock with nothing to do ends after so long; starting it again costs some 0.1 ms


class LockLike(Protocol):
    """A ``_thread.lock``, or what a patched host has in its place."""

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool: ...
    def release(self) -> None: ...
    def __enter__(self) -> bool: ...
    def __exit__(self, *exc: object) -> None: ...


@dataclass(frozen=True)
class Runtime:
    """What a pool takes from the host it runs on.

    Args:
        clock: seconds on a clock that never goes back.
        new_lock: makes a lock that any thread may release.
        start: starts a daemon thread; raises RuntimeError where that is not possible.
        jitter: a number in [0, 1), drawn anew at each call.
        with_gil: only one thread runs Python code at a time; without that, nothing is done outside the pool's lock.
    """

    clock: Callable[[], float]
    new_lock: Callable[[], LockLike]
    start: Callable[[Callable[[], None]], None]
    jitter: Callable[[], float]
    with_gil: bool = True

    @classmethod
    def of_host(cls) -> Runtime:
        """Return this host's runtime, as it is patched now."""
        start_new_thread = _thread.start_new_thread
        allocate_lock: Callable[[], Any] = _thread.allocate_lock
        return cls(
            clock=time.monotonic,
            new_lock=allocate_lock,
            # Not threading.Thread: its start() waits for the thread to run, which on some hosts it never does.
            start=lambda work: void(start_new_thread(work, ())),
            jitter=random.random,
            with_gil=getattr(sys, "_is_gil_enabled", always_has_gil)(),
        )


def always_has_gil() -> bool:
    """Answer for interpreters that cannot be asked: all of them have one."""
    return True


def void(_: object) -> None:
    """Forget a result."""


class Waiter:
    """One parked thread, and the context it asked in."""

    __slots__ = ("context", "lock")

    def __init__(self, new_lock: Callable[[], LockLike]) -> None:
        self.lock = new_lock()
        self.lock.acquire()
        self.context = contextvars.copy_context()

    def wait(self, seconds: float) -> None:
        """Sleep until woken, or for so many seconds."""
        if seconds > 0:
            self.lock.acquire(timeout=min(seconds, _thread.TIMEOUT_MAX))

    def wake(self) -> None:
        """Wake the thread, or keep it from falling asleep; waking it twice is harmless."""
        try:
            self.lock.release()
        except RuntimeError:  # not locked: it has been woken already
            return


class Claim:
    """The right to close connections, one thread at a time; it ends with whoever holds it."""

    __slots__ = ("__weakref__",)


def nobody() -> None:
    """Say that nobody holds the claim."""


class Crew:
    """Short-lived workers: one thread a job, and one at a time for closing connections."""

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime
        self.guard = runtime.new_lock()
        self.working = 0
        self.proven = False  # a worker has been seen at work: on some hosts threads start and never run
        self.joiners: deque[Waiter] = deque()
        self.partings: deque[Callable[[], None]] = deque()
        self.parting: Callable[[], Claim | None] = nobody  # who closes connections now

    def start(self, job: Callable[[], object], context: contextvars.Context) -> bool:
        """Run *job* in a thread of its own, in a copy of *context*; False if the host refuses to start one."""
        try:
            with self.guard:
                self.working += 1
            self.runtime.start(lambda: self.run(job, context))
        except RuntimeError:  # no more threads, or the interpreter is on its way out
            self.done()
            return False
        return True  # a signal before this leaves it counted, started or not: join() then waits for its whole time

    def run(self, job: Callable[[], object], context: contextvars.Context) -> None:
        self.proven = True
        try:
            context.copy().run(job)
        finally:
            self.done()

    def done(self) -> None:
        with self.guard:
            self.working -= 1
        while self.joiners:
            try:
                joiner = self.joiners.popleft()
            except IndexError:  # another worker was quicker
                return
            joiner.wake()

    def part(self, farewell: Callable[[], None]) -> None:
        """Have a connection closed, after those before it; here and now if no thread can be had."""
        self.partings.append(farewell)
        self.see_off()

    def see_off(self) -> None:
        """Have somebody say the farewells that are due, unless somebody is at it.

        Who is at it holds the claim: if a signal strikes before the thread runs, the claim dies with this frame.
        """
        claim = Claim()
        with self.guard:
            if self.parting() is not None:
                return
            self.parting = weakref.ref(claim)
        if not self.start(lambda: self.say_farewells(claim), contextvars.Context()):
            self.say_farewells(claim)

    def say_farewells(self, claim: Claim) -> None:
        while claim is self.parting():
            while self.partings:
                self.partings.popleft()()
            with self.guard:
                if not self.partings:  # asked again under the guard: part() adds first and asks then
                    self.parting = nobody
                    return

    def join(self, until: float) -> bool:
        """Wait until no worker is left; False if some are at *until*, or none has ever been seen at work."""
        proof_by = self.runtime.clock() + PROOF_S
        if self.partings:  # a signal may have struck before anybody was at it
            self.see_off()
        while True:
            waiter = Waiter(self.runtime.new_lock)
            self.joiners.append(waiter)  # first: done() counts first and looks then
            if not self.working:
                return True
            left_s = (until if self.proven else min(until, proof_by)) - self.runtime.clock()
            if left_s <= 0:
                return False
            waiter.wait(left_s)


class AlarmClock:
    """One thread that calls ``pool._alarm_rang()`` when the pool's alarm is due; it holds the pool weakly."""

    def __init__(self, runtime: Runtime, crew: Crew, pool: Any) -> None:
        self.crew = crew
        self.guard = runtime.new_lock()
        self.bell = runtime.new_lock()  # released to make the thread look again
        self.bell.acquire()
        self.running = False
        self.pool = weakref.ref(pool, lambda _: self.nudge())

    def nudge(self) -> None:
        """Make the thread look again, soon; takes no lock, never raises, may be called from a finalizer."""
        try:
            self.bell.release()
        except RuntimeError:  # it has been told already
            return

    def arm(self) -> bool:
        """Tell the thread that the alarm was set anew; False if it cannot be started."""
        was_running = True
        try:
            with self.guard:
                was_running, self.running = self.running, True
            if was_running:
                self.nudge()
                return True
            if self.crew.start(self.run, contextvars.Context()):
                return True  # the thread may have ended by now: it sets ``running`` itself
        except BaseException:  # a signal's: rather two clocks for a moment than none
            if not was_running:
                self.running = False
            raise
        self.running = False
        return False

    def run(self) -> None:
        try:
            while self.sleep():
                pool = self.pool()
                if pool is not None:
                    pool._alarm_rang()
                del pool
        except BaseException:
            self.running = False  # the next alarm starts another thread: no failure leaves a pool without a clock
            raise

    def sleep(self) -> bool:
        """Sleep until there may be something to do; False when it is time to end."""
        due_s = self.due_s()
        if 0 < due_s < FOREVER:
            self.bell.acquire(timeout=min(due_s, _thread.TIMEOUT_MAX))
        elif due_s > 0 and self.pool() is not None:
            self.bell.acquire(timeout=LINGER_S)
        if self.due_s() < FOREVER:
            return True
        self.running = False
        if self.due_s() == FOREVER:  # arm() looks at ``running`` after the alarm was set: it starts another thread
            return False
        with self.guard:
            others, self.running = self.running, True
        return not others

    def due_s(self) -> float:
        """Return the seconds until the alarm is due; for ever, if it is not set or the pool is no more."""
        pool = self.pool()
        due_s: float = FOREVER if pool is None else pool._alarm_in()
        return due_s
