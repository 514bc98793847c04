"""20 threads on 2 connections held for 2 ms, re-acquiring at once: who gets how much, and how much in all.

Budgets: shares within 2 % of each other in 4 s; at least 97 % of the rate of SQLAlchemy's QueuePool, which lets threads
barge.  A plain queue, first come first served and nothing else, runs beside them: it says what fairness itself costs,
and what of the rest is ours.

Rates are measured in short turns, in another order each round, and compared within a round: other work on the machine
comes and goes in seconds.
"""

from __future__ import annotations

import _thread
import statistics
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from _peers import NullConnection, SQLAlchemyPool, build, millpond_pool

THREADS, CONNECTIONS, HOLD_S = 20, 2, 0.002
SHARE_S, TURN_S, ROUNDS = 4.0, 0.6, 15


class PlainQueue:
    """The least a fair pool can do: idle connections, and a queue of locks."""

    def __init__(self, size: int) -> None:
        self.lock = _thread.allocate_lock()
        self.idle = [NullConnection() for _ in range(size)]
        self.queue: deque[Waiting] = deque()

    def connection(self) -> Held:
        """Take one, or wait for one."""
        with self.lock:
            if self.idle:
                return Held(self, self.idle.pop())
            waiting = Waiting()
            self.queue.append(waiting)
        waiting.woken.acquire()
        return Held(self, waiting.conn)

    def give(self, conn: Any) -> None:
        """Hand one to the first in the queue."""
        with self.lock:
            if not self.queue:
                self.idle.append(conn)
                return
            waiting = self.queue.popleft()
            waiting.conn = conn
        waiting.woken.release()


class Waiting:
    """A place in the plain queue."""

    def __init__(self) -> None:
        self.conn: Any = None
        self.woken = _thread.allocate_lock()
        self.woken.acquire()


class Held:
    """A connection of the plain queue."""

    def __init__(self, pool: PlainQueue, conn: Any) -> None:
        self.pool = pool
        self.conn = conn

    def close(self) -> None:
        """Give it back."""
        self.pool.give(self.conn)


SUBJECTS: dict[str, Callable[[], Any]] = {
    "millpond": lambda: millpond_pool(CONNECTIONS),
    "SQLAlchemy": lambda: SQLAlchemyPool(CONNECTIONS),
    "plain queue": lambda: PlainQueue(CONNECTIONS),
}


def shares(pool: Any, seconds: float) -> list[int]:
    """Return how often each thread got a connection."""
    counts = [0] * THREADS
    start = threading.Barrier(THREADS)
    ends: list[float] = []

    def work(index: int) -> None:
        start.wait()
        if not ends:
            ends.append(time.monotonic() + seconds)
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
    """Print shares, then rates beside SQLAlchemy's, each compared within its round."""
    print(f"{build()}; {THREADS} threads, {CONNECTIONS} connections, holds of {HOLD_S * 1e3:g} ms")
    for name, make in SUBJECTS.items():
        counts = shares(make(), SHARE_S)
        spread = (max(counts) - min(counts)) / statistics.mean(counts)
        print(f"{name:11}  shares in {SHARE_S:g} s: {min(counts)} to {max(counts)}, {spread:.1%} apart")
    rates: dict[str, list[float]] = {name: [] for name in SUBJECTS}
    names = list(SUBJECTS)
    for turn in range(ROUNDS):
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            rates[name].append(sum(shares(SUBJECTS[name](), TURN_S)) / TURN_S)
    for name, seen in rates.items():
        ratio = statistics.median(rate / peer for rate, peer in zip(seen, rates["SQLAlchemy"], strict=True))
        print(f"{name:11}  {statistics.median(seen):7.1f}/s, {ratio:.3f} of SQLAlchemy's rate")
    print("budget: 0.970")


if __name__ == "__main__":
    main()
