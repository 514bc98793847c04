"""The asynchronous helper layer, on SQLite."""

from __future__ import annotations

import asyncio
import sqlite3
import sys
import time
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest

import millpond
from millpond import AsyncDatabase, AsyncPool, InvalidSetting

from .database_contract import CONTRACT, items


@pytest.mark.parametrize("clause", CONTRACT, ids=lambda clause: clause.__name__)
def test_the_contract_holds_on_sqlite(clause: Any, tmp_path: Path) -> None:
    """Every clause, on a file."""

    async def main() -> None:
        async with items(AsyncDatabase(f"sqlite:///{tmp_path}/items.db", max_size=3)) as db:
            await clause(db)

    asyncio.run(main())


def test_a_statement_that_takes_too_long_is_ended() -> None:
    """By interrupting it; the connection is not used again."""

    async def main() -> None:
        async with AsyncDatabase("sqlite://", max_size=1) as db:
            began_at = time.monotonic()
            with pytest.raises(millpond.StatementTimeout, match=r"not done within 0\.1 s"):
                await db.select_value(
                    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT COUNT(*) FROM n",
                    timeout=0.1,
                )
            assert time.monotonic() - began_at < 5.0
            assert 1 == await db.select_value("SELECT 1")

    asyncio.run(main())


def test_a_deadline_ends_a_wait_for_a_lock(tmp_path: Path) -> None:
    """Interrupting ends none; who waits for another's transaction waits no longer than a call may take."""
    other = sqlite3.connect(tmp_path / "items.db", isolation_level=None)

    async def main() -> None:
        async with AsyncDatabase(f"sqlite:///{tmp_path}/items.db?busy_timeout=20", max_size=1) as db:
            await db.execute("CREATE TABLE items (id INTEGER PRIMARY KEY)")
            other.execute("BEGIN IMMEDIATE")
            began_at = time.monotonic()
            with pytest.raises((millpond.LockTimeout, millpond.StatementTimeout)):
                await db.execute("INSERT INTO items VALUES (1)", timeout=0.2)
            assert time.monotonic() - began_at < 15.0
            other.execute("ROLLBACK")
            assert 1 == (await db.execute("INSERT INTO items VALUES (1)", timeout=20)).row_count
            assert 20_000 == await db.select_value("PRAGMA busy_timeout")

    asyncio.run(main())
    other.close()


def test_a_pool_that_was_given_stays_its_owner_s() -> None:
    """It is not closed with the database, and its settings are its own."""

    async def main() -> None:
        async with AsyncPool("sqlite://?autocommit=true", max_size=1) as pool:
            async with AsyncDatabase(pool) as db:
                assert 1 == await db.select_value("SELECT 1")
                assert db.pool is pool
            async with pool.connection():
                assert 1 == pool.stats().opened
            with pytest.raises(InvalidSetting):
                AsyncDatabase(pool, max_size=2)
        with pytest.raises(InvalidSetting):
            AsyncDatabase(5)  # type: ignore[arg-type]  # that is the test

    asyncio.run(main())


def test_who_holds_a_connection_is_named_by_the_program_s_own_place() -> None:
    """A caller who waits in vain is told where the transaction was begun, not where this library takes connections."""

    async def main() -> None:
        async with AsyncDatabase("sqlite://", max_size=1) as db, db.transaction():
            loop = asyncio.get_running_loop()
            with pytest.raises(millpond.PoolTimeout, match=r"taken at \S*test_database\.py:\d+ in main"):
                await loop.create_task(db.select_value("SELECT 1", timeout=0.01))

    asyncio.run(main())


def test_a_stream_that_a_cancelled_transaction_left_is_closed_with_it() -> None:
    """It is not left to the garbage collector, nor to the end of the loop."""
    begun: list[AsyncGenerator[Any, None]] = []

    async def leave_and_wait(db: AsyncDatabase) -> None:
        async with db.transaction():
            async for _ in db.stream("SELECT 1 UNION ALL SELECT 2"):
                break
            await asyncio.get_running_loop().create_future()

    async def main() -> None:
        first = sys.get_asyncgen_hooks().firstiter
        assert first is not None

        def note(made: AsyncGenerator[Any, None]) -> None:
            begun.append(made)
            first(made)

        async with AsyncDatabase("sqlite://", max_size=1) as db:
            assert 1 == await db.select_value("SELECT 1")  # from here on the pool begins no generator of its own
            sys.set_asyncgen_hooks(firstiter=note)
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(leave_and_wait(db), 0.2)
            assert begun
            assert [] == [made for made in begun if getattr(made, "ag_frame", None) is not None]
            assert 1 == await db.select_value("SELECT 1")

    asyncio.run(main())
