"""Run DBUtils' own tests, as they are, against the drop-in: ``python -m tools.dbutils_suite [VERSION] [OPTIONS]``.

Why: the drop-in claims to be DBUtils by changing an import, and nobody can say what that means better than the
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

from millpond.testing._server_binaries import cache_folder

# How many items pass, and what is left out by name.
SUITES = {
    "3.2.0": (320, ()),
    # What 3.2 has changed on purpose: shared connections are equal to themselves alone.
    "3.1.2": (139, ("tests/test_pooled_db.py::test_shared_db_connection_compare",)),
}


def main(arguments: Sequence[str]) -> int:
    """Run the tests of the version that is named, or of each in a process of its own; return the exit code."""
    if arguments and arguments[0] in SUITES:
        return run(arguments[0], arguments[1:])
    codes = [
        subprocess.run([sys.executable, "-m", "tools.dbutils_suite", version, *arguments], check=False).returncode
        for version in SUITES
    ]
    passed = ", ".join(f"{items} of {version}" for version, (items, _) in SUITES.items())
    if not any(codes):
        print(f"DBUtils' own tests: items passed: {passed}")
    return max(codes)


def run(version: str, options: Sequence[str]) -> int:
    """Fetch the tests, let ``dbutils`` mean the drop-in, and run them; return pytest's exit code."""
    import pytest

    import millpond.dbutils

    if importlib.util.find_spec("dbutils") is not None:
        print("DBUtils itself can be imported here: its tests would not prove anything", file=sys.stderr)
        return 2
    millpond.dbutils.install()
    counter = Counter()
    items, left_out = SUITES[version]
    deselected = [f"--deselect={name}" for name in left_out]
    with tempfile.TemporaryDirectory() as folder:
        unpack(fetched(version), Path(folder))
        os.chdir(folder)
        code = int(pytest.main(["-q", "-p", "no:cacheprovider", *deselected, "tests", *options], plugins=[counter]))
    print(f"DBUtils {version}: {counter.passed} of {items} items passed")
    return code or int(counter.passed != items)


class Counter:
    """Counts what has passed, as a plugin of pytest's."""

    def __init__(self) -> None:
        self.passed = 0

    def pytest_runtest_logreport(self, report: object) -> None:
        """Count a test whose call has passed."""
        self.passed += getattr(report, "when", "") == "call" and getattr(report, "passed", False)


def fetched(version: str) -> Path:
    """Return the source distribution; fetch it if it is not in the cache folder.

    Raises:
        RuntimeError: pip cannot get it.
    """
    folder = cache_folder()
    archive = folder / f"dbutils-{version}.tar.gz"
    if archive.exists():
        return archive
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:"]
        answer = subprocess.run(
            [*command, "--dest", scratch, f"DBUtils=={version}"], check=False, capture_output=True, text=True
        )
        found = sorted(Path(scratch).glob("*.tar.gz"))
        if answer.returncode or not found:
            raise RuntimeError(f"pip could not fetch the source distribution of DBUtils {version}:\n{answer.stderr}")
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
