"""Which event loop runs here, and which of its tasks, asked without a system call.

Why: every checkout and every return asks.  Until Python 3.11 asyncio asks the kernel for the process number each time,
130 ns of a pair of a microsecond, three times, and tells the current task by a function in Python.
"""

from __future__ import annotations

import asyncio
import sys
from asyncio import AbstractEventLoop, _get_running_loop
from collections.abc import Callable
from threading import get_ident
from typing import Any


def asker(loop: AbstractEventLoop) -> Callable[[], AbstractEventLoop | None]:
    """Return what tells the loop that runs in this thread, soonest if it is *loop*.

    It must not be kept over a fork: in the child no loop runs.
    """
    if sys.version_info >= (3, 12) or not isinstance(loop, asyncio.BaseEventLoop):
        return _get_running_loop
    base: asyncio.BaseEventLoop = loop

    def here() -> AbstractEventLoop | None:
        return base if base._thread_id == get_ident() else _get_running_loop()  # type: ignore[attr-defined]  # noqa: SLF001  asyncio's own, while it runs

    return here


task_in: Callable[[AbstractEventLoop | None], asyncio.Task[Any] | None]  # which of its tasks a loop runs now; in C
if sys.version_info >= (3, 12):
    task_in = asyncio.current_task
else:  # all that current_task() does with a loop, but for a frame
    task_in = asyncio.tasks._current_tasks.get  # type: ignore[attr-defined]  # noqa: SLF001  asyncio's own
