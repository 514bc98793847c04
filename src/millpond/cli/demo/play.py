"""The order of events of the demo, and the words for its figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import millpond

from . import acts, data
from .screen import Screen
from .stores import Store

# How the time is divided.
_PARTS = {"connecting": 0.18, "pooled": 0.18, "queue": 0.16, "fair": 0.20, "killing": 0.28}
_PATIENCE_S = 5.0  # a caller who waits longer has found a fault, and the demo does not last for ever


@dataclass(frozen=True)
class Casting:
    """How many threads share how many connections, and for how many seconds all in all."""

    threads: int = 20
    connections: int = 2
    seconds: float = 8.0


def play(store: Store, casting: Casting, screen: Screen) -> list[str]:
    """Show everything on *screen*, and return what was wrong: nothing, if the pool is right."""
    world = data.load()
    screen.opening(
        f"millpond {millpond.__version__} on {store.title()}",
        f"{casting.threads} threads share {casting.connections} connections; every figure is measured now",
    )
    with store.tables(), store.pool(max_size=casting.connections, timeout=_PATIENCE_S, name="demo") as pool:
        found = [
            _fill(store, pool, world, screen),
            _compare(store, pool, world, casting, screen),
            *_share(store, pool, world, casting, screen),
            _kill(store, pool, world, casting, screen),
        ]
        stats = pool.stats()
    screen.table("pool.stats() after all this", describe(stats))
    faults = [fault for act in found for fault in act.faults]
    screen.verdict(faults, store.hint)
    return faults


def _fill(store: Store, pool: millpond.Pool[Any], world: data.World, screen: Screen) -> acts.Act:
    screen.heading(f"The world's time zones, tzdata {world.release}")
    line = screen.line("Write, read back")
    found = acts.fill(store, pool, world)
    line.done(f"{found.zones} zones in {found.countries} countries", ok=not found.faults)
    return found


def _compare(
    store: Store, pool: millpond.Pool[Any], world: data.World, casting: Casting, screen: Screen
) -> acts.Compared:
    screen.heading("One zone and its country, read over and over")
    comparison = acts.Comparison(store, pool, world, casting.threads)
    found = comparison.found
    line = screen.line("Connect each time")
    comparison.connect_each_time(_PARTS["connecting"] * casting.seconds, line.watch)
    line.done(f"{found.connecting:,.0f} reads/s", ok=not found.faults)
    line = screen.line("Through the pool")
    comparison.pooled(_PARTS["pooled"] * casting.seconds, line.watch)
    line.done(f"{found.pooled:,.0f} reads/s, {found.ratio:.1f} times as many", ok=not found.faults)
    return found


def _share(
    store: Store, pool: millpond.Pool[Any], world: data.World, casting: Casting, screen: Screen
) -> list[acts.Shares]:
    screen.heading(f"Who gets how many turns, holding a connection for {acts.HOLD_S * 1000:.0f} ms")

    def read(conn: Any) -> None:
        acts.look_up(store, conn, world, world.zones[0])

    def figures(found: acts.Shares) -> str:
        return f"{min(found.turns)} to {max(found.turns)} each, {found.rate:,.0f}/s"

    line = screen.line("A queue.LifoQueue")
    seconds = _PARTS["queue"] * casting.seconds
    plain = acts.scramble(store, casting.connections, casting.threads, seconds, read, line.watch)
    line.done(figures(plain), bars=screen.bars(plain.turns))
    line = screen.line("The pool")
    fair = acts.share(pool, casting.threads, _PARTS["fair"] * casting.seconds, read, line.watch)
    line.done(figures(fair), bars=screen.bars(fair.turns), ok=not fair.faults if fair.are_contended else None)
    return [plain, fair]


def _kill(store: Store, pool: millpond.Pool[Any], world: data.World, casting: Casting, screen: Screen) -> acts.Survived:
    screen.heading("Connections killed in the middle")
    line = screen.line("Write all the while")
    found = acts.Killing(store, pool, world, casting.threads).run(_PARTS["killing"] * casting.seconds, line.watch)
    line.done(f"{found.acknowledged:,} of {found.attempted:,} acknowledged", bars=screen.bars(found.pace))
    line = screen.line("Kill")
    told = "1 error" if found.errors == 1 else f"{found.errors} errors"
    line.done(f"{found.killed_idle} idle, {found.killed_in_use} in use; {told} reached a writer")
    line = screen.line("Look for every write")
    unanswered = f"; {found.unanswered} made, answer lost" if found.unanswered else ""
    line.done(f"{found.found:,} found, {found.lost} lost{unanswered}", ok=not found.faults)
    return found


def describe(stats: millpond.PoolStats) -> Sequence[tuple[str, str, str]]:
    """Return the figures of a pool that tell most, with what they mean."""
    average_ms = stats.waited / stats.waits * 1000 if stats.waits else 0.0
    reasons = ", ".join(f"{count} {reason}" for reason, count in stats.retired.items() if count)
    return [
        (
            "size",
            f"{stats.size} of {stats.max_size}",
            f"{stats.idle} idle, {stats.leased} in use, {stats.waiting} waiting",
        ),
        ("uses", f"{stats.uses:,}", f"times a connection was taken; in use {stats.busy:.1f} s in all"),
        ("waits", f"{stats.waits:,}", f"had to queue, {average_ms:.1f} ms on average"),
        ("timeouts", f"{stats.timeouts}", "told that no connection came in time"),
        ("opened", f"{stats.opened}", f"connections; {stats.open_failures} attempts failed"),
        ("closed", f"{stats.closed}", reasons or "none given up"),
        ("dropped", f"{stats.dropped}", "taken and never given back, recovered"),
    ]
