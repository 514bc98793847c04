"""What every adapter of an asyncio driver must do: a test class to subclass, one test a promise.

::

    class TestMyDriver(AsyncDriverContract):
        def make_driver(self, **settings):
            return MyDriver(mydb, connect_args={...}, **settings)

Run it with pytest, which needs no plugin for it: each test has a loop of its own.  It needs a database that has nothing
of value in it: it creates and drops one table.

Rules: a promise that an adapter does not give (its ``capabilities`` say so) is not tested, and one it gives is.
"""

from __future__ import annotations

import asyncio
import math
import socket
import time
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

from millpond._core.states import Fault
from millpond.drivers.aio import AsyncDriver, answer_of
from millpond.testing.contract import Promises


class AsyncDriverContract(Promises[AsyncDriver[Any]]):
    """The promises of an adapter for tasks; subclass it, and say how to make one.

    Attributes: as of :class:`millpond.testing.DriverContract`.
    """

    # -- to be told --------------------------------------------------------------------------------------------------
    async def break_connection(self, driver: AsyncDriver[Any], conn: Any) -> None:
        """End the link of a connection, as a server or a network would; closing it is the least."""
        await finished(driver.close(conn))

    async def run(self, conn: Any, statement: str) -> list[Any]:
        """Run a statement on the driver's own connection, by a cursor as DB-API drivers have them; return its rows."""
        cursor = await answer_of(conn.cursor())
        await cursor.execute(statement)
        rows = await cursor.fetchall() if cursor.description else ()
        await cursor.close()
        return [tuple(row) for row in rows]

    def driver_asking(self, asked: Callable[[], object]) -> AsyncDriver[Any] | None:
        """Return an adapter whose password is a callable that calls *asked*; None if this driver knows none."""
        return None

    # -- tools -------------------------------------------------------------------------------------------------------
    @asynccontextmanager
    async def opened(self, driver: AsyncDriver[Any], until: float | None = None) -> AsyncGenerator[Any, None]:
        """Open a connection, and close it at the end."""
        conn = await driver.open(self.soon() if until is None else until)
        try:
            yield conn
        finally:
            await finished(driver.close(conn))

    @asynccontextmanager
    async def with_table(self) -> AsyncGenerator[None, None]:
        """Have the table, and drop it at the end."""
        driver = self.make_driver()
        async with self.opened(driver) as conn:
            await self.run(conn, f"CREATE TABLE {self.table} (a INTEGER)")
            await conn.commit()
        try:
            yield
        finally:
            async with self.opened(driver) as conn:
                await self.run(conn, f"DROP TABLE {self.table}")
                await conn.commit()

    async def rows(self, conn: Any) -> int:
        """Return how many rows the table has."""
        ((count,),) = await self.run(conn, f"SELECT COUNT(*) FROM {self.table}")
        return int(count)

    def on_connection(
        self, driver: AsyncDriver[Any], work: Callable[[Any], Coroutine[Any, Any, None]], *, tabled: bool = False
    ) -> None:
        """Do something with a connection, in a loop of its own; *tabled*: while there is the table."""

        async def main() -> None:
            async with self.opened(driver) as conn:
                await work(conn)

        async def main_with_table() -> None:
            async with self.with_table():
                await main()

        asyncio.run(main_with_table() if tabled else main())

    # -- opening and closing -------------------------------------------------------------------------------------------
    def test_opens_connections_that_work(self) -> None:
        """A connection that was opened answers, and has nothing to be cleaned."""
        driver = self.make_driver()

        async def work(conn: Any) -> None:
            assert [(1,)] == await self.run(conn, "SELECT 1")
            assert await driver.is_alive(conn, self.soon())
            assert not driver.in_flight(conn)

        self.on_connection(driver, work)

    def test_no_deadline_is_one_too(self) -> None:
        """An instant that never comes bounds nothing, and is no error."""
        driver = self.make_driver()

        async def main() -> None:
            async with self.opened(driver, math.inf) as conn:
                assert await driver.is_alive(conn, math.inf)
                assert await driver.reset(conn, math.inf)

        asyncio.run(main())

    def test_on_connect_statements_run_once_a_connection(self) -> None:
        """Statements of ``on_connect`` are run before a connection is handed out, and last."""
        driver = self.make_driver(on_connect=f"INSERT INTO {self.table} VALUES (1)")

        async def work(conn: Any) -> None:
            await conn.rollback()
            assert await self.rows(conn) == 1

        self.on_connection(driver, work, tabled=True)

    def test_on_connect_gets_the_connection(self) -> None:
        """A callable ``on_connect`` gets each new connection, and is awaited if it says so."""
        seen: list[Any] = []

        async def greet(conn: Any) -> None:
            seen.append(conn)

        async def look(conn: Any) -> None:
            assert [conn] == seen
            seen.clear()

        for on_connect in (greet, seen.append):
            self.on_connection(self.make_driver(on_connect=on_connect), look)

    def test_a_failing_on_connect_fails_the_dial(self) -> None:
        """An exception of ``on_connect`` comes out of ``open`` as it is, and the connection is not left open."""
        seen: list[Any] = []

        async def fail(conn: Any) -> None:
            seen.append(conn)
            raise ZeroDivisionError

        driver = self.make_driver(on_connect=fail)

        async def main() -> None:
            await raised_by(ZeroDivisionError, driver.open(self.soon()))
            assert [False] == [await driver.is_alive(conn, self.soon()) for conn in seen]

        asyncio.run(main())

    def test_close_never_raises(self) -> None:
        """Closing goes well for a connection that is closed or broken already, and it is dead ever after."""
        driver = self.make_driver()

        async def work(conn: Any) -> None:
            await self.break_connection(driver, conn)
            for _ in range(2):
                await finished(driver.close(conn))
                assert not await driver.is_alive(conn, self.soon())

        self.on_connection(driver, work)

    # -- alive ---------------------------------------------------------------------------------------------------------
    def test_a_broken_connection_is_dead_and_stays_dead(self) -> None:
        """A check of a broken connection says so, does not raise, and does not reconnect."""
        driver = self.make_driver()

        async def work(conn: Any) -> None:
            await self.break_connection(driver, conn)
            assert [False, False] == [await driver.is_alive(conn, self.soon()) for _ in range(2)]

        self.on_connection(driver, work)

    def test_a_check_leaves_nothing_open(self) -> None:
        """After a check no transaction is left open, where the adapter can tell."""
        driver = self.make_driver()

        async def work(conn: Any) -> None:
            await driver.is_alive(conn, self.soon())
            assert not driver.uncommitted(conn)
            assert not driver.in_flight(conn)

        self.on_connection(driver, work)

    def test_a_broken_connection_is_readable(self) -> None:
        """Where the adapter can poll, an idle connection is silent and a broken one is not."""
        driver = self.make_driver()
        readable = driver.is_readable
        if readable is None:
            return  # it gives no such promise

        async def work(conn: Any) -> None:
            assert not readable(conn)
            await self.break_connection(driver, conn)
            until = self.soon()
            while not readable(conn):
                assert time.monotonic() < until, "a broken connection never became readable"
                await asyncio.sleep(0)

        self.on_connection(driver, work)

    # -- reset ---------------------------------------------------------------------------------------------------------
    def test_reset_rolls_back(self) -> None:
        """Whatever the setting: what was written is gone, what was written is not clean, and a reset one is."""
        for reset in ("auto", "always", "rollback"):
            driver = self.make_driver(reset=reset)

            async def work(conn: Any, driver: AsyncDriver[Any] = driver) -> None:
                assert driver.is_clean is None or driver.is_clean(conn)
                await self.run(conn, f"INSERT INTO {self.table} VALUES (2)")
                assert driver.is_clean is None or not driver.is_clean(conn)
                assert driver.uncommitted(conn)
                assert await driver.reset(conn, self.soon())
                assert await self.rows(conn) == 0
                assert await driver.reset(conn, self.soon())
                assert driver.is_clean is None or driver.is_clean(conn)

            self.on_connection(driver, work, tabled=True)

    def test_a_reset_of_the_callers_own(self) -> None:
        """A callable ``reset`` gets the connection and is awaited if it says so; False gives it up."""
        answers = iter([None, True, False])

        async def reset(_: Any) -> bool | None:
            return next(answers)

        driver = self.make_driver(reset=reset)

        async def work(conn: Any) -> None:
            assert [True, True, False] == [await driver.reset(conn, self.soon()) for _ in range(3)]

        self.on_connection(driver, work)

    def test_a_deferred_reset_makes_as_good_as_new(self) -> None:
        """Where the adapter can send a reset and read its answer later, nothing uncommitted is left after that."""
        driver = self.make_driver()
        if driver.send_reset is None:
            return  # it gives no such promise

        async def work(conn: Any) -> None:
            await self.run(conn, f"INSERT INTO {self.table} VALUES (1)")
            answer = None if driver.send_reset is None else driver.send_reset(conn)
            until = self.soon()
            while answer is None and time.monotonic() < until:
                answer = await driver.collect(conn, until)
            assert answer is True, "the answer was not good, or did not come"
            assert await self.rows(conn) == 0

        self.on_connection(driver, work, tabled=True)

    def test_what_is_asked_without_io_never_raises(self) -> None:
        """Of a connection that was closed everything is told that is asked without waiting, as the worst case."""
        driver = self.make_driver()

        async def work(conn: Any) -> None:
            await finished(driver.close(conn))
            assert driver.is_clean is None or not driver.is_clean(conn)
            assert driver.is_readable is None or driver.is_readable(conn)
            assert not driver.uncommitted(conn)
            assert driver.fileno(conn) is None
            assert driver.in_flight(conn) in (True, False, None)
            assert driver.is_broken(conn) in (True, False)
            assert driver.cut(conn) in (True, False)
            assert not driver.role_suspect(conn)

        self.on_connection(driver, work)

    # -- time ----------------------------------------------------------------------------------------------------------
    def test_a_dial_can_be_called_off(self) -> None:
        """A dial to a server that accepts and stays silent ends when it is cancelled, and leaves nothing behind."""
        with socket.create_server(("127.0.0.1", 0)) as silent:
            driver = self.driver_to_port(silent.getsockname()[1])
            if driver is None:
                return  # no network

            async def main() -> None:
                with_limit = asyncio.wait_for(driver.open(self.soon()), 0.2)
                await raised_by(Exception, with_limit)
                silent.settimeout(self.slack_s)
                accepted, _ = silent.accept()
                with accepted:
                    accepted.setblocking(False)
                    loop = asyncio.get_running_loop()
                    while await asyncio.wait_for(loop.sock_recv(accepted, 4096), self.slack_s):
                        continue  # until its end

            asyncio.run(main())

    # -- errors --------------------------------------------------------------------------------------------------------
    def test_a_wrong_statement_is_the_statements_fault(self) -> None:
        """A statement that the server refuses says nothing about the link, and is of the driver's family."""
        driver = self.make_driver()

        async def work(conn: Any) -> None:
            error = await raised_by(Exception, self.run(conn, self.wrong_statement))
            assert driver.classify(error) is Fault.STATEMENT
            family = driver.family("Error")
            assert family is not None
            assert isinstance(error, family)
            assert await driver.is_alive(conn, self.soon())

        self.on_connection(driver, work)

    def test_the_family_is_known(self) -> None:
        """The classes that our errors join are known."""
        driver = self.make_driver()
        for name in ("OperationalError", "InterfaceError"):
            kind = driver.family(name)
            assert kind is not None
            assert issubclass(kind, Exception)

    def test_a_password_is_asked_for_at_each_connect(self) -> None:
        """A password that is a callable, awaited if it says so, is asked whenever a connection is opened."""
        asked: list[int] = []
        driver = self.driver_asking(lambda: asked.append(1))
        if driver is None:
            return  # it knows none

        async def nothing(_: Any) -> None:
            """Have connected."""

        for _ in range(2):
            self.on_connection(driver, nothing)
        assert [1, 1] == asked


async def finished(left: Any) -> None:
    """Await what is left to be waited for when a connection was closed, if anything."""
    if left is not None:
        await left


async def raised_by(kind: type[BaseException], work: Any) -> BaseException:
    """Return the exception that something awaited raises; it is a failure if there is none."""
    try:
        await work
    except kind as error:
        return error
    raise AssertionError(f"{kind.__name__} was not raised")
