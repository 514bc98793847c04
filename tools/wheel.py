"""Build the wheels that users install, and look at them: ``python -m tools.wheel``.

Why: everything else here runs on an editable installation, which has all files where they are written, and the packages
of the tests beside them. A file that is not packed, or a third package that the core needs, is seen here alone.

There are two: with the part that is compiled, for one version of Python on one kind of machine, and in Python alone,
for whoever has no compiler. Both are built from the sources as they are distributed: those are seen to be whole, too.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import zipfile
from concurrent.futures import ThreadPoolExecutor
from email.message import Message
from email.parser import HeaderParser
from pathlib import Path

from tools.environments import COMPILED, COMPILED_PART, REQUIRE, WITHOUT
from tools.system import ROOT, call

SOURCES = ROOT / "src"
BUILT = str(COMPILED_PART.relative_to(SOURCES).with_suffix(sysconfig.get_config_var("EXT_SUFFIX")))
PACKED = (".py", ".pyi", ".typed")
PURE_TAG = "py3-none-any"
COMPILED_TAG = f"cp{sys.version_info[0]}{sys.version_info[1]}-"
# Imported from the wheel by a Python that has nothing but its standard library, every warning being an error.
ALONE = (
    "millpond",
    "millpond.aio",
    "millpond.aio_database",
    "millpond.cli",
    "millpond.dbutils.persistent_db",
    "millpond.dbutils.pooled_db",
    "millpond.dbutils.pooled_pg",
    "millpond.drivers.dbapi",
    "millpond.drivers.sqlite",
    "millpond.observer",
    "millpond.testing.servers",
    "millpond.testing.simulator",
)


def main() -> int:
    """Print what is wrong with the wheels, or what they are."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sources = unpacked_sources(folder)
        with ThreadPoolExecutor() as side_by_side:
            looks = [side_by_side.submit(_look_at, sources, folder / wish, wish) for wish in (REQUIRE, WITHOUT)]
            looked = [look.result() for look in looks]
    faults = [fault for found, _ in looked for fault in found]
    print("\n".join(faults) or f"{' and '.join(about for _, about in looked)}: all there, and imported alone")
    return 1 if faults else 0


def unpacked_sources(folder: Path) -> Path:
    """Return, below *folder*, what is distributed as sources."""
    build = "import sys; from hatchling.build import build_sdist; build_sdist(sys.argv[1])"
    call([sys.executable, "-c", build, str(folder)])
    (packed,) = folder.glob("*.tar.gz")
    shutil.unpack_archive(packed, folder / "sources")
    (sources,) = (folder / "sources").iterdir()
    return sources


def _look_at(sources: Path, folder: Path, wish: str) -> tuple[list[str], str]:
    """Build a wheel as it is wished for; return its faults, and its name and size."""
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--disable-pip-version-check", "--no-deps"]
    # The packages that build it are here already; that pip can fetch them is seen with each installation.
    call(["env", f"{COMPILED}={wish}", *pip, "--no-build-isolation", "--wheel-dir", str(folder), str(sources)])
    (wheel,) = folder.glob("*.whl")
    compiled = wish == REQUIRE
    faults = [*faults_of(wheel, compiled=compiled), *faults_alone(wheel, compiled=compiled)]
    return faults, f"{wheel.name} ({wheel.stat().st_size // 1024} KiB)"


def faults_of(wheel: Path, *, compiled: bool) -> list[str]:
    """Return what a wheel, *compiled* or in Python alone, lacks, has too much, or says wrongly of itself."""
    with zipfile.ZipFile(wheel) as archive:
        packed = set(archive.namelist())
        (about,) = (name for name in packed if name.endswith(".dist-info/METADATA"))
        metadata = HeaderParser().parsestr(archive.read(about).decode())
    described = {name for name in packed if ".dist-info/" in name}
    written = {str(path.relative_to(SOURCES)) for path in SOURCES.rglob("*") if path.suffix in PACKED}
    if compiled:
        written.add(BUILT)
    return [
        *_faults_of_tag(wheel.stem, compiled=compiled),
        *(f"not packed: {name}" for name in sorted(written - packed)),
        *(f"packed, and nobody knows why: {name}" for name in sorted(packed - written - described)),
        *(f"not packed: {name}" for name in ("LICENSE",) if not any(name in place for place in described)),
        *_faults_of_metadata(metadata),
    ]


def _faults_of_tag(name: str, *, compiled: bool) -> list[str]:
    tag = name.split("-", 2)[2]
    right = tag.startswith(COMPILED_TAG) if compiled else tag == PURE_TAG
    return [] if right else [f"its tag is {tag}: it should be {f'{COMPILED_TAG}...' if compiled else PURE_TAG}"]


def _faults_of_metadata(metadata: Message) -> list[str]:
    needed = [line for line in metadata.get_all("Requires-Dist", []) if "extra ==" not in line]
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    return [
        *(f"needs {line}: the package itself has no dependencies" for line in needed),
        *(["its description is not README.md"] if metadata.get_payload() != readme else []),
    ]


def faults_alone(wheel: Path, *, compiled: bool) -> list[str]:
    """Return which modules cannot be imported from a wheel where nothing else is installed."""
    faults: list[str] = []
    environment = {**os.environ, COMPILED: REQUIRE if compiled else ""}
    with tempfile.TemporaryDirectory() as folder, zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
        for module in ALONE:
            code = f"import sys; sys.path.insert(0, {folder!r}); import {module}"
            alone = [sys.executable, "-I", "-S", "-W", "error", "-c", code]
            answer = subprocess.run(alone, check=False, capture_output=True, text=True, env=environment)
            if answer.returncode:
                faults.append(f"{module} cannot be imported alone: {answer.stderr.strip().splitlines()[-1]}")
    return faults


if __name__ == "__main__":
    sys.exit(main())
