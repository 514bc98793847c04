"""Which adapter fits: from a URL, a DB-API module or a callable to a :class:`~millpond.drivers.base.Driver`.

Adapters are imported when they are needed, and drivers by their adapters, so that importing millpond pulls in none.
Other packages add adapters by an entry point in the group ``millpond.drivers``: its name is the driver's, as in
``mysql+NAME://`` and ``driver="NAME"``, and it leads to a subclass of ``Driver`` that can be called as
:class:`~millpond.drivers.dbapi.DbapiDriver` is, with a class method ``from_url``.
"""

from __future__ import annotations

import difflib
import importlib
import importlib.metadata
import importlib.util
import types
from collections.abc import Callable, Mapping
from typing import Any

from millpond.errors import DriverMissing, InvalidSetting
from millpond.url import MYSQL_SCHEMES, SCHEMES, URL

from .base import Driver

__all__ = ["Driver", "adapter_named", "resolve"]

GROUP = "millpond.drivers"
SOURCES = "a URL, a DB-API module, a callable that returns a connection, or a millpond.drivers.base.Driver"

# Name -> where the adapter is, and the module that shows that its driver is installed.
BUILT_IN: dict[str, tuple[str, str]] = {
    "pymysql": ("millpond.drivers.pymysql:PyMySQLDriver", "pymysql"),
    "mysqlclient": ("millpond.drivers.mysqlclient:MySQLClientDriver", "MySQLdb"),
    "mysqlconnector": ("millpond.drivers.mysqlconnector:MySQLConnectorDriver", "mysql.connector"),
    "sqlite": ("millpond.drivers.sqlite:SQLiteDriver", "sqlite3"),
    "dbapi": ("millpond.drivers.dbapi:DbapiDriver", "sys"),
}
ALIASES = {
    "mysqldb": "mysqlclient",
    "mysql-connector": "mysqlconnector",
    "mysql.connector": "mysqlconnector",
    "sqlite3": "sqlite",
}
ASYNC_NAMES = ("asyncmy", "aiomysql", "aiosqlite")  # see aio.py
BY_MODULE = "any other DB-API driver is given as a module: Pool(module, connect_args={...})"
MYSQL_DRIVERS = ("pymysql", "mysqlclient", "mysqlconnector")  # in this order, where a URL leaves the choice to us


def resolve(
    source: Any,
    *,
    connect_args: Mapping[str, Any] | None = None,
    driver: str | None = None,
    reset: str | Callable[[Any], Any] | None = "auto",
    on_connect: Any = None,
    connect_timeout: float = 10.0,  # noqa: ARG001  for adapters of others: ours are given a deadline at each dial
) -> Driver[Any]:
    """Return the adapter for whatever connections come from.

    Args:
        source: a URL, a DB-API module, a callable that returns a connection, or an adapter, which is returned as it is.
        connect_args: keyword arguments for each connect; they win over what a URL says.
        driver: the name of the adapter; None: found by the source, for a callable by its first connection.
        reset: see :class:`~millpond.drivers.dbapi.DbapiDriver`.
        on_connect: see there.
        connect_timeout: seconds for a dial; adapters are told a deadline at each, so that none of ours needs it.

    Raises:
        InvalidSetting: one of these cannot be; the message names it and what is allowed.
        DriverMissing: the driver's package is not installed; the message says which extra to install.
    """
    arguments = keyword_arguments(connect_args)
    if driver is not None and not isinstance(driver, str):  # pyright: ignore[reportUnnecessaryIsInstance]  # from users
        raise InvalidSetting("driver", driver, "the name of a driver, such as 'pymysql'")
    if isinstance(source, Driver):
        refuse_settings(arguments, driver, reset, on_connect)
        return source  # pyright: ignore[reportUnknownVariableType]  # an adapter of whatever its maker said
    if isinstance(source, str):
        return of_url(source, driver, arguments, reset, on_connect)
    if isinstance(source, types.ModuleType):
        name = driver or name_for_module(source)
        if not callable(getattr(source, "connect", None)) or not hasattr(source, "apilevel"):
            raise InvalidSetting(
                "source", source.__name__, SOURCES, "this module is no DB-API 2 driver: it has no connect or apilevel"
            )
        return made_by(adapter_named(name), source, arguments, reset, on_connect)
    if hasattr(source, "cursor") and not isinstance(source, type):
        why = "this is a connection: pass what makes one"
        raise InvalidSetting("source", type(source).__name__, SOURCES, why)
    if not callable(source):
        raise InvalidSetting("source", type(source).__name__, SOURCES)
    if driver is not None:
        return made_by(adapter_named(driver), source, arguments, reset, on_connect)
    from .found import FoundDriver

    return FoundDriver(source, connect_args=arguments, reset=reset, on_connect=on_connect)


def keyword_arguments(connect_args: Any) -> dict[str, Any]:
    """Return ``connect_args`` as a dict of its own; what is wrong with them is told without quoting them."""
    allowed = "a dict of keyword arguments for connect"
    try:
        arguments: dict[Any, Any] = dict(connect_args or {})
    except (TypeError, ValueError):  # not chained: it may quote what was given
        raise InvalidSetting("connect_args", type(connect_args).__name__, allowed) from None
    if not all(isinstance(name, str) for name in arguments):
        raise InvalidSetting("connect_args", type(connect_args).__name__, allowed, "one of its keys is no name")
    return arguments


def made_by(adapter: Any, source: Any, arguments: dict[str, Any], reset: Any, on_connect: Any) -> Driver[Any]:
    """Make an adapter for a module or a callable."""
    made: Driver[Any] = adapter(source, connect_args=arguments, reset=reset, on_connect=on_connect)
    return made


def refuse_settings(arguments: dict[str, Any], driver: str | None, reset: Any, on_connect: Any) -> None:
    """Say so if a setting would be lost because an adapter, made before, has its own."""
    lost = {"connect_args": arguments or None, "driver": driver, "on_connect": on_connect}
    lost["reset"] = None if reset in ("auto", "none", None) else reset  # the pool itself leaves resets out
    for name, value in lost.items():
        if value is not None:
            shown = "..." if name == "connect_args" else value
            raise InvalidSetting(name, shown, "leave it out", "it has to be given to the adapter, when that is made")


def of_url(source: str, driver: str | None, arguments: dict[str, Any], reset: Any, on_connect: Any) -> Driver[Any]:
    """Return the adapter for a URL."""
    url = URL.parse(source)
    if driver is not None and url.driver is not None and canonical(driver) != canonical(url.driver):
        raise InvalidSetting(
            "driver", driver, f"{url.driver}, or nothing", f"the URL says {url.scheme}+{url.driver}://"
        )
    name = driver or url.driver or default_driver(url.scheme)
    adapter = adapter_named(name)
    if not hasattr(adapter, "from_url") or canonical(name) == "dbapi":
        raise InvalidSetting("driver", name, "an adapter that takes URLs", f"the adapter {name} takes none")
    expected = scheme_of(canonical(name))
    if expected is not None and url.scheme not in expected:
        raise InvalidSetting("driver", name, f"with {' or '.join(expected)}://", f"it does not go with {url.scheme}://")
    made: Driver[Any] = adapter.from_url(url, connect_args=arguments, reset=reset, on_connect=on_connect)
    return made


def scheme_of(name: str) -> tuple[str, ...] | None:
    """Return the schemes of one of our own adapters; None for others, who know their own."""
    if name in MYSQL_DRIVERS:
        return MYSQL_SCHEMES
    return ("sqlite",) if name == "sqlite" else None


def default_driver(scheme: str) -> str:
    """Return the driver for a URL that names none.

    Raises:
        DriverMissing: none of those for MySQL is installed.
        InvalidSetting: nobody knows the scheme.
    """
    if scheme in MYSQL_SCHEMES:
        for name in MYSQL_DRIVERS:
            if installed(BUILT_IN[name][1]):
                return name
        raise missing("pymysql", f"no driver for {scheme}:// is installed")
    if scheme == "sqlite":
        return scheme
    added = entry_points()
    if scheme in added:
        return scheme
    known = [*SCHEMES, *added]
    near = difflib.get_close_matches(scheme, known, n=1)
    why = "there is no such scheme" + (f"; did you mean {near[0]}://?" if near else f"; {BY_MODULE}")
    raise InvalidSetting("url", f"{scheme}://...", ", ".join(f"{name}://" for name in known), why)


def installed(module: str) -> bool:
    """Say whether a module can be imported, without importing it."""
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        return False


def missing(name: str, why: str) -> DriverMissing:
    """Make the error for a driver that is not installed; the extra has the driver's name."""
    return DriverMissing(f'{why}; install one with: pip install "millpond[{name}]"')


def canonical(name: str) -> str:
    """Return the one name of a driver that has several."""
    return ALIASES.get(name.lower(), name.lower())


def entry_points(group: str = GROUP) -> dict[str, importlib.metadata.EntryPoint]:
    """Return the adapters that other packages bring."""
    return {point.name: point for point in importlib.metadata.entry_points(group=group)}


def adapter_named(name: str) -> Any:
    """Return the adapter class of that name.

    Raises:
        InvalidSetting: there is none.
        DriverMissing: there is, but its driver is not installed.
    """
    place = BUILT_IN.get(canonical(name))
    if place is None:
        added = entry_points()
        if name in added:
            return added[name].load()
        known = [*BUILT_IN, *added]
        if canonical(name) in ASYNC_NAMES:
            raise InvalidSetting("driver", name, ", ".join(known), "it is asyncio's: millpond.AsyncPool takes it")
        near = difflib.get_close_matches(name, known, n=1)
        why = "there is no such driver" + (f"; did you mean {near[0]}?" if near else f"; {BY_MODULE}")
        raise InvalidSetting("driver", name, ", ".join(known), why)
    where, needed = place
    if not installed(needed):
        raise missing(canonical(name), f"the driver {needed} is not installed")
    module, _, attribute = where.partition(":")
    return getattr(importlib.import_module(module), attribute)


def name_for_module(module: types.ModuleType) -> str:
    """Return the name of the adapter for a DB-API module, or for the one a connection's class comes from."""
    name = module.__name__
    for known, (_, needed) in BUILT_IN.items():
        if known != "dbapi" and (name == needed or name.startswith(f"{needed}.")):
            return known
    return name if name in entry_points() else "dbapi"
