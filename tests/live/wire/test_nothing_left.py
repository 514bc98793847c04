"""Nothing left behind: a borrower spoils its session in one way, and the next one finds it as a new connection is."""

from __future__ import annotations

import contextlib
import warnings
from pathlib import Path
from typing import Any

import pymysql
import pymysql.cursors
import pytest
from pymysql.constants import CLIENT

from tests.live.asking import answer, ask
from tests.live.leftovers import IN_PEACE_OR_NOT, assert_no_prepared_transaction

from .dirt import CHANGES, MAY_FAIL, SPOILT, run, seen_of
from .ways import TABLE, Way


@pytest.mark.parametrize("what", SPOILT)
def test_the_next_borrower_sees_a_new_session(spoilable: Way, what: str) -> None:
    """Whatever the first borrower did, the next sees what a new connection sees, and others are not held up."""
    spoil, look = SPOILT[what]
    pool = spoilable.pool(connect_args={"write_timeout": 20, "read_timeout": 20})
    with pool.connection() as conn:
        done = run(conn, spoil, spoilable)
    assert what in MAY_FAIL or not [number for number in done if isinstance(number, int)], done
    with pool.connection() as conn:
        seen = run(conn, look, spoilable)
        conn.rollback()
    new = spoilable.raw(init_command="SET session_track_state_change = 1")
    ask(new, f"DELETE FROM {TABLE} WHERE a IN (3, 4, 5, 6)")
    expected = run(new, look, spoilable)
    assert expected == seen


def test_others_are_not_held_up(spoilable: Way) -> None:
    """Row locks, table locks, named locks and global locks are gone once the next borrower has the connection."""
    pool = spoilable.pool(connect_args=dict(spoilable.server.connect_args(user="root", tls=spoilable.tls)))
    other = spoilable.raw()
    ask(other, "SET SESSION innodb_lock_wait_timeout = 1, lock_wait_timeout = 1")
    holding = {
        "row": ["SET autocommit = 0", f"SELECT * FROM {TABLE} WHERE a = 1 FOR UPDATE"],
        "row, after an error": ["BEGIN", f"UPDATE {TABLE} SET b = 5 WHERE a = 1", "SELEKT"],
        "table": [f"LOCK TABLES {TABLE} WRITE"],
        "global": ["FLUSH TABLES WITH READ LOCK"],
    }
    if spoilable.kind == "mysql":
        holding["backup"] = ["LOCK INSTANCE FOR BACKUP"]
    for kind, statements in holding.items():
        with pool.connection() as conn:
            run(conn, [f"USE {spoilable.database}", *statements], spoilable)
        with pool.connection():
            assert [] == ask(other, f"UPDATE {TABLE} SET b = b + 1 WHERE a = 1"), kind
            assert [] == ask(other, "DROP TABLE IF EXISTS wire_none"), kind


def test_the_isolation_of_one_transaction_is_not_for_the_next_borrower(way: Way) -> None:
    """SET TRANSACTION ISOLATION LEVEL, never used, is gone: the next transaction's reads lock nothing."""

    def locks_what_it_reads(conn: Any) -> bool:
        ask(conn, "BEGIN")
        ask(conn, f"SELECT * FROM {TABLE}")
        try:
            ask(other, f"SELECT * FROM {TABLE} FOR UPDATE NOWAIT")
        except pymysql.err.OperationalError:  # 1205 on MariaDB, 3572 on MySQL
            return True
        finally:
            ask(other, "ROLLBACK")
            ask(conn, "ROLLBACK")
        return False

    pool, raw, other = way.pool(), way.raw(), way.raw()
    serializable = "SET TRANSACTION ISOLATION LEVEL SERIALIZABLE"
    ask(raw, serializable)
    assert locks_what_it_reads(raw), "this would not notice a leak"
    with pool.connection() as conn:
        ask(conn, serializable)
    with pool.connection() as conn:
        assert not locks_what_it_reads(conn)


def test_a_prepared_xa_transaction_costs_the_connection(spoilable: Way) -> None:
    """XA is more than a reset undoes: who touched it leaves a connection that is replaced."""
    pool = spoilable.pool()
    with pool.connection() as conn:
        run(
            conn,
            ["XA START 'wire'", f"INSERT INTO {TABLE} VALUES (11, 11)", "XA END 'wire'", "XA PREPARE 'wire'"],
            spoilable,
        )
    with pool.connection() as conn:
        assert [] == ask(conn, "XA START 'more'")
        assert [] == ask(conn, "XA END 'more'")
        assert [] == ask(conn, "XA ROLLBACK 'more'")
    assert 2 == pool.stats().opened
    ask(spoilable.root(), "XA ROLLBACK 'wire'")


@pytest.mark.parametrize("what", CHANGES)
def test_what_is_done_with_the_driver_object_is_undone(way: Way, what: str) -> None:
    """Settings changed by methods and attributes of the connection are as at first for the next borrower."""
    pool = way.pool()
    with pool.connection() as conn:
        at_first = seen_of(conn)
        CHANGES[what](conn)
    with pool.connection() as conn:
        assert at_first == seen_of(conn)


def test_a_borrower_that_reconnects_leaves_a_connection_that_is_replaced(way: Way) -> None:
    """ping(reconnect=True) makes another session under the pool's nose; nobody else gets it."""
    pool = way.pool()
    with pool.connection() as conn:
        way.kill(conn.thread_id())
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            conn.ping(reconnect=True)
        second = conn.thread_id()
        assert [(1,)] == ask(conn, "SELECT 1")
    with pool.connection() as conn:
        assert second != conn.thread_id()


def test_a_short_reply_left_unread_is_read_and_a_long_one_costs_the_connection(way: Way) -> None:
    """Unbuffered rows and further results are drained when they are few; else the connection is replaced."""
    pool = way.pool()
    with pool.connection() as conn:
        first = conn.thread_id()
        cursor = conn.cursor(pymysql.cursors.SSCursor)
        cursor.execute("SELECT 1 UNION SELECT 2 UNION SELECT 3")
        assert (1,) == cursor.fetchone()
    with pool.connection() as conn:
        assert (first, [(1,)]) == (conn.thread_id(), ask(conn, "SELECT 1"))
        cursor = conn.cursor(pymysql.cursors.SSCursor)
        cursor.execute("SELECT REPEAT('x', 1000) FROM information_schema.COLLATIONS a, information_schema.COLLATIONS b")
        cursor.fetchone()
    with pool.connection() as conn:
        assert first != conn.thread_id()
        assert [(1,)] == ask(conn, "SELECT 1")


def test_the_results_of_a_procedure_do_not_cost_the_connection(spoilable: Way) -> None:
    """A CALL leaves a result that nobody reads; it is drained, and the session reset."""
    pool = spoilable.pool()
    with pool.connection() as conn:
        first = conn.thread_id()
        cursor = conn.cursor()
        cursor.execute("CALL wire_procedure()")
        assert ((1,),) == cursor.fetchall()
    with pool.connection() as conn:
        assert (first, [(None,)]) == (conn.thread_id(), ask(conn, "SELECT @from_procedure"))


def test_several_statements_in_one(plain_way: Way) -> None:
    """With CLIENT.MULTI_STATEMENTS, what is left of the replies is read, and what the text hides is undone."""
    pool = plain_way.pool(connect_args={"client_flag": CLIENT.MULTI_STATEMENTS})
    for text in (
        "SELECT 1; SET @a = 1",
        f"SELECT 1; BEGIN; UPDATE {TABLE} SET b = 99",
        "SELECT 1; SELEKT",
        "BEGIN; SELECT 1",
    ):
        with pool.connection() as conn:
            cursor = conn.cursor()
            cursor.execute(text)
        with pool.connection() as conn:
            assert [(None, 1, 1)] == ask(conn, f"SELECT @a, b, @@autocommit FROM {TABLE} WHERE a = 1")
            assert not conn.server_status & 1


def test_load_data_local(plain_way: Way, tmp_path: Path) -> None:
    """A file that a client sends is a write like others: it stays, and leaves nothing in the session."""
    file = tmp_path / "rows.txt"
    file.write_text("31\t1\n32\t2\n")
    root = plain_way.root()
    ((before,),) = ask(root, "SELECT @@global.local_infile")
    ask(root, "SET GLOBAL local_infile = 1")
    try:
        pool = plain_way.pool(connect_args={"local_infile": True})
        with pool.connection() as conn:
            ask(conn, f"LOAD DATA LOCAL INFILE '{file}' INTO TABLE {TABLE} (a, b) SET a = a + (@z := 0)")
            assert 1148 != answer(conn, f"LOAD DATA LOCAL INFILE '{tmp_path / 'none'}' INTO TABLE {TABLE}")
        with pool.connection() as conn:
            assert [(2, None)] == ask(conn, f"SELECT COUNT(*), @z FROM {TABLE} WHERE a > 30")
    finally:
        ask(root, f"SET GLOBAL local_infile = {before}")


def test_always_resets_what_is_clean(plain_way: Way) -> None:
    """With reset="always" even a SELECT is followed by a reset: for what no statement tells."""
    pool = plain_way.pool(reset="always")
    with pool.connection() as conn:
        ask(conn, "SELECT 1")
        plain_way.proxy.reset_counts()
    with pool.connection() as conn:
        ask(conn, "SELECT 1")
    assert "COM_RESET_CONNECTION" in [command.name for command in plain_way.proxy.commands]
    assert 1 == pool.stats().opened


def test_rollback_and_none_do_what_they_say(plain_way: Way) -> None:
    """reset="rollback" ends transactions and keeps variables; "none" keeps both."""
    for reset, rows in (("rollback", 1), ("none", 2)):
        pool = plain_way.pool(reset=reset)
        with pool.connection() as conn:
            ask(conn, "SET @a = 1")
            ask(conn, "BEGIN")
            ask(conn, f"INSERT INTO {TABLE} VALUES (20, 20)")
            with pytest.warns(UserWarning, match="not committed") if reset == "rollback" else warnings.catch_warnings():
                conn.close()
        with pool.connection() as conn:
            assert [(1, rows)] == ask(conn, f"SELECT @a, (SELECT COUNT(*) FROM {TABLE})")
            conn.rollback()


def test_what_the_server_gives_new_sessions_is_given_again(spoilable: Way) -> None:
    """A default role and the server's init_connect are for the next borrower as for a new connection."""
    root = spoilable.root()
    user = f"{spoilable.server.user}@'%'"
    role = "wire_role" if spoilable.kind == "mariadb" else "'wire_role'@'%'"
    ask(root, f"SET DEFAULT ROLE {role} {'FOR' if spoilable.kind == 'mariadb' else 'TO'} {user}")
    ask(root, "SET GLOBAL init_connect = 'SET @boot = 1; SET @more = 2'")
    try:
        pool = spoilable.pool()
        look = "SELECT @boot, @more, CURRENT_ROLE() LIKE '%wire_role%', @mine"
        with pool.connection() as conn:
            at_first = ask(conn, look)
            ask(conn, "SET ROLE NONE")
            ask(conn, "SET @boot = 9, @more = NULL, @mine = 3")
        with pool.connection() as conn:
            assert ([(1, 2, 1, None)], at_first) == (at_first, ask(conn, look))
        assert 1 == pool.stats().opened
    finally:
        ask(root, "SET GLOBAL init_connect = ''")
        none = f"NONE FOR {user}" if spoilable.kind == "mariadb" else f"NONE TO {user}"
        ask(root, f"SET DEFAULT ROLE {none}")


@IN_PEACE_OR_NOT
def test_a_procedure_that_prepares_by_xa_leaves_no_transaction_to_the_next_borrower(plain_way: Way, end: str) -> None:
    """MariaDB's reset leaves it, and neither a CALL nor its error tells of XA: the next one writes even so."""
    pool = plain_way.pool()
    assert_no_prepared_transaction(pool, plain_way.root(), plain_way.database, TABLE, end)
    assert "auto: COM_RESET_CONNECTION" == pool.stats().reset


def test_a_server_whose_rollback_begins_a_transaction_costs_one_connection(plain_way: Way) -> None:
    """With completion_type=CHAIN a ROLLBACK leaves one open; once that was seen, sessions are reset instead."""
    pool = plain_way.pool(connect_args={"autocommit": False}, on_connect="SET completion_type = 'CHAIN'")
    for _ in range(2):
        with contextlib.suppress(pymysql.err.OperationalError), pool.connection() as conn:
            ask(conn, f"SELECT * FROM {TABLE}")
    for _ in range(4):
        with pool.connection() as conn:
            ask(conn, f"SELECT * FROM {TABLE}")
    with pool.connection() as conn:
        assert [("CHAIN",)] == ask(conn, "SELECT @@completion_type")
    assert 2 == pool.stats().opened


def test_a_character_set_of_a_callables_proves_nothing_of_texts_in_another(plain_way: Way) -> None:
    """In GBK the end of this character and the backslash before the quote are one: the rest of the value is code."""
    pool = plain_way.pool(on_connect=lambda conn: ask(conn, "SET NAMES gbk"))
    with pool.connection() as conn, conn.cursor() as cursor:
        cursor.execute("SELECT %s", ("\N{CJK UNIFIED IDEOGRAPH-7E17}' , GET_LOCK(0x6c656674, 0) -- ",))
        assert 1 == cursor.fetchall()[0][1]
    with pool.connection() as conn:
        assert [(None,)] == ask(conn, "SELECT IS_USED_LOCK('left')")


def test_an_error_in_what_an_earlier_statement_left_is_counted_once(plain_way: Way) -> None:
    """A character set that was not set, because the rest of an earlier reply was an error, owes no reply less."""
    pool = plain_way.pool(connect_args={"client_flag": CLIENT.MULTI_STATEMENTS})
    with pool.connection() as conn:
        conn.query("SELECT 1; SELECT nothing_of_this_name")
        with pytest.raises(pymysql.err.MySQLError):
            conn.set_character_set("latin1")
        assert 0 == conn._millpond.owed
    with pool.connection() as conn:
        assert [("utf8mb4",)] == ask(conn, "SELECT @@character_set_client")
    assert 1 == pool.stats().opened
