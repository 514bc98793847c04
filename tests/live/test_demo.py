"""``millpond demo`` on a real server: connections are killed by the server, and no acknowledged write is lost."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pymysql

from millpond.testing.servers import ScratchServer
from tests.playing import played

DEADLINE_S = 120.0


def run_demo(*options: str) -> subprocess.CompletedProcess[str]:
    """Run the demo into a pipe."""

    def run() -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "millpond", "demo", "--seconds", "3", *options]
        return subprocess.run(command, check=False, capture_output=True, text=True, timeout=DEADLINE_S)

    return played(run, lambda went: went.stdout)


def test_on_a_server_of_the_users(
    server: ScratchServer, as_root: Callable[[ScratchServer], pymysql.Connection[Any]]
) -> None:
    """With --url nothing is lost, connections were killed idle and in use, and no table is left behind."""
    answer = run_demo("--url", server.url(tls=False))
    assert (0, "") == (answer.returncode, answer.stderr), answer.stdout
    killed = re.search(r"(\d+) idle, (\d+) in use", answer.stdout)
    assert killed is not None
    assert all(int(number) > 0 for number in killed.groups())
    with as_root(server).cursor() as cursor:
        cursor.execute("SELECT table_name FROM information_schema.tables WHERE table_name LIKE 'millpond_demo%'")
        assert () == tuple(cursor.fetchall())


def test_on_a_scratch_server(server: ScratchServer) -> None:
    """With --server the demo starts a server by itself."""
    answer = run_demo("--server", server.kind)
    assert (0, "") == (answer.returncode, answer.stderr), answer.stdout
    assert re.search(r"found, 0 lost", answer.stdout)
