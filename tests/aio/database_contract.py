"""What an asynchronous database does, on whatever it stands; the tests say on what."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from typing import Any

import pytest

import millpond
from millpond import AsyncDatabase


@dataclass
class Item:
    """What a row becomes."""

    id: int
    name: str


TABLE = "aio_items"


@contextlib.asynccontextmanager
async def items(database: AsyncDatabase) -> Any:
    """Use a database with a table of three rows; no task may be left of it."""
    async with database:
        await database.execute(f"DROP TABLE IF EXISTS {TABLE}")
        await database.execute(f"CREATE TABLE {TABLE} (id INTEGER PRIMARY KEY, name VARCHAR(100) UNIQUE)")
        await database.insert_many(TABLE, [{"id": n, "name": f"name {n}"} for n in (1, 2, 3)])
        yield database
        await database.execute(f"DROP TABLE IF EXISTS {TABLE}")
    left = asyncio.all_tasks() - {asyncio.current_task()}
    assert not left, f"tasks are left: {left}"


async def selects(db: AsyncDatabase) -> None:
    """Rows, values, columns, shapes, and what they say when there are too few or too many."""
    row = f"SELECT id, name FROM {TABLE} WHERE id = :id"
    assert (2, "name 2") == await db.select_row(row, {"id": 2})
    assert Item(2, "name 2") == await db.select_row(row, {"id": 2}, into=Item)
    assert {"id": 2, "name": "name 2"} == await db.select_row(row, {"id": 2}, into=dict, required=True)
    assert await db.select_row(row, {"id": 9}) is None
    with pytest.raises(millpond.NoRow):
        await db.select_row(row, {"id": 9}, required=True)
    everything = f"SELECT id, name FROM {TABLE} ORDER BY id"
    with pytest.raises(millpond.TooManyRows):
        await db.select_row(everything)
    assert (1, "name 1") == await db.select_row(everything, first=True)
    assert [(1, "name 1"), (2, "name 2"), (3, "name 3")] == await db.select_rows(everything)
    assert [Item(1, "name 1"), Item(3, "name 3")] == await db.select_rows(
        f"SELECT id, name FROM {TABLE} WHERE id IN ? ORDER BY id", [[1, 3]], into=Item
    )
    assert 3 == await db.select_value(f"SELECT COUNT(*) FROM {TABLE}")
    assert ["1", "2", "3"] == await db.select_column(f"SELECT id FROM {TABLE} ORDER BY id", into=str)


async def streams(db: AsyncDatabase) -> None:
    """Rows as they come, to the end, left early, and within a transaction that goes on."""
    everything = f"SELECT id, name FROM {TABLE} ORDER BY id"
    assert [1, 2, 3] == [row[0] async for row in db.stream(everything)]
    async with db.stream(everything, into=Item) as found:
        async for item in found:
            assert 1 == item.id
            break
    assert 3 == await db.select_value(f"SELECT COUNT(*) FROM {TABLE}")
    async with db.transaction():
        await db.execute(f"INSERT INTO {TABLE} VALUES (4, 'name 4')")
        async with db.stream(everything) as found:
            assert (1, "name 1") == await anext(found)
            with pytest.raises(millpond.TransactionMisuse, match="a stream of this transaction is being read"):
                await db.select_value("SELECT 1")
        assert 4 == await db.select_value(f"SELECT COUNT(*) FROM {TABLE}")
        async for row in db.stream(everything):  # and without a block: what was dropped is closed by what comes next
            assert (1, "name 1") == row
            break
        assert 4 == await db.select_value(f"SELECT COUNT(*) FROM {TABLE}")
        with pytest.raises(ZeroDivisionError):
            async with db.transaction():
                await db.execute(f"DELETE FROM {TABLE}")
                async for _ in db.stream("SELECT 1 UNION ALL SELECT 2"):
                    raise ZeroDivisionError
        async for _ in db.stream(everything):
            break
    assert 4 == await db.select_value(f"SELECT COUNT(*) FROM {TABLE}")


async def writes(db: AsyncDatabase) -> None:
    """One row, many rows, upserts, and the errors by their names."""
    assert 1 == (await db.insert(TABLE, {"id": 10, "name": "ten"})).row_count
    with pytest.raises(millpond.DuplicateKey) as caught:
        await db.insert(TABLE, {"id": 10, "name": "another"})
    assert "INSERT INTO" in caught.value.statement
    await db.upsert(TABLE, {"id": 10, "name": "TEN"}, key="id")
    assert "TEN" == await db.select_value(f"SELECT name FROM {TABLE} WHERE id = ?", [10])
    many = [(n, f"many {n}") for n in range(100, 1100)]
    assert 1000 == await db.execute_many(f"INSERT INTO {TABLE} VALUES (?, ?)", many)
    with pytest.raises(millpond.DuplicateKey):
        await db.execute_many(f"INSERT INTO {TABLE} VALUES (?, ?)", [(2000, "x"), (100, "y")])
    assert 1004 == await db.select_value(f"SELECT COUNT(*) FROM {TABLE}"), "a batch is done, or not at all"
    with pytest.raises(millpond.InvalidStatement):
        await db.execute("SELEKT 1")
    with pytest.raises(millpond.InvalidParameters):
        await db.select_value("SELECT ?", [])


async def transactions(db: AsyncDatabase) -> None:
    """Committed at the end, rolled back by an exception, savepoints within; other tasks do not take part."""
    count = f"SELECT COUNT(*) FROM {TABLE}"
    with pytest.raises(ZeroDivisionError):
        async with db.transaction():
            await db.execute(f"DELETE FROM {TABLE}")
            raise ZeroDivisionError
    assert 3 == await db.select_value(count)
    async with db.transaction() as outer:
        await db.execute(f"DELETE FROM {TABLE} WHERE id = 1")
        with pytest.raises(ZeroDivisionError):
            async with db.transaction():
                await db.execute(f"DELETE FROM {TABLE}")
                raise ZeroDivisionError
        assert 2 == await db.select_value(count)
        with pytest.raises(millpond.TransactionMisuse):
            async with db.transaction(read_only=True):
                pass
        assert outer.is_repeatable
        seen_by_others = await asyncio.get_running_loop().create_task(db.select_value(count))
        assert 3 == seen_by_others, "a task that was started within takes no part"
    assert 2 == await db.select_value(count)
    with pytest.raises(millpond.TransactionLost, match="could not be taken back"):
        async with db.transaction():
            with pytest.raises(ZeroDivisionError):
                async with db.transaction():
                    await db.execute(f"DELETE FROM {TABLE} WHERE id = 3")
                    found = db.stream(f"SELECT id FROM {TABLE}")
                    await anext(found)
                    raise ZeroDivisionError
            await found.close()
    assert 2 == await db.select_value(count)
    with pytest.raises(millpond.ReadOnlyTransaction):
        async with db.transaction(read_only=True):
            await db.execute(f"DELETE FROM {TABLE}")
    await db.execute(f"DELETE FROM {TABLE} WHERE id = 2")


async def reruns(db: AsyncDatabase) -> None:
    """A whole transaction is run again after what may pass, and not after anything else."""
    runs = 0

    async def passes_at_last() -> int:
        nonlocal runs
        runs += 1
        await db.execute(f"UPDATE {TABLE} SET name = ? WHERE id = 1", [f"run {runs}"])
        if runs < 3:
            raise millpond.Deadlock("as a test has it")
        return runs

    assert 3 == await db.run_transaction(passes_at_last)
    assert "run 3" == await db.select_value(f"SELECT name FROM {TABLE} WHERE id = 1")

    async def fails() -> None:
        nonlocal runs
        runs += 1
        raise ValueError("not the database's fault")

    with pytest.raises(ValueError, match="not the database's fault"):
        await db.run_transaction(fails)
    assert 4 == runs


async def cancellations(db: AsyncDatabase) -> None:
    """A cancelled task leaves nothing of its transaction, and no connection is lost; twice cancelled as well."""
    count = f"SELECT COUNT(*) FROM {TABLE}"
    reached = asyncio.Event()

    async def write_and_wait() -> None:
        async with db.transaction():
            await db.execute(f"DELETE FROM {TABLE}")
            reached.set()
            await asyncio.sleep(60.0)

    for twice in (False, True):
        reached.clear()
        task = asyncio.get_running_loop().create_task(write_and_wait())
        await reached.wait()
        task.cancel()
        if twice:
            await asyncio.sleep(0)
            task.cancel()
        await asyncio.wait((task,))
        assert task.cancelled()
        assert 3 == await db.select_value(count)
    opened = db.pool.stats().opened
    async with db.transaction():
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(asyncio.sleep(60.0), 0.01)
        await db.execute(f"UPDATE {TABLE} SET name = 'kept' WHERE id = 1")
    assert "kept" == await db.select_value(f"SELECT name FROM {TABLE} WHERE id = 1")
    assert (opened, 0) == (db.pool.stats().opened, db.pool.stats().lost)


CONTRACT = (selects, streams, writes, transactions, reruns, cancellations)
