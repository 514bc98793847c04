"""What is known of a session, told statement by statement and answer by answer, without a server."""

from __future__ import annotations

import itertools

import mysql.connector.errors
import pymysql
import pytest

from millpond.drivers import _session
from millpond.drivers._session import COM_PING, COM_QUERY, Session, Way, brand_of, explained
from millpond.drivers.faults import number_of
from tests.drivers.interrupting import interrupted

IN_TRANSACTION, AUTOCOMMIT, MORE, CHANGED = 1, 2, 8, 0x4000
COM_INIT_DB = 2


def new(*, tracked: bool = True, way: Way = Way.RESET) -> Session:
    """Return what is known of a new session."""
    session = Session()
    session.brand, session.utf8, session.tracked, session.way = "mysql", True, tracked, way
    session.renew(AUTOCOMMIT)
    return session


def say(session: Session, text: str, status: int = AUTOCOMMIT, warnings: int = 0) -> Session:
    """Send a statement and take in its answer."""
    session.judge(COM_QUERY, text.encode())
    session.sent(text.encode())
    session.note(status, warnings)
    return session


def test_nothing_is_known_before_the_set_up() -> None:
    """A session that was not set up is not clean."""
    assert "not set up" == Session().dirt


@pytest.mark.parametrize(
    ("text", "status", "warnings", "clean"),
    [
        ("SELECT 1", AUTOCOMMIT, 0, True),
        ("INSERT INTO t VALUES (1)", AUTOCOMMIT, 0, True),
        ("BEGIN", AUTOCOMMIT | IN_TRANSACTION | CHANGED, 0, True),  # MySQL marks it
        ("SELECT 1", AUTOCOMMIT | CHANGED, 0, False),
        ("SELECT 1", AUTOCOMMIT, 1, False),
        ("SET @a = 1", AUTOCOMMIT, 0, False),
        ("SELECT unknown(1)", AUTOCOMMIT, 0, False),
        ("INSERT INTO t VALUES ('" + "x" * 9000 + "')", AUTOCOMMIT, 0, False),
    ],
)
def test_clean_is_proved_or_it_is_not(text: str, status: int, warnings: int, clean: bool) -> None:
    """Statement, status word and warnings all have to say so."""
    assert clean == (not say(new(), text, status, warnings).dirt)


def test_writes_are_dirt_where_nobody_tells_of_triggers() -> None:
    """Without tracking a write is dirt, and a read is none."""
    assert ("", True) == (say(new(tracked=False), "SELECT 1").dirt, bool(say(new(tracked=False), "DELETE FROM t").dirt))


def test_an_error_is_dirt_and_ends_its_reply() -> None:
    """After an ERR packet nothing is known, but the next command may be sent."""
    session = new()
    session.judge(COM_QUERY, b"SELECT 1")
    session.failed(pymysql.err.OperationalError(1064, "wrong"), answered=True)
    assert ("an error", 0, False) == (session.dirt, session.owed, session.is_hopeless)


@pytest.mark.parametrize(
    ("error", "lost", "suspect"),
    [
        (pymysql.err.OperationalError(2013, "Lost connection"), True, False),
        (pymysql.err.OperationalError(1927, "Connection was killed"), True, False),
        (pymysql.err.OperationalError(1290, "running with the --read-only option"), False, True),
        (pymysql.err.OperationalError(1290, "running with the --secure-file-priv option"), False, False),
        (pymysql.err.OperationalError(1836, "Running in read-only mode"), False, True),
        (pymysql.err.OperationalError(3100, "Error on observer"), False, True),
        (pymysql.err.OperationalError(1792, "Cannot execute in a READ ONLY transaction"), False, False),
        (pymysql.err.IntegrityError(1062, "Duplicate entry"), False, False),
    ],
)
def test_errors_tell_of_link_and_role(error: Exception, lost: bool, suspect: bool) -> None:
    """A lost link costs the connection; a role is only ever suspect, and never for an application's mistake."""
    session = new()
    session.judge(COM_QUERY, b"UPDATE t SET a = 1")
    session.failed(error, answered=True)
    assert (lost, suspect) == (session.lost, session.role_suspect)


def test_further_results_are_owed() -> None:
    """A reply is over with its last packet."""
    session = new()
    session.judge(COM_QUERY, b"CALL p()")
    session.note(AUTOCOMMIT | MORE, 0)
    assert (1, True) == (session.owed, session.is_hopeless)
    session.note(AUTOCOMMIT, 0)
    assert (0, False) == (session.owed, session.is_hopeless)


@pytest.mark.parametrize(
    ("texts", "only_rollback", "uncommitted"),
    [
        (["SELECT * FROM t"], True, False),
        (["SELECT * FROM t FOR UPDATE"], True, False),
        (["INSERT INTO t VALUES (1)"], False, True),
        (["WITH x AS (SELECT 1) SELECT * FROM x"], True, False),
        (["WITH x AS (SELECT 1) UPDATE t, x SET a = 1"], False, True),
        (["/* app */ SELECT * FROM t"], True, False),
        (["-- app\n# page\n(SELECT * FROM t)"], True, False),
        (["/* SELECT */ DELETE FROM t /* SELECT */"], False, True),
        (["/* a */ INSERT INTO t VALUES (1) /* b */; SELECT 1"], False, True),
        (["/*! INSERT INTO t VALUES (1) */"], False, True),
        (["/*M! INSERT INTO t VALUES (1) */"], False, True),
        (["SAVEPOINT s", "RELEASE SAVEPOINT s"], False, False),
        (["INSERT INTO t VALUES (1)", "/* app */ BEGIN"], True, False),
        (["BEGIN NOT ATOMIC INSERT INTO t VALUES (1); END"], False, True),
        (["INSERT INTO t VALUES (1)", "BEGIN"], True, False),
        (["SET @a = 1"], False, False),
    ],
)
def test_what_a_rollback_alone_mends(texts: list[str], only_rollback: bool, uncommitted: bool) -> None:
    """A transaction that wrote nothing needs a ROLLBACK; one that wrote is told of; dirt needs more."""
    session = new()
    for text in texts:
        say(session, text, IN_TRANSACTION)
    assert (only_rollback, uncommitted) == (session.needs_rollback_only, session.uncommitted)


@pytest.mark.parametrize(
    ("texts", "number", "uncommitted"),
    [
        (["BEGIN", "SELEKT 1"], 1064, False),
        (["BEGIN", "INSERT INTO t VALUES (1)"], 1062, False),
        (["INSERT INTO t VALUES (1)", "INSERT INTO t VALUES (1)"], 1062, True),
        (["INSERT INTO t VALUES (1)", "SELEKT 1"], 1064, True),
        (["INSERT INTO t VALUES (1)", "SELECT nothing"], 1054, True),
        (["BEGIN", "CALL p()"], 1062, True),
        (["BEGIN", "/* app */ EXECUTE s"], 1062, True),
        (["BEGIN", "SET STATEMENT max_statement_time=1 FOR CALL p()"], 1062, True),
        (["BEGIN", "INSERT INTO t VALUES (1); SELEKT 1"], 1064, True),
        (["INSERT INTO t VALUES (1)", "UPDATE t SET a = 2"], 1213, False),
        (["INSERT INTO t VALUES (1)", "UPDATE t SET a = 2"], 1205, True),
    ],
)
def test_a_statement_that_fails_wrote_nothing(texts: list[str], number: int, uncommitted: bool) -> None:
    """It is undone where it is one statement, and so is the whole transaction after a deadlock."""
    session = new()
    for text in texts[:-1]:
        say(session, text, IN_TRANSACTION)
    session.judge(COM_QUERY, texts[-1].encode())
    session.failed(pymysql.err.OperationalError(number, "failed"), answered=True)
    session.status |= IN_TRANSACTION
    assert uncommitted == session.uncommitted


def test_another_command_that_fails_leaves_what_was_written() -> None:
    """That a schema cannot be chosen says nothing of an INSERT before it."""
    session = say(new(), "INSERT INTO t VALUES (1)", IN_TRANSACTION)
    session.judge(COM_INIT_DB, b"other")
    session.failed(pymysql.err.OperationalError(1049, "unknown"), answered=True)
    assert session.uncommitted


def test_writes_over_a_broken_link_are_not_uncommitted_work() -> None:
    """They are lost already, and their writer has had the error."""
    session = say(new(), "INSERT INTO t VALUES (1)", IN_TRANSACTION)
    session.failed(pymysql.err.OperationalError(2013, "Lost connection"), answered=False)
    assert not session.uncommitted


def test_commands_that_are_no_statements() -> None:
    """A ping leaves nothing; every other command may."""
    session = new()
    session.judge(COM_PING, b"")
    assert not session.dirt
    session.judge(COM_INIT_DB, b"other")
    assert session.dirt


def test_xa_is_beyond_a_reset() -> None:
    """It costs the connection, wherever it is mentioned in something unproved."""
    assert [True, True, False] == [
        say(new(), text).beyond_reset for text in ("XA START 'x'", "PREPARE s FROM 'XA END'", "SELECT 'XA'")
    ]


def test_where_nobody_can_be_believed_nothing_is_clean() -> None:
    """Behind a proxy that shares backends a renewed session is dirty at once."""
    assert [True, True, False] == [bool(new(way=way).dirt) for way in (Way.ROLLBACK, Way.DEAF, Way.RESET)]


def test_brands() -> None:
    """MariaDB says so, in all disguises."""
    assert ["mariadb", "mariadb", "mysql"] == [
        brand_of(version) for version in ("10.11.6-MariaDB", "5.5.5-10.4.1-MariaDB-log", "8.0.36")
    ]


def test_a_statement_that_was_too_long_says_nothing_of_other_links() -> None:
    """The server has closed its connection, and that is its own fault: no other is suspected."""
    session = new()
    session.judge(COM_QUERY, b"SELECT 1")
    session.failed(pymysql.err.OperationalError(1153, "Got a packet bigger"), answered=False)
    assert (True, False) == (session.is_hopeless, session.lost)


@pytest.mark.parametrize(
    ("number", "length", "expected"),
    [
        (2006, 1000, 1153),
        (2013, 5000, 1153),
        (2055, 1000, 1153),
        (2026, 1000, 1153),
        (2006, 999, 2006),
        (1062, 5000, 1062),
    ],
)
def test_a_link_that_broke_under_a_statement_is_explained(number: int, length: int, expected: int) -> None:
    """If it was longer than the server takes, that is what its sender is told; the driver's word is the cause."""
    error = pymysql.err.OperationalError(number, "as it was")
    told = explained(error, length, 1000)
    assert expected == number_of(told)
    assert (type(error), error is not told) == (type(told), told.__cause__ is error)


def test_an_explanation_is_made_as_the_driver_makes_its_errors() -> None:
    """mysql-connector-python's have their number elsewhere."""
    told = explained(mysql.connector.errors.InterfaceError("gone", errno=2013), 2000, 1000)
    assert (1153, True) == (number_of(told), "max_allowed_packet" in str(told))
    assert isinstance(told, mysql.connector.errors.OperationalError)  # whatever it was before


@pytest.mark.parametrize(
    ("status", "error"),
    [(AUTOCOMMIT | CHANGED, None), (AUTOCOMMIT, None), (AUTOCOMMIT, pymysql.err.ProgrammingError(1064, "no"))],
    ids=["changed", "warnings", "an error"],
)
def test_a_borrower_who_is_interrupted_while_it_is_noted_leaves_no_clean_session(
    status: int, error: Exception | None
) -> None:
    """Wherever Ctrl-C strikes: what a reply said is noted, or the reply is still owed."""

    def tell(session: Session) -> None:
        if error is None:
            session.note(status, warnings=int(status == AUTOCOMMIT))
        else:
            session.failed(error, answered=True)

    for line in itertools.count():
        session = new()
        session.judge(COM_QUERY, b"SELECT 1")
        session.sent(b"SELECT 1")
        was_struck = interrupted(lambda: tell(session), _session.__file__, line)  # noqa: B023  called at once
        assert not session.is_clean
        if not was_struck:
            break
    assert (0, True) == (session.owed, line > 3)
