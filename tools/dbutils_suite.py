"""Run DBUtils' own tests, as they are, against the drop-in: ``python -m tools.dbutils_suite [PYTEST'S OPTIONS]``.

Why: the drop-in claims to be DBUtils 3.2 by changing an import, and nobody can say what that means better than the
tests that DBUtils ships in its source distribution.

Rules: the tests are not changed.  DBUtils itself must not be importable where they run, or they would prove nothing:
this runs in an environment that does not have it, and looks.  They are fetched by pip, once, into millpond's cache
folder.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Sequence
from pathlib import Path

VERSION = "3.2.0"
ITEMS = 320  # of that version: a run of fewer has left something out


def main(options: Sequence[str]) -> int:
    """Fetch the tests, let ``dbutils`` mean the drop-in, and run them; return pytest's exit code."""
    import pytest

    import millpond.dbutils

    if importlib.util.find_spec("dbutils") is not None:
        print("DBUtils itself can be imported here: its tests would not prove anything", file=sys.stderr)
        return 2
    millpond.dbutils.install()
    counter = Counter()
    with tempfile.TemporaryDirectory() as folder:
        unpack(fetched(), Path(folder))
        os.chdir(folder)
        code = int(pytest.main(["-q", "-p", "no:cacheprovider", "-W", "error", "tests", *options], plugins=[counter]))
    if not code and counter.passed != ITEMS:
        print(f"{counter.passed} of {ITEMS} items have passed", file=sys.stderr)
        return 1
    print(f"DBUtils {VERSION}: {counter.passed} of {ITEMS} items passed")
    return code


class Counter:
    """Counts what has passed, as a plugin of pytest's."""

    def __init__(self) -> None:
        self.passed = 0

    def pytest_runtest_logreport(self, report: object) -> None:
        """Count a test whose call has passed."""
        self.passed += getattr(report, "when", "") == "call" and getattr(report, "passed", False)


def fetched() -> Path:
    """Return the source distribution; fetch it if it is not in the cache folder.

    Raises:
        RuntimeError: pip cannot get it.
    """
    named = os.environ.get("MILLPOND_CACHE")
    folder = Path(named).expanduser() if named else Path.home() / ".cache" / "millpond"
    archive = folder / f"dbutils-{VERSION}.tar.gz"
    if archive.exists():
        return archive
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:"]
        answer = subprocess.run(
            [*command, "--dest", scratch, f"DBUtils=={VERSION}"], check=False, capture_output=True, text=True
        )
        found = sorted(Path(scratch).glob("*.tar.gz"))
        if answer.returncode or not found:
            raise RuntimeError(f"pip could not fetch the source distribution of DBUtils {VERSION}:\n{answer.stderr}")
        found[0].replace(archive)
    return archive


def unpack(archive: Path, folder: Path) -> None:
    """Unpack the tests, and nothing else: beside them, DBUtils itself would be found."""
    with tarfile.open(archive) as opened:
        for member in opened.getmembers():
            place = Path(*Path(member.name).parts[1:])
            if member.isfile() and place.parts[:1] == ("tests",) and ".." not in place.parts:
                content = opened.extractfile(member)
                assert content is not None, "bug: a file of an archive has no content"
                (folder / place).parent.mkdir(parents=True, exist_ok=True)
                (folder / place).write_bytes(content.read())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
