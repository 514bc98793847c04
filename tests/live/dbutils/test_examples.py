"""The examples run as they stand, on both servers: the page's program on the drop-in, and the same on Database."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.dbutils.waiting import DEADLINE_S

from .scenes import Scene

EXAMPLES = Path(__file__).parents[3] / "examples"
SAID = ["(1,)", "('rice', 5)", "('rice', 5)", "('tea', 3)"]


def run_example(name: str, *arguments: str) -> tuple[list[str], str]:
    """Run an example; return the lines that it prints, and what it says beside them."""
    command = [sys.executable, "-W", "default", str(EXAMPLES / name), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE_S, check=True)
    return done.stdout.splitlines(), done.stderr


def test_the_page_s_program_runs_on_the_drop_in(scene: Scene) -> None:
    """It reads a row and rows, writes with and without parameters, and is told what is wrong with its settings."""
    args = scene.args
    printed, told = run_example(
        "dbutils_demo.py", args["host"], args["user"], args["password"], args["database"], str(args["port"])
    )
    assert SAID == printed
    assert (("rice", 5), ("tea", 3)) == scene.q("SELECT name, price FROM sell_test ORDER BY name")
    assert "db= is deprecated by the driver and may vanish: call it database=" in told
    assert "use charset=utf8mb4" in told
    assert "dbutils_demo.py:33" in told  # where the pool is made
    assert args["password"] not in told


def test_the_same_program_runs_on_database(scene: Scene) -> None:
    """It prints the same, and nothing is wrong with it."""
    url = scene.server.url("pymysql", tls=False).replace(f"/{scene.server.database}", f"/{scene.schema}")
    printed, told = run_example("database_demo.py", url)
    assert [line.replace("Row", "") for line in printed] == SAID
    assert "" == told
