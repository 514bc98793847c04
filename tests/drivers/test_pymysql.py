"""PyMySQL's adapter on servers that lack something, and that answer as no real one does when asked to."""

from __future__ import annotations

import itertools
import select
import sys
import threading
import time
import types
from collections.abc import Callable, Iterator
from typing import Any

import pymysql
import pytest
from pymysql.connections import Connection

import millpond
from millpond.drivers import _pymysql_session, resolve
from millpond.drivers._pymysql_plan import Plan, is_spared
from millpond.drivers._pymysql_session import can_listen
from millpond.drivers.pymysql import PyMySQLDriver
from millpond.testing.fake_server import FakeError, FakeServer
from tests.drivers.interrupting import interrupted

OVERHEARD = "auto: ROLLBACK at every return, or a new connection: this version of PyMySQL cannot be listened to"
FACTS = "SELECT @@init_connect, @@global.read_only, CONNECTION_ID(), @@max_allowed_packet"
RESET = "COM_RESET_CONNECTION"


@pytest.fixture
def server() -> Iterator[FakeServer]:
    """Return a server that lacks nothing."""
    with FakeServer() as running:
        yield running


def pool_on(server: FakeServer, **settings: Any) -> millpond.Pool[Any]:
    """Return a pool of one connection."""
    arguments = server.connect_args(autocommit=True) | settings.pop("connect_args", {})
    return millpond.Pool(pymysql, connect_args=arguments, **({"max_size": 1, "check_timeout": 0.3} | settings))


def ask(conn: Any, statement: str) -> list[Any]:
    """Run a statement and return its rows."""
    with conn.cursor() as cursor:
        cursor.execute(statement)
        return list(cursor.fetchall())


def use(pool: millpond.Pool[Any], *statements: str) -> list[Any]:
    """Take a connection, run statements, give it back; return the last one's rows."""
    rows: list[Any] = []
    with pool.connection() as conn:
        for statement in statements:
            rows = ask(conn, statement)
    return rows


def soon(seconds: float = 10.0) -> float:
    """Return a deadline."""
    return time.monotonic() + seconds


# -- what old and odd servers lack -----------------------------------------------------------------------------------
LACKING: dict[str, tuple[dict[str, Any], str, int]] = {
    "nothing": ({}, "auto: COM_RESET_CONNECTION", 1),
    "roles": ({"roles": False, "version": "5.7.44"}, "auto: COM_RESET_CONNECTION", 1),
    "tracking": ({"tracking": False}, "auto: COM_RESET_CONNECTION, after every write too: changes are not told", 1),
    "resets": ({"resets": "unknown"}, "auto: ROLLBACK, or a new connection: COM_RESET_CONNECTION does not do here", 4),
    "resets, rudely": (
        {"resets": "closes"},
        "auto: ROLLBACK, or a new connection: COM_RESET_CONNECTION does not do here",
        4,
    ),
    "answers to resets": (
        {"resets": "silent"},
        "auto: ROLLBACK, or a new connection: COM_RESET_CONNECTION does not do here",
        4,
    ),
    "everything (5.6)": (
        {"resets": "unknown", "tracking": False, "roles": False, "version": "5.6.51"},
        "auto: ROLLBACK, or a new connection: COM_RESET_CONNECTION does not do here",
        4,
    ),
}


@pytest.mark.parametrize("what", LACKING)
def test_no_server_makes_it_leak(what: str) -> None:
    """Whatever a server lacks, the next borrower finds nothing of the last; how it is done shows in stats()."""
    settings, way, opened = LACKING[what]
    with FakeServer(**settings) as server, pool_on(server) as pool:
        seen = [use(pool, "SELECT @a", "SET @a = 1", "SELECT @a") for _ in range(3)]
        assert ([[("1",)]] * 3, [(None,)]) == (seen, use(pool, "SELECT @a"))
        assert (way, opened) == (pool.stats().reset, pool.stats().opened)


def test_a_reset_that_broke_the_link_is_known_for_that_before_the_link_is_closed() -> None:
    """The next connection may be there before the thread that closes has come to this one."""
    with FakeServer(resets="closes") as server:
        driver = PyMySQLDriver(connect_args=server.connect_args(autocommit=True))
        conn = driver.open(soon())
        ask(conn, "SET @a = 1")
        assert driver.send_reset is not None
        assert driver.send_reset(conn) is None
        assert driver.collect(conn, soon()) is False
        assert LACKING["resets, rudely"][1] == f"auto: {driver.reset_way()}"
        driver.close(conn)


def test_a_pool_connects_though_it_was_told_to_leave_that_for_later(server: FakeServer) -> None:
    """``defer_connect=True`` comes along from a program's own arguments."""
    with pool_on(server, connect_args={"defer_connect": True}) as pool:
        assert [(1,)] == use(pool, "SELECT 1")


def test_a_connection_that_its_borrower_closed_is_nobodys(server: FakeServer) -> None:
    """PyMySQL's own block closes; who came within a millisecond, before any poll, was handed what was closed."""
    driver = PyMySQLDriver(connect_args=server.connect_args(autocommit=True))
    conn = driver.open(soon())
    assert driver.is_clean is not None
    assert driver.is_clean(conn)
    with conn:
        ask(conn, "SELECT 1")
    assert not driver.is_clean(conn)
    assert driver.send_reset is not None
    assert driver.send_reset(conn) is False
    driver.close(conn)


def test_connections_that_a_callable_makes_at_the_same_time_are_all_known(server: FakeServer) -> None:
    """One that was begun before another had shown its driver was taken for any driver's: what was left in it stayed."""
    asked, learned = threading.Event(), threading.Event()

    def connect() -> Any:
        if threading.current_thread() is not threading.main_thread():
            asked.set()
            assert learned.wait(20)
        return pymysql.connect(**server.connect_args(autocommit=True))

    driver = resolve(connect)
    opened: list[Any] = []
    slow = threading.Thread(target=lambda: opened.append(driver.open(soon(30))))
    slow.start()
    assert asked.wait(20)
    opened.append(driver.open(soon()))
    learned.set()
    slow.join(20)
    assert driver.is_clean is not None
    assert [True, True] == [driver.is_clean(conn) for conn in opened]
    for conn in opened:
        driver.close(conn)


def test_without_tracking_a_write_is_followed_by_a_reset() -> None:
    """A trigger may have changed the session, and nobody would tell; reading needs no reset even so."""
    with FakeServer(tracking=False) as server, pool_on(server) as pool:
        use(pool, "SELECT b FROM t")
        assert RESET not in server.texts()
        use(pool, "INSERT INTO t VALUES (1)")
        server.wait_for(lambda: RESET in server.texts())


def test_a_server_that_knows_the_bit_and_not_the_variable() -> None:
    """The set-up is told again without it, once; later connections do not try."""
    with FakeServer() as server:
        tracked = "SET NAMES utf8mb4, autocommit = 1, session_track_state_change = 1"
        server.answers[tracked] = FakeError(1193, "Unknown system variable")
        with pool_on(server, max_size=2) as pool, pool.connection() as one, pool.connection() as two:
            assert [[(1,)]] * 2 == [ask(conn, "SELECT 1") for conn in (one, two)]
        assert [1, 2] == [server.texts().count(text) for text in (tracked, "SET NAMES utf8mb4, autocommit = 1")]


def test_behind_a_proxy_that_shares_backends_nothing_is_believed() -> None:
    """Where who greets is not who answers, every return is followed by a ROLLBACK, and there are no resets."""
    with FakeServer(pooled=True) as server, pool_on(server) as pool:
        for _ in range(3):
            use(pool, "SELECT 1")
        assert pool.stats().reset.startswith("auto: ROLLBACK at every return: a proxy")
        server.wait_for(lambda: server.commands[-1].text == "ROLLBACK")
        assert (3, False) == (server.texts().count("ROLLBACK"), RESET in server.texts())


def test_a_server_that_answers_no_questions_gets_no_resets() -> None:
    """What cannot be asked is not assumed: a dirty connection is replaced."""
    with FakeServer() as server:
        server.answers[FACTS] = FakeError(1227, "Access denied")
        with pool_on(server) as pool:
            assert [[(None,)], [(None,)]] == [use(pool, "SELECT @a"), use(pool, "SET @a = 1", "SELECT @b")]
            use(pool, "SELECT 1")
            assert (3, False) == (pool.stats().opened, RESET in server.texts())  # @a is not proved harmless


def test_what_is_known_of_a_server_is_asked_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that was upgraded behind its address is found out by the first dial after a minute."""
    with FakeServer(resets="unknown") as server, pool_on(server) as pool:
        use(pool, "SET @a = 1")
        use(pool, "SELECT 1")
        assert pool.stats().reset.startswith("auto: ROLLBACK, or a new connection")
        server.resets = "yes"
        monkeypatch.setattr(Plan, "FACTS_S", 0.0)
        pool.drain()
        use(pool, "SET @a = 1")
        assert ([(None,)], "auto: COM_RESET_CONNECTION") == (use(pool, "SELECT @a"), pool.stats().reset)


def test_a_server_that_became_read_only_is_left(server: FakeServer) -> None:
    """The role is asked for once after a write was refused for it, and every connection is replaced."""
    server.answers["UPDATE t SET a = 1"] = FakeError(1290, "The server is running with the --read-only option")
    with pool_on(server, max_size=2) as pool:
        with pool.connection(), pool.connection():
            pass
        for read_only in (False, True):  # the second time is too soon to ask again
            server.read_only = read_only
            with pool.connection() as conn, pytest.raises(pymysql.err.OperationalError):
                ask(conn, "UPDATE t SET a = 1")
            assert {} == pool.stats().retired
    server.read_only = False
    with pool_on(server, max_size=2) as pool:
        with pool.connection(), pool.connection():
            server.read_only = True
        with pool.connection() as conn, pytest.raises(pymysql.err.OperationalError):
            ask(conn, "UPDATE t SET a = 1")
        assert {"role": 2} == pool.stats().retired


# -- what a reset restores ---------------------------------------------------------------------------------------------
def test_init_connect_is_run_again_and_ours_wins(server: FakeServer) -> None:
    """The server's own statements for new sessions are repeated behind a reset, before the adapter's settings."""
    server.answers[FACTS] = lambda: [("SET @boot = 1; SET @more = 2", 0, 1, None)]
    with pool_on(server, on_connect="SET @mine = 3") as pool:
        use(pool, "SET @a = 1")
        assert [("1", "2", "3", None)] == use(pool, "SELECT @boot, @more, @mine, @a")
        settings = "SET NAMES utf8mb4, autocommit = 1, session_track_state_change = 1"
        texts = server.texts()
        sent = texts[texts.index(RESET) :]
        expected = [
            RESET,
            settings,
            "SET ROLE NONE",
            "fake",
            "SET @boot = 1",
            "SET @more = 2",
            settings,
            "SET @mine = 3",
        ]
        assert expected == sent[: len(expected)]


def test_the_role_of_a_new_session_comes_back(server: FakeServer) -> None:
    """A default role is set again, though the reset leaves the role alone."""
    server.answers["SELECT CURRENT_ROLE()"] = [("`reader`@`%`",)]
    with pool_on(server) as pool:
        use(pool, "SET ROLE admin")
        assert [("`reader`@`%`", 1)] == use(pool, "SELECT CURRENT_ROLE(), 1")
        assert "SET ROLE `reader`@`%`" in server.texts()


def test_no_schema_cannot_be_chosen_back(server: FakeServer) -> None:
    """A connection without a schema, whose borrower chose one, is replaced; one that did not is kept."""
    with pool_on(server, connect_args={"database": None}) as pool:
        use(pool, "SET @a = 1")
        assert ([(None,)], 1) == (use(pool, "SELECT DATABASE()"), pool.stats().opened)
        with pool.connection() as conn:
            conn.select_db("other")
        assert ([(None,)], 2) == (use(pool, "SELECT DATABASE()"), pool.stats().opened)


def test_on_connect_as_a_callable_runs_behind_each_reset(server: FakeServer) -> None:
    """What a callable sets up on a new connection it sets up again."""
    with pool_on(server, on_connect=lambda conn: ask(conn, "SET @mine = 1")) as pool:
        assert [("1", None)] == use(pool, "SELECT @mine, @a")
        use(pool, "SET @mine = 9, @a = 1")
        assert ([("1", None)], 1) == (use(pool, "SELECT @mine, @a"), pool.stats().opened)


def test_a_step_that_fails_costs_the_connection(server: FakeServer) -> None:
    """Nobody gets a session that is nearly right."""
    with pool_on(server, on_connect="SET @mine = 1") as pool:
        use(pool, "SELECT 1")
        server.answers["SET @mine = 1"] = FakeError(1231, "not now")
        use(pool, "SET @a = 1")
        server.wait_for(lambda: server.commands[-1].text == "SET @mine = 1")
        del server.answers["SET @mine = 1"]
        assert ([("1", None)], 2) == (use(pool, "SELECT @mine, @a"), pool.stats().opened)


# -- commands written ahead ------------------------------------------------------------------------------------------
def refuse_rollback(server: FakeServer) -> threading.Event:
    """Have ROLLBACK refused once the event is set: an answer that has come before a checkout is read there."""
    is_due = threading.Event()

    def refuse() -> FakeError:
        assert is_due.wait(10)
        return FakeError(1399, "XAER_RMFAIL")

    server.answers["ROLLBACK"] = refuse
    return is_due


def test_a_refused_rollback_fails_what_was_written_behind_it(server: FakeServer) -> None:
    """The command fails, the connection is closed, and nothing was sent twice."""
    with pool_on(server, connect_args={"autocommit": False}) as pool:
        is_due = refuse_rollback(server)
        use(pool, "SELECT b FROM t")
        with pool.connection() as conn:
            is_due.set()
            with pytest.raises(pymysql.err.OperationalError, match="XAER_RMFAIL") as refused:
                ask(conn, "INSERT INTO t VALUES (1)")
            assert (2013, False) == (refused.value.args[0], conn.open)
        del server.answers["ROLLBACK"]
        use(pool, "SELECT 1")
        server.wait_for(lambda: "INSERT INTO t VALUES (1)" in server.texts())
        assert (1, 2) == (server.texts().count("INSERT INTO t VALUES (1)"), pool.stats().opened)


def test_what_is_not_proved_harmless_waits_for_the_rollback(server: FakeServer) -> None:
    """Only statements that leave nothing behind are written before the answer is known."""
    with pool_on(server, connect_args={"autocommit": False}) as pool:
        is_due = refuse_rollback(server)
        use(pool, "SELECT b FROM t")
        with pool.connection() as conn:
            is_due.set()
            with pytest.raises(pymysql.err.OperationalError, match="XAER_RMFAIL"):
                ask(conn, "SET GLOBAL x = 1")
        assert "SET GLOBAL x = 1" not in server.texts()


@pytest.mark.parametrize("call", ["ping", "commit", "rollback", "begin", "select_db", "autocommit", "show_warnings"])
def test_every_method_reads_the_rollbacks_answer_first(server: FakeServer, call: str) -> None:
    """Whatever a borrower does first, replies stay in step."""
    server.answers["SHOW WARNINGS"] = [("Note", 1, "played")]
    arguments: dict[str, tuple[Any, ...]] = {"ping": (False,), "select_db": ("other",), "autocommit": (True,)}
    with pool_on(server, connect_args={"autocommit": False}) as pool:
        use(pool, "SELECT b FROM t")
        with pool.connection() as conn:
            getattr(conn, call)(*arguments.get(call, ()))
            assert [(42,)] == ask(conn, "SELECT 42")
        assert ([(43,)], 1) == (use(pool, "SELECT 43"), pool.stats().opened)


def test_warnings_that_were_asked_for_are_no_statements_result(server: FakeServer) -> None:
    """As with the driver's own: there is no number of a row to be told, and none is 0."""
    server.answers["SHOW WARNINGS"] = [("Note", 1, "played")]
    with pool_on(server) as pool, pool.connection() as conn:
        assert ((("Note", 1, "played"),), 0) == (conn.show_warnings(), conn.insert_id())


def test_a_pool_of_one_waits_once_a_cycle(server: FakeServer) -> None:
    """With autocommit off each cycle is a SELECT and a ROLLBACK, in this order, and nothing else."""
    with pool_on(server, connect_args={"autocommit": False}) as pool:
        use(pool, "SELECT 1")
        server.commands.clear()
        for _ in range(20):
            assert [(1,)] == use(pool, "SELECT b FROM t")
        server.wait_for(lambda: len(server.commands) == 40)
        assert ["SELECT b FROM t", "ROLLBACK"] * 20 == server.texts()


def test_without_poll_answers_are_waited_for_by_select(server: FakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a system that has no poll() idle connections are not looked at, and everything else is as elsewhere."""
    monkeypatch.delattr(select, "poll")
    with pool_on(server) as pool:
        seen = [use(pool, "SELECT @a", "SET @a = 1", "SELECT @a") for _ in range(3)]
        assert ([[("1",)]] * 3, [(None,)], 1) == (seen, use(pool, "SELECT @a"), pool.stats().opened)
        assert pool.driver.is_readable is None


# -- links ------------------------------------------------------------------------------------------------------------
def test_a_killed_connection_is_replaced_unseen(server: FakeServer) -> None:
    """A poll tells, whether it was clean or an answer was outstanding."""
    for statement in ("SELECT 1", "SET @a = 1", "BEGIN"):
        with pool_on(server) as pool:
            use(pool, statement)
            number = max(command.connection for command in server.commands)
            server.kill(number)
            before_at = time.monotonic()
            while time.monotonic() < before_at + 0.002:  # one that answered a moment ago is handed out unseen
                continue
            assert [(7,)] == use(pool, "SELECT 7")


def test_two_threads_at_once_are_told_of_each_other(server: FakeServer) -> None:
    """The second names both, and is an InterfaceError of PyMySQL."""
    asked, go_on = threading.Event(), threading.Event()

    def slow() -> list[tuple[int]]:
        asked.set()
        assert go_on.wait(10)
        return [(1,)]

    server.answers["SELECT slow"] = slow
    with pool_on(server) as pool, pool.connection() as conn:
        first = threading.Thread(target=lambda: ask(conn, "SELECT slow"), name="the-first")
        first.start()
        assert asked.wait(10)
        with pytest.raises(millpond.ConcurrentUse, match="the-first") as told:
            ask(conn, "SELECT 2")
        go_on.set()
        first.join(10)
        assert [(3,)] == ask(conn, "SELECT 3")
    assert (True, True) == (isinstance(told.value, pymysql.err.InterfaceError), "MainThread" in str(told.value))


def test_passwords_from_a_callable_are_asked_at_each_dial(server: FakeServer) -> None:
    """A rotated password takes effect with the next connection."""
    asked: list[int] = []

    def password() -> str:
        asked.append(1)
        return f"word-{len(asked)}"

    driver = PyMySQLDriver(pymysql, connect_args=server.connect_args(password=password))
    conns = [driver.open(soon()) for _ in range(3)]
    assert (3, [b"word-1", b"word-2", b"word-3"]) == (len(asked), [conn.password for conn in conns])
    for conn in conns:
        driver.close(conn)


@pytest.mark.parametrize(
    ("mode", "connects"), [("disabled", True), ("preferred", True), ("required", False), ("verify-ca", False)]
)
def test_tls_is_never_weaker_than_asked_for(server: FakeServer, mode: str, connects: bool) -> None:
    """On a server without TLS, what requires it does not connect, with any PyMySQL."""
    driver = PyMySQLDriver(pymysql, connect_args=server.connect_args(ssl=mode))
    if connects:
        driver.close(driver.open(soon()))
        return
    with pytest.raises(pymysql.err.OperationalError) as refused:
        driver.open(soon())
    assert 2026 == refused.value.args[0]


def test_the_second_connection_asks_no_questions(server: FakeServer) -> None:
    """One statement sets it up, and what is known of the server is not asked again within a minute."""
    with pool_on(server, max_size=2) as pool, pool.connection() as one:
        assert [(1,)] == ask(one, "SELECT 1")
        server.commands.clear()
        with pool.connection() as two:
            assert [(2,)] == ask(two, "SELECT 2")
        assert ["SET NAMES utf8mb4, autocommit = 1, session_track_state_change = 1", "SELECT 2"] == server.texts()


# -- the driver object -------------------------------------------------------------------------------------------------
def change_decoders(conn: Any) -> None:
    """Change the table of decoders by every way there is."""
    key = next(iter(conn.decoders))
    conn.decoders[key] = str
    conn.decoders.pop(key)
    conn.decoders.update({key: repr})
    conn.decoders.setdefault(-1, str)


@pytest.mark.parametrize(
    "change",
    [
        change_decoders,
        lambda conn: conn.encoders.clear(),
        lambda conn: setattr(conn, "cursorclass", pymysql.cursors.SSCursor),
        lambda conn: setattr(conn, "decoders", {}),
        lambda conn: setattr(conn, "autocommit_mode", None),
        lambda conn: setattr(conn, "_read_timeout", 1),
    ],
    ids=["decoders", "encoders", "cursorclass", "another table", "autocommit_mode", "read_timeout"],
)
def test_changed_settings_of_the_object_are_put_back(server: FakeServer, change: Any) -> None:
    """Converters, cursor class, modes and time-outs are for the next borrower as they were."""

    def looks(conn: Any) -> list[Any]:
        return [dict(conn.decoders), dict(conn.encoders), conn.cursorclass, conn.autocommit_mode, conn._read_timeout]

    with pool_on(server) as pool:
        with pool.connection() as conn:
            before = looks(conn)
            change(conn)
        with pool.connection() as conn:
            assert before == looks(conn)
        assert 1 == pool.stats().opened


class PlainDriver(PyMySQLDriver):
    """The adapter with a PyMySQL whose private parts are not as expected."""

    private_parts = False


@pytest.mark.parametrize("source", ["module", "callable"])
def test_without_private_parts_it_is_overheard(server: FakeServer, source: str) -> None:
    """Rolled back at every return or replaced, and it says so; connections, errors and settings work."""
    arguments = server.connect_args(autocommit=False, ssl_disabled=True)
    adapter = PlainDriver(
        pymysql if source == "module" else lambda: pymysql.connect(**arguments),
        connect_args=arguments if source == "module" else None,
        on_connect="SET @mine = 1",
    )
    with millpond.Pool(adapter, max_size=1) as pool:
        assert [("1",)] == use(pool, "SELECT @mine")
        assert [(1,)] == use(pool, "SELECT b FROM t")
        assert 2 <= server.texts().count("ROLLBACK")
        assert OVERHEARD == pool.stats().reset
        use(pool, "SELECT b FROM t")
        assert 2 == pool.stats().opened  # for the variable: without listening there are no resets


class GoesPast(Connection):
    """A connection whose statements do not go where they are listened to, as a later version's might not."""

    def query(self, sql: Any, unbuffered: bool = False) -> int:
        """Run a statement."""
        plain: Any = Connection
        plain._execute_command(self, 3, sql.encode())
        number: int = plain._read_query_result(self, unbuffered)
        return number


def test_a_class_that_does_not_hear_is_overheard(server: FakeServer) -> None:
    """Names alone prove nothing: what is not heard, in a conversation with nobody, is not listened to."""
    arguments = server.connect_args(autocommit=True, ssl_disabled=True)
    assert (True, False) == (can_listen(Connection), can_listen(GoesPast))
    with millpond.Pool(lambda: GoesPast(**arguments), driver="pymysql", max_size=1) as pool:
        use(pool, "SELECT 1")
        use(pool, "SELECT 1")
        assert (1, True) == (pool.stats().opened, "ROLLBACK" in server.texts())
        use(pool, "SET @a = 1")
        use(pool, "SELECT 1")
        assert (2, OVERHEARD, []) == (
            pool.stats().opened, pool.stats().reset, [c for c in server.commands if c.name == RESET]
        )  # fmt: skip


@pytest.mark.parametrize(
    ("reset", "statement", "opened"),
    [("auto", "SELECT 1", 1), ("auto", "INSERT INTO t VALUES (1)", 2), ("always", "SELECT 1", 2),
     ("rollback", "SET @a = 1", 1), ("none", "SET @a = 1", 1)],
)  # fmt: skip
def test_what_is_overheard_is_cleaned_as_the_setting_says(
    server: FakeServer, reset: str, statement: str, opened: int
) -> None:
    """Only "auto" and "always" promise a session as good as new; a write may have fired a trigger."""
    adapter = PlainDriver(pymysql, connect_args=server.connect_args(ssl_disabled=True), reset=reset)
    with millpond.Pool(adapter, max_size=1) as pool:
        use(pool, statement)
        use(pool, "SELECT 1")
        assert opened == pool.stats().opened


@pytest.mark.parametrize(
    "change",
    [
        lambda conn: conn.select_db("other"),
        lambda conn: conn.autocommit(True),
        lambda conn: conn.ping(reconnect=True),
        lambda conn: conn.ping(True),
        lambda conn: setattr(conn, "cursorclass", pymysql.cursors.DictCursor),
        lambda conn: conn.decoders.clear(),
    ],
    ids=["select_db", "autocommit", "ping by name", "ping", "cursor class", "decoders"],
)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # PyMySQL 1.2 about reconnecting
def test_what_is_done_with_an_overheard_connection_costs_it(server: FakeServer, change: Callable[[Any], Any]) -> None:
    """By its methods or attributes: nobody else gets it."""
    adapter = PlainDriver(pymysql, connect_args=server.connect_args(ssl_disabled=True))
    with millpond.Pool(adapter, max_size=1) as pool:
        with pool.connection() as conn:
            conn.ping(reconnect=False)
            assert [(1,)] == ask(conn, "SELECT b FROM t")
        with pool.connection() as conn:
            change(conn)
        use(pool, "SELECT 1")
        assert 2 == pool.stats().opened


def test_a_drain_in_the_middle_of_a_reset_proves_nothing_against_resets(server: FakeServer) -> None:
    """A connection that was closed before it could answer has not refused."""
    with pool_on(server) as pool:
        for _ in range(3):
            with pool.connection() as conn:
                ask(conn, "SET @x = 1")
            pool.drain()
        assert "auto: COM_RESET_CONNECTION" == pool.stats().reset


def test_an_idle_connection_does_not_keep_the_rows_of_its_last_statement(server: FakeServer) -> None:
    """Neither a clean session nor one that is cleaned does: large results would stay until the next statement."""
    with pool_on(server) as pool:
        for statements in (["SELECT b FROM t"], ["SET @a = 1", "SELECT b FROM t"]):
            with pool.connection() as conn:
                kept = conn.driver_connection
                assert [(1,)] == [ask(conn, statement) for statement in statements][-1]
            assert kept._result is None


def test_a_clean_pair_enters_few_frames(server: FakeServer) -> None:
    """Knowing that a session is alive and clean costs the fast path four frames beside its own two, and no packet."""
    entered: list[str] = []

    def profile(frame: Any, event: str, arg: Any) -> None:
        if event == "call" and "/millpond/" in frame.f_code.co_filename:
            entered.append(frame.f_code.co_name)

    with pool_on(server) as pool:
        use(pool, "SELECT 1")
        before = len(server.commands)
        for _ in range(2):  # the first poll of a connection makes what it is polled with
            entered.clear()
            asked_at = time.monotonic()
            while time.monotonic() < asked_at + 0.002:  # a connection that answered a moment ago is not even polled
                continue
            sys.setprofile(profile)
            try:
                pool.connection().close()
            finally:
                sys.setprofile(None)
        assert before == len(server.commands)
    expected = ["connection", "_is_readable", "has_news", "close", "<lambda>", "_is_clean"]
    assert expected == entered


# -- what is broken off, and what other programs make of it -----------------------------------------------------------
def in_another_thread(call: Callable[[], Any]) -> Any:
    """Run something in a thread of its own; return what it returned, or the error."""
    told: list[Any] = []

    def run() -> None:
        try:
            told.append(call())
        except Exception as error:  # noqa: BLE001  to be looked at
            told.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(10)
    return told[0]


@pytest.mark.parametrize("nonsense", [None, 5, object()], ids=["None", "a number", "an object"])
def test_what_is_no_statement_leaves_the_connection_to_others(server: FakeServer, nonsense: Any) -> None:
    """Nothing was sent, so nobody waits for a reply; the next thread is not told that two are at work."""
    with pool_on(server) as pool:
        with pool.connection() as conn, pytest.raises(TypeError):
            conn.query(nonsense)
        with pool.connection() as conn, pytest.raises(UnicodeEncodeError):
            conn.select_db("\ud800")
        assert ([(1,)], 1) == (in_another_thread(lambda: use(pool, "SELECT 1")), pool.stats().opened)


@pytest.mark.parametrize("way", ["a cursor", "fetch"])
def test_a_statement_that_is_interrupted_is_owed_or_leaves_nobody_waiting(server: FakeServer, way: str) -> None:
    """Wherever Ctrl-C strikes, the connection is closed at return or can be used by the next thread."""
    driver = PyMySQLDriver(pymysql, connect_args=server.connect_args(autocommit=True))

    def call(conn: Any) -> None:
        if way == "fetch":
            _pymysql_session.fetch(conn, "SELECT 1", None)
        else:
            conn.query("SELECT 1")

    for line in itertools.count():
        conn = driver.open(soon())
        was_struck = interrupted(lambda: call(conn), _pymysql_session.__file__, line)  # noqa: B023  called at once
        session = conn._millpond
        assert session.owed or not session.holder
        driver.close(conn)
        if not was_struck:
            break
    assert (0, True) == (session.owed, line > 10)


def test_our_own_questions_are_not_answered_through_a_caller_s_converters(server: FakeServer) -> None:
    """Converters for other values than ours, or none at all, change nothing of what is learned of a server."""

    def refuse(value: Any) -> Any:
        raise ValueError(value)

    strange = dict.fromkeys(range(256), refuse)
    with pool_on(server, connect_args={"conv": strange}) as pool:
        with pool.connection() as conn, conn.cursor() as cursor:
            cursor.execute("SET @a = 1")
        with pool.connection():
            pass
        assert ("auto: COM_RESET_CONNECTION", 1) == (pool.stats().reset, pool.stats().opened)


@pytest.mark.parametrize(("told", "expected"), [("0", False), (0, False), ("1", True), (1, True)], ids=repr)
def test_who_is_spared_is_a_number_however_it_is_told(told: Any, expected: bool) -> None:
    """Without converters for numbers it comes as text, and "0" is no yes: init_connect would be forgotten."""
    assert expected == is_spared([types.SimpleNamespace(rows=[(told,)])])
