"""The same core and the same world, driven by hypothesis: fewer histories, but a failing one is shrunk and remembered.

A failure is kept in hypothesis's database (``.hypothesis``), so that the next run begins with it.
"""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from millpond._core.states import FOREVER, Fault
from millpond.limits import Limits
from millpond.testing.exploration import REAL, Core, Seen, World, planted
from millpond.testing.exploration.parts import Violation
from millpond.testing.exploration.rest import close_down, come_to_rest

from .plants import PLANTS

EXAMPLES = 300
STEPS = 50
CROWD = 12
index = st.integers(0, 11)
timeouts = st.sampled_from((0.0, 0.5, 60.0, FOREVER))

LIMITS = st.builds(
    Limits,
    max_size=st.integers(1, 3),
    min_idle=st.integers(0, 1),
    max_lifetime_s=st.sampled_from((FOREVER, 60.0)),
    idle_timeout_s=st.sampled_from((FOREVER, 20.0)),
    check_after_s=st.sampled_from((30.0, FOREVER, 0.0)),
    connect_timeout_s=st.sampled_from((10.0, 1.0)),
    max_uses=st.sampled_from((FOREVER, 2)),
    lifo=st.booleans(),
    callers_dial=st.booleans(),
)


class PoolMachine(RuleBasedStateMachine):
    """Every step of the world is a rule."""

    core: Core = REAL
    world: World

    @initialize(limits=LIMITS, defers=st.booleans(), polls=st.booleans(), jitter=st.sampled_from((0.0, 0.5, 0.99)))
    def begin(self, limits: Limits, defers: bool, polls: bool, jitter: float) -> None:
        """Make a pool."""
        self.world = World(limits, Seen(), lambda: jitter, core=self.core, defers=defers, polls=polls)

    @rule(timeout=timeouts)
    def ask(self, timeout: float) -> None:
        """Somebody asks on the slow path."""
        if len(self.world.talks) < CROWD:
            self.world.ask(timeout)

    @rule(timeout=timeouts)
    def pop(self, timeout: float) -> None:
        """Somebody asks on the fast path."""
        if len(self.world.pops) < CROWD:
            self.world.pop(timeout)

    @precondition(lambda self: self.world.pops)
    @rule(at=index, drop=st.sampled_from((False, False, False, True)))
    def pop_on(self, at: int, drop: bool) -> None:
        """A checkout on the fast path goes on."""
        self.world.pop_on(at % len(self.world.pops), drop=drop)

    @precondition(lambda self: self.world.leases)
    @rule(at=index, how=st.sampled_from(("push", "push", "dirty", "reject", "drop")))
    def give_back(self, at: int, how: str) -> None:
        """Somebody gives back."""
        self.world.give_back(at % len(self.world.leases), how)

    @precondition(lambda self: self.world.pushes)
    @rule(at=index, drop=st.sampled_from((False, False, False, True)))
    def push_on(self, at: int, drop: bool) -> None:
        """A return on the fast path goes on."""
        self.world.push_on(at % len(self.world.pushes), drop=drop)

    @precondition(lambda self: self.world.talks)
    @rule(at=index, which=index, fault=st.sampled_from(tuple(Fault)))
    def answer(self, at: int, which: int, fault: Fault) -> None:
        """A conversation is answered."""
        at %= len(self.world.talks)
        possible = list(self.world.possible(self.world.talks[at]))
        self.world.answer(at, possible[which % len(possible)], fault)

    @precondition(lambda self: self.world.jobs)
    @rule(at=index, never=st.sampled_from((False, False, False, True)))
    def begin_job(self, at: int, never: bool) -> None:
        """A thread begins, or never will."""
        self.world.begin_job(at % len(self.world.jobs), never=never)

    @rule(lose=st.booleans(), twice=st.booleans(), refuse=st.sampled_from((False, False, False, True)))
    def deliver(self, lose: bool, twice: bool, refuse: bool) -> None:
        """Notices are delivered."""
        self.world.deliver(lose=lose, twice=twice, refuse=refuse)

    @precondition(lambda self: self.world.ghosts)
    @rule(at=index, refuse=st.booleans())
    def haunt(self, at: int, refuse: bool) -> None:
        """A notice is delivered for the second time."""
        self.world.haunt(at % len(self.world.ghosts), refuse=refuse)

    @rule(seconds=st.sampled_from((0.0, 0.01, 0.3, 1.0, 3.0, 31.0)))
    def pass_time(self, seconds: float) -> None:
        """Time passes."""
        self.world.pass_time(seconds)

    @rule()
    def tick(self) -> None:
        """The alarm clock calls."""
        self.world.tick()

    @rule(role=st.booleans())
    def drain(self, role: bool) -> None:
        """The pool is drained."""
        self.world.drain(role=role)

    @rule(max_size=st.integers(1, 4), min_idle=st.integers(0, 1))
    def resize(self, max_size: int, min_idle: int) -> None:
        """The pool is made larger or smaller."""
        self.world.resize(max_size, min_idle)

    @rule()
    def break_links(self) -> None:
        """The server is restarted."""
        self.world.break_links()

    @rule(timeout=st.sampled_from((0.0, 20.0)), empty=st.booleans())
    def watch(self, timeout: float, empty: bool) -> None:
        """Somebody waits for the pool."""
        if len(self.world.talks) < CROWD:
            self.world.watch(timeout, empty=empty)

    @rule()
    def close(self) -> None:
        """The pool is closed."""
        self.world.close()

    @precondition(lambda self: self.world.ledger.closed)
    @rule()
    def cut(self) -> None:
        """What is still out is cut off."""
        self.world.cut()

    @invariant()
    def holds(self) -> None:
        """Whatever must hold after every step, holds."""
        if hasattr(self, "world"):
            self.world.check()

    def teardown(self) -> None:
        """And in the end nothing is left."""
        if hasattr(self, "world"):
            come_to_rest(self.world)
            close_down(self.world)


def test_the_core_keeps_its_promises_in_whatever_hypothesis_thinks_of() -> None:
    """No sequence of steps breaks a promise; one that did would be shrunk, shown and remembered."""
    run_state_machine_as_test(
        PoolMachine,
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=STEPS,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
        ),
    )


def test_a_planted_fault_is_found_and_shrunk() -> None:
    """Hypothesis finds what is planted as well, and tells a short way there."""
    (plant,) = (plant for plant in PLANTS if plant.name.startswith("a dial that lands after it was given up"))
    machine = type("Planted", (PoolMachine,), {"core": planted(plant)})
    with pytest.raises(Violation, match="connections in no slot") as found:
        run_state_machine_as_test(
            machine,
            settings=settings(
                max_examples=400,
                stateful_step_count=15,
                deadline=None,
                derandomize=True,
                database=None,
                report_multiple_bugs=False,
                suppress_health_check=list(HealthCheck),
            ),
        )
    notes: list[str] = getattr(found.value, "__notes__", [])  # Python 3.10 has none: there hypothesis prints them
    steps = [line for note in notes for line in note.splitlines() if line.startswith("state.")]
    assert not notes or "state.begin" in steps[0]
    assert len([step for step in steps if "holds" not in step]) <= 8
