"""What the adapters of asyncio's MySQL drivers share, without a server."""

from __future__ import annotations

import asyncio

from millpond.drivers._aio_session import Killer
from tests.aio.doubles import run


class Beside:
    """A side connection that notes what it is told."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def thread_id(self) -> int:
        """Return a number that is higher than those of all sessions before."""
        return 100

    async def query(self, sql: str) -> None:
        """Note a statement."""
        self.told.append(sql)

    def close(self) -> None:
        """Do nothing."""


def test_a_side_connection_that_never_comes_keeps_no_later_one_from_its_work() -> None:
    """Whoever hangs in a black hole is given up, and the next statement to be ended brings a new connection."""
    beside = Beside()
    dials = 0

    async def connect() -> Beside:
        nonlocal dials
        dials += 1
        if dials == 1:
            await asyncio.get_running_loop().create_future()
        return beside

    async def main() -> None:
        killer = Killer(connect)
        first = asyncio.get_running_loop().create_task(killer.kill(7))
        await asyncio.wait((first,), timeout=60.0)
        assert isinstance(first.exception(), (TimeoutError, asyncio.TimeoutError))
        await killer.kill(8)

    run(main)
    assert ["KILL 7", "KILL 8"] == beside.told
