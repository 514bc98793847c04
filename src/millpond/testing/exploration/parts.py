"""What a world is made of: connections, slots in hands, conversations that stand still, and what is raised in it.

Why apart from the world: these are things, which know only of themselves; what becomes of them is decided there.

It must not hold a slot for longer than what it stands for would: one that nobody holds must be found by the pool.
"""

from __future__ import annotations

import functools
from collections.abc import Generator
from typing import TYPE_CHECKING, Any

from millpond._core.states import FOREVER, Fault

from .planting import Core

if TYPE_CHECKING:
    from .world import World


class GivenUp(BaseException):
    """Thrown into a conversation whose caller is called away."""


class Trouble(Exception):
    """What a driver raises; ``fault`` is what it means."""

    def __init__(self, fault: Fault = Fault.GONE) -> None:
        super().__init__(fault.value)
        self.fault = fault


class Refused(Exception):
    """What a caller is told by the pool: ``why`` is "timed out", "closed" or "queue full"."""

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why


class Violation(AssertionError):
    """Something that must hold does not."""


def must(holds: object, what: str) -> None:
    """Raise Violation unless something holds."""
    if not holds:
        raise Violation(what)


class Conn:
    """A connection: what the server and the driver would know about it."""

    __slots__ = ("answer_out", "closed", "dead", "dirty", "disowned", "holder", "notice", "number", "proved_at", "user")

    def __init__(self, number: int, now: float) -> None:
        self.number = number
        self.dead = False
        self.dirty = False
        self.answer_out = False  # a deferred reset was sent, its answer is unread
        self.proved_at = now  # when it was last known to be alive
        self.holder: Held | None = None
        self.user: Talk | None = None  # who is in a driver's call with it
        self.notice: Any = None  # the notice by which it is closed: there must be one, once
        self.closed = False
        self.disowned = False  # cut: its holder closes it

    def __repr__(self) -> str:
        return f"c{self.number}"


class Held:
    """A slot in the hands of a caller, or of a shell between two instructions."""

    __slots__ = ("now", "slot", "stage", "timeout")

    def __init__(self, slot: Any, stage: str = "", now: float = 0.0, timeout: float = 0.0) -> None:
        self.slot = slot
        self.stage = stage
        self.now = now  # the clock as it was read at the beginning
        self.timeout = timeout


class Waiter:
    """What a parked conversation is woken by."""

    __slots__ = ("woken",)

    def __init__(self) -> None:
        self.woken = False


class Struck:
    """Takes the word of a finalizer that a signal has struck: none."""

    def take(self, what: Any) -> None:
        """Say nothing to nobody."""


class Talk:
    """A conversation, stopped at a yield."""

    __slots__ = (
        "asked_at", "conversation", "deadline", "kind", "overtime", "queues", "subject", "thrown", "until", "verb",
    )  # fmt: skip

    def __init__(self, kind: str, conversation: Generator[Any, Any, Any], deadline: float = FOREVER) -> None:
        self.kind = kind
        self.conversation = conversation
        self.deadline = deadline
        self.verb = ""
        self.subject: Any = None
        self.until = FOREVER
        self.asked_at = 0.0
        self.overtime = 0
        self.queues = True
        self.thrown = False  # something was thrown in that it must not swallow


@functools.cache
def watched(core: Core) -> type[Any]:
    """Return the ledger of *core*, with every decision shown to the world."""
    gone = core.states.GONE

    base: Any = core.ledger.Ledger

    class Watched(base):  # type: ignore[misc]  # pyright: ignore[reportUntypedBaseClass]  # planted cores have their own
        world: World

        def move(self, slot: Any, state: Any) -> None:
            self.world.moves(slot, state)
            base.move(self, slot, state)

        def forget(self, slot: Any) -> None:
            if slot.state is not gone:
                self.world.seen.moves[slot.state, gone] += 1
            base.forget(self, slot)

        def grant(self, slot: Any, now: float) -> None:
            oldest = next(iter(self.tickets))
            base.grant(self, slot, now)
            must(oldest.slot is slot, "somebody was served before the oldest caller")

    return Watched


def timed_out(_ledger: Any, _waited_s: float) -> Refused:
    """Make the error of a caller who has waited in vain."""
    return Refused("timed out")


def closed() -> Refused:
    """Make the error of a caller of a closed pool."""
    return Refused("closed")


def queue_full(_ledger: Any) -> Refused:
    """Make the error of a caller who found too many others."""
    return Refused("queue full")
