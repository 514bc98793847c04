"""How many commands a borrower's cycle costs, and how many waits: counted in a proxy, not by the server."""

from __future__ import annotations

import time
from typing import Any

import millpond
from tests.live.asking import ask

from .roads import TABLE, Road

READ = f"SELECT a, b FROM {TABLE}"


def counted(road: Road, pool: Any, *statements: str) -> list[str]:
    """Return the names of the commands that one cycle sends, from its checkout until another has been seen to work."""
    with pool.connection() as conn:
        ask(conn, "SELECT 1")
    road.proxy.reset_counts()
    with pool.connection() as conn:
        for statement in statements:
            ask(conn, statement)
    return [command.name.removeprefix("COM_") for command in road.proxy.commands]


def test_a_clean_cycle_is_one_command(polled_road: Road) -> None:
    """Checkout, one statement and return cost exactly one command with autocommit on."""
    pool = polled_road.pool()
    assert ["QUERY"] == counted(polled_road, pool, READ)
    assert ["QUERY"] == counted(polled_road, pool, f"UPDATE {TABLE} SET b = b + 1 WHERE a = 1")
    assert ["QUERY"] * 3 == counted(polled_road, pool, "BEGIN", f"UPDATE {TABLE} SET b = b + 1", "COMMIT")


def test_a_clean_cycle_is_one_command_with_autocommit_off(polled_road: Road) -> None:
    """Without a transaction it is one command as well, and with one that only read a ROLLBACK is added."""
    pool = polled_road.pool(connect_args={"autocommit": False})
    assert ["QUERY"] == counted(polled_road, pool, "SELECT 1")
    assert ["QUERY", "QUERY"] == counted(polled_road, pool, READ)
    assert "ROLLBACK" == polled_road.proxy.commands[-1].text


def test_values_cost_nothing_and_are_quoted_by_the_mode_of_the_session(polled_road: Road) -> None:
    """No driver asks for sql_mode before a statement with values, and none quotes by one that has changed since."""
    pool, hostile = polled_road.pool(), "\\' OR 1 -- \\"
    with pool.connection() as conn:
        ask(conn, "SELECT 1")
    polled_road.proxy.reset_counts()
    with pool.connection() as conn, conn.cursor() as cursor:
        cursor.execute("SELECT %s, 1", (hostile,))
        assert (hostile, 1) == cursor.fetchone()
    assert 1 == len(polled_road.proxy.commands), polled_road.proxy.commands
    for mode in ("NO_BACKSLASH_ESCAPES", ""):
        with pool.connection() as conn, conn.cursor() as cursor:
            cursor.execute("SET SESSION sql_mode = %s", (mode,))
            cursor.execute("SELECT %s, 1", (hostile,))
            assert (hostile, 1) == cursor.fetchone()
    with pool.connection() as conn, conn.cursor() as cursor:
        cursor.execute("SELECT %s, 1", (hostile,))
        assert (hostile, 1) == cursor.fetchone()


def test_a_dirty_cycle_is_reset_by_two_commands(polled_road: Road) -> None:
    """What a reset and its restoring cost is two commands, whatever was left behind."""
    pool = polled_road.pool(on_connect="SET @b = 1")
    assert ["QUERY", "RESET_CONNECTION", "QUERY"] == counted(polled_road, pool, "SET @a = 1")


def test_rolling_back_is_not_waited_for_at_return(polled_road: Road) -> None:
    """A ROLLBACK is sent when a connection comes back, and its answer read when it is taken."""
    pool = polled_road.pool(connect_args={"autocommit": False})
    for one_way_s in (0.1, 1.0, 5.0):
        with pool.connection() as conn:
            ask(conn, READ)
            polled_road.proxy.latency = one_way_s
            before_at = time.monotonic()
        took_s = time.monotonic() - before_at
        polled_road.proxy.latency = 0.0
        with pool.connection() as conn:
            assert [(1,)] == ask(conn, "SELECT 1")
        if took_s < 2 * one_way_s:  # or else it has waited, or the machine had other things to do: the same, slower
            break
    assert took_s < 2 * one_way_s
    assert 1 == pool.stats().opened


def test_setting_up_is_one_statement(polled_road: Road) -> None:
    """After the handshake one text sets all that a new session needs, what the driver would send by itself included."""
    pool = polled_road.pool(on_connect=["SET @b = 1", "SET @a = 2"], connect_args={"autocommit": False})
    with pool.connection() as conn:
        sent = [command.text for command in polled_road.proxy.commands if command.name == "COM_QUERY"]
        assert [(2, 1, 0)] == ask(conn, "SELECT @a, @b, @@autocommit")
    assert [] == sent[:-1]


def test_what_the_driver_sets_by_its_settings_is_set(polled_road: Road) -> None:
    """Collation and sql_mode are those that the driver alone would set, for the next borrower too."""
    settings = {"charset": "utf8mb4", "collation": "utf8mb4_bin", "sql_mode": "ANSI_QUOTES"}
    look = "SELECT @@collation_connection, @@character_set_client, @@sql_mode"
    expected = ask(polled_road.raw(**settings), look)
    pool = polled_road.pool(connect_args=settings)
    for _ in range(2):
        with pool.connection() as conn:
            assert expected == ask(conn, look)
            ask(conn, "SET @a = 1")
    assert "utf8mb4_bin" == expected[0][0]


def test_init_command_is_run_again_after_a_reset(polled_road: Road) -> None:
    """What the driver's own setting for new connections has set is there for each borrower."""
    pool = polled_road.pool(connect_args={"init_command": "SET @b = 3"})
    for _ in range(2):
        with pool.connection() as conn:
            assert [(None, 3)] == ask(conn, "SELECT @a, @b")
            ask(conn, "SET @a = 1, @b = 4")


def test_behind_a_pooling_proxy_a_rollback_is_all(polled_road: Road) -> None:
    """Where another server answers than the one that greeted, no word about sessions is trusted, and none is reset."""
    kind = type(polled_road.adapter())
    elsewhere = type("Elsewhere", (kind,), {"thread_of": lambda *_: 0})
    with millpond.Pool(elsewhere(connect_args=polled_road.arguments()), max_size=1) as pool:
        assert ["QUERY", "QUERY"] == counted(polled_road, pool, READ)
        assert "ROLLBACK" == polled_road.proxy.commands[-1].text
        assert "a proxy stands between" in pool.stats().reset


def test_the_way_of_resetting_is_told(road: Road) -> None:
    """Statistics say by which means sessions are made as good as new."""
    pool = road.pool()
    with pool.connection() as conn:
        ask(conn, "SELECT 1")
    assert "COM_RESET_CONNECTION" in pool.stats().reset
