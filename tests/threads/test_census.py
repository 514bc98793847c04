"""A slot that dies in a cycle is reported, also when it is counted between its death and its finalizer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import millpond
from millpond.observer import Dropped
from millpond.testing import FakeDriver
from tests.garbage import collect


class FinalizedFirst:
    """Part of a cycle, made before the others of it, whose finalizer does what a test wants done just then."""

    def __init__(self, then: Callable[[], object]) -> None:
        self.then = then
        self.others: list[Any] = []

    def __del__(self) -> None:
        self.then()


def test_a_count_between_death_and_finalizer_hides_nothing(driver: FakeDriver) -> None:
    """References are cleared before finalizers run: a count just then frees the room, and the report still comes."""
    events: list[Any] = []
    pool = millpond.Pool(driver, max_size=1, observer=events.append)

    def count() -> None:
        pool._decide(lambda: pool._ledger.count_slots(pool._clock()))

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
