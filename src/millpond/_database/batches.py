"""Many rows by one statement: how many at a time, and how long a statement may get.

Rules: rows are read as they are needed, so that an iterator of a million is never in memory; a statement stays under
what the server takes.  Where the driver cannot be told how long its statements may be, the rows are measured here.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

from .conversing import Conversation
from .dialects import Dialect

ROWS_MAX: Final = 10_000  # rows of a chunk: enough for statements of the full length, little enough for the memory
OTHER_VALUE_BYTES: Final = 64  # more than any number or date takes
_UPDATE_PART: Final = re.compile(r"\bON\s+DUPLICATE\b.*", re.IGNORECASE | re.DOTALL)


def next_chunk(rows: Iterator[Any]) -> list[Any]:
    """Return the next rows; empty at the end."""
    return list(itertools.islice(rows, ROWS_MAX))


def measured(rows: Sequence[Sequence[Any]], text: str, bytes_max: int) -> Iterator[list[Any]]:
    """Yield rows in lists that make no statement longer than *bytes_max*; a row that is too long is alone."""
    kept: list[Any] = []
    room = bytes_max - len(text)
    size = 0
    for row in rows:
        row_size = len(text) // 2 + sum(size_of(value) for value in row)
        if kept and size + row_size > room:
            yield kept
            kept, size = [], 0
        kept.append(row)
        size += row_size
    if kept:
        yield kept


def size_of(value: Any) -> int:
    """Return the most bytes that a value takes in a statement: each character escaped, or as long as UTF-8 gets."""
    return 4 * len(value) + 3 if isinstance(value, (str, bytes, bytearray)) else OTHER_VALUE_BYTES


def goes_row_by_row(dialect: Dialect, text: str) -> bool:
    """Say whether a driver must not put rows into one statement.

    None of them binds a value behind ``ON DUPLICATE KEY UPDATE``, and not all make one of a doubled percent sign there.
    """
    update = _UPDATE_PART.search(text) if dialect.brand in ("mysql", "mariadb") else None
    return update is not None and "%" in update[0]


def run(dialect: Dialect, conn: Any, text: str, rows: list[Any], bytes_max: int) -> Conversation[int]:
    """Run a statement for each of many rows, and return how many were touched."""
    cursor = yield dialect.cursor(conn)
    count = 0
    if goes_row_by_row(dialect, text):
        for row in rows:
            yield cursor.execute(text, row)
            count += max(cursor.rowcount, 0)
        yield cursor.close()
        return count
    parts: Iterable[list[Any]] = [rows]
    if not dialect.limit_batches(cursor, bytes_max) and dialect.brand in ("mysql", "mariadb"):
        parts = measured(rows, text, bytes_max)
    for part in parts:
        yield cursor.executemany(text, part)
        count += max(cursor.rowcount, 0)
    yield cursor.close()
    return count
