"""The compiled part of the asyncio pool, where there is one: a checkout and a return with which everything is fine.

Why: beside a pool that is compiled, what Python takes for them is three times as much; the figures are in
``docs/adr/082-a-compiled-pair.md``.

Rules: whatever is not plain is left to Python, where all of it is written; nothing is different without this part.  It
is there if it could be compiled when millpond was installed.  ``MILLPOND_COMPILED=no`` in the environment does without
it; with ``require`` it is an error that it cannot be had.
"""

from __future__ import annotations

import asyncio
import importlib
import os
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Final

from ._aio_here import task_in

VARIABLE: Final = "MILLPOND_COMPILED"
WANTED: Final = os.environ.get(VARIABLE, "")
if WANTED not in ("", "no", "require"):
    raise ImportError(f"{VARIABLE} is {WANTED!r} in the environment; it may be 'no' or 'require', or not be set")

_pair: Any = None
if WANTED != "no":
    try:
        _pair = importlib.import_module(f"{__package__}._compiled_pair")
    except ImportError:
        if WANTED == "require":
            raise


def learn(classes: dict[str, type[Any]], functions: dict[str, Callable[..., Any]], values: dict[str, Any]) -> bool:
    """Have the compiled part take its methods' places, and tell it what it needs of the pool.

    Args:
        classes: of ``pool``, ``lease``, ``asked``, ``untaken``, ``slot`` and ``ticket``.
        functions: what Python has for ``connection``, ``take`` and ``close``.
        values: ``leased`` and ``idle``, states of a slot; ``quiet_s``; ``nothing``, which a return leaves to be
            awaited.

    Returns:
        Whether that was done: there is such a part, made of these sources, and it serves no other classes.

    Raises:
        ImportError: it was made of other sources, and it is required.
    """
    if _pair is None:
        return False
    shelf: type[deque[Any]] = deque
    hosts = {
        "monotonic": time.monotonic,
        "asyncio_loop": asyncio.BaseEventLoop,
        "task_in": task_in,
        "pop": shelf.pop,
        "append": shelf.append,
    }
    try:
        taken: bool = _pair.learn({**classes, **functions, **values, **hosts})
    except (AttributeError, TypeError) as error:
        if WANTED == "require":
            raise ImportError(
                "what is compiled was made of other sources than these: install millpond again"
            ) from error
        return False
    return taken
