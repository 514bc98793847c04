"""Commands of this machine, and what its package manager can add where something is missing.

Rules: nothing is installed that is there already; where packages come from is the machine's own configuration; what
cannot be installed is told with its name, so that somebody can do it by hand.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
_one_at_a_time = threading.Lock()  # apt-get refuses to run beside itself


class SetupFailed(RuntimeError):
    """Tell that something could not be installed, and what to do about it."""


def install(packages: Sequence[str], *, why: str, mended: Callable[[], bool]) -> None:
    """Install *packages* with apt-get, as root or by sudo.

    Args:
        packages: their names in Debian and Ubuntu.
        why: what is wrong without them; shown.
        mended: whether it is right now; asked before, since another step may have seen to it, and after.

    Raises:
        SetupFailed: there is no apt-get, it failed, or it did not help.
    """
    names = " ".join(packages)
    with _one_at_a_time:
        if mended():
            return
        if shutil.which("apt-get") is None:
            raise SetupFailed(f"{why}. Install with this system's package manager what Debian calls {names}.")
        as_root = [] if os.geteuid() == 0 else ["sudo"]
        if as_root and shutil.which("sudo") is None:
            raise SetupFailed(f"{why}. Only root can install it: apt-get install {names}")
        print(f"{why}: installing {names} with apt-get", flush=True)
        call([*as_root, "apt-get", "update", "-q"])
        quietly = ["env", "DEBIAN_FRONTEND=noninteractive"]
        call([*as_root, *quietly, "apt-get", "install", "-q", "-y", "--no-install-recommends", *packages])
    if not mended():
        raise SetupFailed(f"{names} were installed, and still: {why}.")


def succeeds(command: Sequence[str]) -> bool:
    """Say whether a command is there and exits with 0."""
    try:
        return subprocess.run(command, check=False, capture_output=True).returncode == 0
    except FileNotFoundError:
        return False


def call(command: Sequence[str], folder: Path = ROOT) -> None:
    """Run a command from the project's folder, or another.

    Raises:
        SetupFailed: it is not there, or failed; the message ends with what it said.
    """
    try:
        answer = subprocess.run(
            command, check=False, cwd=folder, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
    except FileNotFoundError as error:
        raise SetupFailed(f"{command[0]} is needed for: {' '.join(command)}") from error
    if answer.returncode != 0:
        said = answer.stdout.decode(errors="replace").strip()
        raise SetupFailed(f"{' '.join(command)}\nfailed with exit code {answer.returncode}:\n{said}")
