"""Tools for tests of programs that use millpond, and of millpond itself; they need nothing but the standard library.

=====================  ============================================================================================
``FakeDriver``         a driver without a database, which answers, refuses, answers late, never, or lies, as it is told
``SimClock``           a clock that stands still until it is told to go on
``DriverContract``     the promises of a driver adapter as a test class: subclass it to test one of your own, and
                       ``AsyncDriverContract`` for one of an asyncio driver
``Simulator``          the pool's core in virtual time
``ScratchServer``      a private MariaDB or MySQL on a free port, to be killed, frozen, restarted
``ScratchPostgreSQL``  a private PostgreSQL, likewise
``FaultProxy``         a network between client and server that counts, delays, swallows and cuts
``FakeServer``         a MySQL server that lacks what old or odd ones lack: tracking, resets, roles, a direct line
=====================  ============================================================================================

Each is imported when it is first asked for.  ``docs/testing.md`` and ``docs/testing-servers.md`` have examples.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .aio_contract import AsyncDriverContract
    from .contract import DriverContract
    from .fake_driver import FakeConnection, FakeDriver
    from .fake_server import FakeError, FakeServer
    from .postgresql import ScratchPostgreSQL
    from .proxy import CannotCount, FaultProxy
    from .servers import ScratchServer, ServerFailed, ServerMissing
    from .sim_clock import SimClock
    from .simulator import Simulator

_HOMES = {
    "AsyncDriverContract": "aio_contract",
    "CannotCount": "proxy",
    "DriverContract": "contract",
    "FakeConnection": "fake_driver",
    "FakeDriver": "fake_driver",
    "FakeError": "fake_server",
    "FakeServer": "fake_server",
    "FaultProxy": "proxy",
    "ScratchPostgreSQL": "postgresql",
    "ScratchServer": "servers",
    "ServerFailed": "servers",
    "ServerMissing": "servers",
    "SimClock": "sim_clock",
    "Simulator": "simulator",
}

__all__ = [
    "AsyncDriverContract",
    "CannotCount",
    "DriverContract",
    "FakeConnection",
    "FakeDriver",
    "FakeError",
    "FakeServer",
    "FaultProxy",
    "ScratchPostgreSQL",
    "ScratchServer",
    "ServerFailed",
    "ServerMissing",
    "SimClock",
    "Simulator",
]


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{home}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
