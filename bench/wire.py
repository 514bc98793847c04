"""What a cycle (checkout, one statement, return) costs over a 2 ms network, beside the raw statement over the same one.

    python bench/wire.py [mariadb mysql]

Both are measured in turns through one proxy, which runs in a process of its own.  The first ratio is that of medians,
the second that of the fastest tenths, which says more on a machine that has other things to do.  Packets and waits are
counted by the proxy (commands without TLS only).

With a gap, 4 ms pass between return and checkout, and between two raw statements: each is measured in runs of ten.
Turn by turn the other's turn lies in between, so 10 ms pass, and the raw statement comes 2 ms after the answers to the
cleaning: the way is warm for it.  By that alone two bare connections, one of which sends such commands behind its
statement, differ by 2 to 4 %.
"""

from __future__ import annotations

import statistics
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, TypeAlias

import pymysql
from _elsewhere import ProxyElsewhere

import millpond
from millpond.testing import ScratchServer

ONE_WAY_S = 0.001
GAP_S = 0.004
ROUNDS = 300
READ = "SELECT b FROM t WHERE a = 1"

Pace: TypeAlias = tuple[int, float]  # turns in a run, and seconds before each
BACK_TO_BACK: Pace = (10, 0.0)
GAP: Pace = (10, GAP_S)
TURN_BY_TURN: Pace = (1, GAP_S)

CASES: tuple[tuple[str, dict[str, Any], tuple[str, ...], Pace], ...] = (
    ("autocommit on, clean", {"autocommit": True}, (READ,), BACK_TO_BACK),
    ("autocommit off, no transaction", {"autocommit": False}, ("SELECT 1",), BACK_TO_BACK),
    ("autocommit off, transaction left open, gap", {"autocommit": False}, (READ,), GAP),
    ("autocommit off, transaction left open, turn by turn", {"autocommit": False}, (READ,), TURN_BY_TURN),
    ("autocommit off, transaction left open, back to back", {"autocommit": False}, (READ,), BACK_TO_BACK),
    ("dirty (SELECT @a := 1), gap", {"autocommit": True}, ("SELECT @a := 1",), GAP),
    ("dirty (SELECT @a := 1), turn by turn", {"autocommit": True}, ("SELECT @a := 1",), TURN_BY_TURN),
    ("dirty (SELECT @a := 1), back to back", {"autocommit": True}, ("SELECT @a := 1",), BACK_TO_BACK),
)


def main(kinds: list[str]) -> None:
    """Print a table for each server, in the clear and under TLS."""
    print(f"PyMySQL {pymysql.VERSION_STRING}, Python {sys.version.split()[0]}, {ROUNDS} rounds in turns, medians")
    for kind in kinds or ["mariadb", "mysql"]:
        with ScratchServer(kind, tls=True) as server:  # type: ignore[arg-type]  # from the command line
            prepare(server)
            for tls in (False, True):
                print(f"\n{server.kind} {server.version}, {'TLS' if tls else 'no TLS'}")
                for case in CASES:
                    report(server, tls, *case)


def prepare(server: ScratchServer) -> None:
    """Make a table with one row."""
    with pymysql.connect(**server.connect_args(), autocommit=True) as conn, conn.cursor() as cursor:
        cursor.execute("CREATE TABLE t (a INT PRIMARY KEY, b INT) ENGINE=InnoDB")
        cursor.execute("INSERT INTO t VALUES (1, 1)")


def report(
    server: ScratchServer, tls: bool, label: str, settings: dict[str, Any], statements: tuple[str, ...], pace: Pace
) -> None:
    """Measure one case and print its line."""
    with ProxyElsewhere(server.port) as proxy:
        arguments = server.connect_args(port=proxy.port, tls=tls) | settings
        raw_arguments: dict[str, Any] = arguments | {"autocommit": True}
        raw = pymysql.connect(**raw_arguments)
        with millpond.Pool(pymysql, connect_args=arguments, max_size=1) as pool:

            def cycle() -> None:
                with pool.connection() as conn:
                    for statement in statements:
                        run(conn, statement)

            for _ in range(5):
                cycle()
            proxy.delay(ONE_WAY_S)
            raws, cycles = in_turns(lambda: [run(raw, text) for text in statements], cycle, pace)
            commands, waits = counted(proxy, cycle, tls)
        raw.close()
    shown = "  -  " if commands is None else f"{commands:5.2f}"
    raw_s, cycle_s = statistics.median(raws), statistics.median(cycles)
    best = statistics.quantiles(cycles, n=10)[0] / statistics.quantiles(raws, n=10)[0]
    ratios = f"ratio {cycle_s / raw_s:4.2f}, {best:4.2f}"
    times = f"raw {raw_s * 1e3:5.2f} ms  cycle {cycle_s * 1e3:5.2f} ms"
    print(f"  {label:52s} {times}  {ratios}  commands {shown}  waits {waits:4.2f}")


def run(conn: Any, statement: str) -> Any:
    """Run a statement and read its answer."""
    cursor = conn.cursor()
    cursor.execute(statement)
    rows = cursor.fetchall()
    cursor.close()
    return rows


def in_turns(first: Callable[[], Any], second: Callable[[], Any], pace: Pace) -> tuple[list[float], list[float]]:
    """Return the times of two calls, made in turns; in runs of ten each follows itself."""
    run_length, gap_s = pace
    spent: tuple[list[float], list[float]] = ([], [])
    pause = threading.Event()
    for _ in range(ROUNDS // run_length):
        for times, call in zip(spent, (first, second), strict=True):
            for _ in range(run_length):
                if gap_s:
                    pause.wait(gap_s)
                begun_at = time.perf_counter()
                call()
                times.append(time.perf_counter() - begun_at)
    return spent


def counted(proxy: ProxyElsewhere, cycle: Callable[[], None], tls: bool) -> tuple[float | None, float]:
    """Return commands and waits a cycle, over fifty."""
    pause = threading.Event()
    pause.wait(0.02)
    proxy.reset()
    for _ in range(50):
        cycle()
    pause.wait(0.02)
    commands, waits = proxy.counts(encrypted=tls)
    return (None if tls else commands / 50), waits / 50


if __name__ == "__main__":
    main(sys.argv[1:])
