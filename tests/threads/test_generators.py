"""A generator that holds a connection is closed: by its owner, or by the garbage collector in the middle of a step."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from millpond import LeaseDropped, Pool

from .doubles import NullConnection, NullDriver


class Telling(NullDriver):
    """A driver that knows that nothing is in flight."""

    def in_flight(self, conn: NullConnection) -> bool | None:
        """Say so."""
        return False


def holding(pool: Pool[NullConnection]) -> Iterator[NullConnection]:
    """Hold a connection until closed."""
    with pool.connection() as conn:
        yield conn.driver_connection


def number_after_collecting_in_a_step(pool: Pool[NullConnection]) -> int:
    """Let the collector run inside a step, and return which connection is lent next."""
    pool._decide(gc.collect)
    with pool.connection(timeout=10.0) as conn:
        return conn.driver_connection.number


def test_a_generator_that_is_closed_gives_its_connection_back_at_once() -> None:
    """As a ``break`` out of a loop over it does."""
    driver = Telling()
    with Pool(driver, max_size=1) as pool:
        for _ in holding(pool):
            break
        assert (1, 0) == (pool.stats().idle, pool.stats().leased)
        assert 1 == len(driver.opened)


def test_a_generator_that_is_collected_in_the_middle_of_a_step_does_not_lock_the_pool() -> None:
    """The collector closes it wherever it runs: its connection is left for a moment at which it can be taken back."""
    driver = Telling()
    with Pool(driver, max_size=1) as pool:
        generator = holding(pool)
        next(generator)
        cycle: list[object] = [generator]
        cycle.append(cycle)
        del generator, cycle
        with pytest.warns(LeaseDropped):  # lease and slot were in the same garbage
            number = number_after_collecting_in_a_step(pool)
        assert 2 == number
    assert not driver.left_open


def test_what_the_collector_gives_back_is_used_again() -> None:
    """Where the connection itself is no garbage, nothing is lost."""
    driver = Telling()
    with Pool(driver, max_size=1) as pool:
        kept = pool.connection()
        slot = kept._slot
        pool._decide(lambda: kept.close(GeneratorExit))
        with pool.connection(timeout=10.0) as conn:
            assert 1 == conn.driver_connection.number
        assert "gone" == slot.state.value, "the slot has a new body, which no finalizer has seen"
