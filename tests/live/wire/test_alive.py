"""Alive without asking: what the server or the network ends while a connection is idle is never seen by a borrower."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

import pymysql
import pytest

import millpond
from millpond.testing import ScratchServer
from tests.live.asking import answer, ask, wait_until

from .ways import TABLE, Way, has_ended

SLACK_S = 20.0  # that a machine may be slow; what is missed otherwise has no end
QUIET_S = 0.001  # a connection that answered so short a time ago is handed out unseen


def killed_in(way: Way, pool: millpond.Pool[Any], *statements: str) -> int:
    """Use a connection, give it back, kill it, and wait until the news is here; return which session it was."""
    with pool.connection() as conn:
        sock: Any = conn._sock
        number: int = conn.thread_id()
        for statement in statements:
            ask(conn, statement)
    way.kill(number)
    wait_until(lambda: has_ended(sock))
    wait_out_the_quiet()
    return number


def wait_out_the_quiet() -> None:
    """Wait until a connection that has just been given back is looked at before it is handed out."""
    returned_at = time.monotonic()
    wait_until(lambda: time.monotonic() - returned_at > 2 * QUIET_S)


def first_of(pool: millpond.Pool[Any]) -> tuple[int, list[Any]]:
    """Take a connection and use it; return which session it was, and what it answered."""
    with pool.connection() as conn:
        return conn.thread_id(), ask(conn, f"SELECT b FROM {TABLE} WHERE a = 1")


@pytest.mark.parametrize("autocommit", [True, False])
def test_a_killed_connection_is_not_handed_out(way: Way, autocommit: bool) -> None:
    """A connection that was killed while idle is replaced before anybody gets it; also behind an unread ROLLBACK."""
    pool = way.pool(connect_args={"autocommit": autocommit})
    for _ in range(3):
        killed = killed_in(way, pool, f"SELECT * FROM {TABLE}")
        again, rows = first_of(pool)
        assert (True, [(1,)]) == (again != killed, rows)


def test_a_connection_killed_after_its_reset_was_answered(way: Way) -> None:
    """The answer to a reset proves nothing about now: what follows it is looked at as well."""
    pool = way.pool()
    killed = killed_in(way, pool, "SET @a = 1")
    again, rows = first_of(pool)
    assert (True, [(1,)]) == (again != killed, rows)


def test_wait_timeout(way: Way) -> None:
    """A connection that the server closed for being idle is replaced, whatever it said before."""
    pool = way.pool(on_connect="SET wait_timeout = 1")
    with pool.connection() as conn:
        first, sock = conn.thread_id(), conn._sock
    wait_until(lambda: has_ended(sock))
    again, rows = first_of(pool)
    assert (True, [(1,)]) == (again != first, rows)


@pytest.mark.parametrize("kind", ["mariadb", "mysql"])
def test_a_server_that_is_restarted(kind: str, start_server: Callable[..., ScratchServer]) -> None:
    """After a shutdown the idle connections are replaced, and a caller meanwhile waits inside its deadline."""
    server = start_server(kind, tls=True)
    with millpond.Pool(server.url(), max_size=2, timeout=30) as pool:
        with pool.connection() as one, pool.connection() as two:
            assert [[(1,)], [(1,)]] == [ask(one, "SELECT 1"), ask(two, "SELECT 1")]
        server.restart()
        with pool.connection() as one, pool.connection() as two:
            assert [[(1,)], [(1,)]] == [ask(one, "SELECT 1"), ask(two, "SELECT 1")]


def test_anything_unread_is_not_handed_out(way: Way) -> None:
    """A connection on which its server still has something to say is not as it was left."""
    pool = way.pool()
    with pool.connection() as conn:
        first = conn.thread_id()
        stray: Any = conn.driver_connection
    stray._execute_command(3, "SELECT 1")  # by somebody who kept the driver's own object
    wait_until(lambda: pool.driver.is_readable is not None and pool.driver.is_readable(stray))
    wait_out_the_quiet()
    again, rows = first_of(pool)
    assert (True, [(1,)]) == (again != first, rows)


def test_a_check_of_a_black_hole_costs_its_deadline(way: Way) -> None:
    """Packets that are dropped cost a caller the check's deadline; then it gets a connection that works."""
    pool = way.pool(check_after=0.0, check_timeout=0.3, connect_timeout=1.0)
    first, _rows = first_of(pool)
    way.proxy.to_server.black_hole = True
    began_at = time.monotonic()
    seen: list[Any] = []
    caller = threading.Thread(target=lambda: seen.append(first_of(pool)))
    caller.start()
    wait_until(lambda: pool.stats().retired.get("dead", 0) == 1)
    took_s = time.monotonic() - began_at
    way.proxy.heal()
    caller.join(30)
    assert 0.3 <= took_s < 0.3 + SLACK_S
    assert (True, [(1,)]) == (seen[0][0] != first, seen[0][1])


@pytest.mark.parametrize("spoil", ["SET @a = 1", "BEGIN"])
def test_a_cleaning_that_is_never_answered(way: Way, spoil: str) -> None:
    """What is sent into a black hole at return holds a caller up for the check's deadline at most."""
    pool = way.pool(check_timeout=0.3, connect_timeout=1.0)
    with pool.connection() as conn:
        first = conn.thread_id()
        ask(conn, spoil)
        way.proxy.black_hole = True
    began_at = time.monotonic()
    wait_until(lambda: time.monotonic() - began_at > (1.1 if spoil == "BEGIN" else 0.0))
    seen: list[Any] = []
    caller = threading.Thread(target=lambda: seen.append(first_of(pool)))
    asked_at = time.monotonic()
    caller.start()
    wait_until(lambda: pool.stats().retired.get("dead", 0) == 1)
    took_s = time.monotonic() - asked_at
    way.proxy.heal()
    caller.join(30)
    assert took_s < 0.3 + SLACK_S
    assert (True, [(1,)]) == (seen[0][0] != first, seen[0][1])


def test_when_one_connection_breaks_the_others_are_asked(plain_way: Way) -> None:
    """A link that broke in a borrower's hands makes every idle one suspect: it is pinged before it is handed out."""
    pool = plain_way.pool(max_size=2)
    with pool.connection() as one, pool.connection() as two:
        ask(two, "SELECT 1")
        plain_way.kill(one.thread_id())
        assert answer(one, "SELECT 1") in (2006, 2013, 1927, 4031)
        two.close()
    plain_way.proxy.reset_counts()
    first_of(pool)
    assert ["COM_PING", "COM_QUERY"] == [command.name for command in plain_way.proxy.commands]


def test_an_error_of_a_statement_makes_nobody_suspect(plain_way: Way) -> None:
    """A duplicate key is nobody's death."""
    pool = plain_way.pool(max_size=2)
    with pool.connection() as one, pool.connection() as two:
        ask(two, "SELECT 1")
        two.close()
        assert 1062 == answer(one, f"INSERT INTO {TABLE} VALUES (1, 1)")
    plain_way.proxy.reset_counts()
    first_of(pool)
    assert "COM_PING" not in [command.name for command in plain_way.proxy.commands]


def test_sockets_are_kept_alive(way: Way) -> None:
    """The system probes idle links and gives up on unconfirmed bytes within a minute, instead of hours."""
    pool = way.pool()
    with pool.connection() as conn:
        sock: Any = conn._sock
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        assert (30, 10, 3, 60_000) == tuple(
            sock.getsockopt(socket.IPPROTO_TCP, getattr(socket, name))
            for name in ("TCP_KEEPIDLE", "TCP_KEEPINTVL", "TCP_KEEPCNT", "TCP_USER_TIMEOUT")
        )


def test_two_threads_on_one_connection_are_both_named(way: Way) -> None:
    """A second thread that uses a connection while the first waits on it is told, and told of both."""
    pool = way.pool()
    other = way.raw()
    ask(other, "SELECT GET_LOCK('two threads', 0)")
    told: list[BaseException] = []
    with pool.connection() as conn:

        def intrude() -> None:
            try:
                ask(conn, "SELECT 1")
            except millpond.ConcurrentUse as error:
                told.append(error)

        def wait() -> None:
            ask(conn, "SELECT GET_LOCK('two threads', 60)")

        waiter = threading.Thread(target=wait, name="first-of-two")
        waiter.start()
        session: Any = conn._millpond
        wait_until(lambda: session.holder)
        intruder = threading.Thread(target=intrude, name="second-of-two")
        intruder.start()
        intruder.join(10)
        other.close()  # and with it the lock
        waiter.join(10)
        assert [(2,)] == ask(conn, "SELECT 2")
    (error,) = told
    assert isinstance(error, pymysql.err.InterfaceError)
    assert ("first-of-two" in str(error), "second-of-two" in str(error)) == (True, True)


def test_a_command_in_flight_costs_the_connection(way: Way) -> None:
    """A connection given back while another thread waits on it is not handed on, and that thread waits no longer."""
    pool = way.pool()
    lease = pool.connection()
    first = lease.thread_id()
    conn: Any = lease.driver_connection
    done = threading.Event()

    def wait() -> None:
        with contextlib.suppress(Exception):  # whatever the driver says when its socket is closed under it
            ask(conn, "SELECT SLEEP(60)")
        done.set()

    threading.Thread(target=wait).start()
    wait_until(lambda: conn._millpond.holder)
    lease.close()
    again, _rows = first_of(pool)
    assert again != first
    assert done.wait(10)


def test_a_long_rollback_is_not_handed_out_while_another_is_ready(plain_way: Way) -> None:
    """A connection whose rollback takes long waits aside; callers get the one that is ready."""
    pool = plain_way.pool(max_size=2)
    with pool.connection() as one, pool.connection() as two:
        ready = two.thread_id()
        slow = one.thread_id()
        ask(two, "SELECT 1")
        two.close()
        ask(one, "SET @a = 1")
        plain_way.proxy.to_client.latency = 0.2
    assert (1, 1) == (pool.stats().idle, pool.stats().settling)
    plain_way.proxy.to_client.latency = 0.0
    seen = [first_of(pool)[0] for _ in range(3)]
    assert ([ready] * 3, slow != ready) == (seen, True)


def test_outstanding_answers_are_read_within_a_second_or_so(plain_way: Way) -> None:
    """Nobody has to come for a connection to be ready again."""
    pool = plain_way.pool()
    with pool.connection() as conn:
        ask(conn, "SET @a = 1")
    assert 1 == pool.stats().settling
    wait_until(lambda: pool.stats().idle == 1)
    assert 0 == pool.stats().settling
