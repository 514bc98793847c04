"""The door of the command line."""

from __future__ import annotations

import subprocess
import sys

from click.testing import CliRunner

import millpond
from millpond.cli.app import millpond as command


def run_python(code: str) -> subprocess.CompletedProcess[str]:
    """Run a line of Python in a process of its own."""
    return subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)


def test_version() -> None:
    """``millpond --version`` says the version of the package."""
    answer = CliRunner().invoke(command, ["--version"])
    assert f"millpond, version {millpond.__version__}\n" == answer.output


def test_module_is_the_command() -> None:
    """``python -m millpond`` is the same command."""
    answer = subprocess.run([sys.executable, "-m", "millpond", "--version"], check=True, capture_output=True, text=True)
    assert f"millpond, version {millpond.__version__}\n" == answer.stdout


def test_says_which_extra_is_missing() -> None:
    """Without the extra, the command says what to install, and exits as for a wrong call."""
    answer = run_python("import sys; sys.modules['rich'] = None; from millpond.cli import main; main()")
    assert 2 == answer.returncode
    assert "millpond's command line needs rich: pip install 'millpond[cli]'\n" == answer.stderr


def test_a_full_disk_is_told_in_a_line() -> None:
    """What cannot be written is no traceback, but the system's own words and the exit code 1."""
    with open("/dev/full", "w", encoding="utf-8") as full:  # noqa: PTH123  a device
        command_line = [sys.executable, "-m", "millpond", "--help"]
        answer = subprocess.run(command_line, check=False, stdout=full, stderr=subprocess.PIPE, text=True)
    assert (1, "millpond: [Errno 28] No space left on device\n") == (answer.returncode, answer.stderr)


def test_package_does_not_need_the_extra() -> None:
    """Importing millpond imports none of the command line's libraries."""
    answer = run_python("import sys, millpond; print([n for n in ('click', 'rich', 'tzdata') if n in sys.modules])")
    assert "[]\n" == answer.stdout
