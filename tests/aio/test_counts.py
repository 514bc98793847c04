"""What a checkout and return cost on asyncio, and a hand-over, counted: our own bytecodes and frames.

They are the same on every machine; times are measured beside other pools in ``bench/aio.py`` and fail nothing.  What
asyncio and the test do is not counted, and a frame that is resumed counts each time.  A change that makes one longer
fails here; then it is made shorter, or the table is changed and the reason is in the commit.
"""

from __future__ import annotations

import asyncio
import functools
import operator
import sys
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

import millpond
from millpond import AsyncPool
from millpond.aio import Clockwork
from tests.counting import Counter

from .doubles import Connection, ToldDriver, run

OURS = str(Path(millpond.__file__).parent)
HAND_OVERS = 25  # counted at once: what is tidied up now and then is part of the price
# Most bytecodes and frames of a pair.  "bare": nothing is noted, nothing is asked; "full": who holds what and for how
# long is noted, and the adapter is asked whether the session is clean.
PAIR: dict[tuple[int, int], dict[str, tuple[int, int]]] = {
    (3, 10): {
        "bare, by hand": (161, 5),
        "bare, with": (161, 5),
        "full, by hand": (227, 6),
        "full, with": (227, 6),
    },
    (3, 11): {
        "bare, by hand": (160, 5),
        "bare, with": (160, 5),
        "full, by hand": (234, 6),
        "full, with": (234, 6),
    },
    (3, 12): {
        "bare, by hand": (135, 3),
        "bare, with": (135, 3),
        "full, by hand": (204, 4),
        "full, with": (204, 4),
    },
    (3, 13): {
        "bare, by hand": (130, 3),
        "bare, with": (130, 3),
        "full, by hand": (199, 4),
        "full, with": (199, 4),
    },
}
# Most bytecodes and frames of a hand-over: to queue behind others, to be served, and to give it to the next.
HAND_OVER: dict[tuple[int, int], tuple[int, int]] = {
    (3, 10): (669, 21),
    (3, 11): (702, 21),
    (3, 12): (628, 19),
    (3, 13): (624, 19),
}


class Quick(ToldDriver):
    """A driver that opens at once, and is asked nothing at a return."""

    is_clean: Callable[[Any], bool] | None = None
    is_readable: Callable[[Any], bool] | None = None

    def __init__(self) -> None:
        super().__init__()
        self.open_s = 0.0


class Telling(Quick):
    """One that tells whether a session is clean and a link closed, by built-ins, which are not counted."""

    is_clean = staticmethod(operator.truth)
    is_readable = staticmethod(operator.not_)


async def by_hand(pool: AsyncPool[Connection]) -> None:
    """Take a connection and give it back."""
    conn = await pool.connection()
    _ = conn.close()


async def by_with(pool: AsyncPool[Connection]) -> None:
    """Take a connection for a block."""
    async with pool.connection():
        pass


PAIRS: dict[str, Callable[[AsyncPool[Connection]], Coroutine[Any, Any, None]]] = {
    "by hand": by_hand,
    "with": by_with,
}
clock: Callable[[], float] = functools.partial(float, 100.0)  # time stands still, without a frame


def pool_of(kind: str) -> AsyncPool[Connection]:
    """Make a pool of one connection."""
    bare = kind == "bare"
    return AsyncPool(
        Quick() if bare else Telling(),
        max_size=1,
        reset="none" if bare else "auto",
        track_use=not bare,
        clockwork=Clockwork(clock=clock),
    )


def counter_of_ours() -> Counter:
    """Return a counter of this package's own code; what asyncio and the test do is not counted."""
    return Counter(lambda code: code.co_filename.startswith(OURS))


@pytest.mark.parametrize("how", PAIRS)
@pytest.mark.parametrize("kind", ["bare", "full"])
def test_a_pair_takes_no_more_than_it_did(kind: str, how: str) -> None:
    """The number of bytecodes and frames of a checkout and return stays within the table."""

    async def main() -> Counter:
        async with pool_of(kind) as pool:
            for _ in range(100):
                await PAIRS[how](pool)
            with counter_of_ours() as counter:
                await PAIRS[how](pool)
            return counter

    run(main).assert_within(PAIR[sys.version_info[:2]][f"{kind}, {how}"])


def test_a_hand_over_takes_no_more_than_it_did() -> None:
    """From task to task, where others wait: the price that a queue has for each of them."""

    async def main() -> Counter:
        async with pool_of("full") as pool:

            async def ask_again(times: int) -> None:
                for _ in range(times):
                    async with pool.connection():
                        await asyncio.sleep(0)

            def all_of(times: int) -> Awaitable[Any]:
                return asyncio.gather(*(ask_again(times) for _ in range(3)))

            await all_of(HAND_OVERS)
            counters = [counter_of_ours() for _ in range(5)]
            for counter in counters:
                with counter:
                    await all_of(HAND_OVERS)
            return min(counters, key=lambda counter: counter.bytecodes)  # the pool's clock may ring in one

    run(main).assert_within(HAND_OVER[sys.version_info[:2]], 3 * HAND_OVERS)
