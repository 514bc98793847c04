"""Drive a world by random numbers: a seed is a whole history, and can be played again.

Every seed draws its own pool (sizes, times, habits) and its own mixture of events, some of them none at all: a search
that does everything equally often goes to the same places again and again.
"""

from __future__ import annotations

import random
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate

from millpond._core.states import FOREVER, Fault
from millpond.limits import Limits

from .coverage import Seen
from .planting import REAL, Core
from .rest import close_down, come_to_rest
from .world import World

CROWD = 12  # conversations at the same time, at most
TIMEOUTS = (0.0, 0.01, 0.5, 5.0, 60.0, 60.0, 60.0, FOREVER)
LIKELY = {"ok": 30, "late": 4, "false": 5, "none": 8, "error": 4, "cancel": 4, "spurious": 2, "drop": 1, "never": 1}
SELDOM = {"tend": 0.3, "checkin": 0.15}  # not many of these are held, and each answer has to be seen: so often, any
FAULTS = tuple(Fault)


@dataclass(frozen=True)
class Failure:
    """What a seed has found.

    Args:
        seed: the one that found it.
        error: what did not hold.
        story: the steps that led there, the last one last.
        where: the traceback.
    """

    seed: int
    error: BaseException
    story: tuple[str, ...]
    where: str


def explore(seed: int, seen: Seen, core: Core = REAL) -> Failure | None:
    """Play one seed; return what did not hold, or None."""
    failure = play(seed, seen, core, None)
    if failure is not None:
        story: list[str] = []
        play(seed, Seen(), core, story)
        return Failure(seed, failure, tuple(story), "".join(traceback.format_exception(failure)))
    return None


def play(seed: int, seen: Seen, core: Core, story: list[str] | None) -> BaseException | None:
    """Play one seed, writing down its *story* if there is somewhere to write."""
    explorer = Explorer(seed, seen, core, None if story is None else story.append)
    try:
        explorer.run()
    except Exception as error:  # noqa: BLE001  whatever it is: nothing may go wrong in the core
        return error
    finally:
        seen.seeds += 1
    return None


def draw_limits(draw: random.Random) -> Limits:
    """Return the limits of some pool."""
    pick = draw.choice
    max_size = pick((1, 1, 2, 2, 3, 4))
    return Limits(
        max_size=max_size,
        min_idle=pick((0, 0, 0, 1, max_size)),
        max_lifetime_s=pick((FOREVER, 1800.0, 60.0, 10.0)),
        idle_timeout_s=pick((FOREVER, 600.0, 20.0, 3.0)),
        check_after_s=pick((FOREVER, 30.0, 5.0, 0.0)),
        check_timeout_s=2.0,
        connect_timeout_s=pick((10.0, 10.0, 1.0)),
        fail_after_s=pick((FOREVER, FOREVER, FOREVER, 3.0, 0.0)),
        max_uses=pick((FOREVER, FOREVER, FOREVER, 1, 3)),
        max_idle=pick((FOREVER, FOREVER, FOREVER, FOREVER, max_size)),
        max_waiting=pick((FOREVER, FOREVER, FOREVER, 0, 2)),
        max_dialing=pick((64, 64, 2, 1)),
        lifo=draw.random() < 0.85,
        eager=draw.random() < 0.2,
        callers_dial=draw.random() < 0.12,
    )


class Explorer:
    """One seed's history."""

    def __init__(self, seed: int, seen: Seen, core: Core, note: Callable[[str], object] | None) -> None:
        self.draw = draw = random.Random(seed)
        self.world = World(
            draw_limits(draw),
            seen,
            draw.random,
            core=core,
            defers=draw.random() < 0.4,
            polls=draw.random() < 0.4,
            note=note,
        )
        self.luck = draw.choice((0.4, 0.7, 0.9))  # how often an answer is a good one
        self.punctual = draw.choice((0.6, 0.9, 1.0))  # how often notices are delivered at once
        self.troubled = draw.random() < 0.4  # notices are lost and repeated, threads do not start
        # Few callers and much time: most of what happens is housekeeping.
        self.quiet = draw.random() < (0.6 if self.world.ledger.ports.defers else 0.2)
        self.steps = draw.randrange(30, 170)
        self.moves, self.weights = self.draw_moves()

    def draw_moves(self) -> tuple[list[Callable[[], bool]], list[float]]:
        """Return what may happen in this history, and how likely each is."""
        likely = {
            self.ask: 2.0, self.pop: 5.0, self.pop_on: 12.0, self.give_back: 8.0, self.push_on: 14.0, self.answer: 24.0,
            self.begin_job: 10.0, self.pass_time: 6.0, self.tick: 5.0, self.haunt: 2.0, self.drain: 0.4,
            self.resize: 0.6, self.close: 0.15, self.cut: 0.5, self.watch: 0.8, self.break_links: 0.4,
        }  # fmt: skip
        if self.quiet:
            likely |= {self.ask: 1.0, self.pop: 2.0, self.pass_time: 12.0, self.tick: 12.0, self.answer: 16.0}
        vital = (self.ask, self.pop_on, self.push_on, self.answer, self.begin_job)
        factors = (0.0, 0.3, 1.0, 1.0, 1.0, 3.0)
        moves = list(likely)
        weights = [likely[move] * (1.0 if move in vital or self.quiet else self.draw.choice(factors)) for move in moves]
        return moves, list(accumulate(weights))

    def run(self) -> None:
        """Play the history to its end."""
        world, seen = self.world, self.world.seen
        for _ in range(self.steps):
            (move,) = self.draw.choices(self.moves, cum_weights=self.weights)
            if not move():
                continue
            self.deliver()
            world.check()
            seen.steps += 1
        self.world.tell("nothing goes wrong any more")
        come_to_rest(world)
        self.world.tell("the end begins")
        close_down(world)

    def index(self, things: Sequence[object]) -> int:
        """Return the place of one of them."""
        return int(self.draw.random() * len(things))

    # ------------------------------------------------------------------ what may happen
    def ask(self) -> bool:
        """Somebody asks on the slow path."""
        if len(self.world.talks) >= CROWD:
            return False
        timeout, queues = self.draw.choice(TIMEOUTS), self.draw.random() < 0.9
        self.world.tell("somebody asks, for", timeout, "" if queues else "without queueing")
        self.world.ask(timeout, queues=queues)
        return True

    def pop(self) -> bool:
        """Somebody asks on the fast path."""
        world = self.world
        if len(world.talks) + len(world.pops) >= CROWD:
            return False
        timeout = self.draw.choice(TIMEOUTS)
        world.tell("somebody asks on the fast path, for", timeout)
        world.pop(timeout)
        return True

    def pop_on(self) -> bool:
        """A checkout on the fast path goes on."""
        world = self.world
        if not world.pops:
            return False
        index, drop = self.index(world.pops), self.draw.random() < 0.05
        held = world.pops[index]
        world.tell(
            "a checkout on the fast path goes on:", held.stage, held.slot or "", "and is dropped" if drop else ""
        )
        del held
        world.pop_on(index, drop=drop)
        return True

    def give_back(self) -> bool:
        """Somebody gives back."""
        world = self.world
        if not world.leases:
            return False
        index = self.index(world.leases)
        likely = (20, 72, 4, 4, 1) if world.ledger.ports.defers else (60, 30, 6, 4, 1)
        (how,) = self.draw.choices(("push", "dirty", "reject", "drop", "silent"), likely)
        world.tell("somebody gives back:", world.leases[index].slot, how)
        world.give_back(index, how)
        return True

    def push_on(self) -> bool:
        """A return on the fast path goes on."""
        world = self.world
        if not world.pushes:
            return False
        index, drop = self.index(world.pushes), self.draw.random() < 0.03
        held = world.pushes[index]
        world.tell("a return on the fast path goes on:", held.stage, held.slot, "and is dropped" if drop else "")
        del held
        world.push_on(index, drop=drop)
        return True

    def answer(self) -> bool:
        """Somebody is answered."""
        world = self.world
        if not world.talks:
            return False
        index = self.index(world.talks)
        talk = world.talks[index]
        possible = list(world.possible(talk))
        if talk.verb == "park" and getattr(talk.subject, "slot", None) is not None and self.draw.random() < 0.2:
            how = self.draw.choice(("cancel", "error", "drop", "never"))  # just when it has been served
        else:
            how = self.draw_answer(talk.kind, talk.verb, possible)
        if not how:
            return False
        fault = self.draw.choice(FAULTS) if how == "error" else Fault.GONE
        world.tell(f"{talk.kind}: {talk.verb}", talk.subject, "is answered", how, fault.value if how == "error" else "")
        del talk
        world.answer(index, how, fault)
        return True

    def draw_answer(self, kind: str, verb: str, possible: list[str]) -> str:
        """Return the answer that somebody gets now; nothing if none comes yet."""
        draw = self.draw
        if draw.random() < SELDOM.get(kind, 0.0):
            return draw.choice(possible)
        if verb == "collect" and draw.random() < 0.5:
            return draw.choice(possible)
        if verb == "defer" and draw.random() < 0.7:
            return "none"  # a server takes its time for a reset
        if "ok" in possible and draw.random() < self.luck:
            return "ok"
        if verb == "park" and draw.random() < 0.6:
            return ""  # sleepers mostly sleep on
        (how,) = draw.choices(possible, [LIKELY[how] for how in possible])
        return how

    def begin_job(self) -> bool:
        """A thread that was started begins."""
        world = self.world
        if not world.jobs:
            return False
        index, never = self.index(world.jobs), self.troubled and self.draw.random() < 0.1
        world.tell("a thread", "will never begin:" if never else "begins:", *world.jobs[index])
        world.begin_job(index, never=never)
        return True

    def pass_time(self) -> bool:
        """Time passes."""
        world, draw = self.world, self.draw
        how = draw.random()
        if how < 0.4:
            seconds = draw.random() * 0.02
        elif how < 0.6:
            seconds = draw.random() * 2.0
        elif how < (0.95 if self.quiet else 0.85) and world.alarm_at < FOREVER:
            seconds = max(0.0, world.alarm_at - world.now)
        else:
            seconds = draw.random() * 40.0
        world.pass_time(seconds)
        world.tell("time has passed:", round(seconds, 3))
        return True

    def tick(self) -> bool:
        """The alarm clock calls."""
        if not self.world.tick_is_due and self.draw.random() > 0.05:
            return False
        self.world.tell("tick")
        self.world.tick()
        return True

    def deliver(self) -> None:
        """Notices are delivered, or not yet."""
        draw = self.draw
        if not self.world.ledger.outbox or draw.random() > self.punctual:
            return
        if not self.troubled:
            self.world.deliver()
            return
        how = draw.random()
        lose, twice, refuse = how < 0.1, how > 0.8, 0.4 < how < 0.44
        self.world.tell(
            "notices", *(["the first is lost"] * lose + ["the first comes again"] * twice + ["no threads"] * refuse)
        )
        self.world.deliver(lose=lose, twice=twice, refuse=refuse)

    def haunt(self) -> bool:
        """A notice is delivered for the second time."""
        world = self.world
        if not world.ghosts:
            return False
        index = self.index(world.ghosts)
        world.tell("a notice comes again:", world.ghosts[index][0].value)
        world.haunt(index, refuse=self.draw.random() < 0.3)
        return True

    def drain(self) -> bool:
        """The pool is drained."""
        self.world.tell("drain")
        self.world.drain(role=self.draw.random() < 0.2)
        return True

    def resize(self) -> bool:
        """The pool is made larger or smaller."""
        max_size = self.draw.choice((1, 2, 3, 4))
        min_idle = int(min(self.draw.choice((0, 0, 1, max_size)), self.world.limits.max_idle))
        self.world.tell("resize to", max_size, min_idle)
        self.world.resize(max_size, min_idle)
        return True

    def close(self) -> bool:
        """The pool is closed."""
        self.world.tell("close")
        self.world.close()
        return True

    def cut(self) -> bool:
        """What is still out is cut off, if the pool is closed."""
        if not self.world.ledger.closed:
            return False
        self.world.tell("cut")
        self.world.cut()
        return True

    def watch(self) -> bool:
        """Somebody waits for the pool."""
        timeout, empty = self.draw.choice((0.0, 1.0, 20.0)), self.draw.random() < 0.3
        self.world.tell("somebody waits for the pool to be", "empty" if empty else "filled", "for", timeout)
        self.world.watch(timeout, empty=empty)
        return True

    def break_links(self) -> bool:
        """The server is restarted."""
        self.world.tell("every link breaks")
        self.world.break_links()
        return True
