"""A program's finalizers give back, end and take connections of the drop-in, in front of every bytecode of its own."""

from __future__ import annotations

import contextlib
import functools
import importlib.metadata
import sqlite3
import threading
import time
import types
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from millpond.dbutils import simple_pooled_db
from millpond.dbutils._sharing import Bell, Share, Sharing, drained
from millpond.dbutils._source import Source
from millpond.dbutils.pooled_db import InvalidConnectionError, PooledDB
from millpond.errors import Error
from tests.finalizing import FinalizerAt, places
from tests.garbage import collect
from tests.threads.doubles import until

from .fakes import module
from .waiting import DEADLINE_S, in_threads, joined

SHARING: tuple[Any, ...] = (
    Sharing.take, Sharing._look, Sharing._line_up, Sharing.give_back, Sharing.changed, Sharing.close, Sharing._decide,
    Sharing._tidy_up, Sharing._has_who_queues, Share.__del__,
    Sharing._see_to_news, Sharing._has_news, Sharing._decide_alone, Sharing._ring, Sharing._take_in,
    Sharing._let_go, Sharing._choose, Sharing._wait, Sharing._fetch, drained, Bell.ring, Bell.wait,
)  # fmt: skip
AT_ONCE = 20  # threads, each of which waits most of its time


@pytest.fixture(autouse=True)
def _no_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have no package that brings an adapter: to look for them takes longer than all else that a pool does here."""
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda **_: ())


class Turn:
    """Threads that share a connection, and what a finalizer does in the middle of it."""

    def __init__(self, code: types.CodeType, offset: int, where: str) -> None:
        self.where = where
        self.pool = PooledDB(module(threadsafety=2), maxshared=1, maxconnections=1, blocking=DEADLINE_S)
        self.mine, self.another = self.pool.connection(), self.pool.connection()
        self.mine.begin()
        self.got: list[Any] = []
        self.at = FinalizerAt(code, offset, self.finalize)
        self.failures: list[BaseException] = []
        self.thread = threading.Thread(target=self.at.traced(self.run), daemon=True)

    def finalize(self) -> None:
        """End the transaction that others wait for, and give back what was shared."""
        self.commit()
        self.another.close()

    def commit(self) -> None:
        """End the transaction, unless its connection was given back meanwhile."""
        with contextlib.suppress(InvalidConnectionError):
            self.mine.commit()

    def run(self) -> None:
        """Wait for the end of the transaction, share the connection, and give it back, all of it in the end."""
        try:
            waited_for = self.pool.connection()
            waited_for.commit()
            self.got.append(waited_for._con)
            for shared in (waited_for, self.mine, self.another):
                shared.close()
            again = self.pool.connection()
            self.pool.close()
            again.close()
        except BaseException as error:  # noqa: BLE001  told of where the test sees it
            self.failures.append(error)

    def let_go(self) -> None:
        """End the transaction, if the finalizer has not run by the time that somebody waits for that."""
        until(lambda: self.at.ran or self.pool._sharing._waiting or not self.thread.is_alive(), "somebody who waits")
        assert joined(in_threads(1, self.at.traced(self.commit))), f"{self.where}: the transaction cannot be ended"


@pytest.mark.parametrize("function", SHARING, ids=lambda function: function.__qualname__)
def test_a_finalizer_anywhere_in_sharing_is_harmless(function: Any) -> None:
    """Nobody waits for himself, nobody is forgotten, and each connection goes back once."""
    turns = [Turn(*place) for place in places(function)]
    for some in (turns[first : first + AT_ONCE] for first in range(0, len(turns), AT_ONCE)):
        for turn in some:
            turn.thread.start()
        for turn in some:
            turn.let_go()
        assert joined([turn.thread for turn in some]), [turn.where for turn in some if turn.thread.is_alive()]
    for turn in turns:
        failures = [*turn.failures, *turn.at.failures]
        assert not failures, f"{turn.where}: {failures[0]!r}"
        assert 1 == len(turn.got), turn.where
        assert ([], 0) == (turn.pool._shared_cache, turn.pool._connections), turn.where
    assert any(turn.at.ran for turn in turns), "no finalizer has run"


def test_what_a_finalizer_must_not_wait_for_is_refused() -> None:
    """It asks for a share in the middle of a decision of its own thread, which cannot go on before it has ended."""
    refused: list[str] = []
    for code, offset, where in places(Sharing._choose):
        pool = PooledDB(module(threadsafety=2), maxshared=1)
        at = FinalizerAt(code, offset, pool.connection)
        got: list[Any] = []
        assert joined(in_threads(1, at.traced(functools.partial(take_into, got, pool)))), where
        assert [Error] * at.ran == [type(failure) for failure in at.failures], where
        refused += map(str, at.failures)
        got[0].close()
        assert 0 == pool._connections, where
    assert len(refused) > 20
    assert "by a finalizer or a signal handler" in refused[0]


def take_into(got: list[Any], pool: Any) -> None:
    """Take a connection."""
    got.append(pool.connection())


def test_a_share_that_is_dropped_wakes_who_waits_for_it() -> None:
    """Its holder was in a transaction, and went in a cycle that only the collector sees."""
    pool = PooledDB(module(threadsafety=2), maxshared=1, maxconnections=1, blocking=True)
    mine: Any = pool.connection()
    mine.begin()
    mine._cycle = mine
    got: list[Any] = []
    threads = in_threads(1, lambda: got.append(pool.connection()))
    until(lambda: pool._sharing._waiting, "somebody who waits")
    del mine
    collect()
    assert joined(threads)
    got[0].close()
    assert ([], 0) == (pool._shared_cache, pool._connections)


def test_a_bell_that_was_rung_is_not_waited_for() -> None:
    """However often it was rung before, and once."""
    bell = Bell()
    bell.ring()
    bell.ring()
    began_at = time.monotonic()
    bell.wait(DEADLINE_S)
    assert time.monotonic() - began_at < DEADLINE_S
    bell.wait(0.0)


def in_turn(function: Any, work: Callable[[], object], finalize: Callable[[], object]) -> None:
    """Do something in a thread, again and again, with a finalizer in front of each bytecode of a function."""
    ran = 0
    for code, offset, where in places(function):
        at = FinalizerAt(code, offset, finalize)
        assert joined(in_threads(1, at.traced(work))), where
        assert not at.failures, f"{where}: {at.failures[0]!r}"
        ran += at.ran
    assert ran, "no finalizer has run"


def test_a_finalizer_may_take_a_connection_of_the_simple_pool_anywhere_in_it() -> None:
    """Shared connections are handed round in turn, and nobody waits for himself."""
    pool = simple_pooled_db.PooledDB(module(threadsafety=2), 2)
    got: list[Any] = []
    take = functools.partial(take_into, got, pool)
    in_turn(simple_pooled_db.PooledDB._next, take, take)
    counts = Counter(id(db._con) for db in got)
    assert {len(got) // 2, (len(got) + 1) // 2} == set(counts.values())
    assert 2 == len(counts)


@pytest.mark.parametrize("function", [Source.learn, Source._know])
def test_a_finalizer_may_connect_while_its_thread_learns_which_driver_it_is(function: Any) -> None:
    """Both connections are set up, and made as good as new by the adapter that stays."""
    connect = functools.partial(sqlite3.connect, ":memory:", check_same_thread=False)
    learnt: list[tuple[Source, Any]] = []
    sources: list[Source] = []

    def learn() -> None:
        con = connect()
        assert sources[-1].learn(con)
        learnt.append((sources[-1], con))

    def learn_the_first() -> None:
        sources.append(Source(connect, (), {}, None))
        learn()

    in_turn(function, learn_the_first, learn)
    for source, con in learnt:
        assert source.adapter is not None
        assert source.adapter.reset(con, time.monotonic() + DEADLINE_S)
        con.close()
