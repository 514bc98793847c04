"""Each way of resetting does what it says, and what it falls back to is never less."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from typing import Any

import pytest

import millpond
from tests.live.asking import answer, ask

from .roads import TABLE, Road, thread_of
from .test_nothing_left import DIRT, seen, wait_until_free

HARMLESS = (
    "SELECT 1",
    f"SELECT a, b FROM {TABLE}",
    f"UPDATE {TABLE} SET b = b",
    "BEGIN",
    "COMMIT",
    "ROLLBACK",
    f"SELECT COUNT(*), MAX(b) FROM {TABLE} WHERE a > 0",
)
SEQUENCES = 60


def test_random_sequences_leave_nothing_behind(road: Road) -> None:
    """Whatever statements come in whatever order, the next borrower sees a new session; the seed is in the message."""
    seed = random.randrange(1 << 32)
    chance = random.Random(seed)
    dirt = [statement for statements in DIRT.values() for statement in statements]
    pool = road.pool()
    with pool.connection() as conn:
        new = seen(road, conn)[:-1]  # but for the table's rows, which stay where they were committed
    for _ in range(SEQUENCES):
        statements = [chance.choice(HARMLESS if chance.random() < 0.6 else dirt) for _ in range(chance.randint(1, 5))]
        with pool.connection() as conn:
            for statement in statements:
                answer(conn, statement)
        with pool.connection() as conn:
            assert new == seen(road, conn)[:-1], f"seed {seed}: {statements}"
    wait_until_free(road)


@pytest.mark.parametrize("reset", ["always", "rollback"])
def test_a_reset_by_name_does_what_it_says(road: Road, reset: str) -> None:
    """Always resets whatever was done, rollback rolls back and leaves the rest."""
    pool = road.pool(reset=reset)
    with pool.connection() as conn:
        first = thread_of(conn)
        ask(conn, "SET @a = 1")
        ask(conn, "BEGIN")
        ask(conn, f"INSERT INTO {TABLE} VALUES (2, 2)")
    with pool.connection() as conn:
        assert first == thread_of(conn)
        assert [(None if reset == "always" else 1,)] == ask(conn, "SELECT @a")
        assert [(1, 1)] == ask(conn, f"SELECT a, b FROM {TABLE}")


def test_a_callable_on_connect_is_called_again_after_a_reset(road: Road) -> None:
    """What a callable has set up is there for the next borrower, who sees none of the last one's."""
    called: list[Any] = []

    def furnish(conn: Any) -> None:
        called.append(conn)
        ask(conn, "SET @b = 5")

    pool = road.pool(on_connect=furnish)
    with pool.connection() as conn:
        ask(conn, "SET @a = 1, @b = 2")
    with pool.connection() as conn:
        assert [(None, 5)] == ask(conn, "SELECT @a, @b")
        assert [called[0]] * 2 == called


def test_a_server_that_does_not_track_is_found_out(road: Road) -> None:
    """Where a variable for tracking is not known, writes are dirt, and connections are opened all the same."""
    kind = type(road.adapter())
    untold = {"setting": lambda _, *, tracking: ["SET no_such_variable = 1"] if tracking else []}
    with millpond.Pool(type("Untold", (kind,), untold)(connect_args=road.arguments()), max_size=1) as pool:
        for statement in (f"SELECT a FROM {TABLE}", f"UPDATE {TABLE} SET b = 3"):
            with pool.connection() as conn:
                first = thread_of(conn)
                ask(conn, statement)
        with pool.connection() as conn:
            assert first == thread_of(conn)
        assert "changes are not told" in pool.stats().reset


def test_a_role_that_was_lost_is_told(road: Road) -> None:
    """A server that takes no writes any more is told from an application's own mistake."""
    driver = road.adapter()
    conn = driver.open(deadline())
    root = road.root()
    try:
        assert not driver.has_lost_role(conn, deadline())
        ask(root, "SET GLOBAL read_only = 1")
        assert driver.has_lost_role(conn, deadline())
        assert 1290 == answer(conn, f"INSERT INTO {TABLE} VALUES (8, 8)")
        assert driver.role_suspect(conn)
    finally:
        ask(root, "SET GLOBAL read_only = 0")
        driver.close(conn)


def deadline() -> float:
    """Return an instant that is far enough."""
    return time.monotonic() + 10.0


def test_what_follows_a_result_is_read(road: Road) -> None:
    """A CALL has a result and an end; who reads the first and not the second does not cost the connection."""
    root = road.root()
    ask(root, f"USE {road.server.database}")
    ask(root, "DROP PROCEDURE IF EXISTS gives_a_row")
    ask(root, "CREATE PROCEDURE gives_a_row() SELECT 42")
    pool = road.pool()
    with pool.connection() as conn:
        first = thread_of(conn)
        answer(conn, "CALL gives_a_row()")  # an older mysql-connector-python wants to be told, and leaves it unread
    with pool.connection() as conn:
        assert first == thread_of(conn)
        assert [(1,)] == ask(conn, "SELECT 1")


def test_a_connection_out_of_step_is_not_handed_on(polled_road: Road) -> None:
    """A driver that takes one answer for another's, because results were left, costs the connection."""
    pool = polled_road.pool()
    with pool.connection() as conn:
        for statement in ("SELECT 1; SET @a = 1", "SELECT 2", f"UPDATE {TABLE} SET b = b"):
            answer(conn, statement)
    with pool.connection() as conn:
        assert [("mine",)] == ask(conn, "SELECT 'mine'")


def many(road: Road) -> Sequence[Any]:
    """Return rows to be inserted."""
    return [(number, number) for number in range(100, 160)]


def test_many_rows_are_clean(road: Road) -> None:
    """What executemany makes of many rows is judged like anything else: harmless, and kept."""
    pool = road.pool()
    for _ in range(2):
        with pool.connection() as conn:
            cursor = conn.cursor()
            cursor.executemany(f"REPLACE INTO {TABLE} VALUES (%s, %s)", many(road))
            cursor.close()
    with pool.connection() as conn:
        assert [(61,)] == ask(conn, f"SELECT COUNT(*) FROM {TABLE}")
