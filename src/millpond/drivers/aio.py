"""What an adapter of an asyncio driver offers to a pool, and which adapter fits.

Why: what can be asked of a connection without waiting is the same for every driver, and is in
:class:`~millpond.drivers.base.Adapter`; the four operations that take time are awaited here.

Rules: an operation may be cancelled at each of its awaits, and then leaves a connection that :meth:`AsyncDriver.close`
can close.  Closing itself never waits: what is left to be waited for afterwards is returned, for the pool to see to.
That may be dropped, or be awaited again by another task when the first one was cancelled with its loop: so it is no
bare coroutine but a :class:`Remaining`, or anything else of which both is true.
It must not import a driver, nor asyncio, before somebody asks for a connection.  One contract test runs against every
adapter: :class:`millpond.testing.AsyncDriverContract`.
Other packages add adapters by an entry point in the group ``millpond.async_drivers``: its name is the driver's, as in
``mysql+NAME://`` and ``driver="NAME"``, and it leads to a subclass of :class:`AiodbDriver`, or of :class:`AsyncDriver`
that can be called as that is, with a class method ``from_url``.
"""

from __future__ import annotations

import abc
import inspect
import types
from collections.abc import Awaitable, Callable, Coroutine, Generator, Mapping
from typing import Any, Final, Generic, TypeVar

from millpond.errors import InvalidSetting

from . import THREADED
from ._catalogue import Catalogue, checked_driver, keyword_arguments, refuse_connection, refuse_settings
from .base import Adapter, Driver
from .settings import Configured, OnConnect, Reset

C = TypeVar("C")
SOURCES = "a URL, an asyncio driver's module, a callable that returns a connection or an awaitable, or an adapter"


class Remaining:
    """What is left to be waited for: nothing is begun before it is awaited, and every await begins it anew.

    Args:
        begin: makes the coroutine that does it.
    """

    __slots__ = ("_begin",)

    def __init__(self, begin: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self._begin = begin

    def __await__(self) -> Generator[Any, Any, None]:
        return self._begin().__await__()


class AsyncDriver(Adapter[C]):
    """The base of all adapters of drivers that tasks wait for."""

    @abc.abstractmethod
    async def open(self, until: float) -> C:
        """Connect, and set the session up; the pool cancels what is not done by *until*.

        Raises:
            Exception: the driver's own, unchanged.
        """

    @abc.abstractmethod
    async def is_alive(self, conn: C, until: float) -> bool:
        """Ask the server.  Must not raise for a dead connection, and must not reconnect."""

    @abc.abstractmethod
    async def reset(self, conn: C, until: float) -> bool:
        """Make the session as good as new; False (or an exception) if the connection has to be given up."""

    @abc.abstractmethod
    def close(self, conn: C) -> Awaitable[object] | None:
        """Say goodbye and close, now; return what is left to be waited for, if anything (a :class:`Remaining`).

        A statement that is still running is ended on the server where that is possible.
        """

    async def finish(self, conn: C) -> None:
        """Read what a borrower has left of a reply that :meth:`may_end_soon`; called off when it takes too long."""

    async def collect(self, conn: C, until: float) -> bool | None:
        """Read the answer to ``send_reset``: as good as new?  None: no answer by *until*, which may be past."""
        return False

    async def has_lost_role(self, conn: C, until: float) -> bool:
        """Ask the server whether it takes no writes now although it, or the one before it, once did."""
        return False


class AiodbDriver(Configured[Any], AsyncDriver[Any], Generic[C]):
    """What the adapters of asyncio drivers with DB-API names have in common.

    Args:
        source: the driver's module, or a callable that returns a connection or an awaitable of one; None for the
            adapter's own module.
        connect_args: keyword arguments for each connect; a ``password`` that is a callable is asked anew each time, and
            may return an awaitable.
        reset: "auto" (what is needed), "always" (the same, never left out), "rollback" (nothing else), "none" or
            None, or a callable that gets the connection, awaited if it says so; if the answer is False the connection
            is given up.
        on_connect: a statement, several, or a callable that gets the connection, awaited if it says so; run once for
            each new connection.
        described: what the repr shows of where connections lead; no password.
    """

    def __init__(
        self,
        source: types.ModuleType | Callable[..., Any] | None = None,
        *,
        connect_args: Mapping[str, Any] | None = None,
        reset: Reset = "auto",
        on_connect: OnConnect = None,
        described: str = "",
    ) -> None:
        self.module = self.import_module()
        given = self.module if source is None else source
        super().__init__(given, connect_args=connect_args, reset=reset, on_connect=on_connect, described=described)
        self._connect: Any = getattr(given, "connect", given)

    @classmethod
    @abc.abstractmethod
    def import_module(cls) -> types.ModuleType:
        """Import the driver that this adapter is for.

        Raises:
            DriverMissing: it is not installed; the message says how to install it.
        """

    async def fresh_arguments(self) -> dict[str, Any]:
        """Return the arguments for one connect; a password that is a callable is asked now."""
        arguments = dict(self._connect_args)
        password = arguments.get("password")
        if callable(password):
            arguments["password"] = await answer_of(password())
        return arguments

    async def reset(self, conn: Any, until: float) -> bool:
        """Clean the session, or do what the setting says."""
        if callable(self._reset):
            return await answer_of(self._reset(conn)) is not False
        if self._reset == "none":
            return True
        return await self.clean(conn, until)

    async def clean(self, conn: Any, until: float) -> bool:
        """Make the session as good as new, as far as this adapter can; by default a rollback."""
        await conn.rollback()
        return True


async def answer_of(given: Any) -> Any:
    """Return what was given, or what it is an awaitable of."""
    return await given if inspect.isawaitable(given) else given


# -- which adapter fits ----------------------------------------------------------------------------------------------
TASKED: Final = Catalogue(
    kind="asyncio driver",
    built_in={
        "asyncmy": ("millpond.drivers.asyncmy:AsyncmyDriver", "asyncmy"),
        "aiomysql": ("millpond.drivers.aiomysql:AiomysqlDriver", "aiomysql"),
        "aiosqlite": ("millpond.drivers.aiosqlite:AiosqliteDriver", "aiosqlite"),
    },
    mysql=("asyncmy", "aiomysql"),
    sqlite="aiosqlite",
    group="millpond.async_drivers",
    is_elsewhere=lambda name: THREADED.canonical(name) in THREADED.built_in,
    instead="this driver is for threads: use millpond.Pool for it, or name an asyncio driver",
    remedy="any other is given by an adapter: AsyncPool(adapter)",
)


def resolve(
    source: Any,
    *,
    connect_args: Mapping[str, Any] | None = None,
    driver: str | None = None,
    reset: str | Callable[[Any], Any] | None = "auto",
    on_connect: Any = None,
    connect_timeout: float = 10.0,  # noqa: ARG001  adapters are given a deadline at each dial
) -> AsyncDriver[Any]:
    """Return the adapter for whatever connections come from.

    Args:
        source: a URL, an asyncio driver's module, a callable that connects, or an adapter, returned as it is.
        connect_args: keyword arguments for each connect; they win over what a URL says.
        driver: the name of the adapter; needed for a callable.
        reset: see :class:`AiodbDriver`.
        on_connect: see there.
        connect_timeout: seconds for a dial.

    Raises:
        InvalidSetting: one of these cannot be; the message names it and what is allowed.
        DriverMissing: the driver's package is not installed; the message says which extra to install.
    """
    arguments = keyword_arguments(connect_args)
    name = checked_driver(driver)
    if isinstance(source, AsyncDriver):
        refuse_settings(arguments, name, reset, on_connect)
        return source  # pyright: ignore[reportUnknownVariableType]  # an adapter of whatever its maker said
    settings = {"connect_args": arguments, "reset": reset, "on_connect": on_connect}
    made: AsyncDriver[Any]
    if isinstance(source, str):
        made = TASKED.of_url(source, name, settings)
    else:
        made = TASKED.adapter_named(name_for(source, name))(source, **settings)
    return made


def name_for(source: Any, name: str | None) -> str:
    """Return the name of the adapter for a module or a callable, where that can be told."""
    if isinstance(source, Driver):
        raise InvalidSetting("source", source, SOURCES, "this adapter is for threads; use millpond.Pool for it")
    if isinstance(source, types.ModuleType):
        return name or source.__name__.partition(".")[0]
    refuse_connection(source, SOURCES)
    if not callable(source):
        raise InvalidSetting("source", type(source).__name__, SOURCES)
    if name is None:
        why = "say whose connections the callable makes, or give an adapter"
        raise InvalidSetting("driver", None, ", ".join(TASKED.built_in), why)
    return name
