"""The worst losses with the other MySQL drivers that are known: mysqlclient and mysql-connector-python."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import pytest

from .scenes import Scene

DRIVERS = {
    "MySQLdb": ("host", "port", "user", "password", "database"),
    "mysql.connector": ("host", "port", "user", "password", "database"),
}


@pytest.fixture(params=DRIVERS)
def driver(request: pytest.FixtureRequest) -> Any:
    """Return each driver's module."""
    return importlib.import_module(request.param)


@pytest.fixture
def pool_with(pooled: ModuleType, scene: Scene, driver: Any, is_ours: bool) -> Iterator[Callable[..., Any]]:
    """Return a function that makes a pool of that driver's connections."""
    names = DRIVERS[driver.__name__]
    arguments = {name: scene.args[name] for name in names}
    if driver.__name__ == "mysql.connector":
        arguments |= {"ssl_disabled": scene.server.kind == "mariadb", "use_pure": True}
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
