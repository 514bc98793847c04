"""What can go wrong, sorted by whose fault it is.

::

    Error                       catches all of ours
      PoolTimeout               no connection came in time; says who holds them, or what is wrong with the server
      TooManyWaiting            the queue is full (``max_waiting``); nobody has waited
      PoolClosed                used after ``close()``: the program's fault
      ConnectionReturned        a lease or cursor was used after it was given back: the program's fault
      ConcurrentUse             two threads used one connection at once: the program's fault
      WrongEventLoop            an asynchronous pool was used by another loop or thread than its own
      InvalidSetting            a setting is out of bounds, unknown or contradicts another (also a ValueError)
      DriverMissing             the driver's package is not installed (also an ImportError)
      DriverUnsuitable          this kind of connection cannot be pooled as it was made
    LeaseDropped, UncommittedWork, EventLoopBlocked   warnings

Where the driver is known, our errors also belong to its family: PoolTimeout and TooManyWaiting to its
``OperationalError``, those from PoolClosed to WrongEventLoop and DriverUnsuitable to its ``InterfaceError``, the others
to its ``Error``, so that ``except pymysql.OperationalError`` still sees them.  These double classes are made when the
driver is first seen; pickled, they become the plain class again.

What the helper layer raises beside these is in :mod:`millpond._database.errors`.
"""

from __future__ import annotations

from typing import Any, TypeVar


class Error(Exception):
    """Whatever millpond raises of its own; ``args`` are ``(0, text)``: handlers of MySQL errors expect a number."""

    family = "Error"  # which of the driver's exception classes it joins

    def __init__(self, text: str) -> None:
        # Not super(): in a double class that would be the driver's own __init__, which has ideas of its own about args.
        Exception.__init__(self, 0, text)
        self.args = (0, text)
        self.text = text

    def __str__(self) -> str:
        return self.text

    def __reduce__(self) -> tuple[Any, ...]:
        return _revive, (plain(type(self)), self.args, self.__dict__)


class PoolTimeout(Error):
    """No connection became free, or could be opened, in time.

    Attributes:
        reason: ``"pool exhausted"``, ``"server unreachable"``, ``"server full"``, ``"credentials refused"``,
            ``"server silent"`` or ``"dials too slow"``.
        waited: seconds this caller has waited.
        holders: who holds connections, the longest first (:class:`millpond.stats.Holder`).
    """

    family = "OperationalError"

    def __init__(self, text: str, *, reason: str = "", waited: float = 0.0, holders: tuple[Any, ...] = ()) -> None:
        super().__init__(text)
        self.reason = reason
        self.waited = waited
        self.holders = holders


class TooManyWaiting(Error):
    """As many callers are waiting as ``max_waiting`` allows; this one was turned away at once."""

    family = "OperationalError"


class PoolClosed(Error):
    """The pool was closed before the call, or while it waited."""

    family = "InterfaceError"


class ConnectionReturned(Error):
    """A connection, or one of its cursors, was used after it was given back to the pool."""

    family = "InterfaceError"


class ConcurrentUse(Error):
    """Two threads used one connection at the same time; its replies would have been mixed up."""

    family = "InterfaceError"


class WrongEventLoop(Error):
    """An asynchronous pool was used by another event loop, or from another thread, than the one it belongs to."""

    family = "InterfaceError"


class InvalidSetting(Error, ValueError):
    """A setting has a value that it cannot have; nothing was changed, and nothing opened.

    Attributes:
        name: of the setting.
        value: as it was given; ``"..."`` where it may be a secret.
        allowed: what it may be, in words.
    """

    def __init__(self, name: str, value: Any, allowed: str, why: str = "") -> None:
        super().__init__(f"{name}={value!r}: {why or 'not possible'}; allowed: {allowed}")
        self.name = name
        self.value = value
        self.allowed = allowed


class DriverMissing(Error, ImportError):
    """The Python package of a driver is not installed."""

    def __init__(self, text: str) -> None:
        Error.__init__(self, text)


class DriverUnsuitable(Error):
    """Connections of this kind cannot be handed from thread to thread; the message says how to make them."""

    family = "InterfaceError"


class LeaseDropped(ResourceWarning):
    """A connection was dropped without being given back; the pool has found and closed it."""


class UncommittedWork(UserWarning):
    """A connection was given back with writes that were never committed; they were rolled back."""


class EventLoopBlocked(RuntimeWarning):
    """A thread waited for a connection while it was running an event loop, which stood still meanwhile."""


ErrorT = TypeVar("ErrorT", bound=Error)
_doubles: dict[tuple[type[Error], type[BaseException]], type[Error]] = {}


def joined(ours: type[ErrorT], theirs: type[BaseException] | None) -> type[ErrorT]:
    """Return the class that is *ours* and also *theirs*: made once per pair, ours first."""
    if theirs is None or issubclass(ours, theirs):
        return ours
    known = _doubles.get((ours, theirs))
    if known is None:
        namespace = {"__module__": ours.__module__, "__doc__": ours.__doc__, "__init__": ours.__init__}
        try:
            known = type(ours.__name__, (ours, theirs), namespace)
        except TypeError:  # layouts of two C classes may not go together; ours alone is still right
            known = ours
        _doubles[ours, theirs] = known
    return known  # type: ignore[return-value]  # the dict maps each of our classes to one of its own subclasses


def plain(kind: type[Error]) -> type[Error]:
    """Return our own class behind a double one."""
    ours: dict[str, object] = globals()
    return next(base for base in kind.__mro__ if issubclass(base, Error) and ours.get(base.__name__) is base)


def _revive(kind: type[Error], args: tuple[Any, ...], state: dict[str, Any]) -> Error:
    error = kind.__new__(kind, *args)
    error.args = args
    error.__dict__.update(state)
    return error
