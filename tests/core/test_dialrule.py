"""When the pool dials: the exact numbers, on a virtual clock with constant dials and no jitter."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable

import pytest

from millpond._core.dialrule import DialRule
from millpond.testing.simulator import Dial, FailedDial, Simulator

from .counts import counting_calls

LONG = 10_000.0  # a hold that does not end within the test
END = 60.0


def instants(values: list[float]) -> dict[float, int]:
    """Return how many events fell on which instant, to the microsecond."""
    return dict(Counter(round(value, 6) for value in values))


def callers(sim: Simulator, *asks: tuple[float, float]) -> None:
    """Have somebody ask at each (instant, hold)."""
    for at, hold in asks:
        sim.caller(at=at, hold=hold, timeout=2 * LONG)


class TestColdBurst:
    """Nobody is out, so nobody can give back: a dial for each who waits."""

    def test_twenty_callers_get_twenty_dials_at_once(self) -> None:
        """20 cold callers are all served after one dial."""
        sim = Simulator(max_size=20, dial=0.1)
        callers(sim, *[(0.0, LONG)] * 20)
        sim.run(END)
        assert {0.0: 20} == instants(sim.dials)
        assert {0.1: 20} == instants(sim.grants)

    def test_no_more_dials_than_room(self) -> None:
        """The five of 25 for whom there is no room are served by returns, without a 21st dial."""
        sim = Simulator(max_size=20, dial=0.1)
        callers(sim, *[(0.0, 1.0)] * 25)
        sim.run(END)
        assert {0.0: 20} == instants(sim.dials)
        assert {0.1: 20, 1.1: 5} == instants(sim.grants)

    def test_dials_in_flight_can_be_capped(self) -> None:
        """``max_dialing`` dials are in flight at most; who waits takes their turns."""
        sim = Simulator(max_size=20, dial=0.1, max_dialing=4)
        callers(sim, *[(0.0, LONG)] * 20)
        sim.run(END)
        assert {round(0.1 * turn, 6): 4 for turn in range(5)} == instants(sim.dials)


class TestSpike:
    """Many short queries at once: returns serve them sooner than any dial."""

    @pytest.mark.parametrize("known_hold", [0.002, None])
    def test_short_holds_cause_no_dial(self, known_hold: float | None) -> None:
        """50 x 2 ms on 5 connections: done at 20 ms with no dial, whether or not the holds are known to be short."""
        sim = Simulator(max_size=50, dial=0.15, idle=5, known_dial=0.15, known_hold=known_hold)
        callers(sim, *[(0.0, 0.002)] * 50)
        sim.run(END)
        assert [] == sim.dials
        assert {round(0.002 * turn, 6): 5 for turn in range(10)} == instants(sim.grants)
        assert 0.02 == pytest.approx(max(caller.returned_at or 0.0 for caller in sim.callers))

    def test_holds_that_turn_out_long_cost_one_dial_time_more(self) -> None:
        """The same spike with 10-s holds: all 45 dials after one estimate, everybody is served a dial later."""
        sim = Simulator(max_size=50, dial=0.15, idle=5, known_dial=0.15, known_hold=0.002)
        callers(sim, *[(0.0, 10.0)] * 50)
        sim.run(END)
        assert {0.15: 45} == instants(sim.dials)
        assert {0.0: 5, 0.3: 45} == instants(sim.grants)


class TestQueue:
    """The rule counts over the queue, never per ticket."""

    def test_nobody_owns_a_dial(self) -> None:
        """A dial serves the oldest caller whoever caused it, and who is robbed of one gets another."""
        sim = Simulator(max_size=50, dial=0.099, idle=1, known_dial=0.1, known_hold=0.06)
        callers(sim, (0.0, 10.0), (0.001, LONG), (0.001, LONG))
        sim.run(END)
        assert {0.001: 1, 0.1: 1} == instants(sim.dials)
        assert [0.099, 0.198] == [round(caller.waited or 0.0, 6) for caller in sim.callers[1:]]

    @pytest.mark.parametrize(
        ("busy", "waiting", "dials"),
        [(1, 10, 0), (1, 11, 1), (1, 12, 2), (1, 15, 5), (5, 50, 0), (5, 51, 1), (5, 60, 10)],
    )
    def test_dials_are_begun_for_those_whom_returns_will_not_serve_within_a_dial(
        self, busy: int, waiting: int, dials: int
    ) -> None:
        """With holds of 10 ms and dials of 100 ms each busy connection is worth ten waiters."""
        sim = Simulator(max_size=50, dial=0.1, idle=busy, known_dial=0.1, known_hold=0.01)
        callers(sim, *[(0.0, 0.01)] * (busy + waiting))
        sim.run(0.0)
        assert dials == len(sim.dials)

    def test_silence_outdates_the_average_hold(self) -> None:
        """Five connections never come back: dials begin long before anybody is overdue."""
        sim = Simulator(max_size=50, dial=0.1, idle=5, known_dial=0.1, known_hold=0.002)
        callers(sim, *[(0.0, LONG)] * 5, *[(0.001 * number, LONG) for number in range(1, 31)])
        sim.run(END)
        assert 0.012 == pytest.approx(sim.dials[0])
        assert 27 == sum(round(at, 6) <= 0.03 for at in sim.dials)
        assert 0.104 == pytest.approx(sim.dials[-1])
        assert 30 == len(sim.dials)
        assert 0.174 == pytest.approx(max(caller.waited or 0.0 for caller in sim.callers))

    def test_a_standing_queue_buys_one_connection_for_four_dials_of_waiting(self) -> None:
        """One waiter at all times, 30 ms each: exactly one dial, at the grant that completes 400 ms of waiting."""
        sim = Simulator(max_size=50, dial=0.1, idle=1, known_dial=0.1, known_hold=0.03)
        callers(sim, (0.0, 0.03), (0.0, 0.03), *[(0.03 * number, 0.03) for number in range(1, 60)])
        sim.run(END)
        assert {0.42: 1} == instants(sim.dials)
        assert 0.42 == pytest.approx(sim.grants[14])

    def test_callers_in_a_hurry_buy_a_connection_too(self) -> None:
        """Nobody waits for a whole dial, for nobody has the time: their waits add up all the same."""
        sim = Simulator(max_size=5, dial=0.1, idle=1, known_dial=0.1)
        sim.caller(hold=LONG)
        callers = [sim.caller(at=1.0 + 0.06 * number, hold=0.01, timeout=0.05) for number in range(20)]
        sim.run(5.0)
        assert ["failed"] * 9 + ["returned"] * 11 == [caller.outcome for caller in callers]
        assert 1 == len(sim.dials)

    def test_a_few_long_holds_among_short_ones(self) -> None:
        """One in twenty holds 10 s, the others 2 ms: while room is left nobody waits longer than estimate plus dial."""
        for seed in range(3):
            draw = random.Random(seed)
            sim = Simulator(max_size=50, dial=0.05)
            at = 0.0
            while at < END:
                at += draw.expovariate(40.0)
                sim.caller(at=at, hold=10.0 if draw.random() < 0.05 else 0.002, timeout=LONG)
            sim.run(2 * END)
            assert 50 > len(sim.connections)
            assert 0.1 == pytest.approx(max(caller.waited or 0.0 for caller in sim.callers))


class TestSlowDials:
    """One stall must cost two estimates, not the stall."""

    def test_a_dial_that_hangs_is_not_waited_for(self) -> None:
        """The first dial hangs 5 s: another is begun after two estimates."""
        sim = Simulator(max_size=50, dial=[5.0, 0.1], known_dial=0.1)
        callers(sim, (0.0, LONG))
        sim.run(END)
        assert {0.0: 1, 0.2: 1} == instants(sim.dials)
        assert {0.3: 1} == instants(sim.grants)

    def test_one_of_twenty_hangs(self) -> None:
        """21 dials, 19 callers served at once and one after the replacement's dial."""
        sim = Simulator(max_size=50, dial=[5.0, 0.1], known_dial=0.1)
        callers(sim, *[(0.0, LONG)] * 20)
        sim.run(END)
        assert {0.0: 20, 0.2: 1} == instants(sim.dials)
        assert {0.1: 19, 0.3: 1} == instants(sim.grants)

    def test_where_there_is_no_room_the_hanging_dial_is_all_there_is(self) -> None:
        """``max_size`` 1: one dial, nothing more, a grant when it lands at last."""
        sim = Simulator(max_size=1, dial=[5.0, 0.1], known_dial=0.1)
        callers(sim, (0.0, LONG))
        sim.run(END)
        assert {0.0: 1} == instants(sim.dials)
        assert {5.0: 1} == instants(sim.grants)

    def test_a_stale_estimate_costs_a_quarter_of_a_second(self) -> None:
        """Dials were known to take 2 s and take 50 ms now: no estimate above 0.25 s is believed."""
        sim = Simulator(max_size=50, dial=0.05, idle=1, known_dial=2.0)
        callers(sim, (0.0, 10.0), (0.001, LONG))
        sim.run(END)
        assert {0.251: 1} == instants(sim.dials)
        assert {0.0: 1, 0.301: 1} == instants(sim.grants)

    @pytest.mark.parametrize(
        ("took", "fastest"),
        [([2.0], 2.0), ([2.0, 0.05], 0.05), ([0.05, *[2.0] * 7], 0.05), ([0.05, *[2.0] * 8], 2.0)],
    )
    def test_the_estimate_is_the_fastest_of_the_last_eight(self, took: list[float], fastest: float) -> None:
        """A dial is forgotten after eight more."""
        rule = DialRule(lambda: 0.0)
        for took_s in took:
            rule.succeeded(took_s)
        assert fastest == rule.fastest_s


class TestFailingDials:
    """A server that is down is probed by one dial at a time, and everybody is served when it is back."""

    def test_an_outage_of_three_seconds(self) -> None:
        """Refused in 1 ms from 0 to 3 s, then dials take 50 ms: the instants of all 62 dials."""
        sim = Simulator(max_size=20, dial=lambda _, now: FailedDial(0.001) if now < 3.0 else 0.05, known_dial=0.05)
        callers(sim, *[(0.0, LONG)] * 20)
        sim.run(END)
        early = [0.011, 0.032, 0.073, 0.154]
        probes = [round(0.315 + 0.201 * number, 6) for number in range(15)]
        assert 3.129 == probes[-1]
        assert {0.0: 20, 0.001: 4, **dict.fromkeys([*early, *probes], 1), 3.179: 19} == instants(sim.dials)
        assert 62 == len(sim.dials)
        assert {3.179: 1, 3.229: 19} == instants(sim.grants)
        ends = sorted(
            [(at, 1) for at in sim.dials if at > 0.002] + [(at, -1) for at in sim.dials_failed if at > 0.0021]
        )
        in_flight = most = 0
        for at, change in ends:
            in_flight += change
            most = max(most, in_flight if at < 3.179 - 1e-6 else 0)
        assert 1 == most

    def test_half_of_all_dials_fail(self) -> None:
        """Every second dial fails: 20 cold callers are served all the same, by 40 dials or fewer."""
        sim = Simulator(max_size=20, dial=lambda number, _: FailedDial(0.1) if number % 2 else 0.1, known_dial=0.1)
        callers(sim, *[(0.0, LONG)] * 20)
        sim.run(END)
        assert 20 == len(sim.grants)
        assert 40 >= len(sim.dials)
        assert 1.5 > max(sim.grants)


class TestLoad:
    """What the rule is for: the rate that a pool reaches."""

    def test_a_closed_loop_that_starts_from_one_connection(self) -> None:
        """50 callers that re-acquire at once, holds of 2 ms, dials of 150 ms, one connection: never a standstill.

        It grows by a connection every dial: 25 % of the possible rate at 12 dial times, 41 % at 20, 74 % at 36, 98 %
        at 50.
        """
        dial, hold, size = 0.15, 0.002, 50
        sim = Simulator(max_size=size, dial=dial, idle=1, known_dial=dial, known_hold=hold)
        for _ in range(size):
            sim.worker(hold=hold)
        sim.run(51 * dial)
        possible = size / hold
        reached = [sim.rate(turn * dial, (turn + 1) * dial) / possible for turn in range(51)]
        assert [0.254, 0.414, 0.74, 0.98] == pytest.approx([reached[turn] for turn in (12, 20, 36, 50)], abs=0.01)
        assert 0.75 <= reached[50]
        for turn in range(3, 48, 3):  # never a standstill until it is there
            assert reached[turn] > reached[turn - 3]

    def test_a_restart_under_load(self) -> None:
        """Every link breaks while 80 % of 20 connections are busy: all are replaced by dials begun at once."""
        draw = random.Random(17)
        sim = Simulator(max_size=20, dial=0.05, idle=20, known_dial=0.05, known_hold=0.02)
        at = 0.0
        while at < 6.0:
            at += draw.expovariate(800.0)
            sim.caller(at=at, hold=draw.expovariate(50.0))
        sim.at(3.0, sim.kill_connections)
        sim.run(7.0)
        assert [] == [caller for caller in sim.callers if caller.outcome != "returned"]
        assert 20 == sum(conn.dead for conn in sim.connections)
        assert 20 >= len(sim.dials)
        late = [caller for caller in sim.callers if caller.at > 3.3 and (caller.waited or 0.0) > 0.15]
        assert [] == late

    def test_20_000_waiters_without_room_cost_one_look_each(self) -> None:
        """No dial is begun, and the rule is asked at most once an event."""
        sim = Simulator(max_size=1, dial=0.1, idle=1, known_dial=0.1, known_hold=1.0, max_lifetime=None)
        callers(sim, *[(0.0, 1.0)] * 20_000)
        with counting_calls("look", "wanted") as counted:
            sim.run(20_000.0)
        assert 20_000 == len(sim.grants)
        assert [] == sim.dials
        events = 2 * 20_000 + sim.ticks
        assert events >= counted["look"]
        assert 0 == counted["wanted"]


class TestEager:
    """``growth="eager"``: connections are cheap and waiting is not."""

    def test_a_dial_for_each_who_waits(self) -> None:
        """The spike that the thrifty rule answers without a dial gets 45, at once."""
        sim = Simulator(max_size=50, dial=0.15, idle=5, known_dial=0.15, known_hold=0.002, growth="eager")
        callers(sim, *[(0.0, 0.002)] * 50)
        sim.run(END)
        assert {0.0: 45} == instants(sim.dials)
        assert 0.018 == pytest.approx(max(sim.grants))

    def test_long_holds_wait_for_one_dial_only(self) -> None:
        """The same with 10-s holds: everybody is served after one dial, not after an estimate and a dial."""
        sim = Simulator(max_size=50, dial=0.15, idle=5, known_dial=0.15, known_hold=0.002, growth="eager")
        callers(sim, *[(0.0, 10.0)] * 50)
        sim.run(END)
        assert {0.0: 5, 0.15: 45} == instants(sim.grants)


@pytest.mark.parametrize("dial", [0.1, lambda number, _: [0.1, 0.3][number % 2]])
def test_the_same_script_gives_the_same_instants(dial: float | Callable[[int, float], Dial]) -> None:
    """A simulation can be repeated to the last bit."""
    runs = []
    for _ in range(2):
        sim = Simulator(max_size=5, dial=dial)
        callers(sim, *[(0.01 * number, 0.05) for number in range(30)])
        sim.run(END)
        runs.append((sim.dials, sim.grants))
    assert runs[0] == runs[1]
