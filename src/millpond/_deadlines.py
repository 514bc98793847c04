"""Deadlines that a thread keeps for those who wait and cannot look at a clock.

Why: two watchdogs do this, that of the drivers' calls and that of statements, and both are used by finalizers, which
close connections and leave streams.  The collector runs finalizers in the middle of anything: of these very lines, and
in the thread that keeps the deadlines, too.  A lock in here would be waited for by the thread that has it, and a heap
that somebody changes while it is being sorted is none any more.

Rules:
- Nothing in here takes a lock, but for what ends a cut (:class:`Fate`).  What is kept is a set, which is changed by
  single operations; who keeps it is a post (:class:`~millpond._crew.Post`), taken by a single operation.
- A single operation is one of a built-in set, dict or lock.  It is the GIL that makes it single, and has threads see
  what others did before; builds without it lock each object, and were not tried.
- Whoever adds something adds it first and looks for the keeper then; the keeper leaves its post first and looks at the
  set then.  So nothing is left without a keeper, and a bell that is rung once too often costs one look.
- A deadline is due once: what was cut off is not done, what is done is not cut off.

It must not know connections, nor what a cut is.
"""

from __future__ import annotations

import _thread
import logging
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Final, Protocol

from ._crew import Crew, Post, Runtime

LINGER_S: Final = 5.0  # the keeper ends after so long without anything to keep
NEVER: Final = float("inf")
DONE: Final = object()

logger = logging.getLogger("millpond")


class Due(Protocol):
    """Something with a deadline.

    Attributes:
        due_at: when it is over, on the clock of who keeps it.
    """

    due_at: float

    def fall_due(self, now: float) -> float | None:
        """Do what is to be done when it is over; return when to come again, or None."""
        ...


class Fate:
    """Whether something was done in time or cut off: decided once, by a single operation, for whoever comes first."""

    __slots__ = ("_decided",)

    def __init__(self) -> None:
        self._decided: dict[str, Any] = {}

    def done(self) -> bool:
        """Say that it is done, and will not be cut off any more; False if it was.

        A cut that is under way is waited for: who is done may do as he likes with what would have been cut.  Only a
        finalizer in the thread of the cut does not wait for itself.
        """
        decided = self._decided.setdefault("", DONE)
        if decided is DONE:
            return True
        with decided:
            return False

    def cut(self, how: Callable[[], object], gate: AbstractContextManager[Any]) -> bool:
        """Cut it off, unless it is done, or was cut off before; say whether that was still to be done.

        Args:
            how: called for it.
            gate: a new lock, which a thread may take twice.
        """
        with gate:
            if self._decided.setdefault("", gate) is not gate:
                return False
            how()
        return True

    def forget(self) -> None:
        """Be done, whoever was at it: in a forked child that thread is no more, and its gate never opens."""
        self._decided = {"": DONE}


class Deadlines:
    """What has a deadline, and the thread that keeps it; the thread lives while there is any, and for a while after.

    Args:
        runtime: where the clock, locks and threads come from.

    Attributes:
        kept: what is there now; whatever is due stays in it until that is done.
    """

    def __init__(self, runtime: Runtime) -> None:
        self.kept: set[Due] = set()
        self._clock = runtime.clock
        self._crew = Crew(runtime)
        self._post = Post()  # the keeper's
        self._bell = runtime.new_lock()  # released to make the keeper look again
        self._bell.acquire()
        self._wakes_at = NEVER

    def keep(self, due: Due) -> bool:
        """Keep one more; False if that cannot be done, because no thread can be had."""
        self.kept.add(due)
        if not self._post.is_held:
            man = self._crew.man
            # Whoever came while the host refused a thread saw the post held, and relies on it: it is asked once more.
            return man(self._post, self._serve) or (len(self.kept) > 1 and man(self._post, self._serve))
        if due.due_at < self._wakes_at:
            self._ring()
        return True

    def let_go(self, due: Due) -> None:
        """Keep one no more; it may be falling due just now."""
        self.kept.discard(due)

    def _ring(self) -> None:
        try:
            self._bell.release()
        except RuntimeError:  # it has been rung already
            return

    # -- in the keeper's thread ----------------------------------------------------------------------------------------
    def _serve(self, holder: object) -> None:
        try:
            while self._post.take(holder):
                while self._watch():
                    continue
                self._post.leave(holder)
                if not self.kept:  # asked again after leaving: keep() adds first and looks for somebody then
                    return
        finally:  # no failure leaves what comes next without a keeper
            self._post.leave(holder)

    def _watch(self) -> bool:
        """Do what is due, and sleep until more is; False if nothing was there for a while."""
        self._do_what_is_due()
        next_at, now = self._next_at(), self._clock()
        left_s = LINGER_S if next_at == NEVER else next_at - now
        self._wakes_at = now + left_s
        rung = left_s <= 0 or self._bell.acquire(timeout=min(left_s, _thread.TIMEOUT_MAX))
        return rung or next_at != NEVER

    def _do_what_is_due(self) -> None:
        now = self._clock()
        for due in sorted((due for due in self.kept.copy() if due.due_at <= now), key=lambda due: due.due_at):
            try:
                again_at = due.fall_due(now)
            except Exception:
                logger.exception("what was to be done at a deadline has failed; the others are kept")
                again_at = None
            if again_at is None:
                self.kept.discard(due)
            else:
                due.due_at = again_at

    def _next_at(self) -> float:
        self._wakes_at = NEVER  # before the look: whoever comes after it rings
        return min((due.due_at for due in self.kept.copy()), default=NEVER)
