"""A slot that dies in a cycle is reported, also when it is counted between its death and its finalizer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import millpond
from millpond._core.census import count_slots
from millpond._core.upkeep import tick
from millpond.observer import Dropped
from millpond.testing import FakeDriver
from tests.garbage import collect


class FinalizedFirst:
    """Part of a cycle, made before the others of it, whose finalizer does what a test wants done just then."""

    def __init__(self, then: Callable[[list[Any]], object]) -> None:
        self.then = then
        self.others: list[Any] = []

    def __del__(self) -> None:
        self.then(self.others)


def test_a_count_between_death_and_finalizer_hides_nothing(driver: FakeDriver) -> None:
    """References are cleared before finalizers run: a count just then frees the room, and the report still comes."""
    events: list[Any] = []
    pool = millpond.Pool(driver, max_size=1, observer=events.append)

    def count(_: list[Any]) -> None:
        pool._decide(lambda: count_slots(pool._ledger, pool._clock()))

    first = FinalizedFirst(count)
    first.others += [first, pool.connection()]

    def forget() -> None:
        nonlocal first
        del first
        collect()
        pool.connection().close()
        driver.await_count("closed", 1)
        driver.await_that(lambda: any(isinstance(event, Dropped) for event in events), "a report")

    with pytest.warns(millpond.LeaseDropped, match=r"test_census\.py"):
        forget()
    stats = pool.stats()
    assert (1, 1, 2) == (stats.dropped, stats.size, stats.opened)
    pool.close()


def drop(pool: millpond.Pool[Any], taken: list[Any]) -> int:
    """Drop a lease in a cycle whose finalizer gives it back; somebody takes it before the slot's own is run.

    Returns:
        the number of the connection.
    """

    def give_back_and_take(others: list[Any]) -> None:
        others[1].close()
        taken.append(pool.connection())

    first = FinalizedFirst(give_back_and_take)
    first.others += [first, pool.connection()]
    number: int = first.others[1].driver_connection.number
    del first
    collect()
    assert [number] == [lease.driver_connection.number for lease in taken]
    return number


@pytest.mark.parametrize("reset", ["none", "auto"])
def test_what_a_finalizer_gave_back_is_his_who_takes_it(driver: FakeDriver, reset: str) -> None:
    """Finalizers run in any order: a slot that is given back by one, and taken, before its own runs is not lost."""
    pool = millpond.Pool(driver, max_size=2, timeout=10, reset=reset)
    taken: list[Any] = []
    number = drop(pool, taken)
    (lease,) = taken
    for _ in range(3):  # whatever was finalized is taken in by the next steps and ticks
        pool.connection().close()
        pool._decide(tick, pool._ledger)
        assert number == lease.driver_connection.number
    lease.close()
    assert 0 == pool.stats().dropped
    pool.close()
    driver.await_count("closed", pool.stats().opened)


def test_what_a_finalizer_gave_back_and_somebody_dropped_is_found(driver: FakeDriver) -> None:
    """A slot is finalized only once: dropped by the one who took it next, it is found all the same, and reported."""
    pool = millpond.Pool(driver, max_size=1, timeout=10, reset="none")
    taken: list[Any] = []
    drop(pool, taken)
    pool._decide(tick, pool._ledger)
    assert 0 == pool.stats().dropped
    taken.clear()
    with pytest.warns(millpond.LeaseDropped, match=r"test_census\.py"):
        pool.connection().close()
    assert (1, 2) == (pool.stats().dropped, pool.stats().opened)
    pool.close()
