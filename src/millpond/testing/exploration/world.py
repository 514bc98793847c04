"""One pool's core with all that is around it, in small steps that somebody else chooses.

This is a shell over the core as the thread shell is one, cut into pieces: whatever two threads could do in between each
other is a step of its own here.  Conversations stop at their yields and are answered, or not, when the chooser says so;
the fast path is cut between its instructions; notices wait in the outbox until they are delivered, twice or never.

Rules:
- Nothing is chosen here: every step is a method, its choices are its arguments.  So seeds and hypothesis drive the same
  world.
- After every step :meth:`World.check` holds what must hold then; what must hold in the end is in ``rest.py``.
- A slot is held here by what holds it in a shell and by nothing else: one that nobody holds must be found by the pool.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from millpond._core.states import FOREVER, Fault
from millpond.limits import Limits

from .coverage import Seen
from .parts import (
    Conn,
    GivenUp,
    Held,
    Refused,
    Struck,
    Talk,
    Trouble,
    Violation,
    Waiter,
    closed,
    must,
    queue_full,
    timed_out,
    watched,
)
from .planting import REAL, Core

QUIET_S = 0.001  # as the shells have it
TOLERANCE_S = 1e-6
OVERTIME = 8  # requests that a conversation may still make after its deadline, one for each connection it finds dead
CIRCLES = 20  # ticks may follow each other at once while there is more to do than one takes on
OVERDUE_S = 0.001  # how much too late a late answer comes


class World:
    """A pool in pieces.

    Args:
        limits: what the pool obeys.
        seen: where everything that happens is counted.
        jitter: the pool's random numbers, each in [0, 1).
        core: the core to look at; the real one by default.
        defers: resets are sent at return and their answers collected later.
        polls: an idle connection can be asked, without a word to the server, whether its link is dead.
        note: told about every step, for who wants to read how it went.
    """

    def __init__(
        self,
        limits: Limits,
        seen: Seen,
        jitter: Callable[[], float],
        *,
        core: Core = REAL,
        defers: bool = False,
        polls: bool = False,
        note: Callable[[str], object] | None = None,
    ) -> None:
        self.now = 0.0
        self.limits = limits
        self.seen = seen
        self.states = core.states
        self.upkeep = core.upkeep
        self.audit = core.audit.audit
        self.conversations = core.conversations
        self.note = note
        self.polls = polls
        self.inlined = limits.lifo and limits.max_uses == limits.max_idle == FOREVER  # returns may take the fast path
        self.conns: list[Conn] = []
        self.open: dict[int, Conn] = {}  # those without a notice to close them
        self.talks: list[Talk] = []  # stopped at a yield, waiting for an answer
        self.hung: list[Talk] = []  # stopped, and answered at the very end or never
        self.leases: list[Held] = []
        self.pops: list[Held] = []  # checkouts on the fast path, between two instructions
        self.pushes: list[Held] = []  # returns on the fast path, likewise
        self.jobs: list[tuple[str, Any]] = []  # threads that were started and have not begun
        self.stuck: list[tuple[str, Any]] = []  # threads that never will
        self.ghosts: list[tuple[Any, Any]] = []  # notices that somebody is about to perform again
        self.alarm_at = FOREVER  # as far as the alarm clock knows
        self.nudged = False
        self.circles = 0  # ticks that wanted another one at once
        self.silent = 0  # slots that died without a word
        self.drops = 0  # times that something was dropped that held a slot, or might have
        self.settling_down = False  # nothing goes wrong any more: everybody must be served now
        self.served_after = FOREVER  # who may still wait at this instant must not time out
        self.barred = False  # credentials were refused, and nobody has queued since: no dial is due to anybody
        self.queued = 0  # callers that have been in the queue
        self.notices = {notice: notice.name for notice in core.states.Notice}
        self.faults = {fault.value: fault for fault in core.states.Fault}
        self.ledger = watched(core)(limits, self.ports(core, jitter, defers=defers))
        self.ledger.world = self
        self.ledger.look(self.now)

    # ------------------------------------------------------------------ what the pool takes from outside
    def ports(self, core: Core, jitter: Callable[[], float], *, defers: bool) -> Any:
        """Return the outside world of the ledger."""
        return core.ports.Ports(
            clock=lambda: self.now,
            jitter=jitter,
            new_waiter=Waiter,
            nudge=self.nudge,
            classify=self.classify,
            timed_out=timed_out,
            closed=closed,
            queue_full=queue_full,
            observing=True,
            quiet_s=QUIET_S if self.polls else FOREVER,
            defers=defers,
            check_survives=self.survives,
        )

    def survives(self, slot: Any) -> bool:
        """Say whether a check that was broken off leaves a connection of use: every other one."""
        return bool(slot.conn.number % 2)

    def nudge(self) -> None:
        """Ask for a tick soon, as a finalizer does."""
        self.nudged = True

    def classify(self, error: BaseException) -> Any:
        """Say what a driver's exception means."""
        return self.faults[error.fault.value] if isinstance(error, Trouble) else self.faults["gone"]

    def moves(self, slot: Any, state: Any) -> None:
        """Look at a change of state before it is made."""
        self.seen.moves[slot.state, state] += 1
        if state is not self.states.LEASED:
            return
        conn: Conn | None = slot.conn
        if conn is None:
            raise Violation("a slot without a connection is handed out")
        must(conn.notice is None, "a connection is handed out that is being closed")
        must(not conn.answer_out, "a connection is handed out with the answer to its reset unread")
        must(not conn.dirty, "a connection is handed out that is not as good as new")
        unproved_s = self.now - conn.proved_at
        must(unproved_s <= self.limits.check_after_s + TOLERANCE_S, "a connection is handed out without a sign of life")
        if slot.state is not self.states.OPENING:
            must(self.now < slot.expires_at, "a connection is handed out after its time, or after a drain")

    # ------------------------------------------------------------------ conversations
    def start(self, talk: Talk) -> None:
        """Hold a conversation up to its first yield."""
        self.advance(talk)

    def advance(self, talk: Talk, answer: Any = None, error: BaseException | None = None) -> None:
        """Let a conversation go on to its next yield, or to its end."""
        subject, talk.subject = talk.subject, None  # from here on the conversation alone holds what it holds
        if talk.verb not in ("", "park", "open") and subject.conn is not None:
            subject.conn.user = None
        del subject
        try:
            if error is None:
                verb, subject, until = talk.conversation.send(answer)
            else:
                verb, subject, until = talk.conversation.throw(error)
        except StopIteration as end:
            self.ended(talk, end.value)
        except (Trouble, Refused, GivenUp) as failure:
            self.failed(talk, failure)
        else:
            self.asked(talk, verb.value, subject, until)

    def asked(self, talk: Talk, verb: str, subject: Any, until: float) -> None:
        """Take note of what a conversation waits for now."""
        talk.verb, talk.subject, talk.until, talk.asked_at = verb, subject, until, self.now
        self.talks.append(talk)
        must(until <= talk.deadline + TOLERANCE_S, f"a {talk.kind} asks for {verb} beyond its deadline")
        if self.now >= talk.deadline:
            talk.overtime += 1
            must(talk.overtime <= OVERTIME, f"a {talk.kind} goes on and on after its deadline")
            must(verb != "park" or until <= self.now, f"a {talk.kind} waits although its deadline has passed")
        if verb in ("park", "open"):
            return
        conn: Conn | None = subject.conn
        if conn is None:
            raise Violation(f"{verb} is asked of a slot without a connection")
        must(not conn.closed, f"{verb} is asked of a connection that is closed")
        must(conn.user is None and conn.holder is None, f"{verb} is asked of a connection that somebody else uses")
        conn.user = talk

    def ended(self, talk: Talk, result: Any) -> None:
        """A conversation has come to its end."""
        kind = talk.kind
        if kind == "checkout":
            must(not talk.thrown, "a caller was called away, and got a connection all the same")
            self.lend(result)
        elif kind == "wait":
            must(not talk.thrown, "somebody who waited for the pool was called away, and not told")
            self.saw("a watcher was there in time" if result else "a watcher's time was up")

    def failed(self, talk: Talk, failure: BaseException) -> None:
        """A conversation has ended by an exception."""
        failure.__traceback__ = failure.__context__ = None  # they would keep slots alive
        if talk.kind == "wait" and not talk.thrown:
            closed = isinstance(failure, Refused)
            self.saw("a watcher was told of close" if closed else "a watcher was told of an error")
        if talk.kind != "checkout":
            return
        if isinstance(failure, Refused):
            self.was_refused(talk, failure.why)
        elif isinstance(failure, Trouble) and not talk.thrown:
            self.saw("a caller was told the driver's own error")

    def was_refused(self, talk: Talk, why: str) -> None:
        """A caller was told so by the pool."""
        if why == "closed":
            self.saw("a caller was told that the pool is closed")
            must(self.ledger.closed, "a caller was told that the pool is closed, and it is not")
        elif why == "queue full":
            self.saw("a caller was turned away: the queue is full")
        else:
            if not talk.queues:
                return
            early = self.now < talk.deadline - TOLERANCE_S
            self.saw("callers were told at once during a long outage" if early else "a caller's wait timed out")
            must(not early or self.limits.fail_after_s < FOREVER, "a caller was told that time is up before it was")
            # After refused credentials only a new caller causes a dial: who came before may wait in vain.
            in_vain = self.served_after == FOREVER or self.barred
            must(in_vain or talk.deadline < self.served_after, "a caller who could have been served was not")

    def lend(self, slot: Any) -> None:
        """Put a slot into a caller's hands."""
        must(slot.state is self.states.LEASED, f"a caller got a slot that is {slot.state.value}")
        conn: Conn | None = slot.conn
        if conn is None:
            raise Violation("a caller got a slot without a connection")
        must(conn.holder is None and conn.user is None, "one connection has two holders")
        must(conn.notice is None or conn.disowned, "a caller got a connection that is being closed")
        conn.holder = Held(slot)
        self.leases.append(conn.holder)

    # ------------------------------------------------------------------ steps: callers
    def ask(self, timeout: float, slot: Any = None, *, queues: bool = True) -> None:
        """Somebody asks for a connection, on the slow path; perhaps without waiting for what others hold."""
        self.saw("a caller asked after close", self.ledger.closed)
        self.saw("a caller asked who does not queue", not queues)
        in_pause = self.barred and self.now < self.ledger.rule.retry_at and self.ledger.busy
        self.saw("a caller asked in the pause after refused credentials", in_pause)
        until = self.now + timeout
        talk = Talk("checkout", self.conversations.checkout(self.ledger, until, slot, queues=queues), until)
        talk.queues = queues
        self.start(talk)

    def pop(self, timeout: float) -> None:
        """Somebody asks for a connection, and finds nobody waiting on the fast path."""
        if self.ledger.tickets or not self.limits.lifo:
            self.ask(timeout)
        else:
            self.pops.append(Held(None, "look", self.now, timeout))

    def pop_on(self, index: int, *, drop: bool = False) -> None:
        """Let a checkout on the fast path go on by one piece, or be struck by a signal that raises."""
        held = self.pops[index]
        if drop:
            del self.pops[index]
            self.drops += 1
            self.saw("dropped between two bytecodes of a checkout", held.slot is not None)
        elif held.stage == "look":
            self.pop_slot(index, held)
        else:
            del self.pops[index]
            self.use_popped(held)

    def pop_slot(self, index: int, held: Held) -> None:
        """Take what is there, as the fast path does."""
        self.saw("popped although somebody had queued meanwhile", self.ledger.tickets)
        try:
            held.slot = self.ledger.idle.pop()
        except IndexError:
            del self.pops[index]
            self.saw("popped when the shelf was empty already")
            self.ask(held.timeout)
        else:
            held.stage, held.now = "popped", self.now

    def use_popped(self, held: Held) -> None:
        """Hand out what was popped, or have a conversation see to it."""
        slot, held.slot, now = held.slot, None, held.now
        readable = self.polls and now - slot.returned_at >= QUIET_S and slot.conn.dead
        if now < slot.best_before and now < slot.expires_at and not readable:
            slot.state = self.states.LEASED
            slot.leased_at = now
            self.seen.moves[self.states.IDLE, self.states.LEASED] += 1
            self.lend(slot)
        else:
            self.saw("popped and handed to a conversation, in doubt")
            slot.best_before = self.states.RETIRED
            self.ask(held.timeout, slot)

    def give_back(self, index: int, how: str) -> None:
        """Somebody gives a connection back: "push" and "dirty" as a shell decides, "reject", "drop" or "silent"."""
        held = self.leases.pop(index)
        slot, held.slot = held.slot, None
        conn: Conn | None = slot.conn
        if conn is not None:
            conn.holder = None
            conn.dirty = how == "dirty"
            if not conn.dead:
                conn.proved_at = self.now
            self.saw("returned after being cut", slot.state is self.states.GONE)
        if how in ("drop", "silent"):
            self.drops += 1
            self.saw("a lease was dropped")
            # Whoever is about to look again after a return still holds the slot: its finalizer does not run yet.
            if how == "silent" and conn is not None and not any(push.slot is slot for push in self.pushes):
                self.strike(slot, conn)
            return
        if how == "reject":
            self.ledger.reject(slot, self.now)
        elif conn is not None and conn.dead:
            self.ledger.reject_broken(slot, self.now)
        elif how == "dirty":
            self.start(Talk("checkin", self.conversations.checkin(self.ledger, slot, self.now + 10.0)))
        elif self.ledger.tickets or self.now >= slot.expires_at or not self.inlined:
            self.ledger.take_back(slot)
        else:
            slot.uses += 1
            self.pushes.append(Held(slot, "decided", self.now))

    def strike(self, slot: Any, conn: Conn) -> None:
        """Let a signal strike the finalizer of a slot: it tells nobody, and the driver's own closes the connection."""
        self.saw("a finalizer was struck by a signal")
        self.silent += 1
        slot.lost = Struck()
        conn.notice, conn.closed = (None, conn), True
        self.open.pop(conn.number, None)

    def push_on(self, index: int, *, drop: bool = False) -> None:
        """Let a return on the fast path go on by one piece, or be struck by a signal that raises."""
        held = self.pushes[index]
        slot = held.slot
        if drop and held.stage != "look":
            del self.pushes[index]
            self.drops += 1
            self.saw("dropped between two bytecodes of a return")
        elif held.stage == "decided":
            slot.returned_at = held.now
            slot.best_before = held.now + self.limits.check_after_s
            slot.state = self.states.IDLE
            held.stage = "idle"
        elif held.stage == "idle":
            self.seen.moves[self.states.LEASED, self.states.IDLE] += 1
            self.ledger.idle.append(slot)
            held.stage = "look"
        else:
            del self.pushes[index]
            self.second_look(held, slot)

    def second_look(self, held: Held, slot: Any) -> None:
        """Look whether anything was crossed by the shelving."""
        retired = held.now >= slot.expires_at
        self.saw("pushed although somebody had queued meanwhile", self.ledger.tickets)
        self.saw("pushed although the pool was drained meanwhile", retired and not self.ledger.closed)
        self.saw("pushed although the pool was closed meanwhile", self.ledger.closed)
        if self.ledger.tickets or retired:
            self.ledger.look_again(slot)

    # ------------------------------------------------------------------ steps: answers
    def possible(self, talk: Talk) -> Iterator[str]:
        """Yield the answers that a conversation may get now."""
        if talk.verb == "park":
            if talk.subject.waiter.woken:
                yield "ok"
            if talk.until < FOREVER:
                yield "late"
            yield from ("spurious", "error", "cancel", "drop", "never")
            return
        yield from ("ok", "error", "late", "cancel", "drop", "never")
        if talk.verb != "open":
            yield "false"
        if talk.verb in ("defer", "collect") or (talk.verb, talk.kind) == ("open", "dial"):
            yield "none"

    def answer(self, index: int, how: str, fault: Fault = Fault.GONE) -> None:
        """Answer a conversation: see ``coverage.ANSWERS`` for what there is."""
        talk = self.talks.pop(index)
        self.seen.answers[talk.kind, talk.verb, how] += 1
        self.saw_end(talk, how)
        verb, granted = talk.verb, self.granted_to(talk)
        if how == "never":
            self.hung.append(talk)
        elif how == "drop":
            self.drop(talk)
        elif how == "cancel":
            talk.thrown = True
            self.advance(talk, error=GivenUp())
        elif how == "error":
            talk.thrown = talk.verb != "open"
            self.see_fault(talk, fault)
            self.advance(talk, error=Trouble(fault))
        else:
            if how == "late":
                self.now = max(self.now, talk.until + OVERDUE_S)
            self.send(talk, how)
        if granted is not None and (how == "cancel" or (how == "error" and verb == "park")):
            self.check_passed_on(granted)
            self.saw("a check that was broken off was left to whoever comes next", verb == "check")

    def granted_to(self, talk: Talk) -> Conn | None:
        """Return the connection that a caller was granted, or is having checked, if it is as good as any."""
        slot = getattr(talk.subject, "slot", None) if talk.verb == "park" else None
        if (talk.kind, talk.verb) == ("checkout", "check") and self.survives(talk.subject):
            slot = talk.subject
        if slot is None or slot.state in (self.states.GONE, self.states.COLLECTING):
            return None
        if self.ledger.closed or self.now >= slot.expires_at:
            return None
        conn: Conn | None = slot.conn
        return conn

    def check_passed_on(self, conn: Conn) -> None:
        """Whoever is called away loses nothing."""
        closing = any(subject is conn for _, subject in self.ledger.outbox)
        lost = any(getattr(found, "conn", None) is conn for found in self.ledger.lost.found)
        must(not closing and not lost, "a caller was called away, and the connection is lost that it had been granted")
        must(
            conn.number in {slot.conn.number for slot in self.slots() if slot.conn is not None}, f"nobody has {conn!r}"
        )

    def send(self, talk: Talk, how: str) -> None:
        """Give a conversation its answer."""
        if talk.verb == "park":
            talk.subject.waiter.woken = False
            asleep = talk.kind == "checkout" and talk.subject.slot is None
            self.advance(talk)
            took_over = asleep and talk in self.talks and self.talks[-1].verb == "open"
            self.saw("a caller took over a dial that no dialer had begun", took_over)
        elif talk.verb == "open":
            self.saw("a dial landed after it had been given up", talk.subject.state is self.states.GONE)
            self.advance(talk, None if how == "none" else self.connect())
        else:
            self.advance(talk, self.outcome(talk.verb, talk.subject.conn, how))

    def connect(self) -> Conn:
        """Open a connection."""
        conn = Conn(len(self.conns) + 1, self.now)
        self.conns.append(conn)
        self.open[conn.number] = conn
        return conn

    def outcome(self, verb: str, conn: Conn, how: str) -> bool | None:
        """Return what the driver says, and have the connection be so."""
        if how == "none":
            conn.answer_out = True
            return None
        good = how != "false" and not conn.dead
        if good:
            conn.proved_at = self.now
            conn.answer_out = False
            conn.dirty = conn.dirty and verb == "check"
        return good

    def drop(self, talk: Talk) -> None:
        """Forget a conversation: a GeneratorExit, and nothing holds any more what it held."""
        self.drops += 1
        subject, talk.subject = talk.subject, None
        if talk.verb not in ("park", "open") and subject.conn is not None:
            subject.conn.user = None
        del subject
        talk.conversation.close()

    def saw_end(self, talk: Talk, how: str) -> None:
        """Count what it means that a conversation gets this answer just now."""
        if talk.verb == "park" and talk.kind == "checkout":
            ticket = talk.subject
            if ticket.slot is not None:
                self.saw("a caller was called away after it had been granted a connection", how == "cancel")
                self.saw("a caller was dropped after it had been granted a connection", how == "drop")
            elif how in ("cancel", "late"):
                mine = any(slot.asker is ticket.waiter and slot.conn is None for slot in self.ledger.live())
                self.saw("a caller gave up while the dial that it had asked for was in flight", mine)

    def see_fault(self, talk: Talk, fault: Fault) -> None:
        """Count what a dial failed with."""
        if talk.verb != "open":
            return
        if talk.subject.state is self.states.GONE:
            self.saw("a dial failed after it had been given up")
            return
        self.barred = self.barred or fault is Fault.CREDENTIALS
        if fault.value in ("server full", "credentials", "gone", "refused", "transient"):
            self.saw(f"a dial was refused: {fault.value}")
        self.saw("a dial failed before any had succeeded", not self.ledger.succeeded)

    # ------------------------------------------------------------------ steps: notices
    def deliver(self, *, lose: bool = False, twice: bool = False, refuse: bool = False) -> None:
        """Perform what is in the outbox.

        Args:
            lose: the first of them that can be derived again is lost.
            twice: the first of them will be performed once more, some time later.
            refuse: the host refuses to start threads just now.
        """
        outbox = self.ledger.outbox
        while outbox:
            notice = outbox[0]
            name = self.notices[notice[0]]
            if lose and name in _LOSABLE:
                lose = False
                self.saw(_LOSABLE[name])
                asleep = notice[1] in [reference() for reference in self.ledger.granted] if name == "WAKE" else False
                must(not asleep or self.ledger.alarm_at < FOREVER, "no tick is due that could repeat a lost wake-up")
            else:
                self.perform(name, notice, refuse=refuse)
                if twice and name != "ALARM":
                    twice = False
                    self.ghosts.append(notice)
            outbox.popleft()

    def haunt(self, index: int, *, refuse: bool = False) -> None:
        """Perform a notice for the second time."""
        notice = self.ghosts.pop(index)
        self.saw("a notice was delivered twice")
        self.perform(self.notices[notice[0]], notice, refuse=refuse)

    def perform(self, name: str, notice: tuple[Any, Any], *, refuse: bool = False) -> None:
        """Do what a notice asks for."""
        subject = notice[1]
        if name == "WAKE":
            subject.waiter.woken = True
        elif name == "DIAL" and refuse:
            begun = subject.number in self.ledger.dialing and subject.number not in self.ledger.unanswered
            self.saw("a dialer could not be started, for a dial that was begun already", begun)
            self.saw("a dialer could not be started")
            self.ledger.let_callers_dial()
        elif name == "DIAL":
            self.jobs.append(("dial", subject))
        elif name == "TEND":
            self.jobs.append(("tend", None))
        elif name == "ALARM":
            self.alarm_at = self.ledger.alarm_at
        elif name == "CLOSE":
            self.hang_up(subject, notice)

    def hang_up(self, conn: Conn, notice: tuple[Any, Any]) -> None:
        """Close a connection: once, and only if nobody uses it."""
        must(conn.notice is notice or conn.notice is None, f"{conn!r} was closed twice")
        must(conn.holder is None, f"{conn!r} was closed while a caller held it")
        must(conn.user is None, f"{conn!r} was closed while a driver's call was under way")
        conn.notice = notice
        conn.closed = True
        self.open.pop(conn.number, None)

    def begin_job(self, index: int, *, never: bool = False) -> None:
        """Have a thread that was started begin its work, or never do so."""
        kind, slot = job = self.jobs.pop(index)
        if never:
            self.saw("a dialer never began", kind == "dial")
            self.stuck.append(job)
            return
        del job
        if kind == "dial":
            begun = slot.number in self.ledger.dialing and slot.number not in self.ledger.unanswered
            self.saw("a dialer began twice", begun)
            talk = Talk("dial", self.conversations.dial(self.ledger, slot))
        else:
            talk = Talk("tend", self.conversations.tend(self.ledger))
        del slot
        self.start(talk)

    # ------------------------------------------------------------------ steps: time
    @property
    def tick_is_due(self) -> bool:
        """Would the alarm clock call now?"""
        return self.nudged or self.alarm_at <= self.now

    def tick(self) -> None:
        """Call as the alarm clock does."""
        self.saw("a tick came late", self.alarm_at < self.now - 0.05)
        self.saw("a tick came early", not self.tick_is_due)
        self.nudged = False
        self.upkeep.tick(self.ledger)
        self.alarm_at = self.ledger.alarm_at
        self.circles = self.circles + 1 if self.alarm_at <= self.now else 0
        must(self.circles < CIRCLES, "one tick follows another at once, for ever")

    def pass_time(self, seconds: float) -> None:
        """Let time pass."""
        self.now += seconds

    # ------------------------------------------------------------------ steps: the whole pool
    def drain(self, *, role: bool = False) -> None:
        """Do what ``Pool.drain`` does, or what a shell does when the server has become read-only."""
        self.saw("drained")
        self.ledger.drain(self.states.Reason.ROLE if role else self.states.Reason.DRAINED)

    def resize(self, max_size: int, min_idle: int) -> None:
        """Do what ``Pool.resize`` does."""
        self.saw("made larger", max_size > self.limits.max_size)
        self.saw("made smaller", max_size < self.limits.max_size)
        self.saw("made smaller with connections out", max_size < len(self.leases))
        self.limits = self.limits.changed(max_size=max_size, min_idle=min_idle)
        self.ledger.resize(self.limits)

    def close(self) -> None:
        """Begin what ``Pool.close`` does."""
        self.saw("closed twice" if self.ledger.closed else "closed")
        self.ledger.close()

    def cut(self) -> None:
        """Do what ``Pool.close`` does when its time is up; the pool is closed already."""
        conns: list[Conn] = self.ledger.cut()
        self.saw("cut", conns)
        for conn in conns:
            conn.dead = conn.disowned = True

    def watch(self, timeout: float, *, empty: bool) -> None:
        """Have somebody wait until the pool is filled, or empty."""
        reached = self.ledger.is_empty if empty else self.ledger.is_filled
        until = self.now + timeout
        self.start(Talk("wait", self.conversations.await_state(self.ledger, reached, until), until))

    def break_links(self) -> None:
        """Let every link break: the server was restarted."""
        self.saw("every link broke", self.open)
        for conn in self.open.values():
            conn.dead = True

    def tell(self, what: str, *details: object) -> None:
        """Write down what is about to happen, if anybody reads it."""
        if self.note is not None:
            told = " ".join(str(detail) for detail in details)
            self.note(f"{self.now:9.3f}  {what} {told}".rstrip())

    # ------------------------------------------------------------------ what must hold
    def saw(self, situation: str, really: object = True) -> None:
        """Count a situation."""
        if really:
            self.seen.situations[situation] += 1

    def check(self) -> None:
        """Assert what must hold after every step."""
        idle = self.states.IDLE
        in_hand = 0
        for held in self.pops:
            in_hand += held.slot is not None and held.slot.number in self.ledger.slots
        crossing = False
        for held in self.pushes:
            crossing = crossing or held.stage == "look"
            in_hand += held.stage == "idle" and held.slot.state is idle and held.slot.number in self.ledger.slots
        self.audit(self.ledger, in_hand=in_hand, crossing=crossing, silent=self.silent)
        if self.queued != self.ledger.counts["waits"]:
            self.queued = self.ledger.counts["waits"]
            self.barred = False
        self.check_connections()

    def check_connections(self) -> None:
        """Every open connection is in exactly one slot, or about to be closed, once."""
        for notice in self.ledger.outbox:
            conn = notice[1]
            if isinstance(conn, Conn):
                must(conn.notice is None or conn.notice is notice, f"{conn!r} is to be closed twice")
                must(conn.holder is None, f"{conn!r} is to be closed while a caller holds it")
                conn.notice = notice
                self.open.pop(conn.number, None)
        found = {slot.conn.number for slot in self.slots() if slot.conn is not None}
        if found != self.open.keys():
            lost = [conn for number, conn in self.open.items() if number not in found]
            must(not lost, f"connections in no slot: {lost}")
            must(False, f"connections in a slot and to be closed: {found - self.open.keys()}")

    def slots(self) -> Iterator[Any]:
        """Yield every slot that anybody holds."""
        for reference in self.ledger.slots.values():
            slot = reference()
            if slot is not None:
                yield slot
        for lost in self.ledger.lost.found:
            slot = lost if isinstance(lost, self.states.Slot) else getattr(lost, "slot", None)
            if slot is not None:
                yield slot
        for held in (*self.leases, *self.pops, *self.pushes):
            if held.slot is not None:
                yield held.slot
        for talk in (*self.talks, *self.hung):
            slot = talk.subject
            if talk.verb == "park":
                slot = getattr(slot, "slot", None)
            if slot is not None:
                yield slot


_LOSABLE = {
    "WAKE": "a wake-up was lost",
    "DIAL": "a dial's notice was lost",
    "TEND": "a tend's notice was lost",
}
