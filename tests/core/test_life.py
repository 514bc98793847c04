"""The life of a connection nobody looks at: checked, renewed, retired, found again; and what housekeeping may cost."""

from __future__ import annotations

import math
import random
from typing import Any

import pytest

from millpond._core.states import State
from millpond.testing.simulator import Answer, DialError, FailedDial, SimConnection, Simulator

LONG = 10_000.0


class Checks:
    """A script for checks that notes when each was asked for."""

    def __init__(self, after: float = 0.0) -> None:
        self.asked: list[tuple[int, float]] = []
        self.after = after

    def __call__(self, conn: SimConnection, now: float) -> Answer:
        """Answer truly, and note when."""
        self.asked.append((conn.number, now))
        return Answer(good=not conn.dead, after=self.after)


class TestLifetime:
    """Each connection's own, spread by 20 %."""

    def test_lifetimes_are_spread_over_a_fifth(self) -> None:
        """100 connections dialled in one instant end between 80 % and 100 % of ``max_lifetime``, all over that time."""
        draw = random.Random(7)
        sim = Simulator(max_size=100, idle=100, jitter=draw.random, max_lifetime=1_000.0, idle_timeout=None)
        ends = sorted(slot.expires_at for slot in sim.ledger.live())
        assert 800.0 <= ends[0] < 810.0
        assert 990.0 < ends[-1] <= 1_000.0
        assert 40 < sum(end < 900.0 for end in ends) < 60

    def test_an_idle_connection_is_retired_at_its_end(self) -> None:
        """Nobody gets it after that, and it is not replaced when nobody uses it."""
        sim = Simulator(max_size=1, idle=1, max_lifetime=100.0, check_after=None, idle_timeout=None)
        sim.run(99.0)
        assert 0 == sim.closed
        sim.run(102.0)
        assert (1, 1, []) == (sim.closed, sim.retired("lifetime"), sim.dials)

    def test_a_leased_connection_is_retired_when_it_comes_back(self) -> None:
        """Its holder keeps it beyond its end."""
        sim = Simulator(max_size=1, idle=1, max_lifetime=100.0, dial=0.1)
        holder = sim.caller(at=50.0, hold=100.0)
        sim.run(149.0)
        assert ("holding", 0) == (holder.outcome, sim.closed)
        sim.run(151.0)
        assert 1 == sim.retired("lifetime")

    def test_a_replacement_is_dialled_before_the_end_where_there_is_room(self) -> None:
        """A connection in use has a successor five seconds before its hundred are over."""
        sim = Simulator(max_size=2, idle=1, max_lifetime=100.0, dial=0.1, check_after=30.0)
        sim.worker(hold=1.0, pause=0.5)
        sim.run(110.0)
        assert 1 == sim.ledger.counts["renewed"]
        assert 95.0 <= sim.dials[0] <= 97.0
        assert max(caller.waited or 0.0 for caller in sim.callers) == 0.0

    def test_no_replacement_where_there_is_no_room(self) -> None:
        """With ``max_size`` connections there is none beside them: the old one goes first."""
        sim = Simulator(max_size=1, idle=1, max_lifetime=100.0, dial=0.1)
        worker = sim.worker(hold=1.0, pause=0.5)
        sim.run(110.0)
        assert 0 == sim.ledger.counts["renewed"]
        assert 1 == sim.retired("lifetime")
        assert 0.1 == pytest.approx(max(worker.waits))

    def test_no_replacement_while_somebody_waits(self) -> None:
        """The room is for whoever waits, by the dial rule, not for a renewal."""
        sim = Simulator(max_size=3, idle=1, max_lifetime=100.0, dial=math.inf, known_dial=0.1)
        sim.caller(at=94.0, hold=50.0)
        sim.caller(at=94.5, hold=50.0, timeout=60.0)
        sim.run(99.0)
        assert 0 == sim.ledger.counts["renewed"]

    def test_uses_are_counted(self) -> None:
        """After ``max_uses`` checkouts a connection is replaced."""
        sim = Simulator(max_size=1, idle=1, max_uses=3, dial=0.1)
        sim.worker(hold=1.0)
        sim.run(10.0)
        assert 3 == sim.retired("uses")


class TestIdle:
    """What nobody uses goes, down to ``min_idle``."""

    def test_idle_connections_go_after_their_time(self) -> None:
        """Of five, two are kept."""
        sim = Simulator(max_size=5, idle=5, min_idle=2, idle_timeout=60.0, check_after=None)
        sim.run(59.0)
        assert 0 == sim.closed
        sim.run(70.0)
        assert (3, 2, []) == (sim.retired("idle"), len(sim.ledger.idle), sim.dials)

    def test_leased_connections_do_not_count_as_idle(self) -> None:
        """Two idle ones are kept beside three that are out: none is closed and dialled anew."""
        sim = Simulator(max_size=5, idle=5, min_idle=2, idle_timeout=60.0, check_after=None, max_lifetime=None)
        for _ in range(3):
            sim.caller(at=0.0, hold=LONG)
        sim.run(200.0)
        assert (0, []) == (sim.closed, sim.dials)

    def test_the_pool_fills_up_to_min_idle(self) -> None:
        """At the beginning, and whenever connections are taken while there is room."""
        sim = Simulator(max_size=4, min_idle=2, dial=0.1)
        sim.run(1.0)
        assert [0.0, 0.0] == sim.dials
        sim.caller(at=1.0, hold=5.0)
        sim.run(3.0)
        assert (3, 2) == (sim.opened, len(sim.ledger.idle))

    def test_a_connection_that_is_being_checked_is_not_replaced(self) -> None:
        """``min_idle`` counts what housekeeping has in its hands."""
        checks = Checks(after=1.0)
        sim = Simulator(max_size=4, idle=2, min_idle=2, check=checks, check_after=30.0, idle_timeout=None)
        sim.run(100.0)
        assert [] == sim.dials
        assert 4 < len(checks.asked)


class TestKeepalive:
    """An idle connection proves its life without being asked for."""

    def test_it_is_checked_after_check_after(self) -> None:
        """Every thirty seconds, so that no caller has to wait for it."""
        checks = Checks()
        sim = Simulator(max_size=1, idle=1, check=checks, idle_timeout=None)
        sim.run(100.0)
        assert [30.0, 60.0, 90.0] == pytest.approx([at for _, at in checks.asked])

    def test_one_that_is_dead_is_replaced_before_a_caller_could_get_it(self) -> None:
        """The first caller after a restart of the server finds a live one."""
        sim = Simulator(max_size=1, idle=1, min_idle=1, dial=0.1, idle_timeout=None)
        sim.at(1.0, sim.kill_connections)
        caller = sim.caller(at=50.0)
        sim.run(60.0)
        assert (0.0, 1) == (caller.waited, sim.retired("dead"))

    def test_a_caller_does_not_wait_for_housekeeping(self) -> None:
        """While one connection's check takes long, another one that awaits its own goes to whoever asks."""
        slow = Answer(after=1.9)
        sim = Simulator(max_size=2, idle=2, check=lambda _, now: slow if now == 30.0 else Answer(), idle_timeout=None)
        caller = sim.caller(at=30.5, hold=1.0)
        sim.run(40.0)
        assert (0.0, []) == (caller.waited, sim.dials)

    def test_one_dead_connection_makes_the_others_suspect(self) -> None:
        """After a restart nobody is handed a second dead connection unasked."""
        sim = Simulator(max_size=3, idle=3, check_after=5.0, dial=0.1)
        sim.at(1.0, sim.kill_connections)
        first = sim.caller(at=7.0, hold=1.0)
        second = sim.caller(at=7.05, hold=1.0)
        sim.run(9.0)
        assert [False, False] == [caller.conn is not None and caller.conn.dead for caller in (first, second)]


class TestAtRest:
    """A pool that does nothing must cost nothing, whatever its limits are."""

    @pytest.mark.parametrize(
        "settings",
        [
            {"check_after": 0},
            {"check_after": 0.001, "min_idle": 2},
            {"min_idle": 2, "idle_timeout": 0.001},
            {"min_idle": 2, "idle_timeout": 5.0, "check_after": None},
            {"idle_timeout": None, "check_after": None, "max_lifetime": None},
            {"min_idle": 2, "max_lifetime": 0.5},
        ],
        ids=str,
    )
    def test_it_ticks_once_a_second_at_most(self, settings: dict[str, Any]) -> None:
        """No setting makes an idle pool keep a processor busy."""
        sim = Simulator(max_size=2, idle=2, dial=0.1, **settings)
        sim.run(100.0)
        assert sim.ticks <= 310

    def test_unasked_checks_are_seconds_apart_however_small_check_after_is(self) -> None:
        """``check_after=0`` means a check at every checkout, not all the time."""
        checks = Checks()
        sim = Simulator(max_size=1, idle=1, check=checks, check_after=0)
        sim.run(100.0)
        assert len(checks.asked) <= 10
        caller = sim.caller(at=101.0)
        sim.run(102.0)
        assert (101.0, 101.0) == (checks.asked[-1][1], caller.granted_at)

    def test_a_slow_dial_for_min_idle_is_waited_for_quietly(self) -> None:
        """A dial that is late by the rule makes no tick follow the other."""
        sim = Simulator(max_size=4, min_idle=2, dial=5.0, known_dial=0.05, max_dialing=1)
        sim.run(5.0)
        assert sim.ticks <= 20

    def test_what_is_remembered_does_not_grow_with_every_connection(self) -> None:
        """10,000 connections of one use each leave no trace in the list of what to look after."""
        sim = Simulator(max_size=2, max_uses=1, dial=0.001, check_after=None, idle_timeout=None, max_lifetime=None)
        sim.worker(hold=0.001)
        sim.run(25.0)
        assert sim.opened > 5_000
        assert len(sim.ledger.turns) < 100


class TestLost:
    """What nobody holds any more is found."""

    def test_a_dropped_connection_is_taken_in_and_its_room_used(self) -> None:
        """The next in the queue is served by a new one, and observers are told."""
        sim = Simulator(max_size=1, idle=1, dial=0.1)
        sim.caller(at=0.0, hold=1.0, drops=True)
        waiting = sim.caller(at=0.5, hold=1.0)
        sim.run(5.0)
        assert 1.1 == pytest.approx(waiting.granted_at)
        assert (1, 1) == (sim.ledger.counts["dropped"], sim.retired("unclean"))
        assert 1 == sum(what == "dropped" for _, what, _ in sim.told)

    def test_a_thousand_are_taken_in_by_rounds(self) -> None:
        """However many are dropped in one instant, no step takes in more than a round of them."""
        sim = Simulator(max_size=1_000, idle=1_000, idle_timeout=None, check_after=None)
        for _ in range(1_000):
            sim.caller(at=1.0, hold=1.0, drops=True)
        sim.run(10.0)
        assert (1_000, 1_000) == (sim.ledger.counts["lost"], sim.closed)

    def test_a_stopped_thread_has_lost_nothing(self) -> None:
        """Whoever holds a connection for hours still holds it: no guess is made by its age."""
        sim = Simulator(max_size=1, idle=1)
        holder = sim.caller(at=0.0, hold=36_000.0)
        sim.run(35_999.0)
        assert ("holding", 0, 0) == (holder.outcome, sim.ledger.counts["lost"], sim.closed)

    def test_a_failed_dial_keeps_nothing_alive(self) -> None:
        """The error that is kept has no traceback: its frames would hold what callers have dropped."""
        sim = Simulator(max_size=2, dial=[0.1, FailedDial()])
        sim.caller(at=0.0, hold=LONG)
        sim.caller(at=1.0, timeout=1.0)
        sim.run(1.5)
        assert isinstance(sim.ledger.last_error, DialError)
        assert sim.ledger.last_error.__traceback__ is None


class TestSettling:
    """A reset whose answer is still out."""

    def test_its_answer_is_read_within_a_second_though_nobody_asks(self) -> None:
        """Behind an unread answer the server may hold row locks."""
        sim = Simulator(max_size=1, idle=1, defers=True, reset=Answer(good=None), collect=Answer())
        sim.caller(at=0.0, hold=1.0, dirty=True)
        sim.run(1.5)
        assert 1 == len(sim.ledger.settling)
        sim.run(2.1)
        assert (0, 1) == (len(sim.ledger.settling), len(sim.ledger.idle))

    def test_ready_connections_go_first(self) -> None:
        """A settling one is handed out only when there is no other."""
        sim = Simulator(max_size=2, idle=2, defers=True, reset=Answer(good=None), collect=Answer(good=None))
        sim.caller(at=0.0, hold=0.5, dirty=True)
        first = sim.caller(at=0.6, hold=5.0)
        sim.run(0.7)
        assert 0.6 == first.granted_at
        assert [State.SETTLING] == [slot.state for slot in sim.ledger.settling]

    def test_what_never_answers_is_given_up(self) -> None:
        """In the time of a check: a server that long silent about a rollback is not waited for."""
        sim = Simulator(max_size=1, idle=1, dial=0.1, defers=True, reset=Answer(good=None), collect=Answer(good=None))
        sim.caller(at=0.0, hold=0.5, dirty=True)
        waiting = sim.caller(at=0.6, hold=1.0)
        sim.run(5.0)
        assert 1 == sim.retired("dead")
        assert 2.5 <= (waiting.granted_at or 0.0) <= 2.8
