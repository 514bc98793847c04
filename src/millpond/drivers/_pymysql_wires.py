"""Sockets that are read from without detours.

Why: PyMySQL reads through ``sock.makefile()``, and Python's file of a socket asks the socket by way of four methods
written in Python; under TLS, where each answer to a reset is a record of its own, by way of six.  A file may as well
call ``recv_into`` itself: in the clear that is a function in C.  See docs/adr/068-what-a-reset-costs-its-borrowers.md.

Rules:
- Only sockets of the standard library's own classes are changed, or of those that gevent had put in their place before
  this was imported: they are read in the same way.  Any of a caller's stay as they are.
- Public methods only, and the same errors: what is not ready is ``BlockingIOError`` or ``SSLWantReadError``, an end is
  no bytes, and everything else is the socket's own word.
- A file keeps its socket open, as Python's own does: were the descriptor closed under a thread that reads, the system
  would give its number to the next connection, and that thread would read there.

It must not know of MySQL.
"""

from __future__ import annotations

import io
import socket
import ssl
from typing import Any, Final


class _Straight:
    """What a class of sockets gains."""

    __slots__ = ()

    def makefile(self, mode: str = "r", buffering: int | None = None, **text: Any) -> Any:
        """Make a file of the socket; one to read bytes from asks the socket without detours."""
        this: Any = super()
        if mode != "rb" or buffering is not None or text:
            return this.makefile(mode, buffering, **text)
        raw = this.makefile("rb", buffering=0)
        raw.readinto = this.recv_into
        return io.BufferedReader(raw)


class StraightSocket(_Straight, socket.socket):
    """A socket."""

    __slots__ = ()


class StraightTls(_Straight, ssl.SSLSocket):
    """A socket under TLS."""


STRAIGHT: Final[dict[type[Any], type[Any]]] = {socket.socket: StraightSocket, ssl.SSLSocket: StraightTls}


def straighten(sock: object) -> None:
    """Have a socket's files read without detours, if it is one of the standard library's own."""
    kind = STRAIGHT.get(type(sock))
    if kind is not None:
        sock.__class__ = kind
