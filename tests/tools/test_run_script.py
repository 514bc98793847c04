"""The front door opens wherever there is a Python, and says what is missing where there is none."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tools.system import ROOT

DEADLINE_S = 60.0


def run(script: str, *arguments: str, environment: dict[str, str], folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a script of the project's by its path, from somewhere else."""
    command = ["/bin/sh", str(ROOT / script), *arguments]
    return subprocess.run(
        command, check=False, capture_output=True, text=True, env=environment, cwd=folder, timeout=DEADLINE_S
    )


@pytest.fixture
def bare_path(tmp_path: Path) -> str:
    """Return a PATH on which there is nothing but what the script itself needs."""
    dirname = shutil.which("dirname")
    assert dirname is not None
    (tmp_path / "dirname").symlink_to(dirname)
    return str(tmp_path)


def test_it_tells_what_it_can(tmp_path: Path, bare_path: str) -> None:
    """With a Python that is named, it says what there is to do."""
    environment = {"PATH": bare_path, "PYTHON": sys.executable}
    answer = run("run", "--help", environment=environment, folder=tmp_path)
    assert (0, "") == (answer.returncode, answer.stderr)
    assert all(word in answer.stdout for word in ("demo", "test", "sim"))


def test_without_python_it_says_what_to_install(tmp_path: Path, bare_path: str) -> None:
    """Without any Python that is new enough, it says so and what to do."""
    environment = {"PATH": bare_path, "HOME": str(tmp_path), "PYTHON": "/bin/false"}
    answer = run("run", "demo", environment=environment, folder=tmp_path)
    assert 1 == answer.returncode
    assert "needs Python 3.10 or newer" in answer.stderr
    assert "apt-get install python3" in answer.stderr


def test_ci_runs_every_check(tmp_path: Path, bare_path: str) -> None:
    """What CI runs is ``./run test``: it takes the same options and refuses what that refuses."""
    environment = {"PATH": f"{bare_path}:/bin:/usr/bin", "PYTHON": sys.executable}
    answer = run(".ci/run", "--without", "3.9", environment=environment, folder=tmp_path)
    assert 2 == answer.returncode
    assert "./run test" in answer.stderr
    assert "invalid choice: '3.9'" in answer.stderr
