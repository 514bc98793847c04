"""What DBUtils loses, line by line, on MariaDB and MySQL: DBUtils shows the loss, the drop-in does not have it."""

from __future__ import annotations

import contextlib
import importlib
import os
import subprocess
import sys
import textwrap
import threading
import warnings
from collections.abc import Callable
from typing import Any

import pymysql
import pytest

from millpond import UncommittedWork
from tests.dbutils.waiting import DEADLINE_S, in_threads, joined

from .scenes import Scene, number_of, run

PoolOf = Callable[..., Any]
LOST = pymysql.OperationalError


def test_maxusage_does_not_cut_a_transaction(pool_of: PoolOf, scene: Scene, is_ours: bool) -> None:
    """M1: of 25 inserts and a commit, with the page's maxusage=20, DBUtils keeps 5."""
    db = pool_of(maxusage=20).connection()
    for number in range(25):
        run(db, "INSERT INTO x VALUES (%s, 0)", (number,))
    db.commit()
    db.close()
    assert [25 if is_ours else 5] == scene.column("SELECT COUNT(*) FROM x")


def test_maxusage_does_not_cut_short_transactions(pool_of: PoolOf, scene: Scene, is_ours: bool) -> None:
    """M1b: of transactions with three statements DBUtils runs some on two connections."""
    pool = pool_of(maxusage=20)
    scene.q("CREATE TABLE by_session (id INT, session BIGINT)")
    sessions: set[int] = set()
    for number in range(60):
        db = pool.connection()
        for _ in range(3):
            run(db, "INSERT INTO by_session VALUES (%s, CONNECTION_ID())", (number,))
        db.commit()
        sessions.add(number_of(db))
        db.close()
    whole = scene.column("SELECT COUNT(*) FROM by_session GROUP BY id HAVING COUNT(DISTINCT session) = 1")
    assert is_ours == (60 * [3] == whole)
    assert len(sessions) > 5  # it was replaced, between transactions


def test_a_link_lost_in_a_transaction_is_an_error(pool_of: PoolOf, scene: Scene, is_ours: bool) -> None:
    """M2: DBUtils sends the second insert again, on another connection, and commits it alone."""
    db = pool_of().connection()
    run(db, "INSERT INTO x VALUES (1, 0)")
    scene.kill(number_of(db))
    if is_ours:
        with pytest.raises(LOST):
            run(db, "INSERT INTO x VALUES (2, 0)")
        with pytest.raises(LOST, match="nothing of it was kept"):  # also for who did not look
            run(db, "INSERT INTO x VALUES (3, 0)")
        with pytest.raises(LOST, match=r"rollback\(\)"):
            db.commit()
        db.rollback()
        run(db, "INSERT INTO x VALUES (4, 0)")
    else:
        run(db, "INSERT INTO x VALUES (2, 0)")
    db.commit()
    assert ([4] if is_ours else [2]) == scene.column("SELECT id FROM x")


def test_a_deadlock_is_an_error(pool_of: PoolOf, scene: Scene, is_ours: bool) -> None:
    """M3: DBUtils sends the victim's last statement again, and commits half of its transaction."""
    scene.q("INSERT INTO x VALUES (1, 100), (2, 200)")
    scene.q("INSERT INTO x SELECT 100 + a.n * 10 + b.n, 0 FROM (SELECT 0 n UNION SELECT 1 UNION SELECT 2) a, "
            "(SELECT 0 n UNION SELECT 1 UNION SELECT 2) b")  # fmt: skip
    db = pool_of().connection()
    other = pymysql.connect(**scene.args)
    run(db, "UPDATE x SET v = v + 1 WHERE id = 1")
    with other.cursor() as cursor:
        cursor.execute("UPDATE x SET v = v + 1 WHERE id >= 100")  # the heavier one wins
        cursor.execute("UPDATE x SET v = v + 1000 WHERE id = 2")
        waiting = threading.Thread(target=lambda: cursor.execute("UPDATE x SET v = v + 1000 WHERE id = 1"))
        waiting.start()
        scene.until(lambda: scene.status("Innodb_row_lock_current_waits") == 1)
        if is_ours:
            with pytest.raises(LOST) as caught:
                run(db, "UPDATE x SET v = v + 1 WHERE id = 2")
            assert 1213 == caught.value.args[0]
            waiting.join(DEADLINE_S)
            other.commit()
            db.rollback()
        else:

            def finish() -> None:
                waiting.join(DEADLINE_S)
                other.commit()

            both = threading.Thread(target=finish)
            both.start()
            run(db, "UPDATE x SET v = v + 1 WHERE id = 2")
            both.join(DEADLINE_S)
            db.commit()
    other.close()
    assert (1100, 1200 if is_ours else 1201) == tuple(scene.column("SELECT v FROM x WHERE id < 3 ORDER BY id"))


def test_a_read_timeout_does_not_write_twice(pool_of: PoolOf, scene: Scene, is_ours: bool) -> None:
    """M4: DBUtils sends an insert again that is still running."""
    scene.q("CREATE TABLE log (id INT)")
    db = pool_of(read_timeout=0.5, autocommit=True).connection()
    with pytest.raises(LOST):
        run(db, "INSERT INTO log SELECT 1 FROM (SELECT SLEEP(1.2)) slowly")
    scene.until(lambda: not scene.q("SELECT id FROM information_schema.processlist WHERE info LIKE 'INSERT INTO log%'"))
    assert [1 if is_ours else 2] == scene.column("SELECT COUNT(*) FROM log")


def test_a_batch_is_sent_once(pool_of: PoolOf, scene: Scene, is_ours: bool) -> None:
    """M5: DBUtils sends a whole batch again, and then waits for the row locks of its own old connection."""
    scene.q("INSERT INTO x VALUES (1, 0)")
    db = pool_of(setsession=["SET innodb_lock_wait_timeout = 1"]).connection()
    waits = scene.status("Innodb_row_lock_waits")
    with db.cursor() as cursor, pytest.raises(LOST):
        cursor.executemany("UPDATE x SET v = v + %s WHERE id = 1", [(1,), (1,), ("boom",)])
    db.commit()
    assert [2 if is_ours else 4] == scene.column("SELECT v FROM x")
    assert is_ours == (waits == scene.status("Innodb_row_lock_waits"))


def test_a_procedure_runs_once(pool_of: PoolOf, scene: Scene, is_ours: bool) -> None:
    """M6: a procedure that ends with an error of its own runs three times in DBUtils."""
    scene.q("CREATE TABLE log (id INT) ENGINE=MyISAM")
    scene.q("CREATE PROCEDURE p() BEGIN INSERT INTO log VALUES (1); SIGNAL SQLSTATE '45000'; END")
    db = pool_of().connection()
    with db.cursor() as cursor, pytest.raises(LOST) as caught:
        cursor.callproc("p")
    assert 1644 == caught.value.args[0]
    assert [1 if is_ours else 3] == scene.column("SELECT COUNT(*) FROM log")


def test_a_wrong_statement_does_not_cost_a_transaction(pool_of: PoolOf, scene: Scene, is_ours: bool) -> None:
    """M7: after begin(), DBUtils drops a healthy connection for an unknown column, and commits what came after it."""
    db = pool_of().connection()
    db.begin()
    session = number_of(db)
    run(db, "INSERT INTO x VALUES (1, 0)")
    with pytest.raises(LOST):
        run(db, "SELECT nope FROM x")
    run(db, "INSERT INTO x VALUES (3, 0)")
    db.commit()
    assert ([1, 3] if is_ours else [3]) == scene.column("SELECT id FROM x")
    assert is_ours == (session == number_of(db))


LEFT = {
    "a variable": ("SET @left = 42", "SELECT @left IS NULL"),
    "sql_mode": ("SET sql_mode = 'ANSI_QUOTES'", "SELECT @@sql_mode NOT LIKE '%ANSI_QUOTES%'"),
    "time_zone": ("SET time_zone = '+07:00'", "SELECT @@time_zone <> '+07:00'"),
    "the schema": ("USE information_schema", "SELECT DATABASE() <> 'information_schema'"),
    "a lock": ("SELECT GET_LOCK('left', 1)", "SELECT IS_FREE_LOCK('left')"),
    "autocommit": ("SET autocommit = 1", "SELECT NOT @@autocommit"),
    "the character set": ("SET NAMES latin1", "SELECT @@character_set_client = 'utf8mb4'"),
}


def test_nothing_is_left_for_the_next_borrower(pool_of: PoolOf, scene: Scene, is_ours: bool) -> None:
    """M8: in DBUtils the next borrower has the variables, modes, schema, locks and tables of the one before."""
    pool = pool_of(maxconnections=1, setsession=["SET @ours = 'here'"])
    db = pool.connection()
    session = number_of(db)
    for leave, _ in LEFT.values():
        run(db, leave)
    run(db, f"CREATE TEMPORARY TABLE {scene.schema}.left_behind (id INT)")
    db.close()
    db = pool.connection()
    assert session == number_of(db)
    gone = [name for name, (_, is_gone) in LEFT.items() if run(db, is_gone) == (1,)]
    try:
        run(db, f"SELECT * FROM {scene.schema}.left_behind")
    except pymysql.ProgrammingError:
        gone.append("a temporary table")
    assert ([*LEFT, "a temporary table"] if is_ours else []) == gone
    assert ("here",) == run(db, "SELECT @ours")  # setsession is there after a reset


def test_a_persistent_connection_shows_what_is_new(package: str, scene: Scene, is_ours: bool) -> None:
    """M11: after close(), DBUtils' PersistentDB still reads the old snapshot, and holds its locks."""
    scene.q("INSERT INTO x VALUES (1, 1)")
    persist = importlib.import_module(f"{package}.persistent_db").PersistentDB(pymysql, **scene.args)
    db = persist.connection()
    assert (1,) == run(db, "SELECT v FROM x")
    db.close()
    scene.q("UPDATE x SET v = 2")
    assert (2 if is_ours else 1,) == run(persist.connection(), "SELECT v FROM x")
    db._close()


FORKING = """
    import importlib, os, sys, warnings
    warnings.simplefilter("ignore")
    import pymysql
    package, arguments = sys.argv[1], eval(sys.stdin.read())
    pool = importlib.import_module(package + ".pooled_db").PooledDB(pymysql, **arguments)
    def number(db):
        with db.cursor() as cursor:
            cursor.execute("SELECT CONNECTION_ID()")
            return cursor.fetchone()[0]
    db = pool.connection()
    mine = number(db)
    db.close()
    held = pool.connection()
    held.cursor().execute("SELECT 1")
    held.close()
    child = os.fork()
    if not child:
        theirs = number(pool.connection())
        print("same" if theirs == mine else "other", flush=True)
        pool.close()
        os._exit(0)
    os.waitpid(child, 0)
    db = pool.connection()
    try:
        raw = db._con._con
        raw.ping(reconnect=False)
        print("alive")
    except pymysql.MySQLError:
        print("dead")
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_forked_child_has_its_own_sessions(package: str, scene: Scene, is_ours: bool) -> None:
    """M9: in DBUtils a child hands out its parent's session, and its close() ends it."""
    said = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(FORKING), package],
        input=repr({**scene.args, "ping": 0}),
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=True,
    ).stdout
    assert (["other", "alive"] if is_ours else ["same", "dead"]) == said.split()


def test_a_cursor_does_not_write_for_the_next_borrower(pool_of: PoolOf, scene: Scene, is_ours: bool) -> None:
    """F2: in DBUtils a cursor goes on after its connection was given back, in somebody else's transaction."""
    pool = pool_of(maxconnections=1)
    mine = pool.connection()
    cursor = mine.cursor()
    cursor.execute("SELECT 1 UNION SELECT 2")
    mine.close()
    theirs = pool.connection()
    if is_ours:
        assert ((1,), (2,)) == cursor.fetchall()  # these rows are here already
        with pytest.raises(pymysql.InterfaceError, match="given back"):
            cursor.execute("INSERT INTO x VALUES (1, 0)")
    else:
        cursor.execute("INSERT INTO x VALUES (1, 0)")
    theirs.commit()
    assert ([] if is_ours else [1]) == scene.column("SELECT id FROM x")


def test_uncommitted_work_is_told_of_once_a_place(
    pool_of: PoolOf, scene: Scene, is_ours: bool, recwarn: pytest.WarningsRecorder
) -> None:
    """M12: a ``with`` block whose insert was never committed loses it in both; the drop-in says where."""
    pool = pool_of()
    for number in range(3):
        with pool.connection() as db:
            run(db, "INSERT INTO x VALUES (%s, 0)", (number,))
    told = [str(warning.message) for warning in recwarn if warning.category is UncommittedWork]
    assert [] == scene.column("SELECT id FROM x")
    assert (1 if is_ours else 0) == len(told)
    assert not is_ours or "test_losses.py" in told[0]
    assert not is_ours or 3 == pool.stats().uncommitted


def test_a_ping_does_not_reconnect_in_a_transaction(pool_of: PoolOf, scene: Scene, is_ours: bool) -> None:
    """``ping(reconnect=True)``, as tutorials have it, lets DBUtils commit the second half of a lost transaction."""
    db = pool_of().connection()
    run(db, "INSERT INTO x VALUES (1, 0)")
    scene.kill(number_of(db))
    if is_ours:
        with pytest.raises(LOST):
            db.ping(reconnect=True)
        with pytest.raises(LOST, match="nothing of it was kept"):
            run(db, "INSERT INTO x VALUES (2, 0)")
        db.rollback()
    else:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # PyMySQL 1.2 says what it thinks of it, and does it
            db.ping(reconnect=True)
        run(db, "INSERT INTO x VALUES (2, 0)")
        db.commit()
    assert ([] if is_ours else [2]) == scene.column("SELECT id FROM x")
    if is_ours:  # outside of a transaction it does reconnect, and the session is set up
        db.ping(reconnect=True)
        session = number_of(db)
        scene.kill(session)
        db.ping(True)
        assert session != number_of(db)
        scene.kill(number_of(db))
        with pytest.raises(LOST):
            db.ping(reconnect=False)


def test_statements_past_the_pool_belong_to_the_transaction(pool_of: PoolOf, scene: Scene, is_ours: bool) -> None:
    """Programs run statements on ``_con._con``; when the link is lost, DBUtils commits what came after them alone."""
    db = pool_of().connection()
    with db._con._con.cursor() as cursor:
        cursor.execute("INSERT INTO x VALUES (1, 0)")
    scene.kill(number_of(db))
    if is_ours:
        with pytest.raises(LOST):
            run(db, "INSERT INTO x VALUES (2, 0)")
        with pytest.raises(LOST, match="nothing of it was kept"):
            db.commit()
    else:
        run(db, "INSERT INTO x VALUES (2, 0)")
        db.commit()
    assert ([] if is_ours else [2]) == scene.column("SELECT id FROM x")


def test_kills_among_threads_lose_nothing_that_was_told(pool_of: PoolOf, scene: Scene, is_ours: bool) -> None:
    """Threads go on after every error; whatever commit() lets pass is whole.  In DBUtils some of it is not there."""
    scene.q("CREATE TABLE parts (work INT, part INT)")
    pool = pool_of(maxconnections=4, maxusage=7, blocking=True)
    told: list[tuple[int, int]] = []
    numbers = iter(range(100_000))
    over = threading.Event()

    def work() -> None:
        while not over.is_set():
            number = next(numbers)
            with contextlib.suppress(pymysql.MySQLError), pool.connection() as db:
                done: list[tuple[int, int]] = []
                for part in range(4):
                    with contextlib.suppress(pymysql.MySQLError):
                        run(db, "INSERT INTO parts VALUES (%s, %s)", (number, part))
                        done.append((number, part))
                db.commit()
                told.extend(done)

    def is_enough() -> bool:
        if not is_ours and set(told) - set(scene.q("SELECT work, part FROM parts")):
            return True
        for session in scene.column("SELECT id FROM information_schema.processlist WHERE user = 'app' LIMIT 1"):
            with contextlib.suppress(pymysql.OperationalError):  # it has ended by itself
                scene.q(f"KILL {session}")
                kills.append(session)
        return is_ours and len(kills) >= 40

    kills: list[int] = []
    threads = in_threads(8, work)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UncommittedWork)
            scene.until(is_enough)
            over.set()
            assert joined(threads, DEADLINE_S)
    finally:
        over.set()
    assert is_ours == (not set(told) - set(scene.q("SELECT work, part FROM parts")))
    assert 0 == pool._connections
