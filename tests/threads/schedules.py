"""The real thread shell, stepped: every schedule with at most two preemptions, or a fair sample of them.

Threads of a scenario run one at a time.  A tracer stops each at the instructions that another thread could notice: in
the fast path bytecode by bytecode (those that touch more than locals), elsewhere at the lines that touch what is
shared.  At the n-th such point a schedule either hands over to another thread or has a finalizer run on the spot.
Locks are the scenario's own (a pool takes them from its ``runtime``); time stands still, so nothing that only a later
tick would mend is mended.

After each schedule: nobody waits for ever, no connection was lent twice at once, lent again after a drain or closed
twice, the ledger's invariants hold, and after ``close()`` everything that was opened is closed and counted so.

Run as a module it explores by itself: ``python -m tests.threads.schedules [limit] [scenario ...]``.
"""

from __future__ import annotations

import _thread
import dataclasses
import dis
import gc
import itertools
import logging
import random
import re
import sys
import types
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import millpond
import millpond.threads
from millpond._core import census, conversations, dials, ledger, upkeep
from millpond._core.audit import audit
from millpond._crew import AlarmClock, Runtime
from millpond.lease import Lease

from .doubles import NullConnection, NullDriver, start_tracing, trace_bytecodes

SHELL = sys.modules[millpond.Pool.__mro__[1].__module__]
CORE = (conversations, ledger, dials, census, upkeep)
FILES = {module.__file__ for module in (millpond.threads, SHELL, *CORE, sys.modules[AlarmClock.__module__])}
BY_BYTECODE = {millpond.Pool.connection.__code__, Lease.close.__code__}
SHARED = re.compile(
    r"idle|tickets|expires_at|\.state\b|lost|outbox|best_before|slots|_lock|closed|partings|door|post|yield"
)
INVISIBLE = re.compile(
    r"LOAD_(FAST|CONST|GLOBAL|CLOSURE|DEREF)|STORE_FAST|POP_TOP|DUP|SWAP|COPY|ROT|RESUME|PRECALL|NOP|CACHE|PUSH_|RETURN"
    r"|EXTENDED|JUMP_F|JUMP_AB"
)


class Lost(AssertionError):
    """Somebody waits for ever."""


class Killed(BaseException):
    """The schedule is over; a thread that still waits is sent home."""


def visible_points(code: types.CodeType) -> frozenset[int] | None:
    """Return where in *code* another thread may notice something; None: nowhere.

    Offsets of bytecodes in the fast path, elsewhere numbers of lines.
    """
    if code in BY_BYTECODE:
        return frozenset(i.offset for i in dis.get_instructions(code) if not INVISIBLE.match(i.opname))
    if code.co_filename not in FILES:
        return None
    source = Path(code.co_filename).read_text(encoding="utf-8").splitlines()
    lines = {line for _, _, line in code.co_lines() if line is not None}
    return frozenset(line for line in lines if SHARED.search(source[line - 1])) or None


class Points(dict[types.CodeType, "frozenset[int] | None"]):
    """The points of every code object, found once."""

    def __missing__(self, code: types.CodeType) -> frozenset[int] | None:
        found = self[code] = visible_points(code)
        return found


POINTS = Points()


class Worker:
    """A thread kept for one scenario after another: starting one costs more than most schedules."""

    free: ClassVar[list[Worker]] = []

    def __init__(self) -> None:
        self.go = _thread.allocate_lock()
        self.go.acquire()
        self.job: Callable[[], None] | None = None
        _thread.start_new_thread(self.run, ())

    @classmethod
    def hire(cls, job: Callable[[], None]) -> Worker:
        """Return a worker that runs *job* when it is let go."""
        worker = cls.free.pop() if cls.free else cls()
        worker.job = job
        return worker

    def run(self) -> None:
        """Run one job after another."""
        while True:
            self.go.acquire()
            assert self.job is not None
            self.job()


class Actor:
    """One thread of a scenario."""

    def __init__(self, world: World, work: Callable[[], object], *, caller: bool) -> None:
        self.world = world
        self.work = work
        self.caller = caller
        self.blocked_on: StepLock | None = None
        self.done = False
        self.worker: Worker | None = None

    @property
    def ready(self) -> bool:
        """Could it go on now?"""
        return not self.done and (self.blocked_on is None or not self.blocked_on.held)

    def go(self) -> None:
        """Let it run until it hands back."""
        if self.worker is None:
            self.worker = Worker.hire(self.run)
        world = self.world
        world.current = self
        self.worker.go.release()
        if not world.back.acquire(timeout=world.patience_s):
            raise Lost("a thread is blocked outside the scenario's own locks")

    def hand_back(self) -> None:
        """Stop here until let run again."""
        assert self.worker is not None
        self.world.back.release()
        self.worker.go.acquire()
        if self.world.over:
            raise Killed

    def run(self) -> None:
        """Be traced, work, and hand back for good."""
        world, worker = self.world, self.worker
        assert worker is not None
        start_tracing(world.trace_call)
        try:
            self.work()
        except Killed:
            pass
        except BaseException as error:  # noqa: BLE001  the scenario's own thread raises it
            world.errors.append(error)
        finally:
            sys.settrace(None)
            self.done = True
            self.worker = None
            Worker.free.append(worker)
            world.back.release()


class StepLock:
    """A lock that lets the scenario's scheduler go on when it cannot be had."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.held = False

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        """Take it, or let others go on until it is free; time never passes."""
        while self.held:
            if not blocking or self.world.over:
                return False
            me = self.world.current
            me.blocked_on = self
            me.hand_back()
            me.blocked_on = None
        self.held = True
        return True

    def release(self) -> None:
        """Let go."""
        if not self.held:
            raise RuntimeError("release unlocked lock")
        self.held = False

    def locked(self) -> bool:
        """Say whether anybody has it."""
        return self.held

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(self, *exc: object) -> None:
        self.release()


@dataclass(frozen=True)
class Schedule:
    """What happens at which point: the number of the other ready thread to go on with, or the finalizer."""

    switches: dict[int, int] = field(default_factory=dict)
    finalizer_at: int | None = None

    def __str__(self) -> str:
        return f"switches={self.switches} finalizer_at={self.finalizer_at}"


class World:
    """One run of a scenario under one schedule."""

    patience_s = 10.0  # a worker that does not hand back within this hangs

    def __init__(self, schedule: Schedule) -> None:
        self.schedule = schedule
        self.point = 0
        self.most_others = 0  # threads that could have gone on instead, at most
        self.counting = False
        self.actors: list[Actor] = []
        self.errors: list[BaseException] = []
        self.back = _thread.allocate_lock()
        self.back.acquire()
        self.over = False
        self.current: Actor = None  # type: ignore[assignment]  # set before anything runs
        self.finalize: Callable[[], None] | None = None

    # -- the pool's host
    def runtime(self) -> Runtime:
        """Return the runtime of the scenario's pool."""
        return Runtime(clock=lambda: 100.0, new_lock=lambda: StepLock(self), start=self.start, jitter=lambda: 0.0)

    def start(self, work: Callable[[], None]) -> None:
        """Start a thread that no caller waits for."""
        self.actors.append(Actor(self, work, caller=False))

    # -- stepping
    # ruff: noqa: D102  tracers are what sys.settrace says
    def trace_call(self, frame: types.FrameType, event: str, arg: object) -> Any:
        if POINTS[frame.f_code] is None:
            return None
        if frame.f_code in BY_BYTECODE:
            trace_bytecodes(frame, self.trace_bytecode)
            return self.trace_bytecode
        return self.trace_line

    def trace_bytecode(self, frame: types.FrameType, event: str, arg: object) -> Any:
        if event == "opcode" and frame.f_lasti in POINTS[frame.f_code]:  # type: ignore[operator]  # see trace_call
            self.pass_point()
        return self.trace_bytecode

    def trace_line(self, frame: types.FrameType, event: str, arg: object) -> Any:
        if event == "line" and frame.f_lineno in POINTS[frame.f_code]:  # type: ignore[operator]  # see trace_call
            self.pass_point()
        return self.trace_line

    def pass_point(self) -> None:
        """Do what the schedule says about this point."""
        if not self.counting or self.over:
            return
        self.point += 1
        me = self.current
        if not self.schedule.switches:
            self.most_others = max(self.most_others, sum(actor.ready for actor in self.actors if actor is not me))
        if self.point == self.schedule.finalizer_at and self.finalize is not None:
            self.finalize()
        choice = self.schedule.switches.get(self.point)
        if choice is None:
            return
        others = [actor for actor in self.actors if actor is not me and actor.ready]
        if others:
            self.wanted = others[choice % len(others)]
            me.hand_back()

    wanted: Actor | None = None

    def play(self, *works: Callable[[], object]) -> None:
        """Run callers, and whatever threads the pool starts, until none can go on; every caller must have ended."""
        callers = [Actor(self, work, caller=True) for work in works]
        self.actors[:0] = callers
        while True:
            ready = [actor for actor in self.actors if actor.ready]
            if not ready:
                break
            wanted, self.wanted = self.wanted, None
            chosen = wanted if wanted in ready else self.current if self.current in ready else ready[0]
            assert chosen is not None
            chosen.go()
        stuck = [actor for actor in callers if not actor.done]
        self.actors = [actor for actor in self.actors if not actor.done]
        if self.errors:
            raise self.errors[0]
        if stuck:
            raise Lost(f"{len(stuck)} of {len(callers)} threads wait for ever")

    def end(self) -> str:
        """Send home whoever still waits; return what is wrong with one who does not go."""
        self.over = True
        for actor in self.actors:
            while actor.worker is not None and not actor.done:
                try:
                    actor.go()
                except Lost as error:
                    return f"Lost: {error}"
        return ""


class Stage:
    """A pool on a stepped host, and what a scenario notes about it."""

    def __init__(self, world: World, *, with_gil: bool = True, **settings: Any) -> None:
        self.world = world
        self.driver = NullDriver()
        self.in_use: set[NullConnection] = set()
        self.retired: set[NullConnection] = set()  # whatever was open when a drain returned
        self.pool: millpond.Pool[NullConnection] = millpond.Pool(
            self.driver,
            runtime=dataclasses.replace(world.runtime(), with_gil=with_gil),
            **{"reset": "none", "max_size": 1, "check_after": None, **settings},
        )

    # -- what callers do
    def take(self) -> Lease[NullConnection]:
        """Check out, and note it."""
        retired = set(self.retired)
        lease = self.pool.connection()
        conn = lease.driver_connection
        assert conn not in self.in_use, f"{conn} is lent twice"
        assert conn not in retired, f"{conn} was lent after it was drained"
        self.in_use.add(conn)
        return lease

    def give(self, lease: Lease[NullConnection]) -> None:
        """Give back, and note it."""
        self.in_use.discard(lease.driver_connection)
        lease.close()

    def use(self) -> None:
        """Check out, and give back."""
        self.give(self.take())

    def use_or_be_refused(self) -> None:
        """Check out and give back, unless the pool is closed."""
        try:
            self.use()
        except millpond.PoolClosed:
            return

    def drain(self) -> None:
        """Drain, and note what must not be lent from now on."""
        before = set(self.driver.opened)
        self.pool.drain()
        self.retired |= before

    def holding(self, count: int = 1) -> list[Lease[NullConnection]]:
        """Return so many leases, taken before the scenario begins."""
        leases: list[Lease[NullConnection]] = []
        self.world.play(lambda: leases.extend([self.take() for _ in range(count)]))
        return leases

    def idling(self, count: int = 1) -> None:
        """Have so many connections idle before the scenario begins."""
        leases = self.holding(count)

        def give_all() -> None:
            while leases:
                self.give(leases.pop())

        self.world.play(give_all)

    # -- what must hold
    def prove(self) -> None:
        """Assert what must hold at rest, and after ``close()``."""
        self.world.counting = False
        books = self.pool._ledger
        books.recover(100.0)
        self.world.play(self.pool._deliver)
        audit(books)
        live = list(books.live())
        assert not books.tickets, f"tickets are left: {list(books.tickets)}"
        assert len(live) == len(books.slots), "a slot is in the books and held by nobody"
        assert not [slot.conn for slot in live if slot.conn in self.retired], "a drained connection is idle"
        open_now = {slot.conn for slot in live if slot.conn is not None}
        assert self.driver.left_open == open_now, f"open: {self.driver.left_open}, in the books: {open_now}"
        self.world.play(lambda: self.pool.close(0))
        gc.collect(0)
        assert not self.driver.left_open, f"never closed: {self.driver.left_open}"
        assert len(set(self.driver.closed)) == len(self.driver.closed), f"closed twice: {self.driver.closed}"
        told = self.pool.stats()
        assert told.opened == told.closed == len(self.driver.opened), f"opened {told.opened}, closed {told.closed}"


Scenario = Callable[[World], None]


def act(world: World, stage: Stage, *works: Callable[[], object]) -> None:
    """Play the part of a scenario that schedules cut into."""
    world.counting = True
    world.play(*works)
    stage.prove()


# -- scenarios ---------------------------------------------------------------------------------------------------------
def return_and_checkout(world: World) -> None:
    """A return and a checkout, with room for one."""
    stage = Stage(world)
    (lease,) = stage.holding()
    act(world, stage, lambda: stage.give(lease), stage.use)


def two_waiters_and_a_return(world: World) -> None:
    """Two callers and a return, with room for one."""
    stage = Stage(world)
    (lease,) = stage.holding()
    act(world, stage, lambda: stage.give(lease), stage.use, stage.use)


def return_and_close(world: World) -> None:
    """A return while the pool is closed and waits for it."""
    stage = Stage(world)
    (lease,) = stage.holding()
    act(world, stage, lambda: stage.give(lease), stage.pool.close)


def return_and_cut(world: World) -> None:
    """A return while the pool is closed without waiting."""
    stage = Stage(world)
    (lease,) = stage.holding()
    act(world, stage, lambda: stage.give(lease), lambda: stage.pool.close(0))


def checkout_and_close(world: World) -> None:
    """A checkout while the pool is closed."""
    stage = Stage(world)
    stage.idling()
    act(world, stage, stage.use_or_be_refused, stage.pool.close)


def checked_checkout_and_close(world: World) -> None:
    """A checkout of a connection that must prove its life first, while the pool is closed."""
    stage = Stage(world, check_after=0)
    stage.idling()
    act(world, stage, stage.use_or_be_refused, stage.pool.close)


def drain_and_return(world: World) -> None:
    """A return while the pool is drained, and a caller who waits."""
    stage = Stage(world)
    (lease,) = stage.holding()
    act(world, stage, lambda: stage.give(lease), stage.drain, stage.use)


def drain_and_checkout(world: World) -> None:
    """Two checkouts, one after another, while the pool is drained."""
    stage = Stage(world)
    stage.idling()

    def twice() -> None:
        stage.use()
        stage.use()

    act(world, stage, twice, stage.drain)


def drain_and_checked_checkout(world: World) -> None:
    """A drain while a connection proves its life for a caller."""
    stage = Stage(world, check_after=0)
    stage.idling()
    act(world, stage, stage.use, stage.drain, stage.use)


def shrink_and_return(world: World) -> None:
    """Two returns and a checkout while the pool is made smaller."""
    stage = Stage(world, max_size=2)
    first, second = stage.holding(2)

    def give_both() -> None:
        stage.give(first)
        stage.give(second)

    act(world, stage, give_both, lambda: stage.pool.resize(1), stage.use)


def grow_and_checkout(world: World) -> None:
    """A caller waits while the pool is made larger and a connection comes back."""
    stage = Stage(world)
    (lease,) = stage.holding()
    act(world, stage, stage.use, lambda: stage.pool.resize(2), lambda: stage.give(lease))


def double_close(world: World) -> None:
    """One lease closed by two threads at once, beside a caller."""
    stage = Stage(world)
    (lease,) = stage.holding()
    stage.in_use.clear()
    act(world, stage, lease.close, lease.close, stage.use)


def finalizer(world: World) -> None:
    """A dropped lease, finalized in the middle of whatever runs, while another is returned and a caller comes."""
    stage = Stage(world, max_size=2)
    dropped, kept = stage.holding(2)
    stage.in_use.discard(dropped.driver_connection)
    cell = [dropped]
    world.finalize = cell.clear
    del dropped

    def end() -> None:
        cell.clear()
        stage.use()

    act(world, stage, lambda: stage.give(kept), stage.use, end)


def cold_burst(world: World) -> None:
    """Two callers of a pool that has no connection yet: dialers and callers at once."""
    stage = Stage(world, max_size=2)
    act(world, stage, stage.use, stage.use)


def returns_need_cleaning(world: World) -> None:
    """Returns that need a reset, with two callers and room for one."""
    stage = Stage(world, reset="auto")
    (lease,) = stage.holding()
    act(world, stage, lambda: stage.give(lease), stage.use, stage.use)


def without_gil(world: World) -> None:
    """A return, a checkout and a close on an interpreter without the GIL, where all of it goes through the lock."""
    stage = Stage(world, with_gil=False)
    (lease,) = stage.holding()
    act(world, stage, lambda: stage.give(lease), stage.use_or_be_refused, stage.pool.close)


SCENARIOS: tuple[Scenario, ...] = (
    return_and_checkout,
    two_waiters_and_a_return,
    return_and_close,
    return_and_cut,
    checkout_and_close,
    checked_checkout_and_close,
    drain_and_return,
    drain_and_checkout,
    drain_and_checked_checkout,
    shrink_and_return,
    grow_and_checkout,
    double_close,
    finalizer,
    cold_burst,
    returns_need_cleaning,
    without_gil,
)


# -- exploring ---------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Found:
    """What exploring a scenario has come to."""

    schedules: int
    points: int
    complete: bool
    violation: str = ""


def play(scenario: Scenario, schedule: Schedule) -> tuple[World, str]:
    """Run a scenario under a schedule; return the world at its end, and what was wrong."""
    world = World(schedule)
    try:
        scenario(world)
    except Exception as error:  # noqa: BLE001  whatever it is, the shell did not hold
        return world, f"{type(error).__name__}: {error} [{schedule}]"
    finally:
        violation = world.end()
    return world, f"{violation} [{schedule}]" if violation else ""


def schedules_for(scenario: Scenario, seed: int) -> Iterator[Schedule]:
    """Yield schedules: none, every one with one event, then those with two; shuffled, but the same each time."""
    world, _ = play(scenario, Schedule())
    points, others = world.point, max(1, world.most_others)
    yield Schedule()
    finalizers = scenario is finalizer
    choices = range(others)
    ones = [Schedule({at: choice}) for at in range(1, points + 10) for choice in choices]
    if finalizers:
        ones += [Schedule(finalizer_at=at) for at in range(1, points + 10)]
    random.Random(seed).shuffle(ones)
    yield from ones
    twos = [
        Schedule({first: a, second: b})
        for first, second in itertools.combinations(range(1, points + 30), 2)
        for a, b in itertools.product(choices, repeat=2)
    ]
    if finalizers:
        twos += [
            Schedule({at: choice}, there)
            for at in range(1, points + 10)
            for there in range(1, points + 10)
            for choice in choices
        ]
    random.Random(seed).shuffle(twos)
    yield from twos


def explore(scenario: Scenario, limit: int, seed: int = 1) -> Found:
    """Run a scenario under at most *limit* schedules, until one shows a violation."""
    points, count = 0, 0
    gc.collect()
    for schedule in schedules_for(scenario, seed):
        if count >= limit:
            return Found(count, points, complete=False)
        count += 1
        world, violation = play(scenario, schedule)
        points = max(points, world.point)
        if violation:
            return Found(count, points, complete=False, violation=violation)
    return Found(count, points, complete=True)


def main(names: list[str]) -> int:
    """Explore the named scenarios, or all; return how many have a violation."""
    warnings.simplefilter("ignore")  # of leases that a finalizer found: thousands
    logging.disable()
    limit = int(names.pop(0)) if names and names[0].isdigit() else 2000
    chosen = [scenario for scenario in SCENARIOS if not names or scenario.__name__ in names]
    bad = 0
    for scenario in chosen:
        found = explore(scenario, limit)
        bad += bool(found.violation)
        verdict = found.violation or "holds"
        told = f"{scenario.__name__:28} {found.schedules:6} schedules, {found.points:4} points: {verdict}\n"
        sys.stdout.write(told)
        sys.stdout.flush()
    return bad


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
