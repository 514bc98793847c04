"""What the demo's killed connections have shown: nothing dead is handed out, nothing is reported that is no fault."""

from __future__ import annotations

import sqlite3
import warnings
from pathlib import Path

import pytest

import millpond
from millpond.testing.fake_driver import FakeDriver


def pool_of(folder: Path) -> millpond.Pool[sqlite3.Connection]:
    """Return a pool of one connection to a new file."""
    return millpond.Pool(f"sqlite:///{folder / 'file.db'}", max_size=1)


def insert_and_fail(pool: millpond.Pool[sqlite3.Connection]) -> None:
    """Write, and leave the block by an exception."""
    with pool.connection() as conn:
        conn.execute("INSERT INTO t VALUES (1)")
        raise ZeroDivisionError


def test_every_dead_connection_is_noticed_not_only_the_first() -> None:
    """When all idle connections have died a caller gets a new one: each taken instead of a dead one is proved."""
    driver = FakeDriver()
    with millpond.Pool(driver, max_size=3, check_after=0.0) as pool:
        leases = [pool.connection() for _ in range(3)]
        dead = [lease.driver_connection for lease in leases]
        for lease in leases:
            lease.close()
        for conn in dead:
            driver.kill(conn)
        with pool.connection() as lease:
            assert lease.driver_connection.alive
            assert lease.driver_connection not in dead
    assert [] == driver.mishaps


def test_a_connection_closed_by_its_borrower_costs_itself_alone(tmp_path: Path) -> None:
    """A SQLite connection closed behind the pool's back is replaced, and not reported as lost."""
    with pool_of(tmp_path) as pool:
        with pool.connection() as lease:
            lease.driver_connection.close()
        with pool.connection() as lease:
            assert (1,) == lease.execute("SELECT 1").fetchone()
        stats = pool.stats()
    assert (2, 1, 0) == (stats.opened, stats.retired["unclean"], stats.dropped)


def test_an_exception_explains_a_rollback(tmp_path: Path) -> None:
    """Writes that an exception kept from being committed are rolled back without a warning; of others one is warned."""
    with pool_of(tmp_path) as pool:
        with pool.connection() as conn:
            conn.execute("CREATE TABLE t (a)")
        with warnings.catch_warnings(record=True) as seen, pytest.raises(ZeroDivisionError):
            insert_and_fail(pool)
        assert [] == seen
        with pytest.warns(millpond.UncommittedWork, match="not committed"), pool.connection() as conn:
            conn.execute("INSERT INTO t VALUES (2)")
        with pool.connection() as conn:
            assert [] == conn.execute("SELECT * FROM t").fetchall()
        assert 1 == pool.stats().uncommitted


def test_a_driver_error_reaches_its_caller_as_it_is(tmp_path: Path) -> None:
    """What a statement raises is the driver's own, and the lease it was raised in goes back all the same."""
    with pool_of(tmp_path) as pool:
        with pool.connection() as conn, pytest.raises(sqlite3.OperationalError, match="no such table"):
            conn.execute("SELECT * FROM nowhere")
        assert 0 == pool.stats().leased
    with pytest.raises(millpond.PoolClosed):
        pool.connection()
