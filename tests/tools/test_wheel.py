"""A wheel that lacks something is found out."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from tools.system import ROOT
from tools.wheel import ALONE, SOURCES, faults_alone, faults_of

ABOUT = "millpond-1.0.dist-info"


def wheel_of(folder: Path, *, needs: str = "", without: str = "", beside: str = "") -> Path:
    """Make a wheel of the sources as they are, but for what is asked for."""
    wheel = folder / "millpond-1.0-py3-none-any.whl"
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    with zipfile.ZipFile(wheel, "w") as archive:
        for path in SOURCES.rglob("*"):
            if path.suffix in (".py", ".typed") and path.name != without:
                archive.write(path, path.relative_to(SOURCES))
        archive.writestr(f"{ABOUT}/licenses/LICENSE", "MIT")
        archive.writestr(f"{ABOUT}/METADATA", f"Name: millpond\n{needs}\n{readme}")
        if beside:
            archive.writestr(beside, "")
    return wheel


def test_a_wheel_as_it_should_be(tmp_path: Path) -> None:
    """What is written is packed, nothing else is, and it needs no other package."""
    assert [] == faults_of(wheel_of(tmp_path, needs="Requires-Dist: click>=8.1; extra == 'cli'\n"))


@pytest.mark.parametrize(
    ("changed", "fault"),
    [
        ({"without": "py.typed"}, "not packed: millpond/py.typed"),
        ({"beside": "tests/test_url.py"}, "packed, and nobody knows why: tests/test_url.py"),
        ({"needs": "Requires-Dist: six\n"}, "needs six: the package itself has no dependencies"),
    ],
)
def test_a_wheel_as_it_should_not_be(changed: dict[str, str], fault: str, tmp_path: Path) -> None:
    """What is missing, too much or needed is named."""
    assert [fault] == faults_of(wheel_of(tmp_path, **changed))


def test_what_cannot_be_imported_alone_is_named(tmp_path: Path) -> None:
    """Each module that needs another package, or a file that is not packed, is a fault of its own."""
    faults = faults_alone(wheel_of(tmp_path, without="errors.py"))
    assert [*ALONE] == [fault.partition(" cannot be imported alone: ModuleNotFoundError")[0] for fault in faults]
