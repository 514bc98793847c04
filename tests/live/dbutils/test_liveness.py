"""What DBUtils does when links, servers and threads end, and the drop-in does not; on MariaDB and MySQL."""

from __future__ import annotations

import importlib
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pymysql
import pytest

from millpond.dbutils.pooled_db import PooledDB, TooManyConnectionsError
from millpond.dbutils.steady_db import connect
from millpond.testing import FaultProxy
from tests.dbutils.waiting import DEADLINE_S

from .scenes import Scene, number_of, run

PoolOf = Callable[..., Any]
LOST = pymysql.OperationalError
SHOWN_S = 0.5  # a hang is shown by waiting so long


@pytest.fixture
def proxy(scene: Scene) -> Iterator[FaultProxy]:
    """Return a proxy in front of the scene's server."""
    with FaultProxy(scene.args["port"], counting="mysql") as running:
        yield running


def test_a_silent_server_holds_nobody_up(pool_of: PoolOf, proxy: FaultProxy, is_ours: bool) -> None:
    """A server that accepts and does not greet hangs DBUtils' whole pool for ever; connect_timeout bounds it here."""
    pool = pool_of(port=proxy.port, connect_timeout=1)
    mine = pool.connection()
    proxy.silent = True
    failed: list[BaseException] = []

    def work() -> None:
        try:
            pool.connection()
        except pymysql.MySQLError as error:
            failed.append(error)

    connecting = threading.Thread(target=work, daemon=True)
    connecting.start()
    proxy.wait_for(lambda: proxy.accepted == 2)
    returning = threading.Thread(target=mine.close, daemon=True)
    returning.start()
    returning.join(DEADLINE_S if is_ours else SHOWN_S)
    assert is_ours == (not returning.is_alive())
    connecting.join(DEADLINE_S if is_ours else 1.5)
    assert is_ours == bool(failed)
    proxy.refusing, proxy.silent = True, False
    proxy.reset()
    for thread in (connecting, returning):
        thread.join(DEADLINE_S)


def test_a_long_reply_is_not_read_to_its_end(pool_of: PoolOf, scene: Scene, is_ours: bool) -> None:
    """DBUtils reads the rest of an abandoned unbuffered result at close(), under its lock, to go on with it (M10)."""
    scene.q(
        "INSERT INTO x WITH RECURSIVE n AS (SELECT 1 i UNION ALL SELECT i + 1 FROM n WHERE i < 400) SELECT i, i FROM n"
    )
    pool = pool_of()
    db = pool.connection()
    session = number_of(db)
    cursor = db.cursor(pymysql.cursors.SSCursor)
    cursor.execute("SELECT REPEAT('x', 50) FROM x a, x b")
    assert 50 == len(cursor.fetchone()[0])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyMySQL's own word, when DBUtils makes it read all that is left
        db.close()
    db = pool.connection()
    assert is_ours == (session != number_of(db))  # the same session goes on only when all was read
    assert (1,) == run(db, "SELECT 1")


def test_an_error_in_ping_does_not_end_all_pings(pool_of: PoolOf, scene: Scene, is_ours: bool) -> None:
    """P: DBUtils never pings a connection again whose ping raised an AttributeError once."""
    pings: list[None] = []

    def connect_counted(**arguments: Any) -> Any:
        con: Any = pymysql.connect(**arguments)
        ping = con.ping

        def counted(*given: Any, **named: Any) -> Any:
            pings.append(None)
            if len(pings) == 1:
                raise AttributeError("once")
            return ping(*given, **named)

        con.ping = counted
        return con

    if is_ours:  # the socket would do; a check of the program's own is always made
        steady = connect(connect_counted, ping=(1, lambda con: con.ping(reconnect=False)), **scene.args)
        for _ in range(3):
            steady._ping_check()
        steady.close()
    else:
        pool = pool_of(connect_counted)
        for _ in range(4):
            pool.connection().close()
    assert (3 if is_ours else 1) == len(pings)


def test_connections_of_a_burst_are_closed_when_nobody_uses_them(scene: Scene) -> None:
    """N: DBUtils keeps all connections of a burst for ever; here idle_timeout closes them, down to mincached."""
    original = importlib.import_module("dbutils.pooled_db").PooledDB(pymysql, **scene.args)
    ours = PooledDB(pymysql, mincached=1, idle_timeout=0.3, **scene.args)
    for pool in (original, ours):
        held = [pool.connection() for _ in range(8)]
        for db in held:
            db.close()
    sessions = f"SELECT COUNT(*) FROM information_schema.processlist WHERE db = '{scene.schema}' AND user = 'app'"
    scene.until(lambda: scene.column(sessions) == [8 + 1])
    assert (8, 1) == (len(original._idle_cache), len(ours._idle_cache))
    original.close()
    ours.close()


def test_a_thread_s_connection_ends_with_it(package: str, scene: Scene, is_ours: bool) -> None:
    """N4: DBUtils' PersistentDB keeps it until the Thread object is collected."""
    persist = importlib.import_module(f"{package}.persistent_db").PersistentDB(pymysql, **scene.args)
    threads = [threading.Thread(target=persist.connection) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE_S)
    sessions = f"SELECT COUNT(*) FROM information_schema.processlist WHERE db = '{scene.schema}' AND user = 'app'"
    if is_ours:
        scene.until(lambda: scene.column(sessions) == [0])
    else:
        assert [3] == scene.column(sessions)
    del thread, threads


def test_waiting_ends(scene: Scene) -> None:
    """C1: blocking takes a number of seconds; the error names who holds what."""
    pool = PooledDB(pymysql, maxconnections=1, blocking=0.1, **scene.args)
    held = pool.connection()
    with pytest.raises(TooManyConnectionsError, match=r"test_liveness.py:\d+ in test_waiting_ends") as caught:
        pool.connection()
    assert isinstance(caught.value, pymysql.OperationalError)
    held.close()
    pool.close()


def test_a_dead_link_between_two_uses_is_replaced_before_anything_is_sent(scene: Scene) -> None:
    """A connection that died while it was idle, or between two statements of its own, is not noticed by the program."""
    pool = PooledDB(pymysql, autocommit=True, setsession=["SET @ours = 7"], **scene.args)
    db = pool.connection()
    run(db, "SELECT 1")
    scene.kill(number_of(db))
    assert (7,) == run(db, "SELECT @ours")  # setsession is there after a reconnect
    db.close()
    db = pool.connection()
    scene.kill(number_of(db))
    run(db, "INSERT INTO x VALUES (1, 0)")
    db.close()
    assert [1] == scene.column("SELECT id FROM x")
    steady = connect(pymysql, autocommit=True, **scene.args)
    scene.kill(steady._con.thread_id())
    with steady.cursor() as cursor:
        cursor.execute("SELECT 1")
        assert ((1,),) == cursor.fetchall()
    steady.close()
    pool.close()


def test_what_a_session_had_is_not_lost_in_silence(scene: Scene) -> None:
    """A link that is lost with a variable, a lock or a temporary table is an error, once."""
    pool = PooledDB(pymysql, autocommit=True, **scene.args)
    db = pool.connection()
    run(db, "SET @mine = 1")
    scene.kill(number_of(db))
    with pytest.raises(LOST, match="with it what the program had left in its session"):
        run(db, "SELECT @mine")
    assert (None,) == run(db, "SELECT @mine")
    db.close()
    held = PooledDB(pymysql, **scene.args)  # autocommit off: a commit ends a transaction, not what the session has
    db = held.connection()
    run(db, "SET @mine = 1")
    db.commit()
    scene.kill(number_of(db))
    with pytest.raises(LOST, match="with it what the program had left in its session"):
        run(db, "SELECT @mine")
    db.close()
    db = held.connection()
    run(db, "SELECT 1")
    db.commit()
    scene.kill(number_of(db))
    assert (1,) == run(db, "SELECT 1")  # nothing was left: nothing is lost
    held.close()
    pool.close()


def test_a_check_costs_no_trip(scene: Scene, proxy: FaultProxy) -> None:
    """All of ping's bits are answered from the socket where that is as good: nothing but the statement is sent."""
    pool = PooledDB(pymysql, ping=7, autocommit=True, **{**scene.args, "port": proxy.port})
    for _ in range(3):
        with pool.connection() as db:
            run(db, "SELECT v FROM x")
    proxy.reset_counts()
    for _ in range(3):
        with pool.connection() as db:
            run(db, "SELECT v FROM x")
    assert 3 * ["SELECT v FROM x"] == [command.text for command in proxy.commands]
    assert 3 == proxy.waits
    pool.close()


def test_a_connection_is_replaced_after_its_lifetime(scene: Scene) -> None:
    """``max_lifetime``, which DBUtils has not: also one that is used all the time goes, between two uses."""
    pool = PooledDB(pymysql, max_lifetime=0.5, maxconnections=1, autocommit=True, **scene.args)
    sessions: list[int] = []

    def use() -> bool:
        with pool.connection() as db:
            sessions.append(number_of(db))
            assert (1,) == run(db, "SELECT 1")
        return len(set(sessions)) > 2

    scene.until(use)
    assert 2 <= pool.stats().retired["lifetime"]
    held = pool.connection()
    session = number_of(held)
    since = time.monotonic()
    scene.until(lambda: time.monotonic() - since > 1.0)
    run(held, "SELECT 1")
    assert session == number_of(held)  # never while it is in use
    held.close()
    pool.close()


@pytest.mark.parametrize("name", ["pymysql", "MySQLdb", "mysql.connector"])
def test_setsession_has_the_last_word_about_autocommit(scene: Scene, name: str) -> None:
    """On a new connection as after a reset: DBUtils' own documentation has ``SET AUTOCOMMIT = 1`` for an example."""
    driver, arguments = importlib.import_module(name), scene.arguments_for(name)
    pool = PooledDB(driver, maxconnections=1, setsession=["SET AUTOCOMMIT = 1"], **arguments)
    for number in range(3):
        with pool.connection() as db, db.cursor() as cursor:
            cursor.execute("INSERT INTO x VALUES (%s, 0)", (number,))
            cursor.execute("SET @left = 1")  # costs a reset
    assert [0, 1, 2] == sorted(scene.column("SELECT id FROM x"))
    pool.close()
