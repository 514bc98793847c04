"""What a pool tells about itself: one frozen snapshot, and who holds what.

Counters are kept where their only writer is (a slot's holder, or the step that holds the lock) and summed when asked,
so that counting costs the hot path nothing that it does not do anyway.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from ._core.ledger import Ledger
from ._core.states import CHECKING, LEASED, Slot
from .sites import Site


@dataclass(frozen=True)
class Holder:
    """Who holds a connection.

    Attributes:
        thread: the name of the thread or task that took it; "somebody" where that is not noted (``track_use=False``).
        seconds: how long ago.
        site: where in the program; None where that is not noted.
    """

    thread: str
    seconds: float
    site: Site | None

    def __str__(self) -> str:
        where = f", taken at {self.site}" if self.site else ""
        return f"{self.thread} for {self.seconds:.1f} s{where}"


@dataclass(frozen=True)
class PoolStats:
    """A pool at one instant.

    Attributes:
        max_size, min_idle: the limits that it obeys now.
        size: connections open or being opened: ``idle + settling + leased + dialing`` and those between two hands.
        settling: given back, and being made as good as new by the server, which has not answered yet.
        leased: with callers, or being checked.
        dialing: being opened.
        waiting: callers in the queue.
        waiting_longest: seconds the oldest of them has waited so far.
        uses: checkouts that have ended.
        busy: seconds that connections were out, summed over checkouts that have ended.
        waits: checkouts that had to queue; ``waited``: seconds they waited before they were served, summed.
        timeouts: callers that were told PoolTimeout.
        opened, open_failures: dials that landed and dials that failed; ``closed``: connections given up.
        retired: connections given up, by reason.
        dropped: leases that were dropped without being given back, and were recovered.
        lost: all slots that were recovered; those that were not leases were lost to a signal between two instructions.
        abandoned: dials given up although their driver call had not come back.
        uncommitted: connections that came back with writes which had to be rolled back.
        failing_for: seconds since dials began to fail without a success; 0.0 while they succeed.
        reset: how connections are made as good as new: the setting, and behind a colon the way that it takes here.
        holders: who holds connections, the longest first.
    """

    name: str
    max_size: int
    min_idle: int
    size: int
    idle: int
    settling: int
    leased: int
    dialing: int
    waiting: int
    waiting_longest: float
    uses: int
    busy: float
    waits: int
    waited: float
    timeouts: int
    opened: int
    open_failures: int
    closed: int
    retired: dict[str, int]
    dropped: int
    lost: int
    abandoned: int
    uncommitted: int
    failing_for: float
    reset: str
    holders: tuple[Holder, ...] = field(default=(), repr=False)


class ThreadNames:
    """The names of all threads by their numbers, a few milliseconds old at most.

    Where thousands of callers time out together, each is told who holds the connections; to list thousands of threads
    for each of them would take a time that grows with the square of their number.
    """

    FRESH_S = 0.01

    def __init__(self) -> None:
        self.names: dict[int, str] = {}
        self.stale_at = 0.0

    def __call__(self) -> dict[int, str]:
        """Return them."""
        now = time.monotonic()
        if now >= self.stale_at:
            self.names = {thread.ident: thread.name for thread in threads_now() if thread.ident is not None}
            self.stale_at = now + self.FRESH_S
        return self.names


def threads_now() -> list[threading.Thread]:
    """Return all threads, without the lock that ``threading.enumerate()`` takes: whoever asks has a pool's.

    A thread that has that lock starts another one, and the collector may run a finalizer there which wants the pool's.
    """
    active: dict[Any, threading.Thread] | None = getattr(threading, "_active", None)
    return threading.enumerate() if active is None else list(active.copy().values())


thread_names = ThreadNames()


def oldest_wait_s(ledger: Ledger, now: float) -> float:
    """Return how long the first of the queue has waited; 0.0 if there is no queue."""
    return now - next(iter(ledger.tickets)).since if ledger.tickets else 0.0


def holders_of(slots: Iterable[Slot], now: float, names: dict[int, str]) -> tuple[Holder, ...]:
    """Return who holds which of the slots, the longest first."""
    held = sorted((slot for slot in slots if slot.state is LEASED), key=lambda slot: slot.leased_at)
    return tuple(
        Holder(
            names.get(slot.thread_id, "one that has ended" if slot.thread_id else "somebody"),
            now - slot.leased_at,
            Site.of(slot.code, slot.instruction),
        )
        for slot in held
    )


def snapshot(ledger: Ledger, *, name: str, reset: str) -> PoolStats:
    """Take the snapshot; the caller sees to it that no step runs meanwhile."""
    now = ledger.clock()
    slots = list(ledger.live())
    counts = ledger.counts
    return PoolStats(
        name=name,
        max_size=ledger.limits.max_size,
        min_idle=ledger.limits.min_idle,
        size=len(ledger.slots),
        idle=len(ledger.idle),
        settling=len(ledger.settling),
        leased=sum(slot.state in (LEASED, CHECKING) for slot in slots),
        dialing=len(ledger.dialing),
        waiting=len(ledger.tickets),
        waiting_longest=oldest_wait_s(ledger, now),
        uses=ledger.retired_uses + sum(slot.uses for slot in slots),
        busy=ledger.retired_busy_s + sum(slot.busy_s for slot in slots),
        waits=counts["waits"],
        waited=ledger.waited_s,
        timeouts=counts["timeouts"],
        opened=counts["opened"],
        open_failures=counts["failed"],
        closed=sum(ledger.retired.values()),
        retired={reason.value: count for reason, count in ledger.retired.items()},
        dropped=counts["dropped"],
        lost=counts["lost"],
        abandoned=counts["abandoned"],
        uncommitted=counts["uncommitted"],
        failing_for=now - ledger.rule.outage_at if ledger.rule.failures else 0.0,
        reset=reset,
        holders=holders_of(slots, now, ledger.ports.holder_names()),
    )
