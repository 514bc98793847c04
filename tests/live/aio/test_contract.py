"""What every asynchronous adapter must do, on whatever it connects to: one test a promise."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest

from millpond import AsyncPool, PoolTimeout
from millpond._core.states import Fault
from millpond.drivers.aio import AsyncDriver, resolve
from millpond.testing import ScratchServer

from .servers import arguments_of, root

TABLE = "aio_contract"
SECRET = "s3cr3t-0f-the-contract"
Make = Callable[..., AsyncDriver[Any]]


@pytest.fixture(params=["asyncmy", "aiomysql", "aiosqlite"])
def make(request: pytest.FixtureRequest, mariadb: ScratchServer, tmp_path: Path) -> Make:
    """Return what makes an adapter; *settings* are ``reset``, ``on_connect`` and changed ``connect_args``."""
    name: str = request.param

    def make_driver(**settings: Any) -> AsyncDriver[Any]:
        changes = settings.pop("connect_args", {})
        if name == "aiosqlite":
            return resolve(f"sqlite:///{tmp_path}/contract.db", **settings)
        return resolve(name_of(name), connect_args=arguments_of(mariadb, autocommit=False) | changes, **settings)

    return make_driver


def name_of(driver: str) -> Any:
    """Return a driver's module."""
    import importlib

    return importlib.import_module(driver)


@pytest.fixture(autouse=True)
def table(request: pytest.FixtureRequest, mariadb: ScratchServer, make: Make) -> Iterator[None]:
    """Have an empty table."""

    async def on_sqlite() -> None:
        driver = make()
        conn = await driver.open(soon())
        await run(conn, f"CREATE TABLE IF NOT EXISTS {TABLE} (a INTEGER)")
        await conn.commit()
        await closed(driver, conn)

    if make().name == "aiosqlite":
        asyncio.run(on_sqlite())
        yield
        return
    with root(mariadb) as conn, conn.cursor() as cursor:
        cursor.execute(f"CREATE OR REPLACE TABLE {mariadb.database}.{TABLE} (a INTEGER) ENGINE=InnoDB")
        yield
        cursor.execute(f"DROP TABLE {mariadb.database}.{TABLE}")


def soon(seconds: float = 10.0) -> float:
    """Return a deadline."""
    return time.monotonic() + seconds


async def run(conn: Any, statement: str) -> Any:
    """Run a statement and return its rows."""
    cursor = await conn.cursor()
    await cursor.execute(statement)
    rows = await cursor.fetchall() if cursor.description else ()
    await cursor.close()
    return [tuple(row) for row in rows]


async def closed(driver: AsyncDriver[Any], conn: Any) -> None:
    """Close a connection, and await what is left."""
    left = driver.close(conn)
    if left is not None:
        await left


def with_connection(driver: AsyncDriver[Any], work: Callable[[Any], Coroutine[Any, Any, None]]) -> None:
    """Run something on a connection of its own."""

    async def main() -> None:
        conn = await driver.open(soon())
        try:
            await work(conn)
        finally:
            await closed(driver, conn)

    asyncio.run(main())


def test_connections_work(make: Make) -> None:
    """A connection answers, is alive and idle, and has nothing to be cleaned."""
    driver = make()

    async def work(conn: Any) -> None:
        assert [(1,)] == await run(conn, "SELECT 1")
        assert await driver.is_alive(conn, soon())
        assert not driver.in_flight(conn)

    with_connection(driver, work)


@pytest.mark.parametrize("awaited", [False, True])
def test_on_connect_runs_once_for_each_connection(make: Make, awaited: bool) -> None:
    """Statements are committed; a callable gets the connection, and is awaited if it says so."""
    seen: list[Any] = []

    async def greet(conn: Any) -> None:
        seen.append(conn)

    def nod(conn: Any) -> None:
        seen.append(conn)

    with_connection(make(on_connect=greet if awaited else nod), lambda _: asyncio.sleep(0))
    assert 1 == len(seen)

    async def count(conn: Any) -> None:
        assert [(1,)] == await run(conn, f"SELECT COUNT(*) FROM {TABLE}")
        await conn.rollback()
        assert [(1,)] == await run(conn, f"SELECT COUNT(*) FROM {TABLE}")

    with_connection(make(on_connect=f"INSERT INTO {TABLE} VALUES (1)"), count)


def test_a_failing_on_connect_fails_the_dial(make: Make) -> None:
    """With its own error, and without leaving a connection."""
    seen: list[Any] = []

    async def fail(conn: Any) -> None:
        seen.append(conn)
        raise LookupError("the caller's own")

    async def main() -> None:
        driver = make(on_connect=fail)
        with pytest.raises(LookupError, match="the caller's own"):
            await driver.open(soon())
        assert [False] == [await driver.is_alive(conn, soon()) for conn in seen]

    asyncio.run(main())


def test_close_never_raises(make: Make) -> None:
    """Not for a connection that its borrower has closed, nor the second time; and it is dead ever after."""
    driver = make()

    async def work(conn: Any) -> None:
        await closed(driver, conn)
        assert not await driver.is_alive(conn, soon())
        await closed(driver, conn)

    with_connection(driver, work)


def test_what_is_asked_without_waiting_never_raises(make: Make) -> None:
    """Of a connection that was closed everything is the worst case."""
    driver = make()

    async def work(conn: Any) -> None:
        await closed(driver, conn)
        assert driver.is_clean is None or not driver.is_clean(conn)
        assert driver.is_readable is None or driver.is_readable(conn)
        assert not driver.uncommitted(conn)
        assert driver.fileno(conn) is None
        driver.in_flight(conn)
        driver.cut(conn)
        driver.is_broken(conn)
        driver.role_suspect(conn)

    with_connection(driver, work)


@pytest.mark.parametrize("reset", ["auto", "always", "rollback"])
def test_reset_rolls_back(make: Make, reset: str) -> None:
    """Whatever the setting: what was written is gone, what was written is not clean, and a reset one is."""
    driver = make(reset=reset)

    async def work(conn: Any) -> None:
        assert driver.is_clean is None or driver.is_clean(conn)
        await run(conn, f"INSERT INTO {TABLE} VALUES (2)")
        assert driver.is_clean is None or not driver.is_clean(conn)
        assert driver.uncommitted(conn)
        assert await driver.reset(conn, soon())
        assert [(0,)] == await run(conn, f"SELECT COUNT(*) FROM {TABLE}")
        await driver.reset(conn, soon())
        assert driver.is_clean is None or driver.is_clean(conn)

    with_connection(driver, work)


def test_a_deferred_reset_makes_as_good_as_new(make: Make) -> None:
    """It is sent, its answer read, and can be waited for without reading anything."""
    driver = make()
    if driver.send_reset is None:
        assert "aiosqlite" == driver.name
        return

    async def work(conn: Any) -> None:
        assert driver.send_reset is not None
        await run(conn, "SET @a = 1")
        assert driver.send_reset(conn) is None
        assert await driver.collect(conn, soon())
        assert [(None,)] == await run(conn, "SELECT @a")

    with_connection(driver, work)


def test_a_reset_of_the_callers_own(make: Make) -> None:
    """It is awaited if it says so, and its False gives the connection up."""
    answers: list[Any] = [None, False]

    async def reset(conn: Any) -> Any:
        await conn.rollback()
        return answers.pop(0)

    driver = make(reset=reset)

    async def work(conn: Any) -> None:
        assert await driver.reset(conn, soon())
        assert not await driver.reset(conn, soon())

    with_connection(driver, work)


def test_a_wrong_statement_is_the_statement_s_fault(make: Make) -> None:
    """It says nothing about the link, and is of the driver's family."""
    driver = make()

    async def work(conn: Any) -> None:
        with pytest.raises(driver.family("Error") or Exception) as caught:
            await run(conn, "SELEKT 1")
        assert Fault.STATEMENT is driver.classify(caught.value)
        assert await driver.is_alive(conn, soon())

    with_connection(driver, work)
    assert {"Error", "OperationalError", "InterfaceError"} == {
        kind for kind in ("Error", "OperationalError", "InterfaceError") if driver.family(kind) is not None
    }


def test_a_silent_server_costs_the_deadline(make: Make) -> None:
    """One that accepts and says nothing is given up in time, and what was tried is closed."""
    if make().name == "aiosqlite":
        return  # there is no network

    async def main() -> None:
        with socket.create_server(("127.0.0.1", 0)) as silent:
            driver = make(connect_args={"host": "127.0.0.1", "port": silent.getsockname()[1]})
            began_at = time.monotonic()
            async with AsyncPool(driver, connect_timeout=0.3) as pool:
                with pytest.raises((TimeoutError, PoolTimeout)):
                    _ = await pool.connection(timeout=2.0)
            assert time.monotonic() - began_at < 10.0

    asyncio.run(main())


def test_passwords_are_shown_nowhere(make: Make) -> None:
    """Not in the adapter, nor in what a refused connect says."""
    if make().name == "aiosqlite":
        return  # there are none

    async def main() -> None:
        driver = make(connect_args={"password": SECRET})
        with pytest.raises(driver.family("OperationalError") or Exception) as caught:
            await driver.open(soon())
        assert SECRET not in f"{driver!r} {caught.value!r} {caught.value}"
        assert Fault.CREDENTIALS is driver.classify(caught.value)

    asyncio.run(main())


def test_a_password_can_be_asked_for_at_each_connect(make: Make, mariadb: ScratchServer) -> None:
    """By a function, awaited if it says so: credentials that last minutes outlive no pool otherwise."""
    if make().name == "aiosqlite":
        return  # there are none
    asked: list[int] = []
    real = arguments_of(mariadb)["password"]

    async def password() -> str:
        asked.append(1)
        return str(real)

    with_connection(make(connect_args={"password": password}), run_and_forget)
    assert [1] == asked


async def run_and_forget(conn: Any) -> None:
    """Use a connection."""
    await run(conn, "SELECT 1")


def test_capabilities_are_told_in_a_line_each(make: Make) -> None:
    """For the table in the docs."""
    told = make().capabilities
    assert {"alive", "clean", "cut", "deadline", "errors", "in flight", "reset"} == set(told)
    assert all(line and "\n" not in line for line in told.values())
