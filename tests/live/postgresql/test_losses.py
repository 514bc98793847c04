"""What DBUtils loses with psycopg on a real PostgreSQL, and the drop-in does not: each scene is played with both.

The marks (M1, F2, ...) are those of ``tests/live/dbutils/test_losses.py``, which plays the same on MariaDB and MySQL.
"""

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

import pytest

from millpond import UncommittedWork
from millpond.testing import FaultProxy
from tests.dbutils.waiting import DEADLINE_S, in_threads, joined

from .scenes import Scene, number_of, run

PoolOf = Callable[..., Any]
NOTHING_KEPT = "nothing of it was kept"


def autocommitting(scene: Scene) -> Callable[..., Any]:
    """Return a function that connects in autocommit mode, which psycopg 2 does not take for an argument."""

    def connect(**given: Any) -> Any:
        con = scene.driver.connect(**given)
        con.autocommit = True
        return con

    return connect


def test_maxusage_does_not_cut_a_transaction(pool_of: PoolOf, scene: Scene, is_ours: bool) -> None:
    """M1: 25 inserts and a commit with maxusage=20 are 25 rows; in DBUtils 5, without an error."""
    db = pool_of(maxusage=20).connection()
    for number in range(25):
        run(db, "INSERT INTO x VALUES (%s, 0)", (number,))
    db.commit()
    db.close()
    assert (25 if is_ours else 5) == len(scene.ids())


def test_a_lost_link_is_an_error(pool_of: PoolOf, scene: Scene, is_ours: bool) -> None:
    """M2: a backend that is ended in the middle of a transaction; DBUtils commits what came after it alone."""
    db = pool_of().connection()
    run(db, "INSERT INTO x VALUES (1, 0)")
    scene.kill(number_of(db))
    if is_ours:
        with pytest.raises(scene.driver.OperationalError):
            run(db, "INSERT INTO x VALUES (2, 0)")
        with pytest.raises(scene.driver.OperationalError, match=NOTHING_KEPT):
            run(db, "INSERT INTO x VALUES (2, 0)")
        with pytest.raises(scene.driver.OperationalError, match=NOTHING_KEPT):
            db.commit()
        run(db, "INSERT INTO x VALUES (3, 0)")  # it has been told: it may go on
    else:
        run(db, "INSERT INTO x VALUES (2, 0)")
    db.commit()
    assert [3 if is_ours else 2] == scene.ids()


def test_a_deadlock_is_not_half_committed(pool_of: PoolOf, scene: Scene, is_ours: bool) -> None:
    """M3: the victim's last statement is sent again by DBUtils, alone, and committed."""
    scene.q("INSERT INTO x VALUES (1, 100), (2, 200)")
    other = scene.other(user="postgres", password=scene.server.root_password)
    run(other, "SET deadlock_timeout = '1h'")  # it never looks: who is the victim is sure
    run(other, "UPDATE x SET v = v + 1000 WHERE id = 2")
    db = pool_of().connection()
    run(db, "UPDATE x SET v = v + 1 WHERE id = 1")
    waiting = threading.Thread(target=run, args=(other, "UPDATE x SET v = v + 1000 WHERE id = 1"))

    def finish() -> None:
        waiting.join(DEADLINE_S)
        other.commit()

    waiting.start()
    scene.until(lambda: scene.column("SELECT count(*) FROM pg_locks WHERE NOT granted") == [1])
    finishing = threading.Thread(target=finish)
    finishing.start()
    if is_ours:
        with pytest.raises(scene.driver.OperationalError, match="deadlock"):
            run(db, "UPDATE x SET v = v + 1 WHERE id = 2")
        with pytest.raises(scene.driver.OperationalError, match=NOTHING_KEPT):
            db.commit()
    else:
        run(db, "UPDATE x SET v = v + 1 WHERE id = 2")
        db.commit()
    finishing.join(DEADLINE_S)
    other.close()
    assert [1100, 1200 if is_ours else 1201] == scene.column("SELECT v FROM x ORDER BY id")


def test_a_write_that_outlives_its_link_is_sent_once(pool_of: PoolOf, scene: Scene, is_ours: bool) -> None:
    """M4: the link is reset while an insert runs, which the server ends all the same; DBUtils sends it again."""
    scene.q("CREATE TABLE log (id INT)")
    scene.q(f"GRANT ALL ON log TO {scene.role}")
    scene.q("SELECT pg_advisory_lock(4)")  # held, so that the insert waits for it
    insert = "INSERT INTO log SELECT 1 FROM (SELECT pg_advisory_xact_lock(4)) waited"
    with FaultProxy(scene.server.port) as proxy:
        db = pool_of(autocommitting(scene), port=proxy.port).connection()
        failed: list[Exception] = []

        def work() -> None:
            try:
                run(db, insert)
            except scene.driver.OperationalError as error:
                failed.append(error)

        (thread,) = in_threads(1, work)
        scene.until(lambda: 1 == len(scene.running("xact_lock")))
        proxy.reset()
        if is_ours:
            assert joined([thread])
        else:
            scene.until(lambda: 2 == len(scene.running("xact_lock")))
        scene.q("SELECT pg_advisory_unlock(4)")
        assert joined([thread])
        scene.until(lambda: not scene.running("xact_lock"))
    assert is_ours == bool(failed)
    assert [1 if is_ours else 2] == scene.column("SELECT count(*) FROM log")


COUNTING = """
    CREATE FUNCTION step(what INT) RETURNS INT LANGUAGE plpgsql AS $$
    BEGIN
        PERFORM nextval('runs');
        IF what = 0 THEN RAISE EXCEPTION 'by request' USING ERRCODE = '53400'; END IF;
        RETURN what;
    END $$
"""


def test_a_function_that_fails_runs_once(pool_of: PoolOf, scene: Scene, is_ours: bool) -> None:
    """M6: what ends with an error of a class that DBUtils takes for a lost link runs three times."""
    scene.q(COUNTING)
    db = pool_of(autocommitting(scene)).connection()
    with pytest.raises(scene.driver.OperationalError, match="by request"):
        run(db, "SELECT step(0)")
    assert (1 if is_ours else 3) == scene.runs()


def test_a_batch_is_sent_once(pool_of: PoolOf, scene: Scene, is_ours: bool) -> None:
    """M5: DBUtils sends a batch again from its beginning when its last part has failed."""
    scene.q(COUNTING)
    scene.q("INSERT INTO x VALUES (1, 0)")
    db = pool_of().connection()
    cursor = db.cursor()
    with pytest.raises(scene.driver.OperationalError, match="by request"):
        cursor.executemany("UPDATE x SET v = v + step(%s) WHERE id = 1", [(1,), (1,), (0,)])
    cursor.close()
    db.rollback()
    assert (3 if is_ours else 6) == scene.runs()


def test_a_savepoint_is_gone_back_to(pool_of: PoolOf, scene: Scene, is_ours: bool) -> None:
    """M7: after begin(), DBUtils drops a healthy connection for an error, and commits what came after it alone."""
    scene.q(COUNTING)
    db = pool_of().connection()
    db.begin()
    session = number_of(db)
    run(db, "INSERT INTO x VALUES (1, 0)")
    run(db, "SAVEPOINT here")
    with pytest.raises(scene.driver.OperationalError):
        run(db, "SELECT step(0)")
    if is_ours:
        run(db, "ROLLBACK TO here")
    else:
        with pytest.raises(scene.driver.Error, match=r"here|SAVEPOINT"):
            run(db, "ROLLBACK TO here")
        db.rollback()
    run(db, "INSERT INTO x VALUES (3, 0)")
    db.commit()
    assert ([1, 3] if is_ours else [3]) == scene.ids()
    assert is_ours == (session == number_of(db))


def test_a_failed_transaction_is_not_gone_on_with(pool_of: PoolOf, scene: Scene, is_ours: bool) -> None:
    """After a statement's error PostgreSQL refuses the rest; DBUtils runs it elsewhere, and commits it alone."""
    pool = pool_of()
    db = pool.connection()
    session = number_of(db)
    run(db, "INSERT INTO x VALUES (1, 0)")
    with pytest.raises(scene.driver.ProgrammingError):
        run(db, "SELECT nope FROM x")
    if is_ours:
        with pytest.raises(scene.driver.InternalError):
            run(db, "INSERT INTO x VALUES (2, 0)")
        with pytest.raises(scene.driver.OperationalError, match="server rolled it back: nothing of it was kept"):
            db.commit()
        assert session == number_of(db)
    else:
        run(db, "INSERT INTO x VALUES (2, 0)")
        db.commit()
    assert ([] if is_ours else [2]) == scene.ids()


def test_an_error_that_cost_nothing_is_no_news_at_commit(pool_of: PoolOf, scene: Scene, package: str) -> None:
    """Programs try an insert, pass over the duplicate, and commit: as with the driver itself."""
    assert package
    scene.q("INSERT INTO x VALUES (1, 0)")
    with pool_of().connection() as db:
        run(db, "SELECT v FROM x")
        with pytest.raises(scene.driver.IntegrityError):
            run(db, "INSERT INTO x VALUES (1, 1)")
        db.commit()
        run(db, "INSERT INTO x VALUES (2, 0)")
        db.commit()
    assert [1, 2] == scene.ids()


def test_a_lock_is_waited_for_once(pool_of: PoolOf, scene: Scene, is_ours: bool) -> None:
    """M14: DBUtils waits as long again, on another connection."""
    scene.q("INSERT INTO x VALUES (1, 0)")
    holder = scene.other()
    run(holder, "UPDATE x SET v = 1")
    db = pool_of(setsession=["SET lock_timeout = '100ms'"]).connection()
    with pytest.raises(scene.driver.OperationalError, match="lock timeout"):
        run(db, "UPDATE x SET v = 2")
    holder.close()
    assert (1 if is_ours else 2) == scene.logged("canceling statement due to lock timeout")


def test_a_statement_s_time_limit_holds(pool_of: PoolOf, scene: Scene, is_ours: bool) -> None:
    """N2: DBUtils gives a statement its time limit again."""
    db = pool_of(setsession=["SET statement_timeout = '100ms'"]).connection()
    with pytest.raises(scene.driver.OperationalError, match="statement timeout"):
        run(db, "SELECT pg_sleep(20)")
    assert (1 if is_ours else 2) == scene.logged("canceling statement due to statement timeout")


def test_a_cancelled_statement_stays_dead(pool_of: PoolOf, scene: Scene, is_ours: bool) -> None:
    """N1: pg_cancel_backend has to be called again against DBUtils."""
    db = pool_of().connection()
    ended: list[Exception] = []

    def work() -> None:
        try:
            run(db, "SELECT pg_sleep(20)")
        except scene.driver.OperationalError as error:
            ended.append(error)

    def is_cancelled(session: int) -> bool:
        told = scene.logged("canceling statement due to user request")
        return told == kills and session not in scene.running("pg_sleep")

    (thread,) = in_threads(1, work)
    kills = 0
    while thread.is_alive() and kills < 5:
        scene.until(lambda: not thread.is_alive() or bool(scene.running("pg_sleep")))
        for session in scene.running("pg_sleep"):
            scene.q(f"SELECT pg_cancel_backend({session})")
            kills += 1
            scene.until(lambda: is_cancelled(session))  # noqa: B023  it is called in this turn
        thread.join(0.2)
    assert 1 == len(ended)
    assert (1 if is_ours else 2) == kills


LEFT = {
    "a setting": ("SET search_path = pg_catalog", "SELECT current_setting('search_path') <> 'pg_catalog'"),
    "the time zone": ("SET TIME ZONE 'Asia/Tokyo'", "SELECT current_setting('TimeZone') <> 'Asia/Tokyo'"),
    "a role": ("SET ROLE pg_monitor", "SELECT current_user <> 'pg_monitor'"),
    "a temporary table": (
        "CREATE TEMP TABLE left_behind (id INT)",
        "SELECT to_regclass('pg_temp.left_behind') IS NULL",
    ),
    "an advisory lock": (
        "SELECT pg_advisory_lock(7)",
        "SELECT count(*) = 0 FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()",
    ),
    "a prepared statement": ('PREPARE "it""s" AS SELECT 1', "SELECT count(*) = 0 FROM pg_prepared_statements"),
    "LISTEN": ("LISTEN news", "SELECT count(*) = 0 FROM pg_listening_channels()"),
    "a cursor": ("DECLARE c CURSOR WITH HOLD FOR SELECT 1", "SELECT count(*) = 0 FROM pg_cursors"),
    "the isolation level": (
        "SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL SERIALIZABLE",
        "SELECT current_setting('default_transaction_isolation') = 'read committed'",
    ),
    "the encoding": ("SET client_encoding = 'LATIN1'", "SELECT current_setting('client_encoding') = 'UTF8'"),
}


def test_nothing_is_left_for_the_next_borrower(pool_of: PoolOf, scene: Scene, is_ours: bool) -> None:
    """M8: in DBUtils the next borrower has settings, role, tables, locks, statements and news of the one before."""
    scene.q(f"GRANT pg_monitor TO {scene.role}")
    pool = pool_of(maxconnections=1, setsession=["SET application_name = 'ours'"])
    db = pool.connection()
    session = number_of(db)
    for leave, _ in LEFT.values():
        run(db, leave)
    db.commit()
    db.close()
    db = pool.connection()
    assert session == number_of(db)
    gone = [name for name, (_, is_gone) in LEFT.items() if run(db, is_gone) == (True,)]
    assert ([*LEFT] if is_ours else []) == gone
    assert ("ours",) == run(db, "SELECT current_setting('application_name')")  # setsession is there after a reset


def test_what_a_driver_keeps_itself_is_set_back(pool_of: PoolOf, scene: Scene, is_ours: bool) -> None:
    """M8: psycopg sends some settings with each transaction, and reads in an encoding that it was told of once."""
    pool = pool_of(maxconnections=1)
    db = pool.connection()
    raw = db._con._con
    if scene.driver.__name__ == "psycopg2":
        raw.set_session(readonly=True)
        raw.set_client_encoding("LATIN1")
    else:
        raw.set_read_only(True)
        raw.row_factory = scene.driver.rows.dict_row
    run(db, "SELECT 1")
    db.close()
    db = pool.connection()
    assert raw is db._con._con
    read_only = raw.readonly if scene.driver.__name__ == "psycopg2" else raw.read_only
    first = run(db, "SELECT 'Ω' AS omega") if is_ours or scene.driver.__name__ == "psycopg" else None
    assert is_ours == (not read_only)
    assert is_ours == (("Ω",) == first)


def test_what_the_driver_prepared_goes_on_to_work(pool_of: PoolOf, scene: Scene, is_ours: bool) -> None:
    """Psycopg 3 prepares what it is given often; it does not notice when that is taken away by a reset."""
    pool = pool_of(maxconnections=1)
    for committed in (True, False):
        for _ in range(3):
            with pool.connection() as db:
                for number in range(8):
                    assert (number,) == run(db, "SELECT %s::int", (number,))
                if committed:
                    db.commit()
    assert 0 < len(scene.sessions()) <= 1 + is_ours


def test_a_persistent_connection_is_left_in_order(package: str, scene: Scene, is_ours: bool) -> None:
    """M11: after close(), DBUtils' PersistentDB still reads the old snapshot, and holds its locks."""
    scene.q("INSERT INTO x VALUES (1, 1)")
    repeatable = "SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL REPEATABLE READ"
    made = importlib.import_module(f"{package}.persistent_db").PersistentDB
    persist = made(scene.driver, setsession=[repeatable], **scene.args)
    db = persist.connection()
    if not is_ours:
        db.commit()  # DBUtils' setsession leaves a transaction open
    assert (1,) == run(db, "SELECT v FROM x")
    db.close()
    scene.q("UPDATE x SET v = 2")
    assert (2 if is_ours else 1,) == run(persist.connection(), "SELECT v FROM x")
    db._close()


FORKING = """
    import importlib, os, sys, warnings
    warnings.simplefilter("ignore")
    package, driver, arguments = sys.argv[1], importlib.import_module(sys.argv[2]), eval(sys.stdin.read())
    pool = importlib.import_module(package + ".pooled_db").PooledDB(driver, **arguments)
    def number(db):
        cursor = db.cursor()
        cursor.execute("SELECT pg_backend_pid()")
        return cursor.fetchone()[0]
    db = pool.connection()
    mine = number(db)
    db.close()
    child = os.fork()
    if not child:
        db = pool.connection()
        print("same" if number(db) == mine else "other", flush=True)
        db.close()
        db._con = None
        pool.close()
        os._exit(0)
    os.waitpid(child, 0)
    db = pool.connection()
    try:
        with db._con._con.cursor() as cursor:
            cursor.execute("SELECT 1")
        print("alive")
    except driver.Error:
        print("dead")
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_forked_child_has_its_own_sessions(package: str, scene: Scene, is_ours: bool) -> None:
    """M9: in DBUtils a child hands out its parent's session, and its close() ends it."""
    said = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(FORKING), package, scene.driver.__name__],
        input=repr(scene.args),
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=True,
    ).stdout
    assert (["other", "alive"] if is_ours else ["same", "dead"]) == said.split()


def test_two_threads_close_one_connection(pool_of: PoolOf, scene: Scene, is_ours: bool) -> None:
    """E: in DBUtils it is in the pool twice then, and two borrowers share it."""
    driver = scene.driver
    own = driver.extensions.connection if driver.__name__ == "psycopg2" else driver.Connection
    closing: list[threading.Thread] = []

    def is_through_or_in_the_pool(thread: threading.Thread) -> bool:
        frame = sys._current_frames().get(thread.ident or 0)
        names = set()
        while frame is not None:
            names.add(frame.f_code.co_name)
            frame = frame.f_back
        return thread.ident is not None and ("cache" in names or not thread.is_alive())

    class Meeting(own):  # type: ignore[misc,valid-type]  # the class of either driver
        """A connection whose rollback goes on when the other thread has come as far as it does."""

        def rollback(self) -> None:
            others = [thread for thread in closing if thread is not threading.current_thread()]
            if others:
                closing.clear()
                scene.until(lambda: is_through_or_in_the_pool(others[0]))
            super().rollback()

    def connect(**given: Any) -> Any:
        if driver.__name__ == "psycopg2":
            return driver.connect(connection_factory=Meeting, **given)
        return Meeting.connect(**given)

    pool = pool_of(connect)
    db = pool.connection()
    run(db, "SELECT 1")
    threads = [threading.Thread(target=db.close, daemon=True) for _ in range(2)]
    closing.extend(threads)
    for thread in threads:
        thread.start()
    assert joined(threads)
    assert (1 if is_ours else 2) == len(pool._idle_cache)
    assert (0 if is_ours else -1) == pool._connections
    assert is_ours == (pool.connection()._con is not pool.connection()._con)


def test_a_cursor_keeps_its_connection(pool_of: PoolOf, scene: Scene, is_ours: bool) -> None:
    """F1: ``pool.connection().cursor()`` uses a connection that DBUtils has handed to the next borrower."""
    pool = pool_of()
    cursor = pool.connection().cursor()
    theirs = pool.connection()
    cursor.execute("INSERT INTO x VALUES (1, 0)")
    theirs.commit()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UncommittedWork)
        cursor.close()
    assert ([] if is_ours else [1]) == scene.ids()


def test_a_cursor_does_not_write_for_the_next_borrower(pool_of: PoolOf, scene: Scene, is_ours: bool) -> None:
    """F2: in DBUtils a cursor goes on after its connection was given back, in somebody else's transaction."""
    pool = pool_of(maxconnections=1)
    mine = pool.connection()
    cursor = mine.cursor()
    cursor.execute("SELECT 1")
    mine.close()
    theirs = pool.connection()
    if is_ours:
        with pytest.raises(scene.driver.InterfaceError, match="given back"):
            cursor.execute("INSERT INTO x VALUES (1, 0)")
    else:
        cursor.execute("INSERT INTO x VALUES (1, 0)")
    theirs.commit()
    assert ([] if is_ours else [1]) == scene.ids()


def test_a_cursor_of_the_server_s_is_cut_off(pool_of: PoolOf, scene: Scene, is_ours: bool) -> None:
    """A named cursor that is iterated over reads from the connection: in DBUtils it spoils the next transaction."""
    pool = pool_of(maxconnections=1)
    mine = pool.connection()
    cursor = mine.cursor("named")
    cursor.itersize = 2
    cursor.execute("SELECT generate_series(1, 100)")
    rows = iter(cursor)
    assert (1,) == next(rows)
    mine.close()
    theirs = pool.connection()
    run(theirs, "INSERT INTO x VALUES (1, 0)")
    with pytest.raises(scene.driver.Error):
        list(rows)
    theirs.commit()
    assert ([1] if is_ours or scene.driver.__name__ == "psycopg2" else []) == scene.ids()


def test_uncommitted_work_is_told_of_once_a_place(
    pool_of: PoolOf, scene: Scene, is_ours: bool, recwarn: pytest.WarningsRecorder
) -> None:
    """M12: a ``with`` block whose insert was never committed loses it in both; the drop-in says where."""
    pool = pool_of()
    for number in range(3):
        with pool.connection() as db:
            run(db, "INSERT INTO x VALUES (%s, 0)", (number,))
    told = [str(warning.message) for warning in recwarn if warning.category is UncommittedWork]
    assert [] == scene.ids()
    assert (1 if is_ours else 0) == len(told)
    assert not is_ours or "test_losses.py" in told[0]


def test_reading_is_no_uncommitted_work(pool_of: PoolOf, scene: Scene, package: str) -> None:
    """Statements that were composed, or begin with WITH, are read for what they are: no warning."""
    assert package
    sql = importlib.import_module(f"{scene.driver.__name__}.sql")
    pool = pool_of(maxconnections=1)
    with pool.connection() as db:
        assert run(db, sql.SQL("SELECT v FROM {}").format(sql.Identifier("x"))) is None
        run(db, "WITH two AS (SELECT 2) SELECT * FROM two")
        run(db, "SAVEPOINT here")
    if package.startswith("millpond."):
        statement = sql.SQL("INSERT INTO {} VALUES (1, 0)").format(sql.Identifier("x"))
        with pytest.warns(UncommittedWork), pool.connection() as db:
            run(db, statement)
        with pytest.warns(UncommittedWork), pool.connection() as db:
            run(db, "WITH w AS (INSERT INTO x VALUES (2, 0) RETURNING id) SELECT * FROM w")


def test_kills_among_threads_lose_nothing_that_was_told(pool_of: PoolOf, scene: Scene, is_ours: bool) -> None:
    """Threads go on after every error; whatever commit() lets pass is whole.  In DBUtils some of it is not there."""
    scene.q("CREATE TABLE parts (work INT, part INT)")
    scene.q(f"GRANT ALL ON parts TO {scene.role}")
    pool = pool_of(maxconnections=4, maxusage=7, blocking=True)
    told: list[tuple[int, int]] = []
    numbers = iter(range(100_000))
    over = threading.Event()
    kills: list[int] = []

    def work() -> None:
        while not over.is_set():
            number = next(numbers)
            with contextlib.suppress(scene.driver.Error), pool.connection() as db:
                done: list[tuple[int, int]] = []
                for part in range(4):
                    with contextlib.suppress(scene.driver.Error):
                        run(db, "INSERT INTO parts VALUES (%s, %s)", (number, part))
                        done.append((number, part))
                db.commit()
                told.extend(done)

    def missing() -> set[tuple[int, int]]:
        return set(told) - set(scene.q("SELECT work, part FROM parts"))

    def is_enough() -> bool:
        if not is_ours and missing():
            return True
        for session in scene.sessions()[:1]:
            scene.q(f"SELECT pg_terminate_backend({session})")
            kills.append(session)
        return is_ours and len(kills) >= 30

    threads = in_threads(6, work)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UncommittedWork)
            scene.until(is_enough)
            over.set()
            assert joined(threads)
    finally:
        over.set()
    assert is_ours == (not missing())
    assert 0 == pool._connections
