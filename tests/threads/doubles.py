"""Doubles for the tests of the thread shell: drivers that open plain objects, and the host's runtime, partly replaced.

They stand on public names only: an adapter is a subclass of :class:`millpond.drivers.base.Driver`, and clocks, locks
and threads come to a pool by its ``runtime``.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import os
import sqlite3
import subprocess
import sys
import textwrap
import threading
import time
import types
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, ClassVar

from millpond._core.states import Fault
from millpond._crew import LockLike, Runtime
from millpond.drivers.base import Driver

DEADLINE_S = 10.0  # what a test waits for happens within this, or it fails


class NullConnection:
    """A connection to nowhere."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.thread_id = threading.get_ident()
        self.committed = 0
        self.rolled_back = 0
        self.label = "new"

    def cursor(self, *args: Any, **kwargs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return what it was asked with."""
        return args, kwargs

    def commit(self) -> None:
        """Count."""
        self.committed += 1

    def rollback(self) -> None:
        """Count."""
        self.rolled_back += 1

    def __repr__(self) -> str:
        return f"<connection {self.number}>"


class NullDriver(Driver[NullConnection]):
    """A driver whose connections are plain objects, and which keeps a list of all that it opened and closed."""

    name = "null"
    tracks_cursors = False

    def __init__(self) -> None:
        self.numbers = itertools.count(1)  # drawn at once: dialers open side by side
        self.opened: list[NullConnection] = []
        self.closed: list[NullConnection] = []
        self.resets: list[NullConnection] = []
        self.checked: list[NullConnection] = []
        self.cuts: list[NullConnection] = []
        self.dead: set[NullConnection] = set()

    def open(self, until: float) -> NullConnection:
        """Open the next connection."""
        conn = NullConnection(next(self.numbers))
        self.opened.append(conn)
        return conn

    def is_alive(self, conn: NullConnection, until: float) -> bool:
        """Say so, unless a test has killed it."""
        self.checked.append(conn)
        return conn not in self.dead

    def reset(self, conn: NullConnection, until: float) -> bool:
        """Note it."""
        self.resets.append(conn)
        return True

    def close(self, conn: NullConnection) -> None:
        """Note it."""
        self.closed.append(conn)

    def cut(self, conn: NullConnection) -> bool:
        """Note it."""
        self.cuts.append(conn)
        return True

    @property
    def left_open(self) -> set[NullConnection]:
        """What was opened and not closed."""
        return set(self.opened) - set(self.closed)

    def __repr__(self) -> str:
        return "<null driver>"


class ServerGone(sqlite3.OperationalError):
    """What a connect raises while no server answers."""


class BadPassword(sqlite3.OperationalError):
    """What a connect raises for wrong credentials."""


class ServerFull(sqlite3.OperationalError):
    """What a connect raises when the server has no room."""


FAULTS: dict[type[BaseException], Fault] = {
    ServerGone: Fault.REFUSED,
    BadPassword: Fault.CREDENTIALS,
    ServerFull: Fault.SERVER_FULL,
}


class FamilyDriver(NullDriver):
    """A null driver of a family (sqlite3's exception classes) that fails as it is told."""

    module: types.ModuleType | None = sqlite3

    def __init__(self) -> None:
        super().__init__()
        self.failing: BaseException | None = None  # raised by every dial, a copy of it each time
        self.attempts = 0
        self.changed = threading.Condition()

    def open(self, until: float) -> NullConnection:
        """Open the next one, or fail as told."""
        with self.changed:
            self.attempts += 1
            failing = self.failing
            self.changed.notify_all()
        if failing is not None:
            raise type(failing)(*failing.args)
        return super().open(until)

    def await_attempts(self, count: int) -> None:
        """Wait until *count* dials have been attempted."""
        with self.changed:
            assert self.changed.wait_for(lambda: self.attempts >= count, DEADLINE_S)

    def classify(self, error: BaseException) -> Fault:
        """Sort by class."""
        return FAULTS.get(type(error), Fault.GONE)


class GatedDriver(FamilyDriver):
    """Dials that wait at a gate; opened by the test, for so many."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = threading.Semaphore(0)
        self.begun = threading.Semaphore(0)

    def open(self, until: float) -> NullConnection:
        """Wait to be let through."""
        self.begun.release()
        self.gate.acquire()
        return super().open(until)


def runtime_with(
    *,
    clock: Callable[[], float] | None = None,
    new_lock: Callable[[], LockLike] | None = None,
    start: Callable[[Callable[[], None]], None] | None = None,
    jitter: Callable[[], float] | None = None,
    with_gil: bool | None = None,
) -> Runtime:
    """Return the host's runtime with some parts replaced."""
    host = Runtime.of_host()
    return dataclasses.replace(
        host,
        clock=clock or host.clock,
        new_lock=new_lock or host.new_lock,
        start=start or host.start,
        jitter=jitter or host.jitter,
        with_gil=host.with_gil if with_gil is None else with_gil,
    )


class Host:
    """A host whose time stands still until :meth:`advance`; its threads are real, its locks wait on its clock.

    ``settle`` and ``advance`` return when every thread of the host is blocked or has ended: all that was going to
    happen has.
    """

    def __init__(self) -> None:
        self.now = 1000.0
        self.changed = threading.Condition()
        self.busy = 0  # threads of this host that are running
        self.ours: set[int] = set()
        self.failures: list[BaseException] = []

    def clock(self) -> float:
        """Read the clock."""
        return self.now

    def runtime(self) -> Runtime:
        """Return what to hand to a pool; lifetimes are not spread."""
        return Runtime(clock=self.clock, new_lock=lambda: HostLock(self), start=self.start, jitter=lambda: 0.0)

    def start(self, work: Callable[[], object]) -> None:
        """Start a thread of the host."""
        with self.changed:
            self.busy += 1
        threading.Thread(target=self._run, args=(work,), daemon=True).start()

    def run(self, work: Callable[[], object]) -> None:
        """Run *work* in a thread of the host, and whatever else it sets going, until all is at rest."""
        self.start(work)
        self.settle()

    def _run(self, work: Callable[[], object]) -> None:
        with self.changed:
            self.ours.add(threading.get_ident())
        try:
            work()
        except BaseException as error:  # noqa: BLE001  settle() raises it where the test sees it
            self.failures.append(error)
        finally:
            with self.changed:
                self.ours.discard(threading.get_ident())
                self.busy -= 1
                self.changed.notify_all()

    def settle(self) -> None:
        """Wait until every thread of the host is blocked or has ended."""
        with self.changed:
            assert self.changed.wait_for(lambda: not self.busy, DEADLINE_S), "a thread does not come to rest"
        if self.failures:
            raise self.failures.pop()

    def advance(self, seconds: float, step: float = 0.25) -> None:
        """Let time pass in steps, and everything happen that is due in between."""
        until = self.now + seconds
        self.settle()
        while self.now < until:
            with self.changed:
                self.now = min(until, self.now + step)
                self.changed.notify_all()
                self._wake_sleepers()
            self.settle()

    def _wake_sleepers(self) -> None:
        for lock in list(HostLock.sleeping):
            lock.ring()


class HostLock:
    """A lock whose time-outs are on its host's clock."""

    sleeping: ClassVar[set[HostLock]] = set()

    def __init__(self, host: Host) -> None:
        self.host = host
        self.held = False
        self.until: list[float] = []
        self.woken = 0

    def ring(self) -> None:
        """Count sleepers whose time is up as running, before they run: the host must not seem at rest meanwhile."""
        due = [until for until in self.until if until <= self.host.now]
        for until in due:
            self.until.remove(until)
            self.host.busy += 1
        self.woken += len(due)
        if not self.until:
            HostLock.sleeping.discard(self)

    def locked(self) -> bool:
        """Say whether anybody has it."""
        return self.held

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        """Take it, or sleep."""
        host = self.host
        with host.changed:
            if not self.held:
                self.held = True
                return True
            if not blocking or timeout == 0:
                return False
            return self._sleep(host, host.now + timeout if timeout > 0 else float("inf"))

    def _sleep(self, host: Host, until: float) -> bool:
        ours = threading.get_ident() in host.ours
        if not ours:  # the test's own thread: it is waited for by nobody
            while self.held and host.now < until:
                assert host.changed.wait(DEADLINE_S), "the test itself waits for what does not happen"
            if self.held:
                return False
            self.held = True
            return True
        self.until.append(until)
        HostLock.sleeping.add(self)
        host.busy -= 1
        host.changed.notify_all()
        while True:
            host.changed.wait()
            if self.woken:
                self.woken -= 1
                if self.held and host.now < until:  # another was quicker
                    return self._sleep(host, until)
                taken = not self.held
                self.held = True
                return taken

    def release(self) -> None:
        """Let go."""
        with self.host.changed:
            if not self.held:
                raise RuntimeError("release unlocked lock")
            self.held = False
            if self.until:
                self.until.pop(0)
                self.host.busy += 1
                self.woken += 1
                if not self.until:
                    HostLock.sleeping.discard(self)
            self.host.changed.notify_all()

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(self, *exc: object) -> None:
        self.release()


def trace_bytecodes(frame: types.FrameType, tracer: Callable[..., Any]) -> None:
    """Have *tracer* called in front of each bytecode of a frame, from its call event on."""
    frame.f_trace = tracer  # Python 3.13 does not listen to the next line before there is a tracer
    frame.f_trace_opcodes = True
    frame.f_trace_lines = False


def start_tracing(tracer: Callable[..., Any]) -> None:
    """Trace the calls of this thread, bytecode by bytecode if it wants them."""
    if not Primed.done:
        Primed.done = True
        sys.settrace(Primed.trace)
        Primed.trace_me()
    sys.settrace(tracer)


class Primed:
    """Python 3.12 asks at settrace() whether any frame has ever wanted bytecodes: one has."""

    done = False

    @staticmethod
    def trace(frame: types.FrameType, event: str, arg: object) -> Any:
        """Want them."""
        trace_bytecodes(frame, Primed.trace)
        return Primed.trace

    @staticmethod
    def trace_me() -> None:
        """Be the frame."""


def in_threads(*jobs: Callable[[], Any]) -> list[Any]:
    """Run the jobs in a thread each; return what they return or raise, in their order."""
    answers: list[Any] = [None] * len(jobs)

    def work(place: int, job: Callable[[], Any]) -> None:
        try:
            answers[place] = job()
        except BaseException as error:  # noqa: BLE001  it is the answer
            answers[place] = error

    threads = [threading.Thread(target=work, args=item, daemon=True) for item in enumerate(jobs)]
    for thread in threads:
        thread.start()
    join(threads)
    return answers


def until(reached: Callable[[], object], what: str = "it") -> None:
    """Wait until something holds that nobody announces, but not for ever."""
    nobody = threading.Event()
    deadline_at = time.monotonic() + DEADLINE_S
    while not reached():
        assert time.monotonic() < deadline_at, f"{what} did not come to be"
        nobody.wait(0.001)


def has_waiting(pool: Any, number: int) -> bool:
    """Say whether so many callers wait, or more."""
    waiting: int = pool.stats().waiting
    return waiting >= number


def queue_up(pool: Any, jobs: Iterable[Callable[[], Any]]) -> list[threading.Thread]:
    """Start a thread for each job, which asks the pool for a connection that is not there; they wait in this order."""
    threads: list[threading.Thread] = []
    waiting = pool.stats().waiting
    for place, job in enumerate(jobs, start=1):
        threads.append(threading.Thread(target=job, daemon=True))
        threads[-1].start()
        until(functools.partial(has_waiting, pool, waiting + place), "a place in the queue")
    return threads


def join(threads: Iterable[threading.Thread]) -> None:
    """Wait for threads, but not for ever."""
    for thread in threads:
        thread.join(DEADLINE_S)
        assert not thread.is_alive(), f"{thread.name} does not end"


def run_program(text: str, *arguments: str, seconds: float = 30.0) -> str:
    """Run a program in a process of its own, in which these doubles can be imported; return what it prints.

    It must end by itself, in time, and without an error.
    """
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    run = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(text), *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )
    assert 0 == run.returncode, run.stderr
    return run.stdout
