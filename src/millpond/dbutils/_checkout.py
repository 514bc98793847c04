"""One checkout of a pooled connection: what its cursors ask whether they may still be used.

Why: in DBUtils a cursor outlives its checkout, and runs its statements on a connection that is somebody else's by then.
Here a cursor knows the checkout that it was made in.  Its rows may still be fetched after the return, where the
client has them already; nothing is sent any more.

It must not hold the connection, or its pool: cursors outlive both.
"""

from __future__ import annotations

import weakref
from types import CodeType, FrameType
from typing import Any, Final

from millpond.sites import Site

CURSORS: Final = 64  # noted before those that are gone are weeded out


class Checkout:
    """Whether a connection is still with who took it, and which cursors were made meanwhile."""

    __slots__ = ("_code", "_cursors", "_instruction", "open")

    def __init__(self) -> None:
        self.open = True
        self._cursors: list[weakref.ref[Any]] = []
        self._code: CodeType | None = None
        self._instruction = 0

    def note(self, cursor: Any) -> weakref.ref[Any]:
        """Remember a cursor, weakly; return what :meth:`forget` is to be given when it is closed."""
        kept = self._cursors
        if len(kept) >= CURSORS and not len(kept) & (len(kept) - 1):  # at each power of two
            kept[:] = [reference for reference in kept if reference() is not None]
        reference = weakref.ref(cursor)
        kept.append(reference)
        return reference

    def forget(self, reference: weakref.ref[Any]) -> None:
        """A cursor was closed."""
        kept = self._cursors
        if kept and kept[-1] is reference:
            kept.pop()

    def noted(self) -> list[Any]:
        """Return the cursors that are still there."""
        return [cursor for cursor in (reference() for reference in self._cursors) if cursor is not None]

    def end(self, frame: FrameType | None) -> list[Any]:
        """The connection goes back, at this place of the program; return the cursors that are to be cut off."""
        self.open = False
        if frame is not None:
            self._code, self._instruction = frame.f_code, frame.f_lasti
        if not self._cursors:
            return []  # mostly: closed cursors are taken off
        cursors = self.noted()
        self._cursors = []
        return cursors

    @property
    def ended_at(self) -> str:
        """Say where it was given back."""
        site = Site.of(self._code, self._instruction)
        return f" at {site}" if site else ""
