"""Whoever and whatever takes part in a simulation: scripted answers, connections, callers, conversations under way.

Why apart from the simulator: what a test writes down and looks at is here, how time passes for it is there.

It must not decide anything, nor know when anything happens.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from millpond._core.conversations import Request
from millpond._core.states import Fault, Slot

NEVER = math.inf


class DialError(ConnectionError):
    """What a scripted dial fails with; ``fault`` says what it means, as a driver's adapter would."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(fault)  # and no text, so that it can be copied
        self.fault = fault

    def __str__(self) -> str:
        return f"scripted: {self.fault.value}"


class GivenUp(BaseException):
    """Thrown into a caller that gives up, as a cancelled task or an interrupted thread would be."""


@dataclass(frozen=True)
class FailedDial:
    """A dial that fails.

    Args:
        after: seconds until it does; ``math.inf`` for never.
        fault: what its error means.
    """

    after: float = 0.001
    fault: Fault = Fault.REFUSED


@dataclass(frozen=True)
class Answer:
    """What a check, a reset or the reading of its answer brings.

    Args:
        good: False if the connection has to be given up; None: no answer yet (deferred resets only).
        after: seconds until it comes; ``math.inf`` for never.
    """

    good: bool | None = True
    after: float = 0.0


Dial: TypeAlias = "float | FailedDial"
DialScript: TypeAlias = "Dial | Sequence[Dial] | Callable[[int, float], Dial]"
AnswerScript: TypeAlias = "Answer | Callable[[SimConnection, float], Answer]"


@dataclass(eq=False)
class SimConnection:
    """A connection of a simulation.

    Attributes:
        number: dials that landed before it, plus one.
        opened_at, closed_at: instants; ``closed_at`` is None while it is open.
        dead: its link is gone: a check finds that out, and so does its holder.
    """

    number: int
    opened_at: float
    closed_at: float | None = None
    dead: bool = False


@dataclass(eq=False)
class Caller:
    """One who takes a connection, holds it and gives it back, once or again and again.

    Attributes:
        at: when it asked last; ``granted_at``: when it was served; ``returned_at``: when it gave back; None: not yet.
        waits: seconds it waited, one figure for each time it was served.
        error: what it was told instead.
        conn: what it has, or had last.
        slot, talk: the simulator's own.
    """

    name: str
    hold: float
    timeout: float
    again: bool = False
    pause: float = 0.0
    dirty: bool = False
    drops: bool = False
    at: float = 0.0
    granted_at: float | None = None
    returned_at: float | None = None
    error: BaseException | None = None
    conn: SimConnection | None = None
    waits: list[float] = field(default_factory=list[float])
    slot: Slot | None = field(default=None, repr=False)
    talk: Talk | None = field(default=None, repr=False)

    @property
    def waited(self) -> float | None:
        """Seconds it waited before it was served last; None if it never was."""
        return self.waits[-1] if self.waits else None

    @property
    def outcome(self) -> Literal["waiting", "holding", "returned", "failed"]:
        """What has become of it so far."""
        if self.error is not None:
            return "failed"
        if self.slot is not None:
            return "holding"
        return "waiting" if self.granted_at is None else "returned"


class Waiter:
    """What a parked conversation is woken by."""

    __slots__ = ("talk", "turn", "woken")

    def __init__(self) -> None:
        self.talk: Talk | None = None
        self.turn = 0
        self.woken = False


class Talk:
    """A conversation under way; ``turn`` tells a late answer from the one that is waited for."""

    __slots__ = ("conversation", "failed", "finished", "over", "turn")

    def __init__(
        self,
        conversation: Generator[Request, Any, Any],
        finished: Callable[[Any], object],
        failed: Callable[[BaseException], object],
    ) -> None:
        self.conversation = conversation
        self.finished = finished
        self.failed = failed
        self.turn = 0
        self.over = False
