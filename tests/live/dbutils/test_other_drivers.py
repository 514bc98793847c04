"""The worst losses with the other MySQL drivers that are known: mysqlclient and mysql-connector-python."""

from __future__ import annotations

import contextlib
import importlib
import os
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import pytest

from millpond.testing import FaultProxy
from tests.dbutils.waiting import DEADLINE_S, in_threads, joined

from .scenes import Scene


@pytest.fixture(params=["MySQLdb", "mysql.connector"])
def driver(request: pytest.FixtureRequest) -> Any:
    """Return each driver's module."""
    return importlib.import_module(request.param)


@pytest.fixture
def arguments(scene: Scene, driver: Any) -> dict[str, Any]:
    """Return what that driver connects by."""
    return scene.arguments_for(driver.__name__)


@pytest.fixture
def pool_with(
    pooled: ModuleType, arguments: dict[str, Any], driver: Any, is_ours: bool
) -> Iterator[Callable[..., Any]]:
    """Return a function that makes a pool of that driver's connections."""
    with contextlib.ExitStack() as closing:

        def make(**settings: Any) -> Any:
            # DBUtils' ping warns with mysqlclient 2.3, and warnings are errors here.
            pool = pooled.PooledDB(driver, **{**arguments, **({} if is_ours else {"ping": 0}), **settings})
            closing.callback(pool.close)
            return pool

        yield make


def do(db: Any, statement: str) -> Any:
    """Run a statement; return its first row, if it has rows."""
    cursor = db.cursor()
    cursor.execute(statement)
    rows = cursor.fetchall() if cursor.description else ()
    cursor.close()
    return rows[0] if rows else None


def test_maxusage_does_not_cut_a_transaction(pool_with: Callable[..., Any], scene: Scene, is_ours: bool) -> None:
    """M1, with drivers that tell less than PyMySQL."""
    db = pool_with(maxusage=20).connection()
    for number in range(25):
        do(db, f"INSERT INTO x VALUES ({number}, 0)")
    db.commit()
    db.close()
    assert [25 if is_ours else 5] == scene.column("SELECT COUNT(*) FROM x")


def test_a_lost_link_is_an_error(pool_with: Callable[..., Any], scene: Scene, driver: Any, is_ours: bool) -> None:
    """M2, with drivers that tell less than PyMySQL."""
    db = pool_with().connection()
    do(db, "INSERT INTO x VALUES (1, 0)")
    scene.kill(do(db, "SELECT CONNECTION_ID()")[0])
    if is_ours:
        with pytest.raises(driver.Error):
            do(db, "INSERT INTO x VALUES (2, 0)")
        with pytest.raises(driver.Error, match="nothing of it was kept"):
            db.commit()
        db.rollback()
        do(db, "INSERT INTO x VALUES (3, 0)")
    else:
        do(db, "INSERT INTO x VALUES (2, 0)")
    db.commit()
    assert ([3] if is_ours else [2]) == scene.column("SELECT id FROM x")


def test_a_wrong_statement_does_not_cost_a_transaction(
    pool_with: Callable[..., Any], scene: Scene, driver: Any, is_ours: bool
) -> None:
    """M7, where the driver takes an unknown column for an operational error; the drop-in keeps both rows."""
    db = pool_with().connection()
    db.begin()
    do(db, "INSERT INTO x VALUES (1, 0)")
    with pytest.raises(driver.Error):
        do(db, "SELECT nope FROM x")
    do(db, "INSERT INTO x VALUES (3, 0)")
    db.commit()
    kept = scene.column("SELECT id FROM x")
    assert [1, 3] == kept if is_ours else kept[-1:] == [3]


def test_nothing_is_left_for_the_next_borrower(pool_with: Callable[..., Any], is_ours: bool) -> None:
    """M8, with drivers that tell less than PyMySQL."""
    pool = pool_with(maxconnections=1, setsession=["SET @ours = 'here'"])
    db = pool.connection()
    do(db, "SET @left = 42")
    do(db, "SELECT GET_LOCK('left by another driver', 1)")
    db.close()
    db = pool.connection()
    assert (None if is_ours else 42) == do(db, "SELECT @left")[0]
    assert "here" == do(db, "SELECT @ours")[0]


def test_a_ping_that_warns_costs_no_connection(pool_with: Callable[..., Any], driver: Any, is_ours: bool) -> None:
    """With warnings as errors DBUtils' ``ping(False)`` makes it reconnect at each checkout with mysqlclient 2.3."""
    pool = pool_with(maxconnections=1, ping=1, autocommit=True)
    sessions = set()
    for _ in range(3):
        with pool.connection() as db:
            sessions.add(do(db, "SELECT CONNECTION_ID()")[0])
    warns = driver.__name__ == "MySQLdb" and driver.version_info >= (2, 3)
    assert (3 if warns and not is_ours else 1) == len(sessions)


def test_a_return_without_a_commit_rolls_back_and_says_so(
    pool_with: Callable[..., Any], scene: Scene, is_ours: bool, recwarn: pytest.WarningsRecorder
) -> None:
    """M12, with drivers that tell less than PyMySQL."""
    pool = pool_with()
    with pool.connection() as db:
        do(db, "INSERT INTO x VALUES (1, 0)")
    told = [warning for warning in recwarn if "not committed" in str(warning.message)]
    assert ([], int(is_ours)) == (scene.column("SELECT id FROM x"), len(told))


def test_a_deadlock_is_an_error(
    pool_with: Callable[..., Any], scene: Scene, driver: Any, arguments: dict[str, Any], is_ours: bool
) -> None:
    """M3, with drivers that tell less than PyMySQL."""
    scene.q("INSERT INTO x VALUES (1, 100), (2, 200), (100, 0), (101, 0), (102, 0), (103, 0)")
    db = pool_with().connection()
    do(db, "UPDATE x SET v = v + 1 WHERE id = 1")
    other = driver.connect(**arguments)
    do(other, "UPDATE x SET v = v + 1 WHERE id >= 100")  # the heavier one wins
    do(other, "UPDATE x SET v = v + 1000 WHERE id = 2")
    waiting = threading.Thread(target=do, args=(other, "UPDATE x SET v = v + 1000 WHERE id = 1"))

    def finish() -> None:
        waiting.join(DEADLINE_S)
        other.commit()

    waiting.start()
    scene.until(lambda: scene.status("Innodb_row_lock_current_waits") == 1)
    finishing = threading.Thread(target=finish)
    finishing.start()
    if is_ours:
        with pytest.raises(driver.Error, match="Deadlock"):
            do(db, "UPDATE x SET v = v + 1 WHERE id = 2")
    else:
        do(db, "UPDATE x SET v = v + 1 WHERE id = 2")
    finishing.join(DEADLINE_S)
    db.commit()
    other.close()
    assert [1100, 1200 if is_ours else 1201] == scene.column("SELECT v FROM x WHERE id < 3 ORDER BY id")


def test_a_write_that_outlives_its_link_is_sent_once(
    pool_with: Callable[..., Any], scene: Scene, driver: Any, is_ours: bool
) -> None:
    """M4, with drivers that tell less than PyMySQL: the link is reset while an insert waits for a row."""
    scene.q("INSERT INTO x VALUES (1, 0)")
    scene.q("CREATE TABLE log (id INT) ENGINE=InnoDB")
    failed: list[Exception] = []
    with FaultProxy(scene.args["port"]) as proxy:
        db = pool_with(port=proxy.port, setsession=["SET autocommit = 1"]).connection()

        def work() -> None:
            try:
                do(db, "INSERT INTO log SELECT 1 FROM x WHERE id = 1")
            except driver.Error as error:
                failed.append(error)

        scene.q("BEGIN")
        scene.q("UPDATE x SET v = 1")
        (thread,) = in_threads(1, work)
        scene.until(lambda: scene.status("Innodb_row_lock_current_waits") == 1)
        proxy.reset()
        if is_ours:
            assert joined([thread])
        else:
            scene.until(lambda: scene.status("Innodb_row_lock_current_waits") == 2)
        scene.q("COMMIT")
        assert joined([thread])
    scene.until(lambda: not scene.q("SELECT id FROM information_schema.processlist WHERE info LIKE 'INSERT INTO log%'"))
    assert (int(is_ours), 1 if is_ours else 2) == (len(failed), *scene.column("SELECT COUNT(*) FROM log"))


STEP = """
    CREATE FUNCTION step(what INT) RETURNS INT NOT DETERMINISTIC MODIFIES SQL DATA
    BEGIN
        INSERT INTO log VALUES (what);
        IF what = 0 THEN SIGNAL SQLSTATE '0K000'; END IF;
        RETURN what;
    END
"""


def test_what_fails_runs_once(pool_with: Callable[..., Any], scene: Scene, driver: Any, is_ours: bool) -> None:
    """M5 and M6, with drivers that tell less than PyMySQL: a batch, and a function with an error of its own."""
    scene.q("CREATE TABLE log (id INT) ENGINE=MyISAM")
    scene.q(STEP)
    scene.q("INSERT INTO x VALUES (1, 0)")
    db = pool_with(setsession=["SET autocommit = 1"]).connection()
    with pytest.raises(driver.OperationalError):
        do(db, "SET @stepped = step(0)")
    assert [1 if is_ours else 3] == scene.column("SELECT COUNT(*) FROM log")
    scene.q("TRUNCATE log")
    cursor = db.cursor()
    with pytest.raises(driver.OperationalError):
        cursor.executemany("UPDATE x SET v = v + step(%s) WHERE id = 1", [(1,), (1,), (0,)])
    cursor.close()
    assert [3 if is_ours else 9] == scene.column("SELECT COUNT(*) FROM log")


def test_a_persistent_connection_shows_what_is_new(
    package: str, scene: Scene, driver: Any, arguments: dict[str, Any], is_ours: bool
) -> None:
    """M11, with drivers that tell less than PyMySQL."""
    scene.q("INSERT INTO x VALUES (1, 1)")
    persist = importlib.import_module(f"{package}.persistent_db").PersistentDB(driver, ping=0, **arguments)
    db = persist.connection()
    assert (1,) == do(db, "SELECT v FROM x")
    db.close()
    scene.q("UPDATE x SET v = 2")
    assert (2 if is_ours else 1,) == do(persist.connection(), "SELECT v FROM x")
    db._close()


def test_a_cursor_does_not_write_for_the_next_borrower(
    pool_with: Callable[..., Any], scene: Scene, driver: Any, is_ours: bool
) -> None:
    """F2, with drivers that tell less than PyMySQL."""
    pool = pool_with(maxconnections=1)
    mine = pool.connection()
    cursor = mine.cursor()
    cursor.execute("SELECT 1")
    cursor.fetchall()
    mine.close()
    theirs = pool.connection()
    if is_ours:
        with pytest.raises(driver.InterfaceError, match="given back"):
            cursor.execute("INSERT INTO x VALUES (1, 0)")
    else:
        cursor.execute("INSERT INTO x VALUES (1, 0)")
    theirs.commit()
    assert ([] if is_ours else [1]) == scene.column("SELECT id FROM x")


def test_two_threads_close_one_connection(pool_with: Callable[..., Any], is_ours: bool) -> None:
    """E, with drivers that tell less than PyMySQL: many at once, of which one gives it back."""
    pool = pool_with()
    for _ in range(10):
        db = pool.connection()
        do(db, "SELECT 1")
        assert joined(in_threads(4, db.close))
    assert not is_ours or (1, 0) == (len(pool._idle_cache), pool._connections)


FORKING = """
    import importlib, os, sys, warnings
    warnings.simplefilter("ignore")
    package, driver, arguments = sys.argv[1], importlib.import_module(sys.argv[2]), eval(sys.stdin.read())
    pool = importlib.import_module(package + ".pooled_db").PooledDB(driver, **arguments)
    def number(db):
        cursor = db.cursor()
        cursor.execute("SELECT CONNECTION_ID()")
        found = cursor.fetchall()[0][0]
        cursor.close()
        return found
    db = pool.connection()
    mine = number(db)
    db.close()
    child = os.fork()
    if not child:
        print("same" if number(pool.connection()) == mine else "other", flush=True)
        pool.close()
        os._exit(0)
    os.waitpid(child, 0)
    db = pool.connection()
    try:
        cursor = db._con._con.cursor()
        cursor.execute("SELECT 1")
        print("alive")
    except driver.Error:
        print("dead")
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_forked_child_has_its_own_sessions(
    package: str, driver: Any, arguments: dict[str, Any], is_ours: bool
) -> None:
    """M9, with drivers that tell less than PyMySQL."""
    said = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(FORKING), package, driver.__name__],
        input=repr({**arguments, "ping": 0}),
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=True,
    ).stdout
    assert (["other", "alive"] if is_ours else ["same", "dead"]) == said.split()


@pytest.mark.parametrize("server", ["mariadb"], indirect=True)  # it does not come to that
def test_a_silent_server_holds_nobody_up(
    pool_with: Callable[..., Any], scene: Scene, driver: Any, is_ours: bool
) -> None:
    """While one caller connects to a server that does not greet, DBUtils lets nobody return a connection."""
    with FaultProxy(scene.args["port"]) as proxy:
        pool = pool_with(port=proxy.port)
        mine = pool.connection()
        proxy.silent = True
        failed: list[Exception] = []

        def work() -> None:
            try:
                pool.connection()
            except driver.Error as error:
                failed.append(error)

        (connecting,) = in_threads(1, work)
        proxy.wait_for(lambda: proxy.accepted == 2)
        (returning,) = in_threads(1, mine.close)
        returning.join(DEADLINE_S if is_ours else 0.5)
        assert is_ours == (not returning.is_alive())
        proxy.heal()
        proxy.refusing = True
        proxy.reset()
        assert joined([connecting, returning])
        assert 1 == len(failed)
