"""What the helper layer needs of a pool beyond taking and giving back."""

from __future__ import annotations

import sqlite3
import sys
from collections.abc import Iterator

import pytest

import millpond as m


@pytest.fixture
def pool() -> Iterator[m.Pool[sqlite3.Connection]]:
    """Return a pool of one connection."""
    with m.Pool("sqlite://", max_size=1) as one:
        yield one


def test_a_discarded_connection_is_closed_and_its_room_is_free(pool: m.Pool[sqlite3.Connection]) -> None:
    """The next caller gets a new one, at once."""
    lease = pool.connection()
    lease.cursor().execute("SELECT 1")
    lease.discard()
    lease.discard()
    lease.close()
    with pytest.raises(m.ConnectionReturned, match=r"test_pool_seams\.py"):
        lease.cursor()
    with pool.connection(timeout=5) as again:
        assert (1,) == again.execute("SELECT 1").fetchone()
    stats = pool.stats()
    assert (2, {"unclean": 1}, 0) == (stats.opened, stats.retired, stats.leased)


def test_a_connection_given_back_cannot_be_discarded(pool: m.Pool[sqlite3.Connection]) -> None:
    """It is somebody else's by then."""
    lease = pool.connection()
    lease.close()
    lease.discard()
    assert (1, {}) == (pool.stats().opened, pool.stats().retired)


def test_another_place_can_be_named_as_the_holder(pool: m.Pool[sqlite3.Connection]) -> None:
    """A layer above the pool lets reports name its caller."""
    with pool.connection() as lease:
        lease.note_holder(sys._getframe())
        (holder,) = pool.stats().holders
        assert holder.site is not None
        assert "test_another_place_can_be_named_as_the_holder" == holder.site.function


def test_the_adapter_of_a_pool_is_public(pool: m.Pool[sqlite3.Connection]) -> None:
    """It tells errors apart, and opens connections beside the pool's."""
    assert "sqlite" == pool.driver.name
    assert sqlite3.OperationalError is pool.driver.family("OperationalError")
