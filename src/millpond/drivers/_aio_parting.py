"""How an asynchronous connection is parted with, and what runs for nobody any more is ended on its server.

Why: a server that finds a link broken counts an aborted client, and lets what it was asked run on; DBAs alarm on both.

Rules:
- A goodbye is said without waiting; what is left to be waited for is somebody else's to wait for.  Where an answer is
  still out the link stays open for it, a moment: a server that cannot send it does not get as far as the goodbye.
- A statement that nobody waits for is ended by a side connection, one at a time and outside the pool's size.
- Numbers of sessions are used again, by a server that was started anew or by another one behind the address.  So a
  session is ended only if it has been busy since before its number was noted here.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import time
from collections import deque
from collections.abc import Awaitable, Callable, Generator
from typing import Any, Final

from ._aio_listening import AsyncListening, read_or_error
from ._session import packet

COM_QUIT: Final = packet(0x01)
FAREWELL_S: Final = 0.5
KILL_S: Final = 10.0  # the side connection, and each order to end a statement
KILLS_MAX: Final = 1000  # statements waiting to be ended; more than that is an outage, and they end by themselves
ROUNDED_S: Final = 2.0  # servers tell whole seconds, and may round both ends
IDLE: Final = frozenset({"Sleep", "Killed", "Daemon"})


class Killer:
    """Ends statements that nobody waits for any more, over one side connection that lives while there are any.

    Args:
        connect: opens the side connection.
        clock: seconds.
    """

    def __init__(self, connect: Callable[[], Awaitable[Any]], clock: Callable[[], float] = time.monotonic) -> None:
        self._connect = connect
        self._clock = clock
        self._victims: deque[tuple[int, float]] = deque(maxlen=KILLS_MAX)  # each with when nobody waited any more
        self._works_in: asyncio.AbstractEventLoop | None = None  # a forked child's own is another one

    async def kill(self, thread_id: int) -> None:
        """End a session; best effort, whoever calls second leaves it to the first."""
        self._victims.append((thread_id, self._clock()))
        loop = asyncio.get_running_loop()
        if self._works_in is loop:
            return
        self._works_in = loop
        try:
            conn = await asyncio.wait_for(self._connect(), KILL_S)
            try:
                while self._victims:
                    await self._kill_those_there(conn)
            finally:
                hang_up(conn, getattr(conn, "link", None), runs=False)  # else it would be an aborted client itself
        finally:
            if self._works_in is loop:
                self._works_in = None

    async def _kill_those_there(self, conn: Any) -> None:
        asked_at, count = self._clock(), len(self._victims)
        busy = await asyncio.wait_for(busy_sessions(conn), KILL_S)
        for _ in range(count):
            victim, left_at = self._victims[0]
            if busy.get(victim, -ROUNDED_S) + ROUNDED_S > asked_at - left_at:
                with contextlib.suppress(Exception):  # it has ended meanwhile
                    await asyncio.wait_for(conn.query(f"KILL {victim}"), KILL_S)
            self._victims.popleft()


async def busy_sessions(conn: Any) -> dict[int, float]:
    """Return those that are at work, as far as this user sees them, and for how many seconds they have been."""
    await conn.query("SHOW PROCESSLIST")
    rows: Any = conn._result.rows  # noqa: SLF001  both drivers' name for the last result
    return {int(row[0]): float(row[5] or 0) for row in rows if row[4] not in IDLE}


class Leaving:
    """What is left to be done when a connection was given up: await it, several times if need be, or close it.

    Args:
        link: its transport; None if it was closed before.
        wait_gone: waits until its socket was let go of.
        hears_out: the connection, if it is still open, for an answer to come; closed here.
        kill: ends what runs on the server; None if nothing does.
    """

    __slots__ = ("_hears_out", "_kill", "_link", "_wait_gone")

    def __init__(
        self,
        link: Any,
        wait_gone: Callable[[], Awaitable[None]] | None,
        hears_out: AsyncListening | None,
        kill: Callable[[], Awaitable[None]] | None,
    ) -> None:
        self._link = link
        self._wait_gone = wait_gone
        self._hears_out = hears_out
        self._kill = kill

    def __bool__(self) -> bool:
        return self._link is not None or self._kill is not None

    def __await__(self) -> Generator[Any, Any, None]:
        return self._see_off().__await__()

    def close(self) -> None:
        """Let go of it: nobody will wait."""
        conn, self._hears_out = self._hears_out, None
        if conn is not None:
            close(conn)

    async def _see_off(self) -> None:
        if self._kill is not None:
            with contextlib.suppress(Exception):  # no side connection is to be had: it ends by itself
                await self._kill()
            self._kill = None  # whoever awaits this again, since the first was called away, goes on here
        if self._hears_out is not None:
            try:
                await at_most(functools.partial(heard_out, self._hears_out), FAREWELL_S)
            finally:
                self.close()
        if self._wait_gone is not None:
            gone = False
            try:
                gone = await at_most(self._wait_gone, FAREWELL_S)
            finally:
                if not gone:
                    self._link.abort()


def hang_up(conn: Any, link: Any, *, runs: bool, hears_out: bool = False) -> None:
    """Say goodbye, unless the server is busy with what was sent before, and close, unless an answer is to come."""
    if link is not None and not runs and not link.is_closing():
        with contextlib.suppress(Exception):
            link.write(COM_QUIT)
    if not hears_out:
        close(conn)


def close(conn: Any) -> None:
    """Close a connection here."""
    with contextlib.suppress(RuntimeError):  # the loop is closed
        conn.close()


async def heard_out(conn: Any) -> None:
    """Wait until the server has answered what it was sent, and has closed the link."""
    for _ in range(conn._millpond.answers):  # noqa: SLF001  our own
        await read_or_error(conn)
    await conn.await_news()


async def at_most(begin: Callable[[], Awaitable[None]], seconds: float) -> bool:
    """Wait so long for something; what goes wrong in it is no news.  Say whether it has come to an end."""
    work = asyncio.ensure_future(quietly(begin))
    try:
        await asyncio.wait((work,), timeout=seconds)
    finally:
        work.cancel()
    return work.done()


async def quietly(begin: Callable[[], Awaitable[None]]) -> None:
    """Wait for something of a link that is being given up; that it was broken before is no news."""
    with contextlib.suppress(Exception):
        await begin()
