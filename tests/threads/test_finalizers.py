"""Somebody's ``__del__`` uses the pool: the collector may run it anywhere, in the middle of a step of this pool too."""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable
from typing import Any

import pytest

from millpond import Error, Lease, Pool
from millpond.forks import everyone_in
from tests.finalizing import FinalizerAt, places
from tests.garbage import collect

from .doubles import NullConnection, NullDriver, in_threads, run_program

DEADLINE_S = 10.0


class Holder:
    """What a program keeps a connection in; it is in a cycle, so that only the collector ends it."""

    def __init__(self, lease: Lease[NullConnection], end: Callable[[Lease[NullConnection]], object]) -> None:
        self.lease = lease
        self.end = end
        self.me = self

    def __del__(self) -> None:
        self.end(self.lease)


class Dirty(NullDriver):
    """A driver whose sessions are never as good as new by themselves, so that each return takes a step."""

    is_clean = None

    def in_flight(self, conn: NullConnection) -> bool | None:
        """Say that nothing is."""
        return False


@pytest.mark.parametrize("driver", [NullDriver(), Dirty()], ids=["clean", "dirty"])
@pytest.mark.parametrize("in_a_step", [False, True])
@pytest.mark.parametrize("end", [Lease.close, Lease.discard])
@pytest.mark.filterwarnings("ignore::millpond.LeaseDropped")
def test_a_connection_given_back_by_a_finalizer_is_in_one_place_only(
    driver: NullDriver, end: Callable[[Lease[NullConnection]], object], *, in_a_step: bool
) -> None:
    """The slot is garbage with its holder, and finalized before or after it: nothing hangs, nothing is lent twice."""
    with Pool(driver, max_size=3) as pool:
        for _ in range(5):
            holder = Holder(pool.connection(), end)
            del holder
            if in_a_step:
                pool._decide(collect)
            else:
                collect()
            leases = [pool.connection(timeout=DEADLINE_S) for _ in range(3)]
            assert 3 == len({id(lease.driver_connection) for lease in leases})
            for lease in leases:
                lease.close()
        stats = pool.stats()
        assert (3, 0) == (stats.size, stats.leased)
        assert stats.opened == stats.size + stats.closed


def test_a_connection_given_back_in_a_step_is_used_again() -> None:
    """What the finalizer gives back is taken in as soon as the step is over."""
    with Pool(Dirty(), max_size=1) as pool:
        lease = pool.connection()
        number = lease.driver_connection.number
        pool._decide(lease.close)
        with pool.connection(timeout=DEADLINE_S) as conn:
            assert number == conn.driver_connection.number


def test_a_connection_that_is_asked_for_in_a_step_is_refused() -> None:
    """It cannot be had there, and waiting for it would be for ever."""
    with Pool(NullDriver(), max_size=1) as pool:
        uses: list[Callable[[], object]] = [pool.connection, pool.stats, pool.drain, pool.wait]
        for use in uses:
            with pytest.raises(Error, match="by a finalizer or a signal handler"):
                pool._decide(use)
        with pool.connection(timeout=DEADLINE_S):
            assert 1 == pool.stats().leased


def test_a_finalizer_may_make_a_pool_while_all_pools_are_told_of_a_fork() -> None:
    """Wherever the collector runs: everybody is told who was there before."""
    iterate: Any = weakref.WeakSet.__iter__
    ran = 0
    for code, offset, where in places(iterate):
        members = [Member() for _ in range(3)]
        registry = weakref.WeakSet(members)
        at = FinalizerAt(code, offset, functools.partial(join_in, registry, members))
        found: list[list[Member]] = []
        in_threads(at.traced(functools.partial(note_everyone, registry, found)))
        assert set(members[:3]) <= set(found[0]), where
        ran += at.ran
    assert ran > 10, "no finalizer has run"


class Member:
    """Somebody who is to be told."""


def join_in(registry: weakref.WeakSet[Member], members: list[Member]) -> None:
    """Add one more to a registry."""
    members.append(Member())
    registry.add(members[-1])


def note_everyone(registry: weakref.WeakSet[Member], found: list[list[Member]]) -> None:
    """Note who is in a registry."""
    found.append(everyone_in(registry))


STARTING = """
import threading
from millpond import Pool
from millpond.drivers.base import Driver

class Telling(Driver):
    # Says that the pool is in a step.
    def open(self, until): return object()
    def is_alive(self, conn, until): return True
    def reset(self, conn, until): return True
    def close(self, conn): pass
    def reset_way(self):
        in_step.set()
        return ""

class Starting(threading.Thread):
    # Is asked for its hash while threading has its own lock: as good a place for the collector as any.
    armed = False
    def __hash__(self):
        if self.armed:
            self.armed = False
            asked.set()
            in_step.wait(60)
            lease.close()
        return super().__hash__()

asked, in_step, done = threading.Event(), threading.Event(), []
pool = Pool(Telling())
lease = pool.connection()

def ask():
    asked.wait(60)
    done.append(len(pool.stats().holders) < 2)

asking = threading.Thread(target=ask, daemon=True)
asking.start()
starting = Starting(target=done.append, args=(True,), daemon=True)
starting.armed = True
starting.start()
asking.join()
starting.join()
pool.close()
print(done)
"""


def test_a_finalizer_gives_back_while_a_thread_is_started() -> None:
    """The lock of ``threading`` is held there, and another thread, which has the pool's, asks for threads' names."""
    assert "[True, True]\n" == run_program(STARTING)
