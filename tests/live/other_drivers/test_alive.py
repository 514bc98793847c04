"""A dead connection is not handed out, a hung one costs its deadline, and a connection that fails says why."""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

import mysql.connector
import pytest

import millpond
from millpond._core.states import Fault
from millpond.testing import ScratchServer
from tests.live.asking import DEADLINE_S, ask, wait_until

from .roads import TABLE, Road, close_quietly, thread_of


def unbuffered(road: Road, conn: Any) -> Any:
    """Return a cursor that leaves rows with the server until they are asked for."""
    if road.driver == "mysqlclient":
        return conn.cursor(importlib.import_module("MySQLdb.cursors").SSCursor)
    return conn.cursor()


def number_of(error: BaseException) -> int:
    """Return the number that a driver gives an error."""
    found: int = getattr(error, "errno", None) or error.args[0]
    return found


# -- dead connections --------------------------------------------------------------------------------------------------
def assert_replaced(road: Road, end: Callable[[int], object], **settings: Any) -> None:
    """See that a connection that was ended while idle is replaced before anybody gets it."""
    driver = road.adapter(**settings)
    with millpond.Pool(driver, max_size=1) as pool:
        with pool.connection() as conn:
            first, raw = thread_of(conn), conn.driver_connection
        end(first)
        assert driver.is_readable is not None
        readable = driver.is_readable
        wait_until(lambda: readable(raw))
        polled_at = time.monotonic() + 0.005  # one that came back a moment ago is not polled
        wait_until(lambda: time.monotonic() > polled_at)
        with pool.connection() as conn:
            assert first != thread_of(conn)
        assert 1 == pool.stats().retired["dead"]


def test_a_killed_connection_is_not_handed_out(polled_road: Road) -> None:
    """A connection that was killed while idle is replaced before anybody sees it, without a ping."""
    assert_replaced(polled_road, polled_road.kill)


def test_a_killed_connection_is_not_handed_out_under_tls(polled_tls_road: Road) -> None:
    """The same under TLS, where the farewell is a record that nobody has asked for."""
    assert_replaced(polled_tls_road, polled_tls_road.kill)


def test_wait_timeout_is_noticed(polled_road: Road) -> None:
    """A connection that the server has closed for idling is replaced before anybody sees it."""
    assert_replaced(polled_road, lambda _: None, reset="none", on_connect="SET wait_timeout = 1")


def test_a_reset_by_the_network_is_noticed(polled_road: Road) -> None:
    """A connection that the network has reset is replaced before anybody sees it."""
    assert_replaced(polled_road, lambda _: polled_road.proxy.reset())


def test_a_connection_closed_by_its_borrower_is_replaced(road: Road) -> None:
    """Closing the driver's own connection costs that connection, and nothing else."""
    pool = road.pool()
    with pool.connection() as conn:
        first = thread_of(conn)
        conn.driver_connection.close()
    with pool.connection() as conn:
        assert first != thread_of(conn)


def test_a_long_reply_left_unread_costs_the_connection(road: Road) -> None:
    """An unbuffered result that was not read to its end is not read by anybody, and its connection is replaced."""
    pool = road.pool()
    with pool.connection() as conn:
        first = thread_of(conn)
        cursor = unbuffered(road, conn)
        cursor.execute(
            "SELECT a.b FROM " + ", ".join(f"(SELECT 1 b UNION SELECT 2) {name}" for name in "abcdefghijklmn")
        )
        cursor.fetchone()
    before_at = time.monotonic()
    with pool.connection() as conn:
        assert first != thread_of(conn)
    assert time.monotonic() - before_at < DEADLINE_S


def test_a_short_reply_left_unread_is_read(road: Road) -> None:
    """What is left of a short reply is read at return, and the connection stays."""
    pool = road.pool()
    with pool.connection() as conn:
        first = thread_of(conn)
        unbuffered(road, conn).execute(f"SELECT * FROM {TABLE}")
    with pool.connection() as conn:
        assert first == thread_of(conn)


# -- time --------------------------------------------------------------------------------------------------------------
def test_a_black_hole_costs_the_check(polled_road: Road) -> None:
    """A connection behind which packets vanish costs a caller the check's deadline, then comes the next connection."""
    pool = polled_road.pool(check_after=0.0, check_timeout=0.3, connect_timeout=1.0)
    with pool.connection() as conn:
        first = thread_of(conn)
    polled_road.proxy.black_hole = True
    seen: list[int] = []

    def come() -> None:
        with pool.connection() as conn:
            seen.append(thread_of(conn))

    caller = threading.Thread(target=come)
    caller.start()
    try:
        wait_until(lambda: pool.stats().retired.get("dead"))
    finally:
        polled_road.proxy.heal()
        caller.join()
    assert [first] != seen
    assert 1 == len(seen)
    assert 1 == pool.stats().retired["dead"]


def test_a_reset_that_is_not_answered_is_given_up(polled_road: Road) -> None:
    """A connection whose reset vanishes is closed by its deadline, and its close does not wait either."""
    driver = polled_road.adapter()
    conn = driver.open(time.monotonic() + DEADLINE_S)
    ask(conn, "SET @a = 1")
    polled_road.proxy.black_hole = True
    before_at = time.monotonic()
    try:
        is_reset = driver.reset(conn, before_at + 0.2)
    except polled_road.module.Error:
        is_reset = False
    driver.close(conn)
    assert not is_reset
    assert 0.15 < time.monotonic() - before_at < DEADLINE_S


def test_a_silent_server_costs_the_dials_deadline(road: Road) -> None:
    """A server that accepts and says nothing is given up in time: to the next whole second, where C dials."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        driver = road.adapter(connect_args={"port": silent.getsockname()[1]})
        before_at = time.monotonic()
        with pytest.raises(Exception) as caught:  # noqa: PT011  each driver has its own
            driver.open(before_at + 0.3)
        assert 0.25 < time.monotonic() - before_at < DEADLINE_S
        assert driver.classify(caught.value) in (Fault.GONE, Fault.REFUSED, Fault.TRANSIENT)


# -- errors ------------------------------------------------------------------------------------------------------------
def dial_with(road: Road, **arguments: Any) -> Callable[[], object]:
    """Return what connects with other arguments, past the proxy."""
    driver = road.adapter(connect_args={"port": road.server.port} | arguments)
    return lambda: driver.open(time.monotonic() + DEADLINE_S)


def unused_port() -> int:
    """Return a port where nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


def provoked(road: Road, name: str) -> BaseException:
    """Return the error of that name, as the driver raises it for a real server."""
    dials = {
        "wrong password": lambda: dial_with(road, password="wrong"),
        "wrong database": lambda: dial_with(road, user="root", password=root_password(road), database="no_such"),
        "refused": lambda: dial_with(road, port=unused_port()),
        "unknown host": lambda: dial_with(road, host="no-such-host.invalid"),
    }
    with pytest.raises(Exception) as caught:  # noqa: PT011  each driver has its own
        (dials[name]() if name in dials else statement_of(road, name))()
    return caught.value


def root_password(road: Road) -> str:
    """Return the administrator's password."""
    return str(road.server.connect_args(user="root")["password"])


def statement_of(road: Road, name: str) -> Callable[[], object]:
    """Return what fails on a connection that is open."""
    conn = road.adapter().open(time.monotonic() + DEADLINE_S)
    road.closing.callback(close_quietly, conn)
    if name == "killed":
        road.kill(thread_of(conn))
    if name == "lock wait":
        root = road.root()
        ask(root, "BEGIN")
        ask(root, f"UPDATE {road.server.database}.{TABLE} SET b = 2 WHERE a = 1")
        ask(conn, "SET innodb_lock_wait_timeout = 1")
    statements = {
        "killed": "SELECT 1",
        "lock wait": f"UPDATE {TABLE} SET b = 3 WHERE a = 1",
        "duplicate": f"INSERT INTO {TABLE} VALUES (1, 1)",
        "syntax": "SELEKT 1",
        "outfile": "SELECT 1 INTO OUTFILE '/nowhere/at/all'",
        "read only transaction": f"INSERT INTO {TABLE} VALUES (7, 7)",
        "signal": "SIGNAL SQLSTATE '45000' SET MYSQL_ERRNO = 1213",
    }
    if name == "read only transaction":
        ask(conn, "START TRANSACTION READ ONLY")
    return lambda: ask(conn, statements[name])


PROVOKED: dict[str, tuple[Fault, tuple[int, ...]]] = {
    "wrong password": (Fault.CREDENTIALS, (1045, 2061)),  # 2061: without TLS the C library gives up before
    "wrong database": (Fault.CREDENTIALS, (1049,)),
    "refused": (Fault.REFUSED, (2002, 2003)),
    "unknown host": (Fault.REFUSED, (2002, 2003, 2005)),
    "killed": (Fault.GONE, (2006, 2013, 2055, 1927, 4031)),
    "lock wait": (Fault.TRANSIENT, (1205,)),
    "duplicate": (Fault.STATEMENT, (1062,)),
    "syntax": (Fault.STATEMENT, (1064,)),
    "outfile": (Fault.STATEMENT, (1290, 1045, 1, 1227)),
    "read only transaction": (Fault.STATEMENT, (1792,)),
    "signal": (Fault.TRANSIENT, (1213,)),
}


@pytest.mark.parametrize("name", PROVOKED)
def test_errors_are_sorted(road: Road, name: str) -> None:
    """Errors that a real server has caused are sorted by whose fault they are."""
    fault, numbers = PROVOKED[name]
    error = provoked(road, name)
    if name != "outfile":  # without the privilege it is 1045, and no fault of who logs in
        assert fault is road.adapter().classify(error)
    assert number_of(error) in numbers


def test_a_full_server_is_told_from_others(start_server: Callable[..., ScratchServer]) -> None:
    """Error 1040 of a server without room says just that, by each driver."""
    server = start_server("mariadb", tls=True, options={"max_connections": 10})
    with contextlib.ExitStack() as closing:
        for driver in ("mysqlclient", "mysqlconnector"):
            road = Road(driver, server, closing)
            assert Fault.SERVER_FULL is road.adapter().classify(first_error(road.raw, 30))
            closing.pop_all().close()


def first_error(call: Callable[[], object], times: int) -> BaseException:
    """Return the first exception of several calls."""
    for _ in range(times):
        try:
            call()
        except Exception as error:  # noqa: BLE001  each driver has its own
            return error
    raise AssertionError(f"none of {times} calls has failed")


def test_two_threads_on_one_connection_are_named(polled_road: Road) -> None:
    """A second thread on a connection that waits for a reply is an error that names both."""
    pool = polled_road.pool()
    conn = pool.connection()
    number = thread_of(conn)
    root = polled_road.root()
    asleep = threading.Thread(target=lambda: attempt(conn, "SELECT SLEEP(120)"), name="the-sleeper")
    asleep.start()
    running = f"SELECT 1 FROM information_schema.PROCESSLIST WHERE ID = {number} AND INFO LIKE '%SLEEP%'"
    wait_until(lambda: ask(root, running))
    with pytest.raises(millpond.ConcurrentUse, match=r"'the-sleeper'.*'MainThread'"):
        ask(conn, "SELECT 1")
    ask(root, f"KILL QUERY {number}")
    asleep.join(DEADLINE_S)
    assert not asleep.is_alive()
    conn.close()


def attempt(conn: Any, statement: str) -> None:
    """Run a statement that may be killed."""
    with contextlib.suppress(Exception):
        ask(conn, statement)


# -- TLS, credentials, processes ---------------------------------------------------------------------------------------
def cipher_of(conn: Any) -> str:
    """Return the cipher of a connection; empty in the clear."""
    return str(ask(conn, "SHOW STATUS LIKE 'Ssl_cipher'")[0][1])


@pytest.mark.parametrize(
    ("mode", "encrypted"), [("disabled", False), ("preferred", True), ("required", True), ("verify-ca", True)]
)
def test_tls_is_as_it_was_asked_for(polled_road: Road, mode: str, encrypted: bool) -> None:
    """Each word for TLS gives what it says on a server that has it."""
    ca = f"&ssl_ca={polled_road.server.ca_file}" if mode.startswith("verify") else ""
    url = polled_road.server.url(polled_road.driver).partition("?")[0]
    with millpond.Pool(f"{url}?ssl={mode}{ca}", max_size=1) as pool, pool.connection() as conn:
        assert encrypted == bool(cipher_of(conn))


@pytest.mark.parametrize("driver", ["mysqlclient", "mysqlconnector"])
def test_required_tls_is_never_weaker(start_server: Callable[..., ScratchServer], driver: str) -> None:
    """A server without TLS gets no credentials where TLS is required, and a connection where it is preferred."""
    server = start_server("mariadb", tls=False)
    url = server.url(driver).partition("?")[0]
    with (
        millpond.Pool(f"{url}?ssl=required", max_size=1, timeout=DEADLINE_S) as pool,
        pytest.raises(Exception, match=r"(?i)TLS|SSL"),
    ):
        pool.connection()
    with millpond.Pool(f"{url}?ssl=preferred", max_size=1) as pool, pool.connection() as conn:
        assert "" == cipher_of(conn)


def test_required_tls_over_a_unix_socket_says_who_has_none(server: ScratchServer) -> None:
    """mysql-connector-python speaks none there, whatever the server has."""
    given = server.connect_args(socket=True)
    where = f"{given['user']}:{given['password']}@localhost/{given['database']}?unix_socket={given['unix_socket']}"
    with (
        millpond.Pool(f"mysql+mysqlconnector://{where}&ssl=required", max_size=1) as pool,
        pytest.raises(mysql.connector.Error, match="this driver has none over unix sockets"),
    ):
        pool.connection()


def test_credentials_are_asked_anew_at_each_dial(road: Road) -> None:
    """A password that is a callable is called for each connection."""
    asked: list[str] = []
    password = road.arguments()["password"]

    def current() -> str:
        asked.append("now")
        return str(password)

    pool = road.pool(connect_args={"password": current})
    with pool.connection() as conn:
        ask(conn, "SELECT 1")
    pool.drain()
    with pool.connection() as conn:
        ask(conn, "SELECT 1")
    assert ["now", "now"] == asked


def test_a_forked_child_leaves_the_parents_session_alone(road: Road) -> None:
    """What a child drops, by its end at the latest, does not end the parent's session: destructors speak to nobody."""
    pool = road.pool()
    with pool.connection() as conn:
        first = thread_of(conn)
    child = os.fork()
    if child == 0:  # pragma: no cover  another process: here destructors run
        del conn, pool
        gc.collect()
        os._exit(0)
    assert (child, 0) == os.waitpid(child, 0)
    with pool.connection() as conn:
        assert first == thread_of(conn)


TOO_LONG = pytest.mark.parametrize("length", [(1 << 20) + 2048, 8 << 20], ids=["just", "by far"])


def assert_called_too_long(road: Road, length: int) -> None:
    """It is error 1153 however the link broke, and costs its own connection only."""
    ((before,),) = ask(road.root(), "SELECT @@global.max_allowed_packet")
    ask(road.root(), f"SET GLOBAL max_allowed_packet = {1 << 20}")
    try:
        pool = road.pool()
        with pool.connection() as conn:
            first = thread_of(conn)
            with pytest.raises(road.module.OperationalError) as told:
                ask(conn, f"SELECT LENGTH('{'x' * length}')")
        assert 1153 == number_of(told.value)
        with pool.connection() as conn:
            assert first != thread_of(conn)
    finally:
        ask(road.root(), f"SET GLOBAL max_allowed_packet = {before}")


@TOO_LONG
def test_a_statement_that_is_too_long_is_called_that(polled_road: Road, length: int) -> None:
    """In the clear the server's own error gets through where the statement is just too long."""
    assert_called_too_long(polled_road, length)


@TOO_LONG
def test_under_tls_a_statement_that_is_too_long_is_called_that(polled_tls_road: Road, length: int) -> None:
    """Under TLS it gets lost sooner."""
    assert_called_too_long(polled_tls_road, length)
