"""How long a pool waits for what a driver does, and what becomes of what comes too late.

Why: a driver's call runs in a task of its own.  Whoever waits for it is called away at once when cancelled, or when
the time is up, whatever the driver makes of being cancelled: some finish all the same.

Rule: every task is heard, so that its loop does not complain that nobody wanted to know how it has ended.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")
Late = Callable[["asyncio.Task[T]"], None]


class TooSlow(TimeoutError):
    """The time is up; not the driver's own error of that kind, which says more."""


class CutShort(TimeoutError):
    """A program that cancels all tasks has cancelled one of the pool's."""


async def bounded(task: asyncio.Task[T], seconds: float, late: Late[T] | None = None) -> T:
    """Return what a task returns, or cancel it; what it returns all the same is for *late* to see to.

    Raises:
        TooSlow: it was not done so soon.
        CutShort: it was cancelled, and whoever waits for it was not.
    """
    try:
        await asyncio.wait((task,), timeout=max(0.0, seconds))
    except asyncio.CancelledError:
        give_up(task, late)
        raise
    if not task.done():
        give_up(task, late)
        raise TooSlow("the driver was not done in time")
    if task.cancelled():
        raise CutShort("the driver's call was cancelled")
    return task.result()


def give_up(task: asyncio.Task[T], late: Late[T] | None) -> None:
    """Cancel a task whose result nobody waits for any more."""
    task.cancel()
    task.add_done_callback(heard if late is None else late)


def heard(task: asyncio.Task[Any]) -> None:
    """Take note of how a task has ended."""
    if not task.cancelled():
        task.exception()
