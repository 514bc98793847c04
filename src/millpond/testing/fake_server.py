"""Play a MySQL server that lacks what old or odd ones lack: session tracking, resets, roles, a direct line.

Why: what a pool does on a server without COM_RESET_CONNECTION (MySQL 5.6, ProxySQL before 2.4), without session
tracking (MySQL 5.6), without roles (MySQL 5.7) or behind a proxy that hands backends from transaction to transaction
cannot be seen on the servers that one has.  Here it can, and so can answers that no real server gives when asked to.

::

    with FakeServer(resets="unknown") as server:
        pool = millpond.Pool(pymysql, connect_args=server.connect_args())

Rules:
- It knows a session: transaction, autocommit, user variables, schema, role; so that what a borrower left behind is
  there for the next one, unless it was cleaned.  It stores no rows, and lets everybody in.
- What it does not understand it answers as a server does: by error 1064.
- No TLS, no compression, no binary protocol, no column types but text.

It must not be taken for a database, and it must not need a driver.  For networks that misbehave there is
:class:`~millpond.testing.proxy.FaultProxy`, which goes in front of this as of any server.
"""

from __future__ import annotations

import contextlib
import re
import secrets
import socket
import struct
import threading
import time
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

from millpond.testing._peers import is_of_other_end

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["FakeCommand", "FakeError", "FakeServer"]

IN_TRANSACTION: Final = 0x0001
AUTOCOMMIT: Final = 0x0002
STATE_CHANGED: Final = 0x4000
CONNECT_WITH_DB: Final = 1 << 3
SESSION_TRACK: Final = 1 << 23
# LONG_PASSWORD, FOUND_ROWS, LONG_FLAG, CONNECT_WITH_DB, PROTOCOL_41, TRANSACTIONS, SECURE_CONNECTION, MULTI_RESULTS,
# PLUGIN_AUTH: what every server since 5.5 has.
CAPABILITIES: Final = 0x0000_000F | 0x0200 | 0x2000 | 0x8000 | 1 << 17 | 1 << 19
COM_NAMES: Final = {
    0x01: "COM_QUIT",
    0x02: "COM_INIT_DB",
    0x03: "COM_QUERY",
    0x0E: "COM_PING",
    0x1F: "COM_RESET_CONNECTION",
}

Rows: TypeAlias = "Sequence[Sequence[Any]]"
Resets: TypeAlias = Literal["yes", "unknown", "closes", "silent"]


@dataclass(frozen=True)
class FakeError(Exception):
    """An ERR packet to be sent: *number* as in the manual, and its text."""

    number: int
    text: str = "played by a fake server"


@dataclass(frozen=True)
class FakeCommand:
    """A command that has arrived: of which connection, its name, and its text."""

    connection: int
    name: str
    text: str


@dataclass
class FakeSession:
    """What one connection has on the server."""

    number: int
    schema: str | None = None
    autocommit: bool = True
    in_transaction: bool = False
    role: str | None = None
    variables: dict[str, str | None] = field(default_factory=dict[str, "str | None"])
    tracked: bool = False
    tracks: bool = False  # session_track_state_change

    def reset(self) -> None:
        """Forget what COM_RESET_CONNECTION makes a server forget: not the schema, and not the role."""
        self.autocommit, self.in_transaction, self.tracks = True, False, False
        self.variables.clear()


class FakeServer:
    """A server on a free port of 127.0.0.1, from its making until :meth:`close`.

    Args:
        version: what it greets with; "MariaDB" in it makes it one of those.
        tracking: whether it knows session tracking.
        resets: how it takes COM_RESET_CONNECTION: "yes"; "unknown" answers error 1047; "closes" ends the connection;
            "silent" never answers.
        roles: whether it knows roles.
        pooled: whether the connection id that it greets with is that of a proxy, not of who answers.
        read_only: what ``@@global.read_only`` is; may be set later.

    Attributes:
        commands: all that has arrived, in order; list of :class:`FakeCommand`.
        answers: text of a statement -> what to answer instead: rows, a :class:`FakeError`, or a callable without
            arguments that returns one of these; may be changed at any time.
    """

    def __init__(
        self,
        *,
        version: str = "8.0.99-fake",
        tracking: bool = True,
        resets: Resets = "yes",
        roles: bool = True,
        pooled: bool = False,
        read_only: bool = False,
    ) -> None:
        self.version = version
        self.tracking = tracking
        self.resets = resets
        self.roles = roles
        self.pooled = pooled
        self.read_only = read_only
        self.commands: list[FakeCommand] = []
        self.answers: dict[str, Rows | FakeError | Callable[[], Rows | FakeError]] = {}
        self._numbers = 0
        self._sockets: dict[int, socket.socket] = {}
        self._news = threading.Condition()
        self._is_closed = False
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._threads = [threading.Thread(target=self._accept, name="millpond-fake-server", daemon=True)]
        self._threads[0].start()

    # -- for tests -------------------------------------------------------------------------------------------------
    def connect_args(self, **changes: Any) -> dict[str, Any]:
        """Return keyword arguments for ``pymysql.connect`` and its like."""
        return {"host": "127.0.0.1", "port": self.port, "user": "fake", "password": "", "database": "fake", **changes}

    def texts(self) -> list[str]:
        """Return the texts of statements, and the names of other commands, in order of arrival."""
        with self._news:
            return [command.text or command.name for command in self.commands]

    def wait_for(self, condition: Callable[[], bool], timeout: float = 10.0) -> None:
        """Wait until ``condition()`` is true; it is looked at whenever a command has arrived or a connection ended.

        Raises:
            TimeoutError: it was still false after ``timeout`` seconds.
        """
        with self._news:
            if not self._news.wait_for(condition, timeout):
                raise TimeoutError(f"{condition} was still false after {timeout} s")

    @property
    def connections(self) -> int:
        """Return how many connections there are now."""
        return len(self._sockets)

    def kill(self, number: int) -> None:
        """End a connection, as KILL does, and wait until it has ended here."""
        sock = self._sockets.get(number)
        if sock is not None:
            end(sock)
            self.wait_for(lambda: number not in self._sockets)

    def close(self, timeout: float = 10.0) -> None:
        """End all connections and the listener, and wait for the threads that served them; harmless when done twice.

        Args:
            timeout: seconds that these threads are given.

        Raises:
            TimeoutError: a connection is still being answered: a callable of :attr:`answers` has not returned.
        """
        until = time.monotonic() + timeout
        self._is_closed = True
        accepting = self._threads[0]
        end(self._listener)
        self._listener.close()
        accepting.join(max(until - time.monotonic(), 0.0))  # before its last connection is looked for
        for sock in list(self._sockets.values()):
            end(sock)
        for thread in self._threads:
            thread.join(max(until - time.monotonic(), 0.0))
        busy = [thread.name for thread in self._threads if thread.is_alive()]
        if busy:
            raise TimeoutError(f"{self!r} has closed, but {', '.join(busy)} did not end within {timeout} s")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<FakeServer {self.version} on port {self.port}>"

    # -- connections -----------------------------------------------------------------------------------------------
    def _accept(self) -> None:
        with self._listener:  # clients of one that could accept no more are refused
            while True:
                try:
                    sock, _ = self._listener.accept()
                except OSError as error:
                    if is_of_other_end(error):
                        continue
                    if self._is_closed:
                        return
                    raise
                with self._news:
                    self._numbers += 1
                    number = self._numbers
                    self._sockets[number] = sock
                name = f"millpond-fake-server-connection-{number}"
                thread = threading.Thread(target=self._serve, args=(number, sock), name=name, daemon=True)
                self._threads.append(thread)
                thread.start()

    def _serve(self, number: int, sock: socket.socket) -> None:
        wire = Wire(sock)
        try:
            session = self._greet(number, wire)
            while self._answer(session, wire):
                pass
        except ClientGone:
            pass  # by itself, or because the test has killed it
        finally:
            wire.close()
            with self._news:
                self._sockets.pop(number, None)
                self._news.notify_all()

    def _greet(self, number: int, wire: Wire) -> FakeSession:
        salt = bytes(byte | 1 for byte in secrets.token_bytes(20))  # no zero may be in it
        capabilities = CAPABILITIES | (SESSION_TRACK if self.tracking else 0)
        shown = number + 1000 if self.pooled else number
        wire.send(
            b"\x0a" + self.version.encode() + b"\0" + struct.pack("<I", shown) + salt[:8] + b"\0"
            + struct.pack("<HBHHB", capabilities & 0xFFFF, 45, AUTOCOMMIT, capabilities >> 16, 21)
            + bytes(10) + salt[8:] + b"\0mysql_native_password\0"
        )  # fmt: skip
        reply = wire.receive()
        (asked,) = struct.unpack_from("<I", reply)
        _, _, rest = reply[32:].partition(b"\0")  # the user's name
        rest = rest[1 + rest[0] :]  # the scramble
        schema = rest.partition(b"\0")[0].decode() if asked & CONNECT_WITH_DB else None
        session = FakeSession(number, schema=schema or None, tracked=bool(asked & capabilities & SESSION_TRACK))
        wire.send(self._ok(session))
        return session

    def _answer(self, session: FakeSession, wire: Wire) -> bool:
        """Answer one command; False if it was the last."""
        wire.sequence = 0
        command = wire.receive()
        name = COM_NAMES.get(command[0], f"COM_{command[0]:#04x}")
        text = command[1:].decode("utf-8", "replace")
        with self._news:
            self.commands.append(FakeCommand(session.number, name, text))
            self._news.notify_all()
        if name == "COM_QUIT":
            return False
        if name == "COM_RESET_CONNECTION" and self.resets in ("closes", "silent"):
            return self.resets == "silent"
        try:
            wire.send(*self._reply(session, name, text))
        except FakeError as error:
            wire.send(b"\xff" + struct.pack("<H", error.number) + b"#HY000" + error.text.encode())
        return True

    def _reply(self, session: FakeSession, name: str, text: str) -> Iterable[bytes]:
        if name == "COM_QUERY":
            return self._query(session, text)
        if name == "COM_INIT_DB":
            session.schema = text
        elif name == "COM_RESET_CONNECTION" and self.resets == "yes":
            session.reset()
        elif name != "COM_PING":
            raise FakeError(1047, "Unknown command")
        return [self._ok(session)]

    # -- statements ------------------------------------------------------------------------------------------------
    def _query(self, session: FakeSession, text: str) -> Iterable[bytes]:
        scripted = self.answers.get(text)
        if callable(scripted):
            scripted = scripted()
        if isinstance(scripted, FakeError):
            raise scripted
        if scripted is not None:
            return result_set(scripted, status_of(session))
        rows = self._asked(session, text)
        if rows is not None:
            return result_set(rows, status_of(session))
        changed = self._told(session, text)
        return [self._ok(session, changed=changed)]

    def _asked(self, session: FakeSession, text: str) -> Rows | None:
        """Return the answer to a query; None if it is none."""
        if not re.match(r"\s*SELECT\b", text, re.IGNORECASE):
            return None
        if "CURRENT_ROLE()" in text and not self.roles:
            raise FakeError(1305, "FUNCTION fake.CURRENT_ROLE does not exist")
        if " FROM " in text.upper() and "information_schema" not in text:
            session.in_transaction = session.in_transaction or not session.autocommit
            return [(1,)]
        listed = re.sub(r"\s+FROM\b.*", "", text.partition("SELECT")[2], flags=re.IGNORECASE | re.DOTALL)
        return [tuple(self._value(session, item.strip()) for item in listed.split(","))]

    def _value(self, session: FakeSession, item: str) -> Any:
        known: dict[str, Any] = {
            "@@init_connect": "",
            "@@global.read_only": int(self.read_only),
            "CONNECTION_ID()": session.number,
            "CURRENT_ROLE()": session.role or "NONE",
            "DATABASE()": session.schema,
            "@@autocommit": int(session.autocommit),
            "COUNT(*)": 0,
        }
        if item in known:
            return known[item]
        if item.startswith("@"):
            return session.variables.get(item.lower())
        if re.fullmatch(r"-?\d+", item):
            return int(item)
        raise FakeError(1054, f"Unknown column {item!r}")

    def _told(self, session: FakeSession, text: str) -> bool:
        """Do what a statement says; return whether it changed the session's state."""
        word = text.split(None, 1)[0].upper().rstrip(";") if text.split() else ""
        if word in ("COMMIT", "ROLLBACK"):
            session.in_transaction = False
        elif word in ("BEGIN", "START"):
            session.in_transaction = True
        elif word in ("INSERT", "UPDATE", "DELETE", "REPLACE"):
            session.in_transaction = session.in_transaction or not session.autocommit
        elif word == "SET":
            self._set(session, text.split(None, 1)[1])
            return True
        else:
            raise FakeError(1064, "You have an error in your SQL syntax")
        return False

    def _set(self, session: FakeSession, what: str) -> None:
        role = re.match(r"ROLE\s+(\S+)", what, re.IGNORECASE)
        if role and self.roles:
            session.role = None if role[1].upper() == "NONE" else role[1]
            return
        if role:
            raise FakeError(1064, "You have an error in your SQL syntax")
        for part in re.sub(r"NAMES\s+\S+?(\s+COLLATE\s+\S+?)?(,|$)", "", what, flags=re.IGNORECASE).split(","):
            name, _, value = (piece.strip() for piece in part.partition("="))
            if name.lower() == "autocommit":
                session.autocommit = value == "1"
            elif name.lower() == "session_track_state_change":
                if not self.tracking:
                    raise FakeError(1193, "Unknown system variable 'session_track_state_change'")
                session.tracks = value == "1"
            elif name:
                session.variables[name.lower()] = value

    def _ok(self, session: FakeSession, *, changed: bool = False) -> bytes:
        status = status_of(session) | (STATE_CHANGED if changed and session.tracks and session.tracked else 0)
        packet = b"\0\0\0" + struct.pack("<HH", status, 0)
        if status & STATE_CHANGED:
            packet += b"\0" + b"\x04\x02\x02\x011"  # no text; one change: of the state
        return packet


class ClientGone(Exception):
    """A connection has ended: nothing more is read from it, or sent."""


class Wire:
    """One connection's packets."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.stream = sock.makefile("rb")
        self.sequence = 0

    def close(self) -> None:
        """Close the connection."""
        self.stream.close()
        self.sock.close()

    def send(self, *payloads: bytes) -> None:
        """Send packets in one write.

        Raises:
            ClientGone: there is nobody to take them.
        """
        data = b""
        for payload in payloads:
            data += struct.pack("<I", len(payload))[:3] + bytes([self.sequence]) + payload
            self.sequence = (self.sequence + 1) % 256
        with told_as_gone():
            self.sock.sendall(data)

    def receive(self) -> bytes:
        """Return the next packet.

        Raises:
            ClientGone: there is none, or not the whole of it.
        """
        header = self._read(4)
        self.sequence = (header[3] + 1) % 256
        return self._read(int.from_bytes(header[:3], "little"))

    def _read(self, count: int) -> bytes:
        with told_as_gone():
            data = self.stream.read(count)
        if len(data) < count:
            raise ClientGone
        return data


@contextlib.contextmanager
def told_as_gone() -> Generator[None, None, None]:
    """Raise ClientGone for an error that is about the other end."""
    try:
        yield
    except OSError as error:
        if is_of_other_end(error):
            raise ClientGone from error
        raise


def status_of(session: FakeSession) -> int:
    """Return the status word of a session."""
    return IN_TRANSACTION * session.in_transaction | AUTOCOMMIT * session.autocommit


def result_set(rows: Rows, status: int) -> list[bytes]:
    """Return the packets of rows; whole numbers are told as such, everything else as text."""
    width = len(rows[0]) if rows else 1
    end_of = b"\xfe" + struct.pack("<HH", 0, status)
    numeric = [all(isinstance(row[place], int) for row in rows) for place in range(width)]
    columns = [column(f"c{place}", numeric=numeric[place]) for place in range(width)]
    return [bytes([width]), *columns, end_of, *(b"".join(map(cell, row)) for row in rows), end_of]


def column(name: str, *, numeric: bool) -> bytes:
    """Return the packet that describes a column."""
    kind = 8 if numeric else 253  # LONGLONG or VAR_STRING
    texts = b"".join(bytes([len(text)]) + text for text in (b"def", b"", b"", b"", name.encode(), b""))
    return texts + b"\x0c" + struct.pack("<HIBHB", 63 if numeric else 45, 255, kind, 0, 0) + b"\0\0"


def cell(value: Any) -> bytes:
    """Return one value of a row; texts here are short."""
    if value is None:
        return b"\xfb"
    text = str(value).encode()
    return bytes([len(text)]) + text


def end(sock: socket.socket) -> None:
    """End a connection or a listener under whoever waits on it."""
    with contextlib.suppress(OSError):  # it has ended by itself
        sock.shutdown(socket.SHUT_RDWR)
