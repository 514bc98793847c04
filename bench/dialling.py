"""The dial rule on real threads: a cold burst, a spike of short queries, a closed loop from one connection.

The exact numbers are asserted on a virtual clock (``tests/core/test_dialrule.py``); here they meet a real scheduler.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from _peers import SQLAlchemyPool, build, dbutils_pool, millpond_pool


def together(count: int, work: Callable[[], None]) -> float:
    """Let so many threads start at once; return how long it took until the last was done."""
    start = threading.Barrier(count + 1)

    def wait_and_work() -> None:
        start.wait()
        work()

    threads = [threading.Thread(target=wait_and_work) for _ in range(count)]
    for thread in threads:
        thread.start()
    start.wait()
    began = time.perf_counter()
    for thread in threads:
        thread.join()
    return time.perf_counter() - began


def cold_burst() -> None:
    """Print how long twenty callers wait who find an empty pool."""
    print("cold burst: 20 callers at once, a dial takes 100 ms; until all hold a connection")
    for name, make in (("millpond", millpond_pool), ("SQLAlchemy", SQLAlchemyPool), ("DBUtils", dbutils_pool)):
        pool: Any = make(20, dial_s=0.1)
        held: list[Any] = []

        def hold(pool: Any = pool, held: list[Any] = held) -> None:
            held.append(pool.connection())

        took = together(20, hold)
        for conn in held:
            conn.close()
        print(f"  {name:11} {took * 1e3:7.0f} ms")


def spike() -> None:
    """Print how long fifty callers take over five connections, and what was opened for them."""
    print("spike: 50 callers at once with queries of 2 ms, 5 connections idle of at most 50, a dial takes 150 ms")
    for name, make in (("millpond", millpond_pool), ("SQLAlchemy", SQLAlchemyPool)):
        pool: Any = make(50, dial_s=0.15)
        warm = [pool.connection() for _ in range(5)]
        for conn in warm:
            conn.close()

        def query(pool: Any = pool) -> None:
            conn = pool.connection()
            time.sleep(0.002)
            conn.close()

        took = together(50, query)
        opened = pool.stats().opened if name == "millpond" else pool.pool.checkedin()
        print(f"  {name:11} {took * 1e3:7.0f} ms, {opened - 5} more connections opened")


def closed_loop() -> None:
    """Print how a pool that starts from one connection grows under a steady load."""
    callers, hold_s, dial_s, seconds = 16, 0.02, 0.06, 6.0
    print(
        f"closed loop: {callers} callers without a pause, holds of {hold_s * 1e3:g} ms, "
        f"dials of {dial_s * 1e3:g} ms, from one connection"
    )
    pool = millpond_pool(callers, dial_s=dial_s)
    pool.connection().close()
    ends = time.monotonic() + seconds
    done: list[float] = []

    def loop() -> None:
        while time.monotonic() < ends:
            with pool.connection():
                time.sleep(hold_s)
            done.append(time.monotonic())

    together(callers, loop)
    possible = callers / hold_s
    began = ends - seconds
    for upto in (12, 50, 100):
        window = [at for at in done if upto - 10 <= (at - began) / dial_s < upto]
        print(f"  {upto:4} dial times: {len(window) / (10 * dial_s) / possible:6.1%} of the possible rate")
    print(f"  connections at the end: {pool.stats().size}")


def main() -> None:
    """Print all three."""
    print(build())
    cold_burst()
    spike()
    closed_loop()


if __name__ == "__main__":
    main()
