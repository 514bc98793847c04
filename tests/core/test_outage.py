"""Dials that fail: who is told what, when the next try is, and that everybody is served when the server is back."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest

from millpond._core.states import Fault
from millpond.errors import PoolTimeout
from millpond.testing.simulator import Answer, DialError, FailedDial, Simulator

LONG = 10_000.0
MENDED_BY_WAITING = (Fault.SERVER_FULL, Fault.TRANSIENT)
NOT_MENDED = (Fault.REFUSED, Fault.CREDENTIALS, Fault.GONE, Fault.READ_ONLY, Fault.STATEMENT)


def down_until(back_at: float, fault: Fault = Fault.REFUSED, *, after: float = 0.001) -> object:
    """Return the script of a server that is down until an instant, and answers in 50 ms from then on."""
    return lambda _, now: FailedDial(after, fault) if now < back_at else 0.05


class TestFirstDial:
    """Until one dial has succeeded, what waiting cannot mend is told at once."""

    @pytest.mark.parametrize("fault", NOT_MENDED)
    def test_the_first_error_rises_at_once(self, fault: Fault) -> None:
        """Refused, unknown, not accepted: the driver's own error, for everybody who waits."""
        sim = Simulator(max_size=5, dial=FailedDial(0.01, fault))
        callers = [sim.caller(at=0.0, timeout=30.0) for _ in range(3)]
        sim.run(0.01)
        assert [fault] * 3 == [caller.error.fault for caller in callers if isinstance(caller.error, DialError)]

    def test_each_caller_gets_an_error_of_its_own(self) -> None:
        """One instance raised in many threads would mix their tracebacks."""
        sim = Simulator(max_size=5, dial=FailedDial(0.01))
        callers = [sim.caller(at=0.0) for _ in range(5)]
        sim.run(1.0)
        assert 5 == len({id(caller.error) for caller in callers})

    @pytest.mark.parametrize("fault", MENDED_BY_WAITING)
    def test_what_may_pass_is_waited_for(self, fault: Fault) -> None:
        """A server that has no room now may have some soon."""
        sim = Simulator(max_size=2, dial=down_until(1.0, fault))  # type: ignore[arg-type]  # a script
        caller = sim.caller(at=0.0, timeout=30.0)
        sim.run(5.0)
        assert "returned" == caller.outcome
        assert 1.0 <= (caller.granted_at or 0.0) <= 1.3

    def test_whoever_waits_for_the_pool_to_fill_is_told_as_well(self) -> None:
        """``wait()`` does not sit out what waiting cannot mend."""
        sim = Simulator(max_size=2, min_idle=1, dial=FailedDial(0.01))
        ends = sim.watch(sim.ledger.is_filled, timeout=10.0)
        sim.run(1.0)
        assert 0.01 == pytest.approx(ends[0][0])
        assert isinstance(ends[0][1], DialError)


class TestOutage:
    """Afterwards callers wait inside their deadlines, and one dial probes at a time."""

    @pytest.mark.parametrize("fault", [Fault.REFUSED, Fault.GONE, Fault.SERVER_FULL, Fault.TRANSIENT, Fault.READ_ONLY])
    def test_everybody_is_served_when_the_server_is_back(self, fault: Fault) -> None:
        """Twenty callers, three seconds of outage: all of them are served, the last within 300 ms of the return."""
        sim = Simulator(max_size=20, dial=down_until(3.0, fault), known_dial=0.05)  # type: ignore[arg-type]  # a script
        callers = [sim.caller(at=0.0, hold=LONG, timeout=30.0) for _ in range(20)]
        sim.run(10.0)
        assert ["holding"] * 20 == [caller.outcome for caller in callers]
        assert max(sim.grants) <= 3.3

    @pytest.mark.parametrize("jitter", [0.0, 0.5, 0.999])
    def test_it_probes_every_200_ms_for_ten_seconds_then_down_to_every_two(self, jitter: float) -> None:
        """The pause doubles up to a cap, is shortened by jitter to a half at most, and one dial is in flight."""
        sim = Simulator(max_size=20, dial=FailedDial(0.001), known_dial=0.05, jitter=lambda: jitter)
        for _ in range(20):
            sim.caller(at=0.0, timeout=100.0)
        sim.run(100.0)
        pauses = [(late - soon, soon) for soon, late in pairwise(sim.dials) if soon > 1.0]
        early = [pause for pause, at in pauses if at < 9.5]
        late = [pause for pause, at in pauses if at > 20.0]
        assert max(early) <= 0.2 + 0.002
        assert min(early) >= 0.1
        assert max(late) <= 2.0 + 0.002
        assert min(late) >= 1.0

    def test_a_deadline_is_kept_during_an_outage(self) -> None:
        """Whoever waits is told when its time is up, with the driver's error as the cause."""
        sim = Simulator(max_size=5, dial=FailedDial(0.001), known_dial=0.05)
        caller = sim.caller(at=0.0, timeout=2.5)
        sim.run(2.5)
        assert isinstance(caller.error, PoolTimeout)
        assert isinstance(caller.error.__cause__, DialError)
        assert "server unreachable" == caller.error.reason

    def test_a_server_that_falls_silent_is_no_exhausted_pool(self) -> None:
        """The one connection there is has to answer a reset, and does not: nobody holds it, and no dial is out."""
        sim = Simulator(max_size=1, idle=1, defers=True, reset=Answer(good=None), collect=Answer(good=None))
        sim.caller(at=0.0, hold=0.01, dirty=True)
        caller = sim.caller(at=0.02, timeout=0.2)
        sim.run(1.0)
        assert isinstance(caller.error, PoolTimeout)
        assert "server silent" == caller.error.reason

    def test_connections_that_are_out_are_waited_for(self) -> None:
        """While the server refuses new connections, those that live serve whoever waits."""
        sim = Simulator(max_size=5, idle=1, dial=FailedDial(0.001), known_dial=0.05)
        callers = [sim.caller(at=0.0, hold=1.0, timeout=30.0) for _ in range(5)]
        sim.run(10.0)
        assert [0.0, 1.0, 2.0, 3.0, 4.0] == [caller.granted_at for caller in callers]

    def test_a_dial_that_hangs_gives_its_room_back(self) -> None:
        """A server that never answers costs ``connect_timeout``, then another dial has the room."""
        sim = Simulator(max_size=1, dial=[math.inf, 0.05], known_dial=0.05, connect_timeout=2.0)
        caller = sim.caller(at=0.0, timeout=30.0)
        sim.run(10.0)
        assert 2.0 < (caller.granted_at or 0.0) < 3.0
        assert 1 == sim.ledger.counts["abandoned"]

    def test_abandoned_dials_are_capped(self) -> None:
        """Threads that hang in a driver are not piled up without end: ``max_dialing`` counts them."""
        sim = Simulator(max_size=10, dial=math.inf, known_dial=0.05, connect_timeout=1.0, max_dialing=3)
        for _ in range(10):
            sim.caller(at=0.0, timeout=60.0)
        sim.run(60.0)
        assert 3 == len(sim.dials)
        assert 3 == len(sim.ledger.abandoned)

    def test_a_late_connection_is_closed(self) -> None:
        """What lands after its dial was given up is closed on arrival, and counted."""
        sim = Simulator(max_size=1, dial=[5.0, 0.05], known_dial=0.05, connect_timeout=2.0)
        sim.caller(at=0.0, hold=LONG)
        sim.run(10.0)
        assert (2, 1, 1) == (sim.opened, sim.closed, sim.retired("late"))
        told = [what for _, what, _ in sim.told]
        assert (2, 1) == (told.count("opened"), told.count("retired"))
        assert 0 == len(sim.ledger.abandoned)


class TestFailAfter:
    """``fail_after``: after so long an outage nobody waits any more."""

    def test_callers_are_told_at_once(self) -> None:
        """Those who wait at that instant, and those who come later; each with the cause."""
        sim = Simulator(max_size=2, dial=FailedDial(0.001), known_dial=0.05, fail_after=3.0)
        early = sim.caller(at=0.0, timeout=60.0)
        sim.run(2.9)
        assert "waiting" == early.outcome
        sim.run(3.5)
        assert isinstance(early.error, PoolTimeout)
        late = sim.caller(at=20.0, timeout=60.0)
        sim.run(20.002)  # a dial is begun for it, since only a dial can tell; that one is refused, too
        assert isinstance(late.error, PoolTimeout)
        assert isinstance(late.error.__cause__, DialError)

    def test_those_who_may_get_what_is_out_still_wait(self) -> None:
        """It is not hopeless while somebody may give back."""
        sim = Simulator(max_size=2, idle=1, dial=FailedDial(0.001), known_dial=0.05, fail_after=1.0)
        sim.caller(at=0.0, hold=10.0)
        waiting = sim.caller(at=0.1, timeout=60.0)
        sim.run(20.0)
        assert 10.0 == waiting.granted_at

    def test_nobody_waits_for_a_dial_that_hangs(self) -> None:
        """A dial that is late by the rule is no hope: whoever comes is told within two estimates."""
        script = lambda number, now: FailedDial(0.001) if now < 10.0 else math.inf  # noqa: E731  it is a script
        sim = Simulator(max_size=2, dial=script, known_dial=0.05, fail_after=3.0)
        sim.caller(at=0.0, timeout=60.0)
        first, later = sim.caller(at=20.0, timeout=60.0), sim.caller(at=21.0, timeout=60.0)
        sim.run(20.11)
        assert isinstance(first.error, PoolTimeout)
        sim.run(21.11)
        assert isinstance(later.error, PoolTimeout)

    def test_the_next_success_ends_it(self) -> None:
        """A caller who comes when the server is back makes the dial that finds out."""
        sim = Simulator(max_size=2, dial=down_until(30.0), known_dial=0.05, fail_after=1.0)  # type: ignore[arg-type]  # a script
        sim.caller(at=0.0, timeout=60.0)
        for at in (31.0, 31.5, 32.0):
            sim.caller(at=at, timeout=60.0)
        sim.run(40.0)
        assert "returned" == sim.callers[-1].outcome


class TestCredentials:
    """Refused credentials are never tried again by the pool itself: that could lock the account."""

    def test_one_try_for_each_caller_and_one_a_second_at_most(self) -> None:
        """A hundred callers in ten seconds make ten dials; without a caller there is none."""
        sim = Simulator(max_size=10, dial=FailedDial(0.001, Fault.CREDENTIALS), known_dial=0.05, min_idle=0)
        for number in range(100):
            sim.caller(at=0.1 * number, timeout=0.05)
        sim.run(100.0)
        assert len(sim.dials) <= 11
        assert max(sim.dials) < 10.0
        assert all(later - sooner >= 1.0 for sooner, later in pairwise(sim.dials))

    def test_min_idle_does_not_try_again(self) -> None:
        """An hour with a wrong password is one attempt."""
        sim = Simulator(max_size=10, min_idle=1, dial=FailedDial(0.001, Fault.CREDENTIALS))
        sim.run(3_600.0)
        assert 1 == len(sim.dials)

    def test_callers_are_told_the_drivers_own_word(self) -> None:
        """Not a time-out: the error that says what is refused."""
        sim = Simulator(max_size=10, dial=FailedDial(0.001, Fault.CREDENTIALS), known_dial=0.05)
        first, second = sim.caller(at=0.0, timeout=30.0), sim.caller(at=0.5, timeout=30.0)
        sim.run(1.0)
        assert [Fault.CREDENTIALS] * 2 == [c.error.fault for c in (first, second) if isinstance(c.error, DialError)]

    def test_a_right_password_ends_it(self) -> None:
        """The caller who comes after it was put right is served."""
        sim = Simulator(max_size=2, dial=down_until(5.0, Fault.CREDENTIALS))  # type: ignore[arg-type]  # a script
        sim.caller(at=0.0)
        last = sim.caller(at=6.0, hold=1.0)
        sim.run(10.0)
        assert 6.05 == pytest.approx(last.granted_at)

    def test_who_asks_in_the_pause_gets_a_dial_of_its_own(self) -> None:
        """While a connection is out that may come back, a caller waits, and its dial is made when the pause is over."""
        refused, accepted = FailedDial(0.001, Fault.CREDENTIALS), 0.05
        sim = Simulator(max_size=3, idle=1, dial=[refused, accepted, accepted], known_dial=0.05)
        sim.caller(at=0.0, hold=LONG)
        sim.caller(at=1.0, hold=LONG, timeout=30.0)
        sim.run(1.5)
        (first,) = sim.dials
        late = sim.caller(at=1.5, hold=LONG, timeout=30.0)
        sim.run(20.0)
        assert [first, pytest.approx(first + 1.001)] == sim.dials[:2]
        assert ["holding", "holding"] == [caller.outcome for caller in (*sim.callers[1:2], late)]

    def test_who_asked_before_waits_for_what_is_out(self) -> None:
        """Nobody has asked since the refusal: nothing is dialled, and what comes back is handed over."""
        sim = Simulator(max_size=3, idle=1, dial=FailedDial(0.001, Fault.CREDENTIALS), known_dial=0.05)
        sim.caller(at=0.0, hold=40.0)
        waiting = sim.caller(at=1.0, hold=LONG, timeout=60.0)
        sim.run(50.0)
        assert 1 == len(sim.dials)
        assert 40.0 == waiting.granted_at

    def test_a_crowd_makes_one_dial_a_second(self) -> None:
        """However many wait: dials are made one by one until one is accepted, and never twice within a second."""
        sim = Simulator(max_size=20, idle=1, dial=down_until(8.0, Fault.CREDENTIALS), known_dial=0.05)  # type: ignore[arg-type]  # a script
        sim.caller(at=0.0, hold=LONG)
        for number in range(100):
            sim.caller(at=1.0 + 0.09 * number, hold=0.01, timeout=60.0)
        sim.run(20.0)
        tries = [at for at in sim.dials if at < 8.0]
        assert 6 <= len(tries) <= 7
        assert all(later - sooner >= 1.0 for sooner, later in pairwise(tries))
        assert {"returned"} == {caller.outcome for caller in sim.callers[1:]}

    @pytest.mark.parametrize("after", [0.001, math.inf])
    def test_the_pause_holds_whatever_else_goes_wrong(self, after: float) -> None:
        """A server that is unreachable after it refused credentials, or hangs, is tried once a second at most."""
        script = lambda number, now: FailedDial(*((0.001, Fault.CREDENTIALS) if now < 2.0 else (after, Fault.REFUSED)))  # noqa: E731  it is a script
        sim = Simulator(max_size=20, idle=1, dial=script, known_dial=0.05)
        sim.caller(at=0.0, hold=LONG)
        for number in range(100):
            sim.caller(at=1.0 + 0.09 * number, timeout=8.0)
        sim.run(30.0)
        assert len(sim.dials) > 5
        assert all(later - sooner >= 1.0 for sooner, later in pairwise(sim.dials))
