"""What one borrower leaves behind, the next one does not find: each kind of dirt, on each server, by each driver."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable
from typing import Any

import pytest

import millpond
from millpond.drivers import adapter_named
from tests.live.asking import answer, ask, wait_until
from tests.live.leftovers import IN_PEACE_OR_NOT, assert_no_prepared_transaction

from .roads import TABLE, Road, thread_of

VIEW = (
    "@a",
    "@b",
    "@@sql_mode",
    "@@time_zone",
    "@@autocommit",
    "@@character_set_client",
    "@@character_set_results",
    "@@collation_connection",
    "@@wait_timeout",
    "@@foreign_key_checks",
    "@@sql_select_limit",
    "@@session_track_state_change",
    "@@lc_time_names",
    "DATABASE()",
    "CURRENT_ROLE()",
)
VIEW_OF = {
    "mariadb": ("@@tx_isolation", "@@tx_read_only"),
    "mysql": ("@@transaction_isolation", "@@transaction_read_only"),
}
PROBES = ("SHOW WARNINGS", "SELECT * FROM left_behind", "EXECUTE left_behind", f"SELECT a, b FROM {TABLE}")
# Each is run by one borrower, statement by statement; an error is part of some of them.
DIRT: dict[str, tuple[str, ...]] = {
    "a user variable": ("SET @a = 1",),
    "a user variable by SELECT": ("SELECT @a := 1",),
    "a user variable by INTO": ("SELECT 1 INTO @b",),
    "sql_mode": ("SET sql_mode = 'ANSI'",),
    "time zone": ("SET time_zone = '+03:00'",),
    "isolation": ("SET SESSION TRANSACTION ISOLATION LEVEL SERIALIZABLE",),
    "read only": ("SET SESSION TRANSACTION READ ONLY",),
    "autocommit": ("SET autocommit = 1 - @@autocommit",),
    "character set": ("SET NAMES latin1",),
    "collation": ("SET collation_connection = 'utf8mb4_bin'",),
    "schema": ("USE information_schema",),
    "a temporary table": ("CREATE TEMPORARY TABLE left_behind (a INT)",),
    "a lock by SELECT": ("SELECT GET_LOCK('left', 0)",),
    "a lock by DO": ("DO GET_LOCK('left', 0)",),
    "a lock by a function": ("SELECT leaves_a_lock()",),
    "locked tables": (f"LOCK TABLES {TABLE} WRITE",),
    "a prepared statement": ("PREPARE left_behind FROM 'SELECT 1'",),
    "an open transaction": ("BEGIN", f"INSERT INTO {TABLE} VALUES (2, 2)"),
    "an open transaction that only read": ("BEGIN", f"SELECT * FROM {TABLE}"),
    "a failed write with autocommit off": ("SET autocommit = 0", f"INSERT INTO {TABLE} VALUES (3, 3), (1, 1)"),
    "a procedure that fails": ("CALL leaves_all()",),
    "warnings": ("SELECT 1/0, CAST('x' AS SIGNED)",),
    "a role": ("SET ROLE road_boss",),
    "tracking switched off": ("SET session_track_state_change = 0", "SET @a = 1"),
    "a handler": (f"HANDLER {TABLE} OPEN",),
    "a savepoint": ("SAVEPOINT s",),
    "an XA transaction": ("XA START 'left'", f"INSERT INTO {TABLE} VALUES (4, 4)"),
    "several statements in one": ("SELECT 1; SET @a = 1",),
}


@pytest.fixture(params=DIRT)
def dirt(request: pytest.FixtureRequest) -> tuple[str, ...]:
    """Return each kind of dirt."""
    return DIRT[request.param]


def seen(road: Road, conn: Any) -> list[Any]:
    """Return all that can be seen in a session."""
    view = ", ".join((*VIEW, *VIEW_OF[road.server.kind]))
    return [answer(conn, statement) for statement in (*PROBES[:1], f"SELECT {view}", *PROBES[1:])]


def wait_until_free(road: Road) -> None:
    """Wait until no lock is left: the answer to a reset may still be out when a connection was given back."""
    root = road.root()
    ask(root, "SET lock_wait_timeout = 1, innodb_lock_wait_timeout = 1")
    wait_until(lambda: ask(root, "SELECT IS_FREE_LOCK('left')") == [(1,)])
    wait_until(lambda: answer(root, f"UPDATE {road.server.database}.{TABLE} SET b = b WHERE a = 1") == [])


def test_statements_leave_nothing_behind(road: Road, dirt: tuple[str, ...]) -> None:
    """Whatever statements one borrower runs, the next sees what the first one on a new connection saw."""
    pool = road.pool()
    with pool.connection() as conn:
        new = seen(road, conn)
    with pool.connection() as conn, contextlib.suppress(Warning):
        for statement in dirt:
            answer(conn, statement)
    wait_until_free(road)
    with pool.connection() as conn:
        assert new == seen(road, conn)


def test_hidden_private_parts_leave_nothing_behind(road: Road, dirt: tuple[str, ...]) -> None:
    """A driver that shows nothing of what is private has every session renewed, by what is public, or replaced."""
    leaves_nothing(road, dirt, hidden="all")


def test_a_library_out_of_reach_leaves_nothing_behind(client_road: Road, dirt: tuple[str, ...]) -> None:
    """A driver without a status word still judges statements, and renews by logging in anew."""
    leaves_nothing(client_road, dirt, hidden="library")


def leaves_nothing(road: Road, dirt: tuple[str, ...], *, hidden: str) -> None:
    """Look as the next borrower after one that was dirty, with an adapter from which something is hidden."""
    pool = make_pool(road.adapter(hidden=hidden))
    with contextlib.closing(pool):
        with pool.connection() as conn:
            new = seen(road, conn)
        with pool.connection() as conn:
            for statement in dirt:
                answer(conn, statement)
        wait_until_free(road)
        with pool.connection() as conn:
            assert without_tracking(new) == without_tracking(seen(road, conn))


def without_tracking(view: list[Any]) -> list[Any]:
    """Return a view without what only a watched session has set."""
    (row,) = view[1]
    return [view[0], row[:11] + row[12:], *view[2:]]


BY_DRIVER: dict[str, dict[str, Callable[[Road, Any], object]]] = {
    "mysqlclient": {
        "autocommit()": lambda _, conn: conn.autocommit(False),
        "select_db()": lambda _, conn: conn.select_db("information_schema"),
        "ping(True)": lambda _, conn: attempt_call(lambda: conn.ping(True)),
        "set_character_set()": lambda _, conn: conn.set_character_set("latin1"),
        "change_user()": lambda road, conn: conn.change_user(
            *(road.arguments()[name] for name in ("user", "password")), "information_schema"
        ),
        "begin()": lambda _, conn: (conn.begin(), ask(conn, f"INSERT INTO {TABLE} VALUES (5, 5)")),
        "cursorclass": lambda road, conn: setattr(conn, "cursorclass", road.module.cursors.DictCursor),
        "query() unread": lambda _, conn: conn.query("SELECT 1"),
    },
    "mysqlconnector": {
        "autocommit": lambda _, conn: setattr(conn, "autocommit", False),
        "database": lambda _, conn: setattr(conn, "database", "information_schema"),
        "time_zone": lambda _, conn: setattr(conn, "time_zone", "+05:00"),
        "sql_mode": lambda _, conn: setattr(conn, "sql_mode", "ANSI"),
        "reconnect()": lambda _, conn: conn.reconnect(),
        "set_charset_collation()": lambda _, conn: conn.set_charset_collation("latin1"),
        "cmd_init_db()": lambda _, conn: conn.cmd_init_db("information_schema"),
        "start_transaction()": lambda _, conn: conn.start_transaction(isolation_level="SERIALIZABLE"),
        "a prepared cursor": lambda _, conn: conn.cursor(prepared=True).execute("SELECT ?", (1,)),
        "raise_on_warnings": lambda _, conn: setattr(conn, "raise_on_warnings", True),
        "an unread result": lambda _, conn: conn.cursor().execute("SELECT 1"),
        "a transaction by hand": lambda _, conn: (
            conn.start_transaction(),
            ask(conn, f"INSERT INTO {TABLE} VALUES (5, 5)"),
        ),
    },
}


def attempt_call(call: Callable[[], object]) -> None:
    """Call what newer versions of a driver warn of, as deprecated."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        call()


@pytest.mark.parametrize("number", range(max(map(len, BY_DRIVER.values()))))
def test_the_drivers_own_methods_leave_nothing_behind(road: Road, number: int) -> None:
    """Whatever a borrower does by methods and attributes of the driver's connection, the next one sees none of it."""
    ways = list(BY_DRIVER[road.driver].items())
    _, spoil = ways[number % len(ways)]
    pool = road.pool()
    with pool.connection() as conn:
        new = seen(road, conn)
    conn = pool.connection()
    spoil(road, conn)
    conn.close()
    wait_until_free(road)
    with pool.connection() as conn:
        assert new == seen(road, conn)


ACCOUNT = ("user", "password", "database")
BEYOND_RESET: dict[str, dict[str, Callable[[Road, Any], object]]] = {
    "mysqlclient": {
        "change_user()": lambda road, conn: conn.change_user(*(road.arguments()[name] for name in ACCOUNT)),
        "set_server_option()": lambda _, conn: conn.set_server_option(0),  # MULTI_STATEMENTS_ON
    },
    "mysqlconnector": {
        "cmd_change_user()": lambda road, conn: conn.cmd_change_user(*(road.arguments()[name] for name in ACCOUNT)),
        "use_unicode": lambda _, conn: setattr(conn, "use_unicode", False),
    },
}


@pytest.mark.parametrize("number", range(2))
def test_what_no_reset_undoes_costs_the_connection(road: Road, number: int) -> None:
    """A session that is another account's, or takes several statements in one text, is nobody's after its borrower."""
    spoil = list(BEYOND_RESET[road.driver].values())[number]
    pool = road.pool(connect_args={"multi_statements": False} if road.driver == "mysqlclient" else None)
    with pool.connection() as conn:
        first = thread_of(conn)
        spoil(road, conn)
    with pool.connection() as conn:
        assert first != thread_of(conn)


@pytest.mark.parametrize("road", ["mysqlconnector"], indirect=True)
def test_attributes_for_statements_are_not_the_next_borrowers(road: Road) -> None:
    """mysql-connector keeps them in its connection, whichever cursor was given them."""
    pool = road.pool()
    with pool.connection() as conn:
        conn.cursor().add_attribute("trace", "1")
        assert [("trace", "1")] == conn.query_attrs
    with pool.connection() as conn:
        assert [] == conn.query_attrs


@IN_PEACE_OR_NOT
def test_a_procedure_that_prepares_by_xa_leaves_no_transaction(road: Road, end: str) -> None:
    """MariaDB's reset leaves it, and neither a CALL nor its error tells of XA: the next one writes even so."""
    assert_no_prepared_transaction(road.pool(), road.root(), road.server.database, TABLE, end)


@pytest.mark.parametrize("told", ["as a statement", "as a callable"])
def test_a_character_set_of_the_callers_proves_nothing_of_texts_in_another(road: Road, told: str) -> None:
    """In GBK the end of this character and the backslash before the quote are one: the rest of the value is code."""
    text = "SET NAMES gbk"
    pool = road.pool(on_connect=text if told == "as a statement" else lambda conn: ask(conn, text))
    with pool.connection() as conn:
        cursor = conn.cursor()
        with contextlib.suppress(UnicodeDecodeError):  # of the value's first half, where it is made text again
            cursor.execute("SELECT %s", ("\N{CJK UNIFIED IDEOGRAPH-7E17}' , GET_LOCK(0x6c656674, 0) -- ",))
            # The C library of mysql-connector 8.4 learns of the character set by itself, and quotes by that.
            assert ([] if road.is_c else [1]) == [*cursor.fetchall()[0][1:]]
    with pool.connection() as conn:
        assert [(None,)] == ask(conn, "SELECT IS_USED_LOCK('left')")


def test_a_one_shot_isolation_is_gone(road: Road) -> None:
    """SET TRANSACTION without SESSION is about the next transaction, and that is not the next borrower's."""
    pool = road.pool()
    root = road.root()
    with pool.connection() as conn:
        ask(conn, "SET TRANSACTION ISOLATION LEVEL READ UNCOMMITTED")
    ask(root, "BEGIN")
    ask(root, f"UPDATE {road.server.database}.{TABLE} SET b = 99")  # not committed
    with pool.connection() as conn:
        ask(conn, "BEGIN")
        assert [(1, 1)] == ask(conn, f"SELECT a, b FROM {TABLE}")
    ask(root, "ROLLBACK")


def test_what_init_connect_and_on_connect_set_is_there_again(road: Road) -> None:
    """A reset gives back what the server's init_connect, connect arguments and on_connect have set."""
    root = road.root()
    ask(root, "SET GLOBAL init_connect = 'SET @a = 7; SET lc_time_names = ''de_DE'''")
    try:
        zone = {"time_zone": "+02:00"}
        pool = road.pool(on_connect=["SET @b = 8", "SET sql_select_limit = 99"], connect_args=zone)
        with pool.connection() as conn:
            new = seen(road, conn)
            assert (7, 8, "+02:00", 99) == tuple(new[1][0][index] for index in (0, 1, 3, 10))
            ask(conn, "SET @a = 1, @b = 2, time_zone = '+09:00', sql_select_limit = 5, lc_time_names = 'fr_FR'")
        with pool.connection() as conn:
            assert new == seen(road, conn)
    finally:
        ask(root, "SET GLOBAL init_connect = ''")


def test_a_connection_without_schema_stays_without(road: Road) -> None:
    """There is no way back from USE to no schema but a new connection."""
    arguments = road.arguments()
    del arguments["database"]
    with contextlib.closing(make_pool(adapter_named(road.driver)(connect_args=arguments))) as without:
        with without.connection() as conn:
            ask(conn, f"USE {road.server.database}")
        with without.connection() as conn:
            assert [(None,)] == ask(conn, "SELECT DATABASE()")


def make_pool(driver: Any) -> Any:
    """Return a pool of one connection."""
    return millpond.Pool(driver, max_size=1)


def test_a_server_whose_rollback_begins_a_transaction_costs_one_connection(road: Road) -> None:
    """With completion_type=CHAIN a ROLLBACK leaves one open; once that was seen, sessions are reset instead."""
    pool = road.pool(connect_args={"autocommit": False}, on_connect="SET completion_type = 'CHAIN'")
    for _ in range(4):
        with pool.connection() as conn:
            ask(conn, f"SELECT * FROM {TABLE}")
    with pool.connection() as conn:
        assert [("CHAIN",)] == ask(conn, "SELECT @@completion_type")
    assert 2 == pool.stats().opened


def test_what_a_callable_leaves_unread_is_not_its_borrowers(road: Road) -> None:
    """A statement of ``on_connect`` whose rows nobody fetches, at the dial and after a reset."""
    pool = road.pool(on_connect=lambda conn: conn.cursor().execute("SELECT 1"))
    for _ in range(2):
        with pool.connection() as conn:
            assert [(None,)] == ask(conn, "SELECT @a")
            ask(conn, "SET @a = 1")
    assert 1 == pool.stats().opened


def test_a_database_stands_on_the_connections_of_a_callable(road: Road) -> None:
    """It knows them as if the driver had been named, once the first one has shown which it is."""
    with (
        millpond.Pool(lambda: road.module.connect(**road.arguments()), max_size=1) as pool,
        millpond.Database(pool) as db,
    ):
        assert 1 == db.select_value("SELECT 1", timeout=20)
        with contextlib.suppress(KeyError), db.transaction():
            db.execute(f"UPDATE {TABLE} SET b = 9", timeout=20)
            raise KeyError
        assert [(1, 1)] == db.select_rows(f"SELECT a, b FROM {TABLE}")


def test_a_callables_connections_are_given_back_as_it_made_them(road: Road) -> None:
    """What a callable that connects has set is what the next borrower finds, though no argument told of it."""

    def connect() -> Any:
        conn = road.module.connect(**road.arguments())
        ask(conn, "SET sql_mode = 'ANSI', time_zone = '+01:00'")
        return conn

    with millpond.Pool(connect, max_size=1) as pool:
        with pool.connection() as conn:
            new = seen(road, conn)
            first = thread_of(conn)
            ask(conn, "SET sql_mode = '', time_zone = '+09:00', @a = 1")
        with pool.connection() as conn:
            assert new == seen(road, conn)
            assert first == thread_of(conn)
