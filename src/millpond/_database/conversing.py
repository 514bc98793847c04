"""What takes time, told as a generator: what a conversation is, and what a shell lends it.

Why: what a database does for a call is the same for threads and for tasks, but for the waiting.  So it is told once.  A
conversation yields whatever a driver or a pool returned, and is sent what that stands for: to a thread it is the answer
already, a task awaits it.  ``threads.py`` and ``tasks.py`` hold conversations, and hold nothing else.

Rules:
- What may have to be waited for is yielded, and nothing else is: ``rows = yield cursor.fetchall()``.
- What goes wrong while a shell waits is thrown in where the conversation has yielded.
- Whoever was called away (:meth:`Waits.may_wait`) yields nothing any more, but for the savepoint of a transaction that
  goes on.  GeneratorExit says that nobody waits at all.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from typing import Any, NamedTuple, Protocol, TypeAlias, TypeVar, cast

from millpond.errors import InvalidSetting

T = TypeVar("T")

Conversation: TypeAlias = Generator[Any, Any, T]


class StreamLeft(BaseException):
    """Thrown into a conversation that has come to rows: no more of them are wanted, and what is left can be waited for.

    Not GeneratorExit, which closes what a conversation delegates to, and is never thrown there.
    """


class Rows(NamedTuple):
    """What a conversation yields for its shell to pass on, row by row.

    Attributes:
        cursor: fetches from the server as it is read.
        maker: what makes of a tuple what was asked for; None: it stays one.
    """

    cursor: Any
    maker: Callable[[Any], Any] | None


class Deadline(NamedTuple):
    """The time that a call has.

    Attributes:
        seconds: as the caller said.
        at: when it is over, on the monotonic clock.
    """

    seconds: float
    at: float

    def left_s(self) -> float:
        """Return the seconds that are left; none, or less, if it is over."""
        return self.at - time.monotonic()


class Watch(Protocol):
    """A deadline of one statement: when it has passed, the statement is ended, and if that does not help, the link."""

    def disarm(self) -> bool:
        """Say that the statement is done; return whether somebody had begun to end it."""
        ...

    def wait_until_settled(self, seconds: float) -> Any:
        """Wait until nobody is about to end the statement any more; the answer says whether it came to that."""


class Waits(Protocol):
    """What threads and tasks do each in their own way."""

    def watch(self, seconds: float, end: Callable[[], Conversation[None]] | None, cut: Callable[[], object]) -> Watch:
        """Have a statement ended after so many seconds, beside whoever waits for it.

        Args:
            seconds: until then.
            end: ends it; None: there is no way to, and the link is cut at once.
            cut: makes whoever waits for the answer stop.
        """
        ...

    def open_beside(self, driver: Any) -> Any:
        """Open a connection beside the pool's, and not wait for it for long."""

    def may_wait(self, error: BaseException) -> bool:
        """Say whether whoever is on the way out with *error* may wait for an answer."""
        ...


def deadline_of(timeout: float | None) -> Deadline | None:
    """Return when a call's time is over; None if it has no limit.

    Raises:
        InvalidSetting: *timeout* is not more than 0.
    """
    if timeout is None:
        return None
    given = cast("object", timeout)
    if isinstance(given, bool) or not isinstance(given, (int, float)) or not 0 < given < float("inf"):
        raise InvalidSetting("timeout", timeout, "seconds, more than 0, or None")
    return Deadline(float(timeout), time.monotonic() + timeout)
