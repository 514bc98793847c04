"""Start private MariaDB and MySQL servers for tests.

Why: a pool is right or wrong by what a real server does when it is killed, restarted, silent or full, so tests need
servers of their own that they may treat badly.

Rules:
- A server listens on 127.0.0.1 and a unix socket only; its data is in a temporary folder that goes when it goes.
- It never outlives the process that made it: that process's end, however sudden, kills it.
- Passwords are given to the server in a file of a private folder, never on a command line, and are in no repr and no
  error.
- No driver is needed: whether the server is ready is read in its log.

It must not be used for data that matters: durability against power loss is switched off (against SIGKILL it is kept).

As a command, ``python -m millpond.testing.servers install mariadb mysql postgresql`` fetches missing servers and
``... list`` shows those that are here.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import secrets
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast
from urllib.parse import quote, urlencode

from millpond.testing._scratch import HOST, Scratch
from millpond.testing._server_binaries import (
    KINDS,
    MYSQL_KINDS,
    AnyKind,
    InstallFailed,
    Kind,
    ServerBinary,
    ServerMissing,
    find_server,
    install,
    server_at,
)
from millpond.testing._server_data import (
    COMMON_OPTIONS,
    KIND_OPTIONS,
    OptionValue,
    ServerFailed,
    as_arguments,
    base_command,
    copy_folder,
    make_certificates,
    prepared_data,
    sql_text,
)

__all__ = ["InstallFailed", "Kind", "ScratchServer", "ServerBinary", "ServerFailed", "ServerMissing", "install", "main"]


class ScratchServer(Scratch):
    """Run a private MariaDB or MySQL server on a free port of 127.0.0.1, with its data in a temporary folder.

    Use it as a context manager, or call :meth:`start` and, at the end, :meth:`close`. One thread drives it; any
    thread may use it.

    Args:
        kind: "mariadb" or "mysql".
        tls: True lets the server offer TLS, with a certificate for 127.0.0.1 and localhost, signed by the authority
            in :attr:`ca_file` (made with the ``openssl`` command). False takes TLS from it.
        options: extra server options by name, dashes or underscores alike: ``{"max_connections": 20,
            "performance_schema": True}``. True gives ``--name``, False ``--skip-name``, None takes a default of this
            class away. The dictionary :attr:`options` may be changed before a restart.
        user: name of the ordinary user, who has all rights on :attr:`database` and on every schema whose name starts
            with it and "_".
        password: its password; a random one by default. :attr:`root_password` is always random.
        database: the schema that is there at the start. Letters, digits and underscores.
        port: the port; by default one that is free and that the kernel does not hand out by itself. It stays the same
            over restarts.
        binary: path of the server program, instead of the one :meth:`find` finds.
        start_timeout: seconds until a start counts as failed, above 0.

    Raises:
        ValueError: an argument is not as described here; the caller's fault.
        ServerMissing: there is no such server on this machine; the message says how to get it.
    """

    def __init__(
        self,
        kind: Kind = "mariadb",
        *,
        tls: bool = False,
        options: Mapping[str, OptionValue] | None = None,
        user: str = "app",
        password: str | None = None,
        database: str = "scratch",
        port: int = 0,
        binary: str | os.PathLike[str] | None = None,
        start_timeout: float = 60.0,
    ) -> None:
        if kind not in MYSQL_KINDS:
            raise ValueError(f"kind is {kind!r}; allowed are 'mariadb' and 'mysql' (for PostgreSQL: ScratchPostgreSQL)")
        if not database.isidentifier() or not database.isascii():
            raise ValueError(f"database is {database!r}; allowed are ASCII letters, digits and underscores")
        if user in ("", "root"):
            raise ValueError(f"user is {user!r}; allowed is any name but 'root', who is always there")
        found = find_server(kind) if binary is None else server_at(Path(binary), kind)
        super().__init__(found, port=port, start_timeout=start_timeout, account=None)
        self.options = dict(options or {})
        self.user = user
        self.database = database
        self.root_password = secrets.token_hex(12)
        self.password = secrets.token_hex(12) if password is None else password
        self._tls = tls

    # ---- which servers there are

    @staticmethod
    def find(kind: Kind) -> ServerBinary:
        """Return the server program that would be run for this kind.

        Raises:
            ServerMissing: there is none on this machine; the message says which package or command brings it.
        """
        return find_server(kind)

    @staticmethod
    def available() -> tuple[Kind, ...]:
        """Return the kinds of server that are on this machine."""
        here: list[Kind] = []
        for kind in MYSQL_KINDS:
            with contextlib.suppress(ServerMissing):
                find_server(kind)
                here.append(kind)
        return tuple(here)

    # ---- what it is

    @property
    def kind(self) -> Kind:
        """Return "mariadb" or "mysql"."""
        return cast("Kind", self._binary.kind)

    @property
    def socket(self) -> str:
        """Return the path of the unix socket."""
        return str(self.folder / "s")

    @property
    def ca_file(self) -> Path | None:
        """Return the certificate of the authority that signed the server's, or None without TLS."""
        return self.folder / "tls" / "ca.pem" if self._tls else None

    def __repr__(self) -> str:
        return f"<ScratchServer {self.kind} {self.version} port={self._port} tls={self._tls} {self._state()}>"

    # ---- how to reach it

    def connect_args(
        self, *, user: str | None = None, tls: bool | None = None, port: int | None = None, socket: bool = False
    ) -> dict[str, Any]:
        """Return the keyword arguments with which ``pymysql.connect`` reaches this server.

        Args:
            user: :attr:`user` by default, or "root".
            tls: True connects by TLS and verifies the server's certificate and name, False connects without; by
                default as the server is set.
            port: another port of 127.0.0.1, such as a proxy's in front of this server.
            socket: True connects to the unix socket instead.

        Raises:
            ValueError: TLS is asked of a server without it, or the user is one the server was not given; the caller's
                fault.
        """
        name = self.user if user is None else user
        if name not in (self.user, "root"):
            raise ValueError(f"user is {user!r}; this server has {self.user!r} and 'root'")
        password = self.root_password if name == "root" else self.password
        arguments: dict[str, Any] = {"user": name, "password": password, "database": self.database}
        arguments |= {"unix_socket": self.socket} if socket else {"host": HOST, "port": port or self._port}
        wants_tls = self._tls and not socket if tls is None else tls
        if not wants_tls:
            return arguments | {"ssl_disabled": True}
        if self.ca_file is None:
            raise ValueError("tls is True, but this server was made without: ScratchServer(tls=True)")
        return arguments | {"ssl_ca": str(self.ca_file), "ssl_verify_cert": True, "ssl_verify_identity": True}

    def url(
        self,
        driver: str = "pymysql",
        *,
        user: str | None = None,
        tls: bool | None = None,
        port: int | None = None,
        socket: bool = False,
    ) -> str:
        """Return the URL of this server, password included, for a pool that uses ``driver`` ("" leaves the driver out).

        The other arguments are those of :meth:`connect_args`; TLS settings go into the query under PyMySQL's names.
        """
        arguments = self.connect_args(user=user, tls=tls, port=port, socket=socket)
        scheme = f"mysql+{driver}" if driver else "mysql"
        credentials = f"{quote(str(arguments['user']), safe='')}:{quote(str(arguments['password']), safe='')}"
        place = "localhost" if socket else f"{HOST}:{arguments['port']}"
        named = ("unix_socket", "ssl_ca", "ssl_verify_cert", "ssl_verify_identity", "ssl_disabled")
        query = {
            name: str(arguments[name]).lower() if arguments[name] is True else arguments[name]
            for name in named
            if name in arguments
        }
        return f"{scheme}://{credentials}@{place}/{arguments['database']}?{urlencode(query)}"

    # ---- inside

    @property
    def _init_file(self) -> Path:
        return self.folder / "init.sql"

    def _prepare(self, folder: Path) -> None:
        (folder / "tmp").mkdir()
        copy_folder(prepared_data(self._binary), folder / "data")
        (folder / "data" / "auto.cnf").unlink(missing_ok=True)  # else every server had the same identity
        self._init_file.touch(mode=0o600)
        self._init_file.write_text(self._first_statements())
        if self._tls:
            make_certificates(folder / "tls")

    def _forget_secrets(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            self._init_file.unlink()

    def _first_statements(self) -> str:
        user, password, root_password = sql_text(self.user), sql_text(self.password), sql_text(self.root_password)
        pattern = self.database.replace("_", "\\_") + "\\_%"
        statements = [
            f"CREATE DATABASE `{self.database}` CHARACTER SET utf8mb4",
            f"CREATE USER {user}@'%' IDENTIFIED BY {password}",
            f"GRANT ALL ON `{self.database}`.* TO {user}@'%'",
            f"GRANT ALL ON `{pattern}`.* TO {user}@'%'",
            f"ALTER USER 'root'@'localhost' IDENTIFIED BY {root_password}",
            # MariaDB makes these without a password, and they would win over 'root'@'%'.
            "DROP USER IF EXISTS 'root'@'127.0.0.1', 'root'@'::1'",
            f"CREATE USER 'root'@'%' IDENTIFIED BY {root_password}",
            "GRANT ALL ON *.* TO 'root'@'%' WITH GRANT OPTION",
        ]
        return "".join(f"{statement};\n" for statement in statements)

    def _command(self) -> list[str]:
        settings: dict[str, OptionValue] = {
            "datadir": str(self.folder / "data"),
            "tmpdir": str(self.folder / "tmp"),
            "socket": self.socket,
            "pid_file": str(self.folder / "pid"),
            "port": self._port,
            "bind_address": HOST,
            "init_file": None if self._is_prepared else str(self._init_file),
            **self._tls_options(),
            **COMMON_OPTIONS,
            **KIND_OPTIONS[self.kind],
        }
        settings |= {name.replace("-", "_"): value for name, value in self.options.items()}
        return [*base_command(self._binary), *as_arguments(settings)]

    def _tls_options(self) -> dict[str, OptionValue]:
        if self._tls:
            folder = self.folder / "tls"
            return {
                "ssl_ca": f"{folder}/ca.pem",
                "ssl_cert": f"{folder}/server-cert.pem",
                "ssl_key": f"{folder}/server-key.pem",
            }
        # An empty list of versions is MySQL's way to have no TLS since 8.0.16; its older switch is gone since 8.4.
        return {"tls_version": ""} if self.kind == "mysql" and self.version_info >= (8, 0, 16) else {"ssl": False}

    def _says_ready(self, news: str) -> bool:
        """Tell whether the log says so; both kinds have run the init file by then.

        The port is looked at because other parts of MySQL are "ready for connections" too, on other ports.
        """
        _, _, rest = news.partition("ready for connections")
        return f"port: {self._port} " in rest

    def _says_taken(self, news: str) -> bool:
        return "already in use" in news or "do you already have another" in news.lower()


# ---- the command


def _list_servers() -> Iterator[str]:
    for kind in KINDS:
        try:
            binary = find_server(kind)
        except ServerMissing as missing:
            yield f"{kind}: missing: {missing}"
        else:
            yield f"{kind} {binary.version}: {binary.path}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command ``install KIND...`` or ``list``, and return its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m millpond.testing.servers",
        description="Private MariaDB, MySQL and PostgreSQL servers for tests.",
    )
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="show the servers on this machine")
    installing = commands.add_parser(
        "install", help="fetch the servers that are missing, without root, into the cache folder"
    )
    installing.add_argument("kinds", nargs="+", choices=KINDS)
    chosen = parser.parse_args(arguments)
    if chosen.command == "install":
        try:
            install(cast("list[AnyKind]", chosen.kinds))
        except (InstallFailed, ServerMissing) as failed:
            print(failed, file=sys.stderr)
            return 1
    print("\n".join(_list_servers()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
