"""Random days of a pool, told line by line: ``python -m tests.aio.random_days FIRST LAST`` prints those of these seeds.

What is told is all that can be seen from outside: who got which connection, after how long, or was told what; numbers,
holders and sites after each act; where leases say that they were given back; warnings, log lines and events.  It
depends on the seed and the Python alone, so that two ways to do the same can be compared.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import functools
import gc
import io
import logging
import random
import re
import sys
import threading
import warnings
from collections.abc import Callable, Coroutine
from typing import Any

from millpond import AsyncLease, AsyncPool
from millpond.aio import Clockwork

from .doubles import BadPassword, Connection, JumpingLoop, ServerGone, ToldDriver

ACTS = 60  # in a day
ADDRESS = re.compile(r"at 0\S+")
# How a holder is called: where to list all tasks has taken long, the list is given out again for a while.
SOMEBODY = re.compile(r"user \d+|Task-\d+|one that has ended")
Lease = AsyncLease[Connection]


class AskedDriver(ToldDriver):
    """A driver whose quick questions have the answers of the day."""

    def __init__(self, chance: random.Random) -> None:
        super().__init__(defers=chance.random() < 0.3)
        if chance.random() < 0.5:
            self.is_readable = self.tell_readable
        if chance.random() < 0.2:
            self.is_clean = None

    def tell_readable(self, conn: Connection) -> bool:
        """Say whether the server has said anything unasked."""
        return conn in self.dead


class Day:
    """One pool, those who use it, and what they say.

    Args:
        seed: what kind of day it is.
        loop: whose day.
    """

    def __init__(self, seed: int, loop: JumpingLoop) -> None:
        self.loop = loop
        self.chance = random.Random(seed)
        self.driver = AskedDriver(self.chance)
        self.began_at = loop.time()
        self.lines: list[str] = []
        self.tasks: list[asyncio.Task[None]] = []
        self.held: list[Lease] = []
        self.by_hand: list[Any] = []
        self.callers = 0
        self.whole_seconds = self.chance.random() < 0.1
        self.all_tasks: list[asyncio.Task[Any]] = []  # so that no two have the same address: holders are known by that
        loop.set_task_factory(self.new_task)
        self.new: Callable[..., asyncio.Task[Any]] = asyncio.Task
        if seed % 2 and sys.version_info >= (3, 12):
            self.new = functools.partial(asyncio.Task, eager_start=True)

    def new_task(self, loop: asyncio.AbstractEventLoop, work: Any, **how: Any) -> asyncio.Task[Any]:
        """Make a task, and keep it."""
        task = self.new(work, loop=loop, **how)
        self.all_tasks.append(task)
        return task

    def say(self, *words: object) -> None:
        """Note a line."""
        text = " ".join(map(str, words))
        told = SOMEBODY.sub("somebody", ADDRESS.sub("at", text))
        self.lines.append(f"{self.loop.time() - self.began_at:.4f} {told}")

    def clock(self) -> float:
        """Tell the time; on some days as a whole number."""
        now = self.loop.time()
        return int(now) if self.whole_seconds else now

    def pool(self) -> AsyncPool[Connection]:
        """Return a pool with settings of the day."""
        one = self.chance.choice
        return AsyncPool(
            self.driver,
            clockwork=Clockwork(clock=self.clock, jitter=self.chance.random),
            max_size=one([1, 2, 3]),
            min_idle=one([0, 0, 1]),
            timeout=one([0.5, 5.0, 60.0, None]),
            max_lifetime=one([20.0, None]),
            idle_timeout=one([3.0, None]),
            check_after=one([0.0, 1.0, None]),
            max_uses=one([None, None, 3]),
            max_waiting=one([None, None, None, 2]),
            idle_order=one(["lifo", "lifo", "fifo"]),
            reset=one(["auto", "auto", "none"]),
            track_use=one([True, True, False]),
            observer=self.say,
            name="pool",
        )

    # ------------------------------------------------------------------ what users do
    async def user(
        self, name: int, pool: AsyncPool[Connection], use: Callable[..., Coroutine[Any, Any, object]]
    ) -> None:
        """Run one use to its end, and say what came of it."""
        try:
            self.say(name, "has", await use(pool))
        except asyncio.CancelledError:
            self.say(name, "was cancelled")
            raise
        except Exception as error:  # noqa: BLE001  whatever it is must be the same
            self.say(name, "was told", type(error).__name__, error)

    async def with_block(self, pool: AsyncPool[Connection]) -> object:
        """Work in a block, which may fail."""
        seconds, dirties, fails = self.chance.choice([0.0, 0.2, 3.0]), self.chance.random() < 0.3, self.chance.random()
        async with pool.connection(self.chance.choice([None, None, 0.0, 1.0])) as conn:
            await conn.driver_connection.work(seconds=seconds, dirties=dirties)
            if fails < 0.2:
                raise ZeroDivisionError
        self.describe(conn)
        return conn

    async def hand_pair(self, pool: AsyncPool[Connection]) -> object:
        """Take and close by hand, perhaps twice."""
        conn = await pool.connection()
        await asyncio.sleep(self.chance.choice([0.0, 0.3]))
        left = conn.close()
        if self.chance.random() < 0.5:
            await left
        await conn.close()
        self.describe(conn)
        return conn

    async def wait_for(self, pool: AsyncPool[Connection]) -> object:
        """Take with a time-out of asyncio's."""
        conn: Lease = await asyncio.wait_for(pool.connection(), self.chance.choice([0.0, 0.2, 2.0]))
        await asyncio.sleep(0.1)
        await conn.close()
        return conn

    async def shielded(self, pool: AsyncPool[Connection]) -> object:
        """Have a task of its own take it, and a stack give it back."""
        async with contextlib.AsyncExitStack() as stack:
            entering: Any = stack.enter_async_context(pool.connection())  # type: ignore[arg-type]  # of any lease
            conn: Lease = await asyncio.shield(asyncio.ensure_future(entering))
            await asyncio.sleep(0.1)
        return conn

    async def generating(self, pool: AsyncPool[Connection]) -> object:
        """Hold it in a generator, which is left in the middle and closed."""

        async def rows() -> Any:
            async with pool.connection() as conn:
                for row in range(3):
                    await asyncio.sleep(0.05)
                    yield conn.driver_connection.number, row

        async with contextlib.aclosing(rows()) as them:
            return await them.__anext__()

    async def keep(self, pool: AsyncPool[Connection]) -> object:
        """Take it for others to close, discard, or drop."""
        conn = await pool.connection()
        self.held.append(conn)
        return conn

    def describe(self, conn: Lease) -> None:
        """Say what a lease says that was given back."""
        try:
            self.say(conn, conn.driver_connection)
        except Exception as error:  # noqa: BLE001  whatever it is must be the same
            self.say(type(error).__name__, error)

    # ------------------------------------------------------------------ what happens
    def come(self, pool: AsyncPool[Connection]) -> None:
        """Let some users come."""
        for _ in range(self.chance.choice([1, 1, 2, 5])):
            self.callers += 1
            uses = [self.with_block, self.with_block, self.hand_pair, self.wait_for, self.shielded, self.generating]
            use = self.chance.choice([*uses, self.keep])
            self.say(self.callers, use.__name__)
            self.tasks.append(self.loop.create_task(self.user(self.callers, pool, use), name=f"user {self.callers}"))

    def cancel(self, _: AsyncPool[Connection]) -> None:
        """Cancel one of those who are there."""
        self.tasks = [task for task in self.tasks if not task.done()]
        if self.tasks:
            task = self.chance.choice(self.tasks)
            self.say("cancel", *task.get_name().split(), task.cancel())

    def let_go(self, pool: AsyncPool[Connection]) -> None:
        """Have what is kept given back, given up or dropped."""
        if not self.held:
            return
        conn = self.held.pop(self.chance.randrange(len(self.held)))
        ways: list[Callable[[], object]] = [conn.discard, lambda: pool.release(conn), lambda: None]
        self.chance.choice([*ways, *[conn.close] * 5])()
        self.describe(conn)

    def take_by_hand(self, pool: AsyncPool[Connection]) -> None:
        """Begin a checkout as what awaits it does; it waits, ends, or fails."""
        lease = pool.connection(self.chance.choice([None, None, 1.0]))
        self.by_hand.append((lease.__await__ if self.chance.random() < 0.5 else lease.__aenter__)())
        del lease
        if self.chance.random() < 0.9:
            self.call(self.by_hand[-1], "send", None)

    def go_on_by_hand(self, _: AsyncPool[Connection]) -> None:
        """Go on with a checkout, throw into it, close or drop it."""
        if self.by_hand:
            checkout = self.by_hand.pop(self.chance.randrange(len(self.by_hand)))
            how = self.chance.choice(["throw", "close", "send", "drop"])
            if how == "throw":
                self.call(checkout, how, self.chance.choice([KeyError("thrown"), asyncio.CancelledError()]))
            elif how != "drop":
                self.call(checkout, how, *([None] if how == "send" else []))
            self.call(checkout, "send", None)

    def call(self, checkout: Any, method: str, *arguments: object) -> None:
        """Call a checkout's method, and say what it brings."""
        try:
            waits_for = getattr(checkout, method)(*arguments)
        except StopIteration as end:
            self.say(method, "ends with", end.value)
            if end.value is not None:
                self.held.append(end.value)
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001  whatever it is must be the same
            self.say(method, "raises", type(error).__name__, error)
        else:
            self.say(method, "waits for", "nothing" if waits_for is None else type(waits_for).__name__)

    def reshape(self, pool: AsyncPool[Connection]) -> None:
        """Drain the pool, or give it another size."""
        if self.chance.random() < 0.4:
            pool.drain()
        else:
            pool.resize(self.chance.choice([1, 2, 4]), 0)

    def trouble(self, _: AsyncPool[Connection]) -> None:
        """Let something go wrong from now on, or nothing any more."""
        driver = self.driver
        driver.failing = self.chance.choice([None] * 12 + [ServerGone("gone"), BadPassword("wrong")])
        driver.dead = set(self.chance.sample(driver.opened, min(len(driver.opened), self.chance.choice([0, 0, 1, 2]))))

    def strange(self, pool: AsyncPool[Connection]) -> None:
        """Use it where it must not be used, or not at all."""
        if self.chance.random() < 0.3:
            _ = pool.connection()  # and it is dropped
            return
        lease = self.held[0] if self.held and self.chance.random() < 0.5 else pool.connection()

        def elsewhere() -> None:
            self.call(lease.__aenter__(), "send", None)
            try:
                _ = lease.close()
            except Exception as error:  # noqa: BLE001  whatever it is must be the same
                self.say("elsewhere", type(error).__name__, error)

        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()

    async def live(self) -> None:
        """Let it all happen, and say after each act how things are."""
        pool = self.pool()
        acts = [self.come] * 7 + [self.let_go] * 5 + [self.take_by_hand, self.go_on_by_hand, self.go_on_by_hand]
        for _ in range(ACTS):
            act = self.chance.choice([*acts, self.cancel, self.reshape, self.trouble, self.strange])
            self.say("---", act.__name__)
            act(pool)
            await self.pause()
            self.say(sorted(dataclasses.asdict(pool.stats()).items()))
            for holder in pool.stats().holders:
                self.say(holder, holder.site)
        await self.end(pool)

    async def pause(self) -> None:
        """Let a few turns of the loop pass, or some time."""
        for _ in range(self.chance.choice([0, 1, 1, 2, 3])):
            await asyncio.sleep(0)
        if self.chance.random() < 0.3:
            await asyncio.sleep(self.chance.choice([0.05, 0.4, 1.0, 4.0, 30.0]))
        gc.collect()

    async def end(self, pool: AsyncPool[Connection]) -> None:
        """Close the pool, with whoever is there."""
        await pool.close(self.chance.choice([0.0, 1.0]))
        self.say(sorted(dataclasses.asdict(pool.stats()).items()))
        self.held.clear()
        self.by_hand.clear()
        await asyncio.wait([*self.tasks, self.loop.create_task(asyncio.sleep(0.0))])
        self.all_tasks.clear()
        gc.collect()
        await asyncio.sleep(10.0)
        self.say(sorted(dataclasses.asdict(pool.stats()).items()))
        self.say("left open", sorted(conn.number for conn in self.driver.left_open))


def lived(seed: int) -> list[str]:
    """Return what is told of the day of a seed."""
    loop = JumpingLoop()
    day = Day(seed, loop)
    loop.set_exception_handler(lambda _, context: day.say("loop", context["message"], repr(context.get("exception"))))
    log = io.StringIO()
    handler = logging.StreamHandler(log)
    logging.getLogger("millpond").addHandler(handler)
    unraisable = sys.unraisablehook
    sys.unraisablehook = lambda told: day.say("unraisable", repr(told.exc_value))
    try:
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            asyncio.set_event_loop(loop)
            loop.run_until_complete(day.live())
    finally:
        sys.unraisablehook = unraisable
        logging.getLogger("millpond").removeHandler(handler)
        asyncio.set_event_loop(None)
        loop.close()
    return [f"day {seed}", *day.lines, *log.getvalue().splitlines(), *(str(warning.message) for warning in warned)]


if __name__ == "__main__":
    gc.disable()  # it would come at other moments
    gc.freeze()
    for each in range(int(sys.argv[1]), int(sys.argv[2])):
        sys.stdout.write("".join(f"{line}\n" for line in lived(each)))
