"""How statements of our own go over a mysql-connector-python connection, past what listens, and how answers are read.

Why: what a pool asks and restores is no borrower's doing, so it is not judged; and it goes out in one write where the
driver would send and wait for one command after another.

Rules:
- The pure implementation's socket is written to directly, but not where the connection compresses: only the driver
  knows how.
- Every answer is read to its end before the next is.

It must not decide what is sent, or when.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any, Final

from ._model_session import together
from ._session import COM_QUERY, COM_RESET_CONNECTION, MULTI_STATEMENTS, packet

QUERY_ATTRIBUTES: Final = 1 << 27  # CLIENT_QUERY_ATTRIBUTES
NO_ATTRIBUTES: Final = b"\x00\x01"


# -- the pure implementation -----------------------------------------------------------------------------------------
def ask_pure(conn: Any, texts: Sequence[str]) -> list[list[Any]]:
    """Run texts in one write, and return the rows of each reply."""
    write(conn, [query_packet(conn, text) for text in texts])
    return read_texts(conn, texts)


def ask_stepwise(conn: Any, texts: Sequence[str]) -> list[list[Any]]:
    """Run texts one after another, as the driver sends them: with compression only it knows how."""
    cmd_query = importlib.import_module("mysql.connector.connection").MySQLConnection.cmd_query
    return [reply for text in texts for reply in read_replies(conn, cmd_query(conn, text))]


def send(conn: Any, statements: Sequence[str], *, first: Sequence[bytes] = ()) -> list[str]:
    """Send commands, and statements behind them, in one write; return the texts that will be answered."""
    texts = together(statements, allowed=bool(conn._client_flags & MULTI_STATEMENTS))
    write(conn, [*first, *(query_packet(conn, text) for text in texts)])
    return texts


def read_sent(conn: Any, texts: Sequence[str], *, oks: int) -> list[list[Any]]:
    """Read the answers to what :func:`send` sent: so many are an OK, then come those to the texts."""
    for _ in range(oks):
        conn._handle_ok(conn._socket.recv())
    return read_texts(conn, texts)


def reset_pure(conn: Any) -> None:
    """Send COM_RESET_CONNECTION and read its answer."""
    conn._handle_ok(conn._send_cmd(COM_RESET_CONNECTION))


def reset_packets(conn: Any, *, rolls_back: bool) -> list[bytes]:
    """Return the commands of a reset, each of which is answered by one OK."""
    return [*([query_packet(conn, "ROLLBACK")] if rolls_back else []), packet(COM_RESET_CONNECTION)]


def query_packet(conn: Any, text: str) -> bytes:
    """Return a statement as it goes over the wire on this connection."""
    prefix = NO_ATTRIBUTES if conn._client_flags & QUERY_ATTRIBUTES else b""
    return packet(COM_QUERY, prefix + text.encode("utf-8"))


def write(conn: Any, packets: Sequence[bytes]) -> None:
    """Send commands of ours in one write."""
    conn._socket.sock.sendall(b"".join(packets))


def read_texts(conn: Any, texts: Sequence[str]) -> list[list[Any]]:
    """Read all that texts are answered; return the rows of each reply."""
    return [reply for _ in texts for reply in read_replies(conn, next_head(conn))]


def read_replies(conn: Any, head: Any) -> list[list[Any]]:
    """Read all replies to one text to their ends, the first of which begins with *head*; return the rows of each."""
    replies: list[list[Any]] = []
    while True:
        replies.append(list(conn.get_rows(raw=True)[0]) if "columns" in head else [])
        if not conn._have_next_result:
            return replies
        head = next_head(conn)


def next_head(conn: Any) -> Any:
    """Read the head of a reply: what columns it has, or that it has none."""
    return conn._handle_result(conn._socket.recv())


# -- the implementation over a C library -----------------------------------------------------------------------------
def ask_c(conn: Any, texts: Sequence[str]) -> list[list[Any]]:
    """Run texts one after another, and return the rows of each reply."""
    cmd_query = importlib.import_module("mysql.connector.connection_cext").CMySQLConnection.cmd_query
    replies: list[list[Any]] = []
    for text in texts:
        cmd_query(conn, text, raw=True)
        while True:
            replies.append(list(conn.get_rows(raw=True)[0]) if conn.unread_result else [])
            if not conn.more_results:
                conn.free_result()
                break
            conn.next_result()
    return replies


# -- a connection that is not known ----------------------------------------------------------------------------------
def ask_publicly(conn: Any, statements: Sequence[str]) -> list[list[Any]]:
    """Run statements by a cursor, one after another: all that can be done where nothing private is to be had."""
    replies: list[list[Any]] = []
    cursor = conn.cursor()
    for statement in statements:
        cursor.execute(statement)
        replies.append(list(cursor.fetchall()) if cursor.with_rows else [])
    cursor.close()
    return replies
