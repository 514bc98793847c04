"""Nothing extra on the wire: commands and waits of a checkout, a statement and a return, counted between the two."""

from __future__ import annotations

from typing import Any

import pytest

import millpond
from tests.live.asking import ask

from .ways import TABLE, Way

READ = f"SELECT b FROM {TABLE} WHERE a = 1"
CYCLES = 50


def cycle(pool: millpond.Pool[Any], *statements: str) -> list[Any]:
    """Take a connection, run statements, give it back; return the last one's rows."""
    rows: list[Any] = []
    with pool.connection() as conn:
        for statement in statements:
            rows = ask(conn, statement)
    return rows


def commands_of(way: Way) -> list[str]:
    """Return what was sent, named by its first word."""
    return [(command.text.partition(" ")[0] or command.name) for command in way.proxy.commands]


def warm(way: Way, pool: millpond.Pool[Any]) -> None:
    """Open the pool's connection, leave nothing outstanding in it, and begin to count."""
    cycle(pool, READ)
    with pool.connection() as conn:
        conn.rollback()
    way.proxy.reset_counts()


def test_a_clean_cycle_is_one_command_and_one_wait(way: Way) -> None:
    """With autocommit on, fifty cycles with a SELECT from a table are fifty waits, and fifty commands."""
    pool = way.pool()
    warm(way, pool)
    for _ in range(CYCLES):
        assert [(1,)] == cycle(pool, READ)
    assert CYCLES == way.proxy.waits
    if not way.tls:  # under TLS commands cannot be read
        assert ["SELECT"] * CYCLES == commands_of(way)


def test_without_a_transaction_autocommit_off_costs_no_more(plain_way: Way) -> None:
    """With autocommit off, statements that open no transaction are one command and one wait a cycle."""
    pool = plain_way.pool(connect_args={"autocommit": False})
    warm(plain_way, pool)
    for _ in range(CYCLES):
        assert [(1,)] == cycle(pool, "SELECT 1")
    assert (["SELECT"] * CYCLES, CYCLES) == (commands_of(plain_way), plain_way.proxy.waits)


def test_a_transaction_that_its_borrower_ended_costs_no_more(plain_way: Way) -> None:
    """A borrower's own BEGIN, write and COMMIT are three commands, and the pool adds none."""
    pool = plain_way.pool()
    warm(plain_way, pool)
    cycle(pool, "BEGIN", f"UPDATE {TABLE} SET b = b + 1", "COMMIT")
    cycle(pool, READ)
    assert ["BEGIN", "UPDATE", "COMMIT", "SELECT"] == commands_of(plain_way)


def test_a_transaction_left_open_costs_a_command_and_no_wait(way: Way) -> None:
    """With autocommit off a SELECT opens a transaction: its ROLLBACK goes out at return, and nobody waits for it."""
    pool = way.pool(connect_args={"autocommit": False})
    warm(way, pool)
    way.proxy.latency = 0.004
    for _ in range(CYCLES):
        assert [(1,)] == cycle(pool, READ)
    way.proxy.wait_for(lambda: way.proxy.waits >= CYCLES)
    # Who comes so late, on a busy machine, that the ROLLBACK was answered counts twice, as all would who waited for it.
    assert CYCLES * 3 // 2 > way.proxy.waits
    if not way.tls:
        assert ["SELECT", "ROLLBACK"] * CYCLES == commands_of(way)


def test_a_dirty_session_is_cleaned_in_one_write_and_one_wait(plain_way: Way) -> None:
    """What the reset needs goes out together at return; the next borrower finds it answered."""
    pool = plain_way.pool(connect_args={"time_zone": "+02:00"})
    warm(plain_way, pool)
    plain_way.proxy.latency = 0.005
    cycle(pool, "SET @a = 1")
    plain_way.proxy.wait_for(lambda: plain_way.proxy.waits == 2)
    assert ["SET", "COM_RESET_CONNECTION", "SET", "SET", "scratch"] == commands_of(plain_way)
    assert [(None, "+02:00", 1)] == cycle(pool, "SELECT @a, @@time_zone, @@autocommit")


def test_the_set_up_is_one_write_and_one_wait(plain_way: Way) -> None:
    """After the handshake a new connection costs one wait, whatever it is told; the second asks no questions."""
    pool = plain_way.pool(
        max_size=2,
        connect_args={"time_zone": "+02:00", "sql_mode": "ANSI", "init_command": "SET @init = 1", "autocommit": False},
        on_connect=["SET @mine = 1", "SET @mine = 2"],
    )
    with pool.connection():
        plain_way.proxy.reset_counts()
        plain_way.proxy.latency = 0.005
        with pool.connection() as second:
            names = commands_of(plain_way)
            waits = plain_way.proxy.waits
            seen = ask(second, "SELECT @@time_zone, @@sql_mode LIKE '%ANSI%', @@autocommit, @init, @mine")
    assert [("+02:00", 1, 0, 1, 2)] == seen
    assert ["SET"] * 4 == names
    assert 2 == waits  # the credentials and the set-up; the greeting comes unasked


def test_every_reset_restores_what_the_set_up_set(plain_way: Way) -> None:
    """Charset, collation, autocommit, schema, time zone, sql_mode, init_command and on_connect are as at first."""
    settings = {
        "charset": "utf8mb4",
        "collation": "utf8mb4_unicode_ci",
        "autocommit": False,
        "time_zone": "+02:00",
        "sql_mode": "ANSI",
        "init_command": "SET @init = 1",
    }
    pool = plain_way.pool(connect_args=settings, on_connect="SET @mine = 2")
    looks = (
        "SELECT @@character_set_client, @@collation_connection, @@autocommit, DATABASE(), @@time_zone, @@sql_mode, "
        "@init, @mine, @other, CURRENT_ROLE(), @@session_track_state_change"
    )
    at_first = cycle(pool, looks)
    spoil = "SET autocommit = 1, time_zone = '+05:00', sql_mode = '', @init = 9, @mine = 9, @other = 1"
    for _ in range(3):
        cycle(pool, "SET NAMES latin1", spoil, "USE information_schema")
        assert at_first == cycle(pool, looks)
    assert 1 == pool.stats().opened


def test_pipelines_can_be_switched_off(plain_way: Way) -> None:
    """With write_ahead=False every command waits for the answer to the one before."""
    pool = plain_way.pool(connect_args={"write_ahead": False, "autocommit": False})
    warm(plain_way, pool)
    plain_way.proxy.latency = 0.001
    cycle(pool, READ)
    cycle(pool, "SET @a = 1")
    sent = commands_of(plain_way)
    assert ["SELECT", "ROLLBACK", "SET", "COM_RESET_CONNECTION", "SET", "SET", "scratch"] == sent
    assert len(sent) == plain_way.proxy.waits
    assert [(None,)] == cycle(pool, "SELECT @a")


@pytest.mark.parametrize(
    ("statement", "resets"),
    [
        (READ, False),
        (f"SELECT COUNT(*), MAX(b) FROM {TABLE} WHERE a IN (1, 2)", False),
        (f"INSERT INTO {TABLE} VALUES (7, 'seven' = 'eight')", False),
        (f"UPDATE {TABLE} SET b = 2 WHERE a = 1", False),
        (f"DELETE FROM {TABLE} WHERE a = 99", False),
        ("BEGIN", False),
        ("COMMIT", False),
        ("ROLLBACK", False),
        ("START TRANSACTION READ ONLY", False),
        ("SELECT @a := 1", True),
        ("SELECT 1 INTO @b", True),
        ("DO 1", True),
        ("SET @a = 1", True),
        (f"CHECK TABLE {TABLE}", True),
        ("SELECT GET_LOCK('wire', 0)", True),
        ("CREATE TEMPORARY TABLE wire_t (a INT)", True),
        ("PREPARE s FROM 'SELECT 1'", True),
        ("SELECT 1 /*!50000 , 2 */", True),
    ],
)
def test_the_allow_list(plain_way: Way, statement: str, resets: bool) -> None:
    """Plain reads, writes and transactions send no reset at return; everything else does."""
    pool = plain_way.pool()
    warm(plain_way, pool)
    cycle(pool, statement)
    cycle(pool, "SELECT 1")
    assert resets == ("COM_RESET_CONNECTION" in commands_of(plain_way))
