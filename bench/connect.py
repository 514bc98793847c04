"""What a connect costs: the adapter's, a raw one, and for PyMySQL also its own with its defaults.

    python bench/connect.py [mariadb mysql] [pymysql mysqlclient mysqlconnector]

In turns, medians; the defaults apart from them, because 20 ms of work would leave cold caches to whoever is next.  The
raw connects are as fast as the driver can be told to be: TLS off, or with PyMySQL one context made beforehand.  Of the
other two there is a third line, over a network of 2 ms, where waits are what counts.
"""

from __future__ import annotations

import functools
import importlib
import ssl
import statistics
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import pymysql
from _elsewhere import ProxyElsewhere
from wire import ONE_WAY_S

from millpond.drivers import adapter_named
from millpond.drivers.pymysql import PyMySQLDriver
from millpond.testing import ScratchServer

ROUNDS = 200
SERVERS = ("mariadb", "mysql")
MODULES = {"mysqlclient": "MySQLdb", "mysqlconnector": "mysql.connector"}


def main(names: list[str]) -> None:
    """Print lines for each driver and server, in the clear and under TLS."""
    drivers = [name for name in names if name not in SERVERS] or ["pymysql"]
    print(f"PyMySQL {pymysql.VERSION_STRING}, Python {sys.version.split()[0]}, {ROUNDS} rounds in turns, medians")
    for kind in [name for name in names if name in SERVERS] or SERVERS:
        with ScratchServer(kind, tls=True) as server:  # type: ignore[arg-type]  # from the command line
            for driver in drivers:
                print(f"{server.kind} {server.version}, {driver}")
                if driver == "pymysql":
                    of_pymysql(server)
                else:
                    of_another(server, driver)


def of_pymysql(server: ScratchServer) -> None:
    """Print what PyMySQL's connects cost."""
    plain = server.connect_args(tls=False)
    report("no TLS", plain, plain)
    context = ssl.create_default_context(cafile=server.ca_file)
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    bare = {name: value for name, value in plain.items() if not name.startswith("ssl")}
    report("TLS, verified", server.connect_args(tls=True), bare | {"ssl": context}, default=bare)


def of_another(server: ScratchServer, driver: str) -> None:
    """Print what the connects of another driver cost."""
    given = server.connect_args(tls=True)
    pymysql.connect(**given).close()  # caching_sha2_password: the server remembers whom it has seen under TLS
    bare = {name: given[name] for name in ("host", "user", "password", "database")} | {"autocommit": True}
    plain: dict[str, Any]
    tls: dict[str, Any]
    if driver == "mysqlclient":
        plain, tls = {"ssl_mode": "DISABLED"}, {"ssl_mode": "REQUIRED", "ssl": {"ca": server.ca_file}}
    else:
        plain, tls = {"ssl_disabled": True, "use_pure": True}, {"ssl_ca": server.ca_file, "use_pure": True}
    module = importlib.import_module(MODULES[driver])
    with ProxyElsewhere(server.port, latency=ONE_WAY_S) as proxy:
        ways = (("no TLS", plain, server.port), ("TLS", tls, server.port), ("no TLS, 2 ms", plain, proxy.port))
        for label, options, port in ways:
            arguments = bare | options | {"port": port}
            adapter = adapter_named(driver)(connect_args=dict(arguments))
            by_adapter = opening(adapter)
            ours, raw = in_turns(by_adapter, functools.partial(module.connect, **arguments))
            compare(label, ours, raw)


def opening(adapter: Any) -> Callable[[], Any]:
    """Return what opens a connection; what there is to know of the server is asked before."""
    adapter.open(time.monotonic() + 10).close()
    return lambda: adapter.open(time.monotonic() + 10)


def report(label: str, ours: dict[str, Any], raw: dict[str, Any], default: dict[str, Any] | None = None) -> None:
    """Measure one way to connect, and print its line."""
    driver = PyMySQLDriver(pymysql, connect_args=ours)
    adapter, raw_ones = in_turns(lambda: driver.open(time.monotonic() + 10), lambda: pymysql.connect(**raw))
    others = in_turns(lambda: pymysql.connect(**default)) if default is not None else []
    beside = f"  PyMySQL by default {statistics.median(others[0]) * 1e3:6.2f} ms" if others else ""
    compare(label, adapter, raw_ones, beside)


def compare(label: str, adapter: list[float], raw: list[float], beside: str = "") -> None:
    """Print a line."""
    adapter_s, raw_s = statistics.median(adapter), statistics.median(raw)
    best = statistics.quantiles(adapter, n=10)[0] / statistics.quantiles(raw, n=10)[0]
    ratio = f"ratio {adapter_s / raw_s:4.2f}, of the fastest tenths {best:4.2f}"
    print(f"  {label:14s} adapter {adapter_s * 1e3:5.2f} ms  raw {raw_s * 1e3:5.2f} ms  {ratio}{beside}", flush=True)


def in_turns(*calls: Callable[[], Any]) -> list[list[float]]:
    """Return the times of some ways to connect."""
    settled = threading.Event()
    times: list[list[float]] = [[] for _ in calls]
    for _ in range(ROUNDS):
        for spent, call in zip(times, calls, strict=True):
            begun_at = time.perf_counter()
            conn = call()
            spent.append(time.perf_counter() - begun_at)
            conn.close()
            settled.wait(0.002)  # the server is still busy with the goodbye
    return times


if __name__ == "__main__":
    main(sys.argv[1:])
