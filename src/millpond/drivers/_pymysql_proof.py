"""The proof, before anything rests on it, that connections of a class hear what a server would say.

Why: a version of PyMySQL may have all the private names that listening needs and use them no more; its connections
would then pass for clean whatever was done with them.  So one connection of each class is led through a conversation
that was written down here, over a socket that is none, and asked what it has heard.  That takes less than a
millisecond, once.

It must not touch the network.
"""

from __future__ import annotations

import io
import struct
from typing import Any, Final

from pymysql.connections import Connection
from pymysql.cursors import SSCursor

from ._session import AUTOCOMMIT, IN_TRANSACTION, STATE_CHANGED, Session

OBJECT_PARTS: Final = frozenset({"_sock", "_rfile", "_result", "server_status", "client_flag", "encoding"})
CAPABILITIES: Final = 0x000F_A68F  # protocol 4.1, secure passwords, their plugins, transactions
SALT: Final = b"12345678", b"901234567890"


def packet(number: int, body: bytes) -> bytes:
    """Return a packet of a server."""
    return struct.pack("<I", len(body))[:3] + bytes([number]) + body


def ok(number: int, status: int) -> bytes:
    """Return an OK packet."""
    return packet(number, b"\x00\x00\x00" + struct.pack("<HH", status, 0))


def rows(status: int) -> bytes:
    """Return a result of one row and one column, a number; *status* is told at its end."""
    texts = b"".join(bytes([len(text)]) + text for text in (b"def", b"", b"", b"", b"1", b""))
    column = texts + struct.pack("<BHIBHBH", 12, 63, 1, 3, 0, 0, 0)
    ends = [b"\xfe" + struct.pack("<HH", 0, each) for each in (AUTOCOMMIT, status)]
    return b"".join(packet(at, body) for at, body in enumerate((b"\x01", column, ends[0], b"\x011", ends[1]), 1))


def greeting() -> bytes:
    """Return what a server says first."""
    first, second = SALT
    low, high = CAPABILITIES & 0xFFFF, CAPABILITIES >> 16
    head = b"\x0a8.0.0-proof\x00" + struct.pack("<I", 1) + first + b"\x00"
    flags = struct.pack("<HBHHB", low, 45, AUTOCOMMIT, high, 21) + bytes(10)
    return packet(0, head + flags + second + b"\x00mysql_native_password\x00")


class Script:
    """As much of a socket as PyMySQL asks for; it says what was written down, whatever it is told."""

    def __init__(self) -> None:
        # The greeting, the login, the set-up, and what hears_all() asks.
        said = [greeting(), ok(2, AUTOCOMMIT), ok(1, AUTOCOMMIT), rows(IN_TRANSACTION), rows(STATE_CHANGED)]
        self.said = b"".join([*said, ok(1, AUTOCOMMIT), ok(1, 0), rows(AUTOCOMMIT)])

    def makefile(self, _: str) -> io.BytesIO:
        """Return what is read from."""
        return io.BytesIO(self.said)

    def sendall(self, _: bytes) -> None:
        """Hear what is said."""

    def settimeout(self, _: float | None) -> None:
        """Wait for nothing."""

    def close(self) -> None:
        """End it."""


def proves_itself(kind: type[Any]) -> bool:
    """Say whether connections of *kind*, a class that listens, hear what they are told."""
    conn: Any = object.__new__(kind)
    conn._millpond = session = Session()  # noqa: SLF001  our own
    try:
        # By PyMySQL's own methods: a class of the caller's may do more in these than is good without a server.
        Connection.__init__(conn, user="proof", ssl_disabled=True, autocommit=None, defer_connect=True)
        script: Any = Script()
        Connection.connect(conn, script)
        return all(hasattr(conn, name) for name in OBJECT_PARTS) and hears_all(conn, session)
    except Exception:  # noqa: BLE001  whatever it is, this version is not as expected
        return False
    finally:
        conn.__dict__["_sock"] = None  # its finalizer has nothing to close


def hears_all(conn: Any, session: Session) -> bool:
    """Ask what is answered as :class:`Script` says, and compare what was heard."""
    heard: list[tuple[str, int, int]] = []

    def note() -> None:
        heard.append((session.dirt, session.owed, session.status))
        session.renew(0)

    session.renew(0)
    conn.query("SELECT 1")
    note()
    conn.query("SELECT 1")
    note()
    conn.query("SET @a = 1")
    note()
    conn.rollback()
    note()
    cursor = SSCursor(conn)
    cursor.execute("SELECT 1")
    owed = session.owed
    cursor.fetchall()
    note()
    dirty, changed = "a statement that is not proved harmless", "changed session state"
    return owed == 1 and heard == [
        ("", 0, IN_TRANSACTION),
        (changed, 0, STATE_CHANGED),
        (dirty, 0, AUTOCOMMIT),
        ("", 0, 0),
        ("", 0, AUTOCOMMIT),
    ]
