"""Snapshots, holders, and the names of threads."""

from __future__ import annotations

import dataclasses
import threading

import pytest

import millpond
from millpond.sites import Site
from millpond.stats import Holder, ThreadNames
from millpond.testing.fake_driver import FakeDriver


def test_thread_names_are_those_of_the_threads_there_are() -> None:
    """Every living thread is named by its number."""
    names = ThreadNames()()
    assert threading.current_thread().name == names[threading.get_ident()]
    assert {thread.ident for thread in threading.enumerate()} <= set(names)


def test_thread_names_are_not_listed_anew_for_everybody_who_asks() -> None:
    """Within a few milliseconds the same list is given out; later it is a new one."""
    names = ThreadNames()
    first = names()
    names.stale_at += 3600.0
    assert first is names()
    names.stale_at = 0.0
    assert first is not names()


def test_a_holder_reads_as_a_sentence() -> None:
    """Who, for how long, and where it was taken if that is known."""
    assert "worker for 1.5 s" == str(Holder("worker", 1.5, None))
    assert "worker for 1.5 s, taken at app.py:3 in view" == str(Holder("worker", 1.5, Site("app.py", 3, "view")))


def test_a_snapshot_does_not_change() -> None:
    """It is one frozen instant; the next one is another object."""
    with millpond.Pool(FakeDriver()) as pool:
        before = pool.stats()
        with pool.connection():
            assert (0, 1) == (before.leased, pool.stats().leased)
        with pytest.raises(dataclasses.FrozenInstanceError):
            before.size = 5  # type: ignore[misc]  # that is the point


def test_where_use_is_not_tracked_holders_are_somebody() -> None:
    """Nothing is noted, so nothing is made up."""
    with millpond.Pool(FakeDriver(), track_use=False) as pool, pool.connection():
        (holder,) = pool.stats().holders
        assert ("somebody", None) == (holder.thread, holder.site)


def test_counters_outlive_their_connections() -> None:
    """What a connection has counted is kept when it is given up."""
    with millpond.Pool(FakeDriver(), max_uses=1) as pool:
        for _ in range(3):
            pool.connection().close()
        stats = pool.stats()
    assert (3, 3, {"uses": 3}) == (stats.uses, stats.opened, stats.retired)
