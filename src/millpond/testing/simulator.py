"""Run a pool's every decision in virtual time: thousands of callers, hours of outages, in milliseconds and exactly.

Why: when a pool dials, who is served first and what an outage costs are questions of time, and a test that answers
them with real time is slow, flaky, or both.  This is a third shell over the very core that threads and asyncio use: it
performs the verbs of conversations and the notices of the ledger at scripted instants.

Rules:
- Nothing is decided here.  Within one instant input and output come before timers, otherwise first planned, first done.
- A simulation is deterministic: the same script gives the same instants, to the last bit.
- Steps take no time; only dials, checks, resets, holds and deadlines do.

It must not start threads, sleep, or read a real clock.  See ``docs/simulation.md`` for examples.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from millpond import diagnosis
from millpond._core import conversations, upkeep
from millpond._core.dials import landed
from millpond._core.ledger import Ledger
from millpond._core.ports import Ports
from millpond._core.states import Fault, Notice, Slot, Verb
from millpond.errors import PoolClosed, PoolTimeout, TooManyWaiting
from millpond.limits import Limits
from millpond.stats import holders_of
from millpond.testing._simulated import (
    NEVER,
    Answer,
    AnswerScript,
    Caller,
    Dial,
    DialError,
    DialScript,
    FailedDial,
    GivenUp,
    SimConnection,
    Talk,
    Waiter,
)
from millpond.testing.sim_clock import SimClock

__all__ = ["Answer", "Caller", "Dial", "DialError", "FailedDial", "GivenUp", "SimConnection", "Simulator"]

_IO, _TIMER = 0, 1  # the order within one instant


class Simulator:
    """A pool in virtual time, with scripted dials, checks and resets.

    Args:
        dial: how long a dial takes in seconds, or :class:`FailedDial`; a sequence of these, of which the last is
            repeated; or a callable that gets the number of the dial (from 1) and the instant.
        check: what a check brings; a callable gets the connection and the instant.  By default a dead link is found
            out at once.  The same holds for *reset* and *collect*.
        defers: resets are sent at return and their answers collected later.
        idle: connections that are open and idle at the beginning.
        known_dial, known_hold: what the pool has learned before the beginning, in seconds; None: nothing.
        jitter: the random numbers of the pool, each in [0, 1); by default all 0.
        settings: those of :class:`millpond.Pool` that are numbers (``max_size``, ``min_idle``, ``growth`` and so on).

    Attributes:
        dials: when dials were begun, instants in order; ``dials_failed``: when dials failed.
        grants: when callers were served.
        callers: everybody, in the order of their making.
        connections: every connection that was ever opened.
        ticks: how often the ledger was asked to see what is due.
        told: what observers would have been told: (instant, what, details).

    Raises:
        InvalidSetting: a setting is unknown or out of bounds; the caller's fault.
    """

    def __init__(
        self,
        *,
        dial: DialScript = 0.1,
        check: AnswerScript | None = None,
        reset: AnswerScript | None = None,
        collect: AnswerScript | None = None,
        defers: bool = False,
        idle: int = 0,
        known_dial: float | None = None,
        known_hold: float | None = None,
        jitter: Callable[[], float] | None = None,
        **settings: Any,
    ) -> None:
        self.clock = SimClock()
        self.limits = Limits.of(**settings)
        self.dials: list[float] = []
        self.dials_failed: list[float] = []
        self.grants: list[float] = []
        self.callers: list[Caller] = []
        self.connections: list[SimConnection] = []
        self.told: list[tuple[float, str, dict[str, Any]]] = []
        self.ticks = 0
        self._dial_script = dial
        self._scripts = {Verb.CHECK: check, Verb.RESET: reset, Verb.DEFER: reset, Verb.COLLECT: collect}
        self._events: list[tuple[float, int, int, Callable[[], object]]] = []
        self._numbers = itertools.count()
        self._scripted = 0  # events planned that are not alarms: those follow each other for ever
        self._never: list[Callable[[], object]] = []  # what never comes is waited for: it holds who waits
        self._nudged = False
        self._delivering = False
        self.ledger = Ledger(
            self.limits,
            Ports(
                clock=self.clock,
                jitter=jitter or (lambda: 0.0),
                new_waiter=Waiter,
                nudge=self._nudge,
                classify=_classify,
                timed_out=_timed_out,
                closed=_closed,
                queue_full=_queue_full,
                observing=True,
                defers=defers,
            ),
        )
        self._begin_with(idle, known_dial, known_hold)

    def _begin_with(self, idle: int, known_dial: float | None, known_hold: float | None) -> None:
        ledger, rule = self.ledger, self.ledger.rule
        ledger.limits = replace(self.limits, min_idle=0)  # nothing is dialled for those that follow
        for _ in range(idle):
            slot = ledger.reserve(self.clock())
            ledger.dialing[slot.number] = self.clock()
            landed(ledger, slot, self._connect())
        ledger.limits = self.limits
        ledger.dialers_answer = bool(idle)
        rule.recent.clear()
        rule.fastest_s = 0.0
        if known_dial is not None:
            rule.succeeded(known_dial)
            ledger.succeeded = True
        if known_hold is not None:
            rule.hold_s = known_hold
        self.at(0.0, lambda: ledger.look(self.clock()))

    # ------------------------------------------------------------------ the script
    def caller(
        self,
        at: float = 0.0,
        hold: float = 0.0,
        timeout: float = 30.0,
        *,
        dirty: bool = False,
        drops: bool = False,
        gives_up_at: float | None = None,
    ) -> Caller:
        """Have somebody take a connection.

        Args:
            at: when it asks; not before now.
            hold: seconds it holds what it gets; ``math.inf``: for ever.
            timeout: seconds it waits at most.
            dirty: what it gives back must be made as good as new.
            drops: it never gives back, but forgets the connection.
            gives_up_at: when it is called away (cancelled, interrupted), if it waits then.

        Returns:
            The caller, whose attributes tell what has become of it.
        """
        caller = Caller(f"caller {len(self.callers)}", hold, timeout, dirty=dirty, drops=drops)
        self.callers.append(caller)
        self.at(at, lambda: self._ask(caller))
        if gives_up_at is not None:
            self.at(gives_up_at, lambda: self._give_up(caller))
        return caller

    def worker(self, at: float = 0.0, hold: float = 0.0, *, pause: float = 0.0, timeout: float = NEVER) -> Caller:
        """Have somebody take a connection again and again, *pause* seconds after each return, until the run ends."""
        caller = Caller(f"worker {len(self.callers)}", hold, timeout, again=True, pause=pause)
        self.callers.append(caller)
        self.at(at, lambda: self._ask(caller))
        return caller

    def at(self, instant: float, action: Callable[[], object]) -> None:
        """Have something done at an instant: ``sim.at(3.0, sim.kill_connections)``."""
        if instant < self.clock():
            raise ValueError(f"at={instant!r}: that instant has passed, it is {self.clock()!r} now")

        def act() -> None:
            action()
            self._deliver()

        self._plan(instant, _IO, act)

    def kill_connections(self) -> None:
        """Break the link of every connection that is open now: the server was restarted."""
        for conn in self.connections:
            conn.dead = conn.dead or conn.closed_at is None

    def drain(self) -> None:
        """Do what ``Pool.drain`` does, now."""
        self.ledger.drain()
        self._deliver()

    def resize(self, max_size: int, min_idle: int | None = None) -> None:
        """Do what ``Pool.resize`` does, now."""
        sizes = {"max_size": max_size} if min_idle is None else {"max_size": max_size, "min_idle": min_idle}
        self.limits = self.limits.changed(**sizes)
        self.ledger.resize(self.limits)
        self._deliver()

    def close(self) -> None:
        """Begin what ``Pool.close`` does, now; whatever is out follows when it comes back."""
        self.ledger.close()
        self._deliver()

    def cut(self) -> list[SimConnection]:
        """Do what ``Pool.close`` does when its time is up: disown what is still out, and break its links."""
        conns: list[SimConnection] = self.ledger.cut()
        for conn in conns:
            conn.dead = True
        self._deliver()
        return conns

    def watch(self, reached: Callable[[], bool], timeout: float = NEVER) -> list[tuple[float, bool | BaseException]]:
        """Wait, beginning now, until the pool has reached a state; the list will hold when, and how it ended."""
        ends: list[tuple[float, bool | BaseException]] = []

        def over(how: bool | BaseException) -> None:
            ends.append((self.clock(), how))

        until = self.clock() + timeout
        self._start(Talk(conversations.await_state(self.ledger, reached, until), over, over))
        return ends

    # ------------------------------------------------------------------ the run
    def run(self, until: float = NEVER) -> Simulator:
        """Let time pass until nothing is planned any more, or until an instant.

        Args:
            until: events of that very instant still happen; with workers or housekeeping about it must be given.

        Returns:
            The simulation itself.
        """
        events = self._events
        while events and events[0][0] <= until:
            at, _, _, action = heapq.heappop(events)
            self._scripted -= action != self._alarm
            self.clock.advance_to(at)
            action()
            if self._nudged:
                self._nudged = False
                self._plan(self.clock(), _TIMER, self._tick)
            if until == NEVER and not self._scripted and not self.ledger.tickets:
                break
        if until < NEVER:
            self.clock.advance_to(until)
        return self

    @property
    def opened(self) -> int:
        """Connections opened so far."""
        return len(self.connections)

    @property
    def closed(self) -> int:
        """Connections closed so far."""
        return sum(conn.closed_at is not None for conn in self.connections)

    def retired(self, reason: str) -> int:
        """Return how many connections were given up for a reason of ``PoolStats.retired``."""
        return sum(count for why, count in self.ledger.retired.items() if why.value == reason)

    def rate(self, since: float, until: float) -> float:
        """Return how many callers were served per second from *since* to *until*."""
        return sum(since <= at < until for at in self.grants) / (until - since)

    def _plan(self, at: float, rank: int, action: Callable[[], object]) -> None:
        if at < NEVER:
            self._scripted += action != self._alarm
            heapq.heappush(self._events, (max(at, self.clock()), rank, next(self._numbers), action))
        elif rank == _IO:
            self._never.append(action)

    # ------------------------------------------------------------------ callers
    def _ask(self, caller: Caller) -> None:
        now = self.clock()
        caller.at, caller.granted_at, caller.returned_at = now, None, None
        caller.talk = Talk(
            conversations.checkout(self.ledger, now + caller.timeout),
            lambda slot: self._lent(caller, slot),
            lambda error: self._refused(caller, error),
        )
        self._start(caller.talk)

    def _lent(self, caller: Caller, slot: Slot) -> None:
        now = self.clock()
        caller.talk = None
        caller.slot = slot
        caller.conn = slot.conn
        caller.granted_at = now
        caller.waits.append(now - caller.at)
        self.grants.append(now)
        self._plan(now + caller.hold, _IO, lambda: self._give_back(caller))

    def _refused(self, caller: Caller, error: BaseException) -> None:
        caller.talk = None
        caller.error = error

    def _give_back(self, caller: Caller) -> None:
        slot, caller.slot = caller.slot, None
        caller.returned_at = self.clock()
        if slot is None or caller.drops:
            return
        now = self.clock()
        if slot.conn is not None and slot.conn.dead:
            self.ledger.reject(slot, now)
        elif caller.dirty:
            until = now + self.limits.connect_timeout_s
            self._start(Talk(conversations.checkin(self.ledger, slot, until), _nothing, _nothing))
        else:
            self.ledger.take_back(slot)
        del slot
        self._deliver()
        if caller.again:
            self._plan(self.clock() + caller.pause, _IO, lambda: self._ask(caller))

    def _give_up(self, caller: Caller) -> None:
        if caller.talk is not None:
            self._advance(caller.talk, error=GivenUp())

    # ------------------------------------------------------------------ conversations
    def _start(self, talk: Talk) -> None:
        self._advance(talk)

    def _advance(self, talk: Talk, answer: Any = None, error: BaseException | None = None) -> None:
        if talk.over:
            return
        talk.turn += 1
        conversation = talk.conversation
        try:
            verb, subject, until = conversation.send(answer) if error is None else conversation.throw(error)
        except StopIteration as end:
            talk.over = True
            talk.finished(end.value)
        except (Exception, GivenUp) as failure:  # noqa: BLE001  it is the talk's to say what it was told
            talk.over = True
            talk.failed(failure.with_traceback(None))  # a traceback would keep slots alive
        else:
            self._perform(talk, verb, subject, until)
        self._deliver()

    def _perform(self, talk: Talk, verb: Verb, subject: Any, until: float) -> None:
        if verb is Verb.PARK:
            self._park(talk, subject.waiter, until)
        elif verb is Verb.OPEN:
            self._open(talk)
        else:
            script = self._scripts[verb]
            conn: SimConnection = subject.conn
            answer = Answer(good=not conn.dead) if script is None else script
            if callable(answer):
                answer = answer(conn, self.clock())
            good, after = answer.good, answer.after
            if verb is Verb.COLLECT and good is None:  # who collects waits for the answer as long as it may
                after = max(after, until - self.clock())
            self._answer_later(talk, after, lambda: good)

    def _answer_later(self, talk: Talk, after: float, answer: Callable[[], Any]) -> None:
        turn = talk.turn

        def give() -> None:
            if talk.turn == turn:
                self._advance(talk, answer())

        self._plan(self.clock() + after, _IO, give)

    def _park(self, talk: Talk, waiter: Waiter, until: float) -> None:
        if waiter.woken:
            waiter.woken = False
            self._answer_later(talk, 0.0, _nothing)
            return
        waiter.talk, waiter.turn = talk, talk.turn
        turn = talk.turn

        def time_is_up() -> None:
            if talk.turn == turn:
                waiter.talk = None
                self._advance(talk)

        self._plan(until, _TIMER, time_is_up)

    def _wake(self, waiter: Waiter) -> None:
        talk, waiter.talk = waiter.talk, None
        if talk is None or talk.turn != waiter.turn:
            waiter.woken = True
        else:
            self._answer_later(talk, 0.0, _nothing)

    # ------------------------------------------------------------------ dials
    def _open(self, talk: Talk) -> None:
        self.dials.append(self.clock())
        outcome = self._next_dial()
        turn = talk.turn

        def land() -> None:
            if talk.turn != turn:
                return
            if isinstance(outcome, FailedDial):
                self.dials_failed.append(self.clock())
                self._advance(talk, error=DialError(outcome.fault))
            else:
                self._advance(talk, self._connect())

        self._plan(self.clock() + (outcome.after if isinstance(outcome, FailedDial) else outcome), _IO, land)

    def _next_dial(self) -> Dial:
        script, number = self._dial_script, len(self.dials)
        if callable(script):
            return script(number, self.clock())
        if isinstance(script, Sequence):
            return script[min(number, len(script)) - 1]
        return script

    def _connect(self) -> SimConnection:
        conn = SimConnection(len(self.connections) + 1, self.clock())
        self.connections.append(conn)
        return conn

    # ------------------------------------------------------------------ notices
    def _deliver(self) -> None:
        if self._delivering:  # a notice performed here may itself make steps
            return
        self._delivering = True
        outbox = self.ledger.outbox
        try:
            while outbox:
                self._notify(*outbox.popleft())
        finally:
            self._delivering = False

    def _notify(self, notice: Notice, subject: Any) -> None:
        if notice is Notice.WAKE:
            self._wake(subject.waiter)
        elif notice is Notice.DIAL:
            self._start(Talk(conversations.dial(self.ledger, subject), _nothing, _nothing))
        elif notice is Notice.TEND:
            self._start(Talk(conversations.tend(self.ledger), _nothing, _nothing))
        elif notice is Notice.CLOSE:
            assert subject.closed_at is None, f"bug: {subject} was closed twice"
            subject.closed_at = self.clock()
        elif notice is Notice.ALARM:
            self._plan(subject, _TIMER, self._alarm)
        else:
            what, details = subject
            self.told.append((self.clock(), what, details))

    def _nudge(self) -> None:
        self._nudged = True

    def _alarm(self) -> None:
        if self.ledger.alarm_at <= self.clock():
            self._tick()

    def _tick(self) -> None:
        self.ticks += 1
        upkeep.tick(self.ledger)
        self._deliver()


def _nothing(*_: object) -> None:
    """Take no notice."""


def _classify(error: BaseException) -> Fault:
    return error.fault if isinstance(error, DialError) else Fault.GONE


def _timed_out(ledger: Ledger, waited_s: float) -> PoolTimeout:
    reason = diagnosis.reason_for(ledger, holders_of(ledger.live(), ledger.clock(), {}))
    error = PoolTimeout(f"no connection after {waited_s:.3g} s: {reason}", reason=reason, waited=waited_s)
    error.__cause__ = ledger.last_error
    return error


def _closed() -> PoolClosed:
    return PoolClosed("the pool is closed")


def _queue_full(ledger: Ledger) -> TooManyWaiting:
    return TooManyWaiting(f"{len(ledger.tickets)} callers are waiting already")
