"""A process that forks with a pool: its child begins anew, and it goes on as if nothing had been."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork on this system")
def test_a_forked_child_uses_the_pool_and_leaves_its_parent_alone(tmp_path: Path) -> None:
    """Inside the loop and outside; nobody complains in either process: see forking.py."""
    command = (sys.executable, "-X", "dev", "-W", "error", "-m", "tests.aio.forking", f"sqlite:///{tmp_path}/forks.db")
    done = subprocess.run(command, check=False, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert ("", 0) == (done.stderr, done.returncode)
