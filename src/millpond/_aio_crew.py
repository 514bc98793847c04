"""The tasks of an asynchronous pool, and what becomes of them when their loop ends.

Why: asyncio ends a loop by cancelling every task and waiting for those that it has cancelled.  What these leave behind
on their way out (a goodbye to be said, a statement to be ended on its server) is begun after that, and nobody would
wait for it.  The asynchronous generators that are left are closed a moment later, and that *is* waited for: so a pool
keeps one that waits for nothing else.  See docs/adr/050-the-end-of-a-loop.md.

Rules: nothing in here knows slots or tickets.  No task of ours complains when its loop is closed under it, begun or
not.  What is left of a close is kept until somebody has awaited it to its end.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import weakref
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Generator
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from .forks import everyone_in

if TYPE_CHECKING:
    import contextvars

T = TypeVar("T")
_last: weakref.WeakSet[asyncio.Task[Any]] = weakref.WeakSet()  # those that do what pools do at the end of a loop
Last: TypeAlias = Callable[[], Awaitable[None]]


class Errand(Coroutine[Any, Any, T]):
    """What a task of a pool runs: a coroutine that is made when the task begins.

    A task that never does leaves none behind that "was never awaited".

    Args:
        begin: makes it.
        called_off: called instead, if the task is cancelled before it begins.
    """

    __slots__ = ("_begin", "_called_off", "_work")

    def __init__(
        self, begin: Callable[[], Coroutine[Any, Any, T]], called_off: Callable[[], object] | None = None
    ) -> None:
        self._begin: Callable[[], Coroutine[Any, Any, T]] | None = begin
        self._called_off = called_off
        self._work: Coroutine[Any, Any, T] | None = None

    def send(self, value: Any) -> Any:
        """Begin, or go on."""
        work = self._work
        if work is None:
            assert self._begin is not None, "bug: this errand was called off"
            work = self._work = self._begin()
        return work.send(value)

    def throw(
        self,
        kind: type[BaseException] | BaseException,
        value: BaseException | object = None,
        traceback: TracebackType | None = None,
    ) -> Any:
        """Throw something in; one that has not begun is called off."""
        error = kind if isinstance(kind, BaseException) else value if isinstance(value, BaseException) else kind()
        if self._work is None:
            self._begin, called_off = None, self._called_off
            if called_off is not None:
                called_off()
            raise error.with_traceback(traceback)
        return self._work.throw(error)

    def close(self) -> None:
        """End it without a word."""
        self._begin = None
        if self._work is not None:
            self._work.close()

    def __await__(self) -> Generator[Any, Any, T]:
        raise TypeError("this is for a task to run")


class TaskCrew:
    """The tasks of one pool."""

    __slots__ = ("_closers", "_dials", "_leaving", "_loop", "_tasks", "_vigil", "dismissed", "has_ended")

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._tasks: set[asyncio.Task[Any]] = set()
        self._closers: set[asyncio.Task[Any]] = set()  # those of them that wait for the others
        self._dials: set[asyncio.Task[Any]] = set()  # those of them that connect
        # What is left of closes, and which task awaits it; by identity.
        self._leaving: dict[int, tuple[Awaitable[object], asyncio.Task[None] | None]] = {}
        self._vigil: Vigil | None = None
        self.dismissed = False  # the pool was closed, for good
        self.has_ended = False  # what is due at the end of the loop was done: whoever comes now shows that it goes on

    def bind(self, loop: asyncio.AbstractEventLoop, last: Callable[[], Last | None]) -> None:
        """Learn whose tasks these are, and have what *last* refers to called, and awaited, when that loop ends.

        Args:
            loop: the running one.
            last: a weak reference to what is to be called.
        """
        self._loop = loop
        self._vigil = Vigil.begun(loop, last)

    # ------------------------------------------------------------------ while it runs
    def spawn(
        self,
        begin: Callable[[], Coroutine[Any, Any, T]],
        context: contextvars.Context | None = None,
        called_off: Callable[[], object] | None = None,
    ) -> asyncio.Task[T]:
        """Run what *begin* makes in a task of the pool, in a copy of *context*; or *called_off*, if it never begins."""
        assert self._loop is not None, "bug: a pool without a loop has nothing to do"
        create = self._loop.create_task
        errand = Errand(begin, called_off)
        # A copy, for whoever asks within what an eager task does would find the context itself entered already.
        task: asyncio.Task[T] = create(errand) if context is None else context.copy().run(create, errand)
        if not task.done():  # an eager one may have ended
            # A task that a closed loop leaves pending says so when it is collected; asyncio's own gather() keeps its
            # quiet in the same way.
            with contextlib.suppress(AttributeError):  # a task of somebody else's make
                task._log_destroy_pending = False  # type: ignore[attr-defined]  # noqa: SLF001  see above
            among(self._tasks, task)
        return task

    def spawn_dial(self, begin: Callable[[], Coroutine[Any, Any, None]], context: contextvars.Context | None) -> None:
        """Run a dial."""
        among(self._dials, self.spawn(begin, context))

    def spawn_closer(self, begin: Callable[[], Coroutine[Any, Any, None]]) -> asyncio.Task[None]:
        """Run what waits for all other tasks."""
        closer = self.spawn(begin)
        among(self._closers, closer)
        return closer

    def see_off(self, left: Awaitable[object]) -> None:
        """Have what is left of a close awaited; what was begun by a task that was cancelled is awaited again."""
        self._leaving[id(left)] = left, None
        task = self.spawn(lambda: self._await(left))
        if id(left) in self._leaving:
            self._leaving[id(left)] = left, task

    async def _await(self, left: Awaitable[object]) -> None:
        with contextlib.suppress(Exception):  # it is being given up; that it was dead is no news
            await left
        self._leaving.pop(id(left), None)

    # ------------------------------------------------------------------ the end of it
    def is_alone(self) -> bool:
        """Say, at the end of the loop, whether nobody is left who may give anything back; one task waits for it."""
        mine = asyncio.current_task()
        if mine is not None:
            _last.add(mine)
        last: list[asyncio.Task[Any]] = everyone_in(_last)
        return len(asyncio.all_tasks().difference(last)) <= 1

    @property
    def rests(self) -> bool:
        """Whether there is nobody to wait for."""
        return not (self._tasks or self._leaving)

    def call_dials_off(self) -> None:
        """Cancel those who connect."""
        for dial in list(self._dials) if self._loop is not None and not self._loop.is_closed() else ():
            dial.cancel()

    async def join(self, clock: Callable[[], float], until: float, parting_s: float) -> None:
        """Wait until all are done, those included that are begun meanwhile; cancel what takes too long.

        Args:
            clock: seconds.
            until: how long to wait, by that clock.
            parting_s: how long to wait for those that were cancelled.
        """
        for left, task in list(self._leaving.values()):
            if task is None or task.done():
                self.see_off(left)
        while (others := self._others()) and (left_s := until - clock()) > 0.0:
            await asyncio.wait(others, timeout=left_s)
        for task in others:
            task.cancel()
        if others:
            await asyncio.wait(others, timeout=parting_s)

    def cancel_closers(self) -> None:
        """Have nobody else wait for the others."""
        for closer in list(self._closers):
            closer.cancel()

    def _others(self) -> set[asyncio.Task[Any]]:
        return self._tasks - self._closers - {asyncio.current_task()}

    def abandon(self) -> None:
        """Let go of what will never go on, for its loop is closed or stands still for ever."""
        while self._tasks:
            errand: Any = self._tasks.pop().get_coro()
            with contextlib.suppress(Exception):  # drivers close transports on their way out, whose loop is closed
                errand.close()

    def forget(self) -> None:
        """The end of the loop is nothing to wait for any more: it is another process's."""
        vigil, self._vigil = self._vigil, None
        if vigil is not None:
            vigil.end()


def among(tasks: set[asyncio.Task[Any]], task: asyncio.Task[Any]) -> None:
    """Keep a task among others until it has ended."""
    if not task.done():
        tasks.add(task)
        task.add_done_callback(tasks.discard)


class Vigil:
    """Waits for the end of the running loop, as an asynchronous generator that nobody iterates over.

    Args:
        last: a weak reference to what is to be called then, and awaited.
    """

    __slots__ = ("_generator", "_last")

    def __init__(self, last: Callable[[], Last | None]) -> None:
        self._last = [last]
        self._generator = keep(self._last)

    @classmethod
    def begun(cls, loop: asyncio.AbstractEventLoop, last: Callable[[], Last | None]) -> Vigil | None:
        """Begin one; None where no loop would end it, or this one would complain that its end has been."""
        noted, finalizer = sys.get_asyncgen_hooks()
        if noted is None or getattr(loop, "_asyncgens_shutdown_called", False):
            return None
        vigil = cls(last)
        sys.set_asyncgen_hooks(finalizer=None)  # dropped with its pool it is nobody's business
        try:
            first_step = vigil._generator.__anext__()
        except ResourceWarning:  # made an error, of a loop that cannot be asked: the same complaint
            return None
        finally:
            sys.set_asyncgen_hooks(finalizer=finalizer)
        step(first_step)
        return vigil

    def end(self) -> None:
        """Wait no more."""
        if self._last:  # else it has come, and is being waited for
            self._last.clear()
            step(self._generator.aclose())


async def keep(last: list[Callable[[], Last | None]]) -> AsyncGenerator[None, None]:
    """Do nothing until the end, and then call what is last, if it is still there."""
    try:
        yield
    except GeneratorExit:
        call = last.pop()() if last else None
        if call is not None:
            await call()
        raise


def step(awaitable: Any) -> None:
    """Let something go on that waits for nothing."""
    with contextlib.suppress(StopIteration):
        awaitable.send(None)
