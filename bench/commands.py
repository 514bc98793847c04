"""Count what a borrower's cycle sends and waits for, by every driver that is installed, on MariaDB and MySQL.

    python bench/commands.py [mariadb] [mysql]

Prints the tables of docs/drivers.md.  The proxy that counts is a process of its own, because a C library may hold the
interpreter while it waits.  Counts are those of CYCLES cycles back to back, divided; a wait is a round trip that the
client can have waited for.  Times are medians.
"""

from __future__ import annotations

import asyncio
import importlib.util
import statistics
import sys
import time
from collections.abc import Awaitable, Callable

from _elsewhere import ProxyElsewhere

import millpond
from millpond.testing import ScratchServer

ONE_WAY_S = 0.001
CYCLES = 20
CONNECTS = 15
THREADED = {"pymysql": "pymysql", "mysqlclient": "MySQLdb", "mysqlconnector": "mysql.connector"}
TASKED = {"asyncmy": "asyncmy", "aiomysql": "aiomysql"}
C_VARIANT = "mysqlconnector, use_pure=false"
READ = "SELECT a FROM bench_commands"
WRITE = "UPDATE bench_commands SET a = a + 1"
CASES = {  # what it is: autocommit, statements
    "clean, autocommit on": (True, (READ,)),
    "clean, autocommit off": (False, ("SELECT 1",)),
    "a transaction that only read": (False, (READ,)),
    "a write left open": (False, (WRITE,)),
    "a user variable": (True, ("SET @a = 1",)),
}


def installed() -> list[str]:
    """Return the names of what can be measured here."""
    found = [name for name, module in {**THREADED, **TASKED}.items() if importlib.util.find_spec(module.split(".")[0])]
    if "mysqlconnector" in found and importlib.import_module("mysql.connector").HAVE_CEXT:
        found.insert(found.index("mysqlconnector") + 1, C_VARIANT)
    return found


def url_of(server: ScratchServer, name: str, port: int, *, autocommit: bool, tls: bool) -> str:
    """Return where a pool leads."""
    driver, _, option = name.partition(", ")
    plain = server.url(driver, port=port).partition("?")[0]
    tls_word = "preferred" if name == C_VARIANT else "required"
    options = [
        f"autocommit={str(autocommit).lower()}",
        f"ssl={tls_word if tls else 'disabled'}",
        *([option] if option else []),
    ]
    return f"{plain}?{'&'.join(options)}"


def threaded(url: str, statements: tuple[str, ...], counter: ProxyElsewhere) -> list[float]:
    """Count with a pool for threads."""
    with millpond.Pool(url, max_size=1) as pool:

        def cycle() -> None:
            with pool.connection() as conn:
                cursor = conn.cursor()
                for statement in statements:
                    cursor.execute(statement)
                    if cursor.description is not None:
                        cursor.fetchall()

        for _ in range(2):
            cycle()
        counter.reset()
        for _ in range(CYCLES):
            cycle()
        return [count / CYCLES for count in counter.counts()]


async def tasked(url: str, statements: tuple[str, ...], counter: ProxyElsewhere) -> list[float]:
    """Count with a pool for tasks."""
    async with millpond.AsyncPool(url, max_size=1) as pool:

        async def cycle() -> None:
            async with pool.connection() as conn, conn.cursor() as cursor:
                for statement in statements:
                    await cursor.execute(statement)
                    if cursor.description is not None:
                        await cursor.fetchall()

        for _ in range(2):
            await cycle()
        counter.reset()
        for _ in range(CYCLES):
            await cycle()
        return [count / CYCLES for count in counter.counts()]


def counts_of(server: ScratchServer, name: str) -> list[str]:
    """Return a cell for each case."""
    cells: list[str] = []
    with ProxyElsewhere(server.port, latency=ONE_WAY_S) as counter:
        for autocommit, statements in CASES.values():
            url = url_of(server, name, counter.port, autocommit=autocommit, tls=False)
            if name in TASKED:
                commands, waits = asyncio.run(tasked(url, statements, counter))
            else:
                commands, waits = threaded(url, statements, counter)
            cells.append(f"{commands:.2f} / {waits:.2f}")
    return cells


def connects_of(server: ScratchServer, name: str) -> list[str]:
    """Return what a connect of the driver's own takes, and one of the pool's, in the clear and under TLS."""
    cells: list[str] = []
    for tls in (False, True):
        url = url_of(server, name, server.port, autocommit=True, tls=tls)
        cells.append(milliseconds(lambda url=url: dial(url, name)))
    return cells


def dial(url: str, name: str) -> list[float]:
    """Return how long connects of one pool take, the first left out: it makes what the others share."""
    if name in TASKED:
        return asyncio.run(dial_tasked(url))
    taken: list[float] = []
    with millpond.Pool(url, max_size=1) as pool:
        for _ in range(CONNECTS + 1):
            began_at = time.perf_counter()
            with pool.connection():
                taken.append(time.perf_counter() - began_at)
            pool.drain()
    return taken[1:]


async def dial_tasked(url: str) -> list[float]:
    """Do the same with a pool for tasks."""
    taken: list[float] = []
    async with millpond.AsyncPool(url, max_size=1) as pool:
        for _ in range(CONNECTS + 1):
            began_at = time.perf_counter()
            async with pool.connection():
                taken.append(time.perf_counter() - began_at)
            pool.drain()
    return taken[1:]


def milliseconds(measure: Callable[[], list[float]] | Callable[[], Awaitable[list[float]]]) -> str:
    """Return the median of what is measured."""
    return f"{statistics.median(measure()) * 1000:.1f}"  # type: ignore[arg-type]  # none is awaited


def main(kinds: list[str]) -> None:
    """Print the tables."""
    for kind in kinds:
        with ScratchServer(kind, tls=True) as server:  # type: ignore[arg-type]  # from the command line
            remember_user(server)
            print(
                f"\n{kind} {server.version}: commands / waits of one cycle; connect in ms, in the clear and under TLS\n"
            )
            print(f"| driver | {' | '.join(CASES)} | clear | TLS |")
            print(f"| --- | {' | '.join('---' for _ in (*CASES, 1, 2))} |")
            for name in installed():
                print(f"| {name} | {' | '.join([*counts_of(server, name), *connects_of(server, name)])} |", flush=True)


def remember_user(server: ScratchServer) -> None:
    """Make the table, under TLS: caching_sha2_password then lets some drivers in without, too."""
    import pymysql

    with pymysql.connect(**server.connect_args(), autocommit=True) as conn, conn.cursor() as cursor:
        cursor.execute("CREATE TABLE bench_commands (a INT) ENGINE=InnoDB")
        cursor.execute("INSERT INTO bench_commands VALUES (1)")


if __name__ == "__main__":
    main(sys.argv[1:] or ["mariadb", "mysql"])
