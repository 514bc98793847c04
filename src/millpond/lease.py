"""What a caller holds: a connection on loan, for one use.

A lease is made anew for every checkout, so that a stale one is recognised for ever.  It forwards whatever the driver's
connection has, reading and setting; :attr:`Lease.driver_connection` is the named way through.  Its cursors are
instances of the user's own cursor class.  Giving it back twice is harmless; using it afterwards is
:class:`ConnectionReturned`, which says where it was given back.

Rules: the slot is claimed by *deleting* the attribute that holds it, which only one thread can succeed in.  There is no
finalizer: a lease that is dropped drops its slot, and the slot's finalizer tells the pool (see ``_core/states.py``).

Setting is forwarded by properties, generated once per class of connection: a ``__setattr__`` here would cost each
checkout about 130 ns, measured, for the few assignments that a pool makes itself.
"""

from __future__ import annotations

import sys
import weakref
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Generic, NoReturn, Protocol, TypeVar

from ._core.states import IDLE
from .errors import ConnectionReturned
from .sites import Site

if TYPE_CHECKING:
    from types import CodeType, FrameType, TracebackType

    from typing_extensions import Self

    from ._core.states import Slot, Ticket
    from .drivers.base import Adapter
    from .errors import ErrorT

C = TypeVar("C")
CURSORS = 64  # noted for a lease before those that are gone are weeded out
CO_COROUTINE = 0x80  # what begins when it is awaited
_getframe = sys._getframe


class Lender(Protocol[C]):
    """What any lease needs of the pool that it was taken from."""

    @property
    def _driver(self) -> Adapter[C]: ...
    def _guard(self) -> None: ...
    def _discard(self, slot: Slot) -> None: ...
    def _error(self, kind: type[ErrorT], text: str) -> ErrorT: ...


class ThreadLender(Lender[C], Protocol[C]):
    """What a return in a thread looks at, and the ways on from there."""

    @property
    def _clock(self) -> Callable[[], float]: ...
    @property
    def _tickets(self) -> OrderedDict[Ticket, None]: ...
    @property
    def _unclean(self) -> Callable[[Slot], bool] | None: ...
    @property
    def _idle(self) -> deque[Slot]: ...
    @property
    def _tracks(self) -> bool: ...
    @property
    def _check_after_s(self) -> float: ...
    def _look_again(self, slot: Slot) -> None: ...
    def _hand_over(self, slot: Slot, exc_type: type[BaseException] | None, /) -> None: ...
    def _give_back(self, slot: Slot, exc_type: type[BaseException] | None) -> None: ...


class Loan(Generic[C]):
    """What leases of threads and of tasks have in common: all but how they are taken and given back."""

    __slots__ = ("__weakref__", "_code", "_instruction", "_pool", "_slot")

    _pool: Lender[C]
    _slot: Slot
    _code: CodeType | None  # where it was given back
    _instruction: int

    @property
    def driver_connection(self) -> C:
        """The driver's own connection.

        Raises:
            ConnectionReturned: the lease was given back.
        """
        conn: C | None = self._slot.conn
        if conn is None:
            raise self._pool._error(
                ConnectionReturned, "this connection was taken back: the pool was closed, or this process was forked"
            )
        return conn

    def cursor(self, *args: Any, **kwargs: Any) -> Any:
        """Make a cursor of the driver's own kind; it can be used until the connection is given back."""
        conn: Any = self._slot.conn
        return self._pool._driver.cursor(self.driver_connection if conn is None else conn, self, args, kwargs)

    def discard(self) -> None:
        """Give the connection up: it is closed, and its room is free; for one that must not be used again."""
        self._pool._guard()
        try:
            slot = self._slot
            del self._slot
        except (ConnectionReturned, AttributeError):
            return
        frame = _getframe(1)
        self._instruction = frame.f_lasti
        self._code = frame.f_code
        self._pool._discard(slot)

    def note_holder(self, frame: FrameType) -> None:
        """Name another place in the program as the one that took the connection; for layers above the pool."""
        slot = self._slot
        if slot.code is not None:  # the pool notes such places
            slot.instruction = frame.f_lasti
            slot.code = frame.f_code

    def _track(self, cursor: Any) -> None:
        """Have *cursor* closed when the connection is given back."""
        slot = self._slot
        kept = slot.cursors or []
        if len(kept) >= CURSORS and not len(kept) & (len(kept) - 1):  # at each power of two: many statements, one lease
            kept = [reference for reference in kept if reference() is not None]
        try:
            kept.append(weakref.ref(cursor))
        except TypeError:  # a C class that allows no weak references
            kept.append(getattr(cursor, "unless_dropped", None) or (lambda: cursor))
        slot.cursors = kept

    def __reduce_ex__(self, _: Any) -> NoReturn:
        """Refuse to be copied or pickled: a copy would give the same connection back once more."""
        raise TypeError("a connection from a pool cannot be copied or pickled; take another one from the pool")

    def __getattr__(self, name: str) -> Any:
        if name == "_slot":  # deleted: given back
            raise self._returned()
        if name in ("_code", "_instruction"):  # never set: the pool does not track use
            return None
        return getattr(self.driver_connection, name)

    def _returned(self) -> ConnectionReturned:
        where = ""
        if self._code is not None:
            where = f"; it was given back at {Site.of(self._code, self._instruction)}"
        return self._pool._error(
            ConnectionReturned, f"this connection is no longer yours{where}. Take a new one from the pool."
        )

    def __repr__(self) -> str:
        try:
            return f"<millpond lease of {self._slot.conn!r}>"
        except ConnectionReturned:
            return "<millpond lease, given back>"


class Lease(Loan[C]):
    """A connection of the pool, held until :meth:`close` or the end of its ``with`` block."""

    __slots__ = ()

    _pool: ThreadLender[C]  # pyright: ignore[reportIncompatibleVariableOverride]  # set once, by the pool

    def __enter__(self) -> Self:
        return self

    def close(
        self,
        exc_type: type[BaseException] | None = None,
        _exc: BaseException | None = None,
        _traceback: TracebackType | None = None,
    ) -> None:
        """Give the connection back; the second time does nothing.

        An open transaction is rolled back: the pool never commits.  The arguments are those of ``__exit__``, which this
        method is as well: one frame less at the end of every ``with`` block.
        """
        try:
            slot = self._slot
            del self._slot
        except (AttributeError, ConnectionReturned):
            return
        pool = self._pool
        now = pool._clock()
        tickets = pool._tickets
        unclean = pool._unclean
        if exc_type is None and now < slot.expires_at and (unclean is None or not unclean(slot)):
            if not tickets:
                if pool._tracks:
                    slot.uses += 1
                    slot.busy_s += now - slot.leased_at
                    frame = _getframe(1)
                    self._instruction = frame.f_lasti  # before the code: who finds that finds this as well
                    self._code = frame.f_code
                slot.returned_at = now
                slot.best_before = now + pool._check_after_s
                slot.state = IDLE
                pool._idle.append(slot)
                # Look again: a caller may have queued, or the pool been drained, while this was being shelved.
                if tickets or now >= slot.expires_at:
                    pool._look_again(slot)
                return
            give_back = pool._hand_over
        else:
            give_back = pool._give_back
        frame = _getframe(1)
        self._instruction = frame.f_lasti
        self._code = frame.f_code
        give_back(slot, exc_type)

    __exit__ = close

    def commit(self) -> None:
        """Commit the transaction."""
        self.driver_connection.commit()  # type: ignore[attr-defined]  # every DB-API connection has it

    def rollback(self) -> None:
        """Roll the transaction back."""
        self.driver_connection.rollback()  # type: ignore[attr-defined]  # every DB-API connection has it


def forwarding(conn: Any, base: type[Loan[Any]], shortcuts: Iterable[str] = ()) -> type[Loan[Any]]:
    """Return the kind of lease that lets be set what a connection's class lets be set.

    What begins when it is awaited is looked up then: a task may have its first turn after the connection was given
    back, and what it was made for must not be done to the next borrower's transaction.

    Args:
        conn: a connection of that class.
        base: the lease that it becomes a subclass of.
        shortcuts: methods of the connection that make a cursor, run a statement on it and return it; the lease makes
            that cursor itself, since one that the connection makes would not be cut off at return.
    """
    kind: type[Any] = conn.__class__
    settable = [name for name in dir(kind) if is_settable(kind, name)]
    names = {
        name
        for name in (*settable, *getattr(conn, "__dict__", ()))
        if not name.startswith("__") and not hasattr(base, name)
    }
    return type(
        base.__name__,
        (base,),
        {
            "__slots__": (),
            "__module__": base.__module__,
            "__doc__": base.__doc__,
            **{name: _forwarded(name) for name in names},
            **{name: _awaited(name) for name in coroutine_functions(kind) if not hasattr(base, name)},
            **{name: _shortcut(name) for name in shortcuts if hasattr(kind, name)},
        },
    )


def is_settable(kind: type[Any], name: str) -> bool:
    """Say whether a class has an attribute that its instances let be set."""
    found: Any = getattr(kind, name, None)
    return hasattr(found, "__set__")


def coroutine_functions(kind: type[Any]) -> list[str]:
    """Return the names of a class's methods that begin when they are awaited, compiled ones included."""
    codes = {name: getattr(getattr(kind, name, None), "__code__", None) for name in dir(kind) if name[0] != "_"}
    return [name for name, code in codes.items() if code is not None and code.co_flags & CO_COROUTINE]


def _awaited(name: str) -> Callable[..., Any]:
    async def run(self: Loan[Any], *args: Any, **kwargs: Any) -> Any:
        return await getattr(self.driver_connection, name)(*args, **kwargs)

    run.__name__ = name
    run.__doc__ = f"``{name}()`` of the driver's connection."
    return run


def _shortcut(name: str) -> Callable[..., Any]:
    def run(self: Loan[Any], *args: Any, **kwargs: Any) -> Any:
        return getattr(self.cursor(), name)(*args, **kwargs)

    run.__name__ = name
    run.__doc__ = f"Make a cursor, call its ``{name}``, and return it."
    return run


def _forwarded(name: str) -> property:
    def get(self: Loan[Any]) -> Any:
        return getattr(self.driver_connection, name)

    def put(self: Loan[Any], value: Any) -> None:
        setattr(self.driver_connection, name, value)

    return property(get, put, doc=f"``{name}`` of the driver's connection.")
