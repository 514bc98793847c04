"""An exception that a signal handler raises, at every bytecode of the fast path, and at real instants of the slow one.

A tracer raises where a handler would: in front of an instruction of :meth:`Pool.connection` or :meth:`Lease.close`.
Whatever was in the frame's hands then dies with the frame; afterwards the pool must serve its full size, close every
connection that it does not lend, and hold its invariants.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import logging
import signal
import sys
import threading
import types
import warnings
import weakref
from collections.abc import Callable
from typing import Any

import pytest

import millpond
from millpond import threads
from millpond._core.audit import audit
from millpond.lease import Lease
from tests.garbage import collect

from .doubles import DEADLINE_S, NullConnection, NullDriver, join
from .striking import SignalAt, SignalAtLook, Signalled, offsets, strike

SIZE = 2
PAIRS_MAX = 5000  # by then the signal has come, unless it struck in a finalizer, where what a handler raises is dropped


class Mortal(NullDriver):
    """A driver whose connections end when nobody holds them any more, as sockets do."""

    def __init__(self) -> None:
        super().__init__()
        self.live: weakref.WeakSet[NullConnection] = weakref.WeakSet()
        self.count = 0

    def open(self, until: float) -> NullConnection:
        """Open one."""
        self.count += 1
        conn = NullConnection(self.count)
        self.live.add(conn)
        return conn

    def reset(self, conn: NullConnection, until: float) -> bool:
        """Do nothing."""
        return True

    def close(self, conn: NullConnection) -> None:
        """End one."""
        self.live.discard(conn)

    @property
    def left_open(self) -> set[NullConnection]:
        """What is open."""
        return set(self.live)


# -- what is interrupted -----------------------------------------------------------------------------------------------
def checkout_and_return(pool: millpond.Pool[NullConnection]) -> None:
    """Take what is idle, and give it back."""
    lease = pool.connection()
    lease.close()


def with_block(pool: millpond.Pool[NullConnection]) -> None:
    """Take what is idle, and give it back at the end of a block."""
    with pool.connection():
        pass


def stale_checkout(pool: millpond.Pool[NullConnection]) -> None:
    """Take what must be checked first."""
    for slot in list(pool._ledger.idle):
        slot.best_before = 0.0
    pool.connection().close()


def cold_checkout(pool: millpond.Pool[NullConnection]) -> None:
    """Take more than is idle, so that a caller parks and a dialer works."""
    pool.drain()
    leases = [pool.connection() for _ in range(SIZE)]
    for lease in leases:
        lease.close()


def failed_block(pool: millpond.Pool[NullConnection]) -> None:
    """Give back by an exception."""
    with contextlib.suppress(LookupError), pool.connection():
        raise LookupError


def drained_return(pool: millpond.Pool[NullConnection]) -> None:
    """Give back what was drained meanwhile."""
    lease = pool.connection()
    pool.drain()
    lease.close()


def misuse(pool: millpond.Pool[NullConnection]) -> None:
    """Close twice."""
    lease = pool.connection()
    lease.close()
    lease.close()


def drain_and_dial(pool: millpond.Pool[NullConnection]) -> None:
    """Have connections closed, and others opened."""
    drained_return(pool)
    cold_checkout(pool)


WORKS: tuple[Callable[[millpond.Pool[NullConnection]], None], ...] = (
    checkout_and_return,
    with_block,
    stale_checkout,
    cold_checkout,
    failed_block,
    drained_return,
    misuse,
)
FUNCTIONS: dict[str, types.CodeType] = {
    "connection": millpond.Pool.connection.__code__,
    "close": Lease.close.__code__,
}


def new_pool(driver: NullDriver, reset: str = "none") -> millpond.Pool[NullConnection]:
    """Make a pool with one idle connection, and room for another."""
    pool = millpond.Pool(driver, max_size=SIZE, reset=reset, timeout=10, name="signalled")
    pool.connection().close()
    return pool


def assert_whole(pool: millpond.Pool[NullConnection], driver: NullDriver, where: str) -> None:
    """Assert that the pool serves its full size, and that nothing is open that it does not know."""
    leases = [pool.connection() for _ in range(SIZE)]
    with pool._lock:
        audit(pool._ledger)
    assert SIZE == len({lease.driver_connection.number for lease in leases}), where
    for lease in leases:
        lease.close()
    pool.close()
    assert not driver.left_open, where


@pytest.mark.filterwarnings("ignore::millpond.LeaseDropped")
@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("work", WORKS, ids=lambda work: work.__name__)
def test_a_signal_at_any_bytecode_costs_no_room(
    work: Callable[[millpond.Pool[NullConnection]], None], function: str
) -> None:
    """Wherever in the fast path the exception strikes, the pool serves its full size afterwards and closes in full."""
    code = FUNCTIONS[function]
    struck = 0
    for offset in offsets(code):
        driver = NullDriver()
        pool = new_pool(driver)
        struck += strike(SignalAt(code, offset), functools.partial(work, pool))
        assert_whole(pool, driver, f"{function} at {offset}")
        assert pool.stats().opened == pool.stats().closed
    assert struck > 10, "the signal never struck: the test would hold whatever the shell did"


@pytest.mark.filterwarnings("ignore::millpond.LeaseDropped")
def test_a_signal_between_a_notice_and_its_performance_loses_nothing() -> None:
    """Wherever a handler raises while the outbox is emptied: who was to be woken is, and what was to be closed is."""
    pool_class: Any = millpond.Pool
    for code in (pool_class._deliver.__code__, pool_class._perform_once.__code__):
        struck = 0
        for offset in offsets(code):
            driver = NullDriver()
            pool = new_pool(driver)
            struck += strike(SignalAt(code, offset), functools.partial(drain_and_dial, pool))
            assert_whole(pool, driver, f"{code.co_name} at {offset}")
            assert pool.stats().opened == pool.stats().closed
        assert struck > 5, f"the signal never struck in {code.co_name}"


def resize(pool: millpond.Pool[NullConnection]) -> None:
    """Change a size, and nothing else."""
    pool.resize(SIZE, min_idle=1)


def discard(pool: millpond.Pool[NullConnection]) -> None:
    """Give a connection up."""
    pool.connection().discard()


def ask_in_vain(pool: millpond.Pool[NullConnection]) -> None:
    """Wait for what does not come."""
    with pool.connection(), pool.connection(), contextlib.suppress(millpond.PoolTimeout):
        pool.connection(timeout=0.001)


def look_on(pool: millpond.Pool[NullConnection]) -> None:
    """Ask for figures, and for what is there already."""
    pool.stats()
    pool.wait()


def close(pool: millpond.Pool[NullConnection]) -> None:
    """Close it."""
    pool.close()


STRIDE = 17  # every so many places are struck in one run; other works begin at other places


@pytest.mark.filterwarnings("ignore::millpond.LeaseDropped")
@pytest.mark.parametrize("reset", ["none", "auto"])
@pytest.mark.parametrize("work", [*WORKS, resize, discard, ask_in_vain, look_on, close], ids=lambda work: work.__name__)
def test_a_signal_wherever_python_looks_for_one_costs_no_room(
    work: Callable[[millpond.Pool[NullConnection]], None], reset: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In steps, in deliveries, in whatever a pool does: the exception passes through, and then all is whole."""
    monkeypatch.setattr(sys, "unraisablehook", lambda _: None)  # pytest's own keeps the frames, and slots with them
    struck, turn = 0, 1 + len(work.__name__) % STRIDE
    while True:
        driver = NullDriver()
        pool = new_pool(driver, reset)
        at = SignalAtLook(turn)
        strike(at, functools.partial(work, pool))
        gc.collect(1)  # an error and a signal at once can leave a cycle of frames
        if work is not close:
            assert_whole(pool, driver, at.where)
        pool.close()  # whatever the first one did not come to
        assert not driver.left_open, at.where
        assert not pool._crew.jobs, at.where
        if not at.where:
            break
        struck += 1
        turn += STRIDE
    assert struck, "the signal never struck"


def test_a_step_whose_end_was_not_noted_is_over() -> None:
    """A signal has struck before the word of it, and another thread has the lock, which has not said so yet."""
    driver = NullDriver()
    pool = new_pool(driver)
    assert pool._step(pool._is_stepping)
    begun, end = threading.Event(), threading.Event()

    def step() -> None:
        with pool._lock:
            begun.set()
            end.wait(DEADLINE_S)

    other = threading.Thread(target=step)
    other.start()
    assert begun.wait(DEADLINE_S)
    pool._stepper = threading.get_ident()
    assert not pool._is_stepping()
    end.set()
    join([other])
    assert_whole(pool, driver, "after a step whose end was not noted")


def test_a_signal_while_that_is_found_out_leaves_the_lock_free() -> None:
    """Wherever it strikes: a lock that was taken to look would stay taken."""
    struck = 0
    for code in (millpond.Pool._is_stepping.__code__, threads.is_within.__code__):
        for offset in offsets(code):
            driver = NullDriver()
            pool = new_pool(driver)

            def look(pool: millpond.Pool[NullConnection] = pool) -> None:
                pool._stepper = threading.get_ident()
                pool.stats()

            struck += strike(SignalAt(code, offset), look)
            assert_whole(pool, driver, f"{code.co_name} at {offset}")
    assert struck > 5, "the signal never struck"


@pytest.mark.filterwarnings("ignore::millpond.LeaseDropped")
@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no interval timer on this system")
def test_real_signals_cost_no_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """Real signals, wherever they strike, in the fast path, the slow one or a finalizer: then all is whole."""
    monkeypatch.setattr(sys, "unraisablehook", lambda _: None)  # pytest's own keeps the frames, and slots with them
    # Struck in a handler of logging, Python until 3.12 leaves its lock held, and hangs whichever thread logs next.
    monkeypatch.setattr(logging.getLogger("millpond"), "disabled", True)
    driver = Mortal()
    pool = millpond.Pool(driver, max_size=SIZE, timeout=10)
    struck = 0

    def handler(number: int, frame: Any) -> None:
        raise Signalled

    previous = signal.signal(signal.SIGALRM, handler)
    try:
        for turn in range(200):
            try:
                signal.setitimer(signal.ITIMER_REAL, 0.0002 + 0.000003 * turn)
                for _ in range(PAIRS_MAX):
                    checkout_and_return(pool)
            except Signalled:
                struck += 1
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", millpond.LeaseDropped)
        collect()
        assert_whole(pool, driver, f"after {struck} signals")
    assert struck > 150, "hardly any signal struck"


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no interval timer on this system")
def test_a_signal_takes_a_waiting_caller_out_of_the_queue() -> None:
    """Who is called away from the queue leaves no place behind in it, and what comes back is idle."""
    driver = NullDriver()
    pool = millpond.Pool(driver, max_size=1, timeout=60, reset="none")
    lease = pool.connection()

    def handler(number: int, frame: Any) -> None:
        raise Signalled

    previous = signal.signal(signal.SIGALRM, handler)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.01)
        with pytest.raises(Signalled):
            pool.connection()
    finally:
        signal.signal(signal.SIGALRM, previous)
    assert 0 == pool.stats().waiting
    lease.close()
    assert 1 == pool.stats().idle
    pool.close()
    assert not driver.left_open


def test_the_tracer_strikes_once() -> None:
    """An instruction that is reached is struck the first time, and not again."""
    with millpond.Pool(NullDriver()) as pool:
        struck = 0
        for offset in list(offsets(FUNCTIONS["connection"]))[:20]:
            at = SignalAt(FUNCTIONS["connection"], offset)
            for _ in range(2):
                struck += strike(at, lambda: pool.connection().close())
            assert struck <= 1
            if struck:
                return
    raise AssertionError("nothing was struck")
