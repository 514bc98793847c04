"""SQLite: one database in memory for all, WAL, and what borrowers leave behind."""

from __future__ import annotations

import functools
import sqlite3
import sys
import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import millpond
from millpond.drivers import resolve
from millpond.errors import ConnectionReturned, InvalidSetting
from millpond.testing.contract import ContractLease
from tests.garbage import collect


def soon() -> float:
    """Return a deadline."""
    return time.monotonic() + 10.0


def value(conn: sqlite3.Connection, statement: str) -> Any:
    """Return the one value of a statement, whatever row factory there is."""
    return sqlite3.Cursor(conn).execute(statement).fetchone()[0]


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///", "sqlite:///:memory:"])
def test_memory_is_one_database_for_all(url: str) -> None:
    """What one connection wrote another one reads, also when there was none for a while."""
    driver = resolve(url)
    first = driver.open(soon())
    first.execute("CREATE TABLE t (a)")
    first.execute("INSERT INTO t VALUES (7)")
    first.commit()
    driver.close(first)
    second = driver.open(soon())
    assert 7 == value(second, "SELECT a FROM t")
    driver.close(second)


def test_memory_of_one_adapter_is_not_that_of_another() -> None:
    """Two pools in memory have nothing in common."""
    one, other = resolve("sqlite://"), resolve("sqlite://")
    conn, stranger = one.open(soon()), other.open(soon())
    conn.execute("CREATE TABLE t (a)")
    with pytest.raises(sqlite3.OperationalError, match="no such table"):
        stranger.execute("SELECT * FROM t")
    one.close(conn)
    other.close(stranger)


def test_memory_serves_many_threads_without_errors() -> None:
    """Readers and writers in memory wait for each other, as they do in a file; none is turned away."""
    driver = resolve("sqlite://", connect_args={"timeout": 30.0})
    setup = driver.open(soon())
    setup.execute("CREATE TABLE t (a INTEGER PRIMARY KEY, b)")
    setup.executemany("INSERT INTO t VALUES (?, 0)", [(number,) for number in range(20)])
    setup.commit()
    errors: list[BaseException] = []

    def work() -> None:
        conn = driver.open(soon())
        try:
            for number in range(60):
                conn.execute("SELECT sum(b) FROM t").fetchall()
                conn.execute("UPDATE t SET b = b + 1 WHERE a = ?", (number % 20,))
                conn.commit()
        except sqlite3.Error as error:
            errors.append(error)
        finally:
            driver.close(conn)

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert [] == errors
    assert 360 == value(setup, "SELECT sum(b) FROM t")
    driver.close(setup)


def test_memory_by_module_is_one_database_too() -> None:
    """``Pool(sqlite3, connect_args={"database": ":memory:"})`` means the same."""
    driver = resolve(sqlite3, connect_args={"database": ":memory:"})
    first, second = driver.open(soon()), driver.open(soon())
    first.execute("CREATE TABLE t (a)")
    assert 0 == value(second, "SELECT count(*) FROM t")
    driver.close(first)
    driver.close(second)


def test_memory_by_callable_is_warned_of() -> None:
    """A callable that makes a database of its own for each connection is told of once."""
    driver = resolve(lambda: sqlite3.connect(":memory:"))
    with pytest.warns(UserWarning, match="empty database of its own"):
        driver.close(driver.open(soon()))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        driver.close(driver.open(soon()))


def test_the_anchor_of_a_database_in_memory_is_let_go() -> None:
    """When the adapter goes, so does the connection that kept its database alive: no warning, nothing left."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        driver = resolve("sqlite://")
        driver.close(driver.open(soon()))
        del driver
        collect()


@pytest.mark.parametrize(
    ("option", "mode"), [("", "wal"), ("?journal_mode=keep", "delete"), ("?journal_mode=persist", "persist")]
)
def test_files_by_url_are_in_wal_unless_told_otherwise(tmp_path: Path, option: str, mode: str) -> None:
    """A file that a URL names is switched to WAL; ``keep`` leaves it."""
    driver = resolve(f"sqlite:///{tmp_path}/x.db{option}")
    conn = driver.open(soon())
    assert mode == value(conn, "PRAGMA journal_mode")
    driver.close(conn)


def test_options(tmp_path: Path) -> None:
    """Options of the URL do what they say."""
    path = tmp_path / "a b%.db"
    url = f"sqlite:///{str(path).replace('%', '%25').replace(' ', '%20')}"
    driver = resolve(f"{url}?busy_timeout=1.5&foreign_keys=true&autocommit=true&cached_statements=10")
    conn = driver.open(soon())
    pragmas = value(conn, "PRAGMA busy_timeout"), value(conn, "PRAGMA foreign_keys")
    assert (1500, 1, None) == (*pragmas, conn.isolation_level)
    driver.close(conn)
    assert path.exists()
    reader = resolve(f"{url}?mode=ro")
    conn = reader.open(soon())
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        conn.execute("CREATE TABLE t (a)")
    reader.close(conn)
    missing = resolve(f"sqlite:///{tmp_path}/none.db?mode=rw")
    with pytest.raises(sqlite3.OperationalError, match="unable to open"):
        missing.open(soon())


def test_a_host_is_refused() -> None:
    """Two slashes where there must be three are the commonest mistake, and told as such."""
    with pytest.raises(InvalidSetting, match="third /"):
        resolve("sqlite://x.db")


LEFT_BEHIND: dict[str, Callable[[sqlite3.Connection], object]] = {
    "pragma": lambda conn: conn.execute("PRAGMA foreign_keys=1"),
    "query_only": lambda conn: conn.execute("PRAGMA query_only=1"),
    "temporary table": lambda conn: conn.execute("CREATE TEMP TABLE x (a)"),
    "temporary table by name": lambda conn: conn.execute("CREATE TABLE temp.x (a)"),
    "temporary view": lambda conn: conn.execute("CREATE TEMP VIEW x AS SELECT 1"),
    "attached": lambda conn: conn.execute("ATTACH ':memory:' AS x"),
    "script": lambda conn: conn.executescript("SELECT 1; CREATE TEMP TABLE x (a);"),
}
METHODS: dict[str, Callable[[sqlite3.Connection], object]] = {
    "function": lambda conn: conn.create_function("f", 0, lambda: 1),
    "collation": lambda conn: conn.create_collation("c", lambda a, b: 0),
    "authorizer": lambda conn: conn.set_authorizer(lambda *_: sqlite3.SQLITE_OK),
    "trace": lambda conn: conn.set_trace_callback(lambda _: None),
    "progress": lambda conn: conn.set_progress_handler(lambda: 0, 1000),
}


@pytest.mark.parametrize("left", [*LEFT_BEHIND, *METHODS])
def test_what_cannot_be_put_back_costs_the_connection(tmp_path: Path, left: str) -> None:
    """A borrower who leaves such a thing makes the connection unclean, and the reset gives it up."""
    driver = resolve(f"sqlite:///{tmp_path}/x.db")
    conn = driver.open(soon())
    assert driver.is_clean is not None
    assert driver.is_clean(conn)
    {**LEFT_BEHIND, **METHODS}[left](conn)
    assert not driver.is_clean(conn)
    assert not driver.reset(conn, soon())
    driver.close(conn)


@pytest.mark.skipif(sys.version_info < (3, 11), reason="blobs came with Python 3.11")
def test_a_blob_that_is_left_open_locks_nobody_out(tmp_path: Path) -> None:
    """It holds a lock for as long as its connection lives, which therefore does not."""
    path = tmp_path / "x.db"
    driver = resolve(f"sqlite:///{path}")
    conn, other = driver.open(soon()), sqlite3.connect(path, timeout=0)
    conn.execute("CREATE TABLE t (a INTEGER PRIMARY KEY, b BLOB)")
    conn.execute("INSERT INTO t VALUES (1, zeroblob(9))")
    conn.commit()
    blob = conn.blobopen("t", "b", 1)
    assert driver.is_clean is not None
    assert not driver.is_clean(conn)
    assert not driver.reset(conn, soon())
    driver.close(conn)
    other.execute("INSERT INTO t VALUES (2, NULL)")
    other.close()
    del blob


@pytest.mark.parametrize("watched", [True, False])
def test_who_is_in_a_hurry_is_patient_again_afterwards(tmp_path: Path, watched: bool) -> None:
    """The wait for a lock is cut short; the connection is as good as new when that is taken back, and not before."""
    path = tmp_path / "x.db"
    driver: Any = resolve(f"sqlite:///{path}" if watched else lambda: sqlite3.connect(path))
    conn = driver.open(soon())

    def patience_ms() -> int:
        found: int = conn.execute("PRAGMA busy_timeout").fetchone()[0]
        return found

    adapter = driver if watched else driver.adapter
    for _ in range(2):  # the second time nothing is compiled anew
        calm = adapter.hurry(conn, 0.05)
        assert 50 == patience_ms()
        assert not (driver.is_clean(conn) if watched else driver.reset(conn, soon()))
        calm()
        assert 5000 == patience_ms()
        assert driver.is_clean(conn) if watched else driver.reset(conn, soon())
    assert adapter.hurry(conn, 6.0) is None
    driver.close(conn)


@pytest.mark.parametrize("left", LEFT_BEHIND)
def test_the_same_is_found_in_connections_that_are_not_watched(tmp_path: Path, left: str) -> None:
    """Connections of a callable are looked at, setting by setting, at every return."""
    driver = resolve(lambda: sqlite3.connect(tmp_path / "x.db"))
    conn = driver.open(soon())
    assert driver.reset(conn, soon())
    LEFT_BEHIND[left](conn)
    assert not driver.reset(conn, soon())
    driver.close(conn)


@pytest.mark.parametrize("watched", [True, False])
def test_attributes_are_put_back(tmp_path: Path, watched: bool) -> None:
    """Row factory, text factory and isolation level are as in a new connection after the reset."""
    path = tmp_path / "x.db"
    driver = resolve(f"sqlite:///{path}" if watched else lambda: sqlite3.connect(path))
    conn = driver.open(soon())
    wanted = (conn.row_factory, conn.text_factory, conn.isolation_level)
    conn.row_factory, conn.text_factory, conn.isolation_level = sqlite3.Row, bytes, "EXCLUSIVE"
    if sys.version_info >= (3, 12):
        conn.autocommit = False
    assert driver.is_clean is not None
    assert not driver.is_clean(conn)
    assert driver.reset(conn, soon())
    assert wanted == (conn.row_factory, conn.text_factory, conn.isolation_level)
    assert not conn.in_transaction
    assert driver.is_clean(conn) is watched
    driver.close(conn)


def test_ordinary_work_leaves_a_connection_clean(tmp_path: Path) -> None:
    """Reading, writing, committing and reading PRAGMAs needs no reset."""
    driver = resolve(f"sqlite:///{tmp_path}/x.db")
    conn = driver.open(soon())
    conn.execute("CREATE TABLE t (a)")
    for _ in range(3):
        conn.execute("INSERT INTO t VALUES (1)")
        conn.commit()
        conn.execute("SELECT * FROM t").fetchall()
        conn.execute("PRAGMA table_info(t)").fetchall()
        conn.execute("PRAGMA foreign_keys").fetchall()
    assert driver.is_clean is not None
    assert driver.is_clean(conn)
    driver.close(conn)


def test_rollback_only(tmp_path: Path) -> None:
    """``reset="rollback"`` looks at the transaction and at nothing else."""
    driver = resolve(f"sqlite:///{tmp_path}/x.db", reset="rollback")
    conn = driver.open(soon())
    conn.execute("CREATE TEMP TABLE t (a)")
    conn.row_factory = sqlite3.Row
    assert driver.is_clean is not None
    assert driver.is_clean(conn)
    conn.execute("INSERT INTO t VALUES (1)")
    assert not driver.is_clean(conn)
    assert driver.uncommitted(conn)
    assert driver.reset(conn, soon())
    assert (0, sqlite3.Row) == (value(conn, "SELECT count(*) FROM t"), conn.row_factory)
    driver.close(conn)


def test_always_proves_nothing(tmp_path: Path) -> None:
    """``reset="always"`` resets at every return."""
    assert resolve(f"sqlite:///{tmp_path}/x.db", reset="always").is_clean is None


def test_bound_connections_are_found() -> None:
    """A connection made with ``check_same_thread`` is recognised, whatever made it."""
    driver = resolve(lambda: sqlite3.connect("file:b?mode=memory", uri=True))
    bound = sqlite3.connect(":memory:")
    free = sqlite3.connect(":memory:", check_same_thread=False)
    with pytest.warns(UserWarning, match="of its own"):
        first = driver.open(soon())
    with pytest.warns(UserWarning, match="check_same_thread=False") as warned:
        assert [True, True, False] == [driver.bound_to_thread(conn) for conn in (first, bound, free)]
    assert 1 == len(warned)
    for conn in (first, bound, free):
        conn.close()


@pytest.mark.parametrize("dial", ["auto", "caller"])
@pytest.mark.filterwarnings("ignore:connections of this pool belong")
# Nobody but its own thread can close such a connection; Python 3.13 says so when it is collected.
@pytest.mark.filterwarnings("ignore:unclosed database:ResourceWarning")
def test_threads_never_meet_a_connection_that_is_anothers(tmp_path: Path, dial: Any) -> None:
    """Connections that are bound to their threads serve many: none is lent to a thread that it does not work in."""
    path = tmp_path / "bound.db"
    served: list[int] = []
    with millpond.Pool(lambda: sqlite3.connect(path), max_size=2, dial=dial) as pool:

        def work() -> None:
            for _ in range(50):
                with pool.connection() as conn:
                    served.append(conn.execute("SELECT 1").fetchone()[0])

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(10.0)
    collect()  # sqlite3's statement cache and its connection refer to each other
    assert [1] * 200 == served


def test_cursors_of_the_users_own_class_and_row_factory() -> None:
    """Factory and row factory of the user work as without a pool, and every kind of cursor is cut off."""

    class Own(sqlite3.Cursor):
        """A cursor of somebody's own."""

    driver = resolve("sqlite://")
    conn = driver.open(soon())
    conn.row_factory = sqlite3.Row
    lease = ContractLease(conn)
    plain = driver.cursor(conn, lease, (), {})
    own = driver.cursor(conn, lease, (Own,), {})
    named = driver.cursor(conn, lease, (), {"factory": Own})
    made = driver.cursor(conn, lease, (functools.partial(Own),), {})  # no class, as a function would be
    bare = driver.cursor(conn, lease, (functools.partial(sqlite3.Cursor),), {})
    assert [True] * 3 == [isinstance(cursor, Own) for cursor in (own, named, made)]
    for cursor in (plain, own, named, made, bare):
        assert cursor.connection is lease
        assert "a" == cursor.execute("SELECT 1 AS a UNION SELECT 2").fetchone().keys()[0]
    lease.give_back()
    for cursor in (plain, own, named, made, bare):
        for use in (lambda c=cursor: c.execute("SELECT 1"), cursor.fetchone, cursor.fetchall, lambda c=cursor: list(c)):
            with pytest.raises(ConnectionReturned):
                use()
        cursor.close()
    driver.close(conn)


def test_a_connection_class_of_the_users_own() -> None:
    """A subclass whose ``cursor`` makes its own kind keeps making it."""

    class Cursor(sqlite3.Cursor):
        """A cursor of somebody's own."""

    class Connection(sqlite3.Connection):
        """A connection that makes them."""

        def cursor(self, factory: Any = Cursor) -> Any:
            return super().cursor(factory)

    driver = resolve("sqlite://", connect_args={"factory": Connection})
    conn = driver.open(soon())
    lease = ContractLease(conn)
    cursor = driver.cursor(conn, lease, (), {})
    assert isinstance(cursor, Cursor)
    lent_by: Any = cursor.connection
    assert lent_by is lease
    assert [(1,)] == cursor.execute("SELECT 1").fetchall()
    assert driver.reset(conn, soon())
    cursor.close()
    driver.close(conn)


def test_an_unfinished_select_ends_at_return(tmp_path: Path) -> None:
    """A cursor that was not read to its end holds the file; given back, it does not."""
    driver = resolve(f"sqlite:///{tmp_path}/x.db?journal_mode=delete&busy_timeout=0.01")
    reader, writer = driver.open(soon()), driver.open(soon())
    writer.execute("CREATE TABLE t (a)")
    writer.executemany("INSERT INTO t VALUES (?)", [(number,) for number in range(5)])
    writer.commit()
    lease = ContractLease(reader)
    cursor = driver.cursor(reader, lease, (), {})
    cursor.execute("SELECT * FROM t").fetchone()
    writer.execute("INSERT INTO t VALUES (9)")
    with pytest.raises(sqlite3.OperationalError, match="locked"):
        writer.commit()
    lease.give_back()
    writer.commit()
    driver.close(reader)
    driver.close(writer)


def test_interrupting(tmp_path: Path) -> None:
    """A connection that is cut has its statement interrupted, and is not said to be broken."""
    driver = resolve(f"sqlite:///{tmp_path}/x.db")
    conn = driver.open(soon())
    begun = threading.Event()

    def tell() -> int:
        begun.set()
        return 0

    conn.create_function("begun", 0, tell)
    endless = "WITH RECURSIVE n(i) AS (SELECT begun() UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"
    errors: list[BaseException] = []

    def work() -> None:
        try:
            conn.execute(endless).fetchall()
        except sqlite3.OperationalError as error:
            errors.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    assert begun.wait(10)
    assert not driver.cut(conn)
    thread.join(10)
    assert ["interrupted"] == [str(error) for error in errors]
    driver.close(conn)
