"""The asynchronous helper layer on real servers, with both drivers."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Any

import pytest

import millpond
from millpond import AsyncDatabase
from millpond.testing import FaultProxy, ScratchServer
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
            assert time.monotonic() - began_at < 30.0
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


def test_a_lost_answer_to_what_commits_is_of_unknown_outcome(server: ScratchServer, driver: str) -> None:
    """COMMIT, or a write by itself: it was done, nobody can know, and it is not done again; a read is just lost."""

    async def main() -> None:
        with FaultProxy(server.port) as proxy:
            async with (
                items(database(server, driver)) as near,
                database(server, driver, connect_args={"port": proxy.port}) as far,
            ):
                runs: list[int] = []

                async def write(name: str) -> None:
                    runs.append(1)
                    await far.execute(f"UPDATE {TABLE} SET name = ? WHERE id = 1", [name])

                async def write_and_lose() -> None:
                    await write("committed")
                    proxy.to_client.cut_after = 0

                await far.select_value("SELECT 1")
                with pytest.raises(millpond.OutcomeUnknown):
                    await far.run_transaction(write_and_lose)
                for statement, kind in ((write("by itself"), millpond.OutcomeUnknown), (None, millpond.ServerGone)):
                    proxy.heal()
                    await far.select_value("SELECT 1")
                    proxy.to_client.cut_after = 0
                    with pytest.raises(kind):
                        await (statement or far.select_value(f"SELECT COUNT(*) FROM {TABLE}"))
                proxy.heal()
                assert [1, 1] == runs
                assert "by itself" == await near.select_value(f"SELECT name FROM {TABLE} WHERE id = 1")

    asyncio.run(main())


def test_a_deadline_is_kept_when_nothing_is_heard_any_more(mariadb: ScratchServer, driver: str) -> None:
    """On a network that swallows everything the link is cut, and the transaction with it is undone."""

    async def main() -> None:
        with FaultProxy(mariadb.port) as proxy:
            async with (
                items(database(mariadb, driver)) as near,
                database(mariadb, driver, connect_args={"port": proxy.port}) as far,
            ):
                await far.select_value("SELECT 1")
                began_at = time.monotonic()
                with pytest.raises(millpond.StatementTimeout):
                    async with far.transaction():
                        await far.execute(f"DELETE FROM {TABLE}")
                        proxy.black_hole = True
                        await far.select_value(f"SELECT COUNT(*) FROM {TABLE}", timeout=0.2)
                assert time.monotonic() - began_at < 30.0
                proxy.reset()
                proxy.heal()
                assert 3 == await far.select_value(f"SELECT COUNT(*) FROM {TABLE}")
                assert 3 == await near.select_value(f"SELECT COUNT(*) FROM {TABLE}")

    asyncio.run(main())


def test_bytes_are_bound_as_bytes(server: ScratchServer, driver: str) -> None:
    """Whatever is in them, and of whichever class: of their own, the drivers cannot write them all."""

    async def main() -> None:
        async with items(database(server, driver)) as db:
            found = "SELECT ? AS v"
            assert (b"\x00\xff'\\%s",) == await db.select_row(found, [b"\x00\xff'\\%s"])
            for number, given in enumerate((bytearray(b"a'b"), type("Kind", (bytes,), {})(b"c'd")), 10):
                assert (bytes(given),) == await db.select_row(found, [given])
                assert [(bytes(given),)] == [row async for row in db.stream(found, [given])]
                assert 1 == await db.execute_many(f"INSERT INTO {TABLE} (id, name) VALUES (%s, %s)", [(number, given)])
            with pytest.raises(millpond.InvalidParameters, match="memoryview"):
                await db.select_row(found, [memoryview(b"x")])

    asyncio.run(main())


def test_warnings_of_a_server_are_neither_asked_for_nor_printed(
    server: ScratchServer, driver: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A statement is one command; the drivers' cursors would ask once more, and write to the log."""

    async def main() -> None:
        with FaultProxy(server.port, counting="mysql") as proxy:
            async with database(server, driver, connect_args={"port": proxy.port}) as db:
                await db.execute("DROP TABLE IF EXISTS never_was")
                await db.select_value("SELECT CAST('x' AS SIGNED)")
                sent = [command.text for command in proxy.commands]
            assert "DROP TABLE IF EXISTS never_was" in sent
            assert [] == [text for text in sent if "WARNINGS" in text]

    asyncio.run(main())
    assert [] == [record for record in caplog.records if record.levelno >= logging.WARNING]


def kill(server: ScratchServer, number: int) -> None:
    """End a session by force."""
    with root(server) as conn, conn.cursor() as cursor:
        cursor.execute(f"KILL {number}")
