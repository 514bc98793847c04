"""The demo measures what it shows, and notices when something is wrong."""

from __future__ import annotations

import io
import os
import pty
import re
import select
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from rich.console import Console

import millpond
from millpond.cli.app import millpond as command
from millpond.cli.demo import acts, data
from millpond.cli.demo.play import Casting, play
from millpond.cli.demo.screen import PlainScreen, squeezed
from millpond.cli.demo.stores import SqliteStore
from millpond.testing import FakeError, FakeServer
from tests.playing import played

SHORT = ["demo", "--seconds", "1.5", "--threads", "6"]
DEADLINE_S = 60.0


class Refusing(dict[str, Any]):
    """A server's answers, whatever the names of tables: none may be made, and none dropped."""

    def get(self, text: str, default: Any = None) -> Any:
        """Answer by the statement's first word."""
        refused = {"CREATE": FakeError(1044, "no CREATE here"), "DROP": FakeError(1142, "no DROP here")}
        return [("8.0.99-fake",)] if text == "SELECT VERSION()" else refused.get(text.split(maxsplit=1)[0], default)


class UndroppableStore(SqliteStore):
    """Keeps its tables."""

    def run(self, conn: Any, statement: str, parameters: tuple[Any, ...] = ()) -> list[Any]:
        """Refuse to drop any."""
        if statement.startswith("DROP"):
            raise sqlite3.OperationalError("kept")
        return super().run(conn, statement, parameters)


class ForgetfulStore(SqliteStore):
    """Acknowledges every write and loses some."""

    def exposed(self, conn: millpond.Lease[Any]) -> None:
        """Take the write back before it is committed, now and then."""
        if next(iter(self.run(conn, "SELECT COUNT(*) FROM {visit}")))[0] % 7 == 3:
            conn.rollback()


class MixedUpStore(SqliteStore):
    """Answers the question before the last one, as a connection with an unread reply would."""

    def run(self, conn: Any, statement: str, parameters: tuple[Any, ...] = ()) -> list[Any]:
        """Answer about another zone than was asked for."""
        if statement.startswith("SELECT z.name"):
            parameters = ("Europe/Andorra",)
        return super().run(conn, statement, parameters)


def play_on(store: SqliteStore) -> tuple[list[str], str]:
    """Play the demo for a moment; return its faults and what it printed."""
    output = io.StringIO()
    faults = play(store, Casting(threads=6, connections=2, seconds=1.5), PlainScreen(Console(file=output)))
    return faults, output.getvalue()


def test_the_data_is_there() -> None:
    """The tables have the whole world, and every zone is in a country that is known."""
    world = data.load()
    assert len(world.zones) > 300
    assert len(world.countries) > 240
    assert ("Europe/Lisbon", "+3843-00908", "Portugal") in [world.row(zone) for zone in world.zones]


def test_all_is_well_on_sqlite(tmp_path: Path) -> None:
    """With millpond, no fault is found, connections were killed both ways, and every write is accounted for."""
    faults, output = played(lambda: play_on(SqliteStore(tmp_path)), lambda went: went[1])
    assert [] == faults
    killed = re.search(r"(\d+) idle, (\d+) in use; (\d+) errors? reached a writer", output)
    assert killed is not None
    idle, in_use, errors = (int(number) for number in killed.groups())
    assert idle > 0
    assert in_use > 0
    assert errors <= in_use


def test_a_lost_write_is_noticed(tmp_path: Path) -> None:
    """A database that loses acknowledged writes is found out."""
    faults, output = play_on(ForgetfulStore(tmp_path))
    assert any("acknowledged and are not there" in fault for fault in faults)
    assert "WRONG" in output


def test_a_wrong_row_is_noticed(tmp_path: Path) -> None:
    """An answer that belongs to another question is found out."""
    with pytest.raises(acts.WrongRow, match="asked for"):
        play_on(MixedUpStore(tmp_path))


def test_unfair_shares_are_noticed() -> None:
    """Shares may differ by a turn or two, or by what a busy machine keeps a thread from, and no more."""
    assert [] == acts.Shares(connections=1, turns=[90, 91, 92]).judged().faults
    assert [] == acts.Shares(connections=1, turns=[92, 80, 92]).judged().faults
    uneven = acts.Shares(connections=1, turns=[92, 60, 92])
    starved = acts.Shares(connections=1, turns=[0, 700])
    assert ["unfair: one thread had 92 turns, another 60"] == uneven.judged().faults
    assert ["unfair: one thread had 700 turns, another 0"] == starved.judged().faults


def test_many_numbers_are_drawn_as_few() -> None:
    """Bars stand for as many neighbours each as it takes to fit, and never for fewer at the end."""
    assert [1, 2, 3] == squeezed([1, 2, 3], 3)
    assert [3, 7] == squeezed([1, 2, 3, 4, 5], 3)
    assert [6, 15] == squeezed([1, 2, 3, 4, 5, 6], 2)
    assert [] == squeezed([], 3)


def test_a_line_fits_into_a_terminal_of_80_columns(tmp_path: Path) -> None:
    """Nothing has to be wrapped: neither a line with its figures nor the last words."""
    _, output = play_on(SqliteStore(tmp_path))
    assert [] == [line for line in output.splitlines() if len(line) > 80]


def test_piped_output_is_plain_lines() -> None:
    """Into a pipe go lines of text without a single escape sequence, and the exit code is 0."""

    def run() -> subprocess.CompletedProcess[str]:
        command_line = [sys.executable, "-m", "millpond", *SHORT]
        return subprocess.run(command_line, check=False, capture_output=True, text=True, timeout=DEADLINE_S)

    answer = played(run, lambda went: went.stdout)
    assert (0, "") == (answer.returncode, answer.stderr)
    assert "\x1b" not in answer.stdout
    assert re.search(r"times as many\n", answer.stdout)
    assert re.search(r"found, 0 lost", answer.stdout)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_who_ends_it_early_finds_nothing_left(number: signal.Signals, tmp_path: Path) -> None:
    """Ended, hung up on or interrupted, the demo takes its temporary folder along."""
    command_line = [sys.executable, "-m", "millpond", "demo", "--seconds", "60"]
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    with subprocess.Popen(command_line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment) as process:
        assert process.stdout is not None
        while b"zones in" not in process.stdout.readline():  # it has its folder, and tables in it
            assert process.poll() is None
        assert 1 == len([*tmp_path.iterdir()])
        process.send_signal(number)
        try:
            _, said = process.communicate(timeout=DEADLINE_S)
        finally:
            process.kill()  # or the end of the block would wait for one that hangs
    expected = (1, b"\nAborted!\n") if number == signal.SIGINT else (128 + number, b"")
    assert (*expected, []) == (process.returncode, said, [*tmp_path.iterdir()])


def test_a_terminal_sees_it_move() -> None:
    """On a terminal the lines are redrawn while the demo runs, and it ends with the verdict."""
    command_line = [sys.executable, "-m", "millpond", *SHORT]
    code, drawn = played(lambda: run_on_terminal(command_line), lambda went: went[1])
    assert 0 == code
    assert drawn.count("\x1b[2K") > 20
    text = " ".join(re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", drawn).split())
    assert "no acknowledged write was lost" in text


def test_two_places_are_one_too_many() -> None:
    """--url and --server contradict each other, and the message says so."""
    answer = CliRunner().invoke(command, ["demo", "--url", "mysql://x/y", "--server", "mariadb"])
    assert 2 == answer.exit_code
    assert "choose one" in answer.output


def test_a_bad_url_is_an_error_in_words() -> None:
    """A URL that cannot be used is named without its password, and nothing is shown of a traceback."""
    answer = CliRunner().invoke(command, ["demo", "--url", "oracle://u:s3cret@127.0.0.1/d"])
    assert 1 == answer.exit_code
    assert answer.output.startswith("Error: ")
    assert "s3cret" not in answer.output


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("mysql+pymysql://u:s3cret@127.0.0.1:1/d", "mysql+pymysql://u:***@127.0.0.1:1/d: OperationalError: (2003"),
        ("sqlite:///x.db", "without a URL on SQLite"),
        ("127.0.0.1/d", "this is no database URL"),
    ],
)
def test_a_database_that_cannot_be_used_is_an_error_in_words(url: str, said: str) -> None:
    """Nothing that is wrong with a database ends in a traceback, and no password is shown."""
    answer = CliRunner().invoke(command, ["demo", "--url", url])
    assert 1 == answer.exit_code
    assert answer.output.startswith("Error: ")
    assert said in answer.output
    assert "s3cret" not in answer.output


def test_tables_that_cannot_be_dropped_do_not_hide_what_came_first(tmp_path: Path) -> None:
    """What was raised while they were there is what is told; and if nothing was, why they are still there."""
    store = UndroppableStore(tmp_path)
    with pytest.raises(KeyError, match="first"), store.tables():
        raise KeyError("first")
    assert "kept" == str(store.undropped)
    store = UndroppableStore(tmp_path)
    with pytest.raises(sqlite3.OperationalError, match="kept"), store.tables():
        pass


def test_tables_that_are_left_behind_are_named() -> None:
    """Both are told: what has ended the demo, and what it has left on the server for which reason."""
    with FakeServer() as server:
        server.answers = Refusing()
        url = f"mysql+pymysql://fake:s3cret@127.0.0.1:{server.port}/fake?ssl=disabled"
        answer = CliRunner().invoke(command, ["demo", "--url", url])
    assert 1 == answer.exit_code
    assert re.search(r"^Error: mysql\+pymysql://.*no CREATE here", answer.output, re.MULTILINE)
    assert re.search(r"^Tables millpond_demo_\w+_\* are left on mysql.*no DROP here", answer.output, re.MULTILINE)
    assert "s3cret" not in answer.output


def test_threads_that_hardly_wait_are_not_judged() -> None:
    """With nearly as many connections as threads, who gets how much is the system's doing."""
    assert [] == acts.Shares(connections=3, turns=[92, 60, 92, 92]).judged().faults


def run_on_terminal(arguments: list[str]) -> tuple[int, str]:
    """Run a command on a terminal of its own; return its exit code, and everything that it drew."""
    leader, follower = pty.openpty()
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "120", "LINES": "40"}
    environment.pop("NO_COLOR", None)
    with subprocess.Popen(arguments, stdin=follower, stdout=follower, stderr=follower, env=environment) as process:
        os.close(follower)
        drawn = b""
        until = time.monotonic() + DEADLINE_S
        while select.select([leader], [], [], max(0.0, until - time.monotonic()))[0]:
            try:
                part = os.read(leader, 65536)
            except OSError:  # Linux says so when the last writer has gone
                break
            drawn += part
        os.close(leader)
        return process.wait(DEADLINE_S), drawn.decode()
