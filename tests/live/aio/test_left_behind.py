"""What borrowers leave besides session state: replies, cursors, converters, other links; and how links are left."""

from __future__ import annotations

import asyncio
import importlib
import time
from collections.abc import Iterator
from typing import Any

import pytest

from millpond import AsyncDatabase, AsyncPool, ConcurrentUse, ConnectionReturned, aio
from millpond.drivers import _aio_parting as parting
from millpond.testing import ScratchServer
from tests.garbage import collect
from tests.live.asking import wait_until

from .servers import DRIVERS, answer, ask, pool_on, root, sessions

LIMIT = 1 << 20  # bytes of a statement
DECIMAL = 246
ROWS = "SELECT 1 UNION ALL SELECT 2 UNION ALL SELECT 3"
ROWS_BEHIND_A_LOCK = "SELECT REPEAT('x', 20000), 0 UNION ALL " * 4 + "SELECT '', GET_LOCK('aio rows', 60)"

pytestmark = pytest.mark.parametrize("driver", DRIVERS)


def cursor_class(driver: str, name: str) -> Any:
    """Return one of a driver's classes of cursors."""
    return getattr(importlib.import_module(f"{driver}.cursors"), name)


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the pool wait longer for a server than one takes that has no processor just now."""
    monkeypatch.setattr(aio, "FINISH_S", 30.0)
    monkeypatch.setattr(parting, "FAREWELL_S", 30.0)


@pytest.fixture
def telling(server: ScratchServer) -> Iterator[ScratchServer]:
    """Return a server with a procedure that returns two results."""
    with root(server) as conn, conn.cursor() as cursor:
        cursor.execute(f"USE {server.database}")
        cursor.execute("DROP PROCEDURE IF EXISTS aio_telling")
        cursor.execute("CREATE PROCEDURE aio_telling() BEGIN SELECT 1; SELECT 2, 3; END")
        yield server
        cursor.execute("DROP PROCEDURE aio_telling")


def test_a_short_reply_that_was_left_is_read(telling: ScratchServer, driver: str) -> None:
    """A procedure's last packet, which hardly anybody asks for, costs no connection; nor do a few rows."""

    async def main() -> tuple[int, Any]:
        async with pool_on(telling, driver, max_size=1) as pool:
            async with pool.connection() as conn:
                cursor = await conn.cursor()
                await cursor.callproc("aio_telling")
                assert ((1,),) == tuple(await cursor.fetchall())
            async with pool.connection() as conn:
                cursor = await conn.cursor(cursor_class(driver, "SSCursor"))
                await cursor.execute(ROWS)
                assert (1,) == await cursor.fetchone()
            async with pool.connection() as conn:
                return pool.stats().opened, await ask(conn, "SELECT 7")

    assert (1, ((7,),)) == asyncio.run(main())


@pytest.mark.parametrize("reset", ["auto", "none"])
def test_a_connection_that_is_lent_for_long_keeps_no_cursors(mariadb: ScratchServer, driver: str, reset: str) -> None:
    """Neither closed ones nor dropped ones, with their rows; one that its borrower still has is cut off at return."""

    async def main() -> tuple[bool, Any]:
        async with pool_on(mariadb, driver, max_size=1, reset=reset) as pool:
            async with pool.connection() as conn:
                kept = await conn.cursor()
                for _ in range(100):
                    await ask(conn, "SELECT 1")
                    await (await conn.cursor()).execute("SELECT 1")
                few = len(conn._slot.cursors or conn.driver_connection._millpond_cursors) < 100
                await kept.execute("SELECT 1")
            return few, await answer_of_cursor(kept)

    assert (True, "closed") == asyncio.run(main())


async def answer_of_cursor(cursor: Any) -> Any:
    """Return what a cursor answers, or that it is closed."""
    try:
        return await cursor.execute("SELECT 1")
    except Exception as error:  # noqa: BLE001  the drivers' errors have one base each, and other texts
        return "closed" if "losed" in str(error) else repr(error)


def test_a_session_that_a_ping_has_connected_anew_is_not_lent_again(server: ScratchServer, driver: str) -> None:
    """Nothing of it was set up: what on_connect says is not there, and the server does not tell of changes."""

    async def main() -> tuple[Any, int]:
        async with pool_on(server, driver, max_size=1, on_connect="SET @@div_precision_increment = 7") as pool:
            async with pool.connection() as conn:
                await conn.ensure_closed()
                await conn.ping()
                await ask(conn, "SELECT 1")
            async with pool.connection() as conn:
                return await ask(conn, "SELECT @@div_precision_increment"), pool.stats().opened

    assert (((7,),), 2) == asyncio.run(main())


def test_whoever_sends_or_reads_while_another_task_reads_rows_is_told(mariadb: ScratchServer, driver: str) -> None:
    """And takes nothing from it: the rows come, all of them."""

    async def main() -> int:
        async with pool_on(mariadb, driver, max_size=1) as pool, pool.connection() as conn:
            with root(mariadb) as other, other.cursor() as lock:
                lock.execute("SELECT GET_LOCK('aio rows', 0)")
                cursor = await conn.cursor(cursor_class(driver, "SSCursor"))
                await cursor.execute(ROWS_BEHIND_A_LOCK)
                task = asyncio.get_running_loop().create_task(count(cursor))
                until = time.monotonic() + 10.0
                while not conn.driver_connection.is_awaited and time.monotonic() < until:  # noqa: ASYNC110  it tells nobody
                    await asyncio.sleep(0)
                with pytest.raises(ConcurrentUse, match="another task reads"):
                    await ask(conn, "SELECT 5")
                with pytest.raises(ConcurrentUse, match="another task reads"):
                    await cursor.fetchone()
                lock.execute("SELECT RELEASE_LOCK('aio rows')")
            return await task

    assert 5 == asyncio.run(main())


async def count(cursor: Any) -> int:
    """Count rows that come one by one."""
    rows = 0
    while await cursor.fetchone() is not None:
        rows += 1
    return rows


@pytest.mark.parametrize("length", [LIMIT + 2048, 8 * LIMIT], ids=["just", "by far"])
def test_a_statement_that_is_too_long_is_called_that(server: ScratchServer, driver: str, length: int) -> None:
    """It is error 1153 however the link broke; its connection is replaced, and no other is suspected."""

    async def main() -> tuple[Any, dict[str, int]]:
        async with pool_on(server, driver, max_size=2) as pool:
            async with pool.connection() as one, pool.connection() as two:
                await ask(two, "SELECT 1")
                told = await answer(one, f"SELECT LENGTH('{'x' * length}')")
            return told, pool.stats().retired

    with root(server) as conn, conn.cursor() as cursor:
        cursor.execute("SELECT @@global.max_allowed_packet")
        ((before,),) = cursor.fetchall()
        cursor.execute(f"SET GLOBAL max_allowed_packet = {LIMIT}")
        try:
            assert (1153, {"unclean": 1}) == asyncio.run(main())
        finally:
            cursor.execute(f"SET GLOBAL max_allowed_packet = {before}")


def test_a_goodbye_behind_a_reset_is_heard(server: ScratchServer, driver: str) -> None:
    """A link whose answer is out stays open for it: a server that cannot send it would count an aborted client."""

    async def main() -> None:
        async with pool_on(server, driver, on_connect="DO SLEEP(0.2)") as pool:
            async with pool.connection() as conn:
                await ask(conn, "SET @left = 1")
            assert 1 == pool.stats().settling

    before = aborted(server)
    asyncio.run(main())
    assert before == aborted(server)


def test_a_pool_that_is_dropped_leaves_no_link_open_for_an_answer(mariadb: ScratchServer, driver: str) -> None:
    """Nobody will wait for it."""

    async def main() -> None:
        pool = pool_on(mariadb, driver, on_connect="DO SLEEP(0.2)")
        async with pool.connection() as conn:
            await ask(conn, "SET @left = 1")
        assert 1 == pool.stats().settling
        link = conn_of(pool).link
        del conn
        with pytest.warns(ResourceWarning, match="was never closed"):
            del pool
            collect()
        assert link.is_closing()
        await asyncio.sleep(0)

    asyncio.run(main())


def conn_of(pool: AsyncPool[Any]) -> Any:
    """Return the driver's connection that is being reset."""
    return pool._ledger.settling[0].conn


def aborted(server: ScratchServer) -> int:
    """Return how many clients went without a goodbye, once all have gone."""
    wait_until(lambda: not sessions(server), pause_s=0.02)
    with root(server) as conn, conn.cursor() as cursor:
        cursor.execute("SHOW GLOBAL STATUS LIKE 'Aborted_clients'")
        return int(cursor.fetchall()[0][1])


def test_converters_are_the_borrowers_own(mariadb: ScratchServer, driver: str) -> None:
    """The tables of aiomysql are those of every connection in the process; asyncmy shows none."""

    async def main() -> list[str]:
        async with pool_on(mariadb, driver, max_size=1) as pool, pool_on(mariadb, driver, max_size=1) as other:
            async with pool.connection() as conn:
                if driver == "aiomysql":
                    conn.decoders[DECIMAL] = float
                    assert ((1.5,),) == await ask(conn, "SELECT 1.5")
            seen: list[str] = []
            for lender in (pool, other):
                async with lender.connection() as conn:
                    ((value,),) = await ask(conn, "SELECT 1.5")
                    seen.append(type(value).__name__)
            return seen

    assert ["Decimal", "Decimal"] == asyncio.run(main())


def test_a_task_that_comes_too_late_does_nothing_to_the_next_borrower(mariadb: ScratchServer, driver: str) -> None:
    """What it was made for is not begun: a COMMIT that nobody waited for would commit half of another's transaction."""

    async def main() -> tuple[bool, bool, Any]:
        async with pool_on(mariadb, driver, max_size=1, connect_args={"autocommit": False}) as pool:
            async with pool.connection() as conn:
                late = (asyncio.ensure_future(conn.commit()), asyncio.ensure_future(conn.query("SET @late = 1")))
            async with pool.connection() as conn:
                await conn.begin()
                await asyncio.wait(late)
                refused = all(isinstance(task.exception(), ConnectionReturned) for task in late)
                return refused, conn.get_transaction_status(), await ask(conn, "SELECT @late")

    assert (True, True, ((None,),)) == asyncio.run(main())


def test_a_short_stream_that_was_left_costs_no_connection(server: ScratchServer, driver: str) -> None:
    """Neither where it was closed nor where it was dropped; of a long one the rest is not read."""

    async def main() -> tuple[int, dict[str, int]]:
        async with pool_on(server, driver, max_size=1) as pool:
            db = AsyncDatabase(pool)
            async with db.stream(ROWS) as rows:
                assert (1,) == await anext(aiter(rows))
            assert (1,) == await anext(aiter(db.stream(ROWS)))
            assert 3 == len(await db.select_rows(ROWS))
            opened = pool.stats().opened
            async with db.stream(" UNION ALL ".join(["SELECT REPEAT('x', 50000)"] * 201)) as rows:
                await anext(aiter(rows))
            assert 3 == len(await db.select_rows(ROWS))
            return opened, pool.stats().retired

    assert (1, {"unclean": 1}) == asyncio.run(main())
