"""Doubles for the tests of the asyncio shell: a driver that opens plain objects, and a loop whose time jumps.

The driver can be told what each of its operations is to do, and keeps lists of all that was opened and closed.
"""

from __future__ import annotations

import asyncio
import selectors
import sqlite3
import types
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from millpond import AsyncPool
from millpond._core.states import Fault
from millpond.aio import Clockwork
from millpond.drivers.aio import AsyncDriver, Remaining

T = TypeVar("T")


class Stuck(AssertionError):
    """Nothing will ever happen again, and somebody still waits."""


class JumpingSelector(selectors.SelectSelector):
    """A selector that does not sleep: where others would, the time of its loop jumps."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0
        self.idle_rounds = 0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Look for what is ready, and let time pass if nothing is."""
        ready = super().select(0)
        if ready or timeout == 0:
            self.idle_rounds = 0
            return ready
        if timeout is None:
            self.idle_rounds += 1
            if self.idle_rounds > 3:
                raise Stuck("no timer is set and nothing is ready: somebody waits for ever")
            return super().select(0.01)  # another thread may call in
        self.now += timeout
        return ready


class JumpingLoop(asyncio.SelectorEventLoop):
    """An event loop on which an hour takes no time."""

    def __init__(self) -> None:
        self.jumping = JumpingSelector()
        super().__init__(self.jumping)

    def time(self) -> float:
        """Return the time, which has jumped."""
        return self.jumping.now


def run(work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run a test's coroutine on a loop of its own whose time jumps; nothing may be left on it afterwards."""
    loop = JumpingLoop()
    complaints: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _, context: complaints.append(context))
    try:
        asyncio.set_event_loop(loop)
        answer = loop.run_until_complete(work())
        left = asyncio.all_tasks(loop)
        assert not left, f"tasks are left: {left}"
        assert not complaints, complaints
        return answer
    finally:
        asyncio.set_event_loop(None)
        for task in asyncio.all_tasks(loop):
            task.cancel()
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()


class Connection:
    """A connection to nowhere, whose statements wait as long as they say."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.busy = False
        self.broken = False
        self.dirty = False
        self.label = "new"

    async def work(self, *, seconds: float = 1.0, dirties: bool = False) -> int:
        """Run a statement; one that is cut short leaves the connection in the middle of it."""
        assert not self.busy, "two statements at once"
        assert not self.broken, "used after it broke"
        self.busy = True
        self.dirty = self.dirty or dirties
        await asyncio.sleep(seconds)
        self.busy = False
        return self.number

    def __repr__(self) -> str:
        return f"<connection {self.number}>"


class ServerGone(sqlite3.OperationalError):
    """What a connect raises while no server answers."""


class BadPassword(sqlite3.OperationalError):
    """What a connect raises for wrong credentials."""


FAULTS: dict[type[BaseException], Fault] = {ServerGone: Fault.REFUSED, BadPassword: Fault.CREDENTIALS}


class ToldDriver(AsyncDriver[Connection]):
    """A driver that does as it is told; every operation takes a moment.

    Args:
        tells: it can prove a session clean and say whether a command is in flight.
        defers: a reset is sent at return, and its answer read later.
    """

    name = "told"
    module: types.ModuleType | None = sqlite3
    tracks_cursors = False

    def __init__(self, *, tells: bool = True, defers: bool = False) -> None:
        self.opened: list[Connection] = []
        self.closed: list[Connection] = []
        self.farewells = 0
        self.resets = 0
        self.checks = 0
        self.collects = 0
        self.attempts = 0
        self.cuts: list[Connection] = []
        self.failing: BaseException | None = None
        self.dead: set[Connection] = set()
        self.unresettable: set[Connection] = set()
        self.step_s = 0.01
        self.open_s = 0.01
        self.stubborn = False  # a dial that is cancelled goes on and lands
        self.tells = tells
        if tells:
            self.is_clean = self.tell_clean
        if defers:
            self.send_reset = self.send
            self.unread_survives = True

    def tell_clean(self, conn: Connection) -> bool:
        """Say whether anything was left in the session."""
        return not conn.dirty

    async def open(self, until: float) -> Connection:
        """Open the next one, or fail as told."""
        self.attempts += 1
        try:
            await asyncio.sleep(self.open_s)
        except asyncio.CancelledError:
            if not self.stubborn:
                raise
        if self.failing is not None:
            raise type(self.failing)(*self.failing.args)
        conn = Connection(len(self.opened) + 1)
        self.opened.append(conn)
        return conn

    async def is_alive(self, conn: Connection, until: float) -> bool:
        """Ask: one await."""
        self.checks += 1
        conn.busy = True
        await asyncio.sleep(self.step_s)
        conn.busy = False
        return conn not in self.dead

    async def reset(self, conn: Connection, until: float) -> bool:
        """Clean it: two awaits."""
        self.resets += 1
        conn.busy = True
        await asyncio.sleep(self.step_s)
        await asyncio.sleep(self.step_s)
        conn.busy = False
        conn.dirty = False
        return conn not in self.unresettable

    def send(self, conn: Connection) -> None:
        """Send the reset."""
        self.resets += 1
        conn.busy = True

    async def collect(self, conn: Connection, until: float) -> bool | None:
        """Read the answer: one await."""
        self.collects += 1
        await asyncio.sleep(self.step_s)
        conn.busy = conn.dirty = False
        return conn not in self.unresettable

    def close(self, conn: Connection) -> Awaitable[None]:
        """Close it, and leave a farewell to be waited for."""
        assert conn not in self.closed, f"{conn!r} was closed twice"
        self.closed.append(conn)
        return Remaining(self.say_farewell)

    async def say_farewell(self) -> None:
        """Wait for the other end."""
        await asyncio.sleep(self.step_s)
        self.farewells += 1

    def in_flight(self, conn: Connection) -> bool | None:
        """Say whether it was left in the middle of a statement."""
        return conn.busy if self.tells else None

    def cut(self, conn: Connection) -> bool:
        """Note it."""
        self.cuts.append(conn)
        conn.broken = True
        return True

    def classify(self, error: BaseException) -> Fault:
        """Sort by class."""
        return FAULTS.get(type(error), Fault.GONE)

    @property
    def left_open(self) -> set[Connection]:
        """What was opened and not closed."""
        return set(self.opened) - set(self.closed)

    def __repr__(self) -> str:
        return "<told driver>"


def pool_of(driver: ToldDriver, **settings: Any) -> AsyncPool[Connection]:
    """Return a pool on the running loop's time, with lifetimes that are not spread."""
    loop = asyncio.get_running_loop()
    settings.setdefault("max_size", 2)
    return AsyncPool(driver, clockwork=Clockwork(clock=loop.time, jitter=lambda: 0.0), **settings)
