"""How aiosqlite's connections end: by themselves, whoever waits for that or does not, and with no file left locked."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import inspect
import sqlite3
import threading
import time
import weakref
from pathlib import Path
from typing import Any

import pytest

from millpond import AsyncPool, ConnectionReturned
from millpond.drivers.aio import AsyncDriver, resolve

from .cancelling import Play, Stepped

LONG = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT COUNT(*) FROM n"
PATIENCE_S = 30.0


there: set[threading.Thread] = set()  # before the test: other tests' affair


@pytest.fixture(autouse=True)
def note_threads() -> None:
    """Note which threads are there."""
    there.clear()
    there.update(threading.enumerate())


def others() -> list[threading.Thread]:
    """Return the threads that have come since, once they have had time to end."""
    for thread in set(threading.enumerate()) - there:
        thread.join(PATIENCE_S)
    return [thread for thread in threading.enumerate() if thread not in there]


def adapter(path: Path) -> AsyncDriver[Any]:
    """Return the adapter for a file that is not waited for."""
    return resolve(f"sqlite:///{path}/ends.db?busy_timeout=0.001&journal_mode=delete")


async def execute(conn: Any, statement: str) -> None:
    """Run a statement."""
    await conn.execute(statement)


def test_a_dial_that_is_cancelled_leaves_nothing_to_be_awaited(tmp_path: Path) -> None:
    """At each of its awaits, once and twice: the file is closed and the thread ends, waited for or not."""
    driver = adapter(tmp_path)

    async def dial() -> None:
        conn = await driver.open(time.monotonic() + PATIENCE_S)
        await (driver.close(conn) or asyncio.sleep(0))

    async def play(cancels: Play) -> Stepped:
        stepped = Stepped(dial(), cancels)

        async def play_it() -> None:
            await stepped

        task = asyncio.get_running_loop().create_task(play_it())
        await asyncio.wait((task,))
        assert task.cancelled() == bool(stepped.cancelled)
        return stepped

    awaits = asyncio.run(play(Play())).awaits
    assert awaits >= 1  # a thread that answers at once is not waited for
    for first in range(1, awaits + 1):
        for second in (None, first + 1):
            moments = (first,) if second is None else (first, second)
            _ = asyncio.run(play(Play(tuple((moment, "pending") for moment in moments))))
            assert [] == others()


def test_what_is_left_of_a_close_may_be_dropped(tmp_path: Path) -> None:
    """It is no coroutine, which would complain of that; the statement in the way is interrupted all the same."""
    driver = adapter(tmp_path)

    async def main() -> None:
        conn = await driver.open(time.monotonic() + PATIENCE_S)
        task = asyncio.get_running_loop().create_task(execute(conn, LONG))
        await asyncio.sleep(0)
        left = driver.close(conn)
        assert left is not None
        assert not inspect.iscoroutine(left)
        assert driver.close(conn) is None
        task.cancel()

    asyncio.run(main())
    assert [] == others()


def test_what_is_left_of_a_close_may_be_awaited_again(tmp_path: Path) -> None:
    """By somebody else, when the first one was called away."""
    driver = adapter(tmp_path)

    async def main() -> None:
        conn = await driver.open(time.monotonic() + PATIENCE_S)
        task = asyncio.get_running_loop().create_task(execute(conn, LONG))
        await asyncio.sleep(0)
        left = driver.close(conn)
        assert left is not None
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(wait_for(left), 0.0)
        await left
        with pytest.raises(sqlite3.OperationalError, match="interrupted"):
            await task

    async def wait_for(left: Any) -> None:
        await left

    asyncio.run(main())
    assert [] == others()


def test_a_connection_given_up_in_a_transaction_leaves_no_lock(tmp_path: Path) -> None:
    """Even where its cursor is still held, with rows unread: by itself Python 3.11 leaves the file locked."""
    held: list[Any] = []

    async def write_and_read(pool: AsyncPool[Any], reached: asyncio.Event) -> None:
        async with pool.connection() as conn:
            await conn.execute("INSERT INTO t VALUES (2)")
            cursor = await conn.execute("SELECT a FROM t")
            await cursor.fetchone()
            held.extend((cursor, cursor._cursor))
            reached.set()
            await conn.execute(LONG)

    async def main() -> None:
        async with AsyncPool(adapter(tmp_path), max_size=1) as pool:
            async with pool.connection() as conn:
                await conn.execute("CREATE TABLE t(a)")
                await conn.executemany("INSERT INTO t VALUES (?)", [(number,) for number in range(100)])
                await conn.commit()
            reached = asyncio.Event()
            task = asyncio.get_running_loop().create_task(write_and_read(pool, reached))
            await reached.wait()
            await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait((task,))
            assert task.cancelled()
            assert {"unclean": 1} == pool.stats().retired

    asyncio.run(main())
    assert [] == others()
    with contextlib.closing(sqlite3.connect(tmp_path / "ends.db", timeout=0.0)) as conn, conn:
        conn.execute("INSERT INTO t VALUES (3)")
        assert [(101,)] == conn.execute("SELECT COUNT(*) FROM t").fetchall()
    assert held


def test_a_thread_says_nothing_to_a_loop_that_is_closed(tmp_path: Path) -> None:
    """A statement that ends after its loop has ended is nobody's news, and the thread lives to close the file."""
    driver = adapter(tmp_path)
    complaints: list[Any] = []
    loop = asyncio.new_event_loop()
    conn = loop.run_until_complete(driver.open(time.monotonic() + PATIENCE_S))
    task = loop.create_task(execute(conn, LONG))
    loop.run_until_complete(asyncio.sleep(0))
    task.cancel()
    loop.run_until_complete(asyncio.wait((task,)))
    loop.close()
    hook, threading.excepthook = threading.excepthook, complaints.append
    try:
        assert driver.close(conn) is not None
        assert [] == others()
    finally:
        threading.excepthook = hook
    assert [] == complaints


def test_an_error_keeps_nothing_alive(tmp_path: Path) -> None:
    """Neither it nor its traceback is left to the garbage collector, nor held by the connection's thread."""

    async def fail(pool: AsyncPool[Any]) -> weakref.ref[BaseException]:
        async with pool.connection() as conn:
            try:
                await conn.execute("SELEC 1")
            except sqlite3.OperationalError as error:
                return weakref.ref(error)
        raise AssertionError("there is no such statement")

    async def main() -> None:
        async with AsyncPool(adapter(tmp_path), max_size=1) as pool:
            errors = [await fail(pool) for _ in range(3)]
            until = time.monotonic() + PATIENCE_S
            while any(error() for error in errors) and time.monotonic() < until:  # noqa: ASYNC110  nobody tells
                await asyncio.sleep(0)  # the loop, and the thread, let go of what they have just called
            assert [None, None, None] == [error() for error in errors]

    gc.disable()  # what is in a cycle stays
    try:
        asyncio.run(main())
    finally:
        gc.enable()


def test_a_connection_that_is_lent_for_long_notes_no_cursors_that_are_gone(tmp_path: Path) -> None:
    """Those that somebody still has are closed at return."""

    async def main() -> None:
        async with AsyncPool(adapter(tmp_path), max_size=1) as pool:
            async with pool.connection() as conn:
                kept = await conn.execute("SELECT 1")
                for _ in range(100):
                    async with conn.execute("SELECT 1"):
                        pass
                assert len(conn.driver_connection.lent) < 100
                assert len(conn.driver_connection.raw_lent) < 100
            with pytest.raises(sqlite3.ProgrammingError, match="given back"):
                await kept.fetchone()

    asyncio.run(main())


def test_a_task_that_comes_too_late_does_nothing_to_the_next_borrower(tmp_path: Path) -> None:
    """What it was made for is not begun: neither a COMMIT, nor a statement whose cursor is a block as well."""

    async def main() -> None:
        async with AsyncPool(adapter(tmp_path), max_size=1) as pool:
            async with pool.connection() as conn:
                await conn.execute("CREATE TABLE t(a)")
                await conn.commit()
            async with pool.connection() as conn:
                late = (asyncio.ensure_future(conn.commit()), conn.execute("INSERT INTO t VALUES (1)"))
            async with pool.connection() as conn:
                await conn.execute("INSERT INTO t VALUES (2)")
                with pytest.raises(ConnectionReturned):
                    await late[0]
                with pytest.raises(sqlite3.ProgrammingError, match="given back"):
                    await late[1]
                await conn.rollback()
                async with conn.execute("SELECT a FROM t") as cursor:
                    assert [] == await cursor.fetchall()

    asyncio.run(main())
