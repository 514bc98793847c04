"""Carry bytes between clients and a server in one thread, with delays and faults.

Why one thread: sixty-four connections would need 128 or more otherwise, and each hand-over between threads costs what
the proxy must not add.

Rules:
- Only the relay's thread touches sockets, links and counts; other threads hand it functions (:meth:`Relay.call`),
  which run between two rounds, after everything that had arrived by then was read.
- A socket that takes no more holds up its own direction only; a sender is not read while too much of its own is held
  back.
- What ends a connection is its two ends.  An error that is about neither ends the relay, and whoever asks it next is
  told: a proxy that drops connections by itself would be taken for the network that it plays.

It must not decide which faults there are: they are those of a direction (``_line.py``), and are read at each chunk.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import heapq
import itertools
import random
import select
import selectors
import socket
import struct
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

from millpond.testing._line import Direction, End, Link, Pipe
from millpond.testing._mysql_packets import ClientPackets, Command
from millpond.testing._peers import is_of_other_end

_T = TypeVar("_T")
_Event = tuple[selectors.SelectorKey, int]

_CHUNK_BYTES = 65536
_HELD_BYTES_MAX = 4 << 20  # as much as a real line and its buffers may hold
_ROUNDS_BEFORE_CALL = 16  # bounds how long a flood of bytes can keep a call waiting
_FD_SETSIZE = 1024
_PR_SET_TIMERSLACK = 29
_NOBODY_THERE = (FileNotFoundError, BlockingIOError)  # a unix socket's file is missing, or its queue is full
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)  # SO_LINGER on, for 0 seconds: close() sends RST


class Relay:
    """Run the thread that accepts, forwards, delays and ends connections. See the module's rules."""

    def __init__(
        self,
        to_server: Direction,
        to_client: Direction,
        connect: Callable[[], socket.socket | None],
        is_counting_commands: bool,
        chance: random.Random,
    ) -> None:
        self.links: dict[int, Link] = {}
        self.listener: socket.socket | None = None
        self.accepted = 0
        self.happenings = 0
        self._to_server, self._to_client = to_server, to_client
        self._connect = connect
        self._is_counting_commands = is_counting_commands
        self._chance = chance
        self.reset_counts()
        self._selector = selectors.DefaultSelector()
        self._due: list[tuple[float, int, Pipe]] = []
        self._order = itertools.count()
        self._calls: deque[Callable[[], None]] = deque()
        self._gate = threading.Lock()
        self._news = threading.Condition()
        self._is_stopping = False
        self._is_over = False
        self._failure: BaseException | None = None
        self._wake_out, self._wake_in = socket.socketpair()
        for end in (self._wake_out, self._wake_in):
            end.setblocking(False)
        self._selector.register(self._wake_out, selectors.EVENT_READ, self._on_wake)
        self._thread = threading.Thread(target=self._run, name="millpond-fault-proxy", daemon=True)

    # ---- for other threads

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def call(self, function: Callable[[], _T]) -> _T:
        """Run a function in the relay's thread, after all that has arrived was read, and return what it returns."""
        if threading.current_thread() is self._thread:
            return function()
        answer: Future[_T] = Future()

        def run() -> None:
            try:
                answer.set_result(function())
            except Exception as error:  # noqa: BLE001 - raised where the function came from
                answer.set_exception(error)

        with self._gate:
            is_over = self._is_over
            if not is_over:
                self._calls.append(run)
        if is_over:
            self._raise_failure()
            return function()  # the thread is gone, so nobody else touches what it looked after
        self._wake()
        result = answer.result()
        self._raise_failure()  # it may have been answered by a thread that was failing
        return result

    def stop(self) -> None:
        """End everything and wait for the thread; harmless when it has ended."""
        self._is_stopping = True
        with self._gate:
            if not self._is_over:
                self._wake()
        self._thread.join()
        self._raise_failure()

    def wait_for_news(self, seen: int, timeout: float) -> bool:
        """Wait until something has happened since ``seen``; False when ``timeout`` seconds passed instead."""
        with self._news:
            has_news = self._news.wait_for(lambda: self.happenings != seen or self._failure, max(timeout, 0.0))
        self._raise_failure()
        return bool(has_news)

    def _wake(self) -> None:
        with contextlib.suppress(BlockingIOError):  # full of wake-ups is as good as one more
            self._wake_in.send(b"!")

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise RuntimeError(f"the proxy's thread has failed: {self._failure!r}") from self._failure

    # ---- in the relay's thread, or by call()

    def listen(self, address: tuple[str, int]) -> None:
        """Accept connections at this address; harmless when it does."""
        if self.listener is not None:
            return
        listener = socket.socket()
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen(256)
        except OSError:
            listener.close()
            raise
        listener.setblocking(False)
        self._selector.register(listener, selectors.EVENT_READ, self._on_connection)
        self.listener = listener

    def stop_listening(self) -> None:
        """Close the listener, so that the kernel refuses connections."""
        if self.listener is not None:
            self._selector.unregister(self.listener)
            self.listener.close()
            self.listener = None

    def end(self, number: int | None, *, with_reset: bool) -> None:
        """End one connection, or all for None."""
        if number is not None and number not in self.links:
            raise ValueError(f"connection is {number}; there are now {sorted(self.links)}")
        for link in [*self.links.values()]:
            if number in (None, link.number):
                self._end_link(link, with_reset=with_reset)

    def reset_counts(self) -> None:
        """Start counting anew."""
        self.commands: list[Command] = []
        self.unreadable = ""
        self.waits = 0
        self.bytes_to_server = 0
        self.bytes_to_client = 0

    # ---- the loop

    def _run(self) -> None:
        _ask_for_exact_timers()
        try:
            while not self._is_stopping:
                heard_of = self.happenings
                self._serve(self._poll(self._seconds_to_wait()))
                self._answer_calls()
                self._deliver_due()
                if heard_of != self.happenings:
                    self._tell()
        except BaseException as error:  # noqa: BLE001 - raised by what is asked of the proxy next
            self._failure = error
        finally:
            self._tear_down()

    def _seconds_to_wait(self) -> float | None:
        return max(self._due[0][0] - time.monotonic(), 0.0) if self._due else None

    def _poll(self, timeout: float | None) -> list[_Event]:
        """Wait for events; epoll counts in milliseconds, so select, which counts in microseconds, waits for it."""
        descriptor = getattr(self._selector, "fileno", lambda: _FD_SETSIZE)()
        if timeout and descriptor < _FD_SETSIZE:
            select.select([descriptor], [], [], timeout)
            timeout = 0.0
        return self._selector.select(timeout)

    def _serve(self, events: list[_Event]) -> None:
        for key, mask in events:
            key.data(mask)

    def _answer_calls(self) -> None:
        if not self._calls:
            return
        for _ in range(_ROUNDS_BEFORE_CALL):
            events = self._selector.select(0)
            if not any(key.fileobj is not self._wake_out for key, _ in events):
                break
            self._serve(events)
        for _ in range(len(self._calls)):
            self._calls.popleft()()

    def _deliver_due(self) -> None:
        now = time.monotonic()
        while self._due and self._due[0][0] <= now:
            _, _, pipe = heapq.heappop(self._due)
            pipe.is_scheduled = False
            if pipe.link.number in self.links:
                self._deliver(pipe, now)

    def _tell(self) -> None:
        with self._news:
            self._news.notify_all()

    def _tear_down(self) -> None:
        self.stop_listening()
        self.end(None, with_reset=False)
        with self._gate:
            self._is_over = True
            self._selector.close()
            self._wake_in.close()
            self._wake_out.close()
        while self._calls:
            self._calls.popleft()()
        self.happenings += 1
        self._tell()

    # ---- events

    def _on_wake(self, _mask: int) -> None:
        with contextlib.suppress(BlockingIOError):
            self._wake_out.recv(_CHUNK_BYTES)

    def _on_connection(self, _mask: int) -> None:
        if self.listener is None:
            return
        try:
            client, _ = self.listener.accept()
        except BlockingIOError:  # the client has given up already, and was taken off the queue
            return
        except OSError as error:
            if is_of_other_end(error):
                return
            raise
        self.accepted += 1
        self.happenings += 1
        _prepare(client)
        try:
            server = self._connect()
        except OSError as error:
            _close(client, with_reset=True)
            if is_of_other_end(error) or isinstance(error, _NOBODY_THERE):
                return
            raise
        reader = ClientPackets(self.accepted) if self._is_counting_commands else None
        link = Link(self.accepted, client, server, reader)
        link.up = Pipe(link, self._to_server, client, server or client)
        if server is not None:
            _prepare(server)
            link.up.is_sink_full = True  # until it is connected
            link.down = Pipe(link, self._to_client, server, client)
        self.links[link.number] = link
        self._update_interest(link)

    def _on_socket(self, source_of: Pipe, sink_of: Pipe | None, mask: int) -> None:
        link = source_of.link
        if link.number in self.links and mask & selectors.EVENT_WRITE and sink_of is not None:
            self._on_writable(sink_of)
        if link.number in self.links and mask & selectors.EVENT_READ and not source_of.is_read_out:
            self._receive(source_of)
        if link.number in self.links:
            self._update_interest(link)

    def _on_writable(self, pipe: Pipe) -> None:
        link = pipe.link
        if pipe.sink is link.server and not link.is_connected:
            link.is_connected = True
            if pipe.sink.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                self._end_link(link, with_reset=True)
                return
        pipe.is_sink_full = False
        self._deliver(pipe, time.monotonic())

    def _receive(self, pipe: Pipe) -> None:
        end: End | None = None
        data = b""
        try:
            data = pipe.source.recv(_CHUNK_BYTES)
            end = None if data else End.FINISHED
        except BlockingIOError:
            return
        except OSError as error:
            if not is_of_other_end(error):
                raise
            end = End.RESET
        now = time.monotonic()
        self.happenings += 1
        pipe.is_read_out = end is not None
        if pipe.link.server is None:
            self._count_up(pipe.link, data)
            if end is not None:
                self._end_link(pipe.link, with_reset=False)
            return
        if pipe is pipe.link.up:
            self._count_up(pipe.link, data)
        else:
            self.bytes_to_client += len(data)
        if not pipe.direction.black_hole:
            self._hold(pipe, now, data, end)
            self._deliver(pipe, now)

    def _count_up(self, link: Link, data: bytes) -> None:
        self.bytes_to_server += len(data)
        link.has_client_spoken = link.has_client_spoken or bool(data)
        if link.reader is not None:
            self.commands += link.reader.feed(data)
            self.unreadable = link.reader.unreadable or self.unreadable

    def _hold(self, pipe: Pipe, now: float, data: bytes, end: End | None) -> None:
        """Put what has arrived into the queue, up to where the connection is to be cut."""
        jitter_s = pipe.direction.jitter
        due_at = now + pipe.direction.latency + (self._chance.uniform(0.0, jitter_s) if jitter_s else 0.0)
        allowed = pipe.allowed_bytes(len(data)) if data else None
        if allowed is not None:
            data, end, pipe.is_read_out = data[:allowed], End.CUT, True
        if data:
            pipe.append(due_at, memoryview(data))
        if end is not None:
            pipe.append(due_at, end)

    def _deliver(self, pipe: Pipe, now: float) -> None:
        """Pass on what is due, in order, and plan for the rest."""
        while pipe.queue and not pipe.is_sink_full and pipe.queue[0][0] <= now:
            item = pipe.queue[0][1]
            if pipe.direction.black_hole:
                pipe.drop_first()
            elif isinstance(item, End):
                pipe.drop_first()
                self._pass_end(pipe, item)
            elif not self._send(pipe, item):
                return
        if pipe.queue and not pipe.is_sink_full and not pipe.is_scheduled:
            pipe.is_scheduled = True
            heapq.heappush(self._due, (pipe.queue[0][0], next(self._order), pipe))
        if pipe.link.number in self.links:
            self._update_interest(pipe.link)

    def _send(self, pipe: Pipe, item: memoryview) -> bool:
        """Send the first chunk, or what the sink takes of it; False when the connection has ended over it."""
        try:
            sent = pipe.sink.send(item)
        except BlockingIOError:
            sent = 0
        except OSError as error:  # the sink has closed or reset, and there is nobody to bring this to
            if not is_of_other_end(error):
                raise
            self._end_link(pipe.link, with_reset=True)
            return False
        self.happenings += 1
        if sent and pipe is pipe.link.down and pipe.link.has_client_spoken:
            pipe.link.has_client_spoken = False
            self.waits += 1
        if sent < len(item):
            pipe.keep_rest_of_first(item[sent:], sent)
            pipe.is_sink_full = True
        else:
            pipe.drop_first()
        return True

    def _pass_end(self, pipe: Pipe, end: End) -> None:
        self.happenings += 1
        pipe.is_finished = True
        if end is not End.FINISHED or all(each.is_finished for each in pipe.link.pipes()):
            self._end_link(pipe.link, with_reset=end is End.RESET)
            return
        try:
            pipe.sink.shutdown(socket.SHUT_WR)
        except OSError as error:  # it has gone by itself meanwhile
            if not is_of_other_end(error):
                raise

    def _update_interest(self, link: Link) -> None:
        """Listen for what each socket of a link can be used for now."""
        sides = [(link.client, link.up, link.down), (link.server, link.down, link.up)]
        for side, source_of, sink_of in sides:
            if side is None or source_of is None:
                continue
            wants_reading = not source_of.is_read_out and source_of.held_bytes < _HELD_BYTES_MAX
            wants_writing = sink_of is not None and sink_of.is_sink_full
            mask = selectors.EVENT_READ * wants_reading | selectors.EVENT_WRITE * wants_writing
            if mask != link.interest.get(side, 0):
                self._set_interest(link, side, mask, functools.partial(self._on_socket, source_of, sink_of))

    def _set_interest(self, link: Link, side: socket.socket, mask: int, handler: Callable[[int], None]) -> None:
        if not mask:
            self._selector.unregister(side)
        elif link.interest.get(side, 0):
            self._selector.modify(side, mask, handler)
        else:
            self._selector.register(side, mask, handler)
        link.interest[side] = mask

    def _end_link(self, link: Link, *, with_reset: bool) -> None:
        del self.links[link.number]
        self.happenings += 1
        for side in (link.client, link.server):
            if side is not None:
                if link.interest.get(side, 0):
                    self._selector.unregister(side)
                _close(side, with_reset=with_reset)


def _ask_for_exact_timers() -> None:
    """Have Linux wake this thread when asked to, not up to its default of 50 microseconds later."""
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None).prctl(_PR_SET_TIMERSLACK, 1, 0, 0, 0)


def _prepare(side: socket.socket) -> None:
    side.setblocking(False)
    if side.family == socket.AF_INET:
        side.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def _close(side: socket.socket, *, with_reset: bool) -> None:
    if with_reset and side.family == socket.AF_INET:
        side.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
    side.close()
