"""What the README promises is so."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_first_lines_run(tmp_path: Path) -> None:
    """The Python of the README runs as it stands, one piece after another, and prints what it says."""
    printed = [run(code, tmp_path) for code in re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)]
    assert ["1 kept", "2 kept as well", "2 liked"] == printed[0].splitlines()
    assert "uses=1" in printed[1]


def run(code: str, folder: Path) -> str:
    """Run a piece of Python in a folder; return what it printed."""
    command = [sys.executable, "-W", "error", "-c", code]
    answer = subprocess.run(command, check=False, capture_output=True, text=True, cwd=folder)
    assert (0, "") == (answer.returncode, answer.stderr)
    return answer.stdout


def test_links_lead_somewhere() -> None:
    """Every file that the README names is there."""
    named = [target for target in re.findall(r"\]\(([^)#]+)\)", README) if "://" not in target]
    assert [] == [target for target in named if not (ROOT / target).exists()]
