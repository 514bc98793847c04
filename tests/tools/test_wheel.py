"""A wheel that lacks something is found out."""

from __future__ import annotations

import sys
import zipfile
from pathlib import Path

import pytest

from tools.system import ROOT
from tools.wheel import ALONE, BUILT, PACKED, SOURCES, faults_alone, faults_of

ABOUT = "millpond-1.0.dist-info"


PURE = "py3-none-any"
COMPILED = f"cp{sys.version_info[0]}{sys.version_info[1]}-cp{sys.version_info[0]}{sys.version_info[1]}-some_machine"


def wheel_of(folder: Path, *, needs: str = "", without: str = "", beside: str = "", tag: str = PURE) -> Path:
    """Make a wheel of the sources as they are, but for what is asked for."""
    wheel = folder / f"millpond-1.0-{tag}.whl"
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    with zipfile.ZipFile(wheel, "w") as archive:
        for path in SOURCES.rglob("*"):
            if path.suffix in PACKED and path.name != without:
                archive.write(path, path.relative_to(SOURCES))
        archive.writestr(f"{ABOUT}/licenses/LICENSE", "MIT")
        archive.writestr(f"{ABOUT}/METADATA", f"Name: millpond\n{needs}\n{readme}")
        if beside:
            archive.writestr(beside, "")
    return wheel


def test_a_wheel_as_it_should_be(tmp_path: Path) -> None:
    """What is written is packed, nothing else is, and it needs no other package."""
    assert [] == faults_of(wheel_of(tmp_path, needs="Requires-Dist: click>=8.1; extra == 'cli'\n"), compiled=False)
    assert [] == faults_of(wheel_of(tmp_path, beside=BUILT, tag=COMPILED), compiled=True)


@pytest.mark.parametrize(
    ("changed", "fault"),
    [
        ({"without": "py.typed"}, "not packed: millpond/py.typed"),
        ({"beside": "tests/test_url.py"}, "packed, and nobody knows why: tests/test_url.py"),
        ({"beside": BUILT}, f"packed, and nobody knows why: {BUILT}"),
        ({"beside": "millpond/_compiled_pair.c"}, "packed, and nobody knows why: millpond/_compiled_pair.c"),
        ({"needs": "Requires-Dist: six\n"}, "needs six: the package itself has no dependencies"),
        ({"tag": COMPILED}, f"its tag is {COMPILED}: it should be {PURE}"),
    ],
)
def test_a_wheel_as_it_should_not_be(changed: dict[str, str], fault: str, tmp_path: Path) -> None:
    """What is missing, too much or needed is named."""
    assert [fault] == faults_of(wheel_of(tmp_path, **changed), compiled=False)


def test_a_wheel_without_its_compiled_part(tmp_path: Path) -> None:
    """A wheel that should have the compiled part and has not is found out by what it holds and by its tag."""
    faults = faults_of(wheel_of(tmp_path), compiled=True)
    assert [f"its tag is {PURE}: it should be {COMPILED.partition('-')[0]}-...", f"not packed: {BUILT}"] == faults


def test_a_compiled_part_that_cannot_be_imported_is_named(tmp_path: Path) -> None:
    """A wheel whose compiled part is none does not pass because Python could do without it."""
    faults = faults_alone(wheel_of(tmp_path, beside=BUILT, tag=COMPILED), compiled=True)
    assert ["millpond.aio", "millpond.aio_database"] == [fault.partition(" cannot")[0] for fault in faults]


def test_what_cannot_be_imported_alone_is_named(tmp_path: Path) -> None:
    """Each module that needs another package, or a file that is not packed, is a fault of its own."""
    faults = faults_alone(wheel_of(tmp_path, without="errors.py"), compiled=False)
    assert [*ALONE] == [fault.partition(" cannot be imported alone: ModuleNotFoundError")[0] for fault in faults]
