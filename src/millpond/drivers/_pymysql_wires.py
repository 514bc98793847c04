"""Sockets that are read from without detours.

Why: PyMySQL reads through ``sock.makefile()``, and Python's file of a socket asks the socket by way of four methods
written in Python; under TLS, where each answer to a reset is a record of its own, by way of six.  A file may as well
call ``recv_into`` itself: in the clear that is a function in C.  See docs/adr/068-what-a-reset-costs-its-neighbours.md.

Rules:
- Only sockets of the standard library's own classes are changed; those of gevent, and any of a caller's, stay as they
  are.
- Public methods only, and the same errors: what is not ready is ``BlockingIOError`` or ``SSLWantReadError``, an end is
  no bytes, and everything else is the socket's own word.

It must not know of MySQL.
"""

from __future__ import annotations

import io
import socket
import ssl
from typing import Any, Final


class Reader(io.RawIOBase):
    """The end of a socket that a buffer is filled from.

    It does not keep the socket open, as Python's own does: whoever closes the socket has closed it.
    """

    def __init__(self, sock: socket.socket) -> None:
        self.readinto = sock.recv_into  # type: ignore[method-assign]  # so no frame of ours is in between

    def readable(self) -> bool:
        """Say that it can be read."""
        return True


class _Straight:
    """What a class of sockets gains."""

    __slots__ = ()

    def makefile(self, mode: str = "r", buffering: int | None = None, **text: Any) -> Any:
        """Make a file of the socket; one to read bytes from asks the socket without detours."""
        this: Any = self
        if mode == "rb" and buffering is None and not text:
            return io.BufferedReader(Reader(this))
        return super().makefile(mode, buffering, **text)  # type: ignore[misc]  # of a socket


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
