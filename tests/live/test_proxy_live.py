"""FaultProxy between PyMySQL and real servers: commands and waits counted, and what a driver sees of each fault."""

from __future__ import annotations

import struct
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import pymysql
import pytest
from pymysql.constants import COMMAND

from millpond.testing.proxy import CannotCount, FaultProxy
from millpond.testing.servers import ScratchServer

Connection: TypeAlias = "pymysql.Connection[Any]"
Connect: TypeAlias = "Callable[..., Connection]"
LOST = (2006, 2013)


@pytest.fixture
def proxy(server: ScratchServer) -> Iterator[FaultProxy]:
    """Return a proxy that counts commands, in front of each server in turn."""
    with FaultProxy(server.port, counting="mysql") as running:
        yield running


@pytest.fixture
def connect(server: ScratchServer, proxy: FaultProxy) -> Iterator[Connect]:
    """Return a function that connects through the proxy, without TLS unless asked; all is closed after the test."""
    connections: list[Connection] = []

    def connect_by_proxy(tls: bool = False, **changes: Any) -> Connection:
        arguments = server.connect_args(port=proxy.port, tls=tls) | {"autocommit": True} | changes
        connections.append(pymysql.connect(**arguments))
        return connections[-1]

    yield connect_by_proxy
    proxy.heal()
    proxy.reset()
    for connection in connections:
        if connection.open:
            connection.close()


def select_one(connection: Connection) -> int:
    """Run SELECT 1 and return what it gives."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")
        ((one,),) = cursor.fetchall()
    return int(one)


def assert_lost(connection: Connection) -> None:
    """Fail unless the next statement finds the connection lost."""
    with pytest.raises(pymysql.err.OperationalError) as lost:
        select_one(connection)
    assert lost.value.args[0] in LOST


def test_one_statement_is_one_command_and_one_wait(proxy: FaultProxy, connect: Connect) -> None:
    """SELECT 1 is exactly one COM_QUERY, with its text, and one wait."""
    connection = connect()
    proxy.reset_counts()
    assert 1 == select_one(connection)
    assert [("COM_QUERY", "SELECT 1")] == [(command.name, command.text) for command in proxy.commands]
    assert 1 == proxy.waits


def test_what_a_connect_costs_beyond_the_handshake(proxy: FaultProxy, connect: Connect) -> None:
    """PyMySQL's own commands at connect are seen; the handshake and the authentication are not among them."""
    connect().close()
    proxy.wait_for(lambda: "COM_QUIT" in [command.name for command in proxy.commands])
    *before, last = [command.name for command in proxy.commands]
    assert "COM_QUIT" == last
    assert {"COM_QUERY"} == set(before)


def test_each_kind_of_command_counts_once(proxy: FaultProxy, connect: Connect) -> None:
    """Ping, change of schema and quit are counted under their names."""
    connection = connect()
    proxy.reset_counts()
    connection.ping(reconnect=False)
    connection.select_db("scratch")
    connection.close()
    proxy.wait_for(lambda: len(proxy.commands) == 3)
    assert ["COM_PING", "COM_INIT_DB", "COM_QUIT"] == [command.name for command in proxy.commands]


def test_large_statement_and_large_answer(proxy: FaultProxy, connect: Connect) -> None:
    """A statement of one megabyte, answered by as much, passes whole and is one command."""
    connection = connect()
    proxy.reset_counts()
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT '{'x' * 1_000_000}'")
        assert ("x" * 1_000_000,) == cursor.fetchone()
    assert 1 == len(proxy.commands)
    assert proxy.bytes_to_client > 1_000_000


def test_tls_is_carried_and_said_to_be_unreadable(proxy: FaultProxy, connect: Connect) -> None:
    """Under TLS statements work and waits are counted; asking for commands is an error, not a wrong number."""
    connection = connect(tls=True)
    proxy.reset_counts()
    assert 1 == select_one(connection)
    assert 1 == proxy.waits
    with pytest.raises(CannotCount, match="encrypted"):
        _ = proxy.commands


def test_latency_is_paid_once_by_each_statement(proxy: FaultProxy, connect: Connect) -> None:
    """With 20 ms each way ten statements wait ten times, each for 40 ms."""
    connection = connect()
    proxy.latency = 0.02
    proxy.reset_counts()
    for _ in range(10):
        begun_at = time.monotonic()
        select_one(connection)
        assert time.monotonic() - begun_at >= 0.04
    assert 10 == proxy.waits


def test_commands_written_together_share_a_wait(
    proxy: FaultProxy, connect: Connect, as_root: Callable[[ScratchServer], Connection], server: ScratchServer
) -> None:
    """Two commands sent before the first is answered are two commands and one wait."""
    wire: Any = connect()
    holder = as_root(server)
    with holder.cursor() as cursor:
        cursor.execute("SELECT GET_LOCK('gate', 0)")
    proxy.reset_counts()
    wire._execute_command(COMMAND.COM_QUERY, "DO GET_LOCK('gate', 60)")
    wire._write_bytes(struct.pack("<I", 1) + bytes([COMMAND.COM_PING]))
    proxy.wait_for(lambda: len(proxy.commands) == 2)
    with holder.cursor() as cursor:
        cursor.execute("SELECT RELEASE_LOCK('gate')")
    wire._read_ok_packet()
    wire._next_seq_id = 1
    wire._read_ok_packet()
    assert ["COM_QUERY", "COM_PING"] == [command.name for command in proxy.commands]
    assert 1 == proxy.waits


def test_black_hole_is_silence_for_the_driver(proxy: FaultProxy, connect: Connect) -> None:
    """A statement into a black hole gets nothing until the driver's own read time-out."""
    connection = connect(read_timeout=1)
    proxy.black_hole = True
    assert_lost(connection)
    assert 1 == proxy.connections


def test_reset_and_cut_are_a_lost_connection(proxy: FaultProxy, connect: Connect) -> None:
    """The driver reports a connection that was reset or cut as lost, with its own error number."""
    reset, cut = connect(), connect()
    proxy.reset(1)
    assert_lost(reset)
    assert 1 == select_one(cut)
    proxy.cut(2)
    assert_lost(cut)


def test_answer_cut_in_the_middle(proxy: FaultProxy, connect: Connect) -> None:
    """An answer that ends after some bytes is a lost connection."""
    connection = connect()
    proxy.to_client.cut_after = 20
    assert_lost(connection)


def test_refused_connections(proxy: FaultProxy, connect: Connect) -> None:
    """While the proxy refuses, connecting fails as with a server that is down; afterwards it works."""
    proxy.refusing = True
    with pytest.raises(pymysql.err.OperationalError) as refused:
        connect()
    assert 2003 == refused.value.args[0]
    proxy.refusing = False
    assert 1 == select_one(connect())


def test_silent_server_costs_the_drivers_own_time_out(proxy: FaultProxy, connect: Connect) -> None:
    """A connection that is accepted and never greeted ends only by the driver's time-out."""
    proxy.silent = True
    with pytest.raises(pymysql.err.OperationalError) as timed_out:
        connect(read_timeout=1, connect_timeout=1)
    assert timed_out.value.args[0] in (2003, *LOST)


def test_counts_over_many_threads(proxy: FaultProxy, connect: Connect) -> None:
    """Sixteen threads with twenty statements each make 320 commands and 320 waits."""
    connections = [connect() for _ in range(16)]
    proxy.reset_counts()

    def work(connection: Connection) -> None:
        for _ in range(20):
            select_one(connection)

    threads = [threading.Thread(target=work, args=(connection,)) for connection in connections]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert 320 == len(proxy.commands)
    assert 320 == proxy.waits
    assert 16 == len({command.connection for command in proxy.commands})
