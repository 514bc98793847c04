"""A driver that does nothing, and the peers over it: what is left is what each pool costs by itself."""

from __future__ import annotations

import contextlib
import statistics
import sys
import time
import types
from collections.abc import Callable
from typing import Any

from millpond import Pool
from millpond.drivers.base import Driver


class NullConnection:
    """A connection that costs nothing."""

    threadsafety = 1

    def cursor(self, *_: object) -> NullConnection:
        return self

    def close(self) -> None:
        """Do nothing."""

    commit = rollback = close


class NullDriver(Driver[NullConnection]):
    """An adapter that costs nothing, but for the seconds a dial is said to take."""

    name = "null"
    tracks_cursors = False

    def __init__(self, dial_s: float = 0.0) -> None:
        self.dial_s = dial_s
        self.dials = 0

    # ruff: noqa: ARG002  an adapter takes what the port says, used or not
    def open(self, until: float) -> NullConnection:
        self.dials += 1
        if self.dial_s:
            time.sleep(self.dial_s)
        return NullConnection()

    def is_alive(self, conn: NullConnection, until: float) -> bool:
        return True

    def reset(self, conn: NullConnection, until: float) -> bool:
        return True

    def close(self, conn: NullConnection) -> None:
        conn.close()


def null_module(dial_s: float = 0.0) -> types.ModuleType:
    """Return the same as a DB-API module, for the peers."""
    module = types.ModuleType("null")

    def connect() -> NullConnection:
        if dial_s:
            time.sleep(dial_s)
        return NullConnection()

    error = type("Error", (Exception,), {})
    vars(module).update(threadsafety=1, apilevel="2.0", paramstyle="format", connect=connect, Error=error)
    vars(module).update(OperationalError=error, InterfaceError=error, InternalError=error)
    return module


def millpond_pool(size: int, *, track_use: bool = True, dial_s: float = 0.0) -> Pool[NullConnection]:
    return Pool(NullDriver(dial_s), max_size=size, reset="none", track_use=track_use)


def dbutils_pool(size: int, dial_s: float = 0.0) -> Any:
    from dbutils.pooled_db import PooledDB  # type: ignore[import-untyped]  # it says nothing of types

    return PooledDB(null_module(dial_s), maxconnections=size, blocking=True, ping=0, reset=False)


class SQLAlchemyPool:
    """QueuePool under the same name for the same call."""

    def __init__(self, size: int, dial_s: float = 0.0) -> None:
        from sqlalchemy.pool import QueuePool

        self.pool = QueuePool(null_module(dial_s).connect, pool_size=size, max_overflow=0, reset_on_return=None)
        self.connection = self.pool.connect


def by_hand(pool: Any, rounds: int) -> float:
    began = time.perf_counter()
    for _ in range(rounds):
        conn = pool.connection()
        conn.close()
    return (time.perf_counter() - began) / rounds


def by_with(pool: Any, rounds: int) -> float:
    if isinstance(pool, SQLAlchemyPool):  # its connections have no ``with`` of their own
        began = time.perf_counter()
        for _ in range(rounds):
            with contextlib.closing(pool.connection()):
                pass
        return (time.perf_counter() - began) / rounds
    began = time.perf_counter()
    for _ in range(rounds):
        with pool.connection():
            pass
    return (time.perf_counter() - began) / rounds


def in_turns(subjects: dict[str, Callable[[], float]], rounds: int) -> dict[str, float]:
    """Measure each in turn, again and again; return medians."""
    seen: dict[str, list[float]] = {name: [] for name in subjects}
    for _ in range(rounds):
        for name, measure in subjects.items():
            seen[name].append(measure())
    return {name: statistics.median(times) for name, times in seen.items()}


def build() -> str:
    """Say which interpreter this is, and whether it was built with optimisation."""
    import sysconfig

    if "--enable-optimizations" in (sysconfig.get_config_var("CONFIG_ARGS") or ""):
        how = "an optimised build"
    elif sys.base_prefix == "/usr":
        how = "the system's own build, which Debian and its like optimise without telling"
    else:
        how = "NOT an optimised build"
    return f"Python {sys.version.split()[0]}, {how}"
