"""20 threads on 2 connections held for 2 ms, re-acquiring at once: who gets how much, and how much in all.

Budgets: shares within 2 % of each other; at least 97 % of the rate of SQLAlchemy's QueuePool, which lets threads barge.
"""

from __future__ import annotations

import statistics
import threading
import time
from typing import Any

from _peers import SQLAlchemyPool, build, millpond_pool

THREADS, CONNECTIONS, HOLD_S, SECONDS, TURNS = 20, 2, 0.002, 4.0, 3


def shares(pool: Any) -> list[int]:
    """Return how often each thread got a connection."""
    counts = [0] * THREADS
    start = threading.Barrier(THREADS)
    ends: list[float] = []

    def work(index: int) -> None:
        start.wait()
        if not ends:
            ends.append(time.monotonic() + SECONDS)
        while time.monotonic() < ends[0]:
            conn = pool.connection()
            time.sleep(HOLD_S)
            conn.close()
            counts[index] += 1

    threads = [threading.Thread(target=work, args=(index,)) for index in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return counts


def main() -> None:
    """Print rates and shares, a turn at a time."""
    print(
        f"{build()}; {THREADS} threads, {CONNECTIONS} connections, holds of {HOLD_S * 1e3:g} ms, {SECONDS:g} s a turn"
    )
    rates: dict[str, list[float]] = {"millpond": [], "SQLAlchemy": []}
    for _ in range(TURNS):
        for name, pool in (("millpond", millpond_pool(CONNECTIONS)), ("SQLAlchemy", SQLAlchemyPool(CONNECTIONS))):
            counts = shares(pool)
            rates[name].append(sum(counts) / SECONDS)
            spread = (max(counts) - min(counts)) / statistics.mean(counts)
            print(f"{name:11} {rates[name][-1]:7.1f}/s  shares {min(counts)} to {max(counts)}, {spread:7.1%} apart")
    ratio = statistics.median(rates["millpond"]) / statistics.median(rates["SQLAlchemy"])
    print(f"rate of millpond / SQLAlchemy: {ratio:.3f} (budget 0.97)")


if __name__ == "__main__":
    main()
