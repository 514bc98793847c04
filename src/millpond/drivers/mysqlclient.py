"""mysqlclient (``MySQLdb``): a C library that does its own I/O, so that only its descriptor is ours to watch."""

from __future__ import annotations

import importlib
import types
from collections.abc import Mapping
from typing import Any, ClassVar

from millpond.errors import DriverMissing, InvalidSetting
from millpond.url import MYSQL_OPTIONS, URL, Parser

from .dbapi import DbapiDriver, run

MODES = {
    "disabled": "DISABLED",
    "preferred": "PREFERRED",
    "required": "REQUIRED",
    "verify-ca": "VERIFY_CA",
    "verify-identity": "VERIFY_IDENTITY",
}
TLS_FILES = {"ssl_ca": "ca", "ssl_cert": "cert", "ssl_key": "key"}
NOT_HERE = (
    "bind_address",
    "max_allowed_packet",
    "program_name",
    "ssl_key_password",
    "ssl_verify_cert",
    "ssl_verify_identity",
)


class MySQLClientDriver(DbapiDriver):
    """Adapter for mysqlclient."""

    name = "mysqlclient"
    options: ClassVar[Mapping[str, Parser]] = {
        name: read for name, read in MYSQL_OPTIONS.items() if name not in NOT_HERE
    }

    @classmethod
    def import_module(cls) -> types.ModuleType:
        """Import MySQLdb."""
        try:
            return importlib.import_module("MySQLdb")
        except ImportError as error:
            text = 'mysqlclient is not installed; install it with: pip install "millpond[mysqlclient]"'
            raise DriverMissing(text) from error

    @classmethod
    def arguments_of(cls, url: URL) -> dict[str, Any]:
        """Return the arguments of ``MySQLdb.connect``; time-outs are whole seconds there."""
        arguments = super().arguments_of(url)
        for name in ("connect_timeout", "read_timeout", "write_timeout"):
            if name in arguments:
                arguments[name] = max(1, round(arguments[name]))
        mode = arguments.pop("ssl", None)
        if arguments.pop("ssl_disabled", False):
            if mode not in (None, "disabled"):
                raise InvalidSetting("ssl", mode, "without ssl_disabled", "the two contradict each other")
            mode = "disabled"
        if mode is not None:
            arguments["ssl_mode"] = MODES[mode]
        files = {key: arguments.pop(name) for name, key in TLS_FILES.items() if name in arguments}
        return {**arguments, **({"ssl": files} if files else {})}

    def dial(self, arguments: dict[str, Any], until: float) -> Any:
        """Connect; the time zone is a statement."""
        zone = arguments.pop("time_zone", None)
        conn = super().dial(arguments, until)
        if zone is not None:
            set_time_zone(conn, zone)
        return conn


def set_time_zone(conn: Any, zone: str) -> None:
    """Set the session's time zone."""
    quoted = zone.replace("\\", "\\\\").replace("'", "''")
    run(conn, (f"SET time_zone = '{quoted}'",))
