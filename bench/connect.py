"""What a connect costs: the adapter's, a raw one with the context given, and PyMySQL's own with its defaults.

    python bench/connect.py [mariadb mysql]

In turns, medians; the defaults apart from them, because 20 ms of work would leave cold caches to whoever is next.  The
raw connects are as fast as PyMySQL can be told to be: TLS off, or one context made beforehand.
"""

from __future__ import annotations

import ssl
import statistics
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import pymysql

from millpond.drivers.pymysql import PyMySQLDriver
from millpond.testing import ScratchServer

ROUNDS = 200


def main(kinds: list[str]) -> None:
    """Print a line for each server, in the clear and under TLS."""
    print(f"PyMySQL {pymysql.VERSION_STRING}, Python {sys.version.split()[0]}, {ROUNDS} rounds in turns, medians")
    for kind in kinds or ["mariadb", "mysql"]:
        with ScratchServer(kind, tls=True) as server:  # type: ignore[arg-type]  # from the command line
            plain = server.connect_args(tls=False)
            print(f"{server.kind} {server.version}")
            report("no TLS", plain, plain)
            context = ssl.create_default_context(cafile=server.ca_file)
            context.verify_flags &= ~ssl.VERIFY_X509_STRICT
            bare = {name: value for name, value in plain.items() if not name.startswith("ssl")}
            report("TLS, verified", server.connect_args(tls=True), bare | {"ssl": context}, default=bare)


def report(label: str, ours: dict[str, Any], raw: dict[str, Any], default: dict[str, Any] | None = None) -> None:
    """Measure one way to connect, and print its line."""
    driver = PyMySQLDriver(pymysql, connect_args=ours)

    def by_adapter() -> Any:
        return driver.open(time.monotonic() + 10)

    adapter, raw_ones = in_turns(by_adapter, lambda: pymysql.connect(**raw))
    others = in_turns(lambda: pymysql.connect(**default)) if default is not None else []
    adapter_s, raw_s = statistics.median(adapter), statistics.median(raw_ones)
    beside = f"  PyMySQL by default {statistics.median(others[0]) * 1e3:6.2f} ms" if others else ""
    best = statistics.quantiles(adapter, n=10)[0] / statistics.quantiles(raw_ones, n=10)[0]
    ratio = f"ratio {adapter_s / raw_s:4.2f}, of the fastest tenths {best:4.2f}"
    print(f"  {label:14s} adapter {adapter_s * 1e3:5.2f} ms  raw {raw_s * 1e3:5.2f} ms  {ratio}{beside}")


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
