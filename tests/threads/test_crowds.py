"""Ten thousand callers through the real shell: what they cost grows with their number and not with its square.

Each caller is a greenlet that parks where a thread would; the locks that a pool takes from its ``runtime`` switch.
Compared is the processor time of two crowds, four times as large the one as the other; a quadratic cost would make it
sixteen times as much.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from typing import Any

import greenlet  # type: ignore[import-untyped]  # it comes with gevent
import pytest

import millpond
from millpond._crew import Runtime

from .doubles import NullDriver

SMALL, LARGE = 2_500, 10_000
MOST = 9.0  # times as much for four times as many: 4 is linear, 16 is quadratic


class Crowd:
    """A host on which every caller is a greenlet, and time is what it is told to be."""

    def __init__(self) -> None:
        self.now = 0.0
        self.hub = greenlet.getcurrent()
        self.due: list[Any] = []  # greenlets that a release has made ready
        self.parked: list[Any] = []
        self.outcomes: dict[str, int] = {}

    def runtime(self) -> Runtime:
        """Return what to hand to the pool; no thread is ever started."""
        return Runtime(clock=lambda: self.now, new_lock=lambda: Lock(self), start=self.refuse, jitter=lambda: 0.0)

    def refuse(self, work: Callable[[], None]) -> None:
        """Start no thread."""
        raise RuntimeError("can't start new thread")

    def come(self, count: int, ask: Callable[[], object]) -> None:
        """Have so many callers ask and park."""
        for _ in range(count):
            greenlet.greenlet(lambda: self.live(ask)).switch()

    def live(self, ask: Callable[[], object]) -> None:
        """Be a caller, and note what became of it."""
        try:
            ask()
            outcome = "served"
        except (millpond.Error, Cancelled) as error:
            outcome = type(error).__name__
        self.outcomes[outcome] = self.outcomes.get(outcome, 0) + 1

    def wake_all(self) -> None:
        """Have every parked caller's time be up."""
        parked, self.parked = self.parked, []
        for caller in parked:
            caller.switch(False)

    def run(self) -> None:
        """Let those go on whose lock was released."""
        while self.due:
            self.due.pop(0).switch(True)

    def cancel_all(self) -> None:
        """Call every parked caller away."""
        parked, self.parked = self.parked, []
        for caller in parked:
            caller.throw(Cancelled)


class Cancelled(BaseException):
    """What a caller is called away by."""


class Lock:
    """A lock whose waiters are greenlets."""

    def __init__(self, crowd: Crowd) -> None:
        self.crowd = crowd
        self.held = False
        self.waiter: Any = None

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        """Take it, or park."""
        if not self.held:
            self.held = True
            return True
        self.waiter = greenlet.getcurrent()
        self.crowd.parked.append(self.waiter)
        woken: bool = self.crowd.hub.switch()
        self.waiter = None
        return woken

    def release(self) -> None:
        """Let go, or make a waiter ready."""
        if not self.held:
            raise RuntimeError("release unlocked lock")
        if self.waiter is None:
            self.held = False
        else:
            self.crowd.due.append(self.waiter)

    def locked(self) -> bool:
        """Say whether anybody has it."""
        return self.held

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()


def time_out(crowd: Crowd, pool: millpond.Pool[Any]) -> None:
    """Let everybody's deadline pass at once."""
    crowd.now += 60.0
    crowd.wake_all()


def call_away(crowd: Crowd, pool: millpond.Pool[Any]) -> None:
    """Call everybody away at once."""
    crowd.cancel_all()


def close(crowd: Crowd, pool: millpond.Pool[Any]) -> None:
    """Close the pool, and let everybody hear of it."""
    pool._decide(pool._ledger.close)
    crowd.run()


ENDS: dict[Callable[[Crowd, millpond.Pool[Any]], None], str] = {
    time_out: "PoolTimeout",
    call_away: "Cancelled",
    close: "PoolClosed",
}


def cost_s(count: int, end: Callable[[Crowd, millpond.Pool[Any]], None]) -> float:
    """Return the processor time that it takes to have so many come and go again."""
    crowd = Crowd()
    pool = millpond.Pool(NullDriver(), max_size=1, dial="caller", timeout=30, runtime=crowd.runtime())
    lease = pool.connection()
    gc.collect()
    gc.disable()
    try:
        began_s = time.process_time()
        crowd.come(count, pool.connection)
        end(crowd, pool)
        took_s = time.process_time() - began_s
    finally:
        gc.enable()
    assert {ENDS[end]: count} == crowd.outcomes
    assert 0 == pool.stats().waiting
    lease.close()
    pool.close()
    return took_s


@pytest.mark.parametrize("end", ENDS, ids=lambda end: end.__name__)
def test_a_crowd_that_goes_together_costs_a_time_that_is_linear(
    end: Callable[[Crowd, millpond.Pool[Any]], None],
) -> None:
    """Four times as many callers that time out, are called away or turned away cost about four times as much."""
    ratios = (cost_s(LARGE, end) / min(cost_s(SMALL, end) for _ in range(2)) for _ in range(3))
    assert any(ratio < MOST for ratio in ratios)  # a busy machine may spoil one; what is quadratic is so each time
