"""What a checkout and return cost, and a hand-over, counted: bytecodes and frames, the same on every machine.

Times are measured beside other pools in ``bench/``; they depend on the machine, so nothing fails because of them.  A
change that makes a pair longer fails here and says by how much; then it is made shorter, or the table is changed and
the reason is in the commit.
"""

from __future__ import annotations

import functools
import operator
import sys
import threading
from collections.abc import Callable

import pytest

import millpond
from tests.counting import Counter

from .doubles import NullConnection, NullDriver, join, queue_up, runtime_with

# Most bytecodes and frames of a pair.  "bare": nothing is noted, nothing is asked; "full": who holds what and for how
# long is noted, and the adapter is asked whether the session is clean.
LIMITS: dict[tuple[int, int], dict[str, tuple[int, int]]] = {
    (3, 10): {
        "bare, by hand": (133, 3),
        "bare, with": (138, 4),
        "full, by hand": (195, 4),
        "full, with": (200, 5),
    },
    (3, 11): {
        "bare, by hand": (129, 3),
        "bare, with": (134, 4),
        "full, by hand": (198, 4),
        "full, with": (203, 5),
    },
    (3, 12): {
        "bare, by hand": (119, 3),
        "bare, with": (124, 4),
        "full, by hand": (183, 4),
        "full, with": (188, 5),
    },
    (3, 13): {
        "bare, by hand": (116, 3),
        "bare, with": (121, 4),
        "full, by hand": (180, 4),
        "full, with": (185, 5),
    },
}

# Most bytecodes and frames of a hand-over: to queue, to be woken, to find the connection, and to give it to the next.
HAND_OVER: dict[tuple[int, int], tuple[int, int]] = {
    (3, 10): (943, 35),
    (3, 11): (965, 35),
    (3, 12): (867, 35),
    (3, 13): (827, 35),
}


class Telling(NullDriver):
    """An adapter that can tell whether a session is clean and a link closed, by built-ins, which are not counted."""

    is_clean = staticmethod(operator.truth)
    is_readable = staticmethod(operator.not_)


def by_hand(pool: millpond.Pool[NullConnection]) -> None:
    """Take a connection and give it back."""
    conn = pool.connection()
    conn.close()


def by_with(pool: millpond.Pool[NullConnection]) -> None:
    """Take a connection for a block."""
    with pool.connection():
        pass


PAIRS = {"by hand": by_hand, "with": by_with}
clock: Callable[[], float] = functools.partial(float, 100.0)  # time stands still, without a frame


def pool_of(kind: str) -> millpond.Pool[NullConnection]:
    """Make a pool with one idle connection."""
    bare = kind == "bare"
    pool = millpond.Pool(
        NullDriver() if bare else Telling(),
        max_size=1,
        reset="none" if bare else "auto",
        track_use=not bare,
        runtime=runtime_with(clock=clock),
    )
    by_hand(pool)
    return pool


def counter_of_all() -> Counter:
    """Return a counter of whatever runs, but for what is written in C."""
    return Counter(lambda _: True)


def count(kind: str, how: str) -> Counter:
    """Count a pair, after so many that the interpreter has adapted to it."""
    pool = pool_of(kind)
    for _ in range(100):
        PAIRS[how](pool)
    with counter_of_all() as counter:
        PAIRS[how](pool)
    pool.close()
    return counter


@pytest.mark.parametrize("how", PAIRS)
@pytest.mark.parametrize("kind", ["bare", "full"])
def test_a_pair_takes_no_more_than_it_did(kind: str, how: str) -> None:
    """The number of bytecodes and frames of a checkout and return stays within the table."""
    count(kind, how).assert_within(LIMITS[sys.version_info[:2]][f"{kind}, {how}"])


def count_hand_over(pool: millpond.Pool[NullConnection]) -> Counter:
    """Count what one caller does who comes second in a queue, is served in turn, and gives to the third."""
    counter = counter_of_all()

    def counted() -> None:
        with counter:
            by_hand(pool)

    held = pool.connection()
    waiting: list[threading.Thread] = queue_up(pool, [lambda: by_hand(pool), counted, lambda: by_hand(pool)])
    held.close()
    join(waiting)
    return counter


def test_a_hand_over_takes_no_more_than_it_did(monkeypatch: pytest.MonkeyPatch) -> None:
    """With more callers than connections, each use costs one hand-over; its bytecodes stay within the table."""
    monkeypatch.delitem(sys.modules, "asyncio", raising=False)  # where it was imported, who parks looks for a loop
    with pool_of("bare") as pool:
        counts = [count_hand_over(pool) for _ in range(10)]
    # The least of them: another thread may deliver first, or the collector run in one, and that adds to its count.
    least = min(counts, key=lambda counter: (counter.bytecodes, counter.frames))
    least.assert_within(HAND_OVER[sys.version_info[:2]])


def test_counting_is_deterministic() -> None:
    """The same pair counts the same, again and again."""
    counters = [count("full", "with") for _ in range(3)]
    assert 1 == len({(counter.bytecodes, counter.frames) for counter in counters})
