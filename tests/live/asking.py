"""How tests ask real servers something, over whatever driver, and wait for what these do in their own time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

DEADLINE_S = 20.0  # what a test waits for happens within this, or it fails


def ask(conn: Any, statement: str) -> list[Any]:
    """Run a statement and return its rows, as tuples."""
    cursor = conn.cursor()
    try:
        cursor.execute(statement)
        return [tuple(row) for row in cursor.fetchall()] if cursor.description is not None else []
    finally:
        cursor.close()


def answer(conn: Any, statement: str) -> Any:
    """Return what a statement is answered: its rows, or the number of the error."""
    try:
        return ask(conn, statement)
    except Exception as error:
        number = getattr(error, "errno", None) or error.args[0]
        if not isinstance(number, int):
            raise
        return number


def end_session(root: Any, number: int) -> None:
    """End a session by force, over an administrator's connection, and wait until it is gone."""
    ask(root, f"KILL {number}")
    wait_for_end_of(root, number)


def wait_for_end_of(root: Any, number: int) -> None:
    """Wait until the server has ended a session, and let go of its locks."""
    wait_until(lambda: not ask(root, f"SELECT 1 FROM information_schema.PROCESSLIST WHERE ID = {number}"))


def wait_until(condition: Callable[[], object], seconds: float = DEADLINE_S, pause_s: float = 0.0005) -> None:
    """Wait for something that a server or a thread does by itself, looking at it at every pause.

    Without a pause this thread would keep the interpreter from those that it waits for.
    """
    until = time.monotonic() + seconds
    pause = threading.Event()
    while not condition():
        assert time.monotonic() < until, f"{condition} has not come true"
        pause.wait(pause_s)


def close_if_open(conn: Any) -> None:
    """Close a connection of PyMySQL's that a test may have closed or lost."""
    if conn.open:
        conn.close()
