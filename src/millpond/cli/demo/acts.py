"""What the demo shows, and what would be wrong about it.

Each act does its work for a while, returns what it measured, and lists in ``faults`` whatever contradicts what a pool
has to promise. An act prints nothing.
"""

from __future__ import annotations

import queue
import random
import threading
import time
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import millpond

from .crowd import Gate, Watch, crowd
from .data import World, Zone
from .stores import Store

HOLD_S = 0.002
_KILL_EVERY_S = 0.15
_DEAD_FOR_S = 0.01  # before anybody comes back: a pool need not ask whether one that answered a moment ago is alive
# Shares may differ by so much of the largest, which a busy machine keeps a thread from, and by the turns of those who
# began early or ended late.
_UNEVEN = 0.15
_UNEVEN_TURNS = 2


@dataclass
class Act:
    """What one act has found; ``faults`` is empty when all is as it must be."""

    faults: list[str] = field(default_factory=list[str])


@dataclass
class Loaded(Act):
    """The tables as they were written, and as they were read back."""

    zones: int = 0
    countries: int = 0


@dataclass
class Compared(Act):
    """Rates of the same reads, in reads a second."""

    threads: int = 0
    connections: int = 0
    connecting: float = 0.0
    pooled: float = 0.0

    @property
    def ratio(self) -> float:
        """Return how many times as many reads the pool served."""
        return self.pooled / self.connecting if self.connecting else float("inf")


@dataclass
class Shares(Act):
    """How many turns each thread got, sharing a few connections."""

    connections: int = 0
    seconds: float = 0.0
    turns: list[int] = field(default_factory=list[int])

    @property
    def rate(self) -> float:
        """Return turns a second, all threads together."""
        return sum(self.turns) / self.seconds

    @property
    def are_contended(self) -> bool:
        """Say whether threads wait for most of their time, so that whose turn it is decides about their shares."""
        return len(self.turns) >= 2 * self.connections

    def judged(self) -> Shares:
        """Return self, with a fault if the shares are uneven; those of threads that hardly wait are not the pool's."""
        if not self.are_contended:
            return self
        least, most = min(self.turns), max(self.turns)
        if most - least > _UNEVEN_TURNS + _UNEVEN * most:
            self.faults.append(f"unfair: one thread had {most} turns, another {least}")
        return self


@dataclass
class Survived(Act):
    """Writes while connections were killed, in numbers of connections and writes."""

    killed_idle: int = 0
    killed_in_use: int = 0
    attempted: int = 0
    acknowledged: int = 0
    found: int = 0
    lost: int = 0
    errors: int = 0
    unanswered: int = 0  # writes that were made although their answer never came
    pace: list[int] = field(default_factory=list[int])  # writes in one moment after another


def fill(store: Store, pool: millpond.Pool[Any], world: World) -> Loaded:
    """Write the world's tables through the pool, and read them back."""
    with pool.connection() as conn:
        countries = [*world.countries.items()]
        zones = [(zone.name, zone.country, zone.coordinates) for zone in world.zones]
        store.run_many(conn, "INSERT INTO {country} (code, name) VALUES (?, ?)", countries)
        store.run_many(conn, "INSERT INTO {zone} (name, country, coordinates) VALUES (?, ?, ?)", zones)
        conn.commit()
    with pool.connection() as conn:
        found_zones = store.run(conn, "SELECT name, country, coordinates FROM {zone}")
        found_countries = store.run(conn, "SELECT code, name FROM {country}")
        conn.commit()
    found = Loaded(zones=len(found_zones), countries=len(found_countries))
    if _sorted(found_zones) != _sorted(zones) or _sorted(found_countries) != _sorted(countries):
        found.faults.append("the tables that were read back are not those that were written")
    return found


def _sorted(rows: Iterable[Sequence[Any]]) -> list[tuple[Any, ...]]:
    return sorted(tuple(row) for row in rows)


def look_up(store: Store, conn: Any, world: World, zone: Zone) -> None:
    """Read one zone and its country, and compare with what is known.

    Raises:
        WrongRow: the answer belongs to another question.
    """
    rows = store.run(
        conn,
        "SELECT z.name, z.coordinates, c.name FROM {zone} z JOIN {country} c ON c.code = z.country WHERE z.name = ?",
        (zone.name,),
    )
    expected = world.row(zone)
    if [tuple(row) for row in rows] != [expected]:
        raise WrongRow(f"asked for {expected}, got {rows}")


class WrongRow(Exception):
    """A database answered something that is not in the tables: nothing that follows can be trusted."""


class Comparison:
    """Connecting each time beside pooling: the same reads, the same threads."""

    def __init__(self, store: Store, pool: millpond.Pool[Any], world: World, threads: int) -> None:
        self.store = store
        self.pool = pool
        self.world = world
        self.found = Compared(threads=threads, connections=pool.stats().max_size)
        self._picks = [random.Random(number) for number in range(threads)]  # noqa: S311  which zone is next is no secret

    def connect_each_time(self, seconds: float, watch: Watch) -> None:
        """Open a connection for every read, and close it."""

        def turn(number: int) -> None:
            conn = self.store.open()
            try:
                self._read(conn, number)
            finally:
                self.store.close(conn)

        self.found.connecting = self._rate(turn, seconds, watch)

    def pooled(self, seconds: float, watch: Watch) -> None:
        """Take a connection for every read, and give it back."""

        def turn(number: int) -> None:
            with self.pool.connection() as conn:
                self._read(conn, number)

        self.found.pooled = self._rate(turn, seconds, watch)

    def _read(self, conn: Any, number: int) -> None:
        look_up(self.store, conn, self.world, self._picks[number].choice(self.world.zones))

    def _rate(self, turn: Callable[[int], None], seconds: float, watch: Watch) -> float:
        began_at = time.monotonic()
        turns = crowd(self.found.threads, seconds, turn, watch)
        return sum(turns) / (time.monotonic() - began_at)


def share(pool: millpond.Pool[Any], threads: int, seconds: float, read: Callable[[Any], None], watch: Watch) -> Shares:
    """Have many threads take a connection, read, hold it for a moment, give it back, and come again at once."""

    def turn(_: int) -> None:
        with pool.connection() as conn:
            read(conn)
            time.sleep(HOLD_S)

    return _shares(pool.stats().max_size, threads, seconds, turn, watch).judged()


def scramble(
    store: Store, connections: int, threads: int, seconds: float, read: Callable[[Any], None], watch: Watch
) -> Shares:
    """Do the same with connections in a ``LifoQueue``, as home-made pools have them; it may be as unfair as it is."""
    idle: queue.LifoQueue[Any] = queue.LifoQueue()

    def turn(_: int) -> None:
        conn = idle.get()
        try:
            read(conn)
            time.sleep(HOLD_S)
        finally:
            idle.put(conn)

    with ExitStack() as closing:
        for _ in range(connections):
            conn = store.open()
            closing.callback(store.close, conn)
            idle.put(conn)
        return _shares(connections, threads, seconds, turn, watch)


def _shares(connections: int, threads: int, seconds: float, turn: Callable[[int], None], watch: Watch) -> Shares:
    began_at = time.monotonic()
    turns = crowd(threads, seconds, turn, watch)
    return Shares(connections=connections, seconds=time.monotonic() - began_at, turns=turns)


class Killing:
    """Threads write while connections are killed, idle ones and ones in use; then every write is looked for.

    A write that was acknowledged must be found. One whose error reached the writer may be there or not, and is made
    anew under another number.
    """

    def __init__(self, store: Store, pool: millpond.Pool[Any], world: World, threads: int) -> None:
        self.store = store
        self.pool = pool
        self.world = world
        self.threads = threads
        self.found = Survived()
        self._gate = Gate()
        self._numbers = [0] * threads
        self._acknowledged: list[set[int]] = [set() for _ in range(threads)]
        self._errors: list[str] = []
        self._expected_errors = (millpond.Error, store.driver_error)

    def run(self, seconds: float, watch: Watch) -> Survived:
        """Write, kill, and compare."""
        so_far = 0

        def watch_pace(progress: float, turns: int) -> None:
            nonlocal so_far
            self.found.pace.append(turns - so_far)
            so_far = turns
            watch(progress, turns)

        with self._killer():
            crowd(self.threads, seconds, self._write, watch_pace)
        self._compare()
        return self.found

    def _write(self, thread: int) -> None:
        self._numbers[thread] += 1
        number = self._numbers[thread]
        zone = self.world.zones[number % len(self.world.zones)].name
        with self._gate.passing():
            try:
                with self.pool.connection() as conn:
                    self.store.run(conn, "INSERT INTO {visit} VALUES (?, ?, ?)", (thread, number, zone))
                    self.store.exposed(conn)
                    conn.commit()
            except self._expected_errors as error:
                self._errors.append(f"{type(error).__name__}: {error}")
                return
        self._acknowledged[thread].add(number)

    @contextmanager
    def _killer(self) -> Generator[None, None, None]:
        over = threading.Event()
        raised: list[BaseException] = []

        def kill() -> None:
            try:
                while not over.wait(_KILL_EVERY_S):
                    self.store.kill_one_in_use()
                    over.wait(_KILL_EVERY_S)
                    with self._gate.closed():
                        self.found.killed_idle += self.store.kill_idle()
                        over.wait(_DEAD_FOR_S)
            except BaseException as error:  # noqa: BLE001  it is raised again, in the thread that asked
                raised.append(error)

        killer = threading.Thread(target=kill, name="killer", daemon=True)
        try:
            killer.start()
            yield
        finally:
            over.set()
            if killer.ident is not None:  # a signal may have raised in the middle of starting it
                killer.join()
        if raised:
            raise raised[0]

    def _compare(self) -> None:
        conn = self.store.open()
        try:
            rows = {(row[0], row[1]) for row in self.store.run(conn, "SELECT thread, number FROM {visit}")}
        finally:
            self.store.close(conn)
        acknowledged = {(thread, number) for thread in range(self.threads) for number in self._acknowledged[thread]}
        attempted = {
            (thread, number) for thread in range(self.threads) for number in range(1, self._numbers[thread] + 1)
        }
        found = self.found
        found.attempted, found.acknowledged, found.found = len(attempted), len(acknowledged), len(rows)
        found.lost, found.unanswered = len(acknowledged - rows), len(rows - acknowledged)
        found.errors, found.killed_in_use = len(self._errors), self.store.killed_in_use
        if not found.killed_idle or not found.killed_in_use:
            found.faults.append("too few connections were killed to show anything: give it more --seconds")
        if found.lost:
            found.faults.append(f"{found.lost} writes were acknowledged and are not there")
        if rows - attempted:
            found.faults.append(f"{len(rows - attempted)} rows are there that nobody wrote")
        if found.errors > found.killed_in_use:
            told = (
                f"{found.errors} errors reached a writer, and only {found.killed_in_use} connections were killed in use"
            )
            found.faults.append(f"{told}; the last: {self._errors[-1]}")
