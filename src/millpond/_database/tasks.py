"""How tasks hold a conversation: what it yields is awaited, and a deadline is a timer of the loop.

Rules: a task that was cancelled does not wait to clean up.  What ends a statement runs in a task of its own, which
nobody's cancellation reaches.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from .conversing import Conversation, Rows, StreamLeft
from .watchdog import GRACE_S, ROUNDS

T = TypeVar("T")


async def held(conversation: Conversation[T]) -> T:
    """Hold a conversation to its end, and return its result."""
    step: Callable[[Any], Any] = conversation.send
    answer: Any = None
    while True:
        try:
            given: Any = step(answer)
        except StopIteration as end:
            found: T = end.value
            return found
        finally:
            answer = None  # an error that was thrown in, and its traceback, would hold each other
        try:
            answer, step = await given if is_awaitable(given) else given, conversation.send
        except GeneratorExit:  # nobody will ever run this task again
            conversation.close()
            raise
        except BaseException as error:  # noqa: BLE001  thrown in, and raised again there
            answer, step = error, conversation.throw


async def rows_of(conversation: Conversation[None]) -> AsyncGenerator[Any, None]:
    """Hold a conversation, and yield the rows that it comes to; whatever interrupts that is thrown in."""
    step: Callable[[Any], Any] = conversation.send
    answer: Any = None
    is_passing_on = False
    while True:
        try:
            given: Any = step(answer)
        except (StopIteration, StreamLeft):
            return
        finally:
            answer = None
        step = conversation.send
        try:
            if isinstance(given, Rows):
                while (row := await given.cursor.fetchone()) is not None:
                    row = row if given.maker is None else given.maker(row)
                    is_passing_on = True
                    yield row
                    is_passing_on = False
            else:
                answer = await given if is_awaitable(given) else given
        except GeneratorExit:
            if not is_passing_on:  # nobody will ever run this task again
                conversation.close()
                raise
            is_passing_on = False
            answer, step = StreamLeft(), conversation.throw
        except BaseException as error:  # noqa: BLE001  thrown in, and raised again there
            answer, step = error, conversation.throw


def is_awaitable(given: object) -> bool:
    """Say whether something has to be awaited; some drivers have methods that only say so by what they return."""
    return hasattr(type(given), "__await__")


class Watch:
    """A deadline of one statement.

    Args:
        seconds: until then.
        end: ends the statement; None: there is no way to, and the link is cut at once.
        cut: makes whoever waits for an answer stop.
        spawn: runs a task that is its own.
    """

    __slots__ = ("_cut", "_end", "_has_fired", "_is_over", "_rounds", "_spawn", "_task", "_timer")

    def __init__(
        self,
        seconds: float,
        end: Callable[[], Conversation[None]] | None,
        cut: Callable[[], object],
        spawn: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]],
    ) -> None:
        self._end = end
        self._cut = cut
        self._spawn = spawn
        self._is_over = False
        self._has_fired = False
        self._rounds = ROUNDS
        self._task: asyncio.Task[None] | None = None  # what ends it, once the deadline has passed
        self._timer = asyncio.get_running_loop().call_later(seconds, self._fire)

    def disarm(self) -> bool:
        """Say that the statement is done; return whether somebody had begun to end it."""
        self._is_over = True
        self._timer.cancel()
        return self._has_fired

    async def wait_until_settled(self, seconds: float) -> bool:
        """Wait until nobody is about to end the statement any more; say whether it came to that."""
        if self._task is None:
            return True
        _, pending = await asyncio.wait((self._task,), timeout=seconds)
        return not pending

    def _fire(self) -> None:
        self._has_fired = True
        if self._end is None:
            self._cut()
            return
        self._task = self._spawn(self._ended(self._end))
        self._timer = asyncio.get_running_loop().call_later(GRACE_S, self._press)

    def _press(self) -> None:
        """Cut the link, unless the order to end the statement is still under way."""
        self._rounds -= 1
        if self._task is not None and not self._task.done() and self._rounds > 0 and not self._is_over:
            self._timer = asyncio.get_running_loop().call_later(GRACE_S, self._press)
        else:
            self._cut_link()

    def _cut_link(self) -> None:
        if not self._is_over:
            self._cut()

    async def _ended(self, end: Callable[[], Conversation[None]]) -> None:
        try:
            await held(end())
        except Exception:  # noqa: BLE001  no second connection was to be had: the link is cut instead
            self._cut_link()


class Tasks:
    """What tasks do in their own way; one for each database."""

    def __init__(self) -> None:
        self._running: set[asyncio.Task[None]] = set()

    def watch(self, seconds: float, end: Callable[[], Conversation[None]] | None, cut: Callable[[], object]) -> Watch:
        """Have a timer of the loop end a statement."""
        return Watch(seconds, end, cut, self._spawn)

    def open_beside(self, driver: Any) -> Awaitable[Any]:
        """Open a connection, or give that up in a moment."""
        return asyncio.wait_for(driver.open(time.monotonic() + GRACE_S), GRACE_S)

    def may_wait(self, error: BaseException) -> bool:
        """Say no for a task that was cancelled."""
        return isinstance(error, Exception)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return task
