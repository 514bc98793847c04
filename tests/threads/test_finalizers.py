"""Somebody's ``__del__`` uses the pool: the collector may run it anywhere, in the middle of a step of this pool too."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from millpond import Error, Lease, Pool
from tests.garbage import collect

from .doubles import NullConnection, NullDriver

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
