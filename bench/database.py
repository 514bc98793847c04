"""What the helper layer costs beside the same statements on the raw driver, on a MariaDB over a local socket.

Four claims: ``select_row`` adds at most 8 % to the driver's own cursor, execute and fetch; a stream of 1,000,000 rows
is within 10 % of the driver's own unbuffered cursor and grows the process by less than 30 MB; ``execute_many`` of
100,000 rows is within 15 % of the driver's ``executemany``, and at least 20 times a loop of committed ``execute``.

The two sides take turns in one process, a few calls at a time; ratios are of the quiet
twentieth of the rounds, and of medians.
"""

from __future__ import annotations

import gc
import resource
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pymysql
from _peers import build
from pymysql.cursors import SSCursor

from millpond import Database
from millpond.testing import ScratchServer

ONE = "SELECT id, name, n FROM people WHERE id = %s"
ALL = "SELECT a.i * 100000 + b.id AS id, b.name, b.n FROM tens a JOIN people b"
INSERT = "INSERT INTO filled (id, name, n) VALUES (%s, %s, %s)"
ROWS = [(n, f"name {n}", n * 3) for n in range(100_000)]
PART = ROWS[::20]


def take_turns(works: list[Callable[[], object]], batch: int, rounds: int) -> list[list[float]]:
    """Return the seconds for one call of each work, as often as there are rounds."""
    seconds: list[list[float]] = [[] for _ in works]
    for _ in range(rounds):
        for work, found in zip(works, seconds, strict=True):
            began_at = time.perf_counter()
            for _ in range(batch):
                work()
            found.append((time.perf_counter() - began_at) / batch)
    return seconds


def quiet(seconds: list[float]) -> float:
    """Return what a twentieth of the rounds stayed below: other work on the machine only ever adds."""
    return min(seconds) if len(seconds) < 40 else statistics.quantiles(seconds, n=20)[0]


def report(name: str, raw: list[float], ours: list[float], claim: str) -> None:
    """Print one comparison."""
    medians = statistics.median(ours) / statistics.median(raw)
    ratio = quiet(ours) / quiet(raw)
    unit, scale = ("us", 1e6) if quiet(raw) < 0.01 else ("s", 1.0)
    times = f"{quiet(raw) * scale:8.2f} {unit}  {quiet(ours) * scale:8.2f} {unit}"
    print(f"{name:14} {times}   x {ratio:.3f} (medians x {medians:.3f})   claim: {claim}", flush=True)


def resident_mb() -> float:
    """Return the memory that the process has now, in MB; where that is not told, the most that it has had."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return pages * resource.getpagesize() / 2**20


class Bench:
    """Both sides on one server."""

    def __init__(self, server: ScratchServer) -> None:
        # By another connection: what was done on one before shows in its times, 2 us for a short read.
        with Database(server.url(socket=True)) as before:
            before.execute("CREATE TABLE people (id INT PRIMARY KEY, name VARCHAR(50), n INT)")
            before.execute("CREATE TABLE filled (id INT PRIMARY KEY, name VARCHAR(50), n INT)")
            before.execute("CREATE TABLE tens (i INT PRIMARY KEY)")
            before.insert_many("tens", ({"i": i} for i in range(10)))
            before.execute_many("INSERT INTO people (id, name, n) VALUES (%s, %s, %s)", ROWS)
        self.conn: Any = pymysql.connect(**server.connect_args(socket=True), autocommit=True)
        self.db = Database(server.url(socket=True))

    # -- one row
    def raw_row(self) -> object:
        """Return a row as a program without us would."""
        cursor = self.conn.cursor()
        cursor.execute(ONE, (7,))
        return cursor.fetchone()

    def our_row(self) -> object:
        """Return the same row."""
        return self.db.select_row(ONE, (7,))

    # -- a million rows
    def raw_stream(self) -> int:
        """Read a million rows as they come."""
        cursor = self.conn.cursor(SSCursor)
        cursor.execute(ALL)
        count = 0
        for _ in cursor:
            count += 1
        cursor.close()
        return count

    def our_stream(self) -> int:
        """Read the same."""
        count = 0
        for _ in self.db.stream(ALL):
            count += 1
        return count

    # -- a hundred thousand rows in
    def raw_many(self) -> None:
        """Fill a table in one transaction, by the driver's own batches."""
        self.conn.begin()
        self.conn.cursor().executemany(INSERT, ROWS)
        self.conn.commit()

    def our_many(self) -> None:
        """Fill it the same."""
        self.db.execute_many(INSERT, ROWS)

    def one_by_one(self) -> None:
        """Fill a part of it row by row, each committed."""
        cursor = self.conn.cursor()
        for row in PART:
            cursor.execute(INSERT, row)

    def empty(self) -> None:
        """Empty the table."""
        self.db.execute("TRUNCATE TABLE filled")

    def filled(self, work: Callable[[], None]) -> float:
        """Return the seconds that *work* takes to fill the empty table."""
        self.empty()
        began_at = time.perf_counter()
        work()
        took_s = time.perf_counter() - began_at
        assert self.db.select_value("SELECT COUNT(*) FROM filled") in (len(ROWS), len(PART))
        return took_s


def main() -> None:
    """Measure all of it; about a minute."""
    quick = "--quick" in sys.argv
    print(build())
    print(f"{'':14} {'raw driver':>11}  {'Database':>11}   ratio of the quiet twentieth")
    # As durable as a server is by default: that is what a COMMIT costs.
    with ScratchServer("mariadb", options={"innodb_flush_log_at_trx_commit": 1}) as server:
        bench = Bench(server)
        assert bench.raw_row() == bench.our_row()
        gc.disable()
        raw, ours = take_turns([bench.raw_row, bench.our_row], batch=25, rounds=200 if quick else 2000)
        gc.enable()
        report("select_row", raw, ours, "at most x 1.08")

        before_mb, most_mb, number = resident_mb(), 0.0, 0
        for number, _ in enumerate(bench.db.stream(ALL), start=1):
            if number % 50_000 == 0:
                most_mb = max(most_mb, resident_mb())
        assert number == len(ROWS) * 10
        raw, ours = take_turns([bench.raw_stream, bench.our_stream], batch=1, rounds=2 if quick else 5)
        report("stream", raw, ours, "at most x 1.10")
        print(f"{'':14} grown by {most_mb - before_mb:.1f} MB over the first 1,000,000 rows   claim: less than 30 MB")

        many: list[list[float]] = [[], [], []]
        for _ in range(2 if quick else 7):
            for work, found in zip((bench.raw_many, bench.our_many, bench.one_by_one), many, strict=True):
                found.append(bench.filled(work))
        report("execute_many", many[0], many[1], "at most x 1.15")
        loop_s = quiet(many[2]) * len(ROWS) / len(PART)
        faster = loop_s / quiet(many[1])
        print(f"{'':14} a loop of committed execute: {loop_s:.1f} s, x {faster:.0f}   claim: at least x 20")
        bench.db.close()
        bench.conn.close()


if __name__ == "__main__":
    main()
