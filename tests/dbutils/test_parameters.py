"""What DBUtils' parameters may be, what is commonly taken for them, and what is said to that."""

from __future__ import annotations

import math
import re
import sqlite3
import warnings
from typing import Any

import pymysql
import pytest

from millpond.dbutils import pooled_db, simple_pooled_db, steady_db
from millpond.dbutils.persistent_db import PersistentDB
from millpond.dbutils.pooled_db import PooledDB
from millpond.errors import Error, InvalidSetting

from .fakes import module


@pytest.mark.parametrize("maker", [PooledDB, PersistentDB, steady_db.connect])
def test_failures_is_no_number_of_attempts(maker: Any, fakedb: Any) -> None:
    """It is refused at once, by name, with the remedy, as a TypeError and as one of ours."""
    with pytest.raises(
        InvalidSetting, match=r"failures=3: it is no number of attempts to reconnect.*left out"
    ) as caught:
        maker(fakedb, failures=3)
    assert isinstance(caught.value, TypeError)
    assert 0 == fakedb.gates["connect"].calls


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"maxusage": 2.5}, "maxusage=2.5"),
        ({"maxusage": -1}, "max_lifetime"),
        ({"ping": (1, 42)}, "ping="),
        ({"isfatal": "always"}, "isfatal='always'"),
        ({"maxconnections": "many"}, "maxconnections='many'"),
        ({"mincached": -1}, "mincached=-1"),
        ({"blocking": -2}, "blocking=-2"),
        ({"setsession": 7}, "setsession=7"),
        ({"idle_timeout": 0}, "idle_timeout=0"),
    ],
)
def test_what_cannot_be_is_refused_by_name(settings: dict[str, Any], words: str, fakedb: Any) -> None:
    """Each parameter is looked at when the pool is made."""
    with pytest.raises(InvalidSetting) as caught:
        PooledDB(fakedb, **settings)
    assert words in str(caught.value)
    assert 0 == fakedb.gates["connect"].calls


@pytest.mark.parametrize(
    ("blocking", "seconds"),
    [(False, 0.0), (0, 0.0), (None, 0.0), (True, math.inf), (1, math.inf), (1.0, 1.0), (2.5, 2.5), (30, 30.0)],
)
def test_blocking_takes_seconds(blocking: Any, seconds: float, fakedb: Any) -> None:
    """A number is seconds, but for the 0 and 1 that programs have for False and True."""
    assert seconds == PooledDB(fakedb, blocking=blocking)._wait_s


def test_old_names_of_connect_arguments_warn_at_the_program_s_line(recwarn: pytest.WarningsRecorder) -> None:
    """The warning stands where the pool is made, and shows no value."""
    PooledDB(pymysql, db="secret schema", passwd="secret", charset="utf8")
    assert {__file__} == {warning.filename for warning in recwarn}
    words = " ".join(str(warning.message) for warning in recwarn)
    assert all(part in words for part in ("call it database=", "call it password=", "use charset=utf8mb4"))
    assert "secret" not in words


def test_both_names_of_a_connect_argument_are_refused() -> None:
    """Nobody can say which is meant."""
    with pytest.raises(InvalidSetting, match="both db and database"):
        PooledDB(pymysql, db="one", database="two")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (
            {"max_connections": 5},
            "max_connections='...': the driver has no such argument; allowed: it is called maxconn",
        ),
        ({"setSession": []}, "it is called setsession"),
        ({"threadlocal": None}, "it is for another of the pools"),
        ({"maxretries": 3}, "maxretries='...': neither the pool nor the driver has such an argument"),
        ({"idle_time": 60}, "did you mean idle_timeout?"),
        ({"pasword": "secret"}, "did you mean password?"),
        ({"ping": "1"}, "ping='1': as a number: ping=1"),
    ],
)
def test_what_nobody_knows_is_told_with_its_name_before_anything_is_opened(
    settings: dict[str, Any], words: str
) -> None:
    """As a TypeError, as from the driver, but at once and with what was meant; values are not shown."""
    with pytest.raises(InvalidSetting, match=re.escape(words)) as caught:
        PooledDB(pymysql, host="localhost", **settings)
    assert isinstance(caught.value, TypeError)
    assert "secret" not in str(caught.value)


def test_a_creator_is_what_connects() -> None:
    """A connection is none; the driver's class or function of that is one, and is known for what it is."""
    con = sqlite3.connect(":memory:")
    with pytest.raises(InvalidSetting, match="this is a connection: give what makes one"):
        PooledDB(con)
    con.close()
    for creator in (pymysql.connect, pymysql.Connection, pymysql):
        assert "pymysql" == PooledDB(creator, host="localhost")._source.name
    pool = PooledDB(sqlite3.connect, database=":memory:")
    pool.connection().close()
    assert "sqlite" == pool._source.name
    pool.close()


def test_a_function_s_own_arguments_are_its_own() -> None:
    """Names are not changed for a creator that is not the driver's own."""
    seen: list[dict[str, Any]] = []

    def connect(**given: Any) -> sqlite3.Connection:
        seen.append(given)
        return sqlite3.connect(":memory:")

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pool = PooledDB(connect, db="mine", passwd="mine too")
    pool.connection().close()
    assert {"db": "mine", "passwd": "mine too"} == seen[0]
    pool.close()


def test_programs_for_3_1_pass_driver_arguments_by_position() -> None:
    """A string in the place that 3.2 gave to isfatal is the first driver argument."""
    for make in (
        lambda *given: PooledDB(sqlite3, 0, 0, 0, 0, False, None, None, True, None, 1, *given).connection(),
        lambda *given: PersistentDB(sqlite3, None, None, None, 1, False, None, *given).connection(),
        lambda *given: steady_db.connect(sqlite3, None, None, None, 1, True, *given),
    ):
        for arguments in ((":memory:",), (None, ":memory:"), (lambda _: True, ":memory:")):
            db = make(*arguments)
            cursor = db.cursor()
            cursor.execute("SELECT 1")
            assert (1,) == cursor.fetchone()
            cursor.close()
            db.close()


def test_errors_have_their_older_names_and_survive_pickling() -> None:
    """They are DBUtils' by name, millpond's by family, and the driver's where that is known."""
    import pickle

    assert pooled_db.TooManyConnections is pooled_db.TooManyConnectionsError
    assert pooled_db.InvalidConnection is pooled_db.InvalidConnectionError
    assert steady_db.InvalidCursor is steady_db.InvalidCursorError
    pool = PooledDB(sqlite3, maxconnections=1, database=":memory:")
    held = pool.connection()
    with pytest.raises(sqlite3.OperationalError) as caught:
        pool.connection()
    again = pickle.loads(pickle.dumps(caught.value))
    assert pooled_db.TooManyConnectionsError is type(again)
    assert str(caught.value) == str(again)
    assert isinstance(again, Error)
    held.close()
    pool.close()


def test_a_driver_that_is_not_for_threads_is_refused() -> None:
    """As a DB-API error too, and before anything is opened."""
    for level in (None, 0):
        fakedb = module()
        fakedb.threadsafety = level
        for make in (PooledDB, PersistentDB, lambda creator: simple_pooled_db.PooledDB(creator, 1)):
            with pytest.raises(fakedb.NotSupportedError, match="threadsafety"):
                make(fakedb)
