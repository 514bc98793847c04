"""What DBUtils loses by its lock, its hangs and its counts, with DBUtils as the control; on a driver nobody knows.

Each test runs twice, on DBUtils and on the drop-in, and says what either does.
"""

from __future__ import annotations

import functools
import importlib
import threading
from types import ModuleType
from typing import Any

import pytest

from millpond.dbutils.pooled_db import InvalidConnectionError, PooledDB, TooManyConnectionsError

from .fakes import DEADLINE_S, module
from .waiting import in_threads, joined

SHOWN_S = 0.3  # a hang is shown by waiting so long


def test_threads_connect_at_the_same_time(pooled: ModuleType, fakedb: Any, is_ours: bool) -> None:
    """DBUtils connects for one thread after another (A1)."""
    gate = fakedb.gates["connect"]
    gate.close()
    pool = pooled.PooledDB(fakedb)
    held: list[Any] = []
    threads = in_threads(5, lambda: held.append(pool.connection()))
    assert is_ours == gate.await_inside(5, DEADLINE_S if is_ours else SHOWN_S)
    gate.open()
    assert joined(threads)
    assert (5 if is_ours else 1) == gate.most_inside


def test_a_return_does_not_wait_for_a_connect(pooled: ModuleType, fakedb: Any, is_ours: bool) -> None:
    """DBUtils makes a return wait while another thread connects (A2)."""
    pool = pooled.PooledDB(fakedb)
    mine = pool.connection()
    gate = fakedb.gates["connect"]
    gate.close()
    connecting = in_threads(1, pool.connection)
    assert gate.await_inside(1)
    returning = in_threads(1, mine.close)
    assert is_ours == joined(returning, DEADLINE_S if is_ours else SHOWN_S)
    gate.open()
    assert joined([*connecting, *returning])


def test_idle_connections_are_pinged_at_the_same_time(pooled: ModuleType, fakedb: Any, is_ours: bool) -> None:
    """DBUtils pings one after another (A3)."""
    pool = pooled.PooledDB(fakedb, mincached=3)
    gate = fakedb.gates["ping"]
    gate.close()
    held: list[Any] = []
    threads = in_threads(3, lambda: held.append(pool.connection()))
    assert is_ours == gate.await_inside(3, DEADLINE_S if is_ours else SHOWN_S)
    gate.open()
    assert joined(threads)


def test_a_return_does_not_wait_for_the_rollback_of_another(pooled: ModuleType, fakedb: Any, is_ours: bool) -> None:
    """DBUtils rolls back under its lock, also on behalf of those who only want a connection."""
    pool = pooled.PooledDB(fakedb, maxconnections=5)
    first, second = pool.connection(), pool.connection()
    gate = fakedb.gates["rollback"]
    gate.close()
    threads = [*in_threads(1, first.close), *in_threads(1, second.close)]
    assert is_ours == gate.await_inside(2, DEADLINE_S if is_ours else SHOWN_S)
    gate.open()
    assert joined(threads)


def test_surplus_connections_are_closed_outside_of_the_lock(pooled: ModuleType, fakedb: Any, is_ours: bool) -> None:
    """DBUtils closes what is too many under its lock."""
    pool = pooled.PooledDB(fakedb, maxcached=1)
    first, second, third = pool.connection(), pool.connection(), pool.connection()
    first.close()
    gate = fakedb.gates["close"]
    gate.close()
    threads = [*in_threads(1, second.close)]
    assert gate.await_inside(1)
    threads += in_threads(1, third.close)
    pooled_again = in_threads(1, pool.connection)
    assert is_ours == joined(pooled_again, DEADLINE_S if is_ours else SHOWN_S)
    gate.open()
    assert joined([*threads, *pooled_again])


def test_closing_twice_at_once_gives_back_once(pooled: ModuleType, fakedb: Any, is_ours: bool) -> None:
    """DBUtils puts a connection that two threads close at once into the pool twice (E)."""
    pool = pooled.PooledDB(fakedb, maxconnections=2)
    mine = pool.connection()
    gate = fakedb.gates["rollback"]
    gate.close()
    threads = in_threads(2, mine.close)
    assert gate.await_inside(1)
    if is_ours:  # the other has nothing to do, and is done
        assert any(not joined([thread], SHOWN_S) for thread in threads)
    gate.open()
    assert joined(threads)
    assert (0, 1) == (pool._connections, len(pool._idle_cache)) if is_ours else (-1, 2)
    assert (1 if is_ours else 2) == len(pool._idle_cache)
    first, second = pool.connection(), pool.connection()
    assert is_ours == (first._con is not second._con)


def test_a_cursor_keeps_its_connection(pooled: ModuleType, fakedb: Any, is_ours: bool) -> None:
    """DBUtils gives a connection back while a cursor of it is in use (F1)."""
    pool = pooled.PooledDB(fakedb)
    cursor = pool.connection().cursor()
    other = pool.connection()
    assert is_ours == (cursor._con is not other._con)
    cursor.close()
    assert (1 if is_ours else 0) == len(pool._idle_cache)


def test_a_cursor_sends_nothing_once_its_connection_was_given_back(
    pooled: ModuleType, fakedb: Any, is_ours: bool
) -> None:
    """DBUtils runs it on a connection that is somebody else's (F2)."""
    pool = pooled.PooledDB(fakedb)
    mine = pool.connection()
    cursor = mine.cursor()
    mine.close()
    theirs = pool.connection()
    if is_ours:
        with pytest.raises(fakedb.InterfaceError, match=r"given back at .*test_locking.py:\d+"):
            cursor.execute("INSERT mine")
        assert cursor.fetchone() is not None  # what it has already may be read
    else:
        cursor.execute("INSERT mine")
    assert (not is_ours) == ("INSERT mine" in theirs._con._con.log)


def test_more_first_connections_than_allowed_do_not_hang(fakedb: Any) -> None:
    """DBUtils hangs in its constructor with blocking=True, or refuses itself (C2, C3)."""
    with pytest.warns(UserWarning, match="mincached=5 is more than maxconnections=2"):
        pool = PooledDB(fakedb, mincached=5, maxconnections=2, blocking=True)
    assert 2 == len(pool._idle_cache)


def test_dbutils_hangs_in_its_constructor(fakedb: Any) -> None:
    """The control of the test above."""
    original = importlib.import_module("dbutils.pooled_db")
    threads = in_threads(1, lambda: original.PooledDB(fakedb, mincached=5, maxconnections=2, blocking=True))
    assert not joined(threads, SHOWN_S)
    with pytest.raises(original.TooManyConnectionsError):
        original.PooledDB(fakedb, mincached=5, maxconnections=2)


def test_none_is_no_limit_for_what_is_shared(pooled: ModuleType, fakedb: Any, is_ours: bool) -> None:
    """DBUtils documents maxshared=None, and raises a TypeError (C4)."""
    fakedb.threadsafety = 2
    if is_ours:
        assert pooled.PooledDB(fakedb, maxshared=None, maxconnections=5).connection() is not None
    else:
        with pytest.raises(TypeError):
            pooled.PooledDB(fakedb, maxshared=None, maxconnections=5)


def test_what_cannot_be_shared_does_not_raise_the_limit(pooled: ModuleType, fakedb: Any, is_ours: bool) -> None:
    """DBUtils lets maxshared=50 make 50 of a limit of 10, also where nothing is ever shared (C5)."""
    pool = pooled.PooledDB(fakedb, maxshared=50, maxconnections=10)
    assert (10 if is_ours else 50) == pool._maxconnections


def test_a_caller_waits_so_many_seconds(fakedb: Any) -> None:
    """DBUtils knows only for ever (C1); the error says who holds what."""
    pool = PooledDB(fakedb, maxconnections=1, blocking=0.05)
    held = pool.connection()
    with pytest.raises(TooManyConnectionsError, match=r"test_locking.py:\d+ in test_a_caller_waits"):
        pool.connection()
    held.close()
    assert pool.connection() is not None


def test_a_thread_does_not_wait_for_itself(fakedb: Any) -> None:
    """DBUtils lets the only thread wait for ever for what it holds (C6)."""
    import subprocess
    import sys

    program = (
        "import sqlite3; from millpond.dbutils.pooled_db import *\n"
        "pool = PooledDB(sqlite3, maxconnections=1, blocking=True, database=':memory:')\n"
        "held = pool.connection()\n"
        "try: pool.connection()\n"
        "except TooManyConnectionsError as error: print(error)\n"
    )
    said = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=DEADLINE_S, check=True
    ).stdout
    assert "this thread holds all 1 connections" in said


def test_waiting_callers_are_served_in_their_order(fakedb: Any) -> None:
    """In DBUtils a new caller may overtake those who wait."""
    pool = PooledDB(fakedb, maxconnections=1, blocking=True)
    held = pool.connection()
    served: list[int] = []
    done = threading.Semaphore(0)

    def work(number: int) -> None:
        with pool.connection():
            served.append(number)
        done.release()

    threads: list[threading.Thread] = []
    for number in range(4):
        threads += in_threads(1, functools.partial(work, number))
        while pool.stats().waiting <= number:
            assert not done.acquire(timeout=0.001)
    held.close()
    assert joined(threads)
    assert [0, 1, 2, 3] == served


def test_a_closed_pool_closes_what_comes_back(pooled: ModuleType, fakedb: Any, is_ours: bool) -> None:
    """DBUtils keeps connections that come back after close() open, and hands out more (D1)."""
    pool = pooled.PooledDB(fakedb)
    mine = pool.connection()
    pool.close()
    mine.close()
    if not is_ours:
        assert 1 == len(pool._idle_cache)
        assert pool.connection() is not None
        return
    with pytest.raises(InvalidConnectionError, match="closed"):
        pool.connection()
    assert [] == pool._idle_cache
    assert fakedb.gates["close"].await_calls(1)


def test_the_count_survives_closing_with_shared_connections_out(pooled: ModuleType, is_ours: bool) -> None:
    """DBUtils counts a shared connection twice out of its books, and then allows one too many (D2)."""
    fakedb = module(threadsafety=2)
    pool = pooled.PooledDB(fakedb, maxshared=1, maxconnections=1)
    mine = pool.connection()
    pool.close()
    mine.close()
    assert (0 if is_ours else -1) == pool._connections


def test_an_interrupt_during_the_return_loses_no_room(pooled: ModuleType, fakedb: Any, is_ours: bool) -> None:
    """DBUtils loses a place for ever if a rollback at return is interrupted (O)."""
    pool = pooled.PooledDB(fakedb, maxconnections=1)
    mine = pool.connection()

    def interrupt() -> None:
        fakedb.gates["rollback"].before = None
        raise KeyboardInterrupt

    fakedb.gates["rollback"].before = interrupt
    with pytest.raises(KeyboardInterrupt):
        mine.close()
    assert (0 if is_ours else 1) == pool._connections
    if is_ours:
        assert pool.connection() is not None


def test_the_end_of_a_shared_transaction_wakes_who_waits(pooled: ModuleType, is_ours: bool) -> None:
    """In DBUtils a commit wakes nobody: only some close() does (N3)."""
    fakedb = module(threadsafety=2)
    pool = pooled.PooledDB(fakedb, maxshared=1, blocking=True)
    mine = pool.connection()
    mine.begin()
    got: list[Any] = []
    threads = in_threads(1, lambda: got.append(pool.connection()))
    assert not joined(threads, SHOWN_S)
    mine.commit()
    assert is_ours == joined(threads, DEADLINE_S if is_ours else SHOWN_S)
    pool.dedicated_connection().close()
    assert joined(threads)


def test_a_caller_shares_what_another_is_connecting() -> None:
    """Without blocking too: the first connection is on its way, and nobody is told that there is none."""
    fakedb = module(threadsafety=2)
    pool = PooledDB(fakedb, maxshared=1)
    gate = fakedb.gates["connect"]
    gate.close()
    got: list[Any] = []
    threads = in_threads(3, lambda: got.append(pool.connection()))
    assert gate.await_inside(1)
    assert not joined(threads, SHOWN_S)
    gate.open()
    assert joined(threads)
    assert (3, 1, 1) == (pool._shared_cache[0].shared, gate.calls, len({id(db._con) for db in got}))


def test_attributes_that_are_set_reach_the_driver(pooled: ModuleType, fakedb: Any, is_ours: bool) -> None:
    """DBUtils keeps them on its proxies (L); here the next borrower has them as they were."""
    pool = pooled.PooledDB(fakedb)
    mine = pool.connection()
    mine.call_timeout = 5
    cursor = mine.cursor()
    cursor.arraysize = 500
    assert is_ours == hasattr(mine._con._con, "call_timeout")
    assert (500 if is_ours else 1) == cursor._cursor.arraysize
    mine.close()
    assert not hasattr(pool.connection()._con._con, "call_timeout")


def test_errors_of_the_pool_are_the_driver_s_too(pooled: ModuleType, fakedb: Any, is_ours: bool) -> None:
    """DBUtils' errors derive from nothing and say nothing (M)."""
    pool = pooled.PooledDB(fakedb, maxconnections=1)
    mine = pool.connection()
    with pytest.raises(pooled.TooManyConnectionsError) as caught:
        pool.connection()
    assert is_ours == isinstance(caught.value, fakedb.OperationalError)
    assert is_ours == ("pool exhausted" in str(caught.value))
    mine.close()
    with pytest.raises(pooled.InvalidConnectionError) as returned:
        mine.cursor()
    assert is_ours == isinstance(returned.value, fakedb.InterfaceError)


def test_a_dead_connection_is_not_replaced_at_its_return(pooled: ModuleType, fakedb: Any, is_ours: bool) -> None:
    """DBUtils opens a new one under its lock, just to put it into the pool (N8)."""
    pool = pooled.PooledDB(fakedb)
    mine = pool.connection()
    mine._con._con.alive = False
    mine.close()
    assert (1 if is_ours else 2) == fakedb.gates["connect"].calls


def test_a_burst_counts_right_from_many_threads(fakedb: Any) -> None:
    """The books are right after many threads have taken, given back, closed twice and dropped."""
    pool = PooledDB(fakedb, maxconnections=4, maxcached=2, blocking=True)

    def work() -> None:
        for number in range(50):
            mine = pool.connection()
            mine.cursor().execute(f"SELECT {number}")
            if number % 3:
                mine.close()
            mine.close()
            del mine

    assert joined(in_threads(8, work), 60.0)
    assert 0 == pool._connections
    assert len(pool._idle_cache) <= 2
    assert len({id(con) for con in pool._idle_cache}) == len(pool._idle_cache)
