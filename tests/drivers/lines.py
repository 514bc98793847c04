"""Lines between a client's socket and a server's end in the same process, in the clear and under TLS."""

from __future__ import annotations

import socket
import ssl
import threading

WAYS = ("plain", "tls")


class Line:
    """A line in the clear: ``sock`` is the client's end."""

    def __init__(self) -> None:
        self.sock, self.end = socket.socketpair()  # what is sent there has come at once

    def sealed(self, data: bytes) -> bytes:
        """Return what goes over the line for *data*; under TLS one record."""
        return data

    def send(self, data: bytes) -> None:
        """Have the server say something."""
        self.end.sendall(self.sealed(data))

    def hang_up(self) -> None:
        """Have the server say nothing more."""
        self.end.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        """Have the server end it without having read what it was asked."""
        self.sock.sendall(b"question")
        self.end.close()

    def close(self) -> None:
        """Close both ends."""
        self.sock.close()
        self.end.close()


class TlsLine(Line):
    """A line under TLS, by a cipher that needs no certificates."""

    def __init__(self) -> None:
        super().__init__()
        self._heard, self._said = ssl.MemoryBIO(), ssl.MemoryBIO()
        context = anonymous(ssl.PROTOCOL_TLS_SERVER)
        self._seal = context.wrap_bio(self._heard, self._said, server_side=True)
        shaking = threading.Thread(target=self._shake_hands)
        shaking.start()
        self.sock = anonymous(ssl.PROTOCOL_TLS_CLIENT).wrap_socket(self.sock)
        shaking.join(10)

    def _shake_hands(self) -> None:
        while True:
            try:
                self._seal.do_handshake()
            except ssl.SSLWantReadError:
                self.end.sendall(self._said.read())
                self._heard.write(self.end.recv(65536))
            else:
                self.end.sendall(self._said.read())
                return

    def sealed(self, data: bytes) -> bytes:
        """Return the record of *data*."""
        self._seal.write(data)
        return self._said.read()


def anonymous(protocol: int) -> ssl.SSLContext:
    """Return one side's context for TLS without certificates."""
    context = ssl.SSLContext(protocol)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.maximum_version = ssl.TLSVersion.TLSv1_2  # TLS 1.3 has no such ciphers
    context.set_ciphers("AECDH:@SECLEVEL=0")
    return context


def line_of(way: str) -> Line:
    """Return a new line."""
    return TlsLine() if way == "tls" else Line()
