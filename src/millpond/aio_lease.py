"""What a task holds: a connection on loan, for one use.

``pool.connection()`` takes nothing yet: it makes a lease that takes its connection when it is awaited or entered.  So
an ``asyncio.wait_for`` that is cancelled before it began has lost nothing, and there is no await between a connection
being taken and the lease that holds it.  A lease that has no connection yet is of another class, :class:`Asked`, which
costs less than an attribute that everybody would have to look at.

Rules: :meth:`AsyncLease.close` does its work when it is called, awaited or not; what it returns is what is left to be
waited for.  A lease belongs to the loop of its pool, and says so when it is used from anywhere else.
"""

from __future__ import annotations

import sys
import types
import warnings
from collections.abc import Awaitable, Callable, Generator
from typing import TYPE_CHECKING, Any, TypeVar, cast

from ._aio_here import task_in
from ._core.states import FOREVER, IDLE, LEASED
from ._shell import QUIET_S
from .errors import ConnectionReturned
from .lease import Loan
from .limits import timeout_of

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self

    from .aio import AsyncPool

C = TypeVar("C")
T = TypeVar("T")
_getframe = sys._getframe


class Nothing:
    """What is left to be waited for when all is done: half the price of awaiting a future that has its result."""

    __slots__ = ()

    __await__: Callable[[], Any] = ().__iter__  # an iterator that ends at once


NOTHING = cast("Awaitable[None]", Nothing())


class AsyncLease(Loan[C]):
    """A connection of the pool: ``async with pool.connection() as conn``, or ``conn = await pool.connection()``."""

    __slots__ = ("_timeout",)

    _pool: AsyncPool[C]  # pyright: ignore[reportIncompatibleVariableOverride]  # set once, by the pool
    _timeout: float | None  # how long to wait for a connection, until there is one

    def __await__(self) -> Generator[Any, Any, Self]:
        return itself(self).__await__()

    def __aenter__(self) -> Awaitable[Self]:
        return itself(self)

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
        if pool._here() is not pool._loop:
            pool._guard()
        try:
            slot = self._slot
            del self._slot
        except (AttributeError, ConnectionReturned):
            return NOTHING
        now = pool._clock()
        unclean = pool._unclean
        if exc_type is None and now < slot.expires_at and (unclean is None or not unclean(slot)):
            if pool._tickets:
                if pool._tracks:
                    frame = _getframe(1)
                    self._instruction = frame.f_lasti
                    self._code = frame.f_code
                pool._ledger.take_back(slot)
                pool._deliver()
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


def awaited(generator: Callable[..., Generator[Any, Any, T]]) -> Callable[..., Awaitable[T]]:
    """Return the same code again, as what can be awaited itself; the generator is for ``__await__`` and ``yield from``.

    Neither pays for the other: a coroutine in between costs an uncontended pair a quarter of its time.
    """
    made: Any = generator
    twin = types.FunctionType(made.__code__, made.__globals__, made.__name__, made.__defaults__)
    return types.coroutine(twin)


def take(self: AsyncLease[C]) -> Generator[Any, Any, AsyncLease[C]]:
    """Take a connection for a lease that has none, and return it; ``await`` and ``async with`` run this."""
    pool = self._pool
    if self._timeout is not None or pool._here() is not pool._loop:
        bind(self)
    now = pool._clock()
    slot = pool._idle.pop() if pool._idle and not pool._tickets else None
    if (
        slot is not None
        and now < slot.best_before
        and now < slot.expires_at
        and (pool._readable is None or now - slot.returned_at < QUIET_S or not pool._readable(slot.conn))
    ):
        slot.state = LEASED
        slot.leased_at = now
    else:
        self.__class__ = Untaken  # it was awaited, whatever comes of it
        if slot is not None or not pool._tickets:
            slot = yield from pool._ask(slot, self._timeout)
        else:
            ticket = pool._line_up(self._timeout, now)
            try:
                yield from ticket.waiter
            except BaseException as error:
                pool._step_out(ticket, error)
                raise
            slot = ticket.slot
            if slot is not None and slot.state is LEASED:  # as most are: no conversation is held for them
                pool._ledger.pick_up(ticket)
                slot.leased_at = pool._clock()
            else:
                slot = yield from pool._wait_on(ticket, self._timeout)
    self.__class__ = pool._lease_kind
    self._slot = slot
    if pool._tracks:
        frame = _getframe(1)
        slot.code = frame.f_code
        slot.instruction = frame.f_lasti
        slot.thread_id = id(task_in(pool._loop))
    return self


def bind(lease: AsyncLease[C]) -> None:
    """Make sure that a lease is awaited on its pool's loop, and read how long it may wait if that was said."""
    lease.__class__ = Untaken
    lease._pool._bind()
    if lease._timeout is not None:
        lease._timeout = timeout_of(lease._timeout, FOREVER)


class Untaken(AsyncLease[C]):
    """A lease that is about to take its connection, or could not, or never will."""

    __slots__ = ()

    def __await__(self) -> Generator[Any, Any, Self]:
        raise RuntimeError("this connection was awaited already; ask the pool for another one")

    def __aenter__(self) -> Awaitable[Self]:
        raise RuntimeError("this connection was awaited already; ask the pool for another one")

    def _returned(self) -> ConnectionReturned:
        return self._pool._error(
            ConnectionReturned,
            "this connection has not been taken yet: write `async with pool.connection() as conn:`, "
            "or `conn = await pool.connection()`",
        )

    def __repr__(self) -> str:
        return "<millpond lease, not awaited yet>"


class Asked(Untaken[C]):
    """A lease that nobody has awaited yet."""

    __slots__ = ()

    if not TYPE_CHECKING:  # what they return is what all leases return: themselves
        __await__ = take
        __aenter__ = awaited(take)

    def close(
        self,
        exc_type: type[BaseException] | None = None,  # noqa: ARG002  as leases have it
        _exc: BaseException | None = None,
        _traceback: TracebackType | None = None,
    ) -> Awaitable[None]:
        """Give up what was not taken."""
        cast("AsyncLease[C]", self).__class__ = Untaken
        return NOTHING

    def __del__(self) -> None:
        text = "'AsyncPool.connection' was never awaited: write `async with pool.connection() as conn:`"
        warnings.warn(text, RuntimeWarning, stacklevel=2, source=self)


async def itself(lease: Any) -> Any:
    """Return a lease that was awaited before."""
    return lease
