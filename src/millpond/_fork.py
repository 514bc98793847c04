"""Locks that a forked child finds open.

Why: what is learned once is learned under a lock, by whichever thread dials first.  A program that makes its pool and
forks its workers at once may do so just then; in the child that thread is no more, and would hold the lock for ever.

Rules: what such a lock guards may be found half done in a child, and is done again from the beginning.
"""

from __future__ import annotations

import os
import threading


class LockOfProcess:
    """Makes locks for ``with`` blocks: the same for all threads of a process, another for its child."""

    __slots__ = ("_locks",)

    def __init__(self) -> None:
        self._locks: dict[int, threading.Lock] = {}  # by process

    def __call__(self) -> threading.Lock:
        """Return this process's; a block that was begun before a fork ends with the one that it began with."""
        return self._locks.setdefault(os.getpid(), threading.Lock())
