"""Latency of a checkout and return at 8 threads over 16 connections: what one caller in a thousand sees."""

from __future__ import annotations

import threading
import time
from typing import Any

from _peers import SQLAlchemyPool, build, dbutils_pool, millpond_pool

THREADS, SECONDS = 8, 2.0


def latencies(pool: Any) -> list[int]:
    """Return how long each pair took, in ns, sorted."""
    seen: list[list[int]] = []

    def work() -> None:
        mine: list[int] = []
        seen.append(mine)
        ends = time.monotonic() + SECONDS
        clock = time.perf_counter_ns
        while time.monotonic() < ends:
            began = clock()
            conn = pool.connection()
            conn.close()
            mine.append(clock() - began)

    threads = [threading.Thread(target=work) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sorted(ns for mine in seen for ns in mine)


def main() -> None:
    """Print rates and percentiles."""
    print(f"{build()}; {THREADS} threads, 16 connections, no work between")
    for name, pool in (
        ("millpond", millpond_pool(16)),
        ("DBUtils", dbutils_pool(16)),
        ("SQLAlchemy", SQLAlchemyPool(16)),
    ):
        seen = latencies(pool)
        at = {share: seen[int(len(seen) * share)] / 1e3 for share in (0.5, 0.99, 0.999)}
        print(
            f"{name:11} {len(seen) / SECONDS:9.0f}/s  "
            + "  ".join(f"p{share * 100:g} {us:.1f} us" for share, us in at.items())
        )


if __name__ == "__main__":
    main()
