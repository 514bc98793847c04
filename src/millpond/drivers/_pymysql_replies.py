"""What PyMySQL's replies tell beyond what PyMySQL reads of them: how they end, what was told before, which are plain.

Rules: nothing is added per row of a result.  Private parts as in ``_pymysql_session.py``.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, ClassVar, Final

from pymysql.connections import MySQLResult

from ._session import MORE_RESULTS

# An OK packet: three bytes of length, its number, 0, two counts (of one byte, or LONG), two of status, two of warnings.
OK: Final = 0
OK_LENGTH_MIN: Final = 11
LONG: Final = 251
ANSWERS_MAX: Final = 128  # that are remembered, at most 8 KiB each; the same commands are answered by the same bytes
DESCRIBED_MAX: Final = 1000  # columns whose descriptions are kept, some 300 bytes each


class Describing:
    """A connection while a result reads what its columns are: to the same bytes there is the same description.

    A statement is seldom sent for the first time, and to take one column's description apart costs more than its value.
    """

    __slots__ = ("_read", "decoders", "encoding", "use_unicode")

    known: ClassVar[dict[tuple[bytes, str], Any]] = {}

    def __init__(self, conn: Any) -> None:
        self._read = conn._read_packet  # noqa: SLF001  see the module's rules
        self.decoders = conn.decoders
        self.encoding = conn.encoding
        self.use_unicode = conn.use_unicode

    def _read_packet(self, kind: Callable[[bytes, str], Any] | None = None) -> Any:
        packet = self._read()
        if kind is None:
            return packet
        key = (packet.get_all_data(), self.encoding)
        found = self.known.get(key)
        if found is None:
            if len(self.known) >= DESCRIBED_MAX:
                self.known.clear()
            found = self.known[key] = kind(*key)
        return found


class ListeningResult(MySQLResult):
    """A result that keeps the status word of its last packet, also where that is an EOF packet."""

    connection: Any
    server_status: int | None
    warning_count: int
    has_next: bool | None
    unbuffered_active: bool = False  # or its finalizer would complain where its beginning was interrupted

    def _get_descriptions(self) -> None:
        conn = self.connection
        self.connection = Describing(conn)
        try:
            super()._get_descriptions()  # type: ignore[misc]  # the stubs know nothing of it
        finally:
            self.connection = conn

    def _check_packet_is_eof(self, packet: Any) -> bool:
        if not packet.is_eof_packet():
            return False
        # All that PyMySQL takes from it, and the status word: a byte that says EOF, two of warnings, two of status.
        data = packet.get_all_data()
        self.warning_count = data[1] | data[2] << 8
        self.server_status = status = data[3] | data[4] << 8
        self.has_next = bool(status & MORE_RESULTS)
        if self.unbuffered_active:
            self.connection.hear(self)
        return True


class OwnResult(ListeningResult):
    """The answer to a command of ours, in text: a caller's converters may make anything of a value, or fail."""

    converters: list[tuple[str | None, Any]]

    def _get_descriptions(self) -> None:
        super()._get_descriptions()
        self.converters = [(encoding, None) for encoding, _ in self.converters]


@functools.lru_cache(ANSWERS_MAX)
def plain_oks(data: bytes, most: int) -> tuple[int, int, int]:
    """Count the whole OK packets at the beginning of *data* that need no second look.

    Args:
        data: what a server has answered.
        most: count no more than these.

    Returns:
        How many there are, how many bytes they have together, and the status word of the last.
    """
    count = at = status = 0
    while count < most and len(data) - at >= OK_LENGTH_MIN:
        end = at + 4 + (data[at] | data[at + 1] << 8 | data[at + 2] << 16)
        told = data[at + 7] | data[at + 8] << 8
        is_only_packet = data[at + 3] == 1 and not told & MORE_RESULTS and at + OK_LENGTH_MIN <= end <= len(data)
        if not is_only_packet or data[at + 4] != OK or data[at + 5] >= LONG or data[at + 6] >= LONG:
            break
        count, at, status = count + 1, end, told
    return count, at, status
