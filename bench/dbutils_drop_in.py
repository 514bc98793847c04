"""The drop-in beside DBUtils 3.2.0 on a real server, with the settings of the RDS page, in one run.

    python bench/dbutils_drop_in.py [mariadb|mysql]

Budgets: at most 1/8 of DBUtils' time per read cycle with ``maxusage=20`` (its reconnects are most of it), at most 0.6
of it with ``maxusage=0`` and autocommit on; through a proxy of 1 ms round trip, 16 threads on 16 connections reach 8
times its rate.

A read cycle is what the page's ``select_row`` does: connection, cursor, execute, fetchone, close, close.  Turns of the
two are run alternately.  The proxy runs in a process of its own.  Besides, what a cycle sends and waits for
is counted.
"""

from __future__ import annotations

import functools
import gc
import statistics
import sys
import threading
import time
import warnings
from collections.abc import Callable
from importlib import metadata
from typing import Any

import dbutils.pooled_db as original  # type: ignore[import-untyped]  # it says nothing of types
import pymysql
from _elsewhere import ProxyElsewhere

from millpond.dbutils import pooled_db as drop_in
from millpond.testing import FaultProxy, ScratchServer

POOLS: dict[str, Callable[..., Any]] = {"DBUtils": original.PooledDB, "drop-in": drop_in.PooledDB}
THREADS = 16
SECONDS = 2.0
ONE_WAY_S = 0.0005


def main(kind: Any = "mariadb") -> None:
    """Measure, print, and compare with the budgets."""
    warnings.simplefilter("ignore")  # the page's settings are warned of, rightly
    with ScratchServer(kind) as server:
        settings = page_settings(server)
        prepare(server)
        print(f"{kind} {server.version}, Python {sys.version.split()[0]}, PyMySQL {metadata.version('PyMySQL')}")
        cycles("maxusage=20", {**settings, "maxusage": 20}, turns=15, pairs=200, budget=1 / 8)
        cycles(
            "maxusage=0, autocommit", {**settings, "maxusage": 0, "autocommit": True}, turns=60, pairs=100, budget=0.6
        )
        with ProxyElsewhere(settings["port"], latency=ONE_WAY_S, counting=False) as proxy:
            crowd({**settings, "port": proxy.port, "maxusage": 0, "autocommit": True}, budget=8.0)
        packets(settings["port"], settings)


def page_settings(server: ScratchServer) -> dict[str, Any]:
    """Return the page's settings for a server without TLS, which the page does not mention."""
    arguments = server.connect_args(tls=False)
    names = {"host": "host", "port": "port", "user": "user", "password": "password", "database": "db"}
    page = {"charset": "utf8", "connect_timeout": 3, "read_timeout": 10, "write_timeout": 10}
    return {**{ours: arguments[name] for name, ours in names.items()}, **page, "maxcached": 20, "maxconnections": 100}


def prepare(server: ScratchServer) -> None:
    """Make the page's table."""
    with pymysql.connect(**server.connect_args(tls=False), autocommit=True) as con, con.cursor() as cursor:
        cursor.execute("CREATE TABLE sell_test (name VARCHAR(64) PRIMARY KEY, price INT)")
        cursor.execute("INSERT INTO sell_test VALUES ('tea', 3), ('rice', 5)")


def select_row(pool: Any, sql: str = "SELECT name, price FROM sell_test WHERE name = 'rice'") -> Any:
    """Read one row as the page does."""
    connection = pool.connection()
    statement = connection.cursor()
    statement.execute(sql)
    row = statement.fetchone()
    statement.close()
    connection.close()
    return row


def cycles(name: str, settings: dict[str, Any], *, turns: int, pairs: int, budget: float) -> None:
    """Time read cycles by turns."""
    pools = {kind: make(pymysql, **settings) for kind, make in POOLS.items()}
    times: dict[str, list[float]] = {kind: [] for kind in pools}
    for pool in pools.values():
        assert select_row(pool) == ("rice", 5)
    for _ in range(turns):
        for kind, pool in pools.items():
            gc.collect()  # what one leaves is not to be cleared away in the time of the other
            times[kind].append(timed(functools.partial(select_row, pool), pairs))
    median = {kind: statistics.median(seconds) for kind, seconds in times.items()}
    # The best tenth is what a machine does that has nothing else to do.
    best = {kind: statistics.quantiles(seconds, n=10)[0] for kind, seconds in times.items()}
    for what, of in (("median", median), ("best tenth", best)):
        share = of["drop-in"] / of["DBUtils"]
        verdict = "met" if share <= budget else "MISSED"
        shown = ", ".join(f"{kind} {seconds * 1e6:.0f} us" for kind, seconds in of.items())
        print(f"read cycle, {name:24} {what:10} {shown}: {share:.3f} of it (budget {budget:.3f}): {verdict}")
    for pool in pools.values():
        pool.close()


def timed(work: Callable[[], object], times: int) -> float:
    """Return the seconds that one call takes."""
    began_at = time.perf_counter()
    for _ in range(times):
        work()
    return (time.perf_counter() - began_at) / times


def crowd(settings: dict[str, Any], *, budget: float) -> None:
    """Count the read cycles of 16 threads on 16 connections."""
    rates: dict[str, list[float]] = {kind: [] for kind in POOLS}
    pools = {kind: make(pymysql, THREADS, **{**settings, "maxcached": THREADS}) for kind, make in POOLS.items()}
    for _ in range(3):
        for kind, pool in pools.items():
            rates[kind].append(rate_of(pool))
    median = {kind: statistics.median(found) for kind, found in rates.items()}
    factor = median["drop-in"] / median["DBUtils"]
    verdict = "met" if factor >= budget else "MISSED"
    shown = ", ".join(f"{kind} {rate:.0f}/s" for kind, rate in median.items())
    print(
        f"{THREADS} threads, {THREADS} connections, 1 ms: {shown}: {factor:.1f} times (budget {budget:.0f}): {verdict}"
    )
    for pool in pools.values():
        pool.close()


def rate_of(pool: Any) -> float:
    """Return the read cycles in a second of many threads."""
    ends_at = time.perf_counter() + SECONDS
    counts = [0] * THREADS

    def work(number: int) -> None:
        while time.perf_counter() < ends_at:
            select_row(pool)
            counts[number] += 1

    threads = [threading.Thread(target=work, args=(number,)) for number in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(counts) / SECONDS


def packets(port: int, settings: dict[str, Any]) -> None:
    """Count what a read cycle sends and waits for: no clock is asked."""
    with FaultProxy(port, counting="mysql") as proxy:
        for autocommit in (True, False):
            told: list[str] = []
            for kind, make in POOLS.items():
                pool = make(pymysql, **{**settings, "port": proxy.port, "autocommit": autocommit, "maxusage": 0})
                for _ in range(2):
                    select_row(pool)
                proxy.reset_counts()
                for _ in range(10):
                    select_row(pool)
                told.append(f"{kind} {len(proxy.commands) / 10:.1f} commands, {proxy.waits / 10:.1f} waits")
                pool.close()
            print(f"a read cycle, autocommit={autocommit!s:5}: {'; '.join(told)}")


if __name__ == "__main__":
    main(*sys.argv[1:])
