"""How threads hold a conversation: what it yields is the answer already, and deadlines are kept by a watchdog."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from .conversing import Conversation, Rows, StreamLeft
from .watchdog import GRACE_S, Watch, Watchdog

T = TypeVar("T")


def held(conversation: Conversation[T]) -> T:
    """Hold a conversation to its end, and return its result."""
    step: Callable[[Any], Any] = conversation.send
    answer: Any = None
    while True:
        try:
            while True:
                answer = step(answer)
                step = conversation.send
        except StopIteration as end:
            found: T = end.value
            return found
        except BaseException as error:
            if has_ended(conversation):
                answer = None  # or an error that was thrown in, and its traceback, would hold each other
                raise
            answer, step = error, conversation.throw  # Ctrl-C just between two steps: it has to be told


def rows_of(conversation: Conversation[None]) -> Iterator[Any]:
    """Hold a conversation, and yield the rows that it comes to; whatever interrupts that is thrown in."""
    step: Callable[[Any], Any] = conversation.send
    answer: Any = None
    while True:
        try:
            given: object = step(answer)
            answer, step = given, conversation.send
            if isinstance(given, Rows):
                yield from each(given)
        except (StopIteration, StreamLeft):
            return
        except GeneratorExit:  # the stream was closed, or dropped
            answer, step = StreamLeft(), conversation.throw
        except BaseException as error:
            if has_ended(conversation):
                answer = None  # or an error that was thrown in, and its traceback, would hold each other
                raise
            answer, step = error, conversation.throw


def has_ended(conversation: Conversation[Any]) -> bool:
    """Say whether what was raised came out of a conversation, and not from beside it."""
    return getattr(conversation, "gi_frame", None) is None


def each(rows: Rows) -> Iterator[Any]:
    """Return an iterator over rows, at the speed of the cursor's own."""
    cursor, maker = rows
    # Never the cursor itself: closing a generator closes what it yields from, and that reads all rows.
    return itertools.chain(cursor) if maker is None else (maker(row) for row in cursor)


class Threads:
    """What threads do in their own way; one for each database."""

    def __init__(self) -> None:
        self._watchdog = Watchdog()

    def watch(self, seconds: float, end: Callable[[], Conversation[None]] | None, cut: Callable[[], object]) -> Watch:
        """Have the watchdog end a statement."""
        watch = Watch(None if end is None else lambda: held(end()), cut)
        self._watchdog.watch(seconds, watch)
        return watch

    def open_beside(self, driver: Any) -> Any:
        """Open a connection, by the driver's own deadline."""
        return driver.open(time.monotonic() + GRACE_S)

    def may_wait(self, error: BaseException) -> bool:  # noqa: ARG002  as a task's
        """Say yes: Ctrl-C ends what a thread waited for, not what it does then."""
        return True
