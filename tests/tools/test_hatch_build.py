"""The compiled part is built where it can be, fails where it must not be missing, and nobody ever finds half of it."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from hatch_build import (
    IF_POSSIBLE,
    MODULE,
    NO,
    PACKAGE,
    REQUIRE,
    SOURCE,
    VARIABLE,
    CompiledPair,
    NotCompiled,
    build,
    is_gcc_or_clang,
    obstacle,
    put_into,
    remove_outdated,
    wish_of,
)
from tools.system import ROOT

HEADERS = Path(sysconfig.get_path("include"))
BUILT = f"_compiled_pair{sysconfig.get_config_var('EXT_SUFFIX')}"
# A module that stands for the real one: what is built is looked at, not what it does.
C = """
#include <Python.h>
static struct PyModuleDef definition = {PyModuleDef_HEAD_INIT, .m_name = "_compiled_pair", .m_size = 0};
PyMODINIT_FUNC PyInit__compiled_pair(void) { %s return PyModule_Create(&definition); }
"""
WARNED_OF = "int unused;"
REFUSED = "this is no C;"


def project(folder: Path, *, more: str = "") -> Path:
    """Make a project in *folder* that has nothing but a package with a module to compile."""
    (folder / PACKAGE).mkdir(parents=True)
    (folder / PACKAGE / "__init__.py").touch()
    (folder / SOURCE).write_text(C % more)
    return folder


def hook(root: Path) -> CompiledPair:
    """Return the hook of a project, as hatchling makes it."""
    return CompiledPair(str(root), {}, None, None, str(root / "dist"), "wheel")  # type: ignore[arg-type]  # looks at none


def initialized(root: Path, version: str) -> dict[str, object]:
    """Return what the hook tells hatchling of a build."""
    data: dict[str, object] = {"force_include": {}, "pure_python": True, "infer_tag": False}
    asked = hook(root)
    asked.initialize(version, data)
    asked.finalize(version, data, "")
    return data


def imports(module: str, place: Path) -> bool:
    """Say whether a Python of its own can import a module from a folder."""
    command = [sys.executable, "-I", "-c", f"import sys; sys.path.insert(0, {str(place)!r}); import {module}"]
    return subprocess.run(command, check=False, capture_output=True).returncode == 0


@pytest.fixture(autouse=True)
def nothing_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have nothing said about compiling, whatever is said to these tests."""
    monkeypatch.delenv(VARIABLE, raising=False)


@pytest.mark.parametrize(
    ("environment", "wish"),
    [({}, IF_POSSIBLE), ({VARIABLE: ""}, IF_POSSIBLE), ({VARIABLE: "no"}, NO), ({VARIABLE: "require"}, REQUIRE)],
)
def test_what_is_wished_for(environment: dict[str, str], wish: str) -> None:
    """The part is compiled if that is possible, unless something else is said."""
    assert wish == wish_of(environment)


def test_what_is_not_known_is_refused() -> None:
    """A wish that is not known is an error which names those that are."""
    with pytest.raises(ValueError, match=r"MILLPOND_COMPILED is 'yes': it may be 'require', 'no', or not set"):
        wish_of({VARIABLE: "yes"})


def test_where_it_cannot_be_compiled(tmp_path: Path) -> None:
    """Without CPython, its GIL or its headers nothing is tried, and the reason is told."""
    assert None is obstacle("cpython", gil=True, headers=HEADERS)
    assert "made for CPython, and this is pypy" in str(obstacle("pypy", gil=True, headers=HEADERS))
    assert "with the GIL, and this one has none" in str(obstacle("cpython", gil=False, headers=HEADERS))
    assert "headers are not installed" in str(obstacle("cpython", gil=True, headers=tmp_path))


def test_it_is_compiled_into_a_folder_of_its_own(tmp_path: Path) -> None:
    """What is built can be imported, and nothing is left beside its source."""
    root = project(tmp_path / "project")
    built = build(root, tmp_path / "folder", IF_POSSIBLE)
    assert BUILT == built.name
    assert ["__init__.py", "_compiled_pair.c"] == sorted(file.name for file in (root / PACKAGE).iterdir())
    put_into(root / PACKAGE, built)
    assert imports(MODULE, root / "src")


def test_a_warning_fails_what_is_required(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """The compiler's warnings are shown, and are errors where the part is required."""
    root = project(tmp_path / "project", more=WARNED_OF)
    assert build(root, tmp_path / "folder", IF_POSSIBLE).exists()
    assert "unused variable" in capfd.readouterr().err
    with pytest.raises(NotCompiled, match="compiler failed"):
        build(root, tmp_path / "other", REQUIRE)


def test_what_is_not_wanted_is_not_tried(tmp_path: Path) -> None:
    """Whoever wants nothing compiled needs not even a source."""
    with pytest.raises(NotCompiled, match="MILLPOND_COMPILED=no"):
        build(tmp_path, tmp_path, NO)


def test_a_wheel_has_what_was_compiled(tmp_path: Path) -> None:
    """A wheel with the part is for this Python on this kind of machine, and its own folder goes when it is packed."""
    data = initialized(project(tmp_path), "standard")
    assert isinstance(data["force_include"], dict)
    ((source, place),) = data["force_include"].items()
    assert (f"millpond/{BUILT}", False, True) == (place, data["pure_python"], data["infer_tag"])
    assert not Path(source).exists()


def test_an_editable_installation_has_it_beside_its_source(tmp_path: Path) -> None:
    """What stands for an editable installation is pure, since it holds nothing: the part is where the package is."""
    data = initialized(project(tmp_path), "editable")
    assert ({}, True, False) == (data["force_include"], data["pure_python"], data["infer_tag"])
    assert ["__init__.py", "_compiled_pair.c", BUILT] == sorted(file.name for file in (tmp_path / PACKAGE).iterdir())


def test_without_a_compiler_the_package_is_pure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where there is no compiler, there is a pure wheel and one line that says why; where it is required, an error."""
    root = project(tmp_path / "project")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    data = initialized(root, "standard")
    assert ({}, True, False) == (data["force_include"], data["pure_python"], data["infer_tag"])
    told = capsys.readouterr()
    assert 1 == len((told.out + told.err).strip().splitlines())
    assert "millpond is built in Python alone, and does the same: the compiler failed, or there is none" in told.err
    monkeypatch.setenv(VARIABLE, REQUIRE)
    with pytest.raises(NotCompiled, match="there is none"):
        initialized(root, "standard")


def test_what_cannot_be_compiled_any_more_is_not_imported(tmp_path: Path) -> None:
    """An editable installation that compiles nothing leaves nothing in place that is older than its source."""
    root = project(tmp_path, more=REFUSED)
    built = root / PACKAGE / BUILT
    built.touch()
    os.utime(built, (0, 0))
    initialized(root, "editable")
    assert not built.exists()
    built.touch()
    remove_outdated(root / PACKAGE)
    assert built.exists()


def test_it_is_replaced_whole(tmp_path: Path) -> None:
    """What is imported by somebody is not written into: another file takes its place, and nothing else stays."""
    new = tmp_path / BUILT
    new.write_text("new")
    package = tmp_path / "package"
    package.mkdir()
    (package / BUILT).write_text("old")
    with (package / BUILT).open() as imported:
        put_into(package, new)
        assert "old" == imported.read()
    assert ["new"] == [file.read_text() for file in package.iterdir()]


def test_installations_side_by_side_do_not_meet(tmp_path: Path) -> None:
    """Processes that build from one tree at once all succeed, and leave one whole file."""
    root = project(tmp_path)
    made = f"CompiledPair({str(root)!r}, {{}}, None, None, '', 'wheel')"
    code = f"from hatch_build import CompiledPair; {made}.initialize('editable', {{}})"
    processes = [subprocess.Popen([sys.executable, "-c", code], cwd=ROOT) for _ in range(4)]
    assert [0, 0, 0, 0] == [process.wait(120.0) for process in processes]
    assert ["__init__.py", "_compiled_pair.c", BUILT] == sorted(file.name for file in (root / PACKAGE).iterdir())
    assert imports(MODULE, root / "src")


def test_a_compiler_is_known_by_what_it_says(tmp_path: Path) -> None:
    """Compilers that are gcc or clang are known whatever they are called, and nothing else is taken for one."""
    alias = tmp_path / "compiler"
    alias.write_text('#!/bin/sh\nexec gcc "$@"\n')
    alias.chmod(0o755)
    assert is_gcc_or_clang([str(alias), "-O1"])
    assert not is_gcc_or_clang(["true"])
