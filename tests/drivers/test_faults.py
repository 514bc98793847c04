"""What an exception says about the world, number by number."""

from __future__ import annotations

import socket
import sqlite3
import ssl
from pathlib import Path

import pymysql
import pytest

from millpond._core.states import Fault
from millpond.drivers.faults import classify

TABLE: dict[Fault, tuple[int, ...]] = {
    Fault.GONE: (2006, 2013, 2014, 2045, 2055, 4031, 1927, 1053, *range(1152, 1162)),
    Fault.SERVER_FULL: (1040, 1203, 1226),
    Fault.REFUSED: (1129, 2002, 2003, 2005, 2026),
    Fault.CREDENTIALS: (1045, 1044, 1049, 1130, 1698, 1820, 1862),
    Fault.READ_ONLY: (1836, 3100),
    Fault.TRANSIENT: (1205, 1213, 1317, 3024, 1969, 1615),
    Fault.STATEMENT: (1062, 1064, 1054, 1644, 1792, 1146),
}


@pytest.mark.parametrize(
    ("fault", "number"), [(fault, number) for fault, numbers in TABLE.items() for number in numbers]
)
def test_numbers_of_mysql(fault: Fault, number: int) -> None:
    """Every number that a pool must sort is sorted, whatever class the driver raises it as."""
    for kind in (pymysql.err.OperationalError, pymysql.err.InternalError, pymysql.err.DatabaseError):
        assert fault is classify(kind(number, "text"))


@pytest.mark.parametrize(
    ("fault", "text"),
    [
        (Fault.READ_ONLY, "The MySQL server is running with the --read-only option so it cannot execute this"),
        (Fault.READ_ONLY, "The MySQL server is running with the --super-read-only option so it cannot execute this"),
        (Fault.READ_ONLY, "The MariaDB server is running with the --read_only option so it cannot execute this"),
        (Fault.STATEMENT, "The MySQL server is running with the --secure-file-priv option so it cannot execute this"),
    ],
)
def test_1290_is_a_role_only_if_it_says_so(fault: Fault, text: str) -> None:
    """An application's SELECT INTO OUTFILE has the same number as a server that became a replica."""
    assert fault is classify(pymysql.err.OperationalError(1290, text))


def test_errors_of_pymysql_without_a_number_of_the_server() -> None:
    """Used after it was closed, and replies out of step: the link is gone."""
    assert Fault.GONE is classify(pymysql.err.InterfaceError(0, ""))
    assert Fault.GONE is classify(pymysql.err.InternalError("Packet sequence number wrong - got 3 expected 1"))
    assert Fault.STATEMENT is classify(pymysql.err.ProgrammingError("execute() first"))


def test_a_certificate_that_is_not_trusted_is_not_mended_by_waiting() -> None:
    """TLS verification is found behind what the driver made of it, chained or kept in an attribute."""
    behind = ssl.SSLCertVerificationError("self-signed")
    kept = pymysql.err.OperationalError(2003, "Can't connect")
    kept.original_exception = behind  # type: ignore[attr-defined]  # as PyMySQL does
    chained = pymysql.err.OperationalError(2003, "Can't connect")
    chained.__cause__ = behind
    assert [Fault.CREDENTIALS] * 3 == [classify(error) for error in (behind, kept, chained)]


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (Fault.REFUSED, ConnectionRefusedError()),
        (Fault.REFUSED, TimeoutError()),
        (Fault.REFUSED, socket.gaierror()),
        (Fault.GONE, ConnectionResetError()),
        (Fault.GONE, BrokenPipeError()),
        (Fault.STATEMENT, TypeError("connect() got an unexpected keyword argument")),
    ],
)
def test_errors_of_the_system(fault: Fault, error: BaseException) -> None:
    """Errors of the network and of the program are told apart."""
    assert fault is classify(error)


def test_sqlstates() -> None:
    """A driver with neither numbers nor classes that decide is sorted by SQLSTATE."""

    class OperationalError(Exception):
        sqlstate = ""

    def with_state(state: str) -> OperationalError:
        error = OperationalError()
        error.sqlstate = state
        return error

    expected = {
        "08006": Fault.GONE,
        "57P01": Fault.GONE,
        "28P01": Fault.CREDENTIALS,
        "3D000": Fault.CREDENTIALS,
        "53300": Fault.SERVER_FULL,
        "40001": Fault.TRANSIENT,
        "25006": Fault.READ_ONLY,
        "42601": Fault.STATEMENT,
        "": Fault.GONE,
    }
    assert expected == {state: classify(with_state(state)) for state in expected}
    assert Fault.GONE is classify(type("InterfaceError", (Exception,), {})())


def failing(path: Path | str, *statements: str) -> sqlite3.Error:
    """Return what a statement raises in SQLite."""
    conn = None
    try:
        conn = sqlite3.connect(path, timeout=0, isolation_level=None)
        for statement in statements:
            conn.execute(statement)
    except sqlite3.Error as error:
        return error
    finally:
        if conn is not None:
            conn.close()
    raise AssertionError("it did not fail")


def test_result_codes_of_sqlite(tmp_path: Path) -> None:
    """SQLite's own errors, as they come."""
    path = tmp_path / "x.db"
    no_database = tmp_path / "y.db"
    no_database.write_bytes(b"no database at all" * 100)
    holder = sqlite3.connect(path, isolation_level=None)
    holder.execute("CREATE TABLE t (a)")
    holder.execute("BEGIN IMMEDIATE")
    try:
        assert Fault.TRANSIENT is classify(failing(path, "BEGIN IMMEDIATE"))
    finally:
        holder.close()
    assert Fault.CREDENTIALS is classify(failing(tmp_path / "none" / "x.db", "SELECT 1"))
    assert Fault.CREDENTIALS is classify(failing(no_database, "SELECT * FROM t"))
    assert Fault.READ_ONLY is classify(failing(path, "PRAGMA query_only=1", "INSERT INTO t VALUES (1)"))
    assert Fault.STATEMENT is classify(failing(path, "SELEKT"))


def test_texts_of_sqlite_where_it_tells_no_code() -> None:
    """Before Python 3.11 only the text tells."""
    expected = {
        "database is locked": Fault.TRANSIENT,
        "database table is locked: t": Fault.TRANSIENT,
        "unable to open database file": Fault.CREDENTIALS,
        "Cannot operate on a closed database.": Fault.GONE,
        "no such table: t": Fault.STATEMENT,
    }
    assert expected == {text: classify(sqlite3.OperationalError(text)) for text in expected}
