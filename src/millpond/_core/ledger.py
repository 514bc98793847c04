"""Who holds which connection: decisions only.

A decision changes slots and tickets and returns at once.  What others must be told goes to :attr:`Ledger.outbox`, which
the shell empties after every step.  No I/O, no lock, no thread, no event loop in here; the clock is handed in.

The contract with shells: one step at a time (a decision, or a conversation up to its next yield).  The one thing that
may change between two lines here is :attr:`Ledger.idle`, which shells pop from and append to without being in a step:
so always pop first and ask afterwards.  Finalizers only append to :attr:`Ledger.lost`.

Invariants, asserted by :func:`millpond._core.audit.audit` in every simulation:
- slots in any state, dials in flight included, never exceed ``max_size`` (but for a pool that was just made smaller);
- no ticket waits while a slot is idle, nor while room exists for longer than the dial rule allows;
- every notice can be derived again from the state, and a tick does: a lost one costs time, never a connection.

Three matters have modules of their own, which are given the ledger: slots that may be nobody's (census.py), what is
done when time has passed (upkeep.py), and what becomes of a dial (dials.py).
"""

from __future__ import annotations

import itertools
import weakref
from collections import Counter, OrderedDict, deque
from collections.abc import Iterator
from typing import Any, cast

from .census import Census, take_in
from .dialrule import TOLERANCE_S, DialRule
from .pace import HOUSEKEEPING_S, OVERRUN_S, ROUND, START_ANSWER_S
from .ports import Limits, Ports
from .states import (
    CHECKING,
    COLLECTING,
    FOREVER,
    GONE,
    IDLE,
    LEASED,
    LEGAL,
    OPENING,
    RETIRED,
    SETTLING,
    Fault,
    Lost,
    Notice,
    Reason,
    Slot,
    State,
    Ticket,
    Watcher,
)
from .upkeep import Turns

SPREAD = 0.2  # each connection's lifetime is its own, shorter by up to this share
COLLECT_S = 1.0  # an answer that nobody asked for is read within so long: behind it, row locks may be held
SUSPICION_S = 1.0  # one dead connection makes the others suspect, at most once in so long
ROLE_S = 5.0  # a suspicion that the server has become read-only is looked into at most once in so long


class Ledger:
    """The state of one pool and every decision about it."""

    def __init__(self, limits: Limits, ports: Ports[Ledger]) -> None:
        self.limits = limits
        self.ports = ports
        self.clock = ports.clock
        self.outbox: deque[tuple[Notice, Any]] = deque()
        self.lost = Lost(ports.nudge)
        self.census = Census()  # what is known of slots that may be nobody's
        # Weak on purpose: who holds a slot owns it (see states.py).  Keyed by number, every slot that is not GONE.
        self.slots: dict[int, weakref.ref[Slot]] = {}
        self.idle: deque[Slot] = deque()  # freshest on the right
        self.settling: deque[Slot] = deque()  # a deferred reset is out; the one sent first on the left
        self.tickets: OrderedDict[Ticket, None] = OrderedDict()  # oldest first; leaving from the middle costs O(1)
        self.fresh: OrderedDict[Ticket, None] = OrderedDict()  # those of them that are not overdue yet
        # Served, not yet picked up; weak, since a ticket whose caller is gone must die with what it was granted.  Not a
        # WeakSet, which is written in Python: this is in every hand-over.  A tick weeds out those that died.
        self.granted: set[weakref.ref[Ticket]] = set()
        self.dialing: OrderedDict[int, float] = OrderedDict()  # dials in flight: slot number -> decided at
        self.young: OrderedDict[int, float] = OrderedDict()  # those of them that are not late
        self.unanswered: dict[int, Slot] = {}  # dials that no dialer has begun yet; this owns their slots
        self.abandoned: weakref.WeakSet[Slot] = weakref.WeakSet()  # of dials given up whose driver call is still out
        self.disowned: weakref.WeakSet[Slot] = weakref.WeakSet()  # cut, and still with their holders
        self.turns = Turns()  # when to look after which slot
        self.untended: deque[Slot] = deque()  # taken out of idle, to be checked by the tend conversation
        self.tending_until = RETIRED  # until then somebody is expected to be at it
        self.watchers: list[Watcher] = []
        self.rule = DialRule(ports.jitter, eager=limits.eager)
        self.callers_dial = limits.callers_dial
        self.dialers_answer = False  # a dialer has been seen at work
        self.closed = False
        self.succeeded = False  # some dial has, ever
        self.last_error: BaseException | None = None  # of a dial, since the last success
        self.last_fault: Fault | None = None
        self.alarm_at = FOREVER
        self.suspected_at = RETIRED
        self.role_asked_at = RETIRED
        self.numbers = 0
        self.counts: Counter[str] = Counter()
        self.retired: Counter[Reason] = Counter()
        self.waited_s = 0.0
        self.retired_uses = 0
        self.retired_busy_s = 0.0

    # ------------------------------------------------------------------ what there is
    @property
    def room(self) -> int:
        return self.limits.max_size - len(self.slots)

    @property
    def busy(self) -> int:
        """Connections that are out, or between two hands; right but for what the fast paths do this instant."""
        return max(0, len(self.slots) - self.resting - len(self.dialing))

    @property
    def resting(self) -> int:
        """Connections that nobody uses; one of them may be in the hands of the tend conversation."""
        return len(self.idle) + len(self.settling) + len(self.untended)

    def is_empty(self) -> bool:
        return not self.slots

    def is_filled(self) -> bool:
        return len(self.slots) - len(self.dialing) >= self.limits.min_idle

    def live(self) -> Iterator[Slot]:
        for reference in list(self.slots.values()):
            slot = reference()
            if slot is not None:
                yield slot

    # ------------------------------------------------------------------ slots
    def move(self, slot: Slot, state: State) -> None:
        assert state in LEGAL[slot.state], f"bug: {slot!r} cannot become {state.value}"
        slot.state = state

    def reserve(self, now: float) -> Slot:
        """Take room for one more connection; the caller has made sure that there is some."""
        self.numbers += 1
        slot = Slot(self.numbers, self.lost, now)
        self.slots[slot.number] = weakref.ref(slot)
        return slot

    def claim(self, now: float) -> Slot | None:
        """Take a connection that nobody holds; None if there is none.

        It is LEASED when it is fresh, CHECKING when its life must be proved.  Only when there is no other it is one
        that is settling (COLLECTING): behind a long rollback an answer can take seconds.
        """
        while not self.closed:
            try:
                slot = self.idle.pop() if self.limits.lifo else self.idle.popleft()
            except IndexError:
                return self.claim_unready(now)
            if self.take(slot, now):
                return slot
        return None

    def claim_unready(self, now: float) -> Slot | None:
        """Take one that is settling, or one that waits for the tend conversation: a caller must not wait for that."""
        while self.settling or self.untended:
            slot = self.settling.popleft() if self.settling else self.untended.popleft()
            if now >= slot.expires_at and self.is_over(slot, now):
                self.give_up(slot, slot.reason)
                continue
            if slot.state is SETTLING:
                self.move(slot, COLLECTING)
            slot.leased_at = now
            return slot
        return None

    def take_back(self, slot: Slot) -> None:
        """A holder gives back a connection that is as good as new: hand it over, shelve it or give it up."""
        now = self.clock()
        if self.account(slot, now):
            self.shelve(slot, now)
            if len(self.slots) < self.limits.max_size:  # without room there is nothing to be looked at
                self.look(now)

    def account(self, slot: Slot, now: float) -> bool:
        """Enter a return into the books; False if the slot was taken off them while it was out."""
        held_s = now - slot.leased_at
        slot.uses += 1
        slot.busy_s += held_s
        if self.tickets:
            self.rule.returned(now, held_s)
        if self.lost.found:
            self.recover(now)
        if slot.state is GONE:  # by close(), or by a fork
            self.close_disowned(slot)
            return False
        if slot.uses >= self.limits.max_uses and (now < slot.expires_at or slot.reason is Reason.SURPLUS):
            slot.reason, slot.expires_at = Reason.USES, now
        return True

    def settle_later(self, slot: Slot) -> None:
        """Put a connection aside until the server has answered that it is as good as new."""
        now = self.clock()
        if (now >= slot.expires_at or self.closed) and self.is_over(slot, now):
            self.discard(slot, slot.reason)
            return
        if slot.state is not COLLECTING:
            slot.returned_at = now
        elif now - slot.returned_at >= self.limits.check_timeout_s:  # a long rollback, or nobody there
            self.suspect(now)
            self.discard(slot, Reason.DEAD)
            return
        if not self.tickets and len(self.idle) + len(self.settling) >= self.limits.max_idle:
            self.discard(slot, Reason.SURPLUS)
            return
        self.move(slot, SETTLING)
        self.settling.append(slot)
        if self.alarm_at > now + COLLECT_S:
            self.arm(now + COLLECT_S)
        if self.tickets:
            self.match(now)

    def check_later(self, slot: Slot) -> None:
        """Leave a connection to be checked by whoever comes next: the caller it was checked for was called away."""
        now = self.clock()
        if slot.state is GONE or self.is_over(slot, now):
            self.discard(slot, slot.reason)
            return
        if not self.ports.check_survives(slot):
            self.discard(slot, Reason.DEAD)
            return
        slot.best_before = RETIRED
        self.untended.append(slot)
        self.match(now)
        self.tend(now)

    def take(self, slot: Slot, now: float) -> bool:
        """Decide about an idle slot that was just popped; False if it was given up instead."""
        if self.is_over(slot, now):
            self.give_up(slot, slot.reason)
            return False
        fresh = now < slot.best_before and now - slot.returned_at <= self.ports.quiet_s
        self.move(slot, LEASED if fresh else CHECKING)
        slot.leased_at = now
        return True

    def put_back(self, slot: Slot, now: float) -> None:
        """A connection that was handed over and never used goes to the next; no more is known of it than before."""
        if slot.state is GONE:
            self.close_disowned(slot)
        elif slot.state is OPENING:
            self.discard(slot, Reason.UNCLEAN)
        elif slot.state is COLLECTING:
            self.settle_later(slot)
        elif self.is_over(slot, now):
            self.discard(slot, slot.reason)
        else:
            self.move(slot, IDLE)
            self.idle.append(slot)
            self.match(now)

    def is_over(self, slot: Slot, now: float) -> bool:
        """Is a connection to be given up as soon as its holder lets go?

        Where every caller passes, this is asked only if it may be so (``now >= slot.expires_at or self.closed``).
        """
        if slot.reason is Reason.SURPLUS and len(self.slots) <= self.limits.max_size:  # others went before it
            slot.reason, slot.expires_at = Reason.LIFETIME, self.end_of_life(slot)
        return self.closed or now >= slot.expires_at

    def end_of_life(self, slot: Slot) -> float:
        return slot.opened_at + self.limits.max_lifetime_s * (1.0 - SPREAD * self.ports.jitter())

    def shelve(self, slot: Slot, now: float, *, oldest: bool = False) -> None:
        """Put a connection among the idle ones, or give it up if its time is over; then serve who waits."""
        if (now >= slot.expires_at or self.closed) and self.is_over(slot, now):
            self.discard(slot, slot.reason)
            return
        slot.best_before = now + self.limits.check_after_s
        # With ``check_after=0`` whoever gets it proves it first: it may be of no use in another thread.
        if self.tickets and not self.idle and now < slot.best_before:
            if slot.state is not LEASED:
                self.move(slot, LEASED)
            self.grant(slot, now)
            return
        if len(self.idle) + len(self.settling) >= self.limits.max_idle:
            self.discard(slot, Reason.SURPLUS)
            return
        self.move(slot, IDLE)
        if oldest:
            self.idle.appendleft(slot)
        else:
            slot.returned_at = now
            self.idle.append(slot)
        self.match(now)

    def reject(self, slot: Slot, now: float) -> None:
        """A holder gives back a connection that was left in the middle of something."""
        if self.account(slot, now):
            self.discard(slot, Reason.UNCLEAN)

    def reject_broken(self, slot: Slot, now: float) -> None:
        """A holder gives back a connection whose link broke in its hands: the others may have fared no better."""
        if self.account(slot, now):
            self.suspect(now)
            self.discard(slot, Reason.DEAD)

    def suspect(self, now: float) -> None:
        """A connection was found dead: let every other idle one prove its life before it is handed out."""
        if now - self.suspected_at < SUSPICION_S:
            return
        self.suspected_at = now
        for slot in list(self.idle):
            slot.best_before = RETIRED

    def discard(self, slot: Slot, reason: Reason) -> None:
        """Give up a connection and its room; somebody waiting may have the room."""
        self.give_up(slot, reason)
        self.room_freed(self.clock())

    def give_up(self, slot: Slot, reason: Reason) -> None:
        """Give up a connection; whoever calls this in a loop sees to the room afterwards, once."""
        if slot.number not in self.slots:  # taken off the books while a shell had it in hand, outside any step
            slot.state = GONE
            self.close_disowned(slot)
            return
        if self.closed:
            reason = Reason.CLOSED
        if slot.conn is not None:
            self.outbox.append((Notice.CLOSE, slot.conn))
            slot.conn = None
            self.retire(slot, reason)
        self.forget(slot)

    def retire(self, slot: Slot, reason: Reason) -> None:
        """Count a connection out, and keep what it counted."""
        self.retired[reason] += 1
        self.retired_uses += slot.uses
        self.retired_busy_s += slot.busy_s
        self.tell("retired", reason=reason.value, uses=slot.uses, age=self.clock() - slot.opened_at)

    def forget(self, slot: Slot) -> None:
        """Take a slot out of the books; its holder, if it still has one, finds it GONE."""
        slot.state = GONE
        self.strike_off(slot.number)

    def strike_off(self, number: int) -> None:
        self.census.strike_off(number)
        self.slots.pop(number, None)
        self.dialing.pop(number, None)
        self.young.pop(number, None)
        self.unanswered.pop(number, None)
        self.notify()

    def is_queue_full(self) -> bool:
        """Say whether nobody may wait any more; those for whom a connection can be opened wait for nobody's return."""
        return len(self.tickets) >= self.limits.max_waiting + self.room + len(self.dialing)

    def room_freed(self, now: float) -> None:
        if self.tickets:
            self.match(now)
        self.look(now)

    def withdraw(self, slot: Slot, shelf: deque[Slot] | None = None) -> bool:
        """Take a certain slot out of idle; False if a shell was quicker.  O(idle), in C, ROUND times a tick at most."""
        try:
            (self.idle if shelf is None else shelf).remove(slot)
        except ValueError:
            return False
        return True

    def retire_idle(self, slot: Slot, reason: Reason) -> None:
        if self.withdraw(slot):
            self.discard(slot, reason)

    def recover(self, now: float) -> None:
        """Take in what nobody holds any more; bounded, the rest follows with the next step."""
        found = self.lost.found
        for _ in range(min(len(found), ROUND) if found else 0):
            if isinstance(found[0], Slot):
                take_in(self, now)
            else:
                self.recover_parked(cast("Ticket | Watcher", found.popleft()))

    # ------------------------------------------------------------------ telling
    def tell(self, what: str, **details: Any) -> None:
        """Tell observers, if there are any."""
        if self.ports.observing:
            self.report(what, **details)

    def report(self, what: str, **details: Any) -> None:
        """Tell observers, and whoever the shell makes its reports to."""
        self.outbox.append((Notice.TELL, (what, details)))

    # ------------------------------------------------------------------ tickets
    def enqueue(self, now: float, came_at: float) -> Ticket:
        """Take a place in the queue, and see whether that is worth a dial."""
        if self.closed:  # meanwhile: this caller was proving a connection, and it was dead
            raise self.ports.closed()
        tickets = self.tickets
        if len(tickets) >= self.limits.max_waiting and self.is_queue_full():
            raise self.ports.queue_full(self)
        ticket = Ticket(self.ports.new_waiter(), came_at)
        # Somebody may have come while this one was proving a connection.
        if came_at < now and tickets and next(reversed(tickets)).since > came_at:
            self.take_place(ticket)
        else:
            tickets[ticket] = None
        if now - came_at < self.rule.patience_s - TOLERANCE_S:
            self.fresh[ticket] = None
        self.counts["waits"] += 1
        if len(tickets) == 1 or self.rule.barred:
            self.rule.asked(now, len(tickets))
        if self.alarm_at > now + HOUSEKEEPING_S:  # so that the loss of any notice costs that much at most
            self.arm(now + HOUSEKEEPING_S)
        if self.idle or self.settling or self.untended or self.callers_dial:
            self.match(now)  # a shell may have shelved a slot before it could see this ticket
        # Without room there is nothing to decide: something will come back.
        if len(self.slots) < self.limits.max_size and not ticket.served:
            self.look(now)  # whether it is still hopeless, only a dial can tell
            if self.hopeless(now):
                self.fail_hopeless(now)
        return ticket

    def requeue(self, ticket: Ticket) -> None:
        """Give a ticket its old place back: what it was granted has turned out dead."""
        ticket.slot = None
        if self.closed:
            self.fail(ticket, self.ports.closed())
            return
        now = self.clock()
        self.take_place(ticket)
        self.arm(now + HOUSEKEEPING_S)
        self.match(now)
        self.look(now)

    def take_place(self, ticket: Ticket) -> None:
        """Queue a ticket by its arrival.

        Before it are only those who, like it, were served something dead: no more than there are connections.
        """
        before = list(itertools.takewhile(lambda other: other.since < ticket.since, self.tickets))
        self.tickets[ticket] = None
        for other in (ticket, *reversed(before)):
            self.tickets.move_to_end(other, last=False)

    def leave(self, ticket: Ticket) -> None:
        """Give up a place in the queue."""
        self.tickets.pop(ticket, None)
        self.fresh.pop(ticket, None)

    def match(self, now: float) -> None:
        """Give what is idle to the oldest tickets; where callers dial, give them room as well."""
        while self.tickets:
            slot = self.claim(now) if self.idle or self.settling or self.untended else None
            if slot is None:
                if not self.callers_dial or self.room <= 0:
                    return
                slot = self.reserve(now)
                self.dialing[slot.number] = now
                self.arm(now + HOUSEKEEPING_S)
            self.grant(slot, now)

    def grant(self, slot: Slot, now: float) -> None:
        ticket, _ = self.tickets.popitem(last=False)
        if self.fresh:
            self.fresh.pop(ticket, None)
        assert ticket.slot is None, "bug: a ticket was granted twice"
        assert ticket.error is None, "bug: a ticket that was refused is granted"
        ticket.slot = slot
        slot.code = None  # whoever had it last has nothing to do with what becomes of it now
        waited_s = now - ticket.since
        self.waited_s += waited_s
        self.rule.served(waited_s)
        self.wake(ticket)

    def fail(self, ticket: Ticket, error: BaseException) -> None:
        self.leave(ticket)
        ticket.error = error
        self.wake(ticket)

    def fail_all(self, error: BaseException) -> None:
        while self.tickets:
            self.fail(next(iter(self.tickets)), error)

    def fail_hopeless(self, now: float) -> None:
        """Tell everybody at once: the driver's own word on credentials, else a time-out that says what is wrong."""
        if self.last_fault is Fault.CREDENTIALS and self.last_error is not None:
            self.fail_all(self.last_error)
        while self.tickets:
            ticket = next(iter(self.tickets))
            self.fail(ticket, self.ports.timed_out(self, now - ticket.since))

    def wake(self, ticket: Ticket) -> None:
        self.granted.add(weakref.ref(ticket))
        self.outbox.append((Notice.WAKE, ticket))

    def pick_up(self, ticket: Ticket) -> Slot | None:
        """Take from a ticket what it was granted, if anything: a notice that comes late may still hold the ticket."""
        self.granted.discard(weakref.ref(ticket))
        slot, ticket.slot = ticket.slot, None
        return slot

    def recover_parked(self, parked: Ticket | Watcher) -> None:
        """Whoever was parked there will not come back."""
        if isinstance(parked, Watcher):
            self.unwatch(parked)
        else:
            self.leave(parked)
            self.pass_on(parked)

    def pass_on(self, ticket: Ticket) -> None:
        """What a caller was granted who does not want it any more goes to the next."""
        slot = self.pick_up(ticket)
        if slot is not None:
            self.put_back(slot, self.clock())

    # ------------------------------------------------------------------ whether to dial
    def look(self, now: float) -> None:
        """Apply the dial rule: begin the dials that pay, and arrange for the next look."""
        if self.room <= 0 or self.closed or self.callers_dial:
            return
        while self.fresh:
            ticket = next(iter(self.fresh))
            if now - ticket.since < self.rule.patience_s - TOLERANCE_S:
                break
            del self.fresh[ticket]
        self.forget_late(now)
        if self.tickets:
            self.dial_for_queue(now)
        self.refill(now)
        self.arm(self.next_look_at(now))

    def forget_late(self, now: float) -> None:
        while self.young:
            number, begun_at = next(iter(self.young.items()))
            if now - begun_at < self.rule.late_after_s - TOLERANCE_S:
                return
            del self.young[number]

    def dial_for_queue(self, now: float) -> None:
        waiting = len(self.tickets)
        wanted = self.rule.wanted(
            now, waiting=waiting, overdue=waiting - len(self.fresh), busy=self.busy, pending=len(self.young)
        )
        while len(self.young) < wanted - TOLERANCE_S and self.may_dial(now):
            self.dial(now)

    def may_dial(self, now: float) -> bool:
        in_flight = len(self.dialing) + len(self.abandoned)
        may = self.room > 0 and not self.closed and in_flight < self.limits.max_dialing
        return may and self.rule.may_dial(now, waiting=len(self.tickets), pending=len(self.young))

    def dial(self, now: float) -> None:
        """Reserve room and ask the shell for a dialer."""
        slot = self.reserve(now)
        self.dialing[slot.number] = now
        self.young[slot.number] = now
        self.unanswered[slot.number] = slot
        self.rule.begun(now)
        if self.tickets:
            slot.asker = next(reversed(self.tickets)).waiter
        self.outbox.append((Notice.DIAL, slot))
        # One look a dial: an overdue dial gives its room back, one that no dialer took up is asked for again.
        self.arm(now + START_ANSWER_S)

    def refill(self, now: float) -> None:
        """Dial up to ``min_idle`` while nobody waits; the queue has its own rule."""
        if self.tickets:
            return
        while self.lacks_idle(now) and self.may_dial(now):
            self.dial(now)

    def lacks_idle(self, now: float) -> bool:
        """Is ``min_idle`` more than there is, and is that ours to mend?"""
        if self.closed or self.callers_dial:
            return False
        in_tending = now < self.tending_until  # one is being looked after, and comes back
        return self.resting + in_tending + len(self.dialing) < self.limits.min_idle

    def next_look_at(self, now: float) -> float:
        """Return when the rule's answer may change without anything else happening."""
        if self.room <= 0 or not (self.tickets or self.lacks_idle(now)):
            return FOREVER
        due_at = FOREVER
        if self.fresh:
            due_at = next(iter(self.fresh)).since + self.rule.patience_s
        if self.young:
            due_at = min(due_at, next(iter(self.young.values())) + self.rule.late_after_s)
        if self.rule.failures and self.rule.retry_at > now and not self.rule.barred:
            due_at = min(due_at, self.rule.retry_at)
        if self.tickets and self.outage_ends_at > now:
            due_at = min(due_at, self.outage_ends_at)
        return due_at

    @property
    def outage_ends_at(self) -> float:
        """When an outage has lasted so long that callers are told at once (``fail_after``)."""
        return self.rule.outage_at + self.limits.fail_after_s

    def hopeless(self, now: float) -> bool:
        """Is waiting in vain: a long outage, or refused credentials, and nothing under way that could help?"""
        self.forget_late(now)
        if self.busy or self.young:
            return False
        refused = self.rule.wary and self.last_fault is Fault.CREDENTIALS
        return refused or (self.rule.failures > 0 and now >= self.outage_ends_at)

    def let_callers_dial(self) -> None:
        """Let callers dial for themselves: no dialer can be had.  Those that have begun are left to their work."""
        self.callers_dial = True
        for slot in list(self.unanswered.values()):
            self.forget(slot)
        self.match(self.clock())

    def abandon(self, slot: Slot) -> None:
        """Give a dial up: its room is free at once, its driver's call may come back or not."""
        if slot.number not in self.unanswered:
            self.abandoned.add(slot)
        self.forget(slot)

    # ------------------------------------------------------------------ time
    def arm(self, at: float) -> None:
        """See to it that :func:`millpond._core.upkeep.tick` is called at *at* or before."""
        if at < self.alarm_at:
            self.alarm_at = at
            self.outbox.append((Notice.ALARM, at))

    def alarm_refused(self) -> None:
        """Nobody can be had now who calls the tick: let the next step that needs it ask again."""
        self.alarm_at = FOREVER

    def tend(self, now: float) -> None:
        """Have the withdrawn connections checked, unless somebody is at it."""
        if self.untended and now >= self.tending_until:
            self.tending_until = now + self.limits.check_timeout_s + OVERRUN_S
            self.outbox.append((Notice.TEND, None))

    def looks_into_role(self, now: float) -> bool:
        """Say whether a suspicion that the server has become read-only is to be looked into now."""
        if now - self.role_asked_at < ROLE_S:
            return False
        self.role_asked_at = now
        return True

    # ------------------------------------------------------------------ the whole pool
    def look_again(self, slot: Slot) -> None:
        """Put right what a shelving outside a step may have crossed: a new ticket, a drain, a close."""
        now = self.clock()
        if self.is_over(slot, now):
            self.retire_idle(slot, slot.reason)
        self.match(now)

    def drain(self, reason: Reason = Reason.DRAINED) -> None:
        """Retire every connection: idle ones now, leased ones and those being dialled when they come (back)."""
        for slot in self.live():
            slot.reason = reason
            slot.expires_at = RETIRED
        while self.resting:
            self.give_up_oldest(reason)
        self.room_freed(self.clock())

    def give_up_oldest(self, reason: Reason) -> None:
        try:
            slot = (self.settling or self.untended or self.idle).popleft()
        except IndexError:  # a shell was quicker; it will find the slot retired when it comes back
            return
        self.give_up(slot, reason)

    def obey(self, limits: Limits) -> None:
        """Obey other limits from now on; for changes that take no connection away."""
        self.limits = limits

    def resize(self, limits: Limits) -> None:
        """Obey other limits from now on; what is too many goes idle first, then as it comes back."""
        self.limits = limits
        now = self.clock()
        while len(self.slots) > limits.max_size and self.resting:
            self.give_up_oldest(Reason.SURPLUS)
        if len(self.slots) > limits.max_size:
            self.retire_surplus()
        self.room_freed(now)

    def retire_surplus(self) -> None:
        """Retire all that are out: whichever come back first are given up, the others are pardoned."""
        for slot in self.live():
            if slot.expires_at > RETIRED:
                slot.reason, slot.expires_at = Reason.SURPLUS, RETIRED

    def close(self) -> None:
        """Refuse new callers, fail the waiting ones, give up what is idle; what is out follows when it comes back.

        The second time it does what a signal may have kept the first one from.
        """
        self.closed = True
        error = self.ports.closed()
        self.fail_all(error)
        for number in list(self.dialing):
            slot = self.slots[number]()
            if slot is not None:
                self.abandon(slot)
        self.drain(Reason.CLOSED)
        for watcher in self.watchers:
            if watcher.reached != self.is_empty:  # who waits for the end is not refused by it
                watcher.error = watcher.error or error
        self.notify()

    def reopen(self) -> None:
        """Take callers again after a close, as if nothing had been."""
        self.closed = False
        self.look(self.clock())

    def cut(self) -> list[Any]:
        """Disown every connection that is still out; return them, so that their links can be broken.

        Their holders may be in the middle of a driver's call, so nobody else closes them: that follows when they come
        back.
        """
        cut = [slot for slot in self.live() if slot.conn is not None]
        for slot in cut:
            self.retire(slot, Reason.CLOSED)
            self.forget(slot)
            self.disowned.add(slot)
        return [slot.conn for slot in cut]

    def take_all(self) -> None:
        """Close every connection, whoever has it: nobody is left who could give it back."""
        for slot in self.live():
            self.give_up(slot, Reason.CLOSED)
        for slot in self.disowned:
            self.close_disowned(slot)

    def rest(self) -> None:
        """Nothing is left to look after: let the alarm be."""
        if not self.slots:
            self.alarm_at = FOREVER
            self.turns.clear()

    def close_disowned(self, slot: Slot) -> None:
        """The holder of a connection that was taken off the books has let go of it."""
        if slot.conn is not None:
            self.outbox.append((Notice.CLOSE, slot.conn))
            slot.conn = None

    # ------------------------------------------------------------------ watchers
    def watch(self, watcher: Watcher) -> None:
        self.watchers.append(watcher)
        self.arm(self.clock() + HOUSEKEEPING_S)

    def unwatch(self, watcher: Watcher) -> None:
        if watcher in self.watchers:
            self.watchers.remove(watcher)

    def notify(self) -> None:
        for watcher in self.watchers:
            if watcher.error is not None or watcher.reached():
                self.outbox.append((Notice.WAKE, watcher))

    def fail_watchers(self, error: BaseException) -> None:
        for watcher in self.watchers:
            watcher.error = error
        self.notify()
