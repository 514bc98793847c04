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

As a command, ``python -m millpond.testing.servers install mariadb mysql`` fetches missing servers and ``... list``
shows those that are here.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import weakref
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any, cast
from urllib.parse import quote, urlencode

from millpond.testing._ports import choose_port
from millpond.testing._server_binaries import (
    KINDS,
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

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["InstallFailed", "Kind", "ScratchServer", "ServerBinary", "ServerFailed", "ServerMissing", "install", "main"]

_HOST = "127.0.0.1"
_POLL_S = 0.005  # how often the log is looked at while a server starts; a start takes 0.1 s (MariaDB) or 0.5 s (MySQL)
_SOCKET_PATH_MAX = 100  # sockaddr_un holds 108 bytes; servers refuse longer paths

# A start that this program's own sudden end must undo goes through a small program of its own: asking the kernel for
# the signal between fork and exec (preexec_fn) is unsafe and, from Python 3.12, warned about in a process with
# threads.
_DIE_WITH_PARENT = """
import ctypes, os, sys
ctypes.CDLL(None).prctl(1, 9)
if os.getppid() != int(sys.argv[1]):
    os._exit(1)
os.execv(sys.argv[2], sys.argv[2:])
"""


class ScratchServer:
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
        if not start_timeout > 0:
            raise ValueError(f"start_timeout is {start_timeout!r}; allowed are seconds above 0")
        if not 0 <= port <= 65535:
            raise ValueError(f"port is {port!r}; allowed are 0 (choose one) to 65535")
        if not database.isidentifier() or not database.isascii():
            raise ValueError(f"database is {database!r}; allowed are ASCII letters, digits and underscores")
        if user in ("", "root"):
            raise ValueError(f"user is {user!r}; allowed is any name but 'root', who is always there")
        self._binary = find_server(kind) if binary is None else server_at(Path(binary), kind)
        self.options: dict[str, OptionValue] = dict(options or {})
        self.user = user
        self.database = database
        self.root_password = secrets.token_hex(12)
        self.password = secrets.token_hex(12) if password is None else password
        self._tls = tls
        self._port_is_ours_to_choose = port == 0
        self._port = port or choose_port(_HOST)
        self._start_timeout_s = start_timeout
        self._is_prepared = False
        self._is_paused = False
        self._remains = _Remains()
        self._finalizer = weakref.finalize(self, self._remains.clear)

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
        for kind in KINDS:
            with contextlib.suppress(ServerMissing):
                here.append(find_server(kind).kind)
        return tuple(here)

    # ---- what it is

    @property
    def kind(self) -> Kind:
        """Return "mariadb" or "mysql"."""
        return self._binary.kind

    @property
    def version(self) -> str:
        """Return the server's version, such as "10.11.19"."""
        return self._binary.version

    @property
    def version_info(self) -> tuple[int, ...]:
        """Return the server's version as numbers, to compare with."""
        return self._binary.version_info

    @property
    def host(self) -> str:
        """Return the address it listens on."""
        return _HOST

    @property
    def port(self) -> int:
        """Return the TCP port; the same for the server's whole life."""
        return self._port

    @property
    def socket(self) -> str:
        """Return the path of the unix socket."""
        return str(self.folder / "s")

    @property
    def folder(self) -> Path:
        """Return the temporary folder that holds everything of this server."""
        if self._remains.folder is None:
            raise ServerFailed(f"{self!r} has no folder before its first start and after close()")
        return self._remains.folder

    @property
    def ca_file(self) -> Path | None:
        """Return the certificate of the authority that signed the server's, or None without TLS."""
        return self.folder / "tls" / "ca.pem" if self._tls else None

    @property
    def pid(self) -> int | None:
        """Return the server's process id while it runs, or None."""
        process = self._remains.process
        return process.pid if process is not None and process.poll() is None else None

    @property
    def is_running(self) -> bool:
        """Tell whether the server's process is there (paused counts as running)."""
        return self.pid is not None

    def log(self) -> str:
        """Return what the server has written to its log so far, over all its starts."""
        return self._log_path.read_text(errors="replace") if self._log_path.exists() else ""

    def __repr__(self) -> str:
        state = "paused" if self._is_paused else "running" if self.is_running else "stopped"
        return f"<ScratchServer {self.kind} {self.version} port={self._port} tls={self._tls} {state}>"

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
        arguments |= {"unix_socket": self.socket} if socket else {"host": _HOST, "port": port or self._port}
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
        place = "localhost" if socket else f"{_HOST}:{arguments['port']}"
        named = ("unix_socket", "ssl_ca", "ssl_verify_cert", "ssl_verify_identity", "ssl_disabled")
        query = {
            name: str(arguments[name]).lower() if arguments[name] is True else arguments[name]
            for name in named
            if name in arguments
        }
        return f"{scheme}://{credentials}@{place}/{arguments['database']}?{urlencode(query)}"

    # ---- its life

    def start(self) -> Self:
        """Start the server and return it once it accepts connections; a server that runs is left as it is.

        Raises:
            ServerFailed: it ended or was not ready in time; the message has the end of its log.
        """
        if self.is_running:
            return self
        if self._remains.folder is None:
            self._make_folder()
        for _ in range(5):
            log_start = len(self.log())
            self._remains.process = _spawn(self._command(), self._log_path)
            self._is_paused = False
            if self._wait_until_ready(log_start):
                break
            self._port = choose_port(_HOST)  # somebody took the port between the choice and the start
        else:
            raise ServerFailed(f"{self!r} found five ports in a row taken\n{self._log_tail()}")
        self._is_prepared = True
        with contextlib.suppress(FileNotFoundError):
            self._init_file.unlink()
        return self

    def stop(self, timeout: float = 30.0) -> None:
        """Shut the server down cleanly (SIGTERM) and wait for its end; data and port are kept for :meth:`start`.

        Args:
            timeout: seconds until it is killed and reported, above 0.

        Raises:
            ServerFailed: it did not end in time; it has been killed.
        """
        process = self._remains.process
        if process is None or process.poll() is not None:
            return
        self.resume()
        process.terminate()
        try:
            process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill()
            raise ServerFailed(f"{self!r} did not stop within {timeout} s and was killed\n{self._log_tail()}") from None

    def kill(self) -> None:
        """End the server at once (SIGKILL), as a crash would; committed data and the port are kept."""
        self._remains.kill()
        self._is_paused = False

    def restart(self) -> None:
        """Stop the server cleanly, if it runs, and start it on the same port and data, with today's :attr:`options`."""
        self.stop()
        self.start()

    def pause(self) -> None:
        """Freeze the server (SIGSTOP): the kernel still accepts connections and bytes for it, and nothing answers.

        Raises:
            ServerFailed: it does not run.
        """
        self._signal(signal.SIGSTOP)
        self._is_paused = True

    def resume(self) -> None:
        """Let a paused server go on (SIGCONT); harmless when it was not paused.

        Raises:
            ServerFailed: it does not run.
        """
        self._signal(signal.SIGCONT)
        self._is_paused = False

    def close(self) -> None:
        """Kill the server and delete its folder, data included; closing twice is harmless."""
        self._remains.clear()
        self._is_prepared = False
        self._is_paused = False

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # ---- inside

    @property
    def _log_path(self) -> Path:
        return self.folder / "server.log"

    @property
    def _init_file(self) -> Path:
        return self.folder / "init.sql"

    def _log_tail(self) -> str:
        return "\n".join(self.log().splitlines()[-15:])

    def _signal(self, number: int) -> None:
        process = self._remains.process
        if process is None or process.poll() is not None:
            raise ServerFailed(f"{self!r} does not run: call start() first")
        process.send_signal(number)

    def _make_folder(self) -> None:
        folder = Path(tempfile.mkdtemp(prefix="millpond-"))
        if len(str(folder / "s")) > _SOCKET_PATH_MAX:
            folder.rmdir()
            folder = Path(tempfile.mkdtemp(prefix="millpond-", dir="/tmp"))
        self._remains.folder = folder
        (folder / "tmp").mkdir()
        copy_folder(prepared_data(self._binary), folder / "data")
        (folder / "data" / "auto.cnf").unlink(missing_ok=True)  # else every server had the same identity
        self._init_file.touch(mode=0o600)
        self._init_file.write_text(self._first_statements())
        if self._tls:
            make_certificates(folder / "tls")

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
            "bind_address": _HOST,
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

    def _wait_until_ready(self, log_start: int) -> bool:
        """Wait for the server's own word in its log; False when its port was taken and another may be tried."""
        process = self._remains.process
        if process is None:
            raise ServerFailed("bug: waiting for a server that was not spawned")
        until = time.monotonic() + self._start_timeout_s
        while True:
            ended = process.poll() is not None
            news = self.log()[log_start:]
            if _is_ready(news, self._port):
                return True
            if ended:
                taken = "already in use" in news or "do you already have another" in news.lower()
                if taken and self._port_is_ours_to_choose and not self._is_prepared:
                    return False
                raise ServerFailed(f"{self!r} ended with {process.returncode} while starting\n{self._log_tail()}")
            if time.monotonic() > until:
                self.kill()
                raise ServerFailed(
                    f"{self!r} was not ready within {self._start_timeout_s} s and was killed\n{self._log_tail()}"
                )
            time.sleep(_POLL_S)


class _Remains:
    """Hold what a server leaves on the machine, to be cleared after the server object, and only by its own process."""

    def __init__(self) -> None:
        self.process: subprocess.Popen[bytes] | None = None
        self.folder: Path | None = None
        self._owner_pid = os.getpid()

    def kill(self) -> None:
        process = self.process
        if process is not None and os.getpid() == self._owner_pid:
            process.kill()
            process.wait()

    def clear(self) -> None:
        if os.getpid() != self._owner_pid:
            return  # a forked child inherits the object, not the server
        self.kill()
        self.process = None
        if self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)
            self.folder = None


# ---- starting a process that dies with this one

_spawners: dict[int, ThreadPoolExecutor] = {}


def _spawn(command: list[str], log_path: Path) -> subprocess.Popen[bytes]:
    """Start a server that the kernel kills when this process ends.

    The kernel takes the end of the *thread* that forked for the parent's end, so a server asked for in any thread but
    the main one is started by a thread that is kept.
    """
    with log_path.open("ab") as log:
        if threading.current_thread() is threading.main_thread() or not sys.platform.startswith("linux"):
            return _popen(command, log)
        spawner = _spawners.get(os.getpid())
        if spawner is None:
            spawner = _spawners[os.getpid()] = ThreadPoolExecutor(1, thread_name_prefix="millpond-scratch-server")
        return spawner.submit(_popen, command, log).result()


def _popen(command: list[str], log: IO[bytes]) -> subprocess.Popen[bytes]:
    if sys.platform.startswith("linux"):
        command = [sys.executable, "-I", "-S", "-c", _DIE_WITH_PARENT, str(os.getpid()), *command]
    # A session of its own keeps Ctrl-C at the terminal from reaching the server in the middle of a test.
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)


def _is_ready(log: str, port: int) -> bool:
    """Tell whether the log says so; both kinds have run the init file by then.

    The port is looked at because other parts of MySQL are "ready for connections" too, on other ports.
    """
    _, _, rest = log.partition("ready for connections")
    return f"port: {port} " in rest


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
        prog="python -m millpond.testing.servers", description="Private MariaDB and MySQL servers for tests."
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
            install(cast("list[Kind]", chosen.kinds))
        except (InstallFailed, ServerMissing) as failed:
            print(failed, file=sys.stderr)
            return 1
    print("\n".join(_list_servers()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
