"""A program that forgets to close its pool ends at once, whatever the pool is in the middle of."""

from __future__ import annotations

import time

import pytest

from .doubles import run_program

PRELUDE = """
import sys, threading, millpond
from millpond.testing.fake_driver import FakeDriver
from tests.threads.doubles import queue_up
driver = FakeDriver(bounded=False)
closed = []
driver_close = driver.close
def close(conn):
    closed.append(conn.number)
    driver_close(conn)
    print("closed", conn.number, flush=True)
driver.close = close
pool = millpond.Pool(driver, max_size=2, timeout=3600)
"""
CHECK_HANGS = """
pool = millpond.Pool(driver, check_after=0)
pool.connection().close()
driver.behave("check", "never")
threading.Thread(target=pool.connection, daemon=True).start()
driver.await_waiting("check", 1)
"""
ENDS_S = 15.0  # far below every time-out in these programs, far above what a slow machine needs to start one


PROGRAMS: dict[str, tuple[str, str]] = {
    "idle connections": ("pool.connection().close()", "closed 1\n"),
    "leases": ("kept = [pool.connection(), pool.connection()]", ""),
    "a dial that hangs": ("driver.behave('open', 'never')\nqueue_up(pool, [pool.connection])", ""),
    "callers who wait": ("kept = [pool.connection(), pool.connection()]\nqueue_up(pool, [pool.connection] * 3)", ""),
    "a check that hangs": (CHECK_HANGS, ""),
    "an exit by an error": ("pool.connection().close()\nsys.exit(0)", "closed 1\n"),
}


@pytest.mark.parametrize("what", PROGRAMS)
def test_a_program_that_forgets_to_close_ends_at_once(what: str) -> None:
    """Nothing keeps the process: no thread, no dial, no caller; idle connections say goodbye."""
    text, expected = PROGRAMS[what]
    began_s = time.monotonic()
    assert expected == run_program(PRELUDE + text, seconds=ENDS_S)
    assert time.monotonic() - began_s < ENDS_S


def test_the_interpreter_ends_with_a_busy_pool_and_says_nothing() -> None:
    """Threads that use the pool while the interpreter goes down neither hang it nor crash it."""
    text = """
    import sys, threading, millpond
    from tests.threads.doubles import NullDriver
    pool = millpond.Pool(NullDriver(), max_size=2)
    started = threading.Barrier(5)
    def work():
        started.wait()
        while True:
            with pool.connection():
                pass
    for _ in range(4):
        threading.Thread(target=work, daemon=True).start()
    started.wait()
    """
    assert "" == run_program(text, seconds=ENDS_S)
