"""What ends once, or not at all, in the drop-in over each driver, and in DBUtils three times; on MariaDB and MySQL.

DBUtils itself is the control, with PyMySQL alone: what it does is not the driver's doing.
"""

from __future__ import annotations

import contextlib
import importlib
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from millpond.drivers.faults import number_of as number_of_error
from millpond.testing import FaultProxy
from tests.dbutils.waiting import DEADLINE_S
from tests.live.outages import ask_while_down

from .scenes import Scene

SHOWN_S = 0.5  # a wait is shown by waiting so long
SUBJECTS = (
    ("dbutils", "pymysql"),
    ("millpond.dbutils", "pymysql"),
    ("millpond.dbutils", "MySQLdb"),
    ("millpond.dbutils", "mysql.connector"),
)


class Subject:
    """DBUtils or the drop-in, over one driver.

    Attributes:
        is_ours: it is the drop-in.
        driver: the driver's module.
    """

    def __init__(self, package: str, driver: str, scene: Scene, closing: contextlib.ExitStack) -> None:
        self.is_ours = package.startswith("millpond.")
        self.driver: Any = importlib.import_module(driver)
        self.arguments = scene.arguments_for(driver)
        self._pooled: Any = importlib.import_module(f"{package}.pooled_db")
        self._closing = closing

    def pool(self, creator: Any = None, **settings: Any) -> Any:
        """Return a pool on the scene's schema; closed after the test."""
        pool = self._pooled.PooledDB(creator or self.driver, **{**self.arguments, **settings})
        self._closing.callback(pool.close)
        return pool

    def error(self, number: int, text: str) -> Exception:
        """Return an OperationalError as the driver makes them."""
        kind: Any = self.driver.OperationalError
        is_connectors = self.driver.__name__ == "mysql.connector"
        made: Exception = kind(msg=text, errno=number) if is_connectors else kind(number, text)
        return made


@pytest.fixture(params=SUBJECTS, ids=lambda subject: f"{subject[0]}, {subject[1]}")
def subject(request: pytest.FixtureRequest, scene: Scene) -> Iterator[Subject]:
    """Return DBUtils, and the drop-in over each driver."""
    package, driver = request.param
    with contextlib.ExitStack() as closing:
        yield Subject(package, driver, scene, closing)


def run(db: Any, statement: str) -> Any:
    """Run a statement on a connection; return its first row, if it has rows."""
    cursor = db.cursor()
    try:
        cursor.execute(statement)
        rows = cursor.fetchall() if cursor.description else ()
    finally:
        cursor.close()
    return rows[0] if rows else None


def session_of(db: Any) -> int:
    """Return the server's number of the session behind a connection."""
    return int(run(db, "SELECT CONNECTION_ID()")[0])


def refused(subject: Subject, call: Callable[[], object]) -> int:
    """Return the number of the driver's error that a call raises."""
    with pytest.raises(subject.driver.Error) as caught:
        call()
    return number_of_error(caught.value)


@contextlib.contextmanager
def row_locked(scene: Scene) -> Iterator[None]:
    """Have somebody else hold the lock of the only row."""
    scene.q("INSERT INTO x VALUES (1, 0)")
    scene.q("BEGIN")
    scene.q("UPDATE x SET v = 1")
    try:
        yield
    finally:
        scene.q("ROLLBACK")


def test_a_lock_is_waited_for_once(subject: Subject, scene: Scene) -> None:
    """M14: DBUtils waits three times as long as innodb_lock_wait_timeout says."""
    with row_locked(scene):
        waits = scene.status("Innodb_row_lock_waits")
        db = subject.pool(setsession=["SET innodb_lock_wait_timeout = 1"]).connection()
        assert 1205 == refused(subject, lambda: run(db, "UPDATE x SET v = 2"))
        assert (1 if subject.is_ours else 3) == scene.status("Innodb_row_lock_waits") - waits


def test_a_killed_statement_stays_dead(subject: Subject, scene: Scene) -> None:
    """N1: KILL QUERY has to be issued three times against DBUtils."""
    with row_locked(scene):
        before = scene.status("Innodb_row_lock_waits")
        db = subject.pool(autocommit=True).connection()
        ended: list[int] = []
        thread = threading.Thread(target=lambda: ended.append(refused(subject, lambda: run(db, "UPDATE x SET v = 2"))))
        thread.start()
        kills = 0
        while thread.is_alive() and kills < 10:
            waits = before + kills
            scene.until(lambda: not thread.is_alive() or scene.status("Innodb_row_lock_waits") > waits)  # noqa: B023  at once
            running = scene.column("SELECT id FROM information_schema.processlist WHERE info = 'UPDATE x SET v = 2'")
            for session in running:
                scene.q(f"KILL QUERY {session}")
                kills += 1
        thread.join(DEADLINE_S)
    assert ([1317], 1 if subject.is_ours else 3) == (ended, kills)


def test_a_statement_s_time_limit_holds(subject: Subject, scene: Scene) -> None:
    """N2: DBUtils gives a statement its time limit three times."""
    is_mariadb = scene.server.kind == "mariadb"
    scene.q(
        "INSERT INTO x WITH RECURSIVE n AS (SELECT 1 i UNION ALL SELECT i + 1 FROM n WHERE i < 150) SELECT i, i FROM n"
    )
    heavy = "SELECT COUNT(*) FROM x a, x b, x c, x d WHERE a.v + b.v + c.v + d.v = 0"
    statement = (
        f"SET STATEMENT max_statement_time=0.3 FOR {heavy}"
        if is_mariadb
        else heavy.replace("SELECT", "SELECT /*+ MAX_EXECUTION_TIME(300) */ ")
    )
    counter = "Max_statement_time_exceeded" if is_mariadb else "Max_execution_time_exceeded"
    before = scene.status(counter)
    db = subject.pool(autocommit=True).connection()
    assert (1969 if is_mariadb else 3024) == refused(subject, lambda: run(db, statement))
    assert (1 if subject.is_ours else 3) == scene.status(counter) - before


def test_a_server_that_is_down_is_tried_once_a_caller(subject: Subject, scene: Scene) -> None:
    """I: DBUtils tries three times for each caller, one after another, and hands out a dead connection."""
    attempts: list[None] = []

    def connect_counted(**arguments: Any) -> Any:
        attempts.append(None)
        return subject.driver.connect(**arguments)

    with FaultProxy(scene.args["port"]) as proxy:
        pool = subject.pool(connect_counted, mincached=3, port=proxy.port)
        attempts.clear()
        handed_out, refused = ask_while_down(pool, proxy, subject.driver.Error)
    assert (0 if subject.is_ours else 3) == handed_out
    assert {number_of_error(error) for error in refused} <= {2002, 2003}
    assert (3 if subject.is_ours else 9) <= len(attempts) <= (3 if subject.is_ours else 12)


def test_a_worn_connection_that_cannot_be_replaced_goes_on(subject: Subject) -> None:
    """H2: at maxusage, when no other can be had, DBUtils raises a bare OperationalError for a healthy connection."""
    full = False

    def connect_maybe(**arguments: Any) -> Any:
        if full:
            raise subject.error(1040, "Too many connections")
        return subject.driver.connect(**arguments)

    pool = subject.pool(connect_maybe, maxusage=2, autocommit=True)
    db = pool.connection()
    for _ in range(2):
        run(db, "SELECT 1")
    full = True
    if subject.is_ours:
        assert (1,) == run(db, "SELECT 1")
        db.close()
        assert (1,) == run(pool.connection(), "SELECT 1")
    else:
        with pytest.raises(subject.driver.OperationalError) as caught:
            run(db, "SELECT 1")
        assert () == caught.value.args


def test_a_return_opens_nothing(subject: Subject, scene: Scene) -> None:
    """N8: DBUtils opens a connection for one that died while it was out."""
    pool = subject.pool()
    db = pool.connection()
    scene.kill(session_of(db))
    before = scene.status("Connections")
    db.close()
    assert (0 if subject.is_ours else 1) == scene.status("Connections") - before


def test_a_server_that_has_become_read_only_is_left(subject: Subject, scene: Scene) -> None:
    """N6: DBUtils keeps its connections to the old primary; here addresses are looked up anew by new ones."""
    pool = subject.pool(autocommit=True)
    held = [pool.connection() for _ in range(2)]
    sessions = {session_of(db) for db in held}
    held.pop().close()
    scene.q("SET GLOBAL read_only = 1")
    try:
        assert 1290 == refused(subject, lambda: run(held[0], "INSERT INTO x VALUES (1, 0)"))
        held.pop().close()
    finally:
        scene.q("SET GLOBAL read_only = 0")
    held = [pool.connection() for _ in range(2)]
    assert subject.is_ours == (not sessions & {session_of(db) for db in held})


def test_a_server_without_room_is_waited_for(subject: Subject, scene: Scene) -> None:
    """N5: DBUtils raises 1040 also where callers wait, and connections of its own are about to come back."""
    (allowed,) = scene.column("SELECT @@global.max_connections")
    scene.q(f"SET GLOBAL max_connections = {max(10, scene.status('Threads_connected') + 3)}")
    pool = subject.pool(blocking=True, autocommit=True)
    beside = subject.pool(autocommit=True)  # does not wait
    held: list[Any] = []
    got: list[Any] = []

    def take() -> None:
        try:
            got.append(session_of(pool.connection()))
        except subject.driver.Error as error:
            got.append(number_of_error(error))

    try:
        held.append(pool.connection())
        session = session_of(held[0])
        # Within as many as the server has room for.
        assert 1040 == refused(subject, lambda: held.extend(beside.connection() for _ in range(100)))
        thread = threading.Thread(target=take, daemon=True)
        thread.start()
        thread.join(SHOWN_S)
        assert subject.is_ours == thread.is_alive()
        held.pop(0).close()
        thread.join(DEADLINE_S)
    finally:
        scene.q(f"SET GLOBAL max_connections = {allowed}")
    assert [session if subject.is_ours else 1040] == got
