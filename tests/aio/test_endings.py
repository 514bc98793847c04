"""Whenever and however a loop ends, nobody complains, and every connection is closed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
STRICT = (sys.executable, "-X", "dev", "-W", "error")


def test_a_loop_may_end_in_every_phase_of_a_pool_and_in_every_way() -> None:
    """What failed is printed by the program that plays them all: see endings.py."""
    done = subprocess.run(
        (*STRICT, "-m", "tests.aio.endings"), check=False, cwd=ROOT, capture_output=True, text=True, timeout=300
    )
    assert ("0 failed\n", "", 0) == (done.stdout, done.stderr, done.returncode)


PROGRAM = """
import asyncio, logging, signal, sys
import millpond

logging.getLogger("asyncio").setLevel(logging.ERROR)  # that a callback was slow is no news here
pool = millpond.AsyncPool("sqlite:///" + sys.argv[1])
LONG = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT COUNT(*) FROM n"

async def run_long(reached):
    async with pool.connection() as conn:
        await conn.execute("CREATE TABLE IF NOT EXISTS t(a)")
        await conn.execute("INSERT INTO t VALUES (1)")
        asyncio.get_running_loop().call_later(0.02, reached.set)
        await conn.execute(LONG)

async def main():
    async with pool.connection() as conn:
        await conn.execute("SELECT 1")
    reached = asyncio.Event()
    task = asyncio.get_running_loop().create_task(run_long(reached))
    await reached.wait()
    ENDING

asyncio.run(main())
"""
INTERRUPTED = "asyncio.get_running_loop().call_soon(signal.raise_signal, signal.SIGINT); await task"


@pytest.mark.parametrize(
    ("ending", "status", "complaint"),
    [("return", 0, ""), (INTERRUPTED, -2, "KeyboardInterrupt")],
    ids=["returns", "is interrupted"],
)
def test_a_program_ends_that_forgets_its_pool_in_the_middle_of_a_statement(
    ending: str, status: int, complaint: str, tmp_path: Path
) -> None:
    """It says what it has to say itself, and no more than that."""
    script = PROGRAM.replace("ENDING", ending)
    command = (*STRICT, "-c", script, str(tmp_path / "ends.db"))
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    assert status == done.returncode, done.stderr
    assert bool(complaint) == bool(done.stderr), done.stderr
    assert complaint in done.stderr
    for unwanted in ("never awaited", "loop is closed", "Exception ignored", "Unclosed", "unclosed", "Exception in"):
        assert unwanted not in done.stderr, done.stderr
