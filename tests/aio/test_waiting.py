"""How tasks park: deadlines in any order, one timer, and hardly anything kept of those who were woken."""

from __future__ import annotations

import asyncio
import contextvars
import types
import weakref
from typing import Any

import pytest

from millpond._aio_waiting import WEEDED_AT, Sleepers, context_of, wake
from tests.garbage import collect

from .doubles import run


class Lives:
    """What a caller's context holds."""


LIVES: contextvars.ContextVar[Any] = contextvars.ContextVar("LIVES")


def sleepers() -> Sleepers:
    """Make sleepers of the loop that runs."""
    loop = asyncio.get_running_loop()
    made = Sleepers(loop.time)
    made.bind(loop)
    return made


async def woken_at(parked: Sleepers, seconds: float) -> float:
    """Sleep for so long at most, and return when that ended."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    await parked.sleep(parked.new_future(), began + seconds, began)
    return loop.time() - began


def timers() -> int:
    """Count the timers that are set."""
    scheduled = asyncio.get_running_loop()._scheduled  # type: ignore[attr-defined]  # asyncio's own
    return sum(not timer.cancelled() for timer in scheduled)


@pytest.mark.parametrize(
    "deadlines",
    [
        (1.0, 2.0, 3.0),
        (3.0, 2.0, 1.0),
        (2.0, 3.0, 1.0, 2.5, 0.5),
    ],
    ids=["ascending", "descending", "mixed"],
)
def test_everybody_sleeps_for_as_long_as_said(deadlines: tuple[float, ...]) -> None:
    """Whatever the order in which they come."""

    async def main() -> None:
        parked = sleepers()
        awake = await asyncio.gather(*(woken_at(parked, seconds) for seconds in deadlines))
        assert list(deadlines) == pytest.approx(awake)

    run(main)


def test_one_timer_serves_all_who_come_in_order() -> None:
    """A timer each would be most of what a hand-over costs."""

    async def main() -> None:
        parked = sleepers()
        now = asyncio.get_running_loop().time()
        waiters = [parked.new_future() for _ in range(1000)]
        slept = [parked.sleep(waiter, now + 30.0, now) for waiter in waiters]
        assert 1 == timers()
        for waiter in waiters:
            wake(waiter)
        assert all(future.done() for future in slept)
        parked.rest()
        assert 0 == timers()

    run(main)


def test_a_far_deadline_that_is_gone_is_in_nobodys_way() -> None:
    """Once, who had waited for an hour and was served left a timer of their own to all who came after."""

    async def main() -> None:
        parked = sleepers()
        now = asyncio.get_running_loop().time()
        patient = parked.new_future()
        slept = parked.sleep(patient, now + 3600.0, now)
        wake(patient)
        others = [parked.new_future() for _ in range(10)]
        more = [parked.sleep(waiter, now + 30.0, now) for waiter in others]
        assert 1 == timers()
        for waiter in others:
            wake(waiter)
        assert all(future.done() for future in (slept, *more))
        parked.rest()

    run(main)


def test_hardly_anything_is_kept_of_those_who_were_woken() -> None:
    """Two thousand were, one after another, while one slept on; no context of theirs is kept at all."""

    async def main() -> None:
        parked = sleepers()
        now = asyncio.get_running_loop().time()
        first = parked.new_future()
        slept = parked.sleep(first, now + 30.0, now)
        kept: list[weakref.ref[Any]] = []
        contexts: list[weakref.ref[Any]] = []
        for _ in range(2000):
            lives = Lives()
            token = LIVES.set(lives)
            waiter = parked.new_future()
            LIVES.reset(token)
            future = parked.sleep(waiter, now + 30.0, now)
            wake(waiter)
            kept.append(weakref.ref(future))
            contexts.append(weakref.ref(lives))
            del waiter, future, lives, token
        collect()
        assert WEEDED_AT + 1 >= sum(reference() is not None for reference in kept)
        assert 0 == sum(reference() is not None for reference in contexts)
        assert not slept.done()
        wake(first)
        parked.rest()

    run(main)


def test_who_is_woken_before_they_sleep_does_not_fall_asleep() -> None:
    """Nor does it count twice."""

    async def main() -> None:
        parked = sleepers()
        loop = asyncio.get_running_loop()
        ticket = types.SimpleNamespace(waiter=parked.new_future())
        wake(ticket.waiter)
        wake(ticket.waiter)
        began = loop.time()
        await parked.park(ticket, began + 5.0)
        assert began == loop.time()
        await parked.park(ticket, began + 5.0)
        assert pytest.approx(began + 5.0) == loop.time()

    run(main)


def test_who_was_called_away_is_not_rung_for() -> None:
    """A cancelled sleeper leaves no timer of its own, and waking it afterwards is harmless."""

    async def main() -> None:
        parked = sleepers()
        loop = asyncio.get_running_loop()
        now = loop.time()
        late, early = parked.new_future(), parked.new_future()
        parked.sleep(late, now + 5.0, now).cancel()
        parked.sleep(early, now + 1.0, now).cancel()
        for waiter in (late, early):
            wake(waiter)
        await asyncio.sleep(0)  # a timer of one's own goes by a callback
        parked.rest()
        assert 0 == timers()

    run(main)


def test_the_context_of_who_is_parked_is_that_of_their_task() -> None:
    """A dial that is decided later is made in it; whoever is not parked yet runs in it now."""

    async def main() -> None:
        parked = sleepers()
        loop = asyncio.get_running_loop()
        future = parked.new_future()
        assert context_of(future) is None

        async def sleep() -> None:
            LIVES.set("theirs")
            await parked.sleep(future, loop.time() + 5.0, loop.time())

        task = loop.create_task(sleep())
        await asyncio.sleep(0)
        context = context_of(future)
        assert context is not None
        assert "theirs" == context[LIVES]
        wake(future)
        await task
        parked.rest()

    run(main)
