"""Answers that are known by their bytes: plain OK packets, read in one call of the system, and columns seen before."""

from __future__ import annotations

import io
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import pymysql
import pytest
from pymysql.protocol import FieldDescriptorPacket, MysqlPacket

from millpond.drivers._pymysql_replies import DESCRIBED_MAX, Describing, ListeningResult, plain_oks
from millpond.drivers._pymysql_session import Listening
from millpond.drivers._pymysql_wires import straighten
from millpond.drivers.pymysql import PyMySQLDriver
from millpond.testing.fake_server import FakeError, FakeServer
from tests.drivers.lines import WAYS, line_of

AUTOCOMMIT = 0x0002
MORE_RESULTS = 0x0008


def answer(body: bytes, number: int = 1) -> bytes:
    """Return a packet."""
    return len(body).to_bytes(3, "little") + bytes([number]) + body


def ok(status: int = AUTOCOMMIT, more: bytes = b"") -> bytes:
    """Return an OK packet; *more* is what servers tell of the session behind it."""
    return answer(b"\x00\x00\x00" + status.to_bytes(2, "little") + b"\x00\x00" + more)


OK = ok()
TELLING = ok(0x4002, b"\x00\x0f\x01\x04utf8" + b"x" * 300)
ERROR = answer(b"\xff\x15\x04#28000denied")
ROWS = answer(b"\x01") + answer(b"\x03def", 2)


@pytest.mark.parametrize(
    ("data", "most", "expected"),
    [
        (b"", 3, (0, 0, 0)),
        (OK, 3, (1, len(OK), AUTOCOMMIT)),
        (OK + TELLING, 3, (2, len(OK + TELLING), 0x4002)),
        (OK + OK + OK, 2, (2, len(OK + OK), AUTOCOMMIT)),
        (OK + ERROR + OK, 3, (1, len(OK), AUTOCOMMIT)),
        (OK + ROWS, 2, (1, len(OK), AUTOCOMMIT)),
        (OK + ok(MORE_RESULTS), 2, (1, len(OK), AUTOCOMMIT)),
        (OK + answer(b"\x00\xfc\xff\x00\x00\x02\x00\x00\x00"), 2, (1, len(OK), AUTOCOMMIT)),
        (OK + answer(b"\x00\x00\xfc\xff\x00\x02\x00\x00\x00"), 2, (1, len(OK), AUTOCOMMIT)),
        (OK + answer(b"\x00\x00\x00\x02\x00") + OK, 3, (1, len(OK), AUTOCOMMIT)),
        (OK + answer(b"\x00\x00\x00\x02\x00\x00\x00", number=0), 2, (1, len(OK), AUTOCOMMIT)),
    ],
    ids=["nothing", "one", "told more", "no more than asked", "an error", "rows", "more results", "many rows changed",
         "a high id", "a short one", "out of turn"],
)  # fmt: skip
def test_only_what_needs_no_second_look_counts(data: bytes, most: int, expected: tuple[int, int, int]) -> None:
    """Anything that is not a whole, lone, short OK packet ends the count, and so does what follows it."""
    assert expected == plain_oks(data, most)


class Wire:
    """As much of a connection as reading needs, and the server's end of it."""

    def __init__(self, way: str) -> None:
        self.line = line_of(way)
        straighten(self.line.sock)
        self._sock = self.line.sock
        self._sock.settimeout(7.0)
        self._rfile = self._sock.makefile("rb")
        self.server_status = 0

    def take(self, count: int) -> int:
        """Read plain OKs."""
        reads: Callable[[Any, int], int] = Listening.take_oks
        return reads(self, count)

    def rest(self) -> tuple[bytes, float | None]:
        """Return what is left unread when the server has ended it, and how long the socket would wait."""
        self.line.hang_up()
        return self._rfile.read(), self._sock.gettimeout()


@pytest.fixture(params=WAYS)
def wire(request: pytest.FixtureRequest) -> Iterator[Wire]:
    """Return a connection that nothing has come over, in the clear and under TLS."""
    made = Wire(request.param)
    yield made
    made._rfile.close()
    made.line.close()


@pytest.mark.parametrize("cut", range(2 * len(OK)))
def test_wherever_an_answer_is_cut_nothing_is_lost(wire: Wire, cut: int) -> None:
    """What has come in part stays for whoever reads packet by packet."""
    whole = OK + TELLING
    wire.line.send(whole[:cut])
    taken = wire.take(2)
    assert cut // len(OK) == taken
    wire.line.send(whole[cut:])
    assert (whole[len(OK) * taken :], 7.0) == wire.rest()


@pytest.mark.parametrize("cut", [1, 5, -1])
def test_a_record_that_has_come_in_part_is_none_yet(cut: int) -> None:
    """Under TLS the last answer may be on its way; those before it are taken, and nobody waits for it."""
    wire = Wire("tls")
    wire.line.send(OK)
    record = wire.line.sealed(TELLING)
    wire.line.end.sendall(record[:cut])
    taken = [wire.take(2), wire.take(1)]
    wire.line.end.sendall(record[cut:])
    assert ([1, 0], (TELLING, 7.0)) == (taken, wire.rest())
    wire._rfile.close()
    wire.line.close()


def test_what_came_later_is_taken_later(wire: Wire) -> None:
    """Answers may come one by one."""
    wire.line.send(OK)
    first = wire.take(2)
    wire.line.send(TELLING)
    assert (1, 1, 0x4002, (b"", 7.0)) == (first, wire.take(1), wire.server_status, wire.rest())


def test_what_follows_the_last_answer_is_left_with_it(wire: Wire) -> None:
    """If all were taken nothing is in the buffer: so the last one is not, and is read where more is looked for."""
    wire.line.send(OK + OK + ERROR)
    assert (0, (OK + OK + ERROR, 7.0)) == (wire.take(2), wire.rest())


def test_an_end_of_the_link_is_no_answer(wire: Wire) -> None:
    """A server that has gone has answered what it has answered."""
    wire.line.send(OK)
    wire.line.hang_up()
    assert (1, 0) == (wire.take(2), wire.take(1))


def test_a_buffer_is_what_the_driver_reads_from() -> None:
    """The driver's file is the kind of buffer that can be looked into without reading it."""
    with FakeServer() as server:
        driver = PyMySQLDriver(pymysql, connect_args=server.connect_args())
        conn = driver.open(time.monotonic() + 10)
        assert isinstance(conn._rfile, io.BufferedReader)
        driver.close(conn)


@pytest.fixture
def server() -> Iterator[FakeServer]:
    """Return a server that lacks nothing."""
    with FakeServer() as running:
        yield running


def dirtied(server: FakeServer, **settings: Any) -> tuple[PyMySQLDriver, Any]:
    """Return an adapter, and a connection of it whose session has to be reset."""
    arguments = server.connect_args(autocommit=True) | settings
    driver = PyMySQLDriver(pymysql, connect_args=arguments, on_connect="SET @mine = 1")
    conn = driver.open(time.monotonic() + 10)
    with conn.cursor() as cursor:
        cursor.execute("SET @a = 1")
    return driver, conn


def collected(driver: PyMySQLDriver, conn: Any, seconds: float) -> bool | None:
    """Read the answers to a reset."""
    return driver.collect(conn, time.monotonic() + seconds)


def test_answers_that_come_in_two_parts_are_all_waited_for(server: FakeServer) -> None:
    """A part of them is not taken for all of them, nor read twice."""
    gate = threading.Event()
    driver, conn = dirtied(server)
    server.answers["SET @mine = 1"] = lambda: [("",)] if gate.wait(10) else []
    assert driver.send_reset is not None
    sent = driver.send_reset(conn)
    server.wait_for(lambda: server.commands[-1].text == "SET @mine = 1")
    early = collected(driver, conn, 0)
    gate.set()
    assert (None, None, True) == (sent, early, collected(driver, conn, 10))
    driver.close(conn)


@pytest.mark.parametrize(
    ("last", "mark", "expected"),
    [([("rows",)], b"rows", True), (FakeError(1231, "not now"), b"not now", False)],
    ids=["rows", "an error"],
)
def test_an_answer_that_is_not_plain_is_found_in_the_buffer(
    server: FakeServer, last: Any, mark: bytes, expected: bool
) -> None:
    """It has come with the plain ones before it, and no news will tell of it."""
    driver, conn = dirtied(server)
    server.answers["SET @mine = 1"] = last
    assert driver.send_reset is not None
    sent = driver.send_reset(conn)
    conn._sock.settimeout(10)
    deadline = time.monotonic() + 10
    while mark not in conn._sock.recv(65536, socket.MSG_PEEK):
        assert time.monotonic() < deadline
    assert (None, expected) == (sent, collected(driver, conn, 0))
    driver.close(conn)


class Described:
    """What a result asks its connection for when it reads what its columns are."""

    decoders: ClassVar[dict[int, Any]] = {}
    use_unicode = True

    def __init__(self, encoding: str) -> None:
        self.encoding = encoding
        self.told = b""

    def _read_packet(self) -> Any:
        return MysqlPacket(self.told, self.encoding)

    def column(self, name: bytes) -> Any:
        """Have a column described that bears a name."""
        texts = b"".join(bytes([len(text)]) + text for text in (b"def", b"", b"t", b"t", name, name))
        self.told = texts + struct.pack("<BHIBHBxx", 12, 33, 40, 253, 0, 0)
        return Describing(self)._read_packet(FieldDescriptorPacket)


def test_the_same_column_is_taken_apart_once() -> None:
    """To the same bytes there is the same description; in another character set they are other letters."""
    utf8, latin1 = Described("utf8"), Described("latin1")
    first, other = utf8.column(b"\xc3\xa4"), latin1.column(b"\xc3\xa4")
    assert ("\xe4", "\xc3\xa4") == (first.name, other.name)
    assert first is utf8.column(b"\xc3\xa4")
    assert ("b", "c") == (utf8.column(b"b").name, utf8.column(b"c").name)


def test_descriptions_that_are_kept_are_counted() -> None:
    """A program that makes up names of columns without end does not fill the memory."""
    conn = Described("utf8")
    for number in range(2 * DESCRIBED_MAX):
        assert f"c{number}" == conn.column(b"c%d" % number).name
    assert 0 < len(Describing.known) <= DESCRIBED_MAX


def test_a_result_is_described_as_the_driver_does_it(server: FakeServer) -> None:
    """Whether a column was seen before or not, a cursor tells of it what PyMySQL's own tells."""
    plain = pymysql.connect(**server.connect_args(autocommit=True))
    driver = PyMySQLDriver(pymysql, connect_args=server.connect_args(autocommit=True))
    conn = driver.open(time.monotonic() + 10)
    described: list[Any] = []
    for each in (plain, conn, conn):
        with each.cursor() as cursor:
            cursor.execute("SELECT b FROM t")
            described.append((cursor.description, cursor.fetchall()))
    assert described[0] == described[1] == described[2]
    driver.close(conn)
    plain.close()


def test_a_result_whose_beginning_was_interrupted_ends_without_a_word() -> None:
    """Its finalizer asks whether rows are left to be read, and there are none."""
    assert not ListeningResult.__new__(ListeningResult).unbuffered_active
