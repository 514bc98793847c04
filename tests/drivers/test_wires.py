"""Sockets that are read from without detours: they say what any socket says, in fewer steps."""

from __future__ import annotations

import select
import socket
import ssl
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from millpond.drivers._pymysql_wires import StraightSocket, StraightTls, straighten
from tests.drivers.lines import WAYS, Line, line_of

NOT_YET = (BlockingIOError, ssl.SSLWantReadError)


@pytest.fixture(params=WAYS)
def line(request: pytest.FixtureRequest) -> Iterator[Line]:
    """Return a line whose client's end was straightened, in the clear and under TLS."""
    made = line_of(request.param)
    straighten(made.sock)
    made.sock.settimeout(10)
    yield made
    made.close()


def test_what_was_said_is_read_in_order(line: Line) -> None:
    """In whatever pieces it came, and whatever pieces are asked for; more than a buffer too."""
    with line.sock.makefile("rb") as file:
        for text in (b"one", b"two", b"x" * 15000):
            line.send(text)
        line.hang_up()
        assert (b"on", b"etw", b"o" + b"x" * 15000) == (file.read(2), file.read(3), file.read())


def test_nothing_yet_is_told_from_the_end(line: Line) -> None:
    """Without waiting: the one is an error of its kind, the other is no bytes, again and again."""
    with line.sock.makefile("rb") as file:
        line.sock.settimeout(0)
        with pytest.raises(NOT_YET):
            file.peek(1)
        line.hang_up()
        line.sock.settimeout(10)
        assert (b"", b"", b"") == (file.peek(1), file.read(1), file.read(1))


def test_a_record_that_has_come_in_part_is_not_lost() -> None:
    """It is nothing yet to who does not wait, and read when the rest has come."""
    line = line_of("tls")
    straighten(line.sock)
    record = line.sealed(b"answer")
    with line.sock.makefile("rb") as file:
        line.sock.settimeout(0)
        for byte in (record[:3], record[3:-1]):
            line.end.sendall(byte)
            select.select([line.sock], [], [], 10)
            with pytest.raises(NOT_YET):
                file.peek(1)
        line.end.sendall(record[-1:])
        line.sock.settimeout(10)
        assert b"answer" == file.read(6)
    line.close()


def test_a_wait_ends_at_the_time_out_of_the_socket(line: Line) -> None:
    """With the error that a driver takes for a lost connection."""
    with line.sock.makefile("rb") as file:
        line.sock.settimeout(0.01)
        with pytest.raises(TimeoutError):
            file.read(1)


def test_a_link_that_was_reset_has_ended(line: Line) -> None:
    """It is an error, or, as some versions of OpenSSL tell it, an end: drivers take both for a lost connection."""
    with line.sock.makefile("rb") as file:
        line.reset()
        try:
            said = file.read(1)
        except ConnectionResetError:
            said = b""
        assert b"" == said


def test_a_file_keeps_the_descriptor_of_a_socket_that_is_closed(line: Line) -> None:
    """Whoever still reads would read on the next connection, which is given the same number."""
    file = line.sock.makefile("rb")
    number = line.sock.fileno()
    line.send(b"answer")
    line.sock.close()
    assert number == line.sock.fileno()
    assert b"answer" == file.read(6)
    file.close()
    assert -1 == line.sock.fileno()


def test_reading_enters_no_frames_of_a_file(line: Line) -> None:
    """In the clear it is C from end to end; under TLS there is what any read under TLS enters."""
    entered: list[str] = []

    def profile(frame: Any, event: str, arg: Any) -> None:
        if event == "call":
            entered.append(frame.f_code.co_filename.rpartition("/")[2])

    with line.sock.makefile("rb") as file:
        line.send(b"answer")
        sys.setprofile(profile)
        try:
            read = file.read(6)
        finally:
            sys.setprofile(None)
    expected = {"ssl.py"} if isinstance(line.sock, ssl.SSLSocket) else set()
    assert (b"answer", expected) == (read, set(entered))
    assert 4 >= len(entered)


def test_other_files_of_it_are_python_s_own(line: Line) -> None:
    """Text, writing and unbuffered reading are none of ours."""
    with line.sock.makefile("r") as text, line.sock.makefile("rb", 0) as raw, line.sock.makefile("wb") as written:
        ends: list[Any] = [text.buffer, raw, written]
        assert not any("readinto" in getattr(each, "raw", each).__dict__ for each in ends)


def test_sockets_of_other_classes_stay_as_they_are() -> None:
    """Whoever brings a class of sockets knows how it is to be read."""

    class Socket(socket.socket):
        """A caller's own."""

    with Socket() as own, socket.socket() as plain:
        straighten(own)
        straighten(plain)
        assert (Socket, StraightSocket) == (type(own), type(plain))
    assert issubclass(StraightTls, ssl.SSLSocket)
