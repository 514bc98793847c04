"""The asynchronous drivers on real servers: dials, TLS, dead links, cancelled statements, other loops."""

from __future__ import annotations

import asyncio
import importlib
import select
import time
import warnings
from collections.abc import Callable
from typing import Any

import pytest

from millpond import AsyncPool, ConcurrentUse
from millpond.aio import Clockwork
from millpond.testing import ScratchServer
from tests.garbage import collect

from .servers import DRIVERS, arguments_of, ask, pool_on, root, sessions

pytestmark = pytest.mark.parametrize("driver", DRIVERS)


async def eventually(found: Any, expected: Any) -> None:
    """Wait until *found* returns what is expected, with a deadline."""
    until = time.monotonic() + 10.0
    while found() != expected and time.monotonic() < until:  # noqa: ASYNC110  the server tells nobody
        await asyncio.sleep(0.02)
    assert expected == found()


def test_a_cancelled_statement_is_ended_on_the_server(server: ScratchServer, driver: str) -> None:
    """The task ends at once, its connection is never used again, and the server does not go on for nobody."""

    async def main() -> None:
        async with pool_on(server, driver, max_size=1) as pool:
            task = asyncio.get_running_loop().create_task(sleep_long(pool))
            await eventually(lambda: any("SLEEP" in (text or "") for _, _, text in sessions(server)), True)
            task.cancel()
            await asyncio.wait((task,))
            assert task.cancelled()
            async with pool.connection() as conn:
                assert ((7,),) == await ask(conn, "SELECT 7")
            await eventually(lambda: any("SLEEP" in (text or "") for _, _, text in sessions(server)), False)
            assert (2, {"unclean": 1}) == (pool.stats().opened, pool.stats().retired)
        await eventually(lambda: sessions(server), [])

    asyncio.run(main())


async def sleep_long(pool: AsyncPool[Any]) -> None:
    """Run a statement that takes a minute."""
    async with pool.connection() as conn:
        await ask(conn, "SELECT SLEEP(60)")


def test_a_session_that_was_killed_while_idle_is_seen_by_nobody(server: ScratchServer, driver: str) -> None:
    """Whoever asks next gets a living connection."""

    async def main() -> None:
        passed_s = [0.0]  # what answered less than a millisecond ago is not looked at
        clockwork = Clockwork(clock=lambda: time.monotonic() + passed_s[0])
        async with pool_on(server, driver, max_size=1, clockwork=clockwork) as pool:
            async with pool.connection() as conn:
                ((number,),) = await ask(conn, "SELECT CONNECTION_ID()")
                link = pool.driver.fileno(conn.driver_connection)
                assert link is not None
            with root(server) as admin, admin.cursor() as cursor:
                cursor.execute(f"KILL {number}")
            told, _, _ = select.select([link], [], [], 10.0)  # not awaited: the loop must not see it before it is asked
            assert [link] == told
            passed_s[0] = 1.0
            async with pool.connection() as conn:
                assert ((9,),) == await ask(conn, "SELECT 9")
            assert (2, 1) == (pool.stats().opened, pool.stats().retired["dead"])

    asyncio.run(main())


def test_tls_is_used_and_required(server: ScratchServer, driver: str) -> None:
    """By a mode of the URL, with one context for all connections; what is required is required."""

    async def main() -> None:
        url = f"{server.url(tls=False).split('?')[0]}?ssl=required".replace("mysql+pymysql", "mysql")
        async with AsyncPool(url, driver=driver, max_size=2) as pool, pool.connection() as conn:
            ((_, cipher),) = await ask(conn, "SHOW STATUS LIKE 'Ssl_cipher'")
            assert cipher
            async with pool.connection() as other:
                assert ((1,),) == await ask(other, "SELECT 1")

    asyncio.run(main())


def test_preferred_tls_is_used_where_it_is_to_be_had(
    start_server: Callable[..., ScratchServer], server: ScratchServer, driver: str
) -> None:
    """A server without TLS gets no credentials where it is required, and a connection where it is preferred."""

    async def ciphers(url: str) -> Any:
        async with AsyncPool(url, driver=driver, max_size=1) as pool, pool.connection() as conn:
            ((_, cipher),) = await ask(conn, "SHOW STATUS LIKE 'Ssl_cipher'")
            return cipher

    async def main(bare: ScratchServer) -> None:
        preferring, requiring = (
            [
                f"{one.url(tls=False).split('?')[0]}?ssl={mode}".replace("mysql+pymysql", "mysql")
                for one in (server, bare)
            ]
            for mode in ("preferred", "required")
        )
        assert await ciphers(preferring[0])
        assert not await ciphers(preferring[1])
        with pytest.raises(Exception, match="TLS is required, and this server has none"):
            await ciphers(requiring[1])

    asyncio.run(main(start_server(server.kind)))


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_a_link_that_broke_is_seen_off_without_a_word(server: ScratchServer, driver: str) -> None:
    """Sessions that were killed while they were idle are closed, and the loop has nothing to complain of."""
    complaints: list[dict[str, Any]] = []

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
        url = f"{server.url(tls=False).split('?')[0]}?ssl=required".replace("mysql+pymysql", "mysql")
        async with AsyncPool(url, driver=driver, max_size=4) as pool:
            for _ in range(5):
                leases = [await pool.connection() for _ in range(4)]
                numbers = [(await ask(lease, "SELECT CONNECTION_ID()"))[0][0] for lease in leases]
                with root(server) as admin, admin.cursor() as cursor:
                    for number in numbers:
                        cursor.execute(f"KILL {number}")
                for lease in leases:
                    await lease.close()
                pool.drain()
        collect()

    asyncio.run(main())
    assert [] == complaints


def test_settings_reach_the_session_and_come_back_after_a_reset(server: ScratchServer, driver: str) -> None:
    """Time zone, autocommit, character set, schema and on_connect are as at first, for each borrower."""

    async def main() -> None:
        query = "SELECT @@time_zone, @@autocommit, DATABASE(), @@character_set_client, @x"
        async with pool_on(
            server, driver, max_size=1, connect_args={"time_zone": "+02:00"}, on_connect="SET @x = 3"
        ) as pool:
            async with pool.connection() as conn:
                first = await ask(conn, query)
                await ask(conn, "SET time_zone = '+09:00', autocommit = 0, @x = 4, NAMES latin1")
                await ask(conn, "USE information_schema")
            async with pool.connection() as conn:
                assert first == await ask(conn, query)
            assert (("+02:00", 1, server.database, "utf8mb4", 3),) == first
            assert 1 == pool.stats().opened

    asyncio.run(main())


def test_what_a_function_sets_up_comes_back_after_a_reset(server: ScratchServer, driver: str) -> None:
    """``on_connect`` given as a function is called again for a session that was made as good as new."""

    async def set_up(conn: Any) -> None:
        await ask(conn, "SET @x = 3, time_zone = '+05:00'")

    async def main() -> None:
        async with pool_on(server, driver, max_size=1, on_connect=set_up) as pool:
            for _ in range(3):
                async with pool.connection() as conn:
                    assert ((3, "+05:00"),) == await ask(conn, "SELECT @x, @@time_zone")
                    await ask(conn, "SET @x = 4, time_zone = '+09:00'")
            assert 1 == pool.stats().opened

    asyncio.run(main())


def test_a_drain_in_the_middle_of_a_reset_proves_nothing_against_resets(server: ScratchServer, driver: str) -> None:
    """A connection that was closed before it could answer has not refused."""

    async def main() -> None:
        async with pool_on(server, driver, max_size=1) as pool:
            for _ in range(3):
                async with pool.connection() as conn:
                    await ask(conn, "SET @x = 1")
                pool.drain()
            assert "auto: COM_RESET_CONNECTION" == pool.stats().reset

    asyncio.run(main())


def test_an_idle_connection_does_not_keep_the_rows_of_its_last_statement(server: ScratchServer, driver: str) -> None:
    """Neither a clean session nor one that is cleaned does: large results would stay until the next statement."""

    async def main() -> None:
        async with pool_on(server, driver, max_size=1) as pool:
            for statements in (["SELECT 1"], ["SET @a = 1", "SELECT 1"]):
                async with pool.connection() as conn:
                    kept = conn.driver_connection
                    assert ((1,),) == [await ask(conn, statement) for statement in statements][-1]
                assert kept._result is None

    asyncio.run(main())


def test_listening_hides_nothing_of_the_driver(driver: str) -> None:
    """What listens has names of its own, but for the few methods it listens by; ``begin()`` was hidden once."""
    adapter = AsyncPool(importlib.import_module(driver)).driver
    kind = adapter.connection_class()  # type: ignore[attr-defined]  # the adapters of these two drivers have it
    base = importlib.import_module(f"{driver}.connection").Connection
    ours = {name for part in kind.__mro__ if part.__module__.startswith("millpond") for name in vars(part)}
    assert {
        *("query", "set_charset", "show_warnings", "_execute_command", "_read_ok_packet", "_read_query_result"),
        *(["_read_packet", "escape"] if driver == "aiomysql" else ["read_packet"]),  # of bytes: see its adapter
        "_request_authentication",
    } == {name for name in ours if hasattr(base, name) and not name.startswith("__")}


def test_two_tasks_on_one_connection_are_both_named(server: ScratchServer, driver: str) -> None:
    """The commonest mistake, by name."""

    async def main() -> None:
        async with pool_on(server, driver, max_size=1) as pool, pool.connection() as conn:
            loop = asyncio.get_running_loop()
            with root(server) as holder, holder.cursor() as cursor:
                cursor.execute("SELECT GET_LOCK('two tasks', 0)")
                first = loop.create_task(ask(conn, "SELECT GET_LOCK('two tasks', 60)"), name="the first")
                await eventually(lambda: any("GET_LOCK" in (text or "") for _, _, text in sessions(server)), True)
                second = loop.create_task(ask(conn, "SELECT 1"), name="the second")
                with pytest.raises(ConcurrentUse, match="'the first' waits for a reply on it, and 'the second' sent"):
                    await second
            assert ((1,),) == await first

    asyncio.run(main())


def test_a_cursor_is_of_no_use_after_its_connection_was_given_back(server: ScratchServer, driver: str) -> None:
    """It says that it is closed, and touches nothing."""

    async def main() -> None:
        async with pool_on(server, driver, max_size=1) as pool:
            async with pool.connection() as conn:
                cursor = await conn.cursor()
                await cursor.execute("SELECT 1")
            with pytest.raises(Exception, match=r"[Cc]ursor closed"):
                await cursor.execute("SELECT 2")
            async with pool.connection() as conn:
                assert ((3,),) == await ask(conn, "SELECT 3")

    asyncio.run(main())


def test_a_statement_that_warned_still_tells_what_it_changed(server: ScratchServer, driver: str) -> None:
    """Cursors ask for the warnings behind it, and the answer to that has rows of its own."""

    async def main() -> None:
        async with pool_on(server, driver) as pool, pool.connection() as conn:
            await ask(conn, "SET sql_mode = ''")
            await ask(conn, "CREATE TEMPORARY TABLE small (n TINYINT)")
            async with conn.cursor() as cursor:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # aiomysql's
                    await cursor.execute("INSERT INTO small VALUES (1), (998), (999)")
                assert (3, 3, 0) == (cursor.rowcount, conn.affected_rows(), conn.insert_id())

    asyncio.run(main())


def test_a_wrong_password_rises_at_once(server: ScratchServer, driver: str) -> None:
    """As the driver's own error, without waiting, and without the password in it."""
    kind = importlib.import_module(f"{driver}").OperationalError if driver == "aiomysql" else None

    async def main() -> None:
        arguments = arguments_of(server, password="not the password")
        async with AsyncPool(importlib.import_module(driver), connect_args=arguments, timeout=20.0) as pool:
            with pytest.raises(kind or Exception, match="Access denied") as caught:
                _ = await pool.connection()
            assert 1045 == caught.value.args[0]
            assert "not the password" not in repr(pool)

    asyncio.run(main())


def test_everything_works_on_uvloop(server: ScratchServer, driver: str) -> None:
    """Dials, statements, resets, cancellations, the end: on the other loop that people use."""
    import uvloop

    async def main() -> int:
        async with pool_on(server, driver, max_size=3, check_after=0.0) as pool:

            async def work(number: int) -> None:
                async with pool.connection() as conn:
                    assert ((number,),) == await ask(conn, "SELECT %s", (number,))
                    await ask(conn, "SET @x = 1")

            await asyncio.gather(*(work(number) for number in range(30)))
            task = asyncio.get_running_loop().create_task(sleep_long(pool))
            await eventually(lambda: any("SLEEP" in (text or "") for _, _, text in sessions(server)), True)
            task.cancel()
            await asyncio.wait((task,))
            assert task.cancelled()
            await asyncio.gather(*(work(number) for number in range(30)))
            assert 0 == pool.stats().lost
        await eventually(lambda: sessions(server), [])
        return len(asyncio.all_tasks())

    assert 1 == uvloop.run(main())
