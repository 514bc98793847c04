"""What an exploration must have seen: a search that never went somewhere has proved nothing about that place.

Three lists: every answer to every verb that a conversation can ask with, every change of state that is legal, and named
situations.  An exploration counts them all, and one that stays at zero is a failure of the exploration.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from millpond._core.states import LEGAL, Reason, State

# "late": the answer comes after its time; "never": it does not come while anybody waits for it; "cancel": a
# BaseException is thrown in instead; "drop": the conversation is forgotten (GeneratorExit).
_ALWAYS = ("ok", "error", "late", "never", "cancel", "drop")
ANSWERS: dict[tuple[str, str], tuple[str, ...]] = {
    ("checkout", "park"): (*_ALWAYS, "spurious"),
    ("checkout", "check"): (*_ALWAYS, "false"),
    ("checkout", "collect"): (*_ALWAYS, "false", "none"),
    ("checkout", "open"): _ALWAYS,
    ("checkin", "reset"): (*_ALWAYS, "false"),
    ("checkin", "defer"): (*_ALWAYS, "false", "none"),
    ("dial", "open"): (*_ALWAYS, "none"),
    ("tend", "check"): (*_ALWAYS, "false"),
    ("tend", "collect"): (*_ALWAYS, "false", "none"),
    ("wait", "park"): (*_ALWAYS, "spurious"),
}

SITUATIONS = (
    # callers
    "a caller gave up while the dial that it had asked for was in flight",
    "a caller was called away after it had been granted a connection",
    "a caller was dropped after it had been granted a connection",
    "a check that was broken off was left to whoever comes next",
    "a caller's wait timed out",
    "a caller was turned away: the queue is full",
    "a caller was told that the pool is closed",
    "a caller was told the driver's own error",
    "a caller asked after close",
    "a caller asked who does not queue",
    "a caller took over a dial that no dialer had begun",
    # the fast path
    "popped although somebody had queued meanwhile",
    "popped and handed to a conversation, in doubt",
    "popped when the shelf was empty already",
    "dropped between two bytecodes of a checkout",
    "dropped between two bytecodes of a return",
    "pushed although somebody had queued meanwhile",
    "pushed although the pool was drained meanwhile",
    "pushed although the pool was closed meanwhile",
    "returned after being cut",
    "a lease was dropped",
    "a finalizer was struck by a signal",
    # dials
    "a dial landed after it had been given up",
    "a dial failed after it had been given up",
    "a dialer never began",
    "a dialer began twice",
    "a dialer could not be started",
    "a dialer could not be started, for a dial that was begun already",
    "a dial was refused: server full",
    "a dial was refused: credentials",
    "a dial was refused: gone",
    "a dial was refused: refused",
    "a dial was refused: transient",
    "a dial failed before any had succeeded",
    "callers were told at once during a long outage",
    "a caller asked in the pause after refused credentials",
    "a replacement was dialled before the end of a lifetime",
    # notices
    "a notice was delivered twice",
    "a wake-up was lost",
    "a dial's notice was lost",
    "a tend's notice was lost",
    "a tick came late",
    "a tick came early",
    # the whole pool
    "drained", "closed", "closed twice", "cut", "made larger", "made smaller", "made smaller with connections out",
    "a watcher was there in time", "a watcher's time was up",
    "a watcher was told of close", "a watcher was told of an error",
    "every link broke",
)  # fmt: skip


def moves() -> Iterator[tuple[State, State]]:
    """Yield every legal change of state."""
    for before, afters in LEGAL.items():
        for after in sorted(afters, key=lambda state: state.value):
            yield before, after


@dataclass
class Seen:
    """How often everything was seen."""

    answers: Counter[tuple[str, str, str]] = field(default_factory=Counter[tuple[str, str, str]])
    moves: Counter[tuple[State, State]] = field(default_factory=Counter[tuple[State, State]])
    situations: Counter[str] = field(default_factory=Counter[str])
    reasons: Counter[str] = field(default_factory=Counter[str])
    steps: int = 0
    seeds: int = 0

    def missing(self) -> list[str]:
        """Return what should have been seen and was not."""
        wanted = ((kind, verb, how) for (kind, verb), answers in ANSWERS.items() for how in answers)
        return [
            *(f"{kind}: {verb} answered {how!r}" for kind, verb, how in wanted if not self.answers[kind, verb, how]),
            *(
                f"a slot that is {before.value} becomes {after.value}"
                for before, after in moves()
                if not self.moves[before, after]
            ),
            *(situation for situation in SITUATIONS if not self.situations[situation]),
            *(f"a connection given up: {why.value}" for why in Reason if not self.reasons[why.value]),
        ]

    def table(self) -> str:
        """Return everything that was seen, with how often."""
        lines = [f"{self.seeds:,} seeds, {self.steps:,} steps", "", "answers to verbs:"]
        for (kind, verb), answers in ANSWERS.items():
            told = "  ".join(f"{how} {self.answers[kind, verb, how]:,}" for how in answers)
            lines.append(f"  {kind + ': ' + verb:<18} {told}")
        lines += ["changes of state:"]
        lines += [
            f"  {before.value + ' -> ' + after.value:<26} {self.moves[before, after]:,}" for before, after in moves()
        ]
        lines += ["situations:"]
        lines += [f"  {situation:<72} {self.situations[situation]:,}" for situation in SITUATIONS]
        lines += ["connections given up:"]
        lines += [f"  {why.value:<26} {self.reasons[why.value]:,}" for why in Reason]
        return "\n".join(lines)
