"""Find the Python interpreters that the checks run on, and fetch a missing one where that is possible.

Rules: an interpreter is what it says when it is run, since a name on PATH may be a shim that leads nowhere; one without
``sqlite3`` or ``ssl`` is of no use to a database package and is passed over. Nothing here decides to do without one.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

VERSIONS = ("3.10", "3.11", "3.12", "3.13")

_TELL = "import sqlite3, ssl, sys; print('%d.%d' % sys.version_info[:2]); print(sys.version.split()[0])"


@dataclass(frozen=True)
class Interpreter:
    """One Python: ``version`` as in "3.12", ``release`` as in "3.12.1"."""

    path: str
    version: str
    release: str


def find(version: str) -> Interpreter | None:
    """Return an interpreter of *version* ("3.12") that is on this machine: PATH, pyenv's folder or uv's."""
    for path in _candidates(version):
        found = _ask(path)
        if found is not None and found.version == version:
            return found
    return None


def fetch(version: str, uv: str) -> Interpreter | None:
    """Have *uv* (a command) install *version*; None where its downloads cannot be reached."""
    subprocess.run([uv, "python", "install", version], check=False, stdin=subprocess.DEVNULL)
    answer = subprocess.run([uv, "python", "find", version], check=False, capture_output=True, text=True)
    found = _ask(answer.stdout.strip()) if answer.returncode == 0 else None
    return found if found is not None and found.version == version else None


def _candidates(version: str) -> Iterator[str]:
    if version == "{}.{}".format(*sys.version_info[:2]):
        yield sys.executable
    on_path = shutil.which(f"python{version}")
    if on_path:
        yield on_path
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    uv = Path(os.environ.get("UV_PYTHON_INSTALL_DIR") or Path.home() / ".local/share/uv/python")
    yield "/usr/bin/python" + version
    for folder in (*sorted(pyenv.glob(f"versions/{version}.*"), reverse=True), *sorted(uv.glob(f"*-{version}.*"))):
        yield str(folder / "bin" / f"python{version}")


def _ask(path: str) -> Interpreter | None:
    try:
        answer = subprocess.run([path, "-c", _TELL], check=False, capture_output=True, text=True, timeout=60)
    except OSError:
        return None
    words = answer.stdout.split()
    return Interpreter(path, words[0], words[1]) if answer.returncode == 0 else None
