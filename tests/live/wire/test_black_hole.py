"""A link that swallows what is sent while a statement runs on it, in either direction."""

from __future__ import annotations

import threading
import time
from typing import Any

import pymysql
import pytest

import millpond
from tests.live.asking import answer, ask, wait_until

from .test_alive import SLACK_S, first_of
from .ways import TABLE, Way

PATIENCE_S = 1.0  # as a time-out: an answer that is on its way is there sooner, on a slow machine too


def swallow(way: Way, direction: str) -> None:
    """Have the link swallow what goes in a direction."""
    if direction == "to the server":
        way.proxy.to_server.black_hole = True
    else:
        way.proxy.to_client.black_hole = True


def test_read_timeout_ends_a_statement_that_does_not_arrive(plain_way: Way) -> None:
    """Its caller is told after that time, its connection is replaced, and the next borrower works."""
    assert_ended_in_time(plain_way, "to the server")


def test_read_timeout_ends_a_statement_that_is_not_answered(tls_way: Way) -> None:
    """The same where the server has done it."""
    assert_ended_in_time(tls_way, "to the client")


def assert_ended_in_time(way: Way, direction: str) -> None:
    """A statement on a link that swallows costs ``read_timeout``."""
    pool = way.pool(connect_args={"read_timeout": PATIENCE_S})
    with pool.connection() as conn:
        first = conn.thread_id()
        swallow(way, direction)
        began_at = time.monotonic()
        assert 2013 == answer(conn, f"SELECT b FROM {TABLE}")
        took_s = time.monotonic() - began_at
        way.proxy.heal()
    again, rows = first_of(pool)
    assert (True, [(1,)]) == (again != first, rows)
    assert PATIENCE_S <= took_s < PATIENCE_S + SLACK_S


def test_a_helper_s_timeout_ends_it_too(plain_way: Way) -> None:
    """A statement's own ``timeout=`` is the server's first, and ends by cutting the link where no answer comes."""
    way = plain_way
    pool = way.pool()
    with millpond.Database(pool) as db:
        assert 1 == db.select_value(f"SELECT b FROM {TABLE}")
        way.proxy.to_client.black_hole = True
        began_at = time.monotonic()
        with pytest.raises((millpond.StatementTimeout, millpond.ServerGone)):
            db.select_value(f"SELECT b FROM {TABLE}", timeout=0.3)
        took_s = time.monotonic() - began_at
        way.proxy.heal()
        assert 1 == db.select_value(f"SELECT b FROM {TABLE}")
    assert took_s < 0.3 + SLACK_S


@pytest.mark.parametrize("direction", ["to the server", "to the client"])
def test_without_a_time_out_closing_the_pool_ends_it(plain_way: Way, direction: str) -> None:
    """Who has set no time-out waits as long as the driver does; a pool that is closed cuts the link under it."""
    pool = plain_way.pool()
    told: list[Any] = []
    lease = pool.connection()
    ask(lease, "SELECT 1")
    swallow(plain_way, direction)

    def wait() -> None:
        try:
            ask(lease, f"SELECT b FROM {TABLE}")
        except pymysql.err.OperationalError as error:
            told.append(error.args[0])

    waiter = threading.Thread(target=wait)
    waiter.start()
    session: Any = lease._millpond
    wait_until(lambda: session.holder)
    pool.close(0)
    waiter.join(10)
    assert told in ([2006], [2013])  # the second if it had been sent already


def test_others_are_asked_after_a_statement_was_not_answered(plain_way: Way) -> None:
    """A link that gave no answer makes the idle ones suspect: they are pinged before they are handed out."""
    pool = plain_way.pool(max_size=2, connect_args={"read_timeout": PATIENCE_S})
    with pool.connection() as one, pool.connection() as two:
        other = two.thread_id()
        ask(two, "SELECT 1")
        two.close()
        plain_way.proxy.to_client.black_hole = True
        assert 2013 == answer(one, "SELECT 1")
        plain_way.proxy.heal()
    plain_way.proxy.reset_counts()
    assert other == first_of(pool)[0]
    assert "COM_PING" == plain_way.proxy.commands[0].name
