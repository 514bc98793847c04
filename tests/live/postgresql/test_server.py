"""ScratchPostgreSQL starts, stops, dies and comes back as it says."""

from __future__ import annotations

import importlib
import os
import select
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from millpond.testing import ScratchPostgreSQL, ScratchServer, ServerFailed

psycopg: Any = importlib.import_module("psycopg")
DEADLINE_S = 20.0


@pytest.fixture
def own(postgresql: ScratchPostgreSQL) -> Iterator[ScratchPostgreSQL]:
    """Return a server of the test's own; the shared one is asked for so that both are left out together."""
    assert postgresql.is_running
    with ScratchPostgreSQL(options={"max_connections": 11}) as running:
        yield running


def ask(server: ScratchPostgreSQL, statement: str, **how: Any) -> list[Any]:
    """Return the rows of a statement, run on a connection of its own and committed."""
    with psycopg.connect(**server.connect_args(**how)) as con:
        cursor = con.execute(statement)
        return cursor.fetchall() if cursor.description else []


def test_both_drivers_connect(postgresql: ScratchPostgreSQL, driver: Any) -> None:
    """By TCP and by the socket, the ordinary user and the one who may do everything."""
    for how in ({}, {"user": "postgres"}, {"socket": True}):
        con = driver.connect(**postgresql.connect_args(**how))
        cursor = con.cursor()
        cursor.execute("SELECT current_user, current_setting('server_version')")
        user, version = cursor.fetchone()
        assert how.get("user", "app") == user
        assert version.startswith(postgresql.version)
        con.close()


def test_a_crash_keeps_what_was_committed(own: ScratchPostgreSQL) -> None:
    """After kill() and start() port and rows are the same; options are those of the start."""
    ask(own, "CREATE TABLE kept AS SELECT 7 AS id")
    assert [("11",)] == ask(own, "SHOW max_connections")
    port = own.port
    own.kill()
    with pytest.raises(psycopg.OperationalError, match="refused"):
        ask(own, "SELECT 1")
    own.options["max_connections"] = 12
    own.start()
    assert port == own.port
    assert [(7,)] == ask(own, "SELECT id FROM kept")
    own.restart()
    assert [("12",)] == ask(own, "SHOW max_connections")


def test_a_paused_server_answers_nobody(own: ScratchPostgreSQL) -> None:
    """Neither who connects, nor who is connected: all of its processes stand still."""
    con = socket.create_connection((own.host, own.port))
    con.sendall(b"\x00\x00\x00\x08\x04\xd2\x16\x2f")  # may I have TLS?
    assert b"N" == con.recv(1)
    own.pause()
    con.sendall(b"\x00\x00\x00\x08\x04\xd2\x16\x2f")
    assert ([], [], []) == select.select([con], [], [], 0.2)
    own.resume()
    assert [con] == select.select([con], [], [], DEADLINE_S)[0]
    con.close()
    assert [(1,)] == ask(own, "SELECT 1")


def test_nothing_is_left(own: ScratchPostgreSQL) -> None:
    """When it is closed its processes and its folder are gone, also while somebody is connected and it is paused."""
    con = psycopg.connect(**own.connect_args())
    folder, backend = own.folder, con.info.backend_pid
    own.pause()
    own.close()
    assert not folder.exists()
    assert not Path(f"/proc/{backend}").exists() or Path(f"/proc/{backend}/stat").read_text().split()[2] == "Z"
    con.close()


def test_it_dies_with_its_process(postgresql: ScratchPostgreSQL) -> None:
    """A process that is killed takes its server with it."""
    program = (
        "import os, sys\nfrom millpond.testing import ScratchPostgreSQL\n"
        "server = ScratchPostgreSQL().start()\nprint(server.pid, server.folder, flush=True)\nsys.stdin.read()\n"
    )
    assert postgresql.is_running
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as owner:
        assert owner.stdout is not None
        number, folder = owner.stdout.readline().split()
        server = os.pidfd_open(int(number))
        owner.kill()
    assert [server] == select.select([server], [], [], DEADLINE_S)[0]
    os.close(server)
    subprocess.run(["rm", "-r", folder], check=False)


def test_what_cannot_be_is_told(postgresql: ScratchPostgreSQL) -> None:
    """Options and names that nobody knows; secrets are in no error."""
    for wrong in ({"user": "postgres"}, {"database": "Has Blanks"}, {"password": "two\nlines"}, {"port": -1}):
        with pytest.raises(ValueError, match="allowed"):
            ScratchPostgreSQL(**wrong)
    with pytest.raises(ValueError, match="this server has 'app' and 'postgres'"):
        postgresql.connect_args(user="nobody else")
    with pytest.raises(ValueError, match="ScratchPostgreSQL"):
        ScratchServer("postgresql")  # type: ignore[arg-type]  # what somebody may try
    odd = ScratchPostgreSQL(options={"no_such_option": 1})
    with pytest.raises(ServerFailed, match="no_such_option") as told:
        odd.start()
    odd.close()
    assert odd.password not in str(told.value)
    assert "ScratchPostgreSQL" in repr(postgresql)
    assert postgresql.password not in repr(postgresql)
