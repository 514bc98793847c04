"""Stand between a client and a server, count what passes, and make the network misbehave on demand.

Why: what a pool must survive (a far server, a dead link that says nothing, a reset in the middle of an answer)
happens in networks, not in servers; and what it must save (commands and waits) is seen only between the two: a
server's counters count some commands twice, and no waits at all.

Rules:
- Bytes are never changed, reordered or doubled; faults delay them, swallow them or end the connection.
- Every chunk is delayed from its own arrival, so commands written back to back share one round trip, as on a real line.
- Counting reads the headers and first bytes of a client's MySQL packets, and nothing of what a server answers.

It must not need a driver, nor know anything of a pool. It listens on 127.0.0.1 only, and is made for tests: it stops
at no amount of traffic, and asks nobody who he is. The socket work is in ``_relay.py``, the packets in
``_mysql_packets.py``.
"""

from __future__ import annotations

import errno
import random
import socket
import time
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Literal

from millpond.testing._line import Direction
from millpond.testing._mysql_packets import CannotCount, Command
from millpond.testing._ports import choose_port
from millpond.testing._relay import Relay

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["CannotCount", "Command", "Direction", "FaultProxy"]

Upstream = int | str | tuple[str, int]

_HOST = "127.0.0.1"


class FaultProxy:
    """Forward connections to a server on this machine, with faults that can be set while it runs.

    It works from its making on; close it, or use it as a context manager. All methods and settings may be used from
    any thread.

    Args:
        upstream: the server: a port of 127.0.0.1, a (host, port) pair or the path of a unix socket. May be set later:
            connections made from then on go to the new one.
        latency: seconds that every byte takes in either direction, 0 or more; ``proxy.to_server.latency`` and
            ``proxy.to_client.latency`` set one.
        jitter: bound of a random addition to it, in seconds, 0 or more.
        counting: "mysql" reads the client's commands out of the stream (not under TLS); None counts bytes and waits
            only.
        port: port to listen on, by default a free one.
        seed: seed of the jitter, so that a run can be repeated.

    Raises:
        ValueError: an argument is not as described here; the caller's fault.
        OSError: the port is taken.
        RuntimeError: from any method, :meth:`close` included: the proxy has failed and ended every connection, for its
            process may open no more files, or for a fault of its own; the text says which.
    """

    def __init__(
        self,
        upstream: Upstream,
        *,
        latency: float = 0.0,
        jitter: float = 0.0,
        counting: Literal["mysql"] | None = None,
        port: int = 0,
        seed: int | None = None,
    ) -> None:
        if counting not in ("mysql", None):
            raise ValueError(f"counting is {counting!r}; allowed are 'mysql' and None")
        self.to_server = Direction(latency, jitter)
        self.to_client = Direction(latency, jitter)
        self.silent = False
        self.upstream = upstream
        self._counting = counting
        is_counting = counting == "mysql"
        self._relay = Relay(self.to_server, self.to_client, self._connect, is_counting, random.Random(seed))
        self._relay.start()
        try:
            self._port = self._relay.call(lambda: self._listen(port))
        except OSError:
            self._relay.stop()
            raise

    # ---- where it is

    @property
    def port(self) -> int:
        """Return the port it listens on, the same for its whole life."""
        return self._port

    @property
    def address(self) -> tuple[str, int]:
        """Return host and port, as ``socket.create_connection`` takes them."""
        return (_HOST, self._port)

    @property
    def upstream(self) -> Upstream:
        """Return the server that new connections go to."""
        return self._upstream

    @upstream.setter
    def upstream(self, upstream: Upstream) -> None:
        self._upstream_address = _parse_upstream(upstream)
        self._upstream = upstream

    # ---- faults

    @property
    def latency(self) -> float:
        """Return the delay from client to server in seconds; setting it sets both directions."""
        return self.to_server.latency

    @latency.setter
    def latency(self, seconds: float) -> None:
        self.to_server.latency = self.to_client.latency = seconds

    @property
    def jitter(self) -> float:
        """Return the random delay from client to server in seconds; setting it sets both directions."""
        return self.to_server.jitter

    @jitter.setter
    def jitter(self, seconds: float) -> None:
        self.to_server.jitter = self.to_client.jitter = seconds

    @property
    def black_hole(self) -> bool:
        """Tell whether both directions swallow everything; setting it sets both."""
        return self.to_server.black_hole and self.to_client.black_hole

    @black_hole.setter
    def black_hole(self, swallow: bool) -> None:
        self.to_server.black_hole = self.to_client.black_hole = swallow

    @property
    def silent(self) -> bool:
        """Tell whether new connections are accepted and then never answered; set it at any time."""
        return self._silent

    @silent.setter
    def silent(self, silent: bool) -> None:
        self._silent = silent

    @property
    def refusing(self) -> bool:
        """Tell whether new connections are refused; set it at any time. Connections that are there go on."""
        return self._relay.call(lambda: self._relay.listener is None)

    @refusing.setter
    def refusing(self, refuse: bool) -> None:
        self._relay.call(self._relay.stop_listening if refuse else lambda: self._relay.listen(self.address))

    def cut(self, connection: int | None = None) -> None:
        """Close one connection, or all, towards both sides as an orderly end (FIN); bytes under way are lost.

        Args:
            connection: its number, counted from 1 in the order of acceptance; None for all.
        """
        self._relay.call(lambda: self._relay.end(connection, with_reset=False))

    def reset(self, connection: int | None = None) -> None:
        """End one connection, or all, with a reset (RST) towards both sides, as a crashed machine would."""
        self._relay.call(lambda: self._relay.end(connection, with_reset=True))

    def heal(self) -> None:
        """Take back every fault: delays, black holes, cuts to come, silence and refusal.

        Connections that were met with silence stay silent.
        """
        self.latency = self.jitter = 0.0
        self.black_hole = self.silent = False
        self.to_server.cut_after = self.to_client.cut_after = None
        self.refusing = False

    # ---- counts

    @property
    def connections(self) -> int:
        """Return how many connections the proxy holds now."""
        return self._relay.call(lambda: len(self._relay.links))

    @property
    def accepted(self) -> int:
        """Return how many connections it has accepted since its making; the number of the newest."""
        return self._relay.call(lambda: self._relay.accepted)

    @property
    def commands(self) -> list[Command]:
        """Return the commands of all connections, in order, that have arrived whole since :meth:`reset_counts`.

        Raises:
            CannotCount: the proxy was made without ``counting="mysql"``, or a connection since then was encrypted or
                compressed, so that its commands could not be read.
        """
        return self._relay.call(self._read_commands)

    @property
    def waits(self) -> int:
        """Return how often a client was given bytes after having sent some, over all connections.

        That is one for each round trip that the client can have waited for. A client that sends, does not wait, and
        sends again counts once if its second bytes arrive before the first answer is delivered: give the proxy some
        latency to make that sure. Works under TLS too.
        """
        return self._relay.call(lambda: self._relay.waits)

    @property
    def bytes_to_server(self) -> int:
        """Return the bytes received from clients since the last :meth:`reset_counts`."""
        return self._relay.call(lambda: self._relay.bytes_to_server)

    @property
    def bytes_to_client(self) -> int:
        """Return the bytes received from servers since the last :meth:`reset_counts`."""
        return self._relay.call(lambda: self._relay.bytes_to_client)

    def reset_counts(self) -> None:
        """Forget commands, waits and bytes so far, those on their way to the proxy included."""
        self._relay.call(self._relay.reset_counts)

    def wait_for(self, condition: Callable[[], bool], timeout: float = 10.0) -> None:
        """Wait until ``condition()`` is true; it is looked at now and whenever something has happened in the proxy.

        Raises:
            TimeoutError: it was still false after ``timeout`` seconds.
            RuntimeError: the proxy has failed, see the class.
        """
        until = time.monotonic() + timeout
        while True:
            seen = self._relay.happenings
            if condition():
                return
            if not self._relay.wait_for_news(seen, until - time.monotonic()) and not condition():
                raise TimeoutError(f"{condition} was still false after {timeout} s: {self!r}")

    # ---- its life

    def close(self) -> None:
        """End all connections, the listener and the thread; closing twice is harmless. Counts can still be read."""
        self._relay.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<FaultProxy {_HOST}:{self._port} to {self._upstream!r} connections={self.connections}>"

    # ---- inside

    def _listen(self, port: int) -> int:
        """Listen on the port asked for, or on one that is free, and return it."""
        for attempts_left in range(4, -1, -1):
            chosen = port or choose_port(_HOST)
            try:
                self._relay.listen((_HOST, chosen))
            except OSError as error:
                if port or error.errno != errno.EADDRINUSE or not attempts_left:
                    raise
            else:
                return chosen
        raise RuntimeError("bug: the last attempt neither listened nor raised")

    def _read_commands(self) -> list[Command]:
        if self._counting is None:
            raise CannotCount('commands were not counted: make the proxy with counting="mysql"')
        if self._relay.unreadable:
            raise CannotCount(
                f"a connection was {self._relay.unreadable}, so its commands could not be read; "
                "connect without TLS and compression, or count waits"
            )
        return list(self._relay.commands)

    def _connect(self) -> socket.socket | None:
        """Begin to connect to the server without waiting for it; None when the client is to meet silence."""
        if self.silent:
            return None
        family, address = self._upstream_address
        connecting = socket.socket(family, socket.SOCK_STREAM)
        connecting.setblocking(False)
        problem = connecting.connect_ex(address)
        if problem not in (0, errno.EINPROGRESS):
            connecting.close()
            raise OSError(problem, "cannot connect to the server behind the proxy")
        return connecting


def _parse_upstream(upstream: Upstream) -> tuple[socket.AddressFamily, str | tuple[str, int]]:
    if isinstance(upstream, str):
        return socket.AF_UNIX, upstream
    host, port = (_HOST, upstream) if isinstance(upstream, int) else upstream
    if not 0 < port < 65536:
        raise ValueError(
            f"upstream is {upstream!r}; allowed are a port, a (host, port) pair or the path of a unix socket"
        )
    return socket.AF_INET, (socket.gethostbyname(host), port)
