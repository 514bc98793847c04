"""What the core needs from outside, and what a driver must offer: protocols only.

The core never reads a clock, draws a random number, makes an error or parks a thread by itself; a shell hands these in.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from .states import FOREVER, Fault

if TYPE_CHECKING:
    from .states import Slot

BooksT = TypeVar("BooksT")


def never(_: Slot) -> bool:
    """Say no."""
    return False


class Limits(Protocol):
    """The numbers a ledger obeys; :class:`millpond.limits.Limits` validates them."""

    @property
    def max_size(self) -> int: ...
    @property
    def min_idle(self) -> int: ...
    @property
    def max_idle(self) -> float: ...
    @property
    def max_lifetime_s(self) -> float: ...
    @property
    def idle_timeout_s(self) -> float: ...
    @property
    def check_after_s(self) -> float: ...
    @property
    def check_timeout_s(self) -> float: ...
    @property
    def connect_timeout_s(self) -> float: ...
    @property
    def fail_after_s(self) -> float: ...
    @property
    def max_uses(self) -> float: ...
    @property
    def max_waiting(self) -> float: ...
    @property
    def max_dialing(self) -> int: ...
    @property
    def lifo(self) -> bool: ...
    @property
    def eager(self) -> bool: ...
    @property
    def callers_dial(self) -> bool: ...


@dataclass(frozen=True)
class Ports(Generic[BooksT]):
    """The outside world of one ledger; *BooksT* is that ledger's class, which errors are made from.

    Args:
        clock: seconds on a clock that never goes back.
        jitter: a number in [0, 1), drawn anew at each call; spreads lifetimes and retries.
        new_waiter: whatever the shell parks and wakes a caller by; made once per ticket.
        nudge: asks for a tick soon; called from finalizers, so it takes no lock and never raises.
        classify: what a driver's exception at connect says (see :class:`millpond._core.states.Fault`).
        timed_out: makes the error of a caller who has waited in vain, for so many seconds.
        closed: makes the error of a caller who came after, or was still waiting at, ``close()``.
        queue_full: makes the error of a caller who found as many waiting for a return as ``max_waiting`` allows.
        holder_names: who is who, by the numbers that the shell notes in ``Slot.thread_id``.
        observing: somebody wants to be told of every event, not only of those that call for a report.
        quiet_s: a connection that came back longer ago than this is looked at before it is handed out: a poll, which
            asks the server nothing.
        defers: a reset can be sent at return and its answer read later.
        unread_survives: reading the answer to a reset that was sent can be broken off, and tried again later.
        check_survives: says of a slot whose check has just been broken off whether it can be checked again, or goes on.
    """

    clock: Callable[[], float]
    jitter: Callable[[], float]
    new_waiter: Callable[[], Any]
    nudge: Callable[[], None]
    classify: Callable[[BaseException], Fault]
    timed_out: Callable[[BooksT, float], BaseException]
    closed: Callable[[], BaseException]
    queue_full: Callable[[BooksT], BaseException]
    holder_names: Callable[[], dict[int, str]] = dict
    observing: bool = False
    quiet_s: float = FOREVER
    defers: bool = False
    unread_survives: bool = False
    check_survives: Callable[[Slot], bool] = never


def replica(error: BaseException) -> BaseException:
    """Return a copy of *error* to raise in one more thread: one instance raised in many would mix their tracebacks."""
    try:
        twin = copy.copy(error)
    except Exception:  # noqa: BLE001  some drivers' exceptions cannot be copied; the original is better than none
        return error
    if type(twin) is not type(error):
        return error
    twin.__cause__ = error.__cause__
    twin.__suppress_context__ = error.__suppress_context__
    return twin
