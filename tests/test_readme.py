"""What the README promises is so."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_first_lines_run(tmp_path: Path) -> None:
    """The Python of the README runs as it stands, and prints what it says."""
    (code,) = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    answer = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], check=False, capture_output=True, text=True, cwd=tmp_path
    )
    assert (0, "") == (answer.returncode, answer.stderr)
    assert "(1,)" == answer.stdout.splitlines()[0]


def test_links_lead_somewhere() -> None:
    """Every file that the README names is there."""
    named = [target for target in re.findall(r"\]\(([^)#]+)\)", README) if "://" not in target]
    assert [] == [target for target in named if not (ROOT / target).exists()]
