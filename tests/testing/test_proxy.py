"""FaultProxy delays, swallows, cuts, resets, refuses and counts as it says, in front of a plain echo server."""

from __future__ import annotations

import contextlib
import errno
import select
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from millpond.testing.proxy import CannotCount, Direction, FaultProxy

from .descriptors import no_descriptor_left

MakeProxy = Callable[..., FaultProxy]


class EchoServer:
    """Answer everything with itself, one thread a connection, once ``gate`` is open."""

    def __init__(self, listener: socket.socket) -> None:
        self.listener = listener
        self.gate = threading.Event()
        self.gate.set()
        self.ends: list[str] = []  # how each connection ended, as the server saw it
        self.ended = threading.Condition()
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self.listener.accept()
                thread = threading.Thread(target=self._serve, args=(connection,))
                thread.start()
                self._threads.append(thread)

    def _serve(self, connection: socket.socket) -> None:
        end = "finished"
        with connection:
            try:
                while received := connection.recv(65536):
                    self.gate.wait()
                    connection.sendall(received)
            except OSError as error:
                end = errno.errorcode[error.errno or 0]
        with self.ended:
            self.ends.append(end)
            self.ended.notify_all()

    def wait_for_ends(self, count: int) -> None:
        """Wait until so many connections have ended."""
        with self.ended:
            assert self.ended.wait_for(lambda: len(self.ends) >= count, 10)

    def close(self) -> None:
        """End the listener and wait for every thread."""
        self.gate.set()
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        for thread in self._threads:
            thread.join(10)
            assert not thread.is_alive()


@pytest.fixture
def echo() -> Iterator[EchoServer]:
    """Return an echo server on a port of its own."""
    listener = socket.create_server(("127.0.0.1", 0))
    server = EchoServer(listener)
    yield server
    server.close()


@pytest.fixture
def make_proxy(echo: EchoServer) -> Iterator[MakeProxy]:
    """Return a function that makes a proxy in front of the echo server; closed, before the server, after the test."""
    with contextlib.ExitStack() as proxies:

        def make(**settings: object) -> FaultProxy:
            upstream: int = echo.listener.getsockname()[1]
            return proxies.enter_context(FaultProxy(upstream, **settings))  # type: ignore[arg-type]  # of each its own

        yield make


@pytest.fixture
def proxy(make_proxy: MakeProxy) -> FaultProxy:
    """Return a proxy without faults."""
    return make_proxy()


@pytest.fixture
def connect() -> Iterator[Callable[[FaultProxy], socket.socket]]:
    """Return a function that connects to a proxy; the sockets are closed after the test."""
    with contextlib.ExitStack() as sockets:

        def connect_to(proxy: FaultProxy) -> socket.socket:
            client = sockets.enter_context(socket.create_connection(proxy.address, timeout=10))
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return client

        yield connect_to


Connect = Callable[[FaultProxy], socket.socket]


def exchange(client: socket.socket, data: bytes) -> bytes:
    """Send, and read as much back."""
    client.sendall(data)
    return read(client, len(data))


def read(client: socket.socket, count: int) -> bytes:
    """Read so many bytes, or fewer if the connection ends before."""
    received = bytearray()
    while len(received) < count and (more := client.recv(min(count - len(received), 1 << 20))):
        received += more
    return bytes(received)


def best_round_trip(client: socket.socket, enough: float) -> float:
    """Return the shortest round trip in seconds, of as many as it takes to have one that is short enough.

    Of these at least 31, and no more than fit into half a minute: a machine that has other things to do makes each
    longer, but not all.
    """
    took: list[float] = []
    until = time.monotonic() + 30.0
    while len(took) < 31 or (min(took) >= enough and time.monotonic() < until):
        begun_at = time.monotonic()
        exchange(client, b"ping")
        took.append(time.monotonic() - begun_at)
    return min(took)


def is_silent(client: socket.socket, seconds: float = 0.1) -> bool:
    """Tell whether nothing, not even an end, comes within so many seconds."""
    readable, _, _ = select.select([client], [], [], seconds)
    return not readable


def assert_reset(client: socket.socket) -> None:
    """Fail unless the connection has ended with RST."""
    with pytest.raises(ConnectionResetError):
        read(client, 1)


def packet(sequence: int, body: bytes) -> bytes:
    """Return a MySQL packet."""
    return struct.pack("<I", len(body))[:3] + bytes([sequence]) + body


# ---- forwarding


def test_bytes_come_back_unchanged(proxy: FaultProxy, connect: Connect) -> None:
    """Megabytes pass in both directions at once, whole and in order."""
    client = connect(proxy)
    sent = bytes(range(256)) * 32768
    with ThreadPoolExecutor(1) as sender:
        sending = sender.submit(client.sendall, sent)
        assert sent == read(client, len(sent))
        sending.result()
    assert len(sent) == proxy.bytes_to_server == proxy.bytes_to_client


def test_slow_reader_holds_up_only_itself(proxy: FaultProxy, connect: Connect) -> None:
    """A client that reads nothing is no longer read either; others go on, and nothing of it is lost."""
    slow, other = connect(proxy), connect(proxy)
    slow.setblocking(False)
    sent = 0
    while select.select([], [slow], [], 0.2)[1]:
        sent += slow.send(b"x" * 65536)
        assert sent < 200_000_000
    assert b"still here" == exchange(other, b"still here")
    slow.settimeout(10)
    assert sent == len(read(slow, sent))


def test_sixty_four_connections(proxy: FaultProxy, connect: Connect) -> None:
    """Sixty-four connections at once each get their own answers."""
    clients = [connect(proxy) for _ in range(64)]
    for number, client in enumerate(clients):
        client.sendall(b"%03d" % number)
    assert [b"%03d" % number for number in range(64)] == [read(client, 3) for client in clients]
    assert 64 == proxy.connections == proxy.accepted


def test_orderly_end_is_passed_on(proxy: FaultProxy, connect: Connect, echo: EchoServer) -> None:
    """A client that sends no more still gets its answers, then the end; the server saw an orderly end."""
    client = connect(proxy)
    client.sendall(b"last words")
    client.shutdown(socket.SHUT_WR)
    assert b"last words" == read(client, 100)
    echo.wait_for_ends(1)
    assert ["finished"] == echo.ends
    proxy.wait_for(lambda: proxy.connections == 0)


def test_reset_by_the_client_reaches_the_server(proxy: FaultProxy, connect: Connect, echo: EchoServer) -> None:
    """A client's reset is a reset for the server too."""
    client = connect(proxy)
    assert b"x" == exchange(client, b"x")
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()
    echo.wait_for_ends(1)
    assert ["ECONNRESET"] == echo.ends


def test_unix_socket_upstream(tmp_path: Path, connect: Connect) -> None:
    """The server behind the proxy may listen on a unix socket."""
    listener = socket.socket(socket.AF_UNIX)
    path = str(tmp_path / "s")
    listener.bind(path)
    listener.listen()
    server = EchoServer(listener)
    with FaultProxy(path) as proxy, contextlib.closing(server):
        assert b"by file" == exchange(connect(proxy), b"by file")
        proxy.close()


def test_server_that_is_down_resets_the_client(proxy: FaultProxy, connect: Connect) -> None:
    """With nobody behind the proxy a connection is accepted and reset, and a server set later gets the next."""
    working = proxy.upstream
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))  # and nobody listens there, nor can anybody else
        down_port: int = deaf.getsockname()[1]
        proxy.upstream = down_port
        with pytest.raises(ConnectionResetError):  # at once, or when something is read
            read(connect(proxy), 1)
    proxy.upstream = working
    assert b"back" == exchange(connect(proxy), b"back")


# ---- delay


def test_latency_is_precise(make_proxy: MakeProxy, connect: Connect) -> None:
    """A latency of 5 ms makes round trips of 10 ms: never less, and at their best half a millisecond more."""
    assert 0.010 <= best_round_trip(connect(make_proxy(latency=0.005)), 0.0105) < 0.0105


def test_added_latency_is_small(proxy: FaultProxy, echo: EchoServer, connect: Connect) -> None:
    """Without faults the proxy adds no tick to the best round trip: it waits for bytes, not for time."""
    with socket.create_connection(echo.listener.getsockname()) as direct:
        direct.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        enough = best_round_trip(direct, float("inf")) + 0.005
    assert best_round_trip(connect(proxy), enough) < enough


def test_written_back_to_back_shares_one_round_trip(make_proxy: MakeProxy, connect: Connect) -> None:
    """Chunks sent one after another are delayed side by side, not one behind the other."""
    proxy = make_proxy(latency=0.2)
    client = connect(proxy)
    begun_at = time.monotonic()
    for number in range(150):
        client.sendall(bytes([number]))
        proxy.wait_for(lambda: proxy.bytes_to_server == number + 1)  # so that each is a chunk of its own  # noqa: B023
    assert bytes(range(150)) == read(client, 150)
    assert 0.4 <= time.monotonic() - begun_at < 30.0  # one behind the other would take 60 s


def test_latency_of_one_direction(proxy: FaultProxy, connect: Connect) -> None:
    """A direction's latency is its own."""
    client = connect(proxy)
    proxy.to_client.latency = 0.05
    begun_at = time.monotonic()
    exchange(client, b"x")
    assert time.monotonic() - begun_at >= 0.05
    assert 0.0 == proxy.latency


def test_jitter_keeps_order(make_proxy: MakeProxy, connect: Connect) -> None:
    """Jitter delays differently but never reorders."""
    client = connect(make_proxy(jitter=0.01, seed=7))
    for number in range(100):
        client.sendall(bytes([number]))
    assert bytes(range(100)) == read(client, 100)


def test_end_is_delayed_like_bytes(make_proxy: MakeProxy, connect: Connect) -> None:
    """What was sent before an end arrives before it, later by the latency."""
    client = connect(make_proxy(latency=0.02))
    begun_at = time.monotonic()
    client.sendall(b"bye")
    client.shutdown(socket.SHUT_WR)
    assert b"bye" == read(client, 100)
    assert time.monotonic() - begun_at >= 0.04


# ---- faults


def test_black_hole_swallows_and_keeps_connections_open(proxy: FaultProxy, connect: Connect, echo: EchoServer) -> None:
    """In a black hole nothing comes back and nothing ends; afterwards it works, less what was swallowed."""
    client = connect(proxy)
    assert b"a" == exchange(client, b"a")
    proxy.black_hole = True
    client.sendall(b"lost")
    assert is_silent(client)
    proxy.black_hole = False
    assert b"b" == exchange(client, b"b")
    assert [] == echo.ends


def test_black_hole_towards_the_client_only(proxy: FaultProxy, connect: Connect) -> None:
    """With the answers' direction swallowed, the server still gets what is sent."""
    client = connect(proxy)
    proxy.to_client.black_hole = True
    client.sendall(b"heard")
    proxy.wait_for(lambda: proxy.bytes_to_client == 5)
    assert is_silent(client)


def test_black_hole_hides_the_end(proxy: FaultProxy, connect: Connect, echo: EchoServer) -> None:
    """A client that closes inside a black hole stays connected for the server, until the connection is cut."""
    client = connect(proxy)
    assert b"x" == exchange(client, b"x")
    proxy.to_server.black_hole = True
    client.close()
    proxy.wait_for(lambda: proxy.connections == 1)
    assert [] == echo.ends
    proxy.cut()
    echo.wait_for_ends(1)
    assert 0 == proxy.connections


def test_black_hole_swallows_what_is_under_way(make_proxy: MakeProxy, connect: Connect) -> None:
    """Bytes held back by latency when the black hole opens are lost too."""
    for latency_s in (0.05, 0.5, 5.0):
        proxy = make_proxy(latency=latency_s)
        client = connect(proxy)
        begun_at = time.monotonic()
        client.sendall(b"late")
        proxy.wait_for(lambda: proxy.bytes_to_server == 4)  # noqa: B023
        proxy.black_hole = True
        if time.monotonic() < begun_at + latency_s:  # or else it may have been too late: the same, with more time
            break
    assert is_silent(client, 4 * latency_s)
    assert 0 == proxy.bytes_to_client


def test_reset_is_a_reset(proxy: FaultProxy, connect: Connect, echo: EchoServer) -> None:
    """reset() ends every connection with RST, on both sides."""
    clients = [connect(proxy) for _ in range(3)]
    for client in clients:
        exchange(client, b"x")
    proxy.reset()
    for client in clients:
        assert_reset(client)
    echo.wait_for_ends(3)
    assert ["ECONNRESET"] * 3 == echo.ends


def test_reset_of_one_connection(proxy: FaultProxy, connect: Connect) -> None:
    """reset(number) leaves the other connections alone, and refuses a number that is not there."""
    first, second = connect(proxy), connect(proxy)
    for client in (first, second):
        exchange(client, b"x")
    proxy.reset(1)
    assert_reset(first)
    assert b"y" == exchange(second, b"y")
    with pytest.raises(ValueError, match=r"connection is 1; there are now \[2\]"):
        proxy.reset(1)


def test_cut_is_an_orderly_end(proxy: FaultProxy, connect: Connect, echo: EchoServer) -> None:
    """cut() closes both sides without a reset."""
    client = connect(proxy)
    exchange(client, b"x")
    proxy.cut()
    assert b"" == read(client, 1)
    echo.wait_for_ends(1)
    assert ["finished"] == echo.ends


def test_refusing_and_back_on_the_same_port(proxy: FaultProxy, connect: Connect) -> None:
    """While it refuses, new connections are refused and old ones go on; afterwards the port is the same."""
    old, port = connect(proxy), proxy.port
    exchange(old, b"x")
    proxy.refusing = True
    proxy.refusing = True
    assert proxy.refusing
    with pytest.raises(ConnectionRefusedError):
        connect(proxy)
    assert b"old" == exchange(old, b"old")
    proxy.refusing = False
    assert port == proxy.port
    assert b"new" == exchange(connect(proxy), b"new")


def test_silence_for_new_connections(proxy: FaultProxy, connect: Connect, echo: EchoServer) -> None:
    """A silent proxy accepts, reads and says nothing; old connections go on."""
    old = connect(proxy)
    exchange(old, b"x")
    proxy.silent = True
    new = connect(proxy)
    new.sendall(b"hello?")
    proxy.wait_for(lambda: proxy.bytes_to_server == 7)
    assert is_silent(new)
    assert b"old" == exchange(old, b"old")
    new.close()
    proxy.wait_for(lambda: proxy.connections == 1)
    proxy.silent = False
    assert b"again" == exchange(connect(proxy), b"again")


def test_cut_after_bytes(proxy: FaultProxy, connect: Connect) -> None:
    """Exactly so many more bytes pass, then the connection is closed; each connection has its own count."""
    first = connect(proxy)
    assert b"before" == exchange(first, b"before")
    proxy.to_client.cut_after = 3
    second = connect(proxy)
    for client in (first, second):
        client.sendall(b"abcdef")
        assert b"abc" == read(client, 6)
    proxy.to_client.cut_after = None
    assert b"abcdef" == exchange(connect(proxy), b"abcdef")


def test_cut_after_no_byte(proxy: FaultProxy, connect: Connect) -> None:
    """With 0 the next byte closes the connection and does not pass."""
    client = connect(proxy)
    exchange(client, b"x")
    proxy.to_server.cut_after = 0
    client.sendall(b"y")
    assert b"" == read(client, 1)
    assert 1 == proxy.bytes_to_client


def test_heal_takes_everything_back(proxy: FaultProxy, connect: Connect) -> None:
    """After heal() the proxy is as new."""
    proxy.latency = proxy.jitter = 60.0
    proxy.black_hole = proxy.silent = proxy.refusing = True
    proxy.to_server.cut_after = 0
    proxy.heal()
    begun_at = time.monotonic()
    assert b"well" == exchange(connect(proxy), b"well")
    assert time.monotonic() - begun_at < 30.0
    assert repr(Direction()) == repr(proxy.to_server) == repr(proxy.to_client)


# ---- counts


def test_waits_count_turns_from_sending_to_receiving(proxy: FaultProxy, connect: Connect, echo: EchoServer) -> None:
    """Two exchanges wait twice; two chunks sent before the first answer wait once."""
    client = connect(proxy)
    exchange(client, b"one")
    exchange(client, b"two")
    assert 2 == proxy.waits
    proxy.reset_counts()
    echo.gate.clear()
    client.sendall(b"three")
    client.sendall(b"four")
    proxy.wait_for(lambda: proxy.bytes_to_server == 9)
    echo.gate.set()
    assert b"threefour" == read(client, 9)
    assert 1 == proxy.waits


def test_commands_are_read_in_pieces_of_any_size(make_proxy: MakeProxy, connect: Connect) -> None:
    """Packets cut anywhere are counted once each, the client's answer to the handshake not at all."""
    proxy = make_proxy(counting="mysql")
    client = connect(proxy)
    stream = packet(1, bytes(32) + b"user\0") + packet(0, b"\x03SELECT 1") + packet(0, b"\x1f") + packet(0, b"\x0e")
    for byte in stream:
        exchange(client, bytes([byte]))
    assert ["COM_QUERY", "COM_RESET_CONNECTION", "COM_PING"] == [command.name for command in proxy.commands]
    assert ["SELECT 1", "", ""] == [command.text for command in proxy.commands]
    proxy.reset_counts()
    assert [] == proxy.commands


def test_what_was_sent_before_a_question_is_in_the_answer(make_proxy: MakeProxy, connect: Connect) -> None:
    """Counts include everything that was sent before they are asked for, answered or not."""
    proxy = make_proxy(counting="mysql", latency=5.0)
    client = connect(proxy)
    client.sendall(packet(1, bytes(40)))
    for number in range(1, 51):
        client.sendall(packet(0, b"\x1f"))
        assert number == len(proxy.commands)


def test_commands_not_asked_for_cannot_be_read(proxy: FaultProxy) -> None:
    """Without counting the list of commands is an error, not empty."""
    with pytest.raises(CannotCount, match="counting="):
        _ = proxy.commands


def test_encrypted_commands_cannot_be_read(make_proxy: MakeProxy, connect: Connect) -> None:
    """A client that asks for TLS makes the list of commands an error that says so."""
    proxy = make_proxy(counting="mysql")
    exchange(connect(proxy), packet(1, struct.pack("<I", 1 << 11) + bytes(28)))
    with pytest.raises(CannotCount, match="encrypted"):
        _ = proxy.commands
    assert 1 == proxy.waits
    proxy.reset_counts()
    assert [] == proxy.commands


def test_wait_for_gives_up(proxy: FaultProxy) -> None:
    """A condition that stays false ends in TimeoutError."""
    with pytest.raises(TimeoutError, match=r"after 0\.05 s"):
        proxy.wait_for(lambda: proxy.connections == 1, timeout=0.05)


# ---- life


def test_close_leaves_no_thread_and_no_socket(echo: EchoServer, connect: Connect) -> None:
    """After close() threads and descriptors are as before; closing twice is harmless and counts stay readable."""
    before = set(threading.enumerate())
    descriptors = len(list(Path("/proc/self/fd").iterdir()))
    upstream: int = echo.listener.getsockname()[1]
    proxy = FaultProxy(upstream, counting="mysql", latency=60.0)
    assert ["millpond-fault-proxy"] == [thread.name for thread in set(threading.enumerate()) - before]
    client = connect(proxy)
    client.sendall(packet(1, bytes(40)) + packet(0, b"\x0e"))
    proxy.wait_for(lambda: len(proxy.commands) == 1)
    proxy.close()
    proxy.close()
    client.close()
    echo.wait_for_ends(1)
    assert not {thread.name for thread in threading.enumerate()} & {"millpond-fault-proxy"}
    assert descriptors == len(list(Path("/proc/self/fd").iterdir()))
    assert ["COM_PING"] == [command.name for command in proxy.commands]
    assert 0 == proxy.connections
    with pytest.raises(ConnectionRefusedError):
        connect(proxy)


def test_a_process_that_may_open_no_more_files_is_told(echo: EchoServer) -> None:
    """That is no end of a client, which would only be one more reset: whoever asks or waits is told, at once."""
    upstream: int = echo.listener.getsockname()[1]
    proxy = FaultProxy(upstream)
    with socket.socket() as client:
        with no_descriptor_left():
            client.connect(proxy.address)
            with pytest.raises(RuntimeError, match="Too many open files"):
                proxy.wait_for(lambda: False, timeout=600)
        with pytest.raises(RuntimeError, match="Too many open files"):
            _ = proxy.accepted
        with pytest.raises(RuntimeError, match="Too many open files") as failed:
            proxy.close()
        assert isinstance(failed.value.__cause__, OSError)


def test_nothing_comes_true_in_a_proxy_that_is_closed(proxy: FaultProxy) -> None:
    """Waiting for it ends in time."""
    proxy.close()
    with pytest.raises(TimeoutError, match=r"after 0\.05 s"):
        proxy.wait_for(lambda: False, timeout=0.05)


def test_port_of_choice_that_is_taken(proxy: FaultProxy) -> None:
    """A port that another holds is an error, and leaves no thread."""
    threads = threading.active_count()
    with pytest.raises(OSError, match="in use"):
        FaultProxy(1, port=proxy.port)
    assert threads == threading.active_count()


def test_bad_settings_are_named(proxy: FaultProxy) -> None:
    """A setting out of bounds is refused by its name, and changes nothing."""
    with pytest.raises(ValueError, match="latency is -1"):
        proxy.latency = -1
    with pytest.raises(ValueError, match="jitter is nan"):
        proxy.to_client.jitter = float("nan")
    with pytest.raises(ValueError, match="cut_after is -1"):
        proxy.to_client.cut_after = -1
    with pytest.raises(ValueError, match="upstream is 0"):
        proxy.upstream = 0
    with pytest.raises(ValueError, match="counting is 'http'"):
        FaultProxy(1, counting="http")  # type: ignore[arg-type]  # that is the test
    assert 0.0 == proxy.latency == proxy.to_client.jitter
