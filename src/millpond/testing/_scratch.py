"""The life of a private server: started, stopped, killed, frozen, and gone with the process that made it.

Why: what a test does to a server is the same whichever server it is; only its programs, files and words differ, and
these are in ``servers.py`` (MariaDB, MySQL) and ``postgresql.py``.

Rules:
- A server never outlives the process that made it: that process's end, however sudden, kills it.
- Whether it is ready is read in its own log, so that no driver is needed.
- A server that refuses to run as root is run as another user, who then owns its folder.

It must not know what a kind of server is called, nor what it takes.
"""

from __future__ import annotations

import abc
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING, ClassVar

from millpond.testing._ports import choose_port
from millpond.testing._server_binaries import ServerBinary
from millpond.testing._server_data import OptionValue, ServerFailed

if TYPE_CHECKING:
    from typing_extensions import Self

HOST = "127.0.0.1"
_POLL_S = 0.005  # how often the log is looked at while a server starts; a start takes 0.1 to 0.5 s
_SOCKET_PATH_MAX = 100  # sockaddr_un holds 108 bytes; servers refuse longer paths
_GENTLY_S = 5.0  # for a server to end its own processes, where that is how it is killed

# A start that this program's own sudden end must undo goes through a small program of its own: asking the kernel for
# the signal between fork and exec (preexec_fn) is unsafe and, from Python 3.12, warned about in a process with
# threads.  The user comes first, because changing it takes the request for the signal back.
_DIE_WITH_PARENT = """
import ctypes, os, sys
kernel = ctypes.CDLL(None)
parent, user, group = map(int, sys.argv[1:4])
if user >= 0:
    os.setgroups([])
    os.setgid(group)
    os.setuid(user)
PR_SET_PDEATHSIG, SIGKILL = 1, 9
kernel.prctl(PR_SET_PDEATHSIG, SIGKILL)
if os.getppid() != parent:
    os._exit(1)
os.execv(sys.argv[4], sys.argv[4:])
"""


@dataclass(frozen=True)
class Account:
    """Another user of this machine, whom a server runs as because it refuses to run as root."""

    user: int
    group: int

    def own(self, folder: Path) -> None:
        """Give a folder, with all in it, to this user."""
        for place, _, files in os.walk(folder):
            os.chown(place, self.user, self.group)
            for file in files:
                os.chown(Path(place) / file, self.user, self.group, follow_symlinks=False)


class Scratch(abc.ABC):
    """What all private servers have in common."""

    #: How the server is told to shut down in order.
    _STOP: ClassVar[signal.Signals] = signal.SIGTERM
    #: How it is told to drop everything, where it has processes of its own that SIGKILL would leave behind.
    _DROP: ClassVar[signal.Signals | None] = None

    def __init__(self, binary: ServerBinary, *, port: int, start_timeout: float, account: Account | None) -> None:
        if not start_timeout > 0:
            raise ValueError(f"start_timeout is {start_timeout!r}; allowed are seconds above 0")
        if not 0 <= port <= 65535:
            raise ValueError(f"port is {port!r}; allowed are 0 (choose one) to 65535")
        self.options: dict[str, OptionValue] = {}
        self._binary = binary
        self._account = account
        self._port_is_ours_to_choose = port == 0
        self._port = port or choose_port(HOST)
        self._start_timeout_s = start_timeout
        self._is_prepared = False
        self._is_paused = False
        self._remains = _Remains(self._DROP)
        self._finalizer = weakref.finalize(self, self._remains.clear)

    # ---- what each kind does its own way

    @abc.abstractmethod
    def _prepare(self, folder: Path) -> None:
        """Put into a new folder what the first start needs."""

    @abc.abstractmethod
    def _command(self) -> list[str]:
        """Return the command that runs the server."""

    @abc.abstractmethod
    def _says_ready(self, news: str) -> bool:
        """Tell whether the log says that connections are accepted."""

    @abc.abstractmethod
    def _says_taken(self, news: str) -> bool:
        """Tell whether the log says that somebody else has the port."""

    @abc.abstractmethod
    def _forget_secrets(self) -> None:
        """Delete what only the first start needed, and nobody else may read."""

    # ---- what it is

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
        return HOST

    @property
    def port(self) -> int:
        """Return the TCP port; the same for the server's whole life."""
        return self._port

    @property
    def folder(self) -> Path:
        """Return the temporary folder that holds everything of this server."""
        if self._remains.folder is None:
            raise ServerFailed(f"{self!r} has no folder before its first start and after close()")
        return self._remains.folder

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

    def _state(self) -> str:
        return "paused" if self._is_paused else "running" if self.is_running else "stopped"

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
            self._remains.process = _spawn(self._command(), self._log_path, self._account)
            self._is_paused = False
            if self._wait_until_ready(log_start):
                break
            self._port = choose_port(HOST)  # somebody took the port between the choice and the start
        else:
            raise ServerFailed(f"{self!r} found five ports in a row taken\n{self._log_tail()}")
        self._is_prepared = True
        self._forget_secrets()
        return self

    def stop(self, timeout: float = 30.0) -> None:
        """Shut the server down cleanly and wait for its end; data and port are kept for :meth:`start`.

        Args:
            timeout: seconds until it is killed and reported, above 0.

        Raises:
            ServerFailed: it did not end in time; it has been killed.
        """
        process = self._remains.process
        if process is None or process.poll() is not None:
            return
        self.resume()
        process.send_signal(self._STOP)
        try:
            process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill()
            raise ServerFailed(f"{self!r} did not stop within {timeout} s and was killed\n{self._log_tail()}") from None

    def kill(self) -> None:
        """End the server at once, as a crash would; committed data and the port are kept."""
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

    def _log_tail(self) -> str:
        return "\n".join(self.log().splitlines()[-15:])

    def _signal(self, number: signal.Signals) -> None:
        if not self._remains.signal(number):
            raise ServerFailed(f"{self!r} does not run: call start() first")

    def _make_folder(self) -> None:
        folder = Path(tempfile.mkdtemp(prefix="millpond-"))
        if len(str(folder / "s")) > _SOCKET_PATH_MAX:
            folder.rmdir()
            folder = Path(tempfile.mkdtemp(prefix="millpond-", dir="/tmp"))
        self._remains.folder = folder
        if self._account is not None:
            self._account.own(folder)
        self._prepare(folder)

    def _wait_until_ready(self, log_start: int) -> bool:
        """Wait for the server's own word in its log; False when its port was taken and another may be tried."""
        process = self._remains.process
        if process is None:
            raise ServerFailed("bug: waiting for a server that was not spawned")
        until = time.monotonic() + self._start_timeout_s
        while True:
            ended = process.poll() is not None
            news = self.log()[log_start:]
            if self._says_ready(news):
                return True
            if ended:
                if self._says_taken(news) and self._port_is_ours_to_choose and not self._is_prepared:
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

    def __init__(self, drop: signal.Signals | None) -> None:
        self.process: subprocess.Popen[bytes] | None = None
        self.folder: Path | None = None
        self._drop = drop
        self._owner_pid = os.getpid()

    def signal(self, number: signal.Signals) -> bool:
        """Send a signal to the server and, where it has processes of its own, to each; False if it does not run."""
        process = self.process
        if process is None or process.poll() is not None:
            return False
        process.send_signal(number)
        for child in _children(process.pid) if self._drop is not None else ():
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, number)
        return True

    def kill(self) -> None:
        process = self.process
        if process is None or os.getpid() != self._owner_pid:
            return
        if self._drop is not None and self.signal(signal.SIGCONT):
            process.send_signal(self._drop)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_GENTLY_S)
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


def _children(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:  # it has ended, or this system has no /proc
        return []


# ---- starting a process that dies with this one

_spawners: dict[int, ThreadPoolExecutor] = {}


def _spawn(command: list[str], log_path: Path, account: Account | None) -> subprocess.Popen[bytes]:
    """Start a server that the kernel kills when this process ends.

    The kernel takes the end of the *thread* that forked for the parent's end, so a server asked for in any thread but
    the main one is started by a thread that is kept.
    """
    with log_path.open("ab") as log:
        if threading.current_thread() is threading.main_thread() or not sys.platform.startswith("linux"):
            return _popen(command, log, account)
        spawner = _spawners.get(os.getpid())
        if spawner is None:
            spawner = _spawners[os.getpid()] = ThreadPoolExecutor(1, thread_name_prefix="millpond-scratch-server")
        return spawner.submit(_popen, command, log, account).result()


def _popen(command: list[str], log: IO[bytes], account: Account | None) -> subprocess.Popen[bytes]:
    nothing = subprocess.DEVNULL
    on_linux = sys.platform.startswith("linux")
    if on_linux:
        user, group = (account.user, account.group) if account is not None else (-1, -1)
        launcher = [sys.executable, "-I", "-S", "-c", _DIE_WITH_PARENT, str(os.getpid()), str(user), str(group)]
        command = [*launcher, *command]
    user_of = None if on_linux or account is None else account.user
    # A session of its own keeps Ctrl-C at the terminal from reaching the server in the middle of a test.
    return subprocess.Popen(command, stdin=nothing, stdout=log, stderr=log, start_new_session=True, user=user_of)
