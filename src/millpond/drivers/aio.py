"""What an adapter of an asyncio driver offers to a pool, and which adapter fits.

Why: what can be asked of a connection without waiting is the same for every driver, and is in
:class:`~millpond.drivers.base.Adapter`; the four operations that take time are awaited here.

Rules: an operation may be cancelled at each of its awaits, and then leaves a connection that :meth:`AsyncDriver.close`
can close.  Closing itself never waits: what is left to be waited for afterwards is returned, for the pool to see to.
That may be dropped, or be awaited again by another task when the first one was cancelled with its loop: so it is no
bare coroutine but a :class:`Remaining`, or anything else of which both is true.
It must not import a driver, nor asyncio, before somebody asks for a connection.
Other packages add adapters by an entry point in the group ``millpond.async_drivers``: its name is the driver's, as in
``mysql+NAME://`` and ``driver="NAME"``, and it leads to a subclass of :class:`AiodbDriver`, or of :class:`AsyncDriver`
that can be called as that is, with a class method ``from_url``.
"""

from __future__ import annotations

import abc
import inspect
import types
from collections.abc import Awaitable, Callable, Coroutine, Generator, Mapping
from typing import Any, ClassVar, Generic, TypeVar

from millpond._core.states import Fault
from millpond.errors import DriverMissing, InvalidSetting
from millpond.url import MYSQL_SCHEMES, URL, Parser

from . import ALIASES, BUILT_IN, entry_points, faults, installed, refuse_settings
from .base import Adapter, Driver
from .dbapi import OnConnect, Reset, module_of, renamed, valid_on_connect, valid_reset

C = TypeVar("C")
SOURCES = "a URL, an asyncio driver's module, a callable that returns a connection or an awaitable, or an adapter"

# Name -> where the adapter is, and the module that shows that its driver is installed.
ASYNC_BUILT_IN: dict[str, tuple[str, str]] = {
    "asyncmy": ("millpond.drivers.asyncmy:AsyncmyDriver", "asyncmy"),
    "aiomysql": ("millpond.drivers.aiomysql:AiomysqlDriver", "aiomysql"),
    "aiosqlite": ("millpond.drivers.aiosqlite:AiosqliteDriver", "aiosqlite"),
}
GROUP = "millpond.async_drivers"
MYSQL_NAMES = ("asyncmy", "aiomysql")  # in this order, where a URL leaves the choice to us


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

    async def collect(self, conn: C, until: float) -> bool | None:
        """Read the answer to ``send_reset``: as good as new?  None: no answer by *until*, which may be past."""
        return False

    async def has_lost_role(self, conn: C, until: float) -> bool:
        """Ask the server whether it takes no writes now although it, or the one before it, once did."""
        return False


class AiodbDriver(AsyncDriver[Any], Generic[C]):
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

    options: ClassVar[Mapping[str, Parser]] = {}

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
        self._given: Any = self.module if source is None else source
        self._connect: Any = getattr(self._given, "connect", self._given)
        self._connect_args = renamed(connect_args or {})
        self._reset = valid_reset(reset)
        self._on_connect = valid_on_connect(on_connect)
        self._described = described

    @classmethod
    @abc.abstractmethod
    def import_module(cls) -> types.ModuleType:
        """Import the driver that this adapter is for.

        Raises:
            DriverMissing: it is not installed; the message says how to install it.
        """

    @classmethod
    def from_url(
        cls, url: URL, *, connect_args: Mapping[str, Any], reset: Reset = "auto", on_connect: OnConnect = None
    ) -> AiodbDriver[Any]:
        """Make the adapter for a URL; *connect_args* win over what the URL says."""
        arguments = {**cls.arguments_of(url), **renamed(connect_args)}
        return cls(None, connect_args=arguments, reset=reset, on_connect=on_connect, described=str(url))

    @classmethod
    def arguments_of(cls, url: URL) -> dict[str, Any]:
        """Return the keyword arguments of ``connect`` that a URL stands for."""
        parts = {"user": url.user, "password": url.password, "host": url.host, "port": url.port}
        known = {name: value for name, value in parts.items() if value is not None}
        return {**known, **({"database": url.database} if url.database else {}), **url.typed(cls.options)}

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

    def classify(self, error: BaseException) -> Fault:
        """Sort an exception by number, state or class."""
        return faults.classify(error)

    def __repr__(self) -> str:
        shown = self._described or getattr(self._given, "__name__", type(self._given).__name__)
        return f"<{self.name} adapter of {shown}>"


async def answer_of(given: Any) -> Any:
    """Return what was given, or what it is an awaitable of."""
    return await given if inspect.isawaitable(given) else given


# -- which adapter fits ----------------------------------------------------------------------------------------------
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
    try:
        arguments = dict(connect_args or {})
    except (TypeError, ValueError):  # not chained: it may quote what was given
        allowed = "a dict of keyword arguments for connect"
        raise InvalidSetting("connect_args", type(connect_args).__name__, allowed) from None
    if isinstance(source, AsyncDriver):
        refuse_settings(arguments, driver, reset, on_connect)
        return source  # pyright: ignore[reportUnknownVariableType]  # an adapter of whatever its maker said
    if isinstance(source, Driver):
        raise InvalidSetting("source", source, SOURCES, "this adapter is for threads; use millpond.Pool for it")
    if isinstance(source, str):
        return of_url(source, driver, arguments, reset, on_connect)
    if isinstance(source, types.ModuleType):
        name = driver or source.__name__.partition(".")[0]
    elif not callable(source):
        raise InvalidSetting("source", type(source).__name__, SOURCES)
    elif driver is None:
        raise InvalidSetting(
            "driver", None, ", ".join(ASYNC_BUILT_IN), "say whose connections the callable makes, or give an adapter"
        )
    else:
        name = driver
    made: AsyncDriver[Any] = adapter_named(name)(source, connect_args=arguments, reset=reset, on_connect=on_connect)
    return made


def of_url(source: str, driver: str | None, arguments: dict[str, Any], reset: Any, on_connect: Any) -> AsyncDriver[Any]:
    """Return the adapter for a URL."""
    url = URL.parse(source)
    if driver is not None and url.driver is not None and driver.lower() != url.driver.lower():
        raise InvalidSetting(
            "driver", driver, f"{url.driver}, or nothing", f"the URL says {url.scheme}+{url.driver}://"
        )
    name = driver or url.driver or default_driver(url.scheme)
    adapter = adapter_named(name)
    expected = ("sqlite",) if name == "aiosqlite" else MYSQL_SCHEMES
    if name in ASYNC_BUILT_IN and url.scheme not in expected:
        raise InvalidSetting("driver", name, f"with {' or '.join(expected)}://", f"it does not go with {url.scheme}://")
    made: AsyncDriver[Any] = adapter.from_url(url, connect_args=arguments, reset=reset, on_connect=on_connect)
    return made


def default_driver(scheme: str) -> str:
    """Return the driver for a URL that names none."""
    if scheme == "sqlite":
        return "aiosqlite"
    if scheme not in MYSQL_SCHEMES:
        if scheme in entry_points(GROUP):
            return scheme
        raise InvalidSetting("url", f"{scheme}://...", "mysql://, mariadb:// or sqlite://", "no asyncio driver for it")
    for name in MYSQL_NAMES:
        if installed(ASYNC_BUILT_IN[name][1]):
            return name
    raise DriverMissing(
        f'no asyncio driver for {scheme}:// is installed; install one with: pip install "millpond[asyncmy]"'
    )


def adapter_named(name: str) -> Any:
    """Return the adapter class of that name.

    Raises:
        InvalidSetting: there is none, or it is one for threads.
        DriverMissing: there is, but its driver is not installed.
    """
    import importlib

    place = ASYNC_BUILT_IN.get(name.lower())
    if place is None:
        added = entry_points(GROUP)
        if name in added:
            return added[name].load()
        why = "there is no such asyncio driver"
        if ALIASES.get(name.lower(), name.lower()) in BUILT_IN:
            why = "this driver is for threads: use millpond.Pool for it, or name an asyncio driver"
        raise InvalidSetting("driver", name, ", ".join((*ASYNC_BUILT_IN, *added)), why)
    where, needed = place
    if not installed(needed):
        raise DriverMissing(
            f'the driver {needed} is not installed; install it with: pip install "millpond[{name.lower()}]"'
        )
    module, _, attribute = where.partition(":")
    return getattr(importlib.import_module(module), attribute)


__all__ = ["AiodbDriver", "AsyncDriver", "Remaining", "adapter_named", "answer_of", "module_of", "resolve"]
