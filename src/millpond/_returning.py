"""What is asked of a connection that is given back: is anything to be done about it?

Why: this is asked at each return, in the fast path.  So what is asked is put together once, when the driver is known,
of no more than this driver and these settings need; None is no question at all.

Rules: nothing in here asks a server, or decides what is to be done.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from ._core.states import Slot
from .drivers.base import Adapter


def must_clean(driver: Adapter[Any], *, resets: bool) -> Callable[[Slot], bool] | None:
    """Return what tells, of a slot given back, whether anything is to be done about it; None if never."""
    is_clean = driver.is_clean
    if not resets:
        return has_cursors if driver.tracks_cursors else None
    if is_clean is None:
        return always
    if driver.tracks_cursors:
        return lambda slot: bool(slot.cursors) or not is_clean(slot.conn)
    return lambda slot: not is_clean(slot.conn)


def unless_room(idle: deque[Slot], most: float, unclean: Callable[[Slot], bool] | None) -> Callable[[Slot], bool]:
    """Return what also tells when enough are idle; two returns at once may keep one too many, the next mends it."""

    def look(slot: Slot) -> bool:
        return len(idle) >= most or (unclean is not None and unclean(slot))

    return look


def always(_: Slot) -> bool:
    """Say that something is always to be done."""
    return True


def has_cursors(slot: Slot) -> bool:
    """Say whether cursors have to be cut off."""
    return bool(slot.cursors)
