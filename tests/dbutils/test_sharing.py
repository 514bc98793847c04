"""Who waits for a share goes on when there is one, or room for one, whatever became of those before him."""

from __future__ import annotations

import functools
import importlib.metadata
from typing import Any

import pytest

from millpond.dbutils._sharing import Sharing
from millpond.dbutils.pooled_db import PooledDB, PooledSharedDBConnection, TooManyConnectionsError
from tests.garbage import collect
from tests.threads.doubles import until
from tests.threads.striking import SignalAt, SignalAtLook, strike

from .fakes import module
from .waiting import in_threads, joined


@pytest.fixture(autouse=True)
def _no_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have no package that brings an adapter: to look for them takes longer than all else that a pool does here."""
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda **_: ())


def waiting_for_room(got: list[Any]) -> tuple[Any, Any, list[Any]]:
    """Return a connection in a shared transaction, the only other, and a thread that waits for either of the two."""
    pool = PooledDB(module(threadsafety=2), maxshared=2, maxconnections=2, blocking=True)
    shared: Any = pool.connection()
    shared.begin()
    other: Any = pool.dedicated_connection()
    threads = in_threads(1, lambda: got.append(pool.connection()))
    until(lambda: pool._sharing._waiting, "somebody who waits")
    return shared, other, threads


def test_a_connection_that_goes_back_wakes_who_waits_for_a_share() -> None:
    """It was nobody's to share before; the transaction that keeps the other from being shared goes on."""
    got: list[Any] = []
    shared, other, threads = waiting_for_room(got)
    behind = other._con
    other.close()
    assert joined(threads)
    assert behind is got[0]._con
    assert shared._con is not behind


def test_a_connection_that_is_dropped_is_seen_by_who_waits_for_a_share() -> None:
    """Nobody tells him: its holder went in a cycle that only the collector sees."""
    got: list[Any] = []
    shared, other, threads = waiting_for_room(got)
    other._cycle = other
    del other
    collect()
    assert joined(threads)
    assert shared._con is not got[0]._con


def test_those_who_come_while_one_queues_share_what_he_gets() -> None:
    """Only one connection comes back, the other stays with who has it."""
    pool: Any = PooledDB(module(threadsafety=2), maxshared=2, maxconnections=2, blocking=True)
    kept, other = pool.dedicated_connection(), pool.dedicated_connection()
    got: list[Any] = []
    threads = in_threads(3, lambda: got.append(pool.connection()))
    until(lambda: pool.stats().waiting == 1 and len(pool._sharing._waiting) == 2, "one who queues, and two who wait")
    other.close()
    assert joined(threads)
    assert [3] == [shared.shared for shared in pool._shared_cache]
    assert kept._con not in [share._con for share in got]


def test_whoever_waits_for_one_who_queues_is_refused_in_his_own_time() -> None:
    """Both are told that nothing has come back; the second does not begin to wait anew when the first is told."""
    pool: Any = PooledDB(module(threadsafety=2), maxshared=1, maxconnections=1, blocking=0.2)
    kept = pool.dedicated_connection()
    told: list[str] = []

    def ask() -> None:
        with pytest.raises(TooManyConnectionsError) as refused:
            pool.connection()
        told.append(str(refused.value))

    assert joined(in_threads(2, ask))
    assert 2 == len(told)
    assert not any(text.startswith("all 0 ") for text in told)
    assert (1, 0) == (pool._connections, len(pool._sharing._waiting))
    kept.close()
    assert pool.connection() is not None


def take_into(got: list[Any], pool: Any) -> None:
    """Take a connection."""
    got.append(pool.connection())


@pytest.mark.parametrize("function", [Sharing._look, Sharing._choose, Sharing._fetch, Sharing._decide_alone])
def test_a_signal_while_one_is_served_leaves_the_next_to_be_served(function: Any) -> None:
    """Whoever was about to get a connection does not get it: nobody waits for him."""
    raised = 0
    for offset in sorted(SignalAtLook.looks[function.__code__]):
        pool = PooledDB(module(threadsafety=2), maxshared=1, blocking=True)
        raised += strike(SignalAt(function.__code__, offset), pool.connection)
        got: list[Any] = []
        assert joined(in_threads(1, functools.partial(take_into, got, pool))), f"at {offset}"
        got[0].close()
    assert raised, "no signal has struck"


@pytest.mark.parametrize(
    "function",
    [PooledDB._shared, Sharing._look, Sharing._decide, Sharing._tidy_up, PooledSharedDBConnection.close],
    ids=lambda function: function.__qualname__,
)
def test_a_signal_while_a_connection_is_shared_keeps_no_share_of_it(function: Any) -> None:
    """Whoever was struck has it no more: when the others have given theirs back, the connection goes back."""
    raised = 0
    for offset in sorted(SignalAtLook.looks[function.__code__]):
        pool = PooledDB(module(threadsafety=2), maxshared=1, maxconnections=1, blocking=True)
        first: Any = pool.connection()
        raised += strike(SignalAt(function.__code__, offset), functools.partial(share_and_give_back, pool))
        first.close()
        assert joined(in_threads(1, functools.partial(share_and_give_back, pool))), f"at {offset}"
        assert [] == pool._shared_cache, f"at {offset}"
    assert raised, "no signal has struck"


def share_and_give_back(pool: Any) -> None:
    """Take a connection, and give it back."""
    pool.connection().close()
