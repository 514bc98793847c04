"""Draw ``docs/images/shares.svg``: who holds a connection when, in a ``LifoQueue`` and in millpond, measured just now.

``python -m tools.picture [FILE]``. Twenty threads share two connections; each holds one for 2 ms, then asks again.
Every bar is a hold that happened in this run; nothing is drawn by hand. Threads are in the order of their first turn in
the time that is drawn. All colours are read as well on white as on black (the text 4.6 and 4.1 to 1).
"""

from __future__ import annotations

import platform
import queue
import sqlite3
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import millpond

THREADS = 20
CONNECTIONS = 2
HOLD_S = 0.002
RUN_S = 3.0
WINDOW_S = 0.09  # how much of the run is drawn, from its middle

ROW, PANEL_WIDTH, GAP, LEFT, TOP = 13, 380, 44, 34, 66
COLOURS = ("#1f9e89", "#e08a1e")
FONT = "system-ui, -apple-system, Segoe UI, Helvetica, Arial, sans-serif"
STYLE = """
text { fill: #6e7781 }
.title { font-size: 16px; font-weight: 600 }
line { stroke: #8c959f; stroke-opacity: .35 }
"""
TARGET = Path(__file__).resolve().parent.parent / "docs" / "images" / "shares.svg"

Lend = Callable[[], AbstractContextManager[Any]]


@dataclass(frozen=True)
class Hold:
    """Who held which connection from when to when, in seconds of the run."""

    thread: int
    connection: int
    began: float
    ended: float


def measure(lend: Lend) -> list[Hold]:
    """Let the threads compete for a while and note every hold."""
    holds: list[Hold] = []
    numbers: dict[int, int] = {}
    start, over = threading.Event(), threading.Event()
    began_at = time.perf_counter()

    def compete(thread: int) -> None:
        start.wait()
        while not over.is_set():
            with lend() as connection:
                began = time.perf_counter() - began_at
                connection.execute("SELECT 1").fetchall()
                time.sleep(HOLD_S)
                raw = getattr(connection, "driver_connection", connection)
                number = numbers.setdefault(id(raw), len(numbers))
                holds.append(Hold(thread, number, began, time.perf_counter() - began_at))

    threads = [threading.Thread(target=compete, args=(number,)) for number in range(THREADS)]
    for thread in threads:
        thread.start()
    start.set()
    over.wait(RUN_S)
    over.set()
    for thread in threads:
        thread.join()
    return holds


def measure_queue(database: Path) -> list[Hold]:
    """Measure connections in a ``LifoQueue``, as home-made pools have them."""
    idle: queue.LifoQueue[sqlite3.Connection] = queue.LifoQueue()
    opened = [sqlite3.connect(database, check_same_thread=False) for _ in range(CONNECTIONS)]
    for connection in opened:
        idle.put(connection)

    @contextmanager
    def lend() -> Generator[sqlite3.Connection, None, None]:
        connection = idle.get()
        try:
            yield connection
        finally:
            idle.put(connection)

    try:
        return measure(lend)
    finally:
        for connection in opened:
            connection.close()


def measure_pool(database: Path) -> list[Hold]:
    """Measure millpond."""
    pool: millpond.Pool[sqlite3.Connection] = millpond.Pool(f"sqlite:///{database}", max_size=CONNECTIONS)
    with pool:
        return measure(pool.connection)


def panel(left: int, title: str, holds: list[Hold]) -> Iterator[str]:
    """Draw one panel: a row a thread, a bar a hold."""
    turns = [sum(hold.thread == thread for hold in holds) for thread in range(THREADS)]
    from_s = RUN_S / 2
    scale = PANEL_WIDTH / WINDOW_S
    yield f'<text class="title" x="{left}" y="34">{title}</text>'
    told = f"turns in {RUN_S:.0f} s: {min(turns)} to {max(turns)} each, {sum(turns)} in all"
    yield f'<text x="{left}" y="53">{told}</text>'
    seen = [hold for hold in sorted(holds, key=lambda hold: hold.began) if 0 <= hold.began - from_s < WINDOW_S]
    first = {hold.thread: hold.began for hold in reversed(seen)}
    rows = {thread: row for row, thread in enumerate(sorted(range(THREADS), key=lambda t: first.get(t, RUN_S)))}
    for row in range(THREADS):
        y = TOP + row * ROW + ROW / 2
        yield f'<line x1="{left}" x2="{left + PANEL_WIDTH}" y1="{y}" y2="{y}"/>'
    for hold in holds:
        began, ended = max(hold.began - from_s, 0.0), min(hold.ended - from_s, WINDOW_S)
        if began < ended:
            place = f'x="{left + began * scale:.1f}" y="{TOP + rows[hold.thread] * ROW + 1.5}"'
            size = f'width="{max((ended - began) * scale - 0.6, 0.5):.1f}" height="{ROW - 3}"'
            yield f'<rect {place} {size} fill="{COLOURS[hold.connection % len(COLOURS)]}"/>'


def draw(plain: list[Hold], pooled: list[Hold]) -> str:
    """Return the picture."""
    width, bottom = LEFT + 2 * PANEL_WIDTH + GAP + 12, TOP + THREADS * ROW
    told = (
        f"{WINDOW_S * 1000:.0f} ms of each run. A bar: this thread holds one of the two connections, for about "
        f"{HOLD_S * 1000:.0f} ms, and then asks again. A line: it waits."
    )
    box = f'viewBox="0 0 {width} {bottom + 40}" font-family="{FONT}" font-size="12.5"'
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" {box}>',
        "<title>Twenty threads on two connections: a LifoQueue starves most, millpond serves all alike</title>",
        f"<desc>Measured by tools/picture.py on CPython {platform.python_version()}.</desc>",
        f"<style>{STYLE}</style>",
        *panel(LEFT, "A queue.LifoQueue of connections", plain),
        *panel(LEFT + PANEL_WIDTH + GAP, "millpond", pooled),
        f'<g transform="translate(20 {(TOP + bottom) / 2}) rotate(-90)">',
        f'<text text-anchor="middle">{THREADS} threads</text></g>',
        f'<text x="{LEFT}" y="{bottom + 24}">{told}</text>',
        "</svg>",
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure both, and write the picture."""
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else TARGET
    with tempfile.TemporaryDirectory() as folder:
        database = Path(folder) / "picture.db"
        plain, pooled = measure_queue(database), measure_pool(database)
    target.write_text(draw(plain, pooled), encoding="utf-8")
    print(f"{target}: {len(plain)} holds of the queue, {len(pooled)} of the pool")


if __name__ == "__main__":
    main()
