"""Compile ``millpond._compiled_pair`` when the package is built, where that is possible.

Why: it makes a checkout of ``AsyncPool`` cheaper, and nothing else depends on it. Whoever has a compiler shall have it
without asking; whoever has none gets the same package, in Python alone, and one line that says so.

Rules: what is compiled lies in a folder of its own, since several installations build from one tree at the same time;
a file of the tree is replaced whole or not at all. ``MILLPOND_COMPILED`` says otherwise: ``require`` makes a failure of
what went wrong, and of the compiler's warnings as well; ``no`` does not try.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface
from setuptools import Distribution, Extension  # type: ignore[import-untyped]  # it has no types
from setuptools.command.build_ext import build_ext  # type: ignore[import-untyped]  # as above
from setuptools.errors import BaseError, CCompilerError  # type: ignore[import-untyped]  # as above

MODULE = "millpond._compiled_pair"
PACKAGE = Path("src", "millpond")
SOURCE = PACKAGE / "_compiled_pair.c"
VARIABLE = "MILLPOND_COMPILED"
REQUIRE, NO, IF_POSSIBLE = "require", "no", ""
# Left out of -Wextra: two things that every module of C has, since Python's API asks for them.
WARNINGS = ("-Wall", "-Wextra", "-Wno-missing-field-initializers", "-Wno-cast-function-type")


class NotCompiled(Exception):
    """Tell why there is nothing compiled."""


class CompiledPair(BuildHookInterface[Any]):
    """What hatchling calls before and after it packs a wheel, or what stands for one that is installed editable."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Add what was compiled to a wheel, or put it beside its source; *version* says which."""
        self._folder = tempfile.TemporaryDirectory(prefix="millpond-build-")
        editable = version == "editable"
        package = Path(self.root, PACKAGE)
        built = self._build_as_wished(Path(self._folder.name))
        if built is None:
            if editable:
                remove_outdated(package)
        elif editable:
            put_into(package, built)
        else:
            build_data["force_include"][str(built)] = f"millpond/{built.name}"
            build_data["pure_python"] = False
            build_data["infer_tag"] = True

    def _build_as_wished(self, folder: Path) -> Path | None:
        wish = wish_of(os.environ)
        try:
            return build(Path(self.root), folder, wish)
        except NotCompiled as reason:
            if wish == REQUIRE:
                self._folder.cleanup()
                raise
            self.app.display_warning(f"millpond is built in Python alone, and does the same: {reason}")
            return None

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:  # noqa: ARG002  hatchling's own
        """Remove what was compiled, which is packed by now."""
        self._folder.cleanup()


def wish_of(environment: Mapping[str, str]) -> str:
    """Return what *environment* wants compiled.

    Raises:
        ValueError: it says something that is not known.
    """
    wish = environment.get(VARIABLE, IF_POSSIBLE)
    if wish not in (REQUIRE, NO, IF_POSSIBLE):
        raise ValueError(f"{VARIABLE} is {wish!r}: it may be {REQUIRE!r}, {NO!r}, or not set (compiled if possible)")
    return wish


def obstacle(implementation: str, *, gil: bool, headers: Path) -> str | None:
    """Return why a Python cannot have the compiled part, whatever compiler there is; None if it can."""
    if implementation != "cpython":
        return f"it is made for CPython, and this is {implementation}"
    if not gil:
        return "it is made for a Python with the GIL, and this one has none"
    if not (headers / "Python.h").exists():
        return f"this Python's headers are not installed: there is no {headers / 'Python.h'}"
    return None


def build(root: Path, folder: Path, wish: str, flags: Sequence[str] = ()) -> Path:
    """Compile the part in *folder* for the Python that runs this, and return the file.

    Args:
        root: the project's folder.
        folder: where to; all that is made lies below it.
        wish: one of what ``wish_of`` returns.
        flags: more of them, for the compiler and the linker.

    Raises:
        NotCompiled: it is not wanted, or not possible.
    """
    if wish == NO:
        raise NotCompiled(f"{VARIABLE}={NO}")
    has_gil = not sysconfig.get_config_var("Py_GIL_DISABLED")
    reason = obstacle(sys.implementation.name, gil=has_gil, headers=Path(sysconfig.get_path("include")))
    if reason is not None:
        raise NotCompiled(reason)
    extension = Extension(MODULE, [str(root / SOURCE)], extra_compile_args=[*flags], extra_link_args=[*flags])
    command = _Compiling(Distribution({"name": "millpond", "ext_modules": [extension]}), wish)
    command.build_lib = str(folder / "built")
    command.build_temp = str(folder / "objects")
    try:
        command.ensure_finalized()
        command.run()
    except (BaseError, CCompilerError, OSError) as error:
        raise NotCompiled(f"the compiler failed, or there is none: {error}") from error
    return Path(command.get_ext_fullpath(MODULE))


class _Compiling(build_ext):  # type: ignore[misc]  # setuptools has no types
    """setuptools' command, which knows the compiler and what else this Python was built with."""

    def __init__(self, distribution: Distribution, wish: str) -> None:
        super().__init__(distribution)
        self._wish = wish

    def build_extension(self, extension: Extension) -> None:
        if self.compiler.compiler_type == "unix" and is_gcc_or_clang(self.compiler.compiler_so):
            severe = ["-Werror"] if self._wish == REQUIRE else []
            extension.extra_compile_args = ["-O2", *WARNINGS, *severe, *extension.extra_compile_args]
        super().build_extension(extension)


def is_gcc_or_clang(compiler: Sequence[str]) -> bool:
    """Say whether a command compiles as gcc and clang do, whatever its name."""
    asked = [*compiler, "-dM", "-E", "-x", "c", os.devnull]
    answer = subprocess.run(asked, check=False, capture_output=True, text=True)  # noqa: S603  Python's own compiler
    return "__GNUC__" in answer.stdout


def put_into(package: Path, built: Path) -> None:
    """Put a compiled file into *package*: all of it at once, whoever else does or imports it."""
    descriptor, name = tempfile.mkstemp(dir=package, prefix=f"{built.name}.")
    os.close(descriptor)
    aside = Path(name)
    try:
        shutil.copyfile(built, aside)
        aside.chmod(0o755)
        aside.replace(package / built.name)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise


def remove_outdated(package: Path) -> None:
    """Remove from *package* what an earlier installation has compiled, if its source was changed since."""
    compiled = package / f"{SOURCE.stem}{sysconfig.get_config_var('EXT_SUFFIX')}"
    if compiled.exists() and compiled.stat().st_mtime < (package / SOURCE.name).stat().st_mtime:
        compiled.unlink()
