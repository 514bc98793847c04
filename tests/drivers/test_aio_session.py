"""What the adapters of asyncio's MySQL drivers share, without a server."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest

from millpond.drivers._aio_parting import COM_QUIT, Killer
from millpond.drivers._aio_session import AsyncMySQLDriver
from millpond.drivers.aiomysql import AiomysqlDriver
from millpond.drivers.asyncmy import AsyncmyDriver
from tests.aio.doubles import run


class Beside:
    """A side connection that notes what it is told to end, of sessions that have been at work for so many seconds."""

    def __init__(self, busy: dict[int, int]) -> None:
        self.told: list[str] = []
        self.written: list[bytes] = []
        self.link = SimpleNamespace(write=self.written.append, is_closing=lambda: False)
        self._result = SimpleNamespace(rows=[(at, "app", "", "", "Query", s, "", "") for at, s in busy.items()])

    async def query(self, sql: str) -> None:
        """Note an order to end a session."""
        if sql != "SHOW PROCESSLIST":
            self.told.append(sql)

    def close(self) -> None:
        """Do nothing."""


def test_a_side_connection_that_never_comes_keeps_no_later_one_from_its_work() -> None:
    """Whoever hangs in a black hole is given up, and the next statement to be ended brings a new connection."""
    beside = Beside({7: 60, 8: 0})
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
    assert [COM_QUIT] == beside.written, "a side connection that leaves without a goodbye is an aborted client too"


def test_whoever_was_left_with_its_loop_keeps_no_other_from_its_work() -> None:
    """A child that was forked in the middle has a loop of its own, in which the first one's task never goes on."""
    beside = Beside({7: 60, 8: 0})

    begun: list[int] = []

    async def connect() -> Beside:
        begun.append(1)
        if len(begun) == 1:
            await asyncio.get_running_loop().create_future()
        return beside

    killer = Killer(connect)
    left = asyncio.new_event_loop()
    task = left.create_task(killer.kill(7))
    left.run_until_complete(asyncio.sleep(0))
    run(lambda: killer.kill(8))
    assert ["KILL 7", "KILL 8"] == beside.told
    task.cancel()
    left.run_until_complete(asyncio.wait((task,)))
    left.close()


def test_a_number_that_is_used_again_is_nobody_to_be_ended() -> None:
    """One that was started anew, or another, has its own sessions 7 and 8: younger than the order."""
    now = 1000.0
    beside = Beside({7: 3, 8: 0, 9: 70})
    servers: list[Beside] = []

    async def connect() -> Beside:
        if not servers:
            raise ConnectionRefusedError("restarting")
        return servers[0]

    async def main() -> None:
        nonlocal now
        killer = Killer(connect, clock=lambda: now)
        for number in (7, 8, 9):
            with pytest.raises(ConnectionRefusedError):
                await killer.kill(number)
        now += 60.0
        servers.append(beside)
        await killer.kill(10)

    run(main)
    assert ["KILL 9"] == beside.told


@pytest.mark.parametrize("driver", [AsyncmyDriver, AiomysqlDriver])
def test_a_connection_that_listens_hides_nothing_of_the_driver_s(driver: type[AsyncMySQLDriver]) -> None:
    """What the driver offers under a name is not replaced by a helper of ours that happens to have it too."""
    listening = driver.connection_class()
    names: dict[str, set[str]] = {"millpond": set(), driver.name: set()}
    for kind in listening.__mro__[:-1]:
        names[kind.__module__.partition(".")[0]] |= {name for name in vars(kind) if not name.startswith("_")}
    hidden = names["millpond"] & names[driver.name]
    more = {"escape"} if driver is AiomysqlDriver else {"read_packet"}  # aiomysql's own escape() fails at bytes
    assert {"query", "set_charset", "show_warnings"} | more == hidden
