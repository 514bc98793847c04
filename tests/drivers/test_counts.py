"""What a session that is cleaned costs its two borrowers in the pool and its adapter, counted.

Both count with caches that others have emptied, after milliseconds without use: some 1 to 3 us a frame then, of a round
trip of 2 ms.  A change that needs more has to say why, and raise the numbers below.
"""

from __future__ import annotations

import functools
import pathlib
import socket
import sys
import time
import types
from typing import Any

import pymysql
import pytest

import millpond
from millpond.drivers._pymysql_replies import plain_oks
from millpond.testing.fake_server import FakeServer
from tests.counting import Counter
from tests.threads.doubles import runtime_with

OURS = str(pathlib.Path(millpond.__file__).parent)

# Most bytecodes and frames of a return whose session has to be reset, and of the checkout that reads the answers.
RETURN: dict[tuple[int, int], tuple[int, int]] = {
    (3, 10): (849, 28),
    (3, 11): (857, 28),
    (3, 12): (804, 28),
    (3, 13): (839, 28),
}
CHECKOUT: dict[tuple[int, int], tuple[int, int]] = {
    (3, 10): (717, 19),
    (3, 11): (723, 19),
    (3, 12): (667, 19),
    (3, 13): (674, 19),
}


def is_ours(code: types.CodeType) -> bool:
    """Say whether this is the pool's or its adapter's, not the driver's or the interpreter's."""
    return code.co_filename.startswith(OURS)


def await_answers(conn: Any) -> None:
    """Wait until all answers to a reset have come, and read none of them."""
    count = conn._millpond.answers
    deadline = time.monotonic() + 10
    while plain_oks(conn._sock.recv(65536, socket.MSG_PEEK), count)[0] < count:
        assert time.monotonic() < deadline


@pytest.fixture(scope="module")
def counted() -> tuple[list[Counter], list[Counter]]:
    """Return the counts of ten returns and checkouts, after so many that the interpreter has adapted to them."""
    returns: list[Counter] = []
    checkouts: list[Counter] = []
    clock = functools.partial(float, time.monotonic())  # it stands still: no alarm is due in between
    with (
        FakeServer() as server,
        millpond.Pool(
            pymysql,
            connect_args=server.connect_args(autocommit=True),
            max_size=1,
            runtime=runtime_with(clock=clock),
        ) as pool,
    ):
        lease: Any = pool.connection()
        for _ in range(50):
            conn = lease.driver_connection
            conn.query("SET @a = 1")
            returns.append(Counter(is_ours))
            with returns[-1]:
                lease.close()
            await_answers(conn)
            checkouts.append(Counter(is_ours))
            with checkouts[-1]:
                lease = pool.connection()
        assert 1 == pool.stats().opened
        lease.close()
    return returns[-10:], checkouts[-10:]


def least(counters: list[Counter]) -> Counter:
    """Return the smallest count: the collector may have run in the others."""
    return min(counters, key=lambda each: each.bytecodes)


def test_a_return_that_is_cleaned_takes_no_more_than_it_did(counted: tuple[list[Counter], list[Counter]]) -> None:
    """From the call of close() to the write, and what is left to do behind it."""
    least(counted[0]).assert_within(RETURN[sys.version_info[:2]])


def test_a_checkout_behind_a_reset_takes_no_more_than_it_did(counted: tuple[list[Counter], list[Counter]]) -> None:
    """With all answers there, from the call of connection() to its return."""
    least(counted[1]).assert_within(CHECKOUT[sys.version_info[:2]])
