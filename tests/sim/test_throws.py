"""Something is thrown in at every yield of every conversation, in every situation of the pool: the ledger stays whole.

No chance in here: each path through a conversation is walked yield by yield; at each of them an exception, a
cancellation or a GeneratorExit is thrown in, with the pool as it was, drained, made smaller, closed, or closed and cut
meanwhile.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from millpond.limits import Limits
from millpond.testing.exploration import Seen, World
from millpond.testing.exploration.parts import Talk
from millpond.testing.exploration.rest import close_down, come_to_rest

THROWN = ("error", "cancel", "drop")


@dataclass(frozen=True)
class Path:
    """A way through a conversation.

    Args:
        name: what it is about.
        begin: brings a world to the first yield of the conversation, and returns it.
        answers: what it is answered, yield by yield; the last one ends it.
        verbs: what it asks for, yield by yield.
        settings: the pool's.
        defers: resets are sent at return and their answers collected later.
    """

    name: str
    begin: Callable[[World], Talk]
    answers: tuple[str, ...]
    verbs: tuple[str, ...]
    settings: dict[str, Any]
    defers: bool = False

    def walk(self, steps: int) -> tuple[World, Talk]:
        """Return a world in which the conversation has come to its yield number *steps*, from 0."""
        world = World(Limits.of(**self.settings), Seen(), lambda: 0.0, defers=self.defers)
        talk = self.begin(world)
        for answer in self.answers[:steps]:
            if answer == "grant":
                grant(world)
            else:
                world.answer(world.talks.index(talk), answer)
            world.deliver()
        assert self.verbs[steps] == talk.verb
        return world, talk


def the(world: World, kind: str) -> Talk:
    """Return the only conversation of a kind."""
    (talk,) = (talk for talk in world.talks if talk.kind == kind)
    return talk


def dialled(world: World, connections: int = 1) -> None:
    """Have callers hold so many connections."""
    for _ in range(connections):
        world.ask(60.0)
        world.deliver()
        while world.jobs:
            world.begin_job(0)
        for kind in ("dial", "checkout"):
            talk = next((talk for talk in world.talks if talk.kind == kind), None)
            if talk is not None:
                world.answer(world.talks.index(talk), "ok")
                world.deliver()
    assert connections == len(world.leases)


def shelved(world: World, connections: int = 1, *, how: str = "push") -> None:
    """Have so many connections given back."""
    dialled(world, connections)
    for _ in range(connections):
        world.give_back(0, how)
        while world.pushes:
            world.push_on(0)
    world.deliver()


def grant(world: World) -> None:
    """Have a connection come back for whoever waits."""
    world.give_back(0, "push")
    world.deliver()


def dial(world: World) -> Talk:
    """A dialer opens a connection."""
    world.ask(60.0)
    world.deliver()
    world.begin_job(0)
    return the(world, "dial")


def queue(world: World) -> Talk:
    """A caller waits for a connection that is out."""
    dialled(world)
    world.ask(60.0)
    return the(world, "checkout")


def stale(world: World, connections: int = 1) -> Talk:
    """A caller takes a connection that was not used for long."""
    shelved(world, connections)
    world.pass_time(31.0)
    world.ask(60.0)
    return the(world, "checkout")


def stale_for_a_waiter(world: World) -> Talk:
    """Somebody waits, and what comes back is handed to him unproved: another caller was called away."""
    talk = queue(world)
    world.ask(60.0)
    other = next(other for other in world.talks if other is not talk)
    world.pass_time(31.0)
    world.give_back(0, "push")  # to the first
    world.pass_time(31.0)
    world.answer(world.talks.index(talk), "cancel")  # who is called away before he could take it
    world.deliver()
    return other


def caller_dials(world: World) -> Talk:
    """A caller dials for himself."""
    world.ask(60.0)
    return the(world, "checkout")


def caller_takes_over(world: World) -> Talk:
    """No dialer ever answers: after a while the caller dials for himself."""
    world.ask(60.0)
    world.deliver()
    return the(world, "checkout")


def settling(world: World) -> Talk:
    """A caller takes a connection whose reset is unanswered."""
    shelved_settling(world)
    world.ask(60.0)
    return the(world, "checkout")


def shelved_settling(world: World) -> None:
    """Have a connection given back whose reset is unanswered."""
    dialled(world)
    world.give_back(0, "dirty")
    world.answer(0, "none")


def cleaning(world: World) -> Talk:
    """A dirty connection is given back."""
    dialled(world)
    world.give_back(0, "dirty")
    return the(world, "checkin")


def tended(world: World) -> Talk:
    """Housekeeping checks two connections."""
    shelved(world, 2)
    world.pass_time(31.0)
    world.tick()
    world.deliver()
    world.begin_job(0)
    return the(world, "tend")


def collected(world: World) -> Talk:
    """Housekeeping reads the answer to a reset."""
    shelved_settling(world)
    world.pass_time(1.0)
    world.tick()
    world.deliver()
    world.begin_job(0)
    return the(world, "tend")


def watching(world: World, *, empty: bool) -> Talk:
    """Somebody waits for the pool."""
    dialled(world)
    world.watch(10.0, empty=empty)
    return the(world, "wait")


PATHS = (
    Path("dial", dial, ("ok",), ("open",), {}),
    Path("wait for a return", queue, ("grant", "ok"), ("park", "park"), {"max_size": 1}),
    Path("wait, woken for nothing", queue, ("spurious", "grant", "ok"), ("park",) * 3, {"max_size": 1}),
    Path("check", stale, ("ok",), ("check",), {}),
    Path(
        "check two dead ones", lambda world: stale(world, 2), ("false", "false", "late"), ("check", "check", "park"), {}
    ),
    Path("check what another was granted", stale_for_a_waiter, ("ok", "ok"), ("park", "check"), {"max_size": 1}),
    Path("dial in the caller", caller_dials, ("ok",), ("open",), {"dial": "caller"}),
    Path("dial for whom no dialer answers", caller_takes_over, ("late", "ok"), ("park", "open"), {}),
    Path("collect", settling, ("ok",), ("collect",), {}, defers=True),
    Path("collect again", settling, ("none", "none", "ok"), ("collect",) * 3, {"max_size": 1}, defers=True),
    Path("reset", cleaning, ("ok",), ("reset",), {}),
    Path("send a reset", cleaning, ("none",), ("defer",), {}, defers=True),
    Path("tend", tended, ("ok", "ok"), ("check", "check"), {}),
    Path("collect while tending", collected, ("ok",), ("collect",), {}, defers=True),
    Path("watch for empty", lambda world: watching(world, empty=True), ("late",), ("park",), {}),
    Path("watch for min_idle", lambda world: watching(world, empty=False), ("late",), ("park",), {"min_idle": 3}),
)  # fmt: skip


def nothing(_: World) -> None:
    """Leave the pool as it is."""


def closed_and_cut(world: World) -> None:
    """Close the pool, and disown what is still out."""
    world.close()
    world.cut()


SITUATIONS: dict[str, Callable[[World], None]] = {
    "as it was": nothing,
    "drained": World.drain,
    "made smaller": lambda world: world.resize(1, 0),
    "closed": World.close,
    "closed and cut": closed_and_cut,
}


def cases() -> Iterator[Any]:
    """Yield every path, yield, situation and exception."""
    for path in PATHS:
        for step, situation, thrown in itertools.product(range(len(path.verbs)), SITUATIONS, THROWN):
            yield pytest.param(path, step, situation, thrown, id=f"{path.name}-{step}-{situation}-{thrown}")


@pytest.mark.parametrize(("path", "step", "situation", "thrown"), list(cases()))
def test_the_ledger_stays_whole(path: Path, step: int, situation: str, thrown: str) -> None:
    """Whatever is thrown in wherever: nobody is stranded, nothing is lost, and everything is closed in the end."""
    world, talk = path.walk(step)
    SITUATIONS[situation](world)
    world.check()
    if talk in world.talks:
        world.answer(world.talks.index(talk), thrown)
    world.check()
    come_to_rest(world)
    close_down(world)


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.name)
def test_a_path_leads_where_it_says(path: Path) -> None:
    """Undisturbed, a conversation ends with its last answer: the paths above are whole."""
    world, talk = path.walk(len(path.verbs) - 1)
    world.answer(world.talks.index(talk), path.answers[-1])
    world.check()
    assert talk not in world.talks
    close_down(world)


def test_every_request_of_every_conversation_is_on_some_path() -> None:
    """No verb of any conversation is left out of the enumeration."""
    seen = Seen()
    walked = {(path.walk(0)[1].kind, verb) for path in PATHS for verb in path.verbs}
    wanted = {line.split(" answered ")[0] for line in seen.missing() if " answered " in line}
    assert wanted == {f"{kind}: {verb}" for kind, verb in walked}
