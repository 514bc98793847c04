"""What a forked child may have of its parent's: locks that are open, and descriptors that lead nowhere.

Why: a child has its parent's memory and descriptors, and of its threads only the one that forked.  What is learned once
is learned under a lock, by whichever thread dials first; a program that makes its pool and forks its workers at once
may do so just then, and in the child that thread is no more, and would hold the lock for ever.  And many drivers say
goodbye to the server when a connection is destroyed: said by a child, it ends the session of its parent.

Rules: what such a lock guards may be found half done in a child, and is done again from the beginning.  It may also be
done by a finalizer, which the collector runs in the middle of it in the same thread: so the lock may be taken again
there, and what it guards may be done twice.
"""

from __future__ import annotations

import os
import threading
import weakref
from contextlib import AbstractContextManager
from typing import Any, TypeVar

T = TypeVar("T")


class LockOfProcess:
    """Makes locks for ``with`` blocks: the same for all threads of a process, another for its child."""

    __slots__ = ("_locks",)

    def __init__(self) -> None:
        self._locks: dict[int, Any] = {}  # by process

    def __call__(self) -> AbstractContextManager[Any]:
        """Return this process's; a block that was begun before a fork ends with the one that it began with."""
        lock: AbstractContextManager[Any] = self._locks.setdefault(os.getpid(), threading.RLock())
        return lock


def everyone_in(registry: weakref.WeakSet[T]) -> list[T]:
    """Return what is in a registry, though another thread adds to it meanwhile, or a finalizer in this one."""
    while True:
        try:
            return list(registry)
        except RuntimeError:  # it has changed in size under the loop
            continue


def point_nowhere(fd: int) -> None:
    """Let a descriptor that a fork inherited lead to the null device: the server does not hear what is said there."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    os.dup2(nowhere, fd)
    os.close(nowhere)
