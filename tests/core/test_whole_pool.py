"""Draining, resizing, closing, cutting, waiting for the pool: in virtual time."""

from __future__ import annotations

import math

import pytest

from millpond.errors import PoolClosed
from millpond.testing.simulator import Answer, Simulator

LONG = 10_000.0


class TestDrain:
    """Retire all: idle ones now, others when they come (back)."""

    def test_every_connection_is_replaced(self) -> None:
        """Idle, leased, being dialled, settling: none of them is handed out after the drain."""
        sim = Simulator(max_size=4, idle=3, dial=0.5, defers=True, reset=Answer(good=None), check_after=None)
        sim.caller(at=0.0, hold=2.0)
        sim.caller(at=0.0, hold=0.5, dirty=True)  # settles
        sim.run(0.6)
        assert 1 == len(sim.ledger.settling)
        sim.drain()
        assert (0, 0) == (len(sim.ledger.settling), len(sim.ledger.idle))
        after = [sim.caller(at=1.0, hold=0.1) for _ in range(3)]
        sim.run(10.0)
        assert 3 == sim.retired("drained")
        assert all(caller.conn is not None and caller.conn.number > 3 for caller in after)

    def test_a_connection_being_dialled_is_retired_when_it_lands(self) -> None:
        """It was begun before the drain: whoever waits gets one that was begun after it."""
        sim = Simulator(max_size=1, dial=0.5)
        waiting = sim.caller(at=0.0, hold=1.0)
        sim.at(0.2, sim.drain)
        sim.run(5.0)
        assert (1, 1.0) == (sim.retired("drained"), waiting.granted_at)

    def test_a_connection_being_checked_is_retired(self) -> None:
        """A good answer comes too late."""
        sim = Simulator(max_size=1, idle=1, check_after=5.0, check=Answer(after=0.5), dial=0.1)
        asking = sim.caller(at=7.0, hold=1.0)
        sim.at(7.2, sim.drain)
        sim.run(9.0)
        assert (1, 2) == (sim.retired("drained"), asking.conn.number if asking.conn else None)


class TestResize:
    """Obey other sizes from now on."""

    def test_a_larger_pool_serves_who_waits(self) -> None:
        """Room is used at once, by the dial rule."""
        sim = Simulator(max_size=1, idle=1, dial=0.1, known_dial=0.1)
        sim.caller(hold=LONG)
        waiting = sim.caller(at=1.0, hold=1.0, timeout=60.0)
        sim.at(5.0, lambda: sim.resize(2))
        sim.run(10.0)
        assert 5.1 == pytest.approx(waiting.granted_at)

    def test_a_smaller_pool_gets_there_as_connections_come_back(self) -> None:
        """Idle ones go at once, then whichever come back first; not one more than needed."""
        sim = Simulator(max_size=4, idle=4)
        for hold in (3.0, 1.0, 2.0):
            sim.caller(at=0.0, hold=hold)
        sizes = []
        sim.at(0.5, lambda: sim.resize(2))
        for instant in (0.5, 1.5, 2.5, 3.5):
            sim.run(instant)
            sizes.append(len(sim.ledger.slots))
        assert [3, 2, 2, 2] == sizes
        assert (2, 2) == (sim.retired("surplus"), len(sim.ledger.idle))

    def test_a_pool_made_smaller_and_larger_again_keeps_what_it_has(self) -> None:
        """What was too many for a moment is not given up later."""
        sim = Simulator(max_size=3, idle=3)
        for _ in range(3):
            sim.caller(at=0.0, hold=1.0)
        sim.at(0.2, lambda: sim.resize(1))
        sim.at(0.4, lambda: sim.resize(3))
        sim.run(2.0)
        assert (0, 3) == (sim.closed, len(sim.ledger.idle))


class TestClose:
    """Refuse, fail, give up, cut: and nothing is left."""

    def test_who_waits_and_who_comes_is_told(self) -> None:
        """At once, and by one error each."""
        sim = Simulator(max_size=1, idle=1)
        sim.caller(at=0.0, hold=5.0)
        waiting = sim.caller(at=0.1, timeout=60.0)
        sim.at(1.0, sim.close)
        late = sim.caller(at=2.0)
        sim.run(2.0)
        assert isinstance(waiting.error, PoolClosed)
        assert isinstance(late.error, PoolClosed)
        assert waiting.error is not late.error

    def test_connections_that_are_out_are_closed_when_they_come_back(self) -> None:
        """And the pool is empty then, which whoever closes it waits for."""
        sim = Simulator(max_size=3, idle=3)
        for hold in (1.0, 2.0):
            sim.caller(at=0.0, hold=hold)
        sim.run(0.5)
        sim.close()
        ends = sim.watch(sim.ledger.is_empty, timeout=5.0)
        assert 1 == sim.closed
        sim.run(3.0)
        assert [(2.0, True)] == ends
        assert 3 == sim.closed == sim.retired("closed")

    def test_a_dial_in_flight_is_closed_when_it_lands(self) -> None:
        """Nobody waits for it, and it is not lost."""
        sim = Simulator(max_size=1, dial=3.0)
        sim.caller(at=0.0, timeout=60.0)
        sim.run(1.0)
        sim.close()
        sim.run(5.0)
        assert (1, 1, 0) == (sim.opened, sim.closed, len(sim.ledger.abandoned))

    def test_cutting_leaves_the_closing_to_the_holder(self) -> None:
        """It may be in the middle of a driver's call: nobody else touches its connection."""
        sim = Simulator(max_size=2, idle=2)
        sim.caller(at=0.0, hold=10.0)
        sim.run(1.0)
        sim.close()
        assert 1 == len(sim.cut())
        assert (1, True) == (sim.closed, sim.ledger.is_empty())
        sim.run(11.0)
        assert 2 == sim.closed

    def test_a_closed_pool_dials_no_replacement(self) -> None:
        """Though a connection that is out comes to the end of its life."""
        sim = Simulator(max_size=2, idle=1, max_lifetime=100.0, dial=0.1)
        sim.caller(at=0.0, hold=200.0)
        sim.run(1.0)
        sim.close()
        sim.run(300.0)
        assert ([], 1) == (sim.dials, sim.closed)

    def test_a_connection_that_is_cut_while_it_is_looked_after_is_closed(self) -> None:
        """Housekeeping was in the middle of its check."""
        sim = Simulator(max_size=1, idle=1, check=Answer(after=1.9), idle_timeout=None)
        sim.run(30.5)
        sim.close()
        sim.cut()
        sim.run(40.0)
        assert 1 == sim.closed

    def test_closing_twice_changes_nothing(self) -> None:
        """Every connection is closed once."""
        sim = Simulator(max_size=2, idle=2)
        sim.run(1.0)
        sim.close()
        sim.close()
        sim.run(2.0)
        assert 2 == sim.closed


class TestWait:
    """Somebody waits for the pool to be as it should."""

    def test_until_min_idle_is_there(self) -> None:
        """To the instant."""
        sim = Simulator(max_size=5, min_idle=3, dial=0.5)
        ends = sim.watch(sim.ledger.is_filled, timeout=10.0)
        sim.run(5.0)
        assert [(0.5, True)] == ends

    def test_no_longer_than_its_time(self) -> None:
        """The dials hang."""
        sim = Simulator(max_size=5, min_idle=3, dial=math.inf)
        ends = sim.watch(sim.ledger.is_filled, timeout=2.0)
        sim.run(5.0)
        assert [(2.0, False)] == ends

    def test_a_close_ends_it(self) -> None:
        """There is nothing to wait for any more."""
        sim = Simulator(max_size=5, min_idle=3, dial=math.inf)
        ends = sim.watch(sim.ledger.is_filled, timeout=20.0)
        sim.at(1.0, sim.close)
        sim.run(5.0)
        assert 1.0 == ends[0][0]
        assert isinstance(ends[0][1], PoolClosed)
