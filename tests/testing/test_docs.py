"""The examples of the documentation of ``millpond.testing`` run as they stand."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

DOCS = Path(__file__).parent.parent.parent / "docs"
EXAMPLES = re.findall(r"```python\n(.*?)```", (DOCS / "testing.md").read_text(encoding="utf-8"), flags=re.DOTALL)
DEADLINE_S = 60.0


@pytest.mark.parametrize("code", [code for code in EXAMPLES if "DriverContract" not in code])
def test_examples_run(code: str, tmp_path: Path) -> None:
    """Every example runs without a warning."""
    command = [sys.executable, "-W", "error", "-c", code]
    answer = subprocess.run(command, check=False, capture_output=True, text=True, cwd=tmp_path, timeout=DEADLINE_S)
    assert (0, "") == (answer.returncode, answer.stderr)


def test_the_example_of_a_server_that_lacks_something(tmp_path: Path) -> None:
    """It runs as it stands, and tells by which way its pool resets."""
    page = (DOCS / "testing-servers.md").read_text(encoding="utf-8")
    (code,) = (code for code in re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL) if "FakeServer" in code)
    command = [sys.executable, "-W", "error", "-c", code]
    answer = subprocess.run(command, check=False, capture_output=True, text=True, cwd=tmp_path, timeout=DEADLINE_S)
    assert (0, "") == (answer.returncode, answer.stderr)
    said, way = answer.stdout.splitlines()
    assert "(1205, 'Lock wait timeout exceeded')" == said
    assert way.startswith("auto: ROLLBACK, or a new connection: ")


def test_the_contract_is_collected_from_a_subclass(tmp_path: Path) -> None:
    """The example of a driver's test is a test module that pytest runs, and that passes."""
    (code,) = (code for code in EXAMPLES if "DriverContract" in code)
    (tmp_path / "test_mine.py").write_text(code, encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_mine.py"]
    answer = subprocess.run(command, check=False, capture_output=True, text=True, cwd=tmp_path, timeout=DEADLINE_S)
    assert 0 == answer.returncode, answer.stdout
    assert re.search(r"\b\d\d passed", answer.stdout)
