"""A task is cancelled at each await of the helper layer, once and twice: all or nothing, and all is given back."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest

from millpond import AsyncDatabase

from .cancelling import MANNERS, Play, Stepped

ROWS = 3
Scenario = Callable[[AsyncDatabase], Coroutine[Any, Any, None]]


async def transact(db: AsyncDatabase) -> None:
    """Write some rows, one of them in a block of its own, and read them back."""
    async with db.transaction():
        await db.execute("INSERT INTO t VALUES (1)")
        async with db.transaction():
            await db.execute("INSERT INTO t VALUES (2)")
        assert [1, 2] == await db.select_column("SELECT a FROM t ORDER BY a")
        await db.execute("INSERT INTO t VALUES (3)")


async def execute_many(db: AsyncDatabase) -> None:
    """Write them all at once."""
    assert ROWS == await db.execute_many("INSERT INTO t VALUES (?)", [(number,) for number in range(ROWS)])


async def stream(db: AsyncDatabase) -> None:
    """Read rows as they come, and write in the same transaction."""
    async with db.transaction():
        async for number in db.stream("SELECT 1 UNION ALL SELECT 2 UNION ALL SELECT 3"):
            if number[0] == 2:
                break
        await db.execute_many("INSERT INTO t VALUES (?)", [(number,) for number in range(ROWS)])


async def run_transaction(db: AsyncDatabase) -> None:
    """Have a function run as a transaction."""

    async def write() -> None:
        for number in range(ROWS):
            await db.execute("INSERT INTO t VALUES (?)", (number,))

    await db.run_transaction(write)


async def play_once(db: AsyncDatabase, scenario: Scenario, play: Play) -> Stepped:
    """Play a scenario once, and assert what must hold afterwards."""
    await db.execute("DELETE FROM t")
    stepped = Stepped(scenario(db), play)

    async def play_it() -> None:
        await stepped

    task = asyncio.get_running_loop().create_task(play_it())
    done, _ = await asyncio.wait((task,), timeout=60.0)
    assert done, "the task does not end"
    assert task.cancelled() == bool(stepped.cancelled), f"{play}: ended {task!r}"
    if not task.cancelled():
        task.result()
    both = [await db.pool.connection(timeout=30.0) for _ in range(2)]  # the pool serves its full size
    for conn in both:
        await conn.close()
    await db.execute("INSERT INTO t VALUES (0)")  # and no lock is left
    assert await db.select_value("SELECT COUNT(*) FROM t") in (1, ROWS + 1), f"{play}: some rows, and not others"
    assert (0, 0) == (db.pool.stats().leased, db.pool.stats().lost)
    return stepped


def plays_of(awaits: int) -> Iterator[Play]:
    """Return every single cancellation, in both manners, and those that follow: whoever is cancelled waits no more."""
    for first in range(1, awaits + 1):
        for manner in MANNERS:
            yield Play(((first, manner),))
        for second in (first + 1, first + 2):
            yield Play(((first, "pending"), (second, "pending")))


@pytest.mark.parametrize(
    "scenario", [transact, execute_many, stream, run_transaction], ids=lambda scenario: scenario.__name__
)
def test_every_await_can_be_cancelled_twice(scenario: Scenario, tmp_path: Path) -> None:
    """At every await, and again at those after it: all rows are there or none, and the task ends cancelled."""

    async def main() -> None:
        async with AsyncDatabase(f"sqlite:///{tmp_path}/cancelled.db", max_size=2) as db:
            await db.execute("CREATE TABLE t(a INTEGER)")
            plain = await play_once(db, scenario, Play())
            assert plain.awaits >= 1  # a thread that answers at once is not waited for
            for play in plays_of(plain.awaits):
                _ = await play_once(db, scenario, play)
        assert {asyncio.current_task()} == asyncio.all_tasks()

    asyncio.run(main())
