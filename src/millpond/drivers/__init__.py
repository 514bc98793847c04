"""Which adapter fits: from a URL, a DB-API module or a callable to a :class:`~millpond.drivers.base.Driver`.

Adapters are imported when they are needed, and drivers by their adapters, so that importing millpond pulls in none.
Other packages add adapters by an entry point in the group ``millpond.drivers``: its name is the driver's, as in
``mysql+NAME://`` and ``driver="NAME"``, and it leads to a subclass of ``Driver`` that can be called as
:class:`~millpond.drivers.dbapi.DbapiDriver` is, with a class method ``from_url``.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Mapping
from typing import Any, Final

from millpond.errors import InvalidSetting

from ._catalogue import Catalogue, checked_driver, keyword_arguments, refuse_connection, refuse_settings
from .base import Driver

__all__ = ["THREADED", "Driver", "adapter_named", "resolve"]

SOURCES = "a URL, a DB-API module, a callable that returns a connection, or a millpond.drivers.base.Driver"

THREADED: Final = Catalogue(
    kind="driver",
    built_in={
        "pymysql": ("millpond.drivers.pymysql:PyMySQLDriver", "pymysql"),
        "mysqlclient": ("millpond.drivers.mysqlclient:MySQLClientDriver", "MySQLdb"),
        "mysqlconnector": ("millpond.drivers.mysqlconnector:MySQLConnectorDriver", "mysql.connector"),
        "sqlite": ("millpond.drivers.sqlite:SQLiteDriver", "sqlite3"),
        "dbapi": ("millpond.drivers.dbapi:DbapiDriver", "sys"),
    },
    mysql=("pymysql", "mysqlclient", "mysqlconnector"),
    sqlite="sqlite",
    group="millpond.drivers",
    is_elsewhere=lambda name: name.lower() in ("asyncmy", "aiomysql", "aiosqlite"),  # see aio.py
    instead="it is asyncio's: millpond.AsyncPool takes it",
    remedy="any other DB-API driver is given as a module: Pool(module, connect_args={...})",
    without_url=frozenset({"dbapi"}),
    aliases={
        "mysqldb": "mysqlclient",
        "mysql-connector": "mysqlconnector",
        "mysql.connector": "mysqlconnector",
        "sqlite3": "sqlite",
    },
)


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
    name = checked_driver(driver)
    if isinstance(source, Driver):
        refuse_settings(arguments, name, reset, on_connect)
        return source  # pyright: ignore[reportUnknownVariableType]  # an adapter of whatever its maker said
    settings = {"connect_args": arguments, "reset": reset, "on_connect": on_connect}
    made: Driver[Any]
    if isinstance(source, str):
        made = THREADED.of_url(source, name, settings)
    else:
        made = adapter_for(source, name)(source, **settings)
    return made


def adapter_for(source: Any, name: str | None) -> Any:
    """Return the adapter class for a module or a callable; *name*, where it is told, decides."""
    if isinstance(source, types.ModuleType):
        if not callable(getattr(source, "connect", None)) or not hasattr(source, "apilevel"):
            why = "this module is no DB-API 2 driver: it has no connect or apilevel"
            raise InvalidSetting("source", source.__name__, SOURCES, why)
        return adapter_named(name or name_for_module(source))
    refuse_connection(source, SOURCES)
    if not callable(source):
        raise InvalidSetting("source", type(source).__name__, SOURCES)
    if name is not None:
        return adapter_named(name)
    from .found import FoundDriver

    return FoundDriver


def adapter_named(name: str) -> Any:
    """Return the adapter class of that name.

    Raises:
        InvalidSetting: there is none.
        DriverMissing: there is, but its driver is not installed.
    """
    return THREADED.adapter_named(name)


def name_for_module(module: types.ModuleType) -> str:
    """Return the name of the adapter for a DB-API module, or for the one a connection's class comes from."""
    name = module.__name__
    for known, (_, needed) in THREADED.built_in.items():
        if known != "dbapi" and (name == needed or name.startswith(f"{needed}.")):
            return known
    return name if name in THREADED.entry_points() else "dbapi"
