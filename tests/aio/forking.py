"""A program that forks while a pool of its own has connections, inside its loop and outside; to be run by itself.

``python -X dev -W error -m tests.aio.forking URL``: the child uses the pool and exits, the parent goes on as it was.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import warnings
from typing import Any

from millpond import AsyncPool
from tests.garbage import collect

EXIT = 7


async def number_of(conn: Any) -> int:
    """Return what tells one connection from others."""
    if hasattr(conn, "execute"):
        return id(conn.driver_connection)
    async with conn.cursor() as cursor:
        await cursor.execute("SELECT CONNECTION_ID()")
        (number,) = await cursor.fetchone()
    return int(number)


async def use(pool: AsyncPool[Any]) -> set[int]:
    """Use two connections at once, and return which they were."""
    async with pool.connection() as first, pool.connection() as second:
        return {await number_of(first), await number_of(second)}


def fork_and_wait(pool: AsyncPool[Any]) -> None:
    """Have a child use the pool and exit."""
    child = os.fork()
    if child == 0:
        numbers = asyncio.run(use(pool))
        collect()
        os._exit(EXIT if len(numbers) == 2 else 1)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == EXIT, "the child has failed"


async def fork_inside(url: str) -> None:
    """Fork while the loop runs, and a connection is out."""
    async with AsyncPool(url, max_size=2) as pool:
        before = await use(pool)
        async with pool.connection():
            fork_and_wait(pool)
        assert before == await use(pool), "the parent's connections are others"
        assert pool.stats().opened == 2, "the parent had to connect anew"


def fork_outside(url: str) -> None:
    """Fork while the loop stands still."""
    pool = AsyncPool(url, max_size=2)
    loop = asyncio.new_event_loop()
    before = loop.run_until_complete(use(pool))
    fork_and_wait(pool)
    assert before == loop.run_until_complete(use(pool)), "the parent's connections are others"
    assert loop.run_until_complete(opened(pool)) == 2, "the parent had to connect anew"
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.close()


async def opened(pool: AsyncPool[Any]) -> int:
    """Return how many connections were opened."""
    return pool.stats().opened


def main(url: str) -> None:
    """Fork in both ways."""
    logging.getLogger("asyncio").setLevel(logging.ERROR)  # that a callback was slow is no news here
    # Python 3.12 says so of every fork beside threads; that it is right about it is what is tried out.
    warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)
    asyncio.run(fork_inside(url))
    fork_outside(url)


if __name__ == "__main__":
    main(sys.argv[1])
