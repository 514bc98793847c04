"""What errors of drivers are called here, and what is said of a lost link."""

from __future__ import annotations

import contextlib
import pickle
import sqlite3
from typing import Any

import mysql.connector
import pymysql
import pytest

import millpond as m
from millpond._database.errors import plain
from millpond._database.translation import translated, was_unsent
from millpond.drivers import resolve

SQL = "UPDATE t SET x = 1"
PYMYSQL = resolve(pymysql)
SQLITE = resolve(sqlite3)


def kind(error: Exception, driver: Any = PYMYSQL, **how: Any) -> type[m.StatementFailed] | None:
    """Return what an error is called."""
    ours = translated(error, driver, SQL, **{"commits": False, **how})
    return None if ours is None else plain(type(ours))


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (1062, m.DuplicateKey),
        (1451, m.ForeignKeyViolation),
        (1048, m.NotNullViolation),
        (3819, m.CheckViolation),
        (4025, m.CheckViolation),
        (1406, m.InvalidValue),
        (1365, m.InvalidValue),
        (3140, m.InvalidValue),
        (1213, m.Deadlock),
        (1020, m.Deadlock),
        (1206, m.Deadlock),
        (3101, m.Deadlock),
        (1205, m.LockTimeout),
        (3572, m.LockTimeout),
        (1969, m.StatementTimeout),
        (3024, m.StatementTimeout),
        (1317, m.StatementKilled),
        (1064, m.InvalidStatement),
        (1066, m.InvalidStatement),
        (1273, m.InvalidStatement),
        (1142, m.AccessDenied),
        (1792, m.ReadOnlyTransaction),
        (1836, m.ReadOnlyServer),
        (2006, m.ServerGone),
        (2013, m.ServerGone),
        (1927, m.ServerGone),
        (1644, m.StatementFailed),
    ],
)
def test_numbers_have_names(number: int, expected: type[m.StatementFailed]) -> None:
    """The numbers of MySQL and MariaDB are sorted, and one that nobody knows is a plain failure."""
    assert expected is kind(pymysql.err.OperationalError(number, "text"))


def test_read_only_is_told_from_other_options() -> None:
    """1290 is a role only if its text says read-only."""
    assert m.ReadOnlyServer is kind(pymysql.err.InternalError(1290, "running with the --read-only option"))
    assert m.StatementFailed is kind(pymysql.err.InternalError(1290, "running with the --secure-file-priv option"))


def test_an_error_is_the_drivers_own_too() -> None:
    """Handlers of the driver's classes and numbers go on working, and the statement is there without its values."""
    error = translated(pymysql.err.IntegrityError(1062, "Duplicate entry"), PYMYSQL, SQL, commits=True)
    assert isinstance(error, m.DuplicateKey)
    assert isinstance(error, pymysql.err.IntegrityError)
    assert (1062, SQL) == (error.args[0], error.statement)
    assert f"(1062, 'Duplicate entry')\nstatement: {SQL}" == str(error)
    copy = pickle.loads(pickle.dumps(error))
    assert (m.DuplicateKey, error.args, SQL) == (type(copy), copy.args, copy.statement)


def test_a_long_statement_is_shown_in_part() -> None:
    """A message has the beginning of a statement, the attribute all of it."""
    sql = "SELECT " + "x" * 1000
    error = translated(pymysql.err.ProgrammingError(1064, "text"), PYMYSQL, sql, commits=False)
    assert error is not None
    assert sql == error.statement
    assert str(error).endswith("x ... (507 characters more)")


def test_a_lost_link_is_sorted_by_what_was_lost_with_it() -> None:
    """Only an answer to what commits is of unknown outcome, and only if it was sent."""
    lost, unsent = pymysql.err.OperationalError(2013, "lost"), pymysql.err.OperationalError(2006, "gone")
    closed = pymysql.err.InterfaceError(0, "")
    assert m.ServerGone is kind(lost)
    assert m.OutcomeUnknown is kind(lost, commits=True)
    assert m.ServerGone is kind(unsent, commits=True)
    assert m.ServerGone is kind(closed, commits=True)
    assert [False, True, True] == [was_unsent(error) for error in (lost, unsent, closed)]


def test_a_link_lost_while_values_were_bound_is_lost_before_anything_was_sent() -> None:
    """mysql-connector-python asks the server while it binds, and tells what came of it as an error without a number."""
    connector = resolve(mysql.connector)
    lost = mysql.connector.OperationalError("Lost connection to MySQL server during query", 2013)
    binding = mysql.connector.ProgrammingError(f"Failed processing format-parameters; {lost}")
    binding.__cause__ = lost
    assert m.ServerGone is kind(binding, connector, commits=True)
    assert [True, False] == [was_unsent(error) for error in (binding, lost)]
    binding.__cause__ = TypeError("Python 'object' cannot be converted to a MySQL type")
    assert m.StatementFailed is kind(binding, connector, commits=True)


def test_what_was_ended_at_its_deadline_is_a_timeout() -> None:
    """A kill or a cut that was ours is a time-out, but for a write of which nobody knows."""
    lost, killed = pymysql.err.OperationalError(2013, "lost"), pymysql.err.OperationalError(1317, "interrupted")
    assert m.StatementTimeout is kind(lost, timeout=0.5)
    assert m.StatementTimeout is kind(killed, timeout=0.5, commits=True)
    assert m.OutcomeUnknown is kind(lost, timeout=0.5, commits=True)
    error = translated(killed, PYMYSQL, SQL, commits=False, timeout=0.5)
    assert str(error).startswith("not done within 0.5 s, and ended: ")


def test_what_is_no_error_of_a_database_stays_what_it_is() -> None:
    """A mistake in somebody's code is not renamed, and neither are our own errors."""
    assert translated(KeyError("x"), PYMYSQL, SQL, commits=True) is None
    assert translated(m.PoolTimeout("x"), PYMYSQL, SQL, commits=True) is None


def sqlite_error(*statements: str) -> sqlite3.Error:
    """Return the error of the last of some statements."""
    with contextlib.closing(sqlite3.connect(":memory:")) as conn:
        try:
            for statement in statements:
                conn.execute(statement)
        except sqlite3.Error as error:
            return error
    pytest.fail("none of them failed")


def test_errors_of_sqlite_have_the_same_names() -> None:
    """By code where Python tells it, else by text."""
    table = "CREATE TABLE t (a INTEGER PRIMARY KEY, b TEXT NOT NULL, c INT UNIQUE CHECK (c > 0))"
    insert = "INSERT INTO t VALUES (1, 'x', 1)"
    cases = {
        m.DuplicateKey: (table, insert, insert),
        m.NotNullViolation: (table, "INSERT INTO t (a) VALUES (1)"),
        m.CheckViolation: (table, "INSERT INTO t VALUES (1, 'x', 0)"),
        m.ForeignKeyViolation: (
            "PRAGMA foreign_keys=1",
            table,
            "CREATE TABLE u (t REFERENCES t (a))",
            "INSERT INTO u VALUES (5)",
        ),
        m.InvalidStatement: ("SELEC 1",),
        m.ReadOnlyServer: (table, "PRAGMA query_only=1", insert),
    }
    assert {name: name for name in cases} == {
        name: kind(sqlite_error(*statements), SQLITE) for name, statements in cases.items()
    }
    assert m.InvalidStatement is kind(sqlite_error("SELECT * FROM nowhere"), SQLITE)
    read_only = sqlite_error(table, "PRAGMA query_only=1", insert)
    assert m.ReadOnlyTransaction is kind(read_only, SQLITE, read_only=True)
