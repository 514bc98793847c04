"""Run tests on the compiled part built with sanitizers: ``python -m tools.sanitized tests/aio``, with pytest's words.

Why: a reference that is counted wrongly, or a field that is read when it is gone, may pass a thousand tests before it
ends somebody's process. The address sanitizer sees it when it happens, the other one what C leaves undefined.

Rules: a finding ends the process that it is in, and is a failure wherever that was: they are looked for in files, since
a test may expect a child to fail. Python's objects are allocated one by one (``PYTHONMALLOC=malloc``), or nothing would
be seen of them. Leaks are not looked for: Python itself keeps much until it ends.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from hatch_build import REQUIRE, VARIABLE, build
from tools.system import ROOT, SetupFailed

# What is undefined traps, and the address sanitizer says where: gcc's other one has only stderr to write to.
FLAGS = ("-fsanitize=address,undefined", "-fsanitize-undefined-trap-on-error", "-fno-omit-frame-pointer", "-g")


def main(words: Sequence[str]) -> int:
    """Run pytest with *words* on a copy of the package, and return its exit code, or 1 for a finding."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        package = folder / "first" / "millpond"
        shutil.copytree(ROOT / "src" / "millpond", package, ignore=shutil.ignore_patterns("*.so*", "__pycache__"))
        built = build(ROOT, folder, REQUIRE, FLAGS)
        shutil.copy(built, package)
        findings = folder / "findings"
        findings.mkdir()
        command = [sys.executable, "-m", "pytest", *words]
        environment = {**os.environ, **sanitizing(package.parent, findings)}
        code = subprocess.run(command, check=False, cwd=ROOT, env=environment).returncode
        found = told(findings)
    print(found or "the sanitizers found nothing")
    return code or bool(found)


def sanitizing(first: Path, findings: Path) -> dict[str, str]:
    """Return the variables with which Python takes millpond from *first*, and what is found is told in *findings*."""
    return {
        "LD_PRELOAD": library("libasan.so"),
        "ASAN_OPTIONS": f"detect_leaks=0:handle_sigill=1:log_path={findings}/of-process",
        "PYTHONMALLOC": "malloc",
        "PYTHONPATH": str(first),
        VARIABLE: REQUIRE,
    }


def library(name: str) -> str:
    """Return where gcc has one of its libraries.

    Raises:
        SetupFailed: it has none.
    """
    answer = subprocess.run(["gcc", f"-print-file-name={name}"], check=True, capture_output=True, text=True)
    found = Path(answer.stdout.strip())
    if not found.is_absolute():
        raise SetupFailed(f"gcc has no {name}: install what its sanitizers take")
    return str(found.resolve())


def told(findings: Path) -> str:
    """Return all that was found, by whatever process."""
    return "\n".join(file.read_text(errors="replace") for file in sorted(findings.iterdir()))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
