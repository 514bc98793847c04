"""Replies taken apart in one step: what comes of them is what asyncmy's own reader makes, or they are left to it."""

from __future__ import annotations

import asyncio
import datetime as dt
import importlib
import re
import struct
import types
from collections.abc import Coroutine, Iterable
from typing import Any

import pytest

from millpond.drivers._asyncmy_replies import RENEWED, SHAPES_MAX, Replies, parses

driver: Any = importlib.import_module("asyncmy.connection")
protocol: Any = importlib.import_module("asyncmy.protocol")
INT, TEXT, DATE = (3, 63), (253, 45), (10, 63)  # type and character set
TEXT_ASKED = "SELECT a, b, c FROM t WHERE a = %s"
AUTOCOMMIT, MORE_RESULTS = 0x0002, 0x0008

Told = tuple[Any, ...]


def packets(payloads: Iterable[bytes]) -> bytes:
    """Return packets with their heads, numbered as those of a reply are."""
    return b"".join(
        struct.pack("<I", len(payload) | (number & 0xFF) << 24) + payload for number, payload in enumerate(payloads, 1)
    )


def text(value: str) -> bytes:
    """Return a short text behind its length."""
    data = value.encode()
    return bytes((len(data),)) + data


def column(name: str, kind: tuple[int, int], length: int = 11) -> bytes:
    """Return what a server says of a column."""
    names = b"".join(map(text, ("def", "shop", "t", "t", name, name)))
    return names + struct.pack("<BHIBHBH", 12, kind[1], length, kind[0], 0, 0, 0)


def end(status: int = AUTOCOMMIT, warnings: int = 0) -> bytes:
    """Return the last packet of rows."""
    return struct.pack("<BBBHH", 0xFE, 0, 0, status, warnings)


def reply(rows: Iterable[tuple[str, str, str]], name: str = "a", last: bytes | None = None) -> bytes:
    """Return a reply of three columns."""
    described = (column(name, INT), column("b", TEXT), column("c", DATE))
    return packets((b"\x03", *described, *(b"".join(map(text, row)) for row in rows), last or end()))


ROWS = [("7", "seven", "2026-11-25"), ("-1", "", "1970-01-01")]
PLAIN = reply(ROWS)


class Line:
    """One of asyncmy's connections that leads nowhere: what it has received is set by hand."""

    def __init__(self, **settings: Any) -> None:
        self.conn = driver.Connection(user="nobody", **settings)
        self.conn._proto = driver._MySQLProtocol(asyncio.get_running_loop())
        self.conn._deprecate_eof = True
        self.replies = Replies(self.conn, protocol, {})

    def receive(self, data: bytes, before: bytes = b"") -> None:
        """Have received that, behind something that was read."""
        proto = self.conn._proto
        proto.buffer[: len(before + data)] = before + data
        proto.pos, proto.length = len(before), len(before + data)
        self.conn._next_seq_id = 1

    def read(self, data: bytes) -> Any:
        """Return what the driver makes of it."""
        self.receive(data)
        result = driver.MySQLResult(self.conn)
        at_once(result.read())
        return result

    def learn(self, data: bytes = PLAIN, asked: str = TEXT_ASKED) -> None:
        """Let the driver read a reply, and note what it makes of that."""
        self.replies.learn(self.conn, asked, self.read(data))

    def take(self, data: bytes, asked: str = TEXT_ASKED, before: bytes = b"") -> Told | None:
        """Take a reply in one step, and return what was told; None if it was left to the driver, untouched."""
        self.receive(data, before)
        cursor = driver.Cursor(self.conn)
        status = self.replies.take(self.conn, asked, cursor)
        proto = self.conn._proto
        if status is None:
            assert (len(before), None) == (proto.pos, cursor._rows)
            return None
        assert proto.length == proto.pos
        return status, cursor._rows, cursor.description, cursor.rowcount

    def by_driver(self, data: bytes) -> Told | None:
        """Return what the driver makes of it in the same form; None if it fails, wants more, or leaves some unread."""
        try:
            result = self.read(data)
        except Exception:  # noqa: BLE001  whatever it is
            return None
        proto = self.conn._proto
        if result.warning_count or result.has_next or result.rows is None or proto.length > proto.pos:
            return None
        return result.server_status, result.rows, result.description, result.affected_rows


def at_once(work: Coroutine[Any, Any, Any]) -> None:
    """Run what need not wait.

    Raises:
        EOFError: it has to.
    """
    try:
        work.send(None)
    except StopIteration:
        return
    work.close()
    raise EOFError


def on_loop(check: Any) -> None:
    """Run a check where there is a loop."""

    async def main() -> None:
        check()

    asyncio.run(main())


def test_a_reply_to_a_known_text_is_told_as_the_driver_tells_it() -> None:
    """The rows, their types, their count, and what the columns are."""

    def check() -> None:
        line = Line()
        line.learn()
        expected = (
            AUTOCOMMIT,
            ((7, "seven", dt.date(2026, 11, 25)), (-1, "", dt.date(1970, 1, 1))),
            (("a", 3, None, 11, 11, 0, True), ("b", 253, None, 11, 11, 0, True), ("c", 10, None, 11, 11, 0, True)),
            2,
        )
        assert expected == line.take(PLAIN, before=b"what was read")
        assert expected == line.by_driver(PLAIN)

    on_loop(check)


@pytest.mark.parametrize("count", [0, 1, 250, 251, 252, 253, 600])
def test_packets_are_counted_beyond_a_byte(count: int) -> None:
    """Their numbers begin anew after 255."""

    def check() -> None:
        line = Line()
        line.learn()
        data = reply(ROWS[:1] * count)
        assert line.by_driver(data) == line.take(data)

    on_loop(check)


def test_names_that_are_made_of_values_may_differ() -> None:
    """As those of ``SELECT 1, 2`` do; types may not, for columns of other types are converted otherwise."""

    def check() -> None:
        line = Line()
        line.learn()
        renamed = reply(ROWS, "something else")
        told = line.take(renamed)
        assert told is not None
        assert line.by_driver(renamed) == told
        others = (column("a", TEXT), column("b", TEXT), column("c", DATE))
        assert line.take(packets((b"\x03", *others, text("7") * 3, end()))) is None
        assert line.take(packets((b"\x03", *others, end()))) is None
        assert line.take(packets((b"\x02", *others[:2], text("7") * 2, end()))) is None

    on_loop(check)


def test_what_is_not_whole_is_left_as_it_is() -> None:
    """Wherever it breaks off, and if more follows."""

    def check() -> None:
        line = Line()
        line.learn()
        for length in range(len(PLAIN)):
            assert line.take(PLAIN[:length], before=PLAIN) is None
        assert line.take(PLAIN + b"\x00") is None
        assert line.take(PLAIN + PLAIN) is None

    on_loop(check)


@pytest.mark.parametrize("renamed", [False, True])
def test_whatever_a_byte_is_changed_to_nothing_is_made_up(*, renamed: bool) -> None:
    """Each byte of a reply in turn: it is told as the driver tells it, or left to the driver."""

    def check() -> None:
        line = Line()
        line.learn()
        whole = reply(ROWS[:1], "b" if renamed else "a")
        taken = 0
        # Not the lengths of the columns' names: the driver reads wherever they lead, which may be beyond its memory.
        at_names = {
            place
            for found in re.finditer(rb"\x03def\x04shop\x01t\x01t\x01.\x01.\x0c", whole)
            for place in range(*found.span())
        }
        for place in set(range(len(whole))) - at_names:
            for flipped in (0x01, 0x80, 0xFF):
                data = bytearray(whole)
                data[place] ^= flipped
                try:
                    told = line.take(bytes(data))
                except Exception:  # noqa: BLE001  what the driver's own parts raise, its reader raises as well
                    assert line.by_driver(bytes(data)) is None
                    continue
                if told is not None:
                    taken += 1
                    assert line.by_driver(bytes(data)) == told, (place, flipped)
        assert taken > 20

    on_loop(check)


LEFT: dict[str, bytes] = {
    "a count of rows written": packets((struct.pack("<BBBHH", 0, 1, 0, AUTOCOMMIT, 0),)),
    "an error": packets((b"\xff\x28\x04#42000no",)),
    "an error after some rows": packets((b"\x03", *(column("a", INT),) * 3, b"\xff\x28\x04#42000no")),
    "a request for a file": packets((b"\xfb",)),
    "warnings": reply(ROWS, last=end(warnings=1)),
    "more results": reply(ROWS, last=end(AUTOCOMMIT | MORE_RESULTS)),
    "a changed state": reply(ROWS, last=end() + b"\x00\x03\x02\x01x"),
    "nothing": b"",
}


@pytest.mark.parametrize("kind", LEFT)
def test_what_is_more_than_rows_is_left_to_the_driver(kind: str) -> None:
    """All of it."""

    def check() -> None:
        line = Line()
        line.learn()
        assert line.take(LEFT[kind]) is None

    on_loop(check)


def test_a_text_that_is_not_known_is_left_to_the_driver() -> None:
    """So is one whose reply had no columns."""

    def check() -> None:
        line = Line()
        assert line.take(PLAIN) is None
        line.learn(LEFT["a count of rows written"])
        assert line.take(PLAIN) is None

    on_loop(check)


@pytest.mark.parametrize("setting", ["_decoders", "_encoding", "_use_unicode"])
def test_whoever_converts_otherwise_is_left_to_the_driver(setting: str) -> None:
    """What is known was made by other rules; nothing is learned by theirs either."""
    others = {"_decoders": {}, "_encoding": "latin1", "_use_unicode": False}

    def check() -> None:
        line = Line()
        line.learn()
        usual = getattr(line.conn, setting)
        setattr(line.conn, setting, others[setting])
        assert line.take(PLAIN) is None
        line.learn(asked="SELECT 2")
        setattr(line.conn, setting, usual)
        assert line.take(PLAIN, asked="SELECT 2") is None
        assert line.take(PLAIN) is not None

    on_loop(check)


def test_converters_of_the_users_own_are_the_drivers_matter() -> None:
    """They are called as the driver calls them."""

    def check() -> None:
        line = Line(conv={3: lambda value: f"int {value}"})
        line.learn()
        told = line.take(PLAIN)
        assert told is not None
        assert line.by_driver(PLAIN) == told
        assert "int" in told[1][0][0]

    on_loop(check)


@pytest.mark.parametrize("failing", ["value", "name"])
def test_a_reply_that_could_not_be_converted_is_not_the_next_one_s(failing: str) -> None:
    """All replies begin with the same number, so what was left of one would be read as the answer to any other."""

    def convert(value: str) -> int:
        if value == "13":
            raise ValueError(value)
        return int(value)

    def check() -> None:
        line = Line(conv={3: convert})
        line.learn()
        data = reply([("13", "", "")]) if failing == "value" else PLAIN.replace(b"\x01a\x01a", b"\x01\xff\x01\xff")
        with pytest.raises(ValueError, match="13" if failing == "value" else "decode"):
            line.take(data)
        proto = line.conn._proto
        assert proto.length == proto.pos

    on_loop(check)


def test_only_so_many_texts_are_remembered() -> None:
    """A program that makes texts without end must not fill the memory."""

    def check() -> None:
        line = Line()
        texts = [f"SELECT a FROM t{number}" for number in range(SHAPES_MAX + 1)]
        for asked in texts:
            line.learn(asked=asked)
        known = sum(line.take(PLAIN, asked=asked) is not None for asked in texts)
        assert 1 <= known <= SHAPES_MAX

    on_loop(check)


def test_what_does_not_fit_any_more_is_made_anew() -> None:
    """A column was given another type; after some replies that is what is known."""
    altered = packets((b"\x01", column("a", TEXT), text("seven"), end()))

    def check() -> None:
        line = Line()
        line.learn(packets((b"\x01", column("a", INT), text("7"), end())))
        for _ in range(RENEWED):
            assert line.take(altered) is None
            line.learn(altered)
        told = line.take(altered)
        assert told is not None
        assert (("seven",),) == told[1]

    on_loop(check)


class Other:
    """A module of a version whose parser is called in another way."""

    FieldDescriptorPacket = protocol.FieldDescriptorPacket

    @staticmethod
    def parse_rows_from_buffer(buffer: bytearray) -> tuple[int, int]:
        """Parse something."""
        return len(buffer), 1


def test_an_asyncmy_that_parses_in_another_way_reads_for_itself() -> None:
    """That is tried before anything is taken apart."""
    assert parses(protocol, driver.Cursor)
    assert not parses(Other, driver.Cursor)
    assert not parses(types.SimpleNamespace(), driver.Cursor)
    assert not parses(protocol, object)
