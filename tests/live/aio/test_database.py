"""The asynchronous helper layer on real servers, with both drivers."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

import millpond
from millpond import AsyncDatabase
from millpond.testing import ScratchServer
from tests.aio.database_contract import CONTRACT, TABLE, items
from tests.live.database.test_deadlines import LONG

from .servers import DRIVERS, root

pytestmark = pytest.mark.parametrize("driver", DRIVERS)


def database(server: ScratchServer, driver: str, **settings: Any) -> AsyncDatabase:
    """Return a database on a server."""
    scheme, rest = server.url(tls=False).split("://")
    del scheme
    return AsyncDatabase(f"mysql+{driver}://{rest.split('?')[0]}", max_size=3, **settings)


@pytest.mark.parametrize("clause", CONTRACT, ids=lambda clause: clause.__name__)
def test_the_contract_holds(server: ScratchServer, driver: str, clause: Any) -> None:
    """Every clause, on both servers, with both drivers."""

    async def main() -> None:
        async with items(database(server, driver)) as db:
            await clause(db)

    asyncio.run(main())


def test_a_statement_that_takes_too_long_is_ended_on_the_server(server: ScratchServer, driver: str) -> None:
    """By the server's own limit, or by KILL QUERY; a transaction that it is in goes on."""

    async def main() -> None:
        async with items(database(server, driver)) as db:
            began_at = time.monotonic()
            with pytest.raises(millpond.StatementTimeout):
                await db.select_value(LONG, timeout=0.2)
            assert time.monotonic() - began_at < 10.0
            async with db.transaction():
                await db.execute(f"UPDATE {TABLE} SET name = 'first' WHERE id = 1")
                with pytest.raises(millpond.StatementTimeout):
                    await db.execute(f"UPDATE {TABLE} SET id = id + 100 + SLEEP(30)", timeout=0.2)
                await db.execute(f"UPDATE {TABLE} SET name = 'second' WHERE id = 2")
            assert ["first", "second"] == await db.select_column(f"SELECT name FROM {TABLE} WHERE id < 3 ORDER BY id")

    asyncio.run(main())


def test_a_real_deadlock_is_run_again(server: ScratchServer, driver: str) -> None:
    """Two transactions that lock two rows in opposite order: both are done in the end."""

    async def main() -> None:
        async with items(database(server, driver)) as db:
            met = asyncio.Barrier(2) if hasattr(asyncio, "Barrier") else None
            first_tries: list[int] = []

            async def lock(one: int, other: int) -> None:
                await db.execute(f"UPDATE {TABLE} SET name = ? WHERE id = ?", [f"by {one}", one])
                if len(first_tries) < 2 and met is not None:
                    first_tries.append(one)
                    await met.wait()
                await db.execute(f"UPDATE {TABLE} SET name = ? WHERE id = ?", [f"to {other}", other])

            await asyncio.gather(
                db.run_transaction(lambda: lock(1, 2)),
                db.run_transaction(lambda: lock(2, 1)),
            )

    asyncio.run(main())


def test_a_link_that_is_lost_before_commit_loses_the_transaction(server: ScratchServer, driver: str) -> None:
    """What was done in it is undone, the error says so, and a whole transaction is run again."""

    async def main() -> None:
        async with items(database(server, driver)) as db:
            runs = 0

            async def once_broken() -> None:
                nonlocal runs
                runs += 1
                await db.execute(f"UPDATE {TABLE} SET name = ? WHERE id = 1", [f"run {runs}"])
                if runs == 1:
                    kill(server, int(await db.select_value("SELECT CONNECTION_ID()")))
                await db.execute(f"UPDATE {TABLE} SET name = ? WHERE id = 2", [f"also run {runs}"])

            await db.run_transaction(once_broken)
            assert ["run 2", "also run 2"] == await db.select_column(
                f"SELECT name FROM {TABLE} WHERE id < 3 ORDER BY id"
            )

    asyncio.run(main())


def kill(server: ScratchServer, number: int) -> None:
    """End a session by force."""
    with root(server) as conn, conn.cursor() as cursor:
        cursor.execute(f"KILL {number}")
