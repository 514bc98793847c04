"""A schema of PostgreSQL with a table, and a way to look at it that is beside every pool."""

from __future__ import annotations

import contextlib
import importlib
import secrets
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from millpond.testing import ScratchPostgreSQL
from tests.live.asking import wait_until

psycopg: Any = importlib.import_module("psycopg")


class Scene:
    """A role and a schema of its own; ``args`` are for ``connect`` of both drivers.

    The table ``x (id, v)`` has no rows, the sequence ``runs`` counts whatever a rollback does not undo.
    """

    def __init__(self, server: ScratchPostgreSQL, driver: Any, closing: contextlib.ExitStack) -> None:
        self.server = server
        self.driver = driver
        self.role = f"role_{secrets.token_hex(5)}"
        root = {**server.connect_args(user="postgres", socket=True), "options": f"-c search_path={self.role}"}
        self._root = psycopg.connect(**root, autocommit=True)
        closing.callback(self._root.close)
        closing.callback(self._clear)
        self._lock = threading.Lock()
        password = secrets.token_hex(8)
        self.q(f"CREATE ROLE {self.role} LOGIN PASSWORD '{password}'")
        self.q(f"CREATE SCHEMA {self.role} AUTHORIZATION {self.role}")
        self.args = {**server.connect_args(), "user": self.role, "password": password, "options": root["options"]}
        self.q("CREATE TABLE x (id INT PRIMARY KEY, v INT NOT NULL DEFAULT 0)")
        self.q("CREATE SEQUENCE runs")
        self.q(f"GRANT ALL ON x, runs TO {self.role}")
        self._log_begins = len(server.log())

    def _clear(self) -> None:
        self.q(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{self.role}'")
        self.until(lambda: not self.sessions())
        self.q(f"DROP SCHEMA {self.role} CASCADE")
        self.q(f"DROP ROLE {self.role}")

    def q(self, statement: str) -> list[Any]:
        """Run a statement as one who may do everything, committed at once; return its rows."""
        with self._lock:
            cursor = self._root.execute(statement, prepare=False)
            return cursor.fetchall() if cursor.description else []

    def column(self, statement: str) -> list[Any]:
        """Return the first column of a statement's rows."""
        return [row[0] for row in self.q(statement)]

    def ids(self) -> list[int]:
        """Return which rows are committed."""
        return self.column("SELECT id FROM x ORDER BY id")

    def runs(self) -> int:
        """Return how often the sequence was asked."""
        ((last, called),) = self.q("SELECT last_value, is_called FROM runs")
        return int(last) if called else 0

    def sessions(self) -> list[int]:
        """Return the numbers of the sessions of the scene's role."""
        return self.column(f"SELECT pid FROM pg_stat_activity WHERE usename = '{self.role}' ORDER BY backend_start")

    def running(self, text: str) -> list[int]:
        """Return the sessions that run a statement with this in its text, waiting for a lock or not."""
        return self.column(
            f"SELECT pid FROM pg_stat_activity WHERE usename = '{self.role}' AND state = 'active' "
            f"AND query LIKE '%{text}%'"
        )

    def logged(self, words: str) -> int:
        """Return how often the server has said this since the scene began."""
        return self.server.log()[self._log_begins :].count(words)

    def kill(self, session: int) -> None:
        """End a session, and wait until it is gone, and its last answer longer ago than a pool trusts it."""
        self.q(f"SELECT pg_terminate_backend({session})")
        since = time.monotonic()
        # A session is off the list before its process has ended, and its socket with it.
        self.until(lambda: not is_running(session) and time.monotonic() - since > 0.01)

    def until(self, condition: Callable[[], bool]) -> None:
        """Look at the server until something is so."""
        wait_until(condition, pause_s=0.01)

    def other(self, **settings: Any) -> Any:
        """Return a connection of the driver's own, beside every pool."""
        return self.driver.connect(**{**self.args, **settings})


def is_running(process: int) -> bool:
    """Say whether a process has its sockets still; one that has ended and was not waited for has none."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def number_of(db: Any) -> int:
    """Return the server's number of the session behind a connection."""
    number: int = db._con._con.info.backend_pid
    return number


def run(db: Any, statement: Any, *given: Any) -> Any:
    """Run a statement on a connection; return its first row, if it has rows."""
    cursor = db.cursor()
    try:
        cursor.execute(statement, *given)
        return cursor.fetchone() if cursor.description else None
    finally:
        cursor.close()
