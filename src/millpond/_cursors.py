"""Cursors of leases: the user's own class, our lease as their ``connection``, and of no use once that was given back.

A cursor keeps its class but for one step: a subclass, made once per class, that asks before each statement whether the
lease is still held.  Fetching is not touched, whether it is Python or C: a wrapped ``fetchone`` costs six times a
plain one. Those that fetch from the connection by themselves are cut off at return: their class becomes another
subclass, every method of which says where the connection was given back.

Rules: the cursor holds its lease, so that ``pool.connection().cursor()`` works as long as the cursor lives.  A
cursor whose class cannot be extended (some are closed C types) is wrapped instead.  Nothing in here does I/O.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .errors import ConnectionReturned

if TYPE_CHECKING:
    from typing_extensions import Self

# They send something, or ask the server for more: refused after return.
SENDING = (
    "execute",
    "executemany",
    "executescript",
    "callproc",
    "nextset",
    "copy",
    "stream",
    "copy_expert",
    "copy_from",
    "copy_to",
)
FETCHING = ("fetchone", "fetchmany", "fetchall", "fetchall_unbuffered", "scroll", "__iter__", "__next__")
LEASE = "_millpond_lease"
CLASSES_MAX = 1000  # a program that makes cursor classes without end must not fill the memory

Maker = Callable[[type[Any]], Any]


def close_plainly(cursor: Any, kind: type[Any]) -> None:
    """Let go of what a cursor holds by its own ``close``."""
    kind.close(cursor)


class CursorClasses:
    """The cursor classes of one adapter, and what they became.

    Args:
        sever: lets go of a cursor whose lease was given back, by the class that it had: its own ``close`` unless told
            otherwise (one that would first read a long reply to its end, for instance).
        tracked: whether cursors of a class fetch from the connection by themselves, and so must be cut off at return.
    """

    def __init__(
        self,
        *,
        sever: Callable[[Any, type[Any]], None] = close_plainly,
        tracked: Callable[[type[Any]], bool] = lambda _: True,
    ) -> None:
        self._sever = sever
        self._tracked = tracked
        self._leased: dict[type[Any], type[Any] | None] = {}

    def kind(self, base: type[Any]) -> type[Any] | None:
        """Return the subclass of *base* for cursors of leases; None if it cannot be extended."""
        try:
            return self._leased[base]
        except KeyError:
            pass
        if len(self._leased) >= CLASSES_MAX:
            self._leased.clear()
        try:
            made: type[Any] | None = leased_class(base, self._sever)
        except TypeError:
            made = None
        self._leased[base] = made
        return made

    def lend(self, cursor: Any, lease: Any) -> Any:
        """Return *cursor* as a cursor of *lease*."""
        base: type[Any] = type(cursor)  # pyright: ignore[reportUnknownVariableType]
        kind = self.kind(base)
        if kind is not None:
            try:
                cursor.__class__ = kind
            except TypeError:  # a closed C type, or one with another layout
                kind = None
        if kind is None:
            wrapped = ForwardedCursor(cursor, lease)
            lease._track(wrapped)  # noqa: SLF001  the lease's side of the same machinery
            return wrapped
        return self.bind(cursor, lease, base)

    def make(self, base: type[Any], maker: Maker, lease: Any) -> Any | None:
        """Have a cursor of the subclass of *base* made by *maker*; None if there is no such subclass."""
        kind = self.kind(base)
        return None if kind is None else self.bind(maker(kind), lease, base)

    def bind(self, cursor: Any, lease: Any, base: type[Any]) -> Any:
        """Point a cursor of one of our classes at its lease."""
        # Not by __dict__, which Python 3.12 would make for it, and every fetch be slower by 7 %, measured.
        object.__setattr__(cursor, LEASE, lease)
        cursor.connection = lease
        if self._tracked(base):
            lease._track(cursor)  # noqa: SLF001  the lease's side of the same machinery
        return cursor


def leased_class(base: type[Any], sever: Callable[[Any, type[Any]], None]) -> type[Any]:
    """Make the subclass of *base* that asks its lease before each statement."""
    severed = severed_class(base)

    def cut_off(cursor: Any) -> None:
        cursor.__class__ = severed
        sever(cursor, base)
        cursor.__dict__["connection"] = cursor.__dict__[LEASE]

    members: dict[str, Any] = named_like(base)
    for name in SENDING:
        if hasattr(base, name):
            members[name] = asking(getattr(base, name))
    members["close"] = closing(base, cut_off)
    if hasattr(base, "connection"):  # a property or a C member: it would be in front of the instance's own
        members["connection"] = property(own_connection, set_own_connection, doc="The lease.")
    if hasattr(base, "_get_db"):
        members["_get_db"] = direct(base._get_db)  # noqa: SLF001  PyMySQL and mysqlclient; others go through the lease
    return subclass(base, members)


def severed_class(base: type[Any]) -> type[Any]:
    """Make the subclass of *base* for a cursor that was cut off: whatever is done with it says so, but closing it."""
    members: dict[str, Any] = named_like(base)
    for name in (*SENDING, *FETCHING):
        if hasattr(base, name):
            members[name] = refusing(name)
    members["close"] = closed_already
    if hasattr(base, "connection"):
        members["connection"] = property(own_connection, set_own_connection, doc="The lease.")
    if hasattr(base, "__del__"):
        members["__del__"] = closed_already  # nothing is left to be let go of
    return subclass(base, members)


def subclass(base: type[Any], members: dict[str, Any]) -> type[Any]:
    metaclass: Any = type(base)
    made: type[Any] = metaclass(base.__name__, (base,), members)
    return made


def named_like(base: type[Any]) -> dict[str, Any]:
    return {"__module__": base.__module__, "__qualname__": base.__qualname__, "__doc__": base.__doc__}


def asking(method: Callable[..., Any]) -> Callable[..., Any]:
    def ask_first(self: Any, *args: Any, **kwargs: Any) -> Any:
        self.__dict__[LEASE].driver_connection  # noqa: B018  raises if the lease was given back
        return method(self, *args, **kwargs)

    ask_first.__name__ = getattr(method, "__name__", "execute")
    ask_first.__doc__ = method.__doc__
    return ask_first


def direct(method: Callable[..., Any]) -> Callable[..., Any]:
    """Spare a driver's own code the way through the lease, attribute by attribute."""

    def driver_connection(self: Any) -> Any:
        lease = self.__dict__[LEASE]
        conn = method(self)
        return lease.driver_connection if conn is lease else conn

    return driver_connection


def closing(base: type[Any], cut_off: Callable[[Any], None]) -> Callable[..., Any]:
    def close(self: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            self.__dict__[LEASE].driver_connection  # noqa: B018  raises if the lease was given back
        except ConnectionReturned:
            cut_off(self)
            return None
        return base.close(self, *args, **kwargs)

    close.__doc__ = base.close.__doc__
    return close


def refusing(name: str) -> Callable[..., Any]:
    def refuse(self: Any, *_: Any, **__: Any) -> Any:
        self.__dict__[LEASE].driver_connection  # noqa: B018  raises, and says where it was given back
        raise ConnectionReturned(f"{name}() of a cursor that was closed when its connection was given back to the pool")

    refuse.__name__ = name
    return refuse


def closed_already(self: Any, *_: Any, **__: Any) -> None:
    """Do nothing: the cursor was let go of when its connection was given back."""


def own_connection(self: Any) -> Any:
    return self.__dict__.get("connection")


def set_own_connection(self: Any, value: Any) -> None:
    self.__dict__["connection"] = value


class ForwardedCursor:
    """A cursor of a class that cannot be extended: what it is asked goes on to the driver's, one look-up later."""

    __slots__ = ("__weakref__", "_cursor", "connection")

    _cursor: Any
    connection: Any

    def __init__(self, cursor: Any, lease: Any) -> None:
        object.__setattr__(self, "_cursor", cursor)
        object.__setattr__(self, "connection", lease)

    @property  # type: ignore[misc]  # on purpose: isinstance() asks for it
    def __class__(self) -> type[Any]:  # pyright: ignore[reportIncompatibleMethodOverride]  # read only: it is a look-alike
        kind: type[Any] = type(self._cursor)  # pyright: ignore[reportUnknownVariableType]  # it may be of any class
        return kind

    def __getattr__(self, name: str) -> Any:
        self.connection.driver_connection  # noqa: B018  raises if the lease was given back
        return getattr(self._cursor, name)

    def __setattr__(self, name: str, value: Any) -> None:
        self.connection.driver_connection  # noqa: B018  raises if the lease was given back
        setattr(self._cursor, name, value)

    def execute(self, *args: Any, **kwargs: Any) -> Any:
        self.connection.driver_connection  # noqa: B018  raises if the lease was given back
        answer = self._cursor.execute(*args, **kwargs)
        return self if answer is self._cursor else answer

    def close(self) -> None:
        self._cursor.close()

    def __iter__(self) -> Any:
        self.connection.driver_connection  # noqa: B018  raises if the lease was given back
        return iter(self._cursor)

    def __next__(self) -> Any:
        self.connection.driver_connection  # noqa: B018  raises if the lease was given back
        return next(self._cursor)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return repr(self._cursor)
