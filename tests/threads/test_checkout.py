"""Who gets which connection, and when."""

from __future__ import annotations

import contextvars
import functools
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import millpond
from millpond.testing.fake_driver import FakeConnection, FakeDriver
from tests.garbage import collect

from .doubles import (
    BadPassword,
    FamilyDriver,
    GatedDriver,
    Host,
    NullDriver,
    ServerGone,
    in_threads,
    queue_up,
    runtime_with,
)


def numbers(leases: list[Any]) -> list[int]:
    """Return which connections are held."""
    return [lease.driver_connection.number for lease in leases]


def give_back(leases: list[Any]) -> None:
    """Give all of them back, in their order."""
    for lease in leases:
        lease.close()


def test_a_with_block_gives_back_at_its_end(driver: FakeDriver) -> None:
    """What a block has taken is idle after it, and is taken again by the next."""
    with millpond.Pool(driver) as pool:
        with pool.connection() as conn:
            assert 1 == conn.number
            assert (1, 0) == (pool.stats().leased, pool.stats().idle)
        assert (0, 1) == (pool.stats().leased, pool.stats().idle)
        with pool.connection() as conn:
            assert 1 == conn.number
    assert 1 == driver.counts["opened"]


def test_closing_a_lease_twice_is_harmless(driver: FakeDriver) -> None:
    """The second close gives nothing back, even when somebody else has the connection by then."""
    with millpond.Pool(driver, max_size=1) as pool:
        first = pool.connection()
        first.close()
        second = pool.connection()
        first.close()
        assert 1 == pool.stats().leased
        assert 1 == second.number
        second.close()


@pytest.mark.parametrize(("order", "expected"), [("lifo", [3, 2, 1]), ("fifo", [1, 2, 3])])
@pytest.mark.parametrize("reset", ["auto", "none"])
def test_idle_connections_go_out_in_the_order_asked_for(order: Any, expected: list[int], reset: str) -> None:
    """Last in, first out keeps few connections warm; first in, first out uses all of them."""
    with millpond.Pool(NullDriver(), max_size=3, idle_order=order, reset=reset) as pool:
        give_back([pool.connection() for _ in range(3)])
        leases = [pool.connection() for _ in range(3)]
        assert expected == numbers(leases)
        give_back(leases)
        assert 3 == pool.stats().idle


def test_fifo_walks_through_all_connections() -> None:
    """One caller after another uses a pool of three evenly."""
    with millpond.Pool(NullDriver(), max_size=3, idle_order="fifo", reset="none") as pool:
        give_back([pool.connection() for _ in range(3)])
        seen = []
        for _ in range(6):
            with pool.connection() as conn:
                seen.append(conn.number)
    assert [1, 2, 3, 1, 2, 3] == seen


def test_waiting_callers_are_served_in_the_order_they_came() -> None:
    """A return serves the oldest; nobody passes the queue, not even who asks while a connection comes back."""
    pool = millpond.Pool(NullDriver(), max_size=1, reset="none")
    first = pool.connection()
    order: list[int] = []

    def use(place: int) -> None:
        with pool.connection():
            order.append(place)

    threads = queue_up(pool, [functools.partial(use, place) for place in range(5)])
    first.close()
    use(5)
    for thread in threads:
        thread.join(10)
    assert [0, 1, 2, 3, 4, 5] == order
    pool.close()


def test_callers_beyond_max_waiting_are_turned_away(driver: FakeDriver) -> None:
    """The queue has the length that was asked for; who would make it longer is told at once."""
    with millpond.Pool(driver, max_size=1, max_waiting=1) as pool:
        lease = pool.connection()
        (thread,) = queue_up(pool, [lambda: pool.connection().close()])
        with pytest.raises(millpond.TooManyWaiting, match="1 callers are waiting already"):
            pool.connection()
        lease.close()
        thread.join(10)


def test_a_timeout_of_zero_takes_what_is_there_and_waits_for_nothing(driver: FakeDriver) -> None:
    """An idle connection is handed out; without one the caller is told at once."""
    with millpond.Pool(driver, max_size=1) as pool:
        pool.connection().close()
        lease = pool.connection(timeout=0)
        with pytest.raises(millpond.PoolTimeout):
            pool.connection(timeout=0)
        lease.close()


@pytest.mark.parametrize("wrong", [-1, "5", True, float("nan")])
def test_a_wrong_timeout_is_refused_also_while_connections_are_idle(driver: FakeDriver, wrong: Any) -> None:
    """A mistake is seen at the first call, not under load, and costs no connection."""
    with millpond.Pool(driver, max_size=1) as pool:
        pool.connection().close()
        with pytest.raises(millpond.InvalidSetting, match="timeout="):
            pool.connection(timeout=wrong)
        assert 1 == pool.stats().idle


def test_nothing_is_dialled_before_somebody_asks(driver: FakeDriver) -> None:
    """Making a pool connects to nothing."""
    with millpond.Pool(driver) as pool:
        assert 0 == pool.stats().size
    assert 0 == driver.counts["open"]


def test_a_cold_burst_dials_for_all(driver: FakeDriver) -> None:
    """Callers who find an empty pool each get a dial, at once."""
    driver.behave("open", "late")
    pool = millpond.Pool(driver, max_size=5)
    held: list[Any] = []

    def work() -> None:
        held.append(pool.connection())

    threads = [threading.Thread(target=work, daemon=True) for _ in range(5)]
    for thread in threads:
        thread.start()
    driver.await_waiting("open", 5)
    driver.release("open")
    for thread in threads:
        thread.join(10)
    assert 5 == len(held)
    give_back(held)
    pool.close()


def test_a_return_serves_the_caller_whose_dial_is_still_in_flight(driver: FakeDriver) -> None:
    """Whichever comes first, a returned connection or a new one, serves the oldest caller; the dial is not wasted."""
    pool = millpond.Pool(driver, max_size=2, growth="eager")
    first = pool.connection()
    driver.behave("open", "late")
    answers: list[int] = []

    def use() -> None:
        with pool.connection() as conn:
            answers.append(conn.number)

    (thread,) = queue_up(pool, [use])
    driver.await_waiting("open", 1)
    first.close()
    thread.join(10)
    assert [1] == answers
    driver.release("open")
    driver.await_count("opened", 2)
    pool.close()


ASKED_BY = contextvars.ContextVar("ASKED_BY", default="nobody")


def test_a_dialer_runs_in_a_copy_of_the_asker_s_context(driver: FakeDriver) -> None:
    """What connects sees the context variables of who asked, and cannot change them."""
    seen: list[str] = []

    def connect() -> FakeConnection:
        seen.append(ASKED_BY.get())
        ASKED_BY.set("the dialer")
        return driver.open(float("inf"))

    def ask() -> str:
        ASKED_BY.set("a request")
        with pool.connection():
            return ASKED_BY.get()

    with millpond.Pool(connect, dial="threads") as pool:
        assert ["a request"] == in_threads(ask)
    assert ["a request"] == seen


def test_callers_dial_where_they_are_told_to(driver: FakeDriver) -> None:
    """With dial="caller" each connection is made in the thread that asked for it."""
    opened_in: list[int] = []

    class Noting(NullDriver):
        """Notes which thread opens."""

        def open(self, until: float) -> Any:
            """Open and note."""
            opened_in.append(threading.get_ident())
            return super().open(until)

    with millpond.Pool(Noting(), dial="caller") as pool, pool.connection():
        assert [threading.get_ident()] == opened_in


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_connections_bound_to_their_thread_are_found_out(tmp_path: Path) -> None:
    """SQLite's own connections work although nobody said that only the opening thread may use them."""

    def connect() -> sqlite3.Connection:
        return sqlite3.connect(tmp_path / "data.db")

    def ask() -> Any:
        with pool.connection() as conn:
            return conn.execute("SELECT 40 + 2").fetchone()

    with millpond.Pool(connect, max_size=2) as pool:
        assert [(42,), (42,), (42,)] == [ask(), *in_threads(ask, ask)]
        assert (42,) == ask()
    collect()  # those of the other threads, which nobody else may close, end here and not in another test


def test_until_the_first_success_the_driver_s_own_error_rises_at_once() -> None:
    """Waiting does not mend a wrong password or a wrong port: no caller waits for its deadline."""
    for kind in (BadPassword, ServerGone):
        driver = FamilyDriver()
        driver.failing = kind("no")
        with millpond.Pool(driver, timeout=3600) as pool, pytest.raises(kind, match="no"):
            pool.connection()


def test_each_caller_gets_an_exception_of_its_own() -> None:
    """One failed dial, told to many: no two threads raise the same object, whose traceback would grow in both."""
    driver = GatedDriver()
    driver.failing = BadPassword("no")
    pool = millpond.Pool(driver, max_size=1, timeout=3600)
    errors: list[BaseException] = []

    def ask() -> None:
        try:
            pool.connection()
        except BadPassword as error:
            errors.append(error)

    threads = queue_up(pool, [ask] * 4)
    driver.gate.release(10)
    for thread in threads:
        thread.join(10)
    assert 4 == len(errors)
    assert 4 == len({id(error) for error in errors})
    pool.close()


def test_after_a_success_callers_wait_an_outage_out() -> None:
    """Once the server was there, a failed dial is tried again, inside the caller's deadline."""
    driver = FamilyDriver()
    pool = millpond.Pool(driver, max_size=2, timeout=3600)
    lease = pool.connection()
    driver.failing = ServerGone("down")
    answers: list[int] = []

    def use() -> None:
        with pool.connection() as conn:
            answers.append(conn.number)

    threads = queue_up(pool, [use])
    driver.await_attempts(4)
    driver.failing = None
    threads[0].join(10)
    assert [2] == answers
    lease.close()
    pool.close()


def test_a_dead_connection_is_not_handed_out(driver: FakeDriver) -> None:
    """A check that fails costs the caller nothing but the time for a new connection."""
    with millpond.Pool(driver, check_after=0) as pool:
        pool.connection().close()
        driver.kill(driver.connections[0])
        with pool.connection() as conn:
            assert 2 == conn.number
        assert {"dead": 1} == pool.stats().retired


def test_a_check_that_raises_counts_as_dead(driver: FakeDriver) -> None:
    """What an adapter's check raises is no business of the caller, who gets another connection."""
    with millpond.Pool(driver, check_after=0) as pool:
        pool.connection().close()
        driver.behave("check", "error", times=1)
        with pool.connection() as conn:
            assert 2 == conn.number
        assert {"dead": 1} == pool.stats().retired


def test_a_connection_that_has_been_closed_is_seen_without_asking() -> None:
    """Where the adapter can look at the link, a dead connection costs no check, only a look."""
    driver = FakeDriver(tells_readable=True)
    host = Host()
    pool = millpond.Pool(driver, runtime=host.runtime())
    got: list[int] = []

    def use() -> None:
        with pool.connection() as conn:
            got.append(conn.number)

    host.run(use)
    driver.kill(driver.connections[0])
    host.advance(1)
    host.run(use)
    assert [1, 2] == got
    assert 0 == driver.counts["check"]
    host.run(pool.close)
    assert [] == driver.mishaps


@pytest.mark.parametrize(
    ("settings", "reason"), [({"max_uses": 2}, "uses"), ({"max_lifetime": 100.0, "check_after": None}, "lifetime")]
)
def test_a_connection_is_replaced_at_its_end(settings: dict[str, Any], reason: str) -> None:
    """After so many checkouts, or so many seconds, the next caller gets another one."""
    host = Host()
    driver = NullDriver()
    pool = millpond.Pool(driver, runtime=host.runtime(), reset="none", idle_timeout=None, **settings)
    got: list[int] = []

    def use() -> None:
        with pool.connection() as conn:
            got.append(conn.number)

    for _ in range(3):
        host.run(use)
        host.advance(60, step=5)
    assert [1, 1, 2] == got
    assert 1 == pool.stats().retired[reason]
    host.run(pool.close)
    assert not driver.left_open


def test_a_return_outside_the_fast_path_is_as_good() -> None:
    """What must not be done without the lock (counted uses, no GIL) leaves the pool in the same state."""
    without_gil: dict[str, Any] = {"runtime": runtime_with(with_gil=False)}
    for settings in ({"max_uses": 100}, without_gil):
        with millpond.Pool(NullDriver(), max_size=1, reset="none", **settings) as pool:
            for _ in range(3):
                with pool.connection() as conn:
                    assert 1 == conn.number
            assert (1, 3) == (pool.stats().idle, pool.stats().uses)


@pytest.mark.parametrize(
    "source",
    [
        pytest.param(lambda driver: driver, id="adapter"),
        pytest.param(lambda driver: driver.module, id="module"),
        pytest.param(lambda driver: driver.module.connect, id="callable"),
    ],
)
def test_connections_come_from_adapters_modules_and_callables(
    driver: FakeDriver, source: Callable[[FakeDriver], Any]
) -> None:
    """The three ways to say where connections come from lead to the same pool."""
    with millpond.Pool(source(driver)) as pool, pool.connection() as conn:
        assert isinstance(conn.driver_connection, FakeConnection)
        assert (1,) == conn.cursor().execute("SELECT 1").fetchone()
