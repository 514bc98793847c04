"""The threads of a pool: an alarm clock, and short-lived workers for whatever may take time.

None of them is alive without need: a pool at rest has at most its alarm clock, a pool that is closed has none.  All are
daemons, so a program that forgets to close ends at once.  Locks and threads are taken from a :class:`Runtime`, which is
looked up when a pool is made and not when this module is imported: gevent may patch in between.

Rules: nothing in here knows slots or tickets.  :meth:`AlarmClock.nudge` is called from finalizers: it takes no lock.
"""

from __future__ import annotations

import _thread
import contextvars
import functools
import random
import sys
import time
import types
import weakref
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from ._core.states import FOREVER

PROOF_S = 0.25  # where no worker was ever seen at work, none is waited for longer than this
LINGER_S = 5.0  # an alarm clock with nothing to do ends after so long; starting it again costs some 0.1 ms
FAREWELLS = 2  # times that a connection is closed if a signal interrupts it: half closed is better than in the way


class LockLike(Protocol):
    """A ``_thread.lock``, or what a patched host has in its place."""

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool: ...
    def release(self) -> None: ...
    def locked(self) -> bool: ...
    def __enter__(self) -> bool: ...
    def __exit__(self, *exc: object) -> None: ...


def always_has_gil() -> bool:
    """Answer for interpreters that cannot be asked: all of them have one."""
    return True


def stay() -> None:
    """Go on: nobody waits for this thread's turn."""


@dataclass(frozen=True)
class Runtime:
    """What a pool takes from the host it runs on.

    Args:
        clock: seconds on a clock that never goes back.
        new_lock: makes a lock that any thread may release.
        start: starts a daemon thread; raises RuntimeError where that is not possible.
        jitter: a number in [0, 1), drawn anew at each call.
        with_gil: only one thread runs Python code at a time; without that, nothing is done outside the pool's lock.
        step_aside: lets another thread run that waits for nothing but its turn.
    """

    clock: Callable[[], float]
    new_lock: Callable[[], LockLike]
    start: Callable[[Callable[[], None]], None]
    jitter: Callable[[], float]
    with_gil: bool = True
    step_aside: Callable[[], object] = stay

    @classmethod
    def of_host(cls) -> Runtime:
        """Return this host's runtime, as it is patched now."""
        start_new_thread = _thread.start_new_thread
        allocate_lock: Callable[[], Any] = _thread.allocate_lock
        threads = isinstance(time.sleep, types.BuiltinFunctionType)  # patched, it would switch greenlets in a close()
        return cls(
            clock=time.monotonic,
            new_lock=allocate_lock,
            # Not threading.Thread: its start() waits for the thread to run, which on some hosts it never does.
            start=lambda work: void(start_new_thread(work, ())),
            jitter=random.random,
            with_gil=getattr(sys, "_is_gil_enabled", always_has_gil)(),
            step_aside=functools.partial(time.sleep, 0) if threads else stay,
        )


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


class Post:
    """A place that one holder has at a time.

    It is taken by one operation and left by another, neither of which a signal can cut in two; and who holds it is
    known before it is taken, so that it can be left even where the answer never arrived.  A lock promises neither.
    """

    __slots__ = ("_holders",)

    def __init__(self) -> None:
        self._holders: dict[str, object] = {}

    def take(self, holder: object) -> bool:
        """Take it, unless somebody else has it; False then."""
        return self._holders.setdefault("holder", holder) is holder

    def leave(self, holder: object) -> None:
        """Leave it, if *holder* has it; nobody else does that in its name."""
        if self._holders.get("holder") is holder:
            self._holders.clear()

    @property
    def is_held(self) -> bool:
        return bool(self._holders)


class Job:
    """Work for a thread of its own: done by that thread, or called off by whoever asked for it, never both."""

    __slots__ = ("_fate", "context", "work")

    def __init__(self, work: Callable[[], object], context: contextvars.Context) -> None:
        self.work = work
        self.context = context
        self._fate = Post()

    def begin(self) -> bool:
        """Say, in the thread, whether the work is still to be done."""
        return self._fate.take(Job.begin)

    def call_off(self) -> bool:
        """Say whether no thread will ever do the work, from now on; False if one is at it."""
        return self._fate.take(Job.call_off)


class Farewell:
    """The closing of one connection, and how often that was tried."""

    __slots__ = ("say", "tries")

    def __init__(self, say: Callable[[], None]) -> None:
        self.say = say
        self.tries = 0


class Crew:
    """Short-lived workers: one thread a job, and one at a time for closing connections.

    It takes no lock: whatever a signal interrupts in here is put right by the ``except`` around it, or is as if it had
    never begun.
    """

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime
        self.proven = False  # a worker has been seen at work: on some hosts threads start and never run
        self.jobs: set[Job] = set()  # under way
        self.joiners: deque[Waiter] = deque()
        self.partings: deque[Farewell] = deque()
        self.door = Post()  # whoever closes connections now

    def start(self, work: Callable[[], object], context: contextvars.Context) -> bool:
        """Do *work* in a thread of its own, in a copy of *context*; False if the host refuses to start one."""
        job = Job(work, context)
        try:
            return self.send(job)
        except BaseException:  # a signal's
            self.call_off(job)
            raise

    def man(self, post: Post, work: Callable[[object], None]) -> bool:
        """Have a thread take a post and do its work, unless somebody has it; False if no thread can be had.

        Args:
            post: what only one thread at a time is to be at.
            work: is handed the holder of the post, in whose name it has to leave it at the end.
        """
        holder = object()
        job = Job(lambda: work(holder), contextvars.Context())
        try:
            if not post.take(holder) or self.send(job):
                return True
            post.leave(holder)
        except BaseException:  # a signal's
            if self.call_off(job):
                post.leave(holder)
            raise
        return False

    def send(self, job: Job) -> bool:
        """Start a thread for a job; whoever is interrupted in here calls the job off."""
        self.jobs.add(job)
        try:
            self.runtime.start(lambda: self.do(job))
        except RuntimeError:  # no more threads, or the interpreter is on its way out
            if not self.call_off(job):  # a signal's: the thread is there
                raise
            return False
        return True

    def call_off(self, job: Job) -> bool:
        """See to it that no thread does the job; False if one is at it."""
        if not job.call_off():
            return False
        self.done(job)
        return True

    def do(self, job: Job) -> None:
        try:
            self.proven = True
            if job.begin():
                job.context.copy().run(job.work)
            self.done(job)
        except BaseException:
            self.done(job)
            raise

    def done(self, job: Job) -> None:
        self.jobs.discard(job)
        for joiner in self.joiners.copy():
            joiner.wake()

    def part(self, say: Callable[[], None]) -> None:
        """Have a connection closed, after those before it; here and now if no thread can be had."""
        self.partings.append(Farewell(say))
        self.see_off()

    def see_off(self) -> None:
        """Have somebody say the farewells that are due, unless somebody is at it."""
        if not self.man(self.door, self.say_farewells):
            self.say_farewells(object())

    def say_farewells(self, holder: object) -> None:
        try:
            while self.door.take(holder):
                while self.partings:
                    self.say_next()
                self.door.leave(holder)
                if not self.partings:  # asked again after leaving: part() adds first and looks for somebody there then
                    return
        finally:
            self.door.leave(holder)

    def say_next(self) -> None:
        """Say the oldest farewell; one that was cut short by a signal is said once more."""
        farewell = self.partings[0]
        if farewell.tries < FAREWELLS:
            farewell.tries += 1
            farewell.say()
        self.partings.popleft()

    def join(self, until: float) -> bool:
        """Wait until no worker is left; False if some are at *until*, or none has ever been seen at work."""
        proof_by = self.runtime.clock() + PROOF_S
        if self.partings:  # a signal may have struck before anybody was at it
            self.see_off()
        waiter = Waiter(self.runtime.new_lock)
        self.joiners.append(waiter)  # first: done() strikes off first and looks then
        try:
            while self.jobs:
                left_s = (until if self.proven else min(until, proof_by)) - self.runtime.clock()
                if left_s <= 0:
                    return False
                waiter.wait(left_s)
            return True
        finally:
            self.joiners.remove(waiter)


class AlarmClock:
    """One thread that calls ``pool._alarm_rang()`` when the pool's alarm is due; it holds the pool weakly."""

    def __init__(self, runtime: Runtime, crew: Crew, pool: Any) -> None:
        self.crew = crew
        self.post = Post()  # whoever watches the time
        self.bell = runtime.new_lock()  # released to make the thread look again
        self.bell.acquire()
        self.pool = weakref.ref(pool, lambda _: self.nudge())

    def nudge(self) -> None:
        """Make the thread look again, soon; takes no lock, never raises, may be called from a finalizer."""
        try:
            self.bell.release()
        except RuntimeError:  # it has been told already
            return

    def arm(self) -> bool:
        """Tell the thread that the alarm was set anew; False if there is none, and it cannot be started."""
        self.nudge()
        return self.crew.man(self.post, self.watch)

    def watch(self, holder: object) -> None:
        try:
            while self.post.take(holder):
                while self.sleep():
                    self.ring()
                self.post.leave(holder)
                if self.due_s() == FOREVER:  # asked again after leaving: the alarm is set before arm() is called
                    return
        finally:  # the next alarm starts another thread: no failure leaves a pool without a clock
            self.post.leave(holder)

    def ring(self) -> None:
        pool = self.pool()
        if pool is not None:
            pool._alarm_rang()

    def sleep(self) -> bool:
        """Sleep until there may be something to do; False when it is time to end."""
        due_s = self.due_s()
        if 0 < due_s < FOREVER:
            self.bell.acquire(timeout=min(due_s, _thread.TIMEOUT_MAX))
        elif due_s > 0 and self.pool() is not None:
            self.bell.acquire(timeout=LINGER_S)
        return self.due_s() < FOREVER

    def due_s(self) -> float:
        """Return the seconds until the alarm is due; for ever, if it is not set or the pool is no more."""
        pool = self.pool()
        due_s: float = FOREVER if pool is None else pool._alarm_in()
        return due_s
