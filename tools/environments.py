"""Make virtual environments with millpond installed in them, below ``.venvs``, and only when something has changed.

Rules: whatever is missing is installed, and said so, or asked for by name; where packages come from is the machine's
own configuration. The package is installed editable: a change of its sources needs no new installation, one of
``pyproject.toml`` does.
"""

from __future__ import annotations

import hashlib
import shutil
import sys
from pathlib import Path

from tools import system
from tools.interpreters import Interpreter
from tools.system import ROOT

FOLDER = ROOT / ".venvs"


def current() -> Interpreter:
    """Return the interpreter that runs this."""
    major, minor, micro = sys.version_info[:3]
    return Interpreter(sys.executable, f"{major}.{minor}", f"{major}.{minor}.{micro}")


def make(name: str, interpreter: Interpreter, *requirements: str) -> Path:
    """Return the Python of the environment *name*, made or brought up to date with *requirements*.

    Raises:
        SetupFailed: it could not be made; the message ends with what the failing command said.
    """
    folder = FOLDER / name
    python = folder / "bin" / "python"
    stamp = folder / "installed"
    wanted = _fingerprint(interpreter, requirements)
    if python.exists() and stamp.exists() and stamp.read_text() == wanted:
        return python
    if folder.exists():
        shutil.rmtree(folder)
    _ensure_venv_works(interpreter)
    system.call([interpreter.path, "-m", "venv", str(folder)])
    system.call([str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *requirements])
    stamp.write_text(wanted)
    return python


def _fingerprint(interpreter: Interpreter, requirements: tuple[str, ...]) -> str:
    project = (ROOT / "pyproject.toml").read_bytes()
    told = f"{ROOT} {interpreter} {requirements}".encode()
    return hashlib.sha256(told + project).hexdigest()


def _ensure_venv_works(interpreter: Interpreter) -> None:
    if not _can_make_venvs(interpreter):
        system.install(
            [f"python{interpreter.version}-venv"],
            why=f"{interpreter.path} cannot make virtual environments: its ensurepip module is missing",
            mended=lambda: _can_make_venvs(interpreter),
        )


def _can_make_venvs(interpreter: Interpreter) -> bool:
    return system.succeeds([interpreter.path, "-c", "import ensurepip, venv"])


def ensure_compiles_mysqlclient(interpreter: Interpreter) -> None:
    """See to it that *interpreter* can build mysqlclient, which has no wheels for Linux.

    Raises:
        SetupFailed: a compiler, the client library or Python's headers are missing, and cannot be installed.
    """
    if not _compiles_mysqlclient(interpreter):
        headers = [] if _has_headers(interpreter) else [f"python{interpreter.version}-dev"]
        system.install(
            ["gcc", "libc6-dev", "pkg-config", "libmariadb-dev", *headers],
            why="mysqlclient has to be compiled, and something that it takes is missing",
            mended=lambda: _compiles_mysqlclient(interpreter),
        )


def _compiles_mysqlclient(interpreter: Interpreter) -> bool:
    libraries = ("mysqlclient", "mariadb", "libmariadb", "perconaserverclient")  # as its own build looks for them
    has_library = any(system.succeeds(["pkg-config", "--exists", library]) for library in libraries)
    return has_library and shutil.which("gcc") is not None and _has_headers(interpreter)


def _has_headers(interpreter: Interpreter) -> bool:
    look = "import pathlib, sysconfig; assert (pathlib.Path(sysconfig.get_paths()['include']) / 'Python.h').exists()"
    return system.succeeds([interpreter.path, "-c", look])
