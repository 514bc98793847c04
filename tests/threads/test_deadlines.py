"""Every acquire ends by its deadline, whatever hangs: a dial, a check, a reset, the queue.

Time is virtual: it stands still but for what the test lets pass, so that "by its deadline" is exact.
"""

from __future__ import annotations

from typing import Any

import pytest

import millpond

from .doubles import Host, HostLock, NullConnection, NullDriver

TIMEOUT_S = 5.0


class Stuck(NullDriver):
    """A driver that hangs in one operation: until its deadline on the host's clock, or for ever if not bounded."""

    def __init__(self, host: Host, operation: str, *, bounded: bool = True) -> None:
        super().__init__()
        self.host = host
        self.operation = operation
        self.bounded = bounded
        self.let_go: list[HostLock] = []

    def hang(self, operation: str, until: float) -> None:
        """Hang, and fail at the deadline."""
        if operation != self.operation:
            return
        lock = HostLock(self.host)
        lock.acquire()
        self.let_go.append(lock)
        if not lock.acquire(timeout=until - self.host.now if self.bounded else 1e9):
            raise TimeoutError(operation)

    def open(self, until: float) -> NullConnection:
        """Open, or hang."""
        self.hang("open", until)
        return super().open(until)

    def is_alive(self, conn: NullConnection, until: float) -> bool:
        """Tell, or hang."""
        self.hang("check", until)
        return super().is_alive(conn, until)

    def reset(self, conn: NullConnection, until: float) -> bool:
        """Reset, or hang."""
        self.hang("reset", until)
        return super().reset(conn, until)


class Caller:
    """Asks for a connection, and notes when and how that ended."""

    def __init__(self, host: Host, pool: millpond.Pool[Any], timeout: float | None = None) -> None:
        self.host = host
        self.pool = pool
        self.timeout = timeout
        self.ended_at = 0.0
        self.outcome: Any = None
        host.start(self.ask)
        host.settle()

    def ask(self) -> None:
        """Ask."""
        try:
            with self.pool.connection(self.timeout) as conn:
                self.outcome = conn.number
        except millpond.PoolTimeout as error:
            self.outcome = error.reason
        self.ended_at = self.host.now


def pool_on(host: Host, driver: NullDriver, **settings: Any) -> millpond.Pool[Any]:
    """Make a pool on the host."""
    return millpond.Pool(driver, runtime=host.runtime(), **{"timeout": TIMEOUT_S, "reset": "none", **settings})


def finish(host: Host, driver: Stuck, pool: millpond.Pool[Any]) -> None:
    """Let go of whatever hangs, and close."""
    driver.operation = "nothing"
    for lock in driver.let_go:
        if lock.held and lock.until:
            lock.release()
    host.settle()
    host.run(lambda: pool.close(0))
    host.advance(1)
    assert not driver.left_open


@pytest.mark.parametrize("bounded", [True, False])
@pytest.mark.parametrize("timeout", [None, 0.75])
def test_a_dial_that_hangs_keeps_nobody_beyond_the_deadline(*, bounded: bool, timeout: float | None) -> None:
    """The pool's own time-out, or the caller's; it does not matter whether the driver can be bounded."""
    host = Host()
    driver = Stuck(host, "open", bounded=bounded)
    pool = pool_on(host, driver)
    began_at = host.now
    callers = [Caller(host, pool, timeout) for _ in range(3)]
    host.advance(TIMEOUT_S + 1, step=0.25)
    expected = began_at + (TIMEOUT_S if timeout is None else timeout)
    assert [(expected, "dials too slow")] * 3 == [(caller.ended_at, caller.outcome) for caller in callers]
    finish(host, driver, pool)


def test_a_dial_that_never_ends_gives_its_room_back_and_is_counted() -> None:
    """Where a driver cannot be bounded the call is given up; its late connection is closed on arrival."""
    host = Host()
    driver = Stuck(host, "open", bounded=False)
    pool = pool_on(host, driver, max_size=1, connect_timeout=1.0)
    Caller(host, pool, 1.0)
    host.advance(2)
    assert 1 == pool.stats().abandoned
    driver.operation = "nothing"
    host.advance(3)
    second = Caller(host, pool)
    assert 1 == second.outcome
    driver.let_go[0].release()
    host.advance(1)
    assert [2] == [conn.number for conn in driver.closed]
    finish(host, driver, pool)


def test_a_check_that_hangs_ends_in_its_own_time() -> None:
    """A caller whose connection does not answer is kept for check_timeout, and gets another one inside the deadline."""
    host = Host()
    driver = Stuck(host, "check")
    pool = pool_on(host, driver, check_after=10, check_timeout=2.0, idle_timeout=None)
    Caller(host, pool)
    driver.operation = "check"
    host.advance(9)
    for slot in pool._ledger.live():
        slot.best_before = 0.0  # as after a link of the same server was found broken
    began_at = host.now
    caller = Caller(host, pool)
    host.advance(3)
    assert (began_at + 2.0, 2) == (caller.ended_at, caller.outcome)
    finish(host, driver, pool)


def test_a_check_that_hangs_ends_by_the_deadline_if_that_is_nearer() -> None:
    """A caller in a hurry is not kept for the whole of check_timeout."""
    host = Host()
    driver = Stuck(host, "check")
    pool = pool_on(host, driver, max_size=1, check_after=10, check_timeout=2.0, idle_timeout=None)
    Caller(host, pool)
    for slot in pool._ledger.live():
        slot.best_before = 0.0
    caller_until = host.now + 1.0
    driver.operation = "check"
    caller = Caller(host, pool, 1.0)
    host.advance(3)
    assert caller_until == caller.ended_at
    finish(host, driver, pool)


def test_a_reset_that_hangs_keeps_the_queue_no_longer_than_its_deadline() -> None:
    """Who waits for a connection that its last holder cannot get clean is told in time."""
    host = Host()
    driver = Stuck(host, "reset")
    pool = pool_on(host, driver, max_size=1, reset="auto", connect_timeout=60)
    holder = Caller(host, pool)  # its return hangs
    began_at = host.now
    waiter = Caller(host, pool)
    host.advance(TIMEOUT_S + 1)
    assert (began_at + TIMEOUT_S, "server silent") == (waiter.ended_at, waiter.outcome)
    assert 0.0 == holder.ended_at
    finish(host, driver, pool)


def test_callers_keep_their_own_deadlines_in_one_queue() -> None:
    """Each is told when its own time is up, in whatever order they came."""
    host = Host()
    driver = NullDriver()
    pool = pool_on(host, driver, max_size=1)
    held: list[Any] = []
    host.run(lambda: held.append(pool.connection()))
    began_at = host.now
    callers = [Caller(host, pool, timeout) for timeout in (3.0, 1.0, 2.0)]
    host.advance(4)
    assert [3.0, 1.0, 2.0] == [caller.ended_at - began_at for caller in callers]
    assert 3 == pool.stats().timeouts
    host.run(held.pop().close)
    host.run(pool.close)


def test_a_wait_for_ever_is_as_long_as_it_takes() -> None:
    """timeout=None on the pool means no deadline."""
    host = Host()
    pool = pool_on(host, NullDriver(), max_size=1, timeout=None)
    held: list[Any] = []
    host.run(lambda: held.append(pool.connection()))
    caller = Caller(host, pool)
    host.advance(1000, step=100)
    assert 0.0 == caller.ended_at
    host.run(held.pop().close)
    assert 1 == caller.outcome
    host.run(pool.close)


def test_the_host_of_these_tests_keeps_time() -> None:
    """A lock that nobody releases is given up when its time is up on the host's clock, not before."""
    host = Host()
    lock = HostLock(host)
    lock.acquire()
    ended: list[tuple[float, bool]] = []
    host.start(lambda: ended.append((lock.acquire(timeout=2.0), host.now)[::-1]))
    host.advance(1.75)
    assert [] == ended
    host.advance(0.5)
    assert [(1002.0, False)] == ended
