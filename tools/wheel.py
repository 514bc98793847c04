"""Build the wheel that users install, and look at it: ``python -m tools.wheel``.

Why: everything else here runs on an editable installation, which has all files where they are written, and the packages
of the tests beside them. A file that is not packed, or a third package that the core needs, is seen here alone.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import zipfile
from email.message import Message
from email.parser import HeaderParser
from pathlib import Path

from tools.system import ROOT, call

SOURCES = ROOT / "src"
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
    """Print what is wrong with the wheel, or what is in it."""
    with tempfile.TemporaryDirectory() as folder:
        pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--disable-pip-version-check", "--no-deps"]
        call([*pip, "--wheel-dir", folder, str(ROOT)])
        (wheel,) = Path(folder).glob("*.whl")
        faults = [*faults_of(wheel), *faults_alone(wheel)]
        size = wheel.stat().st_size
        name = wheel.name
    print("\n".join(faults) or f"{name}: {size // 1024} KiB, all there, and imported alone")
    return 1 if faults else 0


def faults_of(wheel: Path) -> list[str]:
    """Return what a wheel lacks, has too much, or says wrongly of itself."""
    with zipfile.ZipFile(wheel) as archive:
        packed = set(archive.namelist())
        (about,) = (name for name in packed if name.endswith(".dist-info/METADATA"))
        metadata = HeaderParser().parsestr(archive.read(about).decode())
    described = {name for name in packed if ".dist-info/" in name}
    written = {str(path.relative_to(SOURCES)) for path in SOURCES.rglob("*") if path.suffix in (".py", ".typed")}
    return [
        *(f"not packed: {name}" for name in sorted(written - packed)),
        *(f"packed, and nobody knows why: {name}" for name in sorted(packed - written - described)),
        *(f"not packed: {name}" for name in ("LICENSE",) if not any(name in place for place in described)),
        *_faults_of_metadata(metadata),
    ]


def _faults_of_metadata(metadata: Message) -> list[str]:
    needed = [line for line in metadata.get_all("Requires-Dist", []) if "extra ==" not in line]
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    return [
        *(f"needs {line}: the package itself has no dependencies" for line in needed),
        *(["its description is not README.md"] if metadata.get_payload() != readme else []),
    ]


def faults_alone(wheel: Path) -> list[str]:
    """Return which modules cannot be imported from a wheel where nothing else is installed."""
    faults: list[str] = []
    for module in ALONE:
        code = f"import sys; sys.path.insert(0, {str(wheel)!r}); import {module}"
        alone = [sys.executable, "-I", "-S", "-W", "error", "-c", code]
        answer = subprocess.run(alone, check=False, capture_output=True, text=True)
        if answer.returncode:
            faults.append(f"{module} cannot be imported alone: {answer.stderr.strip().splitlines()[-1]}")
    return faults


if __name__ == "__main__":
    sys.exit(main())
