"""mysql-connector-python: MySQL's own driver, which calls some things by names of its own."""

from __future__ import annotations

import importlib
import types
from collections.abc import Mapping
from typing import Any, ClassVar

from millpond.errors import DriverMissing, InvalidSetting
from millpond.url import MYSQL_OPTIONS, URL, Parser

from .dbapi import DbapiDriver

NOT_HERE = (
    "bind_address",
    "max_allowed_packet",
    "program_name",
    "ssl_key_password",
    "local_infile",
    "read_default_group",
)
RENAMED = {"connect_timeout": "connection_timeout", "read_default_file": "option_files"}


class MySQLConnectorDriver(DbapiDriver):
    """Adapter for mysql-connector-python."""

    name = "mysqlconnector"
    options: ClassVar[Mapping[str, Parser]] = {
        name: read for name, read in MYSQL_OPTIONS.items() if name not in NOT_HERE
    }

    @classmethod
    def import_module(cls) -> types.ModuleType:
        """Import mysql.connector."""
        try:
            return importlib.import_module("mysql.connector")
        except ImportError as error:
            text = 'mysql-connector-python is not installed; install it with: pip install "millpond[mysqlconnector]"'
            raise DriverMissing(text) from error

    @classmethod
    def arguments_of(cls, url: URL) -> dict[str, Any]:
        """Return the arguments of ``mysql.connector.connect``; the first time-out is whole seconds there."""
        arguments = super().arguments_of(url)
        mode = arguments.pop("ssl", None)
        if mode == "disabled":
            arguments["ssl_disabled"] = True
        elif mode in ("verify-ca", "verify-identity"):
            if "ssl_ca" not in arguments:
                raise InvalidSetting("ssl", mode, "with ssl_ca", "this driver verifies by a file of authorities only")
            arguments.update(ssl_verify_cert=True, ssl_verify_identity=mode == "verify-identity")
        elif mode == "required":
            raise InvalidSetting(
                "ssl", mode, "disabled, preferred, verify-ca, verify-identity", "this driver goes on without TLS"
            )
        if "connect_timeout" in arguments:
            arguments["connect_timeout"] = max(1, round(arguments["connect_timeout"]))
        return {RENAMED.get(name, name): value for name, value in arguments.items()}

    def uncommitted(self, conn: Any) -> bool:
        """Say whether a transaction is open: this driver reads every status word."""
        return bool(getattr(conn, "in_transaction", False))
