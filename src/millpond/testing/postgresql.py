"""Start private PostgreSQL servers for tests.

Why: the drop-in for DBUtils is used with psycopg as well, and what it promises there has to be seen on a server that
is killed, restarted and silent.

Rules: those of ``servers.py`` hold.  PostgreSQL refuses to run as root, so that for root another user runs it:
``postgres`` if there is one, else ``nobody``.

It must not be used for data that matters: durability against power loss is switched off (against a crash it is kept).
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import signal
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from millpond.testing._scratch import HOST, Account, Scratch
from millpond.testing._server_binaries import ServerBinary, ServerMissing, find_server, locked, server_at
from millpond.testing._server_data import OptionValue, ServerFailed, copy_folder

__all__ = ["ScratchPostgreSQL"]

SUPERUSER = "postgres"
# Small and quick; what a commit wrote survives a crash of the server, because the kernel has it.
OPTIONS: dict[str, OptionValue] = {
    "autovacuum": False,
    "dynamic_shared_memory_type": "mmap",  # containers have little of the other kind
    "fsync": False,
    "full_page_writes": False,
    "jit": False,
    "lc_messages": "C",  # readiness is read in the log
    "log_timezone": "GMT",
    "max_wal_senders": 0,
    "shared_buffers": "16MB",
    "timezone": "GMT",
    "wal_level": "minimal",
}
WHO_MAY = "local all all scram-sha-256\nhost all all 127.0.0.1/32 scram-sha-256\n"


class ScratchPostgreSQL(Scratch):
    """Run a private PostgreSQL server on a free port of 127.0.0.1, with its data in a temporary folder.

    Use it as a context manager, or call :meth:`start` and, at the end, :meth:`close`. One thread drives it; any
    thread may use it. It has no TLS.

    Args:
        options: extra server options by name, as in ``postgresql.conf``: ``{"max_connections": 20}``. True and False
            are on and off, None takes a default of this class away. The dictionary :attr:`options` may be changed
            before a restart.
        user: name of the ordinary user, who owns :attr:`database`.
        password: its password; a random one by default. :attr:`root_password`, of the user ``postgres`` who may do
            everything, is always random.
        database: the database that is there at the start. Lower-case ASCII letters, digits and underscores.
        port: the port; by default one that is free and that the kernel does not hand out by itself. It stays the same
            over restarts.
        binary: path of the program ``postgres``, instead of the one :meth:`find` finds; ``initdb`` is beside it.
        start_timeout: seconds until a start counts as failed, above 0.

    Raises:
        ValueError: an argument is not as described here; the caller's fault.
        ServerMissing: there is no such server on this machine; the message says how to get it.
    """

    _STOP = signal.SIGINT  # SIGTERM would wait for clients to leave
    _DROP: ClassVar[signal.Signals | None] = signal.SIGQUIT

    def __init__(
        self,
        *,
        options: Mapping[str, OptionValue] | None = None,
        user: str = "app",
        password: str | None = None,
        database: str = "scratch",
        port: int = 0,
        binary: str | os.PathLike[str] | None = None,
        start_timeout: float = 60.0,
    ) -> None:
        for name, value in (("user", user), ("database", database)):
            if not value.isidentifier() or not value.isascii() or value != value.lower() or value == SUPERUSER:
                allowed = f"lower-case ASCII letters, digits and underscores, but not {SUPERUSER!r}"
                raise ValueError(f"{name} is {value!r}; allowed are {allowed}")
        if password is not None and "\n" in password:
            raise ValueError("password has a line break; allowed is one line")
        found = find_server("postgresql") if binary is None else server_at(Path(binary), "postgresql")
        super().__init__(found, port=port, start_timeout=start_timeout, account=account_for_root())
        self.options = dict(options or {})
        self.user = user
        self.database = database
        self.root_password = secrets.token_hex(12)
        self.password = secrets.token_hex(12) if password is None else password

    @staticmethod
    def find() -> ServerBinary:
        """Return the server program that would be run.

        Raises:
            ServerMissing: there is none on this machine; the message says which package or command brings it.
        """
        return find_server("postgresql")

    @property
    def socket(self) -> str:
        """Return the folder of the unix socket, which libpq takes for a host."""
        return str(self.folder)

    def connect_args(self, *, user: str | None = None, port: int | None = None, socket: bool = False) -> dict[str, Any]:
        """Return the keyword arguments with which ``psycopg.connect`` and ``psycopg2.connect`` reach this server.

        Args:
            user: :attr:`user` by default, or "postgres", who may do everything.
            port: another port of 127.0.0.1, such as a proxy's in front of this server.
            socket: True connects to the unix socket instead.

        Raises:
            ValueError: the user is one the server was not given; the caller's fault.
        """
        name = self.user if user is None else user
        if name not in (self.user, SUPERUSER):
            raise ValueError(f"user is {user!r}; this server has {self.user!r} and {SUPERUSER!r}")
        return {
            "host": self.socket if socket else HOST,
            "port": port or self.port,
            "user": name,
            "password": self.root_password if name == SUPERUSER else self.password,
            "dbname": self.database,
            "sslmode": "disable",
        }

    def __repr__(self) -> str:
        return f"<ScratchPostgreSQL {self.version} port={self.port} {self._state()}>"

    # ---- inside

    def _prepare(self, folder: Path) -> None:
        data = folder / "data"
        copy_folder(prepared_data(self._binary, self._account), data)
        (data / "pg_hba.conf").write_text(WHO_MAY)
        if self._account is not None:
            self._account.own(data)
        user, password = self.user, text_of(self.password)
        statements = [
            f"ALTER ROLE {SUPERUSER} PASSWORD {text_of(self.root_password)}",
            f"CREATE ROLE {user} LOGIN PASSWORD {password}",
            f"CREATE DATABASE {self.database} OWNER {user}",
        ]
        alone = [*self._binary.command, "--single", "-D", str(data), *as_settings(OPTIONS), SUPERUSER]
        run_as(self._account, alone, "".join(f"{statement}\n" for statement in statements))

    def _forget_secrets(self) -> None:
        pass  # they were read from a pipe

    def _command(self) -> list[str]:
        settings: dict[str, OptionValue] = {
            "listen_addresses": HOST,
            "unix_socket_directories": self.socket,
            **OPTIONS,
            **self.options,
        }
        # "env" as well as the program itself is run by its path: there is no search.
        program, *rest = self._binary.command
        return [program, *rest, "-D", str(self.folder / "data"), "-p", str(self.port), *as_settings(settings)]

    def _says_ready(self, news: str) -> bool:
        return "database system is ready to accept connections" in news

    def _says_taken(self, news: str) -> bool:
        return "could not create any TCP/IP sockets" in news


# ---- what the first start needs


def account_for_root() -> Account | None:
    """Return the user who runs a server for root; None for everybody else, who runs it himself."""
    if os.name != "posix" or os.geteuid() != 0:
        return None
    import pwd  # not on Windows, where this module must still import

    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            found = pwd.getpwnam(name)
            return Account(found.pw_uid, found.pw_gid)
    raise ServerMissing("PostgreSQL refuses to run as root, and there is no user nobody who could run it instead")


def prepared_data(binary: ServerBinary, account: Account | None) -> Path:
    """Return a data folder without passwords and databases, made at the first call for this program."""
    program = binary.path.resolve()
    state = repr((program, program.stat().st_mtime_ns, "format 1"))
    name = f"data-postgresql-{binary.version}-{hashlib.sha256(state.encode()).hexdigest()[:12]}"
    with locked(name) as cache:
        final = cache / name
        if final.is_dir():
            return final
        # Not in the cache: whoever runs this for root cannot look into it.
        with tempfile.TemporaryDirectory(prefix="millpond-") as aside, tempfile.TemporaryDirectory(dir=cache) as near:
            if account is not None:
                account.own(Path(aside))
            made = Path(aside) / "data"
            initdb = [*binary.command[:-1], str(program.with_name("initdb"))]
            choices = ["--encoding=UTF8", "--locale=C", "--auth=reject", "--no-sync", "--wal-segsize=1"]
            run_as(account, [*initdb, f"--pgdata={made}", f"--username={SUPERUSER}", *choices])
            copy = Path(near) / "data"
            copy_folder(made, copy)
            copy.rename(final)
        return final


def run_as(account: Account | None, command: Sequence[str], text: str = "") -> None:
    """Run a program of PostgreSQL's to its end.

    Raises:
        ServerFailed: it did not succeed; the message has its last words, which quote no statement.
    """
    groups: dict[str, Any] = {}
    if account is not None:
        groups = {"user": account.user, "group": account.group, "extra_groups": []}
    environment = {**os.environ, "LC_ALL": "C", "TZ": "GMT"}
    try:
        done = subprocess.run(
            command, input=text, capture_output=True, text=True, check=False, cwd="/", env=environment, **groups
        )
    except PermissionError as error:
        raise ServerFailed(f"{command[-1]} cannot be run by the user who runs servers for root: {error}") from error
    if done.returncode != 0:
        last_words = "\n".join(done.stderr.splitlines()[-15:])
        raise ServerFailed(f"{Path(command[0]).name} failed with {done.returncode}\n{last_words}")


def as_settings(options: Mapping[str, OptionValue]) -> list[str]:
    """Return options as arguments."""
    named = {True: "on", False: "off"}
    given = {name: named[value] if isinstance(value, bool) else value for name, value in options.items()}
    return [part for name, value in given.items() if value is not None for part in ("-c", f"{name}={value}")]


def text_of(text: str) -> str:
    """Return a string as PostgreSQL reads it."""
    return "'" + text.replace("'", "''") + "'"
