"""Environments are made on machines whose Python has lost half of what makes them."""

from __future__ import annotations

import shutil
import zipfile
from pathlib import Path

import pytest

from tools import environments
from tools.environments import current, make_from_wheel, pip_wheel
from tools.system import SetupFailed

WHEEL = Path("usr/share/python-wheels/pip-1.0-py3-none-any.whl")


# What stands for pip: it tells where it was installed, and with which words.
PIP = "import pathlib, sys; pathlib.Path(sys.prefix, 'told').write_text(' '.join(sys.argv[1:]))"


def put_wheel(below: Path) -> Path:
    """Put a file where Debian's package puts pip."""
    (below / WHEEL).parent.mkdir(parents=True)
    (below / WHEEL).touch()
    return below / WHEEL


def test_an_environment_without_ensurepip(tmp_path: Path) -> None:
    """Where ensurepip is missing, an environment is made all the same, and a wheel that holds pip installs itself."""
    wheel = tmp_path / "pip-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("pip/__main__.py", PIP)
    make_from_wheel(current(), tmp_path / "bare", wheel)
    assert f"install --quiet --no-index {wheel}" == (tmp_path / "bare/told").read_text()


def test_a_pip_that_needs_what_was_taken_out_installs_a_newer_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the system's pip does not run without distutils, it gets that for as long as it takes to replace itself."""
    monkeypatch.setattr(environments, "FOLDER", tmp_path)
    library = tmp_path / f"python3-distutils/usr/lib/python{current().version}"
    (library / "distutils").mkdir(parents=True)
    (library / "distutils" / "taken_out.py").touch()
    wheel = tmp_path / "pip-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("pip/__main__.py", f"import distutils.taken_out; {PIP}")
    make_from_wheel(current(), tmp_path / "bare", wheel)
    assert "install --quiet pip>=23" == (tmp_path / "bare/told").read_text()


def test_the_systems_pip_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A wheel that the system has is taken rather than one that was fetched, and that rather than another fetch."""
    monkeypatch.setattr(environments, "FOLDER", tmp_path / "environments")
    fetched = put_wheel(tmp_path / "environments" / "python3-pip-whl")
    assert fetched == pip_wheel(tmp_path / "root")
    assert put_wheel(tmp_path / "root") == pip_wheel(tmp_path / "root")


def test_without_any_pip_it_says_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a package manager that could fetch it, the message names the modules to install."""
    monkeypatch.setattr(environments, "FOLDER", tmp_path / "environments")
    monkeypatch.setattr(shutil, "which", lambda _: None)
    with pytest.raises(SetupFailed, match="install its ensurepip and venv modules"):
        pip_wheel(tmp_path / "root")
