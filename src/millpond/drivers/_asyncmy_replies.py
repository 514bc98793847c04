"""Replies that have arrived whole, taken apart in one step.

Why: asyncmy reads a reply packet by packet, with a coroutine for each, and makes out anew what its columns are although
the same text has had the same ones before.  A row of three columns costs it 2.9 us (4.8 on Python 3.12), in here 0.7
(1.1).

Rules:
- All or nothing: what has not come to its end, an error, a count of rows that were written, several results, warnings,
  anything that is not understood, is left as it lies there, for the driver's own reader.
- What a value becomes is the driver's decision.  Rows are parsed by its own function, and columns are converted as the
  driver has converted those of an earlier reply to the same text; a column may have another name or length than there,
  since both may be made of values, but no other type and no other character set.
- Whoever gives a connection other decoders or another encoding than it was set up with gets the driver's own reader.

It must not wait, and it must not touch a session.
"""

from __future__ import annotations

import operator
import struct
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from ._session import MORE_RESULTS

COUNT: Final = b"\x01\x00\x00\x01"  # the head of a reply's first packet, of one byte: how many columns there are
FIRST: Final = 2  # the number of the packet that follows it
HEAD_SIZE: Final = len(COUNT)
FIRST_SIZE: Final = HEAD_SIZE + 1
END_LENGTH: Final = 11  # of the last packet, and its size without the head
END_SIZE: Final = 7
NOTHING_WRITTEN: Final = b"\xfe\x00\x00"  # its own mark, no rows affected, no number given
SHAPES_MAX: Final = 1000  # remembered, some 500 bytes a column
RENEWED: Final = 8  # so many replies that did not fit what was known are read before that is made anew
MORE_TO_SAY: Final = MORE_RESULTS | 0xFFFF << 16  # in its status word and the number of warnings behind it
end_of: Final = struct.Struct("<I3sI").unpack_from  # its size and number, the mark, these two
head_of: Final = struct.Struct("<I").pack
settings_of: Final = operator.attrgetter("_decoders", "_encoding", "_use_unicode")  # what values become depends on


def parses(protocol: Any, cursor: type[Any]) -> bool:
    """Say whether the driver's parts do what is asked of them here: a later asyncmy may have others."""
    row, rows = b"\x02\x00\x00\x03\x017", list[Any]()
    try:
        told = protocol.parse_rows_from_buffer(bytearray(row), 0, len(row), ((0, None, int),), 3, rows, True)
    except (AttributeError, TypeError):
        return False
    made = callable(getattr(cursor, "_set_cached_rows", None)) and callable(protocol.FieldDescriptorPacket)
    return made and told == (len(row), 4) and rows == [(7,)]


class Column(NamedTuple):
    """What the server has said of one, and what the driver has made of that."""

    packet: bytes
    type_code: int
    charset: int
    description: tuple[Any, ...]


class Shape(NamedTuple):
    """What the columns of the replies to one text are."""

    packets: bytes  # all that comes before the rows
    size: int  # of these
    number: int  # of the packet that follows them
    converters: tuple[Any, ...]
    description: tuple[Any, ...]
    columns: tuple[Column, ...]


class Replies:
    """What is known of one connection's replies.

    Args:
        conn: the connection, set up.
        protocol: the driver's module that takes bytes apart.
        shapes: what is known already, by the texts that were sent; shared by connections that convert values alike.
    """

    __slots__ = ("_column", "_encoding", "_misfits", "_parse", "_settings", "_shapes")

    def __init__(self, conn: Any, protocol: Any, shapes: dict[str, Shape]) -> None:
        self._settings = settings_of(conn)
        self._encoding: str = conn._encoding  # noqa: SLF001  see the adapter's text
        self._parse: Callable[..., tuple[int, int]] = protocol.parse_rows_from_buffer
        self._column: Callable[[bytes, str], Any] = protocol.FieldDescriptorPacket
        self._shapes = shapes
        self._misfits = 0

    def take(self, conn: Any, text: str, cursor: Any) -> int | None:
        """Give the rows of a whole and plain reply to a cursor.

        Returns:
            Its status word; None if the driver has to read it: then nothing was touched.

        Raises:
            Exception: a value could not be converted; the reply was read, as far as the next one is concerned.
        """
        shape = self._shapes.get(text)
        proto = conn._proto  # noqa: SLF001  see the adapter's text
        buffer, at, length = proto.buffer, proto.pos, proto.length
        last = length - END_LENGTH
        if shape is None or last <= at or settings_of(conn) != self._settings:
            return None
        status: int
        size, mark, status = end_of(buffer, last)
        if mark != NOTHING_WRITTEN or status & MORE_TO_SAY:
            return None
        packets, size_of_packets, number, converters, description, columns = shape
        rows: list[Any] = []
        try:
            if buffer.startswith(packets, at):
                at += size_of_packets
            else:
                at, description = self._described(packets, columns, buffer, at, last)
                if not at:
                    return None
            at, number = self._parse(buffer, at, last, converters, number, rows, True)
        except BaseException:
            proto.pos = length  # else the next statement would take it for its own reply: all begin with one number
            raise
        if at != last or size != END_SIZE | number << 24:
            return None
        proto.pos = length
        cursor._set_cached_rows(tuple(rows), description)  # noqa: SLF001  so
        return status

    def learn(self, conn: Any, text: str, result: Any) -> None:
        """Note what the driver has made of the reply to a text that was sent before."""
        if not 0 < result.field_count < 251 or settings_of(conn) != self._settings:
            return
        if text in self._shapes:  # a table may be another one now; or this reply came in pieces, or others never fit
            self._misfits += 1
            if self._misfits % RENEWED:
                return
        columns: list[Column] = []
        for number, field in enumerate(result.fields, FIRST):
            data = field.get_all_data()
            packet = head_of(len(data) | number << 24) + data
            columns.append(Column(packet, field.type_code, field.charsetnr, field.description()))
        packets = b"".join((COUNT, bytes((len(columns),)), *(column.packet for column in columns)))
        if len(self._shapes) >= SHAPES_MAX:
            self._shapes.clear()
        self._shapes[text] = Shape(
            packets,
            len(packets),
            FIRST + len(columns) & 0xFF,
            tuple(result.converters),
            result.description,
            tuple(columns),
        )

    def _described(
        self, packets: bytes, columns: tuple[Column, ...], buffer: bytearray, at: int, last: int
    ) -> tuple[int, tuple[Any, ...]]:
        """Return where the rows begin, and what the columns are; 0 if more of these differs than names and lengths."""
        if not buffer.startswith(packets[:FIRST_SIZE], at):
            return 0, ()
        at += FIRST_SIZE
        description: list[Any] = []
        for number, known in enumerate(columns, FIRST):
            if buffer.startswith(known.packet, at):
                at += len(known.packet)
                description.append(known.description)
                continue
            begin = at + HEAD_SIZE
            at = begin + (buffer[at] | buffer[at + 1] << 8 | buffer[at + 2] << 16)
            if at > last or buffer[begin - 1] != number & 0xFF:
                return 0, ()
            column = self._column(bytes(buffer[begin:at]), self._encoding)
            if column.type_code != known.type_code or column.charsetnr != known.charset:
                return 0, ()
            description.append(column.description())
        return at, tuple(description)
