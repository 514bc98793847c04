"""Asynchronous pools on real servers: how they are made, and how a statement is run with either driver."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import pymysql

from millpond import AsyncPool
from millpond.testing import ScratchServer

DRIVERS = ("asyncmy", "aiomysql")


def arguments_of(server: ScratchServer, *, socket: bool = False, **changes: Any) -> dict[str, Any]:
    """Return arguments of ``connect`` for either driver."""
    arguments = server.connect_args(tls=False, socket=socket) | {"autocommit": True} | changes
    arguments.pop("ssl_disabled", None)
    return arguments


def pool_on(server: ScratchServer, driver: str, *, socket: bool = False, **settings: Any) -> AsyncPool[Any]:
    """Return a pool on a server."""
    import importlib

    arguments = arguments_of(server, socket=socket) | settings.pop("connect_args", {})
    return AsyncPool(importlib.import_module(driver), connect_args=arguments, **settings)


async def ask(conn: Any, statement: str, values: tuple[Any, ...] | None = None) -> Any:
    """Run a statement and return its rows; a tuple of tuples with both drivers."""
    async with conn.cursor() as cursor:
        await cursor.execute(statement, values)
        rows = await cursor.fetchall() if cursor.description else ()
        while await cursor.nextset():
            await cursor.fetchall()
        return tuple(tuple(row) for row in rows or ())


async def answer(conn: Any, statement: str) -> Any:
    """Return the rows of a statement, or the number of the error."""
    try:
        return await ask(conn, statement)
    except Exception as error:  # noqa: BLE001  the drivers' errors have one base each, and the number is all that matters
        return error.args[0] if error.args else repr(error)


@contextlib.asynccontextmanager
async def lent(pool: AsyncPool[Any]) -> AsyncIterator[Any]:
    """Lend a connection by a function of the user's own."""
    async with pool.connection() as conn:
        yield conn


def root(server: ScratchServer) -> pymysql.Connection[Any]:
    """Return an administrator's connection."""
    return pymysql.connect(**server.connect_args(user="root", socket=True), autocommit=True)


def sessions(server: ScratchServer) -> list[tuple[int, str, str | None]]:
    """Return the ordinary user's sessions: number, command, statement."""
    with root(server) as conn, conn.cursor() as cursor:
        cursor.execute("SHOW PROCESSLIST")
        return [(row[0], row[4], row[7]) for row in cursor.fetchall() if row[1] == server.user]


Runner = Callable[[Callable[[], Coroutine[Any, Any, Any]]], Any]
