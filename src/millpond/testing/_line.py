"""The lines that a proxy carries: the faults of a direction, and what is held back on a connection.

Why: what a fault means for the bytes of one connection is settled here, without a socket being touched; when a socket
is read or written is the business of ``_relay.py``.

Rules:
- A chunk is due at its own arrival plus the delay, and never before the one in front of it.
- A setting may change at any time, from any thread; what has arrived before keeps the delay it was given.

It must not read, write or wait.
"""

from __future__ import annotations

import enum
import socket
from collections import deque

from millpond.testing._mysql_packets import ClientPackets


def checked_duration(name: str, seconds: float) -> float:
    """Return ``seconds``, or raise ValueError when it is no duration."""
    if not 0 <= seconds < float("inf"):
        raise ValueError(f"{name} is {seconds!r}; allowed are 0 or more seconds")
    return float(seconds)


class Direction:
    """Hold the faults of one direction; settable at any time from any thread, they apply to what arrives afterwards.

    Attributes:
        black_hole: True swallows all bytes, those under way included, and the news that the sender has closed, while
            connections stay open. What was swallowed does not come back.
    """

    def __init__(self, latency: float = 0.0, jitter: float = 0.0) -> None:
        self.black_hole = False
        self.latency = latency
        self.jitter = jitter
        self._cut_after: tuple[int, int | None] = (0, None)

    @property
    def latency(self) -> float:
        """Return the delay of every byte, one way, in seconds; 0.001 in both directions makes a round trip of 2 ms."""
        return self._latency_s

    @latency.setter
    def latency(self, seconds: float) -> None:
        self._latency_s = checked_duration("latency", seconds)

    @property
    def jitter(self) -> float:
        """Return the bound, in seconds, of a random delay added to the latency; order is kept."""
        return self._jitter_s

    @jitter.setter
    def jitter(self, seconds: float) -> None:
        self._jitter_s = checked_duration("jitter", seconds)

    @property
    def cut_after(self) -> int | None:
        """Return after how many bytes each connection is closed, counted from when this was set or it was opened.

        None is never; with 0 the next byte closes it and does not pass.
        """
        return self._cut_after[1]

    @cut_after.setter
    def cut_after(self, count: int | None) -> None:
        if count is not None and count < 0:
            raise ValueError(f"cut_after is {count!r}; allowed are None and 0 or more bytes")
        self._cut_after = (self._cut_after[0] + 1, count)

    def cut_setting(self) -> tuple[int, int | None]:
        """Return the bound with a number that is new each time it is set, so that setting it again counts anew."""
        return self._cut_after

    def __repr__(self) -> str:
        faults = f"black_hole={self.black_hole}, cut_after={self.cut_after}"
        return f"Direction(latency={self.latency}, jitter={self.jitter}, {faults})"


class End(enum.Enum):
    """What may stand at the end of a queue instead of bytes."""

    FINISHED = enum.auto()  # the sender sends no more
    CUT = enum.auto()  # both sides are closed here
    RESET = enum.auto()  # both sides are reset here


class Pipe:
    """Carry one direction of one connection: what is held back, and when each chunk of it is due."""

    def __init__(self, link: Link, direction: Direction, source: socket.socket, sink: socket.socket) -> None:
        self.link = link
        self.direction = direction
        self.source = source
        self.sink = sink
        self.queue: deque[tuple[float, memoryview | End]] = deque()
        self.held_bytes = 0
        self.last_due_at = 0.0
        self.is_sink_full = False
        self.is_read_out = False
        self.is_finished = False
        self.is_scheduled = False
        self._cut_number, _ = direction.cut_setting()
        self._passed_bytes = 0

    def append(self, due_at: float, item: memoryview | End) -> None:
        self.last_due_at = max(due_at, self.last_due_at)
        self.queue.append((self.last_due_at, item))
        if not isinstance(item, End):
            self.held_bytes += len(item)

    def drop_first(self) -> None:
        _, item = self.queue.popleft()
        if not isinstance(item, End):
            self.held_bytes -= len(item)

    def keep_rest_of_first(self, rest: memoryview, sent: int) -> None:
        self.queue[0] = (self.queue[0][0], rest)
        self.held_bytes -= sent

    def allowed_bytes(self, arriving: int) -> int | None:
        """Return how many of the arriving bytes may still pass before a cut, or None when no cut falls among them."""
        number, bound = self.direction.cut_setting()
        if number != self._cut_number:
            self._cut_number, self._passed_bytes = number, 0
        before = self._passed_bytes
        self._passed_bytes += arriving
        return None if bound is None or self._passed_bytes < bound else max(bound - before, 0)


class Link:
    """Hold one client's connection and, unless it was met with silence, the connection to the server made for it."""

    def __init__(
        self, number: int, client: socket.socket, server: socket.socket | None, reader: ClientPackets | None
    ) -> None:
        self.number = number
        self.client = client
        self.server = server
        self.reader = reader
        self.is_connected = False
        self.has_client_spoken = False
        self.interest: dict[socket.socket, int] = {}
        self.up: Pipe | None = None
        self.down: Pipe | None = None

    def pipes(self) -> list[Pipe]:
        return [pipe for pipe in (self.up, self.down) if pipe is not None]
