"""Cancelled at every await, and again at each later one, in virtual time: a database does all or nothing."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import Callable, Coroutine
from typing import Any, TypeAlias

import pytest

import millpond
from millpond import AsyncDatabase

from .cancelling import MANNERS, Manner, Play, Stepped, serves_in_full
from .doubles import Connection, ToldDriver, pool_of, run

Books: TypeAlias = dict[str, int]
Work: TypeAlias = Callable[[AsyncDatabase], Coroutine[Any, Any, None]]


class Session(Connection):
    """A connection to a server that counts: ``UPDATE name`` is all the SQL that it knows beside transactions."""

    autocommit = True

    def __init__(self, number: int, committed: Books) -> None:
        super().__init__(number)
        self.committed = committed
        self.states: list[tuple[str, Books]] = []  # of the open transaction, and before each of its savepoints

    def cursor(self) -> Cursor:
        """Make a cursor."""
        return Cursor(self)

    async def run(self, text: str) -> None:
        """Run a statement: it is done half-way between being sent and being answered."""
        assert not self.busy, "two statements at once"
        assert not self.broken, "used after it broke"
        self.busy = True
        await asyncio.sleep(0.01)
        self.do(*text.split())
        await asyncio.sleep(0.01)
        self.busy = False

    def do(self, verb: str, *words: str) -> None:
        """Do a statement's work."""
        if verb == "UPDATE":
            books = self.states[-1][1] if self.states else self.committed
            books[words[0]] = books.get(words[0], 0) + 1
        elif verb in ("BEGIN", "SAVEPOINT"):
            before = self.states[-1][1] if self.states else self.committed
            self.states.append((words[0] if words else "", dict(before)))
        elif verb == "COMMIT":
            self.committed.update(self.states[-1][1])
            self.states.clear()
        elif verb == "RELEASE":
            (_, inner), (name, _) = self.states.pop(), self.states.pop()
            self.states.append((name, inner))
        elif (verb, *words[:1]) == ("ROLLBACK", "TO"):
            name, _ = self.states.pop()
            self.states.append((name, dict(self.states[-1][1])))
        elif verb == "ROLLBACK":
            self.states.clear()
        self.dirty = bool(self.states)

    async def commit(self) -> None:
        """Commit."""
        await self.run("COMMIT")

    async def rollback(self) -> None:
        """Roll back."""
        await self.run("ROLLBACK")


class Cursor:
    """A cursor of such a connection; every statement finds the same two rows."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.description = [("number",)]
        self.rowcount = 1
        self.lastrowid = 0
        self.left = [(1,), (2,)]

    async def execute(self, text: str, values: object = None) -> None:
        """Run a statement."""
        await self.session.run(text)

    async def executemany(self, text: str, rows: list[object]) -> None:
        """Run it for each of many rows."""
        for _ in rows:
            await self.session.run(text)

    async def fetchone(self) -> tuple[int] | None:
        """Return the next row."""
        await asyncio.sleep(0.01)
        return self.left.pop(0) if self.left else None

    async def fetchall(self) -> list[tuple[int]]:
        """Return the rows that are left."""
        found, self.left = self.left, []
        return found

    async def close(self) -> None:
        """Wait a moment."""
        await asyncio.sleep(0.01)


class CountingDriver(ToldDriver):
    """The driver of such a server."""

    def __init__(self) -> None:
        super().__init__()
        self.committed: Books = {}

    async def open(self, until: float) -> Session:
        """Log in."""
        await asyncio.sleep(self.open_s)
        session = Session(len(self.opened) + 1, self.committed)
        self.opened.append(session)
        return session

    async def reset(self, conn: Connection, until: float) -> bool:
        """Roll back, as the pool does."""
        assert isinstance(conn, Session)
        conn.states.clear()
        return await super().reset(conn, until)


async def by_itself(db: AsyncDatabase) -> None:
    """Read, in a statement by itself."""
    assert [1, 2] == await db.select_column("UPDATE reads")


async def in_a_block(db: AsyncDatabase) -> None:
    """Do two things, or neither."""
    async with db.transaction():
        await db.execute("UPDATE one")
        await db.execute("UPDATE other")


async def in_blocks(db: AsyncDatabase) -> None:
    """Take an inner block back, and do two things."""
    async with db.transaction():
        await db.execute("UPDATE one")
        with contextlib.suppress(ZeroDivisionError):
            async with db.transaction():
                await db.execute("UPDATE never")
                await asyncio.sleep(0.01)
                raise ZeroDivisionError
        await db.execute("UPDATE other")


async def by_streams(db: AsyncDatabase) -> None:
    """Leave a stream, in a transaction that goes on and then by itself."""
    async with db.transaction():
        await db.execute("UPDATE one")
        async for _ in db.stream("SELECT"):
            break
        await db.execute("UPDATE other")
    async with db.stream("SELECT") as found:
        assert (1,) == await anext(found)


async def again(db: AsyncDatabase) -> None:
    """Run a transaction again whose first run met another one."""
    runs: list[int] = []

    async def both() -> None:
        runs.append(1)
        await db.execute("UPDATE one")
        if len(runs) == 1:
            raise millpond.Deadlock("as a test has it")
        await db.execute("UPDATE other")

    await db.run_transaction(both)


async def play_once(work: Work, play: Play) -> Stepped:
    """Do it once, cancelled as the play has it, and assert what must hold afterwards."""
    driver = CountingDriver()
    pool = pool_of(driver)
    db = AsyncDatabase(pool)
    stepped = Stepped(work(db), play)
    joined: list[Any] = []

    async def play_it() -> None:
        try:
            await stepped
        finally:
            joined.append(db._calls.joining.current())

    task = asyncio.get_running_loop().create_task(play_it())
    await asyncio.wait((task,), timeout=1000.0)
    assert task.done(), "the task does not end"
    assert task.cancelled() == bool(stepped.cancelled), f"cancelled {stepped.cancelled} times, ended {task!r}"
    if not task.cancelled():
        task.result()
        assert driver.committed in ({"one": 1, "other": 1}, {"reads": 1})
    assert [None] == joined, "somebody is left in a transaction"
    assert driver.committed.get("one") == driver.committed.get("other"), "half was committed"
    assert "never" not in driver.committed
    await asyncio.sleep(1.0)  # for the garbage collector's tasks
    await serves_in_full(pool, driver)
    assert not driver.left_open, f"left open: {driver.left_open}"
    return stepped


@pytest.mark.parametrize("work", [by_itself, in_a_block, in_blocks, by_streams, again], ids=lambda work: work.__name__)
def test_every_await_can_be_cancelled_twice(work: Work) -> None:
    """All or nothing is committed, the task ends cancelled and in no transaction, and the pool serves its full size."""
    plain = run(lambda: play_once(work, Play()))
    plays = pairs = 0
    for first in itertools.product(range(1, plain.awaits + 1), MANNERS):
        once = played(work, first)
        plays += 1
        # Whoever was cancelled waits for nothing but for an inner block that is taken back: only there is a second one.
        for second in itertools.product(range(first[0] + 1, once.awaits + 1), MANNERS):
            plays += 1
            pairs += played(work, first, second).cancelled == 2
    assert plain.awaits >= 3
    assert (pairs > 0) == (work is in_blocks)
    print(f"{work.__name__}: {plain.awaits} awaits, {plays} plays, {pairs} pairs")  # noqa: T201  the figures are the point


def played(work: Work, *cancels: tuple[int, Manner]) -> Stepped:
    """Do it once on a loop of its own."""
    return run(lambda: play_once(work, Play(cancels)))
