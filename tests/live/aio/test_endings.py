"""Loops that end under pools on real servers: nobody complains, and nothing runs for nobody afterwards."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from millpond.testing import ScratchServer

from .servers import root, sessions

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize(
    ("kind", "driver", "loop"), [("mariadb", "asyncmy", "uvloop"), ("mysql", "aiomysql", "asyncio")]
)
def test_a_loop_may_end_in_every_phase_of_a_pool(
    request: pytest.FixtureRequest, kind: str, driver: str, loop: str
) -> None:
    """No task, socket or statement is left; but where a loop is closed by hand nobody can end a statement any more."""
    server: ScratchServer = request.getfixturevalue(kind)
    with root(server) as conn, conn.cursor() as cursor:
        cursor.execute("CREATE TABLE IF NOT EXISTS t (a INTEGER)")
    url = server.url(tls=False).replace("mysql+pymysql", f"mysql+{driver}") + "&autocommit=true"
    command = (sys.executable, "-X", "dev", "-W", "error", "-m", "tests.aio.endings", url, loop)
    done = subprocess.run(command, check=False, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert ("0 failed\n", "", 0) == (done.stdout, done.stderr, done.returncode)
    until = time.monotonic() + 10.0
    while (left := texts(server)) and time.monotonic() < until:
        pass  # the server tells nobody; each look is a round trip
    assert [] == left


def texts(server: ScratchServer) -> list[str | None]:
    """Return what is left on the server; of what cannot be ended nothing is said."""
    return [text for _, _, text in sessions(server) if "is_closed" not in (text or "")]


@pytest.mark.parametrize("driver", ["asyncmy", "aiomysql"])
def test_a_forked_child_uses_the_pool_and_leaves_its_parent_alone(mariadb: ScratchServer, driver: str) -> None:
    """Its sessions go on, which a word of the child's would have ended."""
    url = mariadb.url(tls=False).replace("mysql+pymysql", f"mysql+{driver}")
    command = (sys.executable, "-X", "dev", "-W", "error", "-m", "tests.aio.forking", url)
    done = subprocess.run(command, check=False, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert ("", 0) == (done.stderr, done.returncode)
