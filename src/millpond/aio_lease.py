"""What a task holds: a connection on loan, for one use.

``pool.connection()`` takes nothing yet: it makes a lease that takes its connection when it is awaited or entered.  So
an ``asyncio.wait_for`` that is cancelled before it began has lost nothing, and there is no await between a connection
being taken and the lease that holds it.

Rules: :meth:`AsyncLease.close` does its work when it is called, awaited or not; what it returns is what is left to be
waited for.  A lease belongs to the loop of its pool, and says so when it is used from anywhere else.
"""

from __future__ import annotations

import sys
from asyncio import _get_running_loop
from collections.abc import Awaitable, Callable, Coroutine, Generator
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar, cast

from ._core.states import IDLE
from .errors import ConnectionReturned
from .lease import Loan

if TYPE_CHECKING:
    from typing_extensions import Self

    from .aio import AsyncPool

C = TypeVar("C")
_getframe = sys._getframe


class Nothing:
    """What is left to be waited for when all is done: half the price of awaiting a future that has its result."""

    __slots__ = ()

    __await__: Callable[[], Any] = ().__iter__  # an iterator that ends at once


NOTHING = cast("Awaitable[None]", Nothing())


class AsyncLease(Loan[C]):
    """A connection of the pool: ``async with pool.connection() as conn``, or ``conn = await pool.connection()``."""

    __slots__ = ("_entry",)

    _pool: AsyncPool[C]  # pyright: ignore[reportIncompatibleVariableOverride]  # set once, by the pool
    _entry: Coroutine[Any, Any, Self] | None  # what takes the connection; None once that was done

    def __await__(self) -> Generator[Any, Any, Self]:
        entry = self._entry
        return (itself(self) if entry is None else entry).__await__()

    def __aenter__(self) -> Awaitable[Self]:
        entry = self._entry
        return itself(self) if entry is None else entry

    def close(
        self,
        exc_type: type[BaseException] | None = None,
        _exc: BaseException | None = None,
        _traceback: TracebackType | None = None,
    ) -> Awaitable[None]:
        """Give the connection back, now; the second time does nothing.

        An open transaction is rolled back: the pool never commits.  The arguments are those of ``__aexit__``, which
        this method is as well.

        Returns:
            What is left to be waited for: nothing, as a rule.  It need not be awaited, and whoever is cancelled while
            awaiting it has given the connection back all the same.
        """
        pool = self._pool
        if _get_running_loop() is not pool._loop:
            pool._guard()
        try:
            slot = self._slot
            del self._slot
        except (AttributeError, ConnectionReturned):
            return self._close_unused()
        now = pool._clock()
        unclean = pool._unclean
        if exc_type is None and now < slot.expires_at and (unclean is None or not unclean(slot)):
            if pool._tickets:
                frame = _getframe(1)
                self._instruction = frame.f_lasti
                self._code = frame.f_code
                pool._hand_over(slot)
                return NOTHING
            if pool._tracks:
                slot.uses += 1
                slot.busy_s += now - slot.leased_at
                frame = _getframe(1)
                self._instruction = frame.f_lasti
                self._code = frame.f_code
            slot.returned_at = now
            slot.best_before = now + pool._check_after_s
            slot.state = IDLE
            pool._idle.append(slot)
            return NOTHING
        frame = _getframe(1)
        self._instruction = frame.f_lasti
        self._code = frame.f_code
        return pool._give_back(slot, exc_type)

    __aexit__ = close

    def _close_unused(self) -> Awaitable[None]:
        entry, self._entry = self._entry, None
        if entry is not None:
            entry.close()
        return NOTHING

    def _returned(self) -> ConnectionReturned:
        if self._entry is None:
            return super()._returned()
        return self._pool._error(
            ConnectionReturned,
            "this connection has not been taken yet: write `async with pool.connection() as conn:`, "
            "or `conn = await pool.connection()`",
        )

    def __repr__(self) -> str:
        if self._entry is not None:
            return "<millpond lease, not awaited yet>"
        return super().__repr__()


async def itself(lease: Any) -> Any:
    """Return a lease that was awaited before."""
    return lease
