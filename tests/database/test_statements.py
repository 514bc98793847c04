"""What is told of a statement by its text, and what dialects and drivers make of it."""

from __future__ import annotations

from typing import Any

import pytest

import millpond as m
from millpond._database.batches import measured, next_chunk
from millpond._database.conversing import deadline_of
from millpond._database.dialects import Dialect, MySQLFamily, SQLite, dialect_of, version_of
from millpond._database.hand import is_running
from millpond._database.knowledge import with_autocommit
from millpond._database.statements import REMEMBERED_LENGTH_MAX, REMEMBERED_MAX, Statement, Statements
from millpond._database.writes import insert_text, script_of, upsert_text
from millpond._sql.cleanliness import Brand, is_clean_statement
from millpond._sql.tokens import Dialect as Rules


class Server:
    """What a dialect of the MySQL family looks at in a connection."""

    def __init__(self, version: str, status: int | None = 2) -> None:
        self.server_version = version
        self.server_status = status


class Telling(MySQLFamily):
    """A driver that tells the status word."""

    def status(self, conn: Any) -> int | None:
        """Say what the connection knows."""
        told: int | None = conn.server_status
        return told


MARIADB = Telling(Server("5.5.5-10.11.19-MariaDB"))
MYSQL = Telling(Server("9.7.0"))
OLD_MYSQL = Telling(Server("5.7.44"))
SQLITE = SQLite(None)


class Adapter:
    """An adapter that proves nothing."""

    fetch = None


def statement(sql: str, dialect: Dialect = MYSQL) -> Statement:
    """Return a statement."""
    return Statement(sql, dialect, Rules.SQLITE if dialect is SQLITE else Rules.MYSQL)


def test_brand_and_version_are_read_from_the_greeting() -> None:
    """MariaDB says 5.5.5 first, for old clients."""
    assert ("mariadb", (10, 11, 19)) == (MARIADB.brand, MARIADB.version)
    assert ("mysql", (9, 7, 0)) == (MYSQL.brand, MYSQL.version)
    assert (8, 0, 36) == version_of("8.0.36-0ubuntu0.22.04.1")


@pytest.mark.parametrize(
    ("sql", "reads", "transactional", "commits"),
    [
        ("SELECT 1", True, True, False),
        ("/* x */ (SELECT 1) UNION SELECT 2", True, True, False),
        ("WITH x AS (SELECT 1) SELECT * FROM x", False, True, False),
        ("INSERT INTO t VALUES (1)", False, True, False),
        ("CALL p()", False, False, False),
        ("CREATE TABLE t (x INT)", False, False, True),
        ("CREATE OR REPLACE TEMPORARY TABLE t (x INT)", False, False, False),
        ("drop temporary table t", False, False, False),
        ("TRUNCATE t", False, False, True),
        ("FLUSH TABLES", False, False, False),
        ("", False, False, False),
    ],
)
def test_the_first_word_says_what_kind_a_statement_is(
    sql: str, reads: bool, transactional: bool, commits: bool
) -> None:
    """A word that nobody knows is taken for the worst."""
    known = statement(sql)
    assert (reads, transactional, commits) == (known.reads, known.transactional, known.commits)


def test_on_sqlite_ddl_is_like_any_write() -> None:
    """It is part of a transaction there."""
    known = statement("CREATE TABLE t (x)", SQLITE)
    assert (True, False) == (known.transactional, known.commits)


@pytest.mark.parametrize("sql", ["BEGIN", "begin work", "COMMIT", "ROLLBACK", "-- x\nEND", "XA COMMIT 'x'"])
def test_what_begins_or_ends_a_transaction_is_no_statement(sql: str) -> None:
    """ROLLBACK TO a savepoint is one."""
    with pytest.raises(m.TransactionMisuse, match=r"Use: with db\.transaction"):
        statement(sql)
    assert statement("ROLLBACK TO SAVEPOINT x").transactional


def test_time_limits_go_where_the_server_takes_them() -> None:
    """MariaDB's before the statement, MySQL's as a hint, and none where there is none."""
    limit = "SET STATEMENT max_statement_time=1.5000 FOR "
    assert f"{limit}SELECT 1" == statement("SELECT 1", MARIADB).timed("SELECT 1", 1.5)
    for other in ("UPDATE t SET x = 1", "CALL p()"):
        assert statement(other, MARIADB).timed(other, 1.5) is None
    sql = "/* 5 % */ select(1)"
    text = sql.replace("%", "%%")
    assert "/* 5 %% */ select /*+ MAX_EXECUTION_TIME(1500) */ (1)" == statement(sql).timed(text, 1.5)
    for other in ("UPDATE t SET x = 1", "(SELECT 1)", "SELECT /*+ BKA(t) */ 1"):
        assert statement(other).timed(other, 1.5) is None
    assert statement("SELECT 1", SQLITE).timed("SELECT 1", 1.5) is None


def test_time_limits_leave_nothing_in_a_session() -> None:
    """Exactly the limits that are written here are proved harmless, on the server that they are for."""
    servers: list[tuple[Dialect, Brand]] = [(MARIADB, "mariadb"), (MYSQL, "mysql")]
    for dialect, brand in servers:
        for seconds in (0.00001, 0.5, 86400):
            text = statement("SELECT x FROM t WHERE a = %s", dialect).timed("SELECT x FROM t WHERE a = %s", seconds)
            assert text is not None
            assert is_clean_statement(text, brand=brand)
    refused: dict[Brand, tuple[str, ...]] = {
        "mariadb": (
            "SET STATEMENT max_statement_time=1 FOR SELECT @x := 1",
            "SET STATEMENT max_statement_time=1 FOR SELECT GET_LOCK('x', 1)",
            "SET STATEMENT max_statement_time=1 FOR SET @x = 1",
            "SET STATEMENT max_statement_time=1 FOR COMMIT",
            "SET STATEMENT sql_mode='' FOR SELECT 1",
            "SET STATEMENT max_statement_time=1, sql_mode='' FOR SELECT 1",
            "SET STATEMENT max_statement_time=1 FOR SELECT 1; SET @x = 1",
        ),
        "mysql": (
            "SELECT /*+ MAX_EXECUTION_TIME(1) SET_VAR(sql_mode='') */ 1",
            "SELECT /*+ MAX_EXECUTION_TIME(1) */ @x := 1",
            "SET STATEMENT max_statement_time=1 FOR SELECT 1",
        ),
    }
    for brand, texts in refused.items():
        assert [False] * len(texts) == [is_clean_statement(text, brand=brand) for text in texts]


def test_a_text_is_cut_by_the_rules_of_its_connection() -> None:
    """A backslash in a text makes the mode of the session matter, and a driver that does not tell it is not guessed."""
    known = Statements(MYSQL, Adapter())
    sql = r"SELECT '\', %s, '\'"
    plain = known.prepare(sql, Server("9.7.0", status=0x0200))
    assert plain is known.prepare(sql, Server("9.7.0", status=0x0200))
    assert (sql, (1,)) == plain.bind((1,))
    silent = Statements(MySQLFamily(Server("9.7.0")), Adapter())
    with pytest.raises(m.InvalidParameters, match="give the string with the backslash as a value"):
        silent.prepare(sql, Server("9.7.0"))
    assert (r"SELECT 'a\\b', %s", (1,)) == silent.prepare(r"SELECT 'a\\b', %s", Server("9.7.0")).bind((1,))


def test_texts_are_remembered_within_bounds() -> None:
    """Neither many texts nor long ones fill the memory."""
    known = Statements(MYSQL, Adapter())
    conn = Server("9.7.0")
    assert known.prepare("SELECT 0", conn) is known.prepare("SELECT 0", conn)
    for number in range(REMEMBERED_MAX + 5):
        known.prepare(f"SELECT {number}", conn)
    assert len(known.plain_reads) <= REMEMBERED_MAX
    long = f"SELECT '{'x' * REMEMBERED_LENGTH_MAX}'"
    assert known.prepare(long, conn) is not known.prepare(long, conn)


def test_names_are_quoted_so_that_nothing_gets_out() -> None:
    """A quote in a name is doubled; a name that cannot be one is refused."""
    assert ("`a``; DROP TABLE t; --`", '"a"".b"') == (MYSQL.quoted("a`; DROP TABLE t; --"), SQLITE.quoted('a".b'))
    assert "`shop`.`users`" == script_of(MYSQL).table("shop.users")
    assert "`shop.users`" == script_of(MYSQL).table(("shop.users",))
    bad: list[Any] = ["", "a\0b", 5, None]
    for name in bad:
        with pytest.raises(m.InvalidSetting):
            MYSQL.quoted(name)


def test_writes_are_written_for_each_dialect() -> None:
    """Each database has its own word for an upsert."""
    columns, key, update = ("id", "n"), ("id",), ("n",)
    insert = "INSERT INTO `t` (`id`, `n`) VALUES (%s, %s)"
    assert f"{insert} AS `new row` ON DUPLICATE KEY UPDATE `n`=`new row`.`n`" == upsert_text(
        MYSQL, "t", columns, key, update
    )
    for table, quoted in (
        ("new row", "`new row`"),
        ("s.New Row", "`s`.`New Row`"),
        (("s", "NEW ROW"), "`s`.`NEW ROW`"),
    ):
        assert (
            f"INSERT INTO {quoted} (`id`, `n`) VALUES (%s, %s) AS `newer row` "
            "ON DUPLICATE KEY UPDATE `n`=`newer row`.`n`"
        ) == upsert_text(MYSQL, table, columns, key, update)
    for dialect in (MARIADB, OLD_MYSQL):
        assert f"{insert} ON DUPLICATE KEY UPDATE `n`=VALUES(`n`)" == upsert_text(dialect, "t", columns, key, update)
    assert f"{insert} ON DUPLICATE KEY UPDATE `id`=`t`.`id`" == upsert_text(MYSQL, "t", columns, key, ())
    insert = 'INSERT INTO "t" ("id", "n") VALUES (?, ?)'
    assert f'{insert} ON CONFLICT ("id") DO UPDATE SET "n"=excluded."n"' == upsert_text(
        SQLITE, "t", columns, key, update
    )
    assert f'{insert} ON CONFLICT ("id") DO NOTHING' == upsert_text(SQLITE, "t", columns, key, ())
    assert ("INSERT INTO `t` () VALUES ()", 'INSERT INTO "t" DEFAULT VALUES') == (
        insert_text(MYSQL, "t", ()),
        insert_text(SQLITE, "t", ()),
    )


def test_rows_are_measured_where_the_driver_does_not() -> None:
    """Each part stays under the limit, and a row that is too long is alone."""
    rows = [("x" * 100,)] * 10 + [("x" * 10_000,)] + [("x",)]
    parts = list(measured(rows, "INSERT INTO t VALUES (%s)", 1_000))
    assert rows == [row for part in parts for row in part]
    assert [2, 2, 2, 2, 2, 1, 1] == [len(part) for part in parts]
    assert [] == next_chunk(iter(()))


def test_a_session_is_killed_only_for_its_own_statement() -> None:
    """The number must be there, with the text that was sent."""
    columns = [("Id",), ("User",), ("Info",)]
    processes = [(5, "app", "  SELECT 1 FROM t"), (6, "app", None), (7, "app", b"UPDATE t SET x = 5")]
    asked = [(5, "\nSELECT 1 "), (5, "SELECT 2"), (6, "SELECT 1"), (7, "UPDATE t SET x = "), (8, "SELECT 1"), (6, "")]
    assert [True, False, False, True, False, True] == [
        is_running(processes, columns, number, text) for number, text in asked
    ]


def test_a_url_gets_autocommit_unless_it_says_otherwise() -> None:
    """Whatever else it has stays as it is."""
    assert "mysql://u:p%23@h/d?autocommit=true" == with_autocommit("mysql://u:p%23@h/d")
    assert "mysql://h/d?charset=utf8mb4&autocommit=true" == with_autocommit("mysql://h/d?charset=utf8mb4")
    for url in ("mysql://h/d?autocommit=false", "other://h/d"):
        assert url == with_autocommit(url)


@pytest.mark.parametrize("timeout", [0, -1, float("inf"), float("nan"), True, "5"])
def test_a_timeout_is_a_number_of_seconds(timeout: Any) -> None:
    """What is none is refused by name."""
    with pytest.raises(m.InvalidSetting, match="timeout="):
        deadline_of(timeout)
    given = deadline_of(5)
    assert given is not None
    assert (None, 5.0) == (deadline_of(None), given.seconds)


def test_any_other_driver_is_plain_dbapi() -> None:
    """A driver that nobody knows is served by what PEP 249 says, if its places can be written."""

    class Module:
        paramstyle = "numeric"

    class Driver:
        name = "other"
        module = Module

    with pytest.raises(m.InvalidSetting, match="paramstyle is numeric"):
        dialect_of(Driver(), object())
    Module.paramstyle = "qmark"
    dialect = dialect_of(Driver(), object())
    assert ("other", "?", False, None) == (
        dialect.brand,
        dialect.marks.place,
        dialect.autocommit(object()),
        dialect.in_transaction(object()),
    )
    assert ["BEGIN READ ONLY"] == dialect.begin(None, read_only=True, autocommit=True)
    assert [] == dialect.begin(None, read_only=False, autocommit=False)
    assert ["SET TRANSACTION ISOLATION LEVEL SERIALIZABLE"] == dialect.begin(
        "SERIALIZABLE", read_only=False, autocommit=False
    )


@pytest.mark.parametrize("tells", [True, False])
def test_mysqlclient_is_believed_where_its_library_tells(tells: bool) -> None:
    """Its adapter reads the status word where that can be had; else nothing is known, and there is nothing to ask."""

    class Module:
        paramstyle = "format"

    class Driver:
        name = "mysqlclient"
        module = Module

        def tells(self, conn: Server) -> bool:
            return tells

        def status_of(self, conn: Server) -> int:
            assert tells, "a word that is not the server's"
            assert conn.server_status is not None
            return conn.server_status

    conn = Server("10.11.19-MariaDB", status=0x0001)
    dialect = dialect_of(Driver(), conn)
    assert ((True, Rules.MYSQL, "DO 0") if tells else (None, None, None)) == (
        dialect.in_transaction(conn),
        dialect.rules(conn),
        dialect.probe,
    )
    conn.server_status = 0x0200
    assert ((False, Rules.MYSQL_NO_BACKSLASH_ESCAPES) if tells else (None, None)) == (
        dialect.in_transaction(conn),
        dialect.rules(conn),
    )


def test_several_statements_in_one_text_are_taken_for_the_worst() -> None:
    """Together they are of no known kind, a control word in any place is refused, and bodies are no such texts."""
    several = statement("SELECT 1; UPDATE t SET a = 1")
    assert ("", False, False, False) == (several.verb, several.reads, several.transactional, several.one_result)
    assert several.timed("SELECT 1; UPDATE t SET a = 1", 1.0) is None
    assert "SELECT" == statement("SELECT ';' /* ; */ ; ").verb
    body = "CREATE PROCEDURE p() BEGIN START TRANSACTION; INSERT INTO t VALUES (1); COMMIT; END"
    assert "CREATE" == statement(body).verb
    for sql in ("UPDATE t SET a = 1; COMMIT", "ROLLBACK; SELECT a TO", "SELECT 1; ROLLBACK", "BEGIN; SELECT 1"):
        with pytest.raises(m.TransactionMisuse, match="as a statement"):
            statement(sql)
    assert "ROLLBACK" == statement("ROLLBACK TO SAVEPOINT a").verb
