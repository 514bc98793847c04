"""What the adapters of asyncio's MySQL drivers share, without a server."""

from __future__ import annotations

import asyncio

import pytest

from millpond.drivers._aio_session import AsyncMySQLDriver, Killer
from millpond.drivers.aiomysql import AiomysqlDriver
from millpond.drivers.asyncmy import AsyncmyDriver
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


@pytest.mark.parametrize("driver", [AsyncmyDriver, AiomysqlDriver])
def test_a_connection_that_listens_hides_nothing_of_the_driver_s(driver: type[AsyncMySQLDriver]) -> None:
    """What the driver offers under a name is not replaced by a helper of ours that happens to have it too."""
    listening = driver.connection_class()
    names: dict[str, set[str]] = {"millpond": set(), driver.name: set()}
    for kind in listening.__mro__[:-1]:
        names[kind.__module__.partition(".")[0]] |= {name for name in vars(kind) if not name.startswith("_")}
    hidden = names["millpond"] & names[driver.name]
    mended = {"escape"} if driver is AiomysqlDriver else set()  # aiomysql's own fails at bytes
    assert {"query", "set_charset", "show_warnings"} | mended == hidden
