"""The adapter for a callable that connects: which driver is behind it is seen in its first connection.

Until then everything is as for any DB-API driver.  From then on this object *is* a thin front: its capabilities are
set to those of the adapter found, so that nothing is looked up twice.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from millpond._core.states import Fault
from millpond.forks import LockOfProcess

from . import adapter_named, name_for_module
from .base import Driver
from .dbapi import DbapiDriver, module_of
from .settings import OnConnect, Reset

FORWARDED = (
    "name",
    "capabilities",
    "is_alive",
    "is_clean",
    "is_readable",
    "reset",
    "send_reset",
    "close",
    "in_flight",
    "may_end_soon",
    "uncommitted",
    "is_broken",
    "is_harmless",
    "role_suspect",
    "has_lost_role",
    "reset_way",
    "collect",
    "fetch",
    "fileno",
    "cut",
    "bound_to_thread",
    "classify",
    "cursor",
    "family",
    "shortcuts",
    "tracks_cursors",
)


class FoundDriver(Driver[Any]):
    """A front for the adapter that fits the first connection.

    Args: as for :class:`~millpond.drivers.dbapi.DbapiDriver`.
    """

    name = "found"
    capabilities = DbapiDriver.capabilities

    def __init__(
        self,
        source: Callable[..., Any],
        *,
        connect_args: Mapping[str, Any] | None = None,
        reset: Reset = "auto",
        on_connect: OnConnect = None,
    ) -> None:
        self._source = source
        self._settings: dict[str, Any] = {"connect_args": connect_args, "reset": reset, "on_connect": on_connect}
        self._lock = LockOfProcess()
        self._found = False
        self._adapter: DbapiDriver = DbapiDriver(source, **self._settings)

    @property
    def adapter(self) -> Driver[Any]:
        """The adapter in use: found by the first connection, before that any DB-API driver's."""
        return self._adapter

    def open(self, until: float) -> Any:
        """Connect by the callable, and learn from the connection what it is."""
        adapter = self._adapter
        conn = adapter.dial(adapter.fresh_arguments(), until)
        try:
            adapter = self._learn(conn)  # another dial may have found it since this one began
            adapter.set_up(conn, until)
            for name in FORWARDED:  # a set-up may find that something cannot be done with this connection
                setattr(self, name, getattr(adapter, name))
        except BaseException:
            adapter.close(conn)
            raise
        return conn

    def _learn(self, conn: Any) -> DbapiDriver:
        with self._lock():
            if not self._found:
                module = module_of(conn)
                kind = adapter_named("dbapi" if module is None else name_for_module(module))
                adapter: DbapiDriver = kind(self._source, **self._settings)
                if module is not None:
                    adapter.learn_module(module)
                self.module = adapter.module
                self._adapter, self._found = adapter, True
            return self._adapter

    # Until the first connection; afterwards the instance has the adapter's own in front of these.
    def is_alive(self, conn: Any, until: float) -> bool:
        """Ask as the adapter in use does."""
        return self._adapter.is_alive(conn, until)

    def reset(self, conn: Any, until: float) -> bool:
        """Reset as the adapter in use does."""
        return self._adapter.reset(conn, until)

    def close(self, conn: Any) -> None:
        """Close as the adapter in use does."""
        self._adapter.close(conn)

    def classify(self, error: BaseException) -> Fault:
        """Sort as the adapter in use does."""
        return self._adapter.classify(error)

    def __repr__(self) -> str:
        return repr(self._adapter)
