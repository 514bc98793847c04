"""A forked child keeps its own deadlines: its parent's watchdog has no thread there."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.threads.doubles import run_program

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork on this system")

PROGRAM = """
import os, signal, sys, warnings, millpond
warnings.simplefilter("ignore")
db = millpond.Database("sqlite:///" + sys.argv[1])
assert 1 == db.select_value("SELECT 1", timeout=3600)  # the watchdog's thread is there from here on
pid = os.fork()
if pid == 0:
    signal.alarm(60)  # ends the child if nothing else does
    status = 1
    try:
        db.select_value(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT COUNT(*) FROM n", timeout=0.1
        )
    except millpond.StatementTimeout:
        status = 0
    finally:
        os._exit(status)
assert os.waitpid(pid, 0)[1] == 0
db.close()
"""


def test_a_child_s_statement_is_ended_at_its_deadline(tmp_path: Path) -> None:
    """The parent has begun to keep deadlines; what the child's statements may take holds in the child."""
    run_program(PROGRAM, str(tmp_path / "forked.db"), seconds=90.0)
