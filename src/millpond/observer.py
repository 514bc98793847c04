"""What a pool tells while it works: one frozen object an event, to one callable.

An observer is called outside every lock, in whichever thread the event was noticed, and should be quick.  What it
raises is logged and goes no further.  Without an observer nothing is made.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

from .sites import Site


@dataclass(frozen=True)
class Event:
    """Something has happened in the pool of that name."""

    pool: str


@dataclass(frozen=True)
class Opened(Event):
    """A dial has landed, after so many seconds."""

    seconds: float


@dataclass(frozen=True)
class OpenFailed(Event):
    """A dial has failed, after so many seconds, with the driver's exception."""

    seconds: float
    error: BaseException


@dataclass(frozen=True)
class Retired(Event):
    """A connection was given up, after so many uses, at that age in seconds, for a reason of ``PoolStats.retired``."""

    reason: str
    uses: int
    age: float


@dataclass(frozen=True)
class TimedOut(Event):
    """A caller was told PoolTimeout."""

    error: BaseException


@dataclass(frozen=True)
class Dropped(Event):
    """A lease was dropped without being given back, after so many seconds; it was recovered."""

    seconds: float
    site: Site | None


Observer: TypeAlias = Callable[[Event], object]


def event_of(pool: str, what: str, details: dict[str, Any]) -> Event:
    """Make the event of a notice."""
    if what == "opened":
        return Opened(pool, details["seconds"])
    if what == "open_failed":
        return OpenFailed(pool, details["seconds"], details["error"])
    if what == "retired":
        return Retired(pool, details["reason"], details["uses"], details["age"])
    if what == "timed_out":
        return TimedOut(pool, details["error"])
    assert what == "dropped", f"bug: unknown event {what}"
    slot = details["slot"]
    return Dropped(pool, details["held_s"], Site.of(slot.code, slot.instruction))
