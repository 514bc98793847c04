"""What docs/simulation.md shows is so."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = (Path(__file__).parents[2] / "docs" / "simulation.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```python\n(.*?)```\n\n```text\n(.*?)```", PAGE, flags=re.DOTALL)


def test_every_example_says_what_it_prints() -> None:
    """No piece of Python on the page is left unchecked."""
    assert PAGE.count("```python") == len(EXAMPLES) == 5


@pytest.mark.parametrize(("code", "printed"), EXAMPLES, ids=[f"example {number}" for number in range(1, 6)])
def test_an_example_prints_what_it_says(code: str, printed: str, tmp_path: Path) -> None:
    """It runs as it stands, without a warning."""
    command = [sys.executable, "-W", "error", "-c", code]
    answer = subprocess.run(command, check=False, capture_output=True, text=True, cwd=tmp_path, timeout=60)
    assert ("", printed) == (answer.stderr, answer.stdout)
