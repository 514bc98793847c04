"""The drop-in with a driver that is known, on SQLite: what is careful there, and what of DBUtils stays."""

from __future__ import annotations

import copy
import gc
import os
import pickle
import sqlite3
import subprocess
import sys
import threading
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from millpond import UncommittedWork
from millpond.dbutils import simple_pooled_db, steady_db
from millpond.dbutils._witness import Activity
from millpond.dbutils.persistent_db import PersistentDB
from millpond.dbutils.pooled_db import InvalidConnectionError, PooledDB
from tests.garbage import collect
from tests.threads.doubles import until

from .waiting import in_threads, joined


@pytest.fixture
def database(tmp_path: Path) -> str:
    """Return a database with a table ``x (v)``."""
    name = str(tmp_path / "data.db")
    with sqlite3.connect(name) as con:
        con.execute("CREATE TABLE x (v)")
    con.close()
    return name


@pytest.fixture
def pool(database: str) -> Iterator[PooledDB]:
    """Return a pool on that database."""
    made = PooledDB(sqlite3, maxconnections=6, maxusage=3, setsession=["PRAGMA cache_size = 123"], database=database)
    yield made
    made.close()


def values(database: str) -> list[Any]:
    """Return what is committed."""
    con = sqlite3.connect(database)
    try:
        return [row[0] for row in con.execute("SELECT v FROM x ORDER BY v")]
    finally:
        con.close()


def test_a_transaction_is_not_cut_by_maxusage(pool: PooledDB, database: str) -> None:
    """Ten inserts with maxusage=3 are ten rows; the connection is replaced for the next borrower."""
    db = pool.connection()
    first = db.dbapi_connection
    for number in range(10):
        db.cursor().execute("INSERT INTO x VALUES (?)", (number,))
    db.commit()
    db.close()
    assert list(range(10)) == values(database)
    db = pool.connection()
    assert first is not db.dbapi_connection
    cursor = db.cursor()
    cursor.execute("PRAGMA cache_size")
    assert (123,) == cursor.fetchone()
    cursor.close()
    db.close()


@pytest.mark.parametrize(
    ("statement", "wrote"),
    [
        ("SELECT 1", False),
        ("/* app */ SELECT 1", False),
        ("-- app\n# page\n (SELECT 1)", False),
        ("/* SELECT */ DELETE FROM x /* SELECT */", True),
        ("/*! DELETE FROM x */", True),
        ("/*M!100100 DELETE FROM x */", True),
        ("/* never ended SELECT 1", True),
    ],
)
def test_a_comment_before_a_statement_is_looked_past(statement: str, wrote: bool) -> None:
    """Programs write into it who asks; a SELECT behind one has written nothing that could be lost."""
    seen = Activity()
    seen.note(statement)
    assert wrote == seen.wrote


def test_uncommitted_writes_are_told_of_once_a_place(pool: PooledDB, database: str) -> None:
    """The warning names the line that took the connection; the writes are rolled back."""

    def write_twice() -> None:
        for _ in range(2):
            with pool.connection() as db:
                db.cursor().execute("INSERT INTO x VALUES (1)")

    with pytest.warns(UncommittedWork, match=r"test_known_driver.py:\d+ in write_twice") as told:
        write_twice()
    assert 1 == len(told)
    assert [] == values(database)


def test_a_statement_s_error_keeps_the_transaction(pool: PooledDB, database: str) -> None:
    """After begin() and a wrong statement, what came before it is still there to be committed."""
    db = pool.connection()
    db.begin()
    db.cursor().execute("INSERT INTO x VALUES (1)")
    with pytest.raises(sqlite3.OperationalError):
        db.cursor().execute("SELECT nope FROM x")
    db.cursor().execute("INSERT INTO x VALUES (2)")
    db.commit()
    db.close()
    assert [1, 2] == values(database)


def test_a_cursor_that_reads_from_its_connection_is_cut_off(pool: PooledDB) -> None:
    """SQLite's cursors fetch from the connection: after the return they are closed."""
    db = pool.connection()
    cursor = db.cursor()
    cursor.execute("SELECT 1 UNION SELECT 2")
    db.close()
    with pytest.raises(sqlite3.InterfaceError, match="what it had not read is gone"):
        cursor.fetchone()


@pytest.mark.parametrize(
    "maker", [steady_db.connect, lambda *given, **named: PersistentDB(*given, **named).connection()]
)
def test_a_cursor_that_is_read_from_keeps_a_worn_connection(maker: Any, database: str) -> None:
    """With maxusage, statements inside of a loop over rows do not end the loop; afterwards it is replaced."""
    db = maker(sqlite3, maxusage=3, database=database, isolation_level=None)
    db.cursor().executemany("INSERT INTO x VALUES (?)", [(number,) for number in range(10)])
    reading, seen, first = db.cursor(), [], db._con
    for (number,) in reading.execute("SELECT v FROM x ORDER BY v"):
        seen.append(number)
        db.cursor().execute("UPDATE x SET v = v + 100 WHERE v = ?", (number,))
    assert (list(range(10)), first) == (seen, db._con)
    reading.close()
    assert (10,) == db.cursor().execute("SELECT count(*) FROM x WHERE v >= 100").fetchone()
    assert first is not db._con
    db._close()


def test_a_loop_that_is_left_early_closes_nothing(pool: PooledDB) -> None:
    """The rest of the rows can still be fetched, as with the driver's own cursor."""
    with pool.connection() as db:
        cursor = db.cursor()
        for row in cursor.execute("SELECT 1 UNION SELECT 2 UNION SELECT 3"):
            assert (1,) == row
            break
        assert [(2,), (3,)] == cursor.fetchall()


def test_a_closed_cursor_comes_back_to_life(pool: PooledDB) -> None:
    """As in DBUtils, execute() on a closed cursor makes a new one; attributes that were set stay set."""
    with pool.connection() as db:
        cursor = db.cursor()
        cursor.arraysize = 7
        cursor.close()
        cursor.execute("SELECT 1")
        assert ((1,), 7) == (cursor.fetchone(), cursor._cursor.arraysize)
        assert [(1,)] == list(cursor.execute("SELECT 1"))
        cursor.close()


def test_chains_of_calls_keep_what_they_need(pool: PooledDB) -> None:
    """A chain holds its cursor, and its connection, until the last row; then both are free."""
    assert (1,) == pool.connection().cursor().execute("SELECT 1").fetchone()
    assert [(1,)] == pool.connection().cursor().execute("SELECT 1").fetchmany(5)
    assert [(1,)] == pool.connection().execute("SELECT 1").fetchall()
    rows = iter(pool.connection().cursor().execute("SELECT 1 UNION SELECT 2"))
    assert ((1,), 1) == (next(rows), pool._connections)
    assert [(2,)] == list(rows)
    del rows
    assert 0 == pool._connections


def test_the_driver_s_shortcuts_are_watched_as_cursors_are(pool: PooledDB, database: str) -> None:
    """SQLite's ``execute()`` of a connection makes a cursor; it writes nothing for the next borrower."""
    db = pool.connection()
    cursor = db.execute("INSERT INTO x VALUES (1)")
    db.commit()
    assert 1 == db._usage
    db.close()
    theirs = pool.connection()
    with pytest.raises(sqlite3.InterfaceError, match="given back"):
        cursor.execute("INSERT INTO x VALUES (2)")
    theirs.commit()
    assert [1] == values(database)


def test_nothing_that_leads_to_a_server_is_copied(pool: PooledDB) -> None:
    """Neither proxies nor what is behind them: two would give one connection back, or close it."""
    db = pool.connection()
    for what in (db, db._con, db.cursor()):
        with pytest.raises(TypeError, match="cannot be copied"):
            copy.copy(what)
        with pytest.raises(TypeError, match="cannot be copied"):
            pickle.dumps(what)


def test_attributes_are_set_back_for_the_next_borrower(pool: PooledDB) -> None:
    """row_factory reaches the driver, and is gone afterwards; a method cannot be overwritten by a value."""
    db = pool.connection()
    db.row_factory = sqlite3.Row
    cursor = db.cursor()
    cursor.execute("SELECT 1 AS one")
    assert 1 == cursor.fetchone()["one"]
    with pytest.raises(AttributeError, match="call interrupt"):
        db.interrupt = True
    cursor.close()
    db.close()
    assert pool.connection().row_factory is None


def test_what_was_given_back_says_where(pool: PooledDB) -> None:
    """The error of a connection that is used after its return names the place."""
    db = pool.connection()
    db.close()
    db.close()
    with pytest.raises(InvalidConnectionError, match=r"given back at .*test_known_driver.py:\d+") as caught:
        db.cursor()
    assert isinstance(caught.value, sqlite3.Error)


def test_dropped_connections_come_back(pool: PooledDB) -> None:
    """By going out of scope, and from within a cycle that only the collector sees."""
    for number in range(6):
        db: Any = pool.connection()
        if number % 2:
            db._cycle = [db]
        del db
    collect()
    until(lambda: not pool._connections, "the end of the last")


def test_a_connection_that_the_collector_gives_back_within_a_step_is_not_out(pool: PooledDB) -> None:
    """The collector runs wherever it likes, in the middle of a decision of the pool as well."""
    db: Any = pool.connection()
    db.cursor().execute("INSERT INTO x VALUES (9)")  # so that there is more to do than to put it back
    pool._engine._decide(db.close)
    until(lambda: not pool._connections, "the end of the return")  # which the pool's clock may have taken up as well
    assert 1 == len(pool._idle_cache)


class Keeper:
    """What a program keeps a connection in; in a cycle, so that only the collector ends it."""

    def __init__(self, db: Any) -> None:
        self.end = db.close
        self.me = self

    def __del__(self) -> None:
        self.end()


def test_the_collector_may_run_while_holders_are_looked_for(pool: PooledDB) -> None:
    """A finalizer of the program's gives a connection back just then: the thread that looks has the pool's lock."""
    db = pool.connection()
    db.cursor().execute("INSERT INTO x VALUES (9)")  # so that there is more to do than to put it back
    collected: list[int] = []

    def collect_in_the_middle(frame: types.FrameType, event: str, _: object) -> None:
        if event == "call" and frame.f_code.co_name == "live":
            sys.setprofile(None)
            collected.append(gc.collect())

    def look() -> None:
        Keeper(db)
        sys.setprofile(collect_in_the_middle)
        pool._engine.holders()

    gc.disable()  # not before
    try:
        assert joined(in_threads(1, look))
    finally:
        gc.enable()
    assert collected
    until(lambda: not pool._connections, "the end of the return")  # which the pool's clock may have taken up as well


def test_cache_gives_back(pool: PooledDB) -> None:
    """DBUtils' way to give a connection back by what is behind it."""
    db = pool.connection()
    assert db._con is not None
    pool.cache(db._con)
    assert 0 == pool._connections
    with pytest.raises(InvalidConnectionError):
        db.cursor()


def test_connections_are_shared_where_the_driver_lets_them(database: str) -> None:
    """With maxshared several threads use one connection, and a transaction keeps others off."""
    if sqlite3.threadsafety < 2:
        pytest.skip("this SQLite says that threads must not share connections")
    pool = PooledDB(sqlite3, maxshared=1, database=database)
    got: list[Any] = []
    assert joined(in_threads(4, lambda: got.append(pool.connection())))
    assert 1 == len({id(db._con) for db in got})
    assert 4 == pool._shared_cache[0].shared
    got[0].cursor().execute("INSERT INTO x VALUES (1)")  # a transaction, without begin()
    with pytest.raises(pooled_error(pool), match="in transactions"):
        pool.connection()
    got[0].commit()
    got.append(pool.connection())
    for db in got:
        db.close()
    assert ([], 0) == (pool._shared_cache, pool._connections)
    pool.close()


def test_threads_run_statements_on_a_shared_connection_at_the_same_time() -> None:
    """They neither wait for each other for ever, below SQLite's mutex, nor take each other's statements."""
    if sqlite3.threadsafety < 2:
        pytest.skip("this SQLite says that threads must not share connections")
    program = (
        "import sqlite3, threading\n"
        "from millpond.dbutils.pooled_db import PooledDB\n"
        "pool = PooledDB(sqlite3, maxshared=1, database=':memory:', isolation_level=None)\n"
        "kept, errors = pool.connection(), []\n"
        "def work():\n"
        "    try:\n"
        "        for number in range(2000):\n"
        "            db = pool.connection()\n"
        "            assert (number,) == db.cursor().execute('SELECT ?', (number,)).fetchone()\n"
        "            db.close()\n"
        "    except Exception as error: errors.append(error)\n"
        "threads = [threading.Thread(target=work) for _ in range(6)]\n"
        "for thread in threads: thread.start()\n"
        "for thread in threads: thread.join()\n"
        "print(errors, kept._shared_con.shared)\n"
    )
    assert "[] 1" == said(program, 60.0)


def pooled_error(_: PooledDB) -> type[Exception]:
    """Return what a pool raises when all are out."""
    from millpond.dbutils.pooled_db import TooManyConnectionsError

    return TooManyConnectionsError


def test_a_persistent_connection_is_the_thread_s_own(database: str) -> None:
    """The same for one thread, another for another; close() ends what is open, and it goes with its thread."""
    persist = PersistentDB(sqlite3, database=database)
    mine = persist.connection()
    assert mine is persist.dedicated_connection()
    mine.cursor().execute("INSERT INTO x VALUES (1)")
    mine.close()
    assert not mine.dbapi_connection.in_transaction
    theirs: list[Any] = []
    assert joined(in_threads(1, lambda: theirs.append(persist.connection())))
    assert theirs[0] is not mine
    theirs[0]._close()
    mine._close()


def test_a_steady_connection_commits_its_block(database: str) -> None:
    """Unlike a pooled one: as in DBUtils, ``with`` is a transaction here."""
    db = steady_db.connect(sqlite3, database=database)
    with db:
        db.cursor().execute("INSERT INTO x VALUES (1)")
    with pytest.raises(sqlite3.OperationalError), db:
        db.cursor().execute("INSERT INTO x SELECT 2 UNION SELECT nope")
    db.close()
    assert [1] == values(database)


def test_the_simple_pool_pools_and_takes_in(database: str) -> None:
    """One thread at a time where the driver says so, all opened at once; one more can be added."""
    one_at_a_time: Any = types.ModuleType("one_at_a_time")
    one_at_a_time.threadsafety, one_at_a_time.connect = 1, sqlite3.connect
    pool = simple_pooled_db.PooledDB(one_at_a_time, 2, database, check_same_thread=False)
    first, second = pool.connection(), pool.connection()
    waiting: list[Any] = []
    threads = in_threads(1, lambda: waiting.append(pool.connection()))
    pool.addConnection(sqlite3.connect(database, check_same_thread=False))
    assert joined(threads)
    assert 3 == len({id(db._con) for db in (first, second, waiting[0])})
    pool.returnConnection(first._con)
    assert not hasattr(first, "cursor")
    for db in (second, waiting[0]):
        db.close()


def test_install_lets_import_dbutils_find_the_drop_in() -> None:
    """For every module; and it says so when DBUtils itself was imported before."""
    program = (
        "import millpond.dbutils; millpond.dbutils.install(); millpond.dbutils.install()\n"
        "import dbutils, dbutils.pooled_db, dbutils.steady_pg\n"
        "from dbutils.persistent_db import PersistentDB\n"
        "from dbutils import simple_pooled_db\n"
        "print(dbutils.__version__, dbutils.pooled_db.PooledDB.__module__, PersistentDB.version)\n"
    )
    assert "3.2.0 millpond.dbutils.pooled_db 3.2.0" == said(program)
    late = (
        "import dbutils, millpond.dbutils\ntry: millpond.dbutils.install()\nexcept ImportError as error: print(error)\n"
    )
    assert "dbutils was imported already" in said(late)


def said(program: str, timeout: float = 60.0) -> str:
    """Return what a program prints."""
    return subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=timeout, check=True
    ).stdout.strip()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_fork_begins_with_connections_of_its_own() -> None:
    """What a child inherits is let go of, what it is in the middle of is lost, and it can go on."""
    program = (
        "import os, sqlite3, warnings\n"
        "from millpond.dbutils.pooled_db import PooledDB\n"
        "warnings.simplefilter('ignore')\n"
        "pool = PooledDB(sqlite3, maxconnections=2, database=':memory:')\n"
        "held = pool.connection(); raw = held.dbapi_connection; held.begin()\n"
        "other = pool.connection(); other.cursor().execute('CREATE TABLE x (v)')\n"
        "other.cursor().execute('INSERT INTO x VALUES (1)')  # a transaction without begin()\n"
        "child = os.fork()\n"
        "if not child:\n"
        "    try: other.commit()\n"
        "    except sqlite3.OperationalError as error: print('forked' in str(error))\n"
        "    other.close()\n"
        "    try: held.cursor()\n"
        "    except sqlite3.OperationalError as error: print('forked' in str(error))\n"
        "    held.rollback(); print(held.cursor() is not None, held.dbapi_connection is not raw, flush=True)\n"
        "    print(pool.connection().dbapi_connection is not raw, flush=True)\n"
        "    os._exit(0)\n"
        "os.waitpid(child, 0)\n"
        "print(held.dbapi_connection is raw)\n"
    )
    assert 6 * ["True"] == said(program).split()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_fork_while_a_function_s_driver_is_found_out_leaves_the_child_able_to_connect() -> None:
    """The thread that was at it is not there; the child finds it out again."""
    program = (
        "import os, signal, sqlite3, threading, warnings\n"
        "from millpond.dbutils import _source\n"
        "from millpond.dbutils.pooled_db import PooledDB\n"
        "warnings.simplefilter('ignore')\n"
        "finding, over, find = threading.Event(), threading.Event(), _source.adapter_named\n"
        "def find_slowly(name):\n"
        "    finding.set(); over.wait(60)\n"
        "    return find(name)\n"
        "_source.adapter_named = find_slowly\n"
        "pool = PooledDB(lambda: sqlite3.connect(':memory:', check_same_thread=False))\n"
        "thread = threading.Thread(target=lambda: pool.connection().close()); thread.start()\n"
        "assert finding.wait(60)\n"
        "child = os.fork()\n"
        "if not child:\n"
        "    signal.alarm(60)  # ends it if nothing else does\n"
        "    _source.adapter_named = find\n"
        "    print(pool.connection().cursor().execute('SELECT 5').fetchone(), flush=True)\n"
        "    os._exit(0)\n"
        "status = os.waitpid(child, 0)[1]\n"
        "over.set(); thread.join(); print(status)\n"
    )
    assert ["(5,)", "0"] == said(program, 90.0).splitlines()


def test_many_threads_keep_the_books_right(pool: PooledDB) -> None:
    """Threads that take, work, close twice and drop leave nothing out."""

    def work() -> None:
        for number in range(30):
            try:
                db = pool.connection()
            except pooled_error(pool):
                continue
            cursor = db.cursor()
            cursor.execute("SELECT ?", (number,))
            assert (number,) == cursor.fetchone()
            if number % 2:
                db.close()
            del db, cursor

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    assert joined(threads, 60.0)
    until(lambda: not pool._connections, "the end of the last return")  # by the pool's clock, if it was dropped
    assert pool.stats().size <= 6
