"""Make virtual environments with millpond installed in them, below ``.venvs``, and only when something has changed.

Rules: whatever is missing is installed, and said so, or asked for by name; where packages come from is the machine's
own configuration. The package is installed editable: a change of its sources needs no new installation, one of
``pyproject.toml`` does.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

from tools.interpreters import Interpreter

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / ".venvs"


class SetupFailed(RuntimeError):
    """Tell that something could not be installed, and what to do about it."""


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
    _call([interpreter.path, "-m", "venv", str(folder)])
    _call([str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *requirements])
    stamp.write_text(wanted)
    return python


def _fingerprint(interpreter: Interpreter, requirements: tuple[str, ...]) -> str:
    project = (ROOT / "pyproject.toml").read_bytes()
    told = f"{ROOT} {interpreter} {requirements}".encode()
    return hashlib.sha256(told + project).hexdigest()


def _ensure_venv_works(interpreter: Interpreter) -> None:
    if _succeeds([interpreter.path, "-c", "import ensurepip, venv"]):
        return
    package = f"python{interpreter.version}-venv"
    if shutil.which("apt-get") is None:
        raise SetupFailed(
            f"{interpreter.path} cannot make virtual environments, since its ensurepip module is missing. "
            f"Install it with this system's package manager ({package} on Debian and Ubuntu)."
        )
    print(f"{interpreter.path} cannot make virtual environments yet: installing {package} with apt-get", flush=True)
    as_root = [] if os.geteuid() == 0 else ["sudo"]
    environment = ["env", "DEBIAN_FRONTEND=noninteractive"]
    _call([*as_root, "apt-get", "update", "-q"])
    _call([*as_root, *environment, "apt-get", "install", "-q", "-y", "--no-install-recommends", package])
    if not _succeeds([interpreter.path, "-c", "import ensurepip, venv"]):
        raise SetupFailed(f"{package} is installed, and {interpreter.path} still has no ensurepip module.")


def _succeeds(command: list[str]) -> bool:
    return subprocess.run(command, check=False, capture_output=True).returncode == 0


def _call(command: list[str]) -> None:
    try:
        answer = subprocess.run(
            command, check=False, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
    except FileNotFoundError as error:
        raise SetupFailed(f"{command[0]} is needed for: {' '.join(command)}") from error
    if answer.returncode != 0:
        said = answer.stdout.decode(errors="replace").strip()
        raise SetupFailed(f"{' '.join(command)}\nfailed with exit code {answer.returncode}:\n{said}")
