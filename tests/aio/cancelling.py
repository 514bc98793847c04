"""Every way to cancel a task: at each of its awaits, and a second time at each later one.

A scenario is played again and again.  In each play its task is cancelled at one await, or at a pair of them, in one of
two manners: while what it awaits is pending, or when that has just been answered and the task has not run yet (the race
in which connections are lost).  What must hold afterwards is the same for every play; see :func:`explore`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Generator, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from millpond import AsyncPool
from millpond._core.audit import audit

from .doubles import Connection, ToldDriver, pool_of, run

Manner = Literal["pending", "answered"]
MANNERS: tuple[Manner, ...] = ("pending", "answered")


@dataclass
class Stage:
    """What a scenario plays with."""

    pool: AsyncPool[Connection]
    driver: ToldDriver
    others: list[asyncio.Task[Any]] = field(default_factory=list)
    held: list[Any] = field(default_factory=list)

    def beside(self, work: Coroutine[Any, Any, Any]) -> None:
        """Run something beside the task that is cancelled."""
        self.others.append(asyncio.get_running_loop().create_task(work))


@dataclass(frozen=True)
class Play:
    """What is different in one play: after how many awaits the task is cancelled, and in which manner."""

    cancels: tuple[tuple[int, Manner], ...] = ()


Scenario: TypeAlias = Callable[[Stage], Coroutine[Any, Any, None]]


class Stepped:
    """A coroutine whose awaits are counted, and cancelled where a play says so."""

    def __init__(self, work: Coroutine[Any, Any, None], play: Play) -> None:
        self.work = work
        self.cancels = dict(play.cancels)
        self.awaits = 0
        self.cancelled = 0

    def __await__(self) -> Generator[Any, Any, None]:
        thrown: BaseException | None = None
        while True:
            try:
                awaited = self.work.send(None) if thrown is None else self.work.throw(thrown)
            except StopIteration:
                return
            self.awaits += 1
            self.arrange(awaited)
            try:
                thrown = None
                yield awaited
            except BaseException as error:  # noqa: BLE001  it is the coroutine's to decide about
                thrown = error

    def arrange(self, awaited: Any) -> None:
        """Have the task cancelled at this await, if this is the one."""
        manner = self.cancels.get(self.awaits)
        if manner is None:
            return
        task = asyncio.current_task()
        assert task is not None
        self.cancelled += 1
        if manner == "answered" and awaited is not None:
            awaited.add_done_callback(lambda _: task.cancel())
        else:
            asyncio.get_running_loop().call_soon(task.cancel)


async def play_once(scenario: Scenario, play: Play, settings: dict[str, Any], told: dict[str, Any]) -> Stepped:
    """Play a scenario once, and assert what must hold afterwards."""
    driver = ToldDriver(**told)
    pool = pool_of(driver, **settings)
    stage = Stage(pool, driver)
    stepped = Stepped(scenario(stage), play)

    async def play_it() -> None:
        await stepped

    task = asyncio.get_running_loop().create_task(play_it())
    await asyncio.wait((task,), timeout=1000.0)
    assert task.done(), "the task does not end"
    assert task.cancelled() == bool(stepped.cancelled), f"cancelled {stepped.cancelled} times, ended {task!r}"
    if not task.cancelled():
        task.result()
    await asyncio.gather(*stage.others)
    for lease in stage.held:
        await lease.close()
    if "closed" in repr(pool):  # whoever was cancelled while closing has closed it all the same
        await pool.close()
    else:
        await serves_in_full(pool, driver)
    assert not driver.left_open, f"left open: {driver.left_open}"
    assert len(driver.opened) == driver.farewells, "a farewell was not waited for"
    return stepped


async def serves_in_full(pool: AsyncPool[Connection], driver: ToldDriver) -> None:
    """Assert that the pool serves its full size, each connection to one caller, then close it."""
    size = pool.stats().max_size
    leases = [await pool.connection(timeout=5.0) for _ in range(size)]
    numbers = [await lease.work(seconds=0.01) for lease in leases]
    assert size == len(set(numbers)), "a connection was lent twice"
    assert not any(lease.dirty for lease in leases), "somebody's dirt was passed on"
    for lease in leases:
        await lease.close()
    await asyncio.sleep(1.0)
    audit(pool._ledger)
    stats = pool.stats()
    assert (0, 0) == (stats.leased, stats.waiting)
    assert 0 == stats.lost, "a slot had to be recovered"
    await pool.close()


@dataclass
class Found:
    """What an exploration has seen."""

    awaits: int
    plays: int
    pairs: int


def explore(scenario: Scenario, *, told: dict[str, Any] | None = None, **settings: Any) -> Found:
    """Play a scenario without a cancellation, with each single one, and with every pair."""
    told = told or {}
    plain = run(lambda: play_once(scenario, Play(), settings, told))
    plays, pairs = 1, 0
    for play in plays_of(plain.awaits):
        seen = run(lambda play=play: play_once(scenario, play, settings, told))  # type: ignore[misc]  # bound at once
        plays += 1
        pairs += seen.cancelled == 2
    return Found(plain.awaits, plays, pairs)


def plays_of(awaits: int) -> Iterator[Play]:
    """Return every single cancellation and every pair of them, in every manner; later ones may not be reached."""
    for first in range(1, awaits + 1):
        for manner in MANNERS:
            yield Play(((first, manner),))
            for second in range(first + 1, awaits + 4):
                for again in MANNERS:
                    yield Play(((first, manner), (second, again)))
