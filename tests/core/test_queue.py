"""Who waits, who is served, and what it costs: in virtual time, by counts."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest

from millpond._core.upkeep import tick
from millpond.errors import PoolClosed, PoolTimeout, TooManyWaiting
from millpond.testing.simulator import Answer, Simulator

from .counts import counting_calls

LONG = 1_000.0


class TestOrder:
    """First come, first served; nobody barges past the queue."""

    def test_waiters_are_served_in_the_order_of_their_arrival(self) -> None:
        """200 callers on 3 connections are granted exactly as they came."""
        sim = Simulator(max_size=3, dial=0.01)
        waiters = [sim.caller(at=0.001 * number, hold=0.1 + 0.01 * (number % 7), timeout=LONG) for number in range(200)]
        sim.run()
        granted = [caller.granted_at or math.inf for caller in waiters]
        assert granted == sorted(granted)
        assert ["returned"] * 200 == [caller.outcome for caller in waiters]

    def test_who_gives_back_and_asks_again_goes_to_the_end(self) -> None:
        """Three workers on one connection take turns to the end of time."""
        sim = Simulator(max_size=1, dial=0.01)
        workers = [sim.worker(hold=0.1) for _ in range(3)]
        sim.run(30.0)
        shares = [len(worker.waits) for worker in workers]
        assert max(shares) - min(shares) <= 1
        assert sum(shares) >= 299

    def test_a_newcomer_does_not_take_what_comes_back_for_others(self) -> None:
        """A connection that is given back while somebody waits is his, whoever asks in the same instant."""
        sim = Simulator(max_size=1, dial=0.01, idle=1)
        sim.caller(at=0.0, hold=1.0)
        first = sim.caller(at=0.5, hold=1.0)
        second = sim.caller(at=1.0, hold=1.0)
        sim.run()
        assert [1.0, 2.0] == [first.granted_at, second.granted_at]

    def test_who_was_served_a_dead_connection_keeps_its_place(self) -> None:
        """A caller whose connection fails its check is served before those who came while it was checked."""
        dead = Answer(good=False, after=1.0)
        check = lambda conn, _: dead if conn.number == 1 else Answer()  # noqa: E731  it is one line of a script
        sim = Simulator(max_size=1, dial=0.5, idle=1, check_after=5.0, check=check)
        first = sim.caller(at=7.0, hold=1.0)
        second = sim.caller(at=7.5, hold=1.0)
        third = sim.caller(at=7.6, hold=1.0)
        sim.run()
        assert [8.5, 9.5, 10.5] == [first.granted_at, second.granted_at, third.granted_at]

    @pytest.mark.parametrize(("order", "used"), [("lifo", {5}), ("fifo", {1, 2, 3, 4, 5})])
    def test_idle_connections(self, order: str, used: set[int]) -> None:
        """Last in, first out keeps one connection warm; first in, first out uses all of them."""
        sim = Simulator(max_size=5, idle=5, idle_order=order, check_after=None)
        callers = [sim.caller(at=float(number), hold=0.1) for number in range(10)]
        sim.run()
        assert used == {caller.conn.number for caller in callers if caller.conn is not None}


class TestLimits:
    """What bounds a wait."""

    def test_every_wait_ends_at_its_deadline(self) -> None:
        """Deadlines in any order; each is kept to the instant, by a dial that hangs as by a connection that is out."""
        sim = Simulator(max_size=1, dial=math.inf)
        waiters = [sim.caller(at=0.0, timeout=timeout) for timeout in (5.0, 0.0, 3.0, 0.25, 9.0)]
        ends: dict[str, float] = {}
        for instant in (0.0, 0.25, 3.0, 5.0, 9.0):
            sim.run(instant)
            for caller in waiters:
                if caller.error is not None:
                    ends.setdefault(caller.name, instant)
        assert [5.0, 0.0, 3.0, 0.25, 9.0] == [ends[caller.name] for caller in waiters]
        assert all(isinstance(caller.error, PoolTimeout) for caller in waiters)

    def test_the_queue_has_an_end(self) -> None:
        """With ``max_waiting`` callers in it, the next is turned away at once."""
        sim = Simulator(max_size=1, idle=1, max_waiting=2)
        asked = [sim.caller(at=0.0, hold=1.0) for _ in range(4)]
        sim.run()
        assert ["returned"] * 3 + ["failed"] == [caller.outcome for caller in asked]
        assert isinstance(asked[3].error, TooManyWaiting)

    def test_the_end_of_the_queue_is_not_for_those_for_whom_there_is_room(self) -> None:
        """They wait for a connection to be opened, not for a return; even where nobody may wait for that."""
        sim = Simulator(max_size=2, max_waiting=0)
        asked = [sim.caller(at=0.0, hold=1.0) for _ in range(3)]
        sim.run()
        assert ["returned", "returned", "failed"] == [caller.outcome for caller in asked]
        assert isinstance(asked[2].error, TooManyWaiting)

    def test_a_caller_called_away_leaves_its_place_to_others(self) -> None:
        """It neither gets a connection nor keeps anybody from one."""
        sim = Simulator(max_size=1, idle=1)
        sim.caller(at=0.0, hold=1.0)
        gone = sim.caller(at=0.1, hold=1.0, gives_up_at=0.5)
        last = sim.caller(at=0.2, hold=1.0)
        sim.run()
        assert ("failed", 1.0) == (gone.outcome, last.granted_at)

    def test_a_caller_called_away_in_the_instant_of_its_grant_loses_nothing(self) -> None:
        """The connection that it had been granted goes to the next, and stays open."""
        sim = Simulator(max_size=1, idle=1)
        sim.caller(at=0.0, hold=1.0)
        sim.caller(at=0.1, hold=1.0, gives_up_at=1.0)
        last = sim.caller(at=0.2, hold=1.0)
        sim.run()
        assert (1.0, 1, 0) == (last.granted_at, sim.opened, sim.closed)

    def test_a_caller_who_finds_the_pool_closed_after_a_check_is_told_at_once(self) -> None:
        """Its connection was dead, and the pool closed meanwhile: it must not wait in a queue that nobody serves."""
        sim = Simulator(max_size=1, idle=1, check_after=5.0, check=Answer(good=False, after=1.0))
        asking = sim.caller(at=7.0, timeout=30.0)
        sim.at(7.5, sim.close)
        sim.run(8.0)
        assert isinstance(asking.error, PoolClosed)


class TestCost:
    """Linear in what there is to do, by count."""

    @staticmethod
    def leaving(waiters: int, *, cancelled: bool) -> dict[str, int]:
        """Return what it takes when so many waiters leave together."""
        sim = Simulator(max_size=1, idle=1, max_lifetime=None)
        sim.caller(hold=LONG)
        for _ in range(waiters):
            sim.caller(at=1.0, timeout=LONG if cancelled else 1.0, gives_up_at=2.0 if cancelled else None)
        sim.run(1.5)
        with counting_calls() as counted:
            sim.run(2.5)
        assert not sim.ledger.tickets
        return counted

    @pytest.mark.parametrize("cancelled", [True, False], ids=["cancelled", "timed out"])
    def test_ten_thousand_waiters_that_leave_together(self, cancelled: bool) -> None:
        """They cost ten times what a thousand cost, and nothing is searched for in a list."""
        few, many = (self.leaving(waiters, cancelled=cancelled) for waiters in (1_000, 10_000))
        assert 10.1 >= sum(many.values()) / sum(few.values())
        assert [] == [name for name in ("remove", "index", "sorted", "sort") if many[name]]

    def test_closing_on_ten_thousand_waiters(self) -> None:
        """Everybody is told, in one sweep."""
        costs = []
        for waiters in (1_000, 10_000):
            sim = Simulator(max_size=1, idle=1)
            sim.caller(hold=LONG)
            callers = [sim.caller(at=1.0, timeout=LONG) for _ in range(waiters)]
            sim.run(1.0)
            with counting_calls() as counted:
                sim.close()
                sim.run(1.5)
            assert all(isinstance(caller.error, PoolClosed) for caller in callers)
            costs.append(sum(counted.values()))
        assert 10.1 >= costs[1] / costs[0]

    @pytest.mark.parametrize("order", ["lifo", "fifo"])
    def test_a_large_pool_costs_nothing_for_being_large(self, order: str) -> None:
        """A checkout and return among 5,000 idle connections does what it does among 5."""
        costs = []
        for size in (5, 5_000):
            sim = Simulator(max_size=size, idle=size, idle_order=order, check_after=None, idle_timeout=None)
            sim.run(0.0)
            for number in range(100):
                sim.caller(at=1.0 + number, hold=0.5)
            with counting_calls() as counted:
                sim.run(150.0)
            assert 100 == len(sim.grants)
            costs.append(dict(counted))
        assert costs[0] == costs[1]

    def test_a_tick_looks_after_a_bounded_number_of_connections(self) -> None:
        """5,000 connections whose checks are due at once are looked after in rounds, one right after the other."""
        sim = Simulator(max_size=5_000, idle=5_000, check_after=30.0, idle_timeout=None, max_lifetime=None)
        sim.run(1.0)
        looked_after = []
        for _ in range(200):
            with counting_calls("tick", "care_for") as counted:
                sim.run(30.0)
            looked_after.append((counted["care_for"], counted["tick"]))
        assert 5_000 == sum(cared for cared, _ in looked_after)
        assert all(cared <= 32 * ticks for cared, ticks in looked_after)
        assert sim.ticks < 5_000 // 32 + 40

    def test_lost_notices_are_repeated_in_rounds(self) -> None:
        """However many were told of a close and have not looked yet: a tick repeats a bounded number of wake-ups."""
        sim = Simulator(max_size=1, idle=1)
        sim.caller(hold=LONG)
        for _ in range(500):
            sim.caller(at=1.0, timeout=LONG)
        sim.run(1.0)
        sim.ledger.close()
        sim.ledger.outbox.clear()
        tick(sim.ledger)
        assert 32 == sum(notice.value == "wake" for notice, _ in sim.ledger.outbox)


def test_waits_that_end_are_counted_by_how_they_end() -> None:
    """Time-outs and waits are told apart, and waiting is summed."""
    sim = Simulator(max_size=1, idle=1)
    for _ in range(3):
        sim.caller(at=0.0, hold=1.0, timeout=1.5)
    sim.run()
    counts = sim.ledger.counts
    assert (2, 1) == (counts["waits"], counts["timeouts"])
    assert 1.0 == sim.ledger.waited_s
    assert all(late >= soon for soon, late in pairwise(sim.grants))
