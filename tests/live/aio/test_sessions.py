"""Session state on real servers: nothing passes to the next borrower, and a clean use costs nothing; both drivers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from millpond import AsyncPool
from millpond.testing import ScratchServer
from tests.live.wire.dirt import MAY_FAIL, ROUTINES, SPOILT, VARIABLES
from tests.live.wire.ways import TABLE

from .servers import DRIVERS, answer, arguments_of, ask, pool_on, root

UNDONE = (
    "DROP FUNCTION IF EXISTS wire_function",
    "DROP PROCEDURE IF EXISTS wire_procedure",
    "DROP PROCEDURE IF EXISTS wire_failing",
)


@pytest.fixture
def spoilable(server: ScratchServer) -> Iterator[ScratchServer]:
    """Return a server with a table, a role, routines and a trigger that leave traces."""
    with root(server) as conn, conn.cursor() as cursor:
        cursor.execute(f"USE {server.database}")
        role_host = "" if server.kind == "mariadb" else "@'%'"
        cursor.execute(f"CREATE ROLE IF NOT EXISTS wire_role{role_host}")
        cursor.execute(f"GRANT wire_role TO {server.user}@'%'")
        if server.kind == "mysql":
            cursor.execute("SET GLOBAL log_bin_trust_function_creators = 1")
        for statement in (
            f"DROP TABLE IF EXISTS {TABLE}",
            f"CREATE TABLE {TABLE} (a INT PRIMARY KEY, b INT) ENGINE=InnoDB",
            f"INSERT INTO {TABLE} VALUES (1, 1)",
            *UNDONE,
            *ROUTINES,
        ):
            cursor.execute(statement)
        yield server
        for statement in (*UNDONE, f"DROP TABLE IF EXISTS {TABLE}"):
            cursor.execute(statement)


def told(server: ScratchServer, statements: list[str]) -> list[str]:
    """Return statements with the server's own words in them."""
    return [statement.format(variables=VARIABLES[server.kind], role="wire_role") for statement in statements]


@pytest.mark.filterwarnings("ignore::Warning:aiomysql")
@pytest.mark.filterwarnings("ignore::Warning:asyncmy")
@pytest.mark.filterwarnings("ignore:.*writes that were not committed")
@pytest.mark.parametrize("driver", DRIVERS)
def test_the_next_borrower_sees_a_new_session(spoilable: ScratchServer, driver: str) -> None:
    """Whatever one borrower did, the next sees what a new connection sees: the whole list, one after the other."""

    async def look(conn: Any, statements: list[str]) -> list[Any]:
        return [await answer(conn, statement) for statement in told(spoilable, statements)]

    async def main() -> dict[str, Any]:
        differences: dict[str, Any] = {}
        async with pool_on(spoilable, driver, max_size=1, timeout=20.0) as pool:
            for what, (spoil, looked_at) in SPOILT.items():
                clear(spoilable)
                async with pool.connection() as conn:
                    done = await look(conn, spoil)
                assert what in MAY_FAIL or not [one for one in done if isinstance(one, int)], (what, done)
                async with pool.connection() as conn:
                    seen = await look(conn, looked_at)
                    await conn.rollback()
                clear(spoilable)
                async with pool_on(spoilable, driver, max_size=1) as fresh, fresh.connection() as conn:
                    expected = await look(conn, looked_at)
                    await conn.rollback()
                if expected != seen:
                    differences[what] = (expected, seen)
        return differences

    assert {} == asyncio.run(main())


def clear(server: ScratchServer) -> None:
    """Put the table back."""
    with root(server) as conn, conn.cursor() as cursor:
        cursor.execute(f"DELETE FROM {server.database}.{TABLE} WHERE a <> 1")
        cursor.execute(f"UPDATE {server.database}.{TABLE} SET b = 1")


@pytest.mark.parametrize("driver", DRIVERS)
def test_a_clean_use_is_given_back_at_once(server: ScratchServer, driver: str) -> None:
    """A read in autocommit leaves nothing to clean: the connection is idle at once, and the server is asked nothing."""

    async def main() -> tuple[int, int, int]:
        async with pool_on(server, driver, max_size=1) as pool:
            for _ in range(3):
                async with pool.connection() as conn:
                    assert ((1,),) == await ask(conn, "SELECT 1")
                stats = pool.stats()
                assert (1, 0) == (stats.idle, stats.settling), "something is being cleaned"
            return stats.opened, stats.uses, stats.settling

    assert (1, 3, 0) == asyncio.run(main())


@pytest.mark.parametrize("driver", DRIVERS)
def test_a_callable_s_connections_are_rolled_back_at_every_return(server: ScratchServer, driver: str) -> None:
    """Of connections that somebody else makes nothing is known: the safe way."""
    import importlib

    module = importlib.import_module(driver)

    async def connect() -> Any:
        arguments = arguments_of(server, autocommit=False)
        if driver == "aiomysql":
            arguments["db"] = arguments.pop("database")
        return await module.connect(**arguments)

    async def main() -> None:
        async with AsyncPool(connect, driver=driver, max_size=1) as pool:
            async with pool.connection() as conn:
                await ask(conn, "SELECT 1")
                await ask(conn, "START TRANSACTION WITH CONSISTENT SNAPSHOT")
            async with pool.connection() as conn:
                assert not conn.get_transaction_status()
            assert 1 == pool.stats().opened

    asyncio.run(main())


async def rows_of(cursor: Any) -> AsyncIterator[Any]:
    """Read an unbuffered cursor."""
    while (row := await cursor.fetchone()) is not None:
        yield row


@pytest.mark.parametrize("driver", DRIVERS)
def test_a_long_reply_left_unread_costs_the_connection(server: ScratchServer, driver: str) -> None:
    """And one that was read to its end does not."""
    import importlib

    kind = importlib.import_module(f"{driver}.cursors").SSCursor
    many = " UNION ALL ".join(["SELECT REPEAT('x', 50000)"] * 201)

    async def main() -> tuple[int, int]:
        async with pool_on(server, driver, max_size=1) as pool:
            async with pool.connection() as conn:
                async with conn.cursor(kind) as cursor:
                    await cursor.execute(many)
                    assert 201 == len([row async for row in rows_of(cursor)])
            read = pool.stats().opened
            async with pool.connection() as conn:
                cursor = conn.cursor(kind)
                cursor = await cursor
                await cursor.execute(many)
                await cursor.fetchone()
            async with pool.connection() as conn:
                assert ((5,),) == await ask(conn, "SELECT 5")
            return read, pool.stats().opened

    assert (1, 2) == asyncio.run(main())


@pytest.mark.parametrize("driver", DRIVERS)
def test_what_cannot_be_encoded_leaves_the_connection_to_others(server: ScratchServer, driver: str) -> None:
    """Nothing was sent, so no task waits for a reply; the next one is not told that two are at work."""

    async def main() -> tuple[Any, int]:
        async with pool_on(server, driver) as pool:
            async with pool.connection() as conn:
                with pytest.raises(UnicodeEncodeError):
                    await ask(conn, "SELECT '\ud800'")
                with pytest.raises(TypeError):
                    await conn.query(5)

            async def other() -> Any:
                async with pool.connection() as conn:
                    return await ask(conn, "SELECT 1")

            return await asyncio.create_task(other()), pool.stats().opened

    assert (((1,),), 1) == asyncio.run(main())
