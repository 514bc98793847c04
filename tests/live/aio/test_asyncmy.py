"""A statement over asyncmy, which the adapter waits for itself: whatever is in its way, it does as the driver does."""

from __future__ import annotations

import asyncio
import contextlib
import operator
import sys
import types
from typing import Any

import asyncmy
import asyncmy.connection
import asyncmy.converters
import pytest

from millpond.drivers._asyncmy_session import LONG, wakes
from millpond.drivers.asyncmy import AsyncmyDriver
from millpond.testing import ScratchServer
from tests.aio.test_counts import counter_of_ours

from .servers import arguments_of, ask, pool_on, root, sessions
from .test_drivers import eventually

# Most of our bytecodes and frames in a checkout, a cursor, a statement, a row and the return; on Python 3.12, the one
# interpreter that this runs on in CI.
STATEMENT = (716, 15)
COUNTED = 20  # such uses


def test_a_statement_of_any_length_is_answered(server: ScratchServer) -> None:
    """Those that the driver writes in pieces, and what follows them."""

    async def main() -> None:
        async with pool_on(server, "asyncmy", max_size=1) as pool, pool.connection() as conn:
            for length in (1, LONG - 20, LONG, 3 * LONG, 1):
                assert (("x" * length,),) == await ask(conn, "SELECT %s", ("x" * length,))

    asyncio.run(main())


def test_results_that_were_not_fetched_are_in_nobodys_way(server: ScratchServer) -> None:
    """Of two results one is left unread; the next statement gets its own."""

    async def main() -> None:
        async with pool_on(server, "asyncmy", max_size=1) as pool:
            async with pool.connection() as conn:
                cursor = conn.cursor()
                await cursor.execute("SELECT 1; SELECT 2")
                assert ((3,),) == await ask(conn, "SELECT 3")
            async with pool.connection() as conn:
                assert ((4,),) == await ask(conn, "SELECT 4")

    asyncio.run(main())


def test_rows_that_are_read_one_by_one_come_between_others(server: ScratchServer) -> None:
    """An unbuffered result that was read to its end is followed by statements of both kinds."""

    async def main() -> None:
        async with pool_on(server, "asyncmy", max_size=1) as pool, pool.connection() as conn:
            for number in range(3):
                async with conn.cursor(asyncmy.cursors.SSCursor) as cursor:
                    await cursor.execute("SELECT %s UNION ALL SELECT 7", (number,))
                    assert [(number,), (7,)] == list(await cursor.fetchall())
                assert ((number,),) == await ask(conn, "SELECT %s", (number,))

    asyncio.run(main())


def test_a_session_that_is_killed_in_a_statement_is_told_as_the_driver_tells_it(server: ScratchServer) -> None:
    """Its task hears of it, nobody gets its connection, and the pool goes on."""

    async def main() -> None:
        async with pool_on(server, "asyncmy", max_size=1) as pool:
            async with pool.connection() as conn:
                waiting = asyncio.get_running_loop().create_task(ask(conn, "SELECT SLEEP(60)"))
                await asyncio.sleep(0)
                with root(server) as other, other.cursor() as cursor:
                    cursor.execute(f"KILL {conn.thread_id()}")
                with pytest.raises(asyncmy.errors.OperationalError):
                    await asyncio.wait_for(waiting, 30.0)
            assert {"dead": 1} == pool.stats().retired
            async with pool.connection() as conn:
                assert ((7,),) == await ask(conn, "SELECT 7")

    asyncio.run(main())


def test_the_drivers_own_time_limit_is_kept(mariadb: ScratchServer) -> None:
    """With ``read_timeout`` the driver does the waiting; the connection is not used again, and what ran is killed."""

    async def main() -> None:
        async with pool_on(mariadb, "asyncmy", max_size=1, connect_args={"read_timeout": 1.5}) as pool:
            async with pool.connection() as conn:
                first = conn.thread_id()
                with pytest.raises(asyncmy.errors.OperationalError):
                    await ask(conn, "SELECT SLEEP(600)")
            async with pool.connection() as conn:
                assert ((7,),) == await ask(conn, "SELECT 7")
            assert 2 == pool.stats().opened
            await eventually(lambda: first in [number for number, _, _ in sessions(mariadb)], False)

    asyncio.run(main())


def test_a_statement_whose_task_comes_too_late_is_not_sent(server: ScratchServer) -> None:
    """Its connection was given back before the task had its first turn: it is in other hands."""

    async def main() -> None:
        async with pool_on(server, "asyncmy", max_size=1) as pool:
            async with pool.connection() as conn:
                cursor = conn.cursor()
                late = asyncio.get_running_loop().create_task(cursor.execute("SELECT GET_LOCK(%s, 0)", ("late",)))
            async with pool.connection() as conn:
                with pytest.raises(asyncmy.errors.ProgrammingError, match="Cursor closed"):
                    await late
                assert ((None,),) == await ask(conn, "SELECT IS_USED_LOCK('late')")

    asyncio.run(main())


def test_values_are_those_that_there_are_when_a_statement_is_awaited(mariadb: ScratchServer) -> None:
    """As in the driver, whose ``execute`` begins then; what is wrong with them is told then as well."""

    async def main() -> None:
        async with pool_on(mariadb, "asyncmy", max_size=1) as pool:
            for _ in range(3):
                async with pool.connection() as conn, conn.cursor() as cursor:
                    values = [1]
                    asking = cursor.execute("SELECT %s", values)
                    values[0] = 2
                    await asking
                    assert (2,) == await cursor.fetchone()
                    asking = cursor.execute("SELECT %s", (1, 2))
                    with pytest.raises(TypeError, match="not all arguments converted"):
                        await asking
            assert 1 == pool.stats().opened

    asyncio.run(main())


def test_a_row_of_16_mib_is_a_row(mariadb: ScratchServer) -> None:
    """By itself the driver takes one for the end of its result: no row came, and the rest was in the next one's way."""

    async def main() -> None:
        with root(mariadb) as other, other.cursor() as cursor:
            cursor.execute("SELECT @@GLOBAL.max_allowed_packet")
            ((usual,),) = cursor.fetchall()
            cursor.execute("SET GLOBAL max_allowed_packet = 64 << 20")
            try:
                async with pool_on(mariadb, "asyncmy", max_size=1) as pool:
                    async with pool.connection() as conn:
                        ((value, one),) = await ask(conn, "SELECT REPEAT('x', %s), 1", (16 << 20,))
                        assert (16 << 20, 1) == (len(value), one)
                    async with pool.connection() as conn:
                        assert ((7,),) == await ask(conn, "SELECT 7")
                    assert 1 == pool.stats().opened
            finally:
                cursor.execute("SET GLOBAL max_allowed_packet = %s", (usual,))

    asyncio.run(main())


def test_a_known_text_is_answered_as_the_driver_answers_it(server: ScratchServer) -> None:
    """Values of all kinds, whatever their names and types were the last time; and what the columns are."""
    kinds = "1.5, NULL, CAST('2026-11-25 10:00:00.5' AS DATETIME(3)), CAST('10:00' AS TIME), X'00FF', DATE'2026-11-25'"
    asked = f"SELECT %s, %s AS named, 'text', {kinds} UNION ALL SELECT 1, 'x', 'y', {kinds}"
    values: tuple[tuple[Any, ...], ...] = (
        (1, "a"),
        (12345678901, "\N{SNOWMAN}"),
        (1, "a"),
        ("a", None),
        (1.5, 2),
        (2, "b"),
    )

    async def answer(conn: Any, given: tuple[Any, ...]) -> Any:
        async with conn.cursor() as cursor:
            count = await cursor.execute(asked, given)
            told = (cursor.description, cursor.rowcount, cursor.lastrowid, cursor.rownumber)
            assert await cursor.nextset() is None
            return count, told, conn.affected_rows(), [row async for row in cursor], await cursor.fetchone()

    async def main() -> None:
        plain = await asyncmy.connect(**arguments_of(server))
        expected = [await answer(plain, given) for given in values]
        plain.close()
        async with pool_on(server, "asyncmy", max_size=1) as pool:
            for _ in range(3):
                for given, told in zip(values, expected, strict=True):
                    async with pool.connection() as conn:
                        assert told == await answer(conn, given)

    asyncio.run(main())


def test_each_connection_converts_values_as_it_was_set_up_to(mariadb: ScratchServer) -> None:
    """What is known of replies is shared only by those that do it alike."""
    made: list[Any] = []

    def set_up(conn: Any) -> None:
        if made:
            conn._decoders = {}  # everything stays text
        made.append(conn)

    async def main() -> None:
        async with (
            pool_on(mariadb, "asyncmy", max_size=2, on_connect=set_up) as pool,
            pool.connection() as first,
            pool.connection() as second,
        ):
            for conn in (first, second) * 4:
                expected = 7 if conn.driver_connection is made[0] else "7"
                assert ((expected,),) == await ask(conn, "SELECT 7")

    asyncio.run(main())


def test_a_session_without_autocommit_that_reads_no_table_is_as_good_as_new(server: ScratchServer) -> None:
    """No bit of its status word is set; that is a word, and nothing has to be undone."""

    async def main() -> None:
        async with pool_on(server, "asyncmy", max_size=1, connect_args={"autocommit": False}) as pool:
            for _ in range(5):
                async with pool.connection() as conn:
                    assert ((7,),) == await ask(conn, "SELECT 7")
                    session = conn.driver_connection._millpond
                assert (0, True) == (session.status, session.is_clean)

    asyncio.run(main())


LEAVING: dict[str, tuple[str, Any, str]] = {
    "a lock": ("SELECT GET_LOCK(%s, 0)", ("left",), "SELECT IS_USED_LOCK('left')"),
    "a variable": ("SELECT @left := %s", ("left",), "SELECT @left"),
    "a lock, by a value that is no literal": ("SELECT GET_LOCK %s", (("left", 0),), "SELECT IS_USED_LOCK('left')"),
}


@pytest.mark.parametrize("kind", LEAVING)
def test_what_a_statement_leaves_is_seen_each_time(server: ScratchServer, kind: str) -> None:
    """Also when the same text was sent before, with values of which nothing is left."""
    statement, values, trace = LEAVING[kind]

    async def main() -> None:
        async with pool_on(server, "asyncmy", max_size=1) as pool:
            for harmless in (True, True, False, False):
                async with pool.connection() as conn:
                    await answer_to(conn, statement, ("left",) * statement.count("%s") if harmless else values)
                async with pool.connection() as conn:
                    assert ((None,),) == await ask(conn, trace)

    asyncio.run(main())


async def answer_to(conn: Any, statement: str, values: tuple[Any, ...]) -> None:
    """Run a statement; whether the server likes it does not matter."""
    with contextlib.suppress(asyncmy.errors.MySQLError):
        await ask(conn, statement, values)


def test_values_that_a_program_writes_itself_are_judged_each_time(mariadb: ScratchServer) -> None:
    """Nobody knows what its converters make of them."""
    writing = {**asyncmy.converters.conversions, int: lambda value, _: f"GET_LOCK('left', {value})"}

    async def main() -> None:
        async with pool_on(mariadb, "asyncmy", max_size=1, connect_args={"conv": writing}) as pool:
            for _ in range(4):
                async with pool.connection() as conn:
                    assert ((1,),) == await ask(conn, "SELECT %s", (0,))
                async with pool.connection() as conn:
                    assert ((None,),) == await ask(conn, "SELECT IS_USED_LOCK('left')")

    asyncio.run(main())


def test_a_character_set_that_the_drivers_text_is_not_in_proves_nothing(server: ScratchServer) -> None:
    """In GBK the end of this character and the backslash before the quote are one: the rest of the value is code."""
    value = "\N{CJK UNIFIED IDEOGRAPH-7E17}' , GET_LOCK(0x6c656674, 0) -- "

    async def main() -> None:
        async with pool_on(server, "asyncmy", max_size=1, on_connect="SET NAMES gbk") as pool:
            for _ in range(4):
                async with pool.connection() as conn:
                    ((_, taken),) = await ask(conn, "SELECT %s", (value,))
                    assert 1 == taken
                async with pool.connection() as conn:
                    assert ((None,),) == await ask(conn, "SELECT IS_USED_LOCK('left')")

    asyncio.run(main())


def test_who_watches_statements_by_the_driver_sees_them_all(mariadb: ScratchServer) -> None:
    """``query_callback`` is asyncmy's own."""
    seen: list[str] = []

    async def main() -> None:
        watching = {"query_callback": lambda _cursor, statement, _ms: seen.append(statement)}
        async with pool_on(mariadb, "asyncmy", max_size=1, connect_args=watching) as pool:
            for number in range(3):
                async with pool.connection() as conn:
                    assert ((number,),) == await ask(conn, "SELECT %s", (number,))

    asyncio.run(main())
    assert [f"SELECT {number}" for number in range(3)] == seen


def test_a_statement_that_warns_says_so(mariadb: ScratchServer, caplog: pytest.LogCaptureFixture) -> None:
    """As asyncmy does, by its logger; and the warnings do not stay for the next borrower."""

    async def main() -> None:
        async with pool_on(mariadb, "asyncmy", max_size=1) as pool:
            for _ in range(3):
                async with pool.connection() as conn:
                    assert ((1,),) == await ask(conn, "SELECT %s = 1", ("1x",))
                async with pool.connection() as conn:
                    assert () == await ask(conn, "SHOW WARNINGS")

    asyncio.run(main())
    assert 3 == sum("1x" in record.getMessage() for record in caplog.records)


class Deaf(asyncmy.connection._MySQLProtocol):  # type: ignore[name-defined,misc]  # compiled, and private
    """The protocol of a version that wakes its readers in another way."""

    def buffer_updated(self, nbytes: int) -> None:
        """Wake nobody that the adapter knows of."""
        self._read_waiter, waiter = None, self._read_waiter
        super().buffer_updated(nbytes)
        self._read_waiter = waiter


def test_an_asyncmy_that_waits_in_another_way_is_left_to_it(server: ScratchServer) -> None:
    """That is tried before the first statement, so that none waits for ever."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        assert wakes(Deaf.__base__, loop)
        assert not wakes(Deaf, loop)
        adapter = AsyncmyDriver()
        kind: Any = types.new_class("Connection", (adapter.connection_class(),))
        async with pool_on(server, "asyncmy", max_size=1) as pool, pool.connection() as conn:
            assert conn.driver_connection.waits_itself
            conn.driver_connection.__class__ = kind
            kind.waits_itself = False
            assert ((7,),) == await ask(conn, "SELECT 7")

    asyncio.run(main())


@pytest.mark.skipif(sys.version_info[:2] != (3, 12), reason="the count is that of Python 3.12")
def test_a_statement_takes_no_more_than_it_did(mariadb: ScratchServer) -> None:
    """All that a pooled statement costs beside what the driver does, counted."""

    async def use(pool: Any) -> None:
        async with pool.connection() as conn, conn.cursor() as cursor:
            await cursor.execute("SELECT %s, 'some text', 3.5", (7,))
            assert 7 == (await cursor.fetchone())[0]

    async def main() -> None:
        async with pool_on(mariadb, "asyncmy", max_size=1) as pool:
            counters = [counter_of_ours() for _ in range(COUNTED)]
            for counter in counters:
                with counter:
                    await use(pool)
        # The least of them: the first have more to do, and the pool's clock may ring in one.
        min(counters, key=operator.attrgetter("bytecodes")).assert_within(STATEMENT)

    asyncio.run(main())
