"""Every way for a loop to end, in every phase of a pool: a program to be run with ``-X dev -W error``.

Each play has a pool of its own, brings it into a phase by tasks of its own, and ends its loop there.  Nobody may
complain, neither asyncio nor Python nor the driver; every connection must have been closed, and its goodbye waited for.

By itself: ``python -X dev -W error -m tests.aio.endings [URL [uvloop]]``, on SQLite or the server of a URL; prints what
failed.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import importlib
import io
import itertools
import logging
import signal
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any

from millpond import AsyncDatabase, AsyncPool
from millpond.drivers.aio import AsyncDriver, resolve
from tests.garbage import collect

from .doubles import ToldDriver

LONG_S = 60.0
SLOW_S = 0.1
PATIENCE_S = 40.0  # whatever takes longer than that, on a busy machine too, hangs
LONG = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT COUNT(*) FROM n"


class Told(ToldDriver):
    """A driver that does as it is told, fast."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.step_s = self.open_s = self.farewell_s = 0.001

    async def say_farewell(self) -> None:
        """Wait for the other end."""
        await asyncio.sleep(self.farewell_s)
        self.farewells += 1


@dataclass
class Play:
    """A pool, what is done with it, and what is still there when its loop has ended."""

    pool: AsyncPool[Any]
    driver: AsyncDriver[Any]
    ending: str = ""
    reached: asyncio.Event = field(default_factory=asyncio.Event)
    tasks: list[asyncio.Task[Any]] = field(default_factory=list)
    kept: list[Any] = field(default_factory=list)

    def beside(self, work: Coroutine[Any, Any, Any]) -> None:
        """Run something beside the program's main task; it says nothing about having been left."""
        task = asyncio.get_running_loop().create_task(work)
        task._log_destroy_pending = False  # type: ignore[attr-defined]
        task.add_done_callback(lambda task: task.cancelled() or task.exception())  # nor about how it ended
        self.tasks.append(task)

    def slow_down(self) -> None:
        """Have everything take a while from now on."""
        if isinstance(self.driver, Told):
            self.driver.step_s = self.driver.open_s = SLOW_S

    async def say(self) -> None:
        """Tell the main task, a moment from now, that the phase has been reached."""
        for _ in range(3):
            await asyncio.sleep(0)
        if not isinstance(self.driver, Told):
            await asyncio.sleep(0.02)
        self.reached.set()

    async def run(self, conn: Any, *, dirties: bool = False) -> None:
        """Run a short statement."""
        if isinstance(self.driver, Told):
            await conn.work(seconds=0.001, dirties=dirties)
        elif self.driver.name == "aiosqlite":
            await conn.execute("CREATE TEMP TABLE t(a)" if dirties else "SELECT 1")
        else:
            await ask(conn, "SET @mark = 1" if dirties else "SELECT 1")

    async def run_long(self, conn: Any) -> None:
        """Run a statement that does not end."""
        if isinstance(self.driver, Told):
            await conn.work(seconds=LONG_S)
        elif self.driver.name == "aiosqlite":
            await conn.execute(LONG)
        else:
            await ask(conn, self.long_on_server)

    @property
    def long_on_server(self) -> str:
        """A statement that takes a minute, and tells a server's administrator what it was for."""
        return f"SELECT SLEEP(60), '{self.ending}'"


async def ask(conn: Any, statement: str) -> None:
    """Run a statement on a server."""
    async with conn.cursor() as cursor:
        await cursor.execute(statement)


Phase = Callable[[Play], Coroutine[Any, Any, None]]


async def wait_in_line(play: Play) -> None:
    """Wait for a connection that is out."""
    async with play.pool.connection(), play.pool.connection():
        play.beside(play.say())
        async with play.pool.connection():
            await play.run_long(None)


async def dial(play: Play) -> None:
    """Wait for a connection that is being opened."""
    play.slow_down()
    play.beside(play.say())
    async with play.pool.connection() as conn:
        await play.run_long(conn)


async def check(play: Play) -> None:
    """Wait for a connection that is being checked."""
    async with play.pool.connection() as conn:
        await play.run(conn)
    play.slow_down()
    play.beside(play.say())
    async with play.pool.connection() as conn:
        await play.run_long(conn)


async def execute(play: Play) -> None:
    """Wait for a statement."""
    async with play.pool.connection() as conn:
        play.beside(play.say())
        await play.run_long(conn)


async def reset(play: Play) -> None:
    """Wait for a connection to be made as good as new."""
    async with play.pool.connection() as conn:
        await play.run(conn, dirties=True)
        play.slow_down()
        play.beside(play.say())
    await asyncio.sleep(LONG_S)


async def leave_dirty(play: Play) -> None:
    """Give a dirty connection back, and wait for nothing."""
    conn = await play.pool.connection()
    await play.run(conn, dirties=True)
    play.reached.set()
    play.slow_down()
    _ = conn.close()


async def give_up(play: Play) -> None:
    """Give a connection up in the middle of a statement, in the very moment in which the main task ends."""
    play.beside(execute(play))
    await play.reached.wait()
    play.tasks[-2].cancel()


async def say_goodbye(play: Play) -> None:
    """Wait for the goodbyes of a pool that is drained."""
    async with play.pool.connection() as conn:
        await play.run(conn)
    if isinstance(play.driver, Told):
        play.driver.farewell_s = SLOW_S
    play.pool.drain()
    play.reached.set()


async def stream(play: Play) -> None:
    """Keep a generator that holds a connection, and is not read to its end."""

    async def rows() -> AsyncGenerator[int, None]:
        async with play.pool.connection() as conn:
            await play.run(conn)
            yield 1
            await play.run_long(conn)

    found = rows()
    play.kept.append(found)
    await found.__anext__()
    play.beside(play.say())
    await found.__anext__()


async def leave_a_stream(play: Play) -> None:
    """Keep a generator that holds a connection, stopped at a row."""

    async def rows() -> AsyncGenerator[int, None]:
        async with play.pool.connection() as conn:
            await play.run(conn, dirties=True)
            yield 1

    found = rows()
    play.kept.append(found)
    await found.__anext__()
    play.reached.set()


async def keep(play: Play) -> None:
    """Keep a connection for ever."""
    play.kept.append(await play.pool.connection())
    play.reached.set()


async def forget(play: Play) -> None:
    """Keep a connection in a cycle that nothing leads to."""
    conn = await play.pool.connection()
    cycle: list[Any] = [conn]
    cycle.append(cycle)
    play.reached.set()


async def close_over_a_holder(play: Play) -> None:
    """Wait for a pool to be closed while a connection is out."""
    play.beside(execute(play))
    await play.reached.wait()
    await play.pool.close()


async def close_and_go(play: Play) -> None:
    """Close a pool twice while a connection is out, and wait for neither."""
    play.beside(execute(play))
    await play.reached.wait()
    _ = play.pool.close()
    _ = play.pool.close()


async def transact(play: Play) -> None:
    """Be in a transaction, and in a statement of it."""
    if isinstance(play.driver, Told):
        await execute(play)
        return
    db = AsyncDatabase(play.pool)
    if play.driver.name == "aiosqlite":  # a server has one
        await db.execute("CREATE TABLE IF NOT EXISTS t(a INTEGER)")
    async with db.transaction():
        await db.execute("INSERT INTO t VALUES (1)")
        play.beside(play.say())
        async for _ in db.stream(LONG if play.driver.name == "aiosqlite" else play.long_on_server):
            pass


PHASES: tuple[Phase, ...] = (
    wait_in_line, dial, check, execute, reset, leave_dirty, give_up, say_goodbye, stream, leave_a_stream, keep, forget,
    close_over_a_holder, close_and_go, transact,
)  # fmt: skip


# -- how the loop ends -----------------------------------------------------------------------------------------------
class Failed(Exception):
    """What a main task fails with."""


async def beside(play: Play, phase: Phase) -> None:
    """Have the phase in a task of its own, and go on when it has been reached."""
    play.beside(phase(play))
    reached = asyncio.get_running_loop().create_task(play.reached.wait())
    await asyncio.wait((play.tasks[0], reached), timeout=PATIENCE_S, return_when=asyncio.FIRST_COMPLETED)
    if not reached.done():
        reached.cancel()
        play.tasks[0].result()
        raise AssertionError("the phase was not reached")


def returns(play: Play, phase: Phase) -> None:
    """The main task returns."""
    asyncio.run(beside(play, phase))


def fails(play: Play, phase: Phase) -> None:
    """The main task fails, and closes the pool."""

    async def main() -> None:
        try:
            await beside(play, phase)
            raise Failed
        finally:
            await play.pool.close(timeout=0.05)

    with contextlib.suppress(Failed):
        asyncio.run(main())


def is_cancelled(play: Play, phase: Phase) -> None:
    """The main task is in the phase itself, and is cancelled."""

    async def main() -> None:
        me = asyncio.current_task()
        assert me is not None

        async def cancel() -> None:
            await play.reached.wait()
            me.cancel()

        play.beside(cancel())
        await phase(play)
        await asyncio.sleep(LONG_S)

    with contextlib.suppress(asyncio.CancelledError):
        asyncio.run(main())


def is_interrupted(play: Play, phase: Phase) -> None:
    """Ctrl-C is pressed while the main task is in the phase."""

    async def main() -> None:
        async def press() -> None:
            await play.reached.wait()
            await asyncio.sleep(0)
            signal.raise_signal(signal.SIGINT)

        play.beside(press())
        await phase(play)
        await asyncio.sleep(LONG_S)

    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main())


def is_stopped(play: Play, phase: Phase) -> None:
    """The loop is stopped, its generators are closed as its manual says, and it is closed; no task is cancelled."""
    loop = asyncio.new_event_loop()
    loop.run_until_complete(beside(play, phase))
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.close()


def is_closed(play: Play, phase: Phase) -> None:
    """The loop is closed as it is, and the pool too late."""
    loop = asyncio.new_event_loop()
    loop.run_until_complete(beside(play, phase))
    loop.close()
    _ = play.pool.close()


ENDINGS = (returns, fails, is_cancelled, is_interrupted, is_stopped, is_closed)
# asyncio cannot close a generator that runs, and says so itself.
IMPOSSIBLE = ((stream, is_stopped), (transact, is_stopped))


# -- playing ---------------------------------------------------------------------------------------------------------
def sqlite(directory: str) -> AsyncDriver[Any]:
    """Return aiosqlite's adapter."""
    return resolve(f"sqlite:///{directory}/endings.db")


def play_all(make: Callable[[], AsyncDriver[Any]], phases: Sequence[Phase]) -> list[str]:
    """Play these phases and every ending, and return what went wrong."""
    failures: list[str] = []
    for phase, ending in itertools.product(phases, ENDINGS):
        if (phase, ending) in IMPOSSIBLE:
            continue
        name = f"{phase.__name__}, {ending.__name__}"
        said = io.StringIO()
        began_at = time.monotonic()
        with contextlib.redirect_stderr(said), warnings.catch_warnings():
            if ending is is_closed:  # what the pool says to that is the truth
                warnings.simplefilter("ignore", ResourceWarning)
            problem = play_one(make(), phase, ending)
        if said.getvalue() or problem:
            failures.append(f"{name}: {problem}\n{said.getvalue()}")
        if time.monotonic() - began_at > PATIENCE_S:
            failures.append(f"{name}: took {time.monotonic() - began_at:.1f} s")
    return failures


def play_one(driver: AsyncDriver[Any], phase: Phase, ending: Callable[[Play, Phase], None]) -> str:
    """Play one, and return what went wrong."""
    settings: dict[str, Any] = {"check_after": 0.0} if phase is check else {}
    play = Play(AsyncPool(driver, max_size=2, **settings), driver, ending.__name__)
    ending(play, phase)
    problem = what_is_left(driver, awaited=ending is not is_closed)
    play.tasks.clear()
    play.kept.clear()
    del play
    collect()
    return problem


def what_is_left(driver: AsyncDriver[Any], *, awaited: bool) -> str:
    """Return what was not closed, or not waited for."""
    if not isinstance(driver, Told):
        return what_runs()
    if driver.left_open:
        return f"left open: {driver.left_open}"
    return "" if driver.farewells == len(driver.opened) or not awaited else "a farewell was not waited for"


def what_runs() -> str:
    """Return which threads do not end."""
    threads = [thread for thread in threading.enumerate() if thread is not threading.main_thread()]
    for thread in threads:
        thread.join(PATIENCE_S)
    return f"threads are left: {threads}" if any(thread.is_alive() for thread in threads) else ""


def main(arguments: Sequence[str]) -> int:
    """Play with drivers in this process, or with a server's."""
    logging.getLogger("asyncio").setLevel(logging.ERROR)  # that a callback was slow is no news here
    gc.disable()  # a connection in a cycle is found after its play, not at some moment of it
    gc.freeze()  # and what is there now need not be looked at each time
    with tempfile.TemporaryDirectory() as directory:
        if arguments[1:] == ["uvloop"]:
            asyncio.set_event_loop_policy(importlib.import_module("uvloop").EventLoopPolicy())
        if arguments:
            failures = play_all(lambda: resolve(arguments[0]), PHASES)
        else:
            failures = [
                *play_all(Told, PHASES),
                *play_all(lambda: Told(defers=True), (reset, leave_dirty)),
                *play_all(lambda: sqlite(directory), PHASES),
            ]
    for failure in failures:
        print(failure)  # noqa: T201  it is what it is for
    print(f"{len(failures)} failed")  # noqa: T201
    return min(len(failures), 1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
