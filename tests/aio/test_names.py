"""What tasks are called: always right where that is cheap, and not asked for each of thousands."""

from __future__ import annotations

import asyncio
from itertools import count
from typing import Any

import pytest

from millpond import AsyncPool, PoolTimeout
from millpond._aio_names import CHEAP_S, PRICES, TaskNames

from .doubles import ToldDriver, pool_of, run


async def nothing() -> None:
    """End at once."""


def test_a_cheap_list_is_made_anew_each_time() -> None:
    """A task that was begun since the last one is in it, however soon."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        names = TaskNames(clock=lambda: 7.0, cpu=lambda: 0.0)
        for number in range(3):
            task = loop.create_task(nothing(), name=f"the {number}th")
            assert f"the {number}th" == names.of(loop)[id(task)]
            await task

    asyncio.run(main())


def test_a_dear_list_is_given_out_again_for_ten_times_its_price() -> None:
    """Then it is made anew; so that lists take a tenth of a loop's time at most."""
    price_s = 2 * CHEAP_S
    used = count()
    now = 100.0

    async def main() -> None:
        nonlocal now
        loop = asyncio.get_running_loop()
        names = TaskNames(clock=lambda: now, cpu=lambda: next(used) * price_s)
        first = names.of(loop)
        now += price_s * PRICES * 0.9
        assert first is names.of(loop)
        now += price_s * PRICES * 0.2
        assert first is not names.of(loop)

    asyncio.run(main())


def test_each_of_those_who_time_out_together_is_told_who_is_in_the_way() -> None:
    """Also where the list is not made anew for each."""
    callers = 200

    async def main() -> None:
        async with pool_of(ToldDriver(), max_size=1, timeout=5.0) as pool, pool.connection():
            waiting = [asyncio.ensure_future(hold(pool)) for _ in range(callers)]
            told = await asyncio.gather(*waiting)
        current = asyncio.current_task()
        assert current is not None
        assert [current.get_name()] * callers == told

    async def hold(pool: AsyncPool[Any]) -> str:
        with pytest.raises(PoolTimeout) as caught:
            _ = await pool.connection()
        (holder,) = caught.value.holders
        return str(holder.thread)

    run(main)
