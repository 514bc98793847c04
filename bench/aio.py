"""The asynchronous pool beside asyncmy's own and aiomysql's, in one process, in turns, on a real server.

Three figures: an uncontended checkout and return (no I/O), 2,000 pooled queries over 5 to 20 connections (by tasks that
ask again and again, and by 2,000 at once, as asyncmy measures its own pool), and the shares of 20 tasks on 2
connections.  ``python bench/aio.py`` takes MariaDB, ``... mysql`` MySQL, and ``... waiting`` measures 100,000 waiting
tasks instead.  A ratio is the median of the ratios of all turns, each within itself.

``... memory`` has the queries answered from memory, through the loop, by what a server has answered once: what is left
is what the driver and the pool do, and that repeats within 2 % under any load.  ``... pairs`` measures pairs alone.
With ``MILLPOND_COMPILED=no`` in the environment all of it is measured without what is compiled of millpond.

Beside them stands the least that first come, first served can cost: a deque of futures over asyncmy's own connections,
ten lines that prove nothing, keep no books and lose a connection with each cancellation.

Budgets: a pair at most 1.0 times asyncmy's and 1/10 of aiomysql's; the queries at least as fast as asyncmy's; shares
within 2 %.
"""

from __future__ import annotations

import asyncio
import functools
import gc
import importlib
import resource
import statistics
import sys
import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable
from typing import Any

from millpond import AsyncPool
from millpond.aio import COMPILED
from millpond.drivers.aio import AsyncDriver
from millpond.testing import ScratchServer

aiomysql: Any = importlib.import_module("aiomysql")  # neither has types
asyncmy: Any = importlib.import_module("asyncmy")
SIZES = ((5, 20), (5, 5), (20, 20))  # fewest and most connections
TURNS, PAIRS, QUERIES = 15, 2000, 2000
STATEMENT = "SELECT %s, 'some text', 3.5"


class NullConnection:
    """A connection to nowhere."""


class Least:
    """Connections in a deque, and futures in another: whoever came first gets what comes back."""

    def __init__(self) -> None:
        self.free: deque[Any] = deque()
        self.waiting: deque[asyncio.Future[Any]] = deque()

    async def open(self, size: int, arguments: dict[str, Any]) -> None:
        """Open so many."""
        self.free.extend([await asyncmy.connect(**arguments) for _ in range(size)])

    def connection(self) -> Taken:
        """Take one for a block."""
        return Taken(self)

    def close(self) -> None:
        """Close all."""
        for conn in self.free:
            conn.close()

    async def wait_closed(self) -> None:
        """Do what the others do."""


class Taken:
    """One use of such a connection."""

    __slots__ = ("conn", "pool")

    def __init__(self, pool: Least) -> None:
        self.pool = pool

    async def __aenter__(self) -> Any:
        pool = self.pool
        if pool.free and not pool.waiting:
            self.conn = pool.free.pop()
        else:
            place = asyncio.get_running_loop().create_future()
            pool.waiting.append(place)
            self.conn = await place
        return self.conn

    async def __aexit__(self, *exc: object) -> None:
        pool = self.pool
        if pool.waiting:
            pool.waiting.popleft().set_result(self.conn)
        else:
            pool.free.append(self.conn)


class NullDriver(AsyncDriver[NullConnection]):
    """An adapter that costs nothing."""

    tracks_cursors = False

    async def open(self, until: float) -> NullConnection:  # noqa: ARG002  as the port has it
        """Open nothing."""
        return NullConnection()

    async def is_alive(self, conn: NullConnection, until: float) -> bool:  # noqa: ARG002  as the port has it
        """Say so."""
        return True

    async def reset(self, conn: NullConnection, until: float) -> bool:  # noqa: ARG002  as the port has it
        """Do nothing."""
        return True

    def close(self, conn: NullConnection) -> None:
        """Do nothing."""


async def pairs_with(take: Callable[[], Any]) -> float:
    """Return the microseconds of a pair by ``async with``."""
    began = time.perf_counter()
    for _ in range(PAIRS):
        async with take():
            pass
    await settle()
    return (time.perf_counter() - began) / PAIRS * 1e6


async def pairs_by_hand(take: Callable[[], Any]) -> float:
    """Return the microseconds of a pair by hand, as it is written with this pool."""
    began = time.perf_counter()
    for _ in range(PAIRS):
        conn = await take()
        conn.close()
    await settle()
    return (time.perf_counter() - began) / PAIRS * 1e6


async def pairs_released(take: Callable[[], Any], give: Callable[[Any], Any]) -> float:
    """Return the microseconds of a pair by hand, as it is written with the peers' pools."""
    began = time.perf_counter()
    for _ in range(PAIRS):
        conn = await take()
        give(conn)
    await settle()
    return (time.perf_counter() - began) / PAIRS * 1e6


async def settle() -> None:
    """Let what a pool has left to the loop be done: it is part of the price."""
    await asyncio.sleep(0)
    await asyncio.sleep(0)


async def query(take: Callable[[], Any], number: int) -> None:
    """Send one query, with a checkout of its own."""
    async with take() as conn, conn.cursor() as cursor:
        await cursor.execute(STATEMENT, (number,))
        await cursor.fetchone()


async def queries(take: Callable[[], Any], tasks: int) -> float:
    """Return the milliseconds for all queries, by tasks that ask again and again."""

    async def work(count: int) -> None:
        for number in range(count):
            await query(take, number)

    began = time.perf_counter()
    await asyncio.gather(*(work(QUERIES // tasks) for _ in range(tasks)))
    return (time.perf_counter() - began) * 1e3


async def at_once(take: Callable[[], Any]) -> float:
    """Return the milliseconds for all queries, by as many tasks at once."""
    began = time.perf_counter()
    await asyncio.gather(*(query(take, number) for number in range(QUERIES)))
    return (time.perf_counter() - began) * 1e3


async def shares(take: Callable[[], Any], seconds: float) -> tuple[int, int, int]:
    """Return the least and the largest share of 20 tasks, and all uses."""
    counts: Counter[int] = Counter()
    until = time.perf_counter() + seconds

    async def work(number: int) -> None:
        counts[number] = 0
        while time.perf_counter() < until:
            async with take():
                counts[number] += 1
                await asyncio.sleep(0)

    tasks = [asyncio.ensure_future(work(number)) for number in range(20)]
    await asyncio.wait(tasks, timeout=seconds + 2.0)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return min(counts.values()), max(counts.values()), sum(counts.values())


async def in_turns(subjects: dict[str, Callable[[], Awaitable[float]]], turns: int = TURNS) -> dict[str, list[float]]:
    """Measure each in turn, again and again."""
    seen: dict[str, list[float]] = {name: [] for name in subjects}
    for _ in range(turns):
        for name, measure in subjects.items():
            seen[name].append(await measure())
    return seen


def tell(
    title: str, unit: str, times: dict[str, list[float]], peers: tuple[str, ...] = ("asyncmy", "aiomysql")
) -> None:
    """Print medians, and each against its peers, turn by turn."""
    print(f"{title}, {unit}")
    for name, values in times.items():
        ratios = {
            peer: statistics.median(mine / theirs for mine, theirs in zip(values, times[peer], strict=True))
            for peer in peers
            if peer != name and peer in times
        }
        against = ", ".join(f"{ratio:.3f} of {peer}" for peer, ratio in ratios.items())
        print(f"  {name:20} {statistics.median(values):8.2f}   {against}")


def arguments_on(server: ScratchServer) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the arguments of ``connect``, as asyncmy has them and as aiomysql has them."""
    arguments = server.connect_args(tls=False) | {"autocommit": True}
    arguments.pop("ssl_disabled", None)
    return arguments, {("db" if name == "database" else name): value for name, value in arguments.items()}


async def compare_pairs(server: ScratchServer) -> None:
    """Measure what each pool costs by itself."""
    arguments, renamed = arguments_on(server)
    full, bare = (AsyncPool(NullDriver(), reset="none", track_use=tracked) for tracked in (True, False))
    peer = await asyncmy.create_pool(minsize=1, maxsize=5, **arguments)
    old = await aiomysql.create_pool(minsize=1, maxsize=5, **renamed)
    takers: dict[str, Callable[..., Any]] = {"millpond": full.connection, "millpond, bare": bare.connection}
    takers |= {"asyncmy": peer.acquire, "aiomysql": old.acquire}
    givers = {"asyncmy": peer.release, "aiomysql": old.release}
    by_with: dict[str, Callable[[], Awaitable[float]]] = {
        name: functools.partial(pairs_with, take) for name, take in takers.items()
    }
    tell("a pair, async with", "us", await in_turns(by_with))
    by_hand: dict[str, Callable[[], Awaitable[float]]] = {
        name: functools.partial(pairs_released, take, givers[name])
        if name in givers
        else functools.partial(pairs_by_hand, take)
        for name, take in takers.items()
    }
    tell("a pair, by hand", "us", await in_turns(by_hand))
    await let_go(peer, old, full, bare)


async def compare_queries(server: ScratchServer, least: int, most: int, *, from_memory: bool = False) -> None:
    """Measure queries with a checkout each, over pools of *least* to *most* connections."""
    arguments, renamed = arguments_on(server)
    sizes: dict[str, Any] = {"max_size": most, "min_idle": least}
    new = AsyncPool(asyncmy, connect_args=arguments, **sizes)
    new_peer = await asyncmy.create_pool(minsize=least, maxsize=most, **arguments)
    fair = Least()
    await fair.open(most, arguments)
    takers: dict[str, Callable[..., Any]] = {
        "millpond, asyncmy": new.connection,
        "asyncmy": new_peer.acquire,
        "least that is fair": fair.connection,
    }
    pools: list[Any] = [new_peer, new, fair]
    if from_memory:
        await new.wait()
        memories = await answer_from_memory(arguments, [*held_by(new), *new_peer._free, *fair.free])  # noqa: SLF001  a benchmark may
    else:
        memories = []
        old = AsyncPool(aiomysql, connect_args=arguments, **sizes)
        old_peer = await aiomysql.create_pool(minsize=least, maxsize=most, **renamed)
        takers |= {"millpond, aiomysql": old.connection, "aiomysql": old_peer.acquire}
        pools += [old, old_peer]
    subjects: dict[str, Callable[[Callable[[], Any]], Awaitable[float]]] = {"as many tasks at once": at_once}
    if least == most:
        subjects |= {f"{tasks} tasks": functools.partial(queries, tasks=tasks) for tasks in (most, 4 * most)}
    for name, measure in subjects.items():
        turns = await in_turns({who: functools.partial(measure, take) for who, take in takers.items()})
        tell(f"{QUERIES} queries by {name} over {least} to {most} connections", "ms", turns)
    for memory in memories:
        memory.restore()
    await let_go(*pools)


class Memory:
    """A transport that answers everything with what was answered once; the loop brings it."""

    def __init__(self, conn: Any, reply: bytes) -> None:
        self.conn = conn
        self.real = conn._transport  # noqa: SLF001  asyncmy's own name
        self.call_soon = asyncio.get_running_loop().call_soon
        self.reply = reply
        conn._transport = self  # noqa: SLF001  so

    def write(self, _: bytes) -> None:
        """Have the answer come with the next round of the loop."""
        self.call_soon(self.arrive)

    def arrive(self) -> None:
        """Be received, as from a socket."""
        protocol = self.conn._proto  # noqa: SLF001  so
        protocol.get_buffer(-1)[: len(self.reply)] = self.reply
        protocol.buffer_updated(len(self.reply))

    def is_closing(self) -> bool:
        """Say no."""
        return False

    def restore(self) -> None:
        """Give the connection its own transport back."""
        self.conn._transport = self.real  # noqa: SLF001  so

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)


def held_by(pool: AsyncPool[Any]) -> list[Any]:
    """Return the driver's connections of a pool."""
    return [slot.conn for slot in pool._ledger.live()]  # noqa: SLF001  a benchmark may


async def answer_from_memory(arguments: dict[str, Any], conns: list[Any]) -> list[Memory]:
    """Ask a server once, and have all these connections answer the same from now on."""
    conn = await asyncmy.connect(**arguments)
    protocol = conn._proto  # noqa: SLF001  asyncmy's own names
    await conn._execute_command(3, (STATEMENT % 7).encode())  # noqa: SLF001  so
    await protocol.wait_for_data(4)
    reply = bytes(protocol.buffer[protocol.pos : protocol.length])
    conn.close()
    return [Memory(conn, reply) for conn in conns]


async def compare_shares(server: ScratchServer) -> None:
    """Measure how evenly tasks are served."""
    arguments, _ = arguments_on(server)
    null = AsyncPool(NullDriver(), reset="none", max_size=2)
    peer = await asyncmy.create_pool(minsize=2, maxsize=2, **arguments)
    for name, take in (("millpond", null.connection), ("asyncmy", peer.acquire)):
        least, most, total = await shares(take, 2.0)
        print(f"20 tasks on 2 connections, {name}: {least} to {most} uses each, {total} in all")
    peer.terminate()
    await let_go(peer, null)


async def let_go(*pools: Any) -> None:
    """Close pools, ours and theirs."""
    for pool in pools:
        left = pool.close()
        await (pool.wait_closed() if left is None else left)


async def beside_peers(server: ScratchServer) -> None:
    """Measure everything that has peers."""
    await compare_pairs(server)
    if "pairs" in sys.argv[1:]:
        return
    for least, most in SIZES:
        await compare_queries(server, least, most)
    await compare_shares(server)


async def from_memory(server: ScratchServer) -> None:
    """Measure the queries with answers from memory."""
    for least, most in SIZES[1:]:
        await compare_queries(server, least, most, from_memory=True)


async def waiting(count: int) -> None:
    """So many tasks wait for one connection; then all are cancelled."""
    async with AsyncPool(NullDriver(), reset="none", max_size=1, timeout=3600.0) as pool, pool.connection():

        async def wait() -> None:
            async with pool.connection():
                pass

        gc.collect()
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        began = time.perf_counter()
        tasks = [asyncio.ensure_future(wait()) for _ in range(count)]
        await asyncio.sleep(0)
        queued = time.perf_counter()
        assert count == pool.stats().waiting
        after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        done = time.perf_counter()
    print(
        f"{count:7} tasks: queued in {(queued - began) / count * 1e6:5.1f} us each, "
        f"{(after - before) / count:5.2f} KiB each, cancelled in {(done - queued) / count * 1e6:5.1f} us each"
    )


def main() -> None:
    """Measure beside peers, on a server or from memory, or many tasks in the queue."""
    way = "compiled" if COMPILED else "in Python alone"
    print(f"Python {sys.version.split()[0]}, millpond {way}; medians of {TURNS} turns")
    if sys.argv[1:] == ["waiting"]:
        for count in (10_000, 30_000, 100_000):
            asyncio.run(waiting(count))
        return
    with ScratchServer("mysql" if "mysql" in sys.argv[1:] else "mariadb") as server:
        print(server)
        asyncio.run(from_memory(server) if "memory" in sys.argv[1:] else beside_peers(server))


if __name__ == "__main__":
    main()
