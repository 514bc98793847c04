"""With PyMySQL's private parts hidden: nothing is left behind, and what died is not handed out, by public means alone.

There are no resets then, so every kind of dirt costs the connection.  The contract with hidden parts is in
``test_pymysql_contract.py``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import millpond
from millpond.drivers.pymysql import PyMySQLDriver
from millpond.testing import ScratchServer
from tests.live.asking import ask

from .bare import Bare
from .dirt import CHANGES, MAY_FAIL, SPOILT, run, seen_of
from .test_alive import first_of
from .test_pymysql_contract import PlainDriver
from .ways import TABLE, Way


def hidden(way: Way, **settings: Any) -> millpond.Pool[Any]:
    """Return a pool of one connection whose adapter knows public names only."""
    return way.pool(driver_class=PlainDriver, **settings)


@pytest.mark.parametrize("what", SPOILT)
def test_the_next_borrower_sees_a_new_session(spoilable: Way, what: str) -> None:
    """Whatever the first borrower did, the next sees what a new connection sees."""
    spoil, look = SPOILT[what]
    pool = hidden(spoilable, connect_args={"write_timeout": 20, "read_timeout": 20})
    with pool.connection() as conn:
        first = conn.thread_id()
        done = run(conn, spoil, spoilable)
    assert what in MAY_FAIL or not [number for number in done if isinstance(number, int)], done
    with pool.connection() as conn:
        if first != conn.thread_id():  # it was said goodbye to, and its locks end when the server has heard it
            spoilable.wait_for_end_of(first)
        seen = run(conn, look, spoilable)
        conn.rollback()
    new = spoilable.raw()
    ask(new, f"DELETE FROM {TABLE} WHERE a IN (3, 4, 5, 6)")
    assert run(new, look, spoilable) == seen


@pytest.mark.parametrize("what", CHANGES)
def test_what_is_done_with_the_driver_object_is_undone(plain_way: Way, what: str) -> None:
    """Settings changed by methods and attributes of the connection are as at first for the next borrower."""
    pool = hidden(plain_way)
    with pool.connection() as conn:
        at_first = seen_of(conn)
        CHANGES[what](conn)
    with pool.connection() as conn:
        assert at_first == seen_of(conn)


def test_reads_and_their_transactions_keep_the_connection(way: Way) -> None:
    """What is proved to be harmless by its text is rolled back, and not replaced."""
    pool = hidden(way, connect_args={"autocommit": False})
    seen = {first_of(pool)[0] for _ in range(5)}
    assert (1, 1) == (len(seen), pool.stats().opened)


@pytest.mark.parametrize("kind", ["plain", "bare"])
def test_what_was_killed_while_idle_is_not_handed_out(way: Way, kind: str) -> None:
    """Where no descriptor can be polled a connection is pinged, by its age."""
    arguments = way.arguments()
    if kind == "bare":
        pool = millpond.Pool(PyMySQLDriver(lambda: Bare(**arguments)), max_size=1, check_after=0.0)
        way.closing.callback(pool.close, 0)
    else:
        pool = hidden(way, check_after=0.0)
    for _ in range(2):
        killed, _rows = first_of(pool)
        way.kill(killed)
        again, rows = first_of(pool)
        assert (True, [(1,)]) == (again != killed, rows)


def test_a_server_that_is_restarted(start_server: Callable[..., ScratchServer]) -> None:
    """After a shutdown the idle connections are replaced."""
    server = start_server("mariadb", tls=True)
    adapter = PlainDriver(connect_args=server.connect_args())
    with millpond.Pool(adapter, max_size=2, timeout=30) as pool:
        with pool.connection() as one, pool.connection() as two:
            assert [[(1,)], [(1,)]] == [ask(one, "SELECT 1"), ask(two, "SELECT 1")]
        server.restart()
        with pool.connection() as one, pool.connection() as two:
            assert [[(1,)], [(1,)]] == [ask(one, "SELECT 1"), ask(two, "SELECT 1")]
