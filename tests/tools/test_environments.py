"""Environments are made on machines whose Python has lost half of what makes them."""

from __future__ import annotations

import os
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tools import environments
from tools.environments import (
    current,
    ensure_compiles,
    ensure_compiles_mysqlclient,
    fingerprint,
    is_up_to_date,
    make_from_wheel,
    pip_wheel,
)
from tools.interpreters import Interpreter
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


@pytest.mark.parametrize("file", ["pyproject.toml", "hatch_build.py", "part.c"])
def test_an_environment_is_made_anew_with_what_it_is_made_of(file: str, tmp_path: Path) -> None:
    """A change of what describes the project, of what builds it or of what is compiled makes another environment."""
    made_of = [tmp_path / name for name in ("pyproject.toml", "hatch_build.py", "part.c")]
    for each in made_of:
        each.write_text("as it was")
    before = fingerprint(current(), ["."], compiled=True, made_of=made_of)
    assert before == fingerprint(current(), ["."], compiled=True, made_of=made_of)
    (tmp_path / file).write_text("changed")
    assert before != fingerprint(current(), ["."], compiled=True, made_of=made_of)


def test_an_environment_is_made_anew_with_what_is_asked_of_it() -> None:
    """Environments with and without the need for the compiled part are not the same, nor those of other packages."""
    asked = [
        fingerprint(current(), ["."], compiled=True),
        fingerprint(current(), ["."], compiled=False, asked=""),
        fingerprint(current(), ["."], compiled=False, asked="no"),
        fingerprint(current(), [".", "pytest"], compiled=True),
    ]
    assert len(asked) == len(set(asked))


def test_what_every_environment_shares_is_looked_at(tmp_path: Path) -> None:
    """A compiled part that is missing is built where it is needed, and one that is older than its source anywhere."""
    built, source = tmp_path / "part.so", tmp_path / "part.c"
    source.touch()
    assert [False, True] == [is_up_to_date(built, source, needed=needed) for needed in (True, False)]
    built.touch()
    os.utime(source, (1.0, 1.0))
    assert [True, True] == [is_up_to_date(built, source, needed=needed) for needed in (True, False)]
    os.utime(built, (0.0, 0.0))
    assert [False, False] == [is_up_to_date(built, source, needed=needed) for needed in (True, False)]


@pytest.mark.parametrize(
    ("ensure", "packages"),
    [
        (ensure_compiles, "gcc libc6-dev python3.9-dev"),
        (ensure_compiles_mysqlclient, "gcc libc6-dev pkg-config libmariadb-dev python3.9-dev"),
    ],
)
def test_what_compiling_takes_is_named(
    ensure: Callable[[Interpreter], None], packages: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where nothing can be installed, what is missing is told: the headers of that interpreter among it."""
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\necho {tmp_path}\n")  # its headers would lie here
    python.chmod(0o755)
    monkeypatch.setattr(shutil, "which", lambda _: None)
    with pytest.raises(SetupFailed, match=f"Install .* {packages}\\."):
        ensure(Interpreter(str(python), "3.9", "3.9.1"))
