"""A storm of cancellations on a real server, and a census of what it has left.

Tasks take connections, leave marks in their sessions and read numbers that are theirs alone, and are cancelled at
random.  Afterwards every slot must be there, no task may have seen another's row or mark, and no session may run for
nobody.

By itself, for as long as you like: ``python -m tests.live.aio.cancellations 100000 [asyncmy|aiomysql] [mariadb|mysql]``
"""

from __future__ import annotations

import asyncio
import random
import sys
import time
from dataclasses import dataclass
from typing import Any

from millpond import AsyncPool
from millpond.testing import ScratchServer

from .servers import ask, pool_on, sessions

SIZE = 5
CROWD = 8  # tasks at any moment: more than connections, but most of those that are cancelled hold one


@dataclass
class Census:
    """What a storm has left."""

    cancelled: int = 0
    served: int = 0
    wrong: int = 0
    swallowed: int = 0
    lost: int = 0
    missing: int = 0
    opened: int = 0
    left: int = 0
    seconds: float = 0.0

    @property
    def is_clear(self) -> bool:
        """Nothing was lost, nothing was seen that was another's, and nothing is left."""
        return not (self.lost or self.missing or self.wrong or self.swallowed or self.left)

    def __str__(self) -> str:
        return (
            f"{self.cancelled} cancellations, {self.served} tasks served, in {self.seconds:.1f} s: "
            f"{self.lost} slots lost, "
            f"{self.missing} connections missing, {self.wrong} wrong rows, {self.swallowed} cancellations swallowed, "
            f"{self.left} sessions left; {self.opened} connections were opened"
        )


async def use(pool: AsyncPool[Any], number: int, manner: float, census: Census) -> None:
    """Read back a number of one's own, in one of several manners."""
    async with pool.connection() as conn:
        if manner < 0.3:
            rows = await ask(conn, "SELECT %s", (number,))
        elif manner < 0.6:
            rows = await ask(conn, "SELECT %s, SLEEP(0.002)", (number,))
        elif manner < 0.8:
            rows = await ask(conn, "SELECT %s FROM (SELECT 1 UNION ALL SELECT 2) AS two", (number,))
        else:
            census.wrong += ((None,),) != await ask(conn, "SELECT @mark")
            await ask(conn, "SET @mark = %s", (number,))
            await asyncio.sleep(0)
            rows = await ask(conn, "SELECT @mark")
        census.wrong += not rows or any(row[0] != number for row in rows)
        await asyncio.sleep(0.001 if manner < 0.1 else 0)
    census.served += 1


async def storm(pool: AsyncPool[Any], count: int, seed: int) -> Census:
    """Cancel so many tasks at random."""
    chance = random.Random(seed)
    census = Census()
    loop = asyncio.get_running_loop()
    began_at = time.monotonic()
    running: dict[asyncio.Task[None], bool] = {}
    number = 0
    while census.cancelled < count:
        while len(running) < CROWD:
            number += 1
            running[loop.create_task(use(pool, number, chance.random(), census))] = False
        await asyncio.sleep(chance.choice((0, 0, 0.0005, 0.002)))
        for task in chance.sample(list(running), 2):
            if not task.done() and not running[task]:
                running[task] = True
                task.cancel()
        for task in [task for task in running if task.done()]:
            was_told = running.pop(task)
            census.cancelled += task.cancelled()
            census.swallowed += was_told and not task.cancelled() and task.exception() is None
            if not task.cancelled():
                task.result()
    for task in running:
        task.cancel()
    await asyncio.wait(running)
    census.seconds = time.monotonic() - began_at
    return census


async def weather(server: ScratchServer, driver: str, count: int, seed: int) -> Census:
    """Make a pool, let the storm pass, and take the census."""
    async with pool_on(server, driver, socket=True, max_size=SIZE, timeout=60.0) as pool:
        census = await storm(pool, count, seed)
        leases = [await pool.connection(timeout=30.0) for _ in range(SIZE)]
        for mark, lease in enumerate(leases):
            census.wrong += ((mark,),) != await ask(lease, "SELECT %s", (mark,))
            await lease.close()
        await asyncio.sleep(0)
        stats = pool.stats()
        census.lost, census.opened = stats.lost, stats.opened
        census.missing = SIZE - stats.size
    until = time.monotonic() + 10.0
    while sessions(server) and time.monotonic() < until:  # noqa: ASYNC110  the server tells nobody
        await asyncio.sleep(0.02)
    census.left = len(sessions(server))
    return census


def main(arguments: list[str]) -> int:
    """Take a census and print it; the exit status says whether anything was wrong."""
    count = int(arguments[0]) if arguments else 100_000
    driver = arguments[1] if len(arguments) > 1 else "asyncmy"
    kind: Any = arguments[2] if len(arguments) > 2 else "mariadb"
    seed = random.randrange(2**32)
    with ScratchServer(kind) as server:
        census = asyncio.run(weather(server, driver, count, seed))
    print(f"{driver} on {kind}, seed {seed}: {census}")  # noqa: T201  the census is what it is for
    return 0 if census.is_clear else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
