"""The fake server keeps a session as a real one does, and lacks what it is told to lack."""

from __future__ import annotations

import errno
import queue
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any, TypeAlias

import pymysql
import pytest

from millpond.testing.fake_server import FakeError, FakeServer

from .descriptors import no_descriptor_left

Complaints: TypeAlias = "queue.SimpleQueue[BaseException | None]"


@pytest.fixture
def start() -> Iterator[Callable[..., tuple[FakeServer, Any]]]:
    """Return a function that starts a server and connects to it; all is closed after the test."""
    with ExitStack() as closing:

        def begin(**settings: Any) -> tuple[FakeServer, Any]:
            server = closing.enter_context(FakeServer(**settings))
            conn = pymysql.connect(**server.connect_args(autocommit=True, ssl_disabled=True))
            closing.callback(close_if_open, conn)
            return server, conn

        yield begin


@pytest.fixture
def complaints() -> Iterator[Complaints]:
    """Return what threads raise from now on."""
    raised: Complaints = queue.SimpleQueue()
    hook, threading.excepthook = threading.excepthook, lambda of: raised.put(of.exc_value)
    yield raised
    threading.excepthook = hook


def close_if_open(conn: Any) -> None:
    """Close a connection that a test may have lost."""
    if conn.open:
        conn.close()


def ask(conn: Any, statement: str) -> list[Any]:
    """Run a statement and return its rows."""
    with conn.cursor() as cursor:
        cursor.execute(statement)
        return list(cursor.fetchall())


def reset(conn: Any) -> None:
    """Send COM_RESET_CONNECTION and read its answer."""
    conn._execute_command(0x1F, b"")
    conn._read_ok_packet()


def test_a_session_is_kept_until_it_is_reset(start: Callable[..., tuple[FakeServer, Any]]) -> None:
    """Variables, autocommit and transaction go with the reset; schema and role stay, as on real servers."""
    _, conn = start()
    for statement in ("SET @a = 1, autocommit = 0", "SET ROLE boss", "INSERT INTO t VALUES (1)"):
        ask(conn, statement)
    conn.select_db("other")
    look = "SELECT @a, @@autocommit, CURRENT_ROLE(), DATABASE()"
    assert [("1", 0, "boss", "other")] == ask(conn, look)
    assert 1 == conn.server_status & 3
    reset(conn)
    assert ([(None, 1, "boss", "other")], 2) == (ask(conn, look), conn.server_status & 3)


def test_transactions_begin_and_end(start: Callable[..., tuple[FakeServer, Any]]) -> None:
    """The status word tells of the transaction, as does that of a real server."""
    _, conn = start()
    seen: list[int] = []
    for statement in ("BEGIN", "COMMIT", "SET autocommit = 0", "DELETE FROM t", "ROLLBACK"):
        ask(conn, statement)
        seen.append(conn.server_status & 1)
    assert [1, 0, 0, 1, 0] == seen


def test_what_it_lacks_it_answers_by_errors(start: Callable[..., tuple[FakeServer, Any]]) -> None:
    """No tracking, no roles, no reset: the numbers are those of old servers."""
    _, conn = start(tracking=False, roles=False, resets="unknown")
    numbers: list[int] = []
    for statement in ("SET session_track_state_change = 1", "SELECT CURRENT_ROLE()", "SET ROLE NONE", "SELEKT"):
        with pytest.raises(pymysql.err.MySQLError) as refused:
            ask(conn, statement)
        numbers.append(refused.value.args[0])
    with pytest.raises(pymysql.err.MySQLError) as refused:
        reset(conn)
    assert [1193, 1305, 1064, 1064, 1047] == [*numbers, refused.value.args[0]]


def test_answers_can_be_written_for_it(start: Callable[..., tuple[FakeServer, Any]]) -> None:
    """Rows, errors, or what a callable returns at the time."""
    server, conn = start()
    server.answers["SELECT it"] = [(1, "one", None), (2, "two", None)]
    server.answers["SELECT now"] = lambda: FakeError(1205, "Lock wait timeout")
    assert [(1, "one", None), (2, "two", None)] == ask(conn, "SELECT it")
    with pytest.raises(pymysql.err.OperationalError, match="Lock wait"):
        ask(conn, "SELECT now")
    assert [(1,)] == ask(conn, "SELECT 1")


def test_it_notes_what_arrives_and_can_end_a_connection(start: Callable[..., tuple[FakeServer, Any]]) -> None:
    """Commands are told by name and text; a killed connection is lost to its client."""
    server, conn = start(pooled=True)
    assert conn.thread_id() == 1001
    conn.ping(False)
    conn.select_db("other")
    assert ["COM_PING", "other"] == server.texts()[-2:]
    server.kill(1)
    assert 0 == server.connections
    with pytest.raises(pymysql.err.OperationalError):
        ask(conn, "SELECT 1")
    with pytest.raises(TimeoutError):
        server.wait_for(lambda: False, 0.01)


def test_whoever_is_still_answered_when_it_closes_is_told(start: Callable[..., tuple[FakeServer, Any]]) -> None:
    """A callable that does not return keeps its thread: closing says so, and is well once it has returned."""
    server, conn = start()
    begun, gate = threading.Event(), threading.Event()

    def answer() -> list[Any]:
        begun.set()
        assert gate.wait(60)
        return [(1,)]

    server.answers["SELECT it"] = answer
    asking = threading.Thread(target=pytest.raises, args=(pymysql.err.OperationalError, ask, conn, "SELECT it"))
    asking.start()
    try:
        assert begun.wait(60)
        with pytest.raises(TimeoutError, match=r"but millpond-fake-server-connection-1 did not end within 0\.01 s"):
            server.close(0.01)
    finally:
        gate.set()
        asking.join()
    server.close()


def test_what_an_answer_raises_is_no_end_of_a_client(
    start: Callable[..., tuple[FakeServer, Any]], complaints: Complaints
) -> None:
    """An OSError of a test's own callable ends the connection, and is told as what a thread has raised."""
    server, conn = start()

    def answer() -> list[Any]:
        raise TimeoutError("the test's own")

    server.answers["SELECT it"] = answer
    with pytest.raises(pymysql.err.OperationalError):
        ask(conn, "SELECT it")
    server.close()
    assert "the test's own" == str(complaints.get(timeout=60))


def test_a_client_that_goes_is_nothing_to_complain_of(complaints: Complaints) -> None:
    """Neither before its greeting was answered, nor in the middle of a packet, nor by a reset."""
    with FakeServer() as server:
        for sent, ending in ((b"", b""), (b"\x10\0\0\1half", b""), (b"", struct.pack("ii", 1, 0))):
            with socket.create_connection(("127.0.0.1", server.port), timeout=60) as client:
                assert client.recv(1)
                client.sendall(sent)
                if ending:
                    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, ending)
            server.wait_for(lambda: server.connections == 0)
    assert complaints.empty()


def test_a_process_that_may_open_no_more_files_is_told(complaints: Complaints) -> None:
    """It can accept nobody then: its thread says why."""
    with FakeServer() as server, socket.socket() as client:
        with no_descriptor_left():
            client.connect(("127.0.0.1", server.port))
            complaint = complaints.get(timeout=60)
        assert isinstance(complaint, OSError)
        assert errno.EMFILE == complaint.errno
