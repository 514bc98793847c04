"""Who holds which connection: decisions only.

A decision changes slots and tickets and returns at once.  What others must be told goes to :attr:`Ledger.outbox`, which
the shell empties after every step.  No I/O, no lock, no thread, no event loop in here; the clock is handed in.

The contract with shells: one step at a time (a decision, or a conversation up to its next yield).  The one thing that
may change between two lines here is :attr:`Ledger.idle`, which shells pop from and append to without being in a step:
so always pop first and ask afterwards.  Finalizers only append to :attr:`Ledger.lost`.

Invariants, asserted by :meth:`Ledger.audit` in every simulation:
- slots in any state, dials in flight included, never exceed ``max_size`` (but for a pool that was just made smaller);
- no ticket waits while a slot is idle, nor while room exists for longer than the dial rule allows;
- every notice can be derived again from the state, and ``tick`` does: a lost one costs time, never a connection.
"""

from __future__ import annotations

import heapq
import itertools
import weakref
from collections import Counter, OrderedDict, deque
from collections.abc import Iterator
from typing import Any, cast

from .dialrule import TOLERANCE_S, DialRule
from .ports import Limits, Ports, replica
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

SPREAD = 0.2  # each connection's lifetime is its own, shorter by up to this share
RENEW_S = 10.0  # a replacement is dialled this long before the end of a lifetime ...
RENEW_SHARE = 0.05  # ... or this share of it, whichever is less
CENSUS = 256  # slots counted in one tick; a signal would have to strike in a finalizer for one to be missing
ROUND = 32  # connections looked after in one tick; the rest follow in the next, at once
COLLECT_S = 1.0  # an answer that nobody asked for is read within so long: behind it, row locks may be held
HOUSEKEEPING_S = 1.0  # the longest time between two ticks while something could have been lost
KEEPALIVE_S = 10.0  # unasked checks of one idle connection are at least so far apart, however small ``check_after`` is
START_ANSWER_S = 0.25  # a dialer that has not begun by then is asked for again, or the caller dials
OVERRUN_S = 0.5  # a driver may overrun its deadline by so much before its call is given up
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
        # Weak on purpose: who holds a slot owns it (see states.py).  Keyed by number, every slot that is not GONE.
        self.slots: dict[int, weakref.ref[Slot]] = {}
        self.idle: deque[Slot] = deque()  # freshest on the right
        self.settling: deque[Slot] = deque()  # a deferred reset is out; the one sent first on the left
        self.tickets: OrderedDict[Ticket, None] = OrderedDict()  # oldest first; leaving from the middle costs O(1)
        self.fresh: OrderedDict[Ticket, None] = OrderedDict()  # those of them that are not overdue yet
        # Served, not yet picked up; weak, since a ticket whose caller is gone must die with what it was granted.  Not a
        # WeakSet, which is written in Python: this is in every hand-over.  ``tick`` weeds out those that died.
        self.granted: set[weakref.ref[Ticket]] = set()
        self.dialing: OrderedDict[int, float] = OrderedDict()  # dials in flight: slot number -> decided at
        self.young: OrderedDict[int, float] = OrderedDict()  # those of them that are not late
        self.unanswered: dict[int, Slot] = {}  # dials that no dialer has begun yet; this owns their slots
        self.abandoned: weakref.WeakSet[Slot] = weakref.WeakSet()  # of dials given up whose driver call is still out
        self.undead: dict[int, Slot] = {}  # finalized and alive: copies of such slots, for when they die after all
        self.missing: set[int] = set()  # slots of which the last census has found no trace
        self.disowned: weakref.WeakSet[Slot] = weakref.WeakSet()  # cut, and still with their holders
        self.upkeep: list[tuple[float, int]] = []  # heap: when to look at which slot; one entry a slot
        self.uncounted: deque[int] = deque()  # slots that this census has still to look at
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
            if self.is_over(slot, now):
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
        if self.is_over(slot, now):
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
        self.arm(now + COLLECT_S)
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
        """Is a connection to be given up as soon as its holder lets go?"""
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
        self.bring_back(number)
        self.missing.discard(number)
        self.slots.pop(number, None)
        self.dialing.pop(number, None)
        self.young.pop(number, None)
        self.unanswered.pop(number, None)
        self.notify()

    def room_freed(self, now: float) -> None:
        if self.tickets:
            self.match(now)
        self.look(now)

    def recover(self, now: float) -> None:
        """Take in what nobody holds any more; bounded, the rest follows with the next step."""
        found = self.lost.found
        for _ in range(min(len(found), ROUND) if found else 0):
            if isinstance(found[0], Slot):
                self.recover_slot(now)
            else:
                self.recover_parked(cast("Ticket | Watcher", found.popleft()))

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

    def reclaim(self, slot: Slot, *, left: bool) -> Slot | None:
        """Return a new body for a slot that finalizers may have seen, or may see yet; None if it is nobody's by now.

        A generator that the garbage collector closes gives back what is garbage with it.

        Args:
            left: it was put aside by whoever the collector has closed; if it was finalized as well, it was dropped.
        """
        while self.lost.found:
            self.recover(self.clock())
        if slot.state is GONE:
            self.close_disowned(slot)
            return None
        heir = slot.heir()
        self.slots[heir.number] = weakref.ref(heir)
        if self.bring_back(heir.number) and left:
            self.bury(heir, self.clock())
            return None
        return heir

    def bring_back(self, number: int) -> bool:
        """Forget that a slot was finalized; False if it was not."""
        twin = self.undead.pop(number, None)
        if twin is None:
            return False
        twin.lay_down()
        return True

    def was_garbage(self, slot: Slot) -> bool:
        """Say whether the garbage collector has had this slot in hand: it clears references before it finalizes."""
        reference = self.slots.get(slot.number)
        return reference is not None and reference() is None

    def recover_slot(self, now: float) -> None:
        """Take in the next slot that was finalized.

        It need not be nobody's: the collector finalizes what is garbage in any order, so whatever held the lease may
        have given it back first, and somebody else have taken it since.  It is lost when nothing else holds it.
        """
        slot = cast("Slot", self.lost.found.popleft())  # nobody else may hold it in here
        if slot.state is GONE:  # reclaimed, or cut, meanwhile
            self.close_disowned(slot)
            return
        number, twin = slot.number, slot.twin()
        for shelf in (self.idle, self.settling, self.untended):
            if slot in shelf:
                self.withdraw(slot, shelf)
        in_books = number in self.slots
        reference = weakref.ref(slot)
        del slot
        if reference() is None:
            self.bury(twin, now)
        elif in_books:
            self.slots[number] = reference
            self.undead[number] = twin
            self.arm(now + HOUSEKEEPING_S)
        else:
            twin.lay_down()

    def bury(self, slot: Slot, now: float) -> None:
        """Nobody holds a connection any more: give it up."""
        if slot.state is LEASED:
            self.counts["dropped"] += 1
            slot.uses += 1
            slot.busy_s += now - slot.leased_at
            self.report("dropped", slot=slot, held_s=now - slot.leased_at)
        if slot.number not in self.slots:  # counted out between its death and its finalizer
            slot.state = GONE
            self.close_disowned(slot)
            return
        self.slots[slot.number] = weakref.ref(slot)
        self.counts["lost"] += 1
        slot.reason = Reason.UNCLEAN
        # Nobody can say what its last holder left in it, and a finalizer cannot wait for a reset: it is given up.
        self.discard(slot, Reason.UNCLEAN)

    def bury_undead(self, now: float) -> None:
        for number, twin in list(self.undead.items()):
            if self.slots[number]() is None:
                del self.undead[number]
                self.bury(twin, now)

    def count_slots(self, now: float) -> None:
        """Free the room of slots that died without a word; so many a tick, all of them in turn.

        That takes a signal handler that raises in a finalizer, where Python drops what is raised.  One is counted out
        when it was missing twice: the collector clears references before it finalizes, and may be at that just now.
        """
        if self.lost.found:  # one that died in a cycle has lost its references as well, and is in there
            return
        if not self.uncounted:
            self.uncounted.extend(self.slots)
        for _ in range(min(len(self.uncounted), CENSUS)):
            number = self.uncounted.popleft()
            reference = self.slots.get(number)
            if reference is None or reference() is not None or number in self.undead:
                self.missing.discard(number)
                continue
            if number not in self.missing:
                self.missing.add(number)
                self.arm(now + HOUSEKEEPING_S)
                continue
            self.counts["lost"] += 1
            self.retired[Reason.UNCLEAN] += number not in self.dialing
            self.strike_off(number)
            self.room_freed(now)

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
        if len(tickets) >= self.limits.max_waiting:
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
        self.rule.asked(now, len(tickets))
        if self.alarm_at > now + HOUSEKEEPING_S:  # so that the loss of any notice costs that much at most
            self.arm(now + HOUSEKEEPING_S)
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

    # ------------------------------------------------------------------ dials
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

    def dial_begins(self, slot: Slot) -> Slot | None:
        """Return what a dialer is to go on with: nothing if another one has begun, or the dial was given up."""
        self.dialers_answer = True
        if self.callers_dial and not self.limits.callers_dial:
            self.callers_dial = False
            self.look(self.clock())
        return self.taken_up(slot) if slot.number in self.unanswered else None

    def taken_up(self, slot: Slot) -> Slot:
        """Give a dial that begins a body of its own: threads that began too late, or never, may hold the old one."""
        del self.unanswered[slot.number]
        heir = slot.heir()
        self.slots[slot.number] = weakref.ref(heir)
        return heir

    def answer_by(self, now: float) -> float:
        """Return when a parked caller should look whether any dialer works here at all."""
        return FOREVER if self.dialers_answer or self.callers_dial else now + START_ANSWER_S

    def begun_by_caller(self, ticket: Ticket) -> None:
        """Hand one of the dials to the caller who waits for it, if no dialer has ever answered; leave it at that.

        Hosts exist where a new thread starts without an error and never runs (uWSGI without ``enable-threads``).
        """
        if ticket.served or self.dialers_answer or not self.unanswered:
            return
        self.callers_dial = True
        ticket.slot = self.taken_up(next(iter(self.unanswered.values())))
        self.leave(ticket)
        for other in list(self.unanswered.values()):
            self.forget(other)
        self.match(self.clock())

    def dial_elsewhere(self, _slot: Slot) -> None:
        """Let callers dial for themselves: no dialer can be had.  Those that have begun are left to their work."""
        self.let_callers_dial()

    def dial_unusable(self, slot: Slot) -> None:
        """Let callers dial for themselves: dialers make connections that only they may use."""
        if slot.state is GONE:
            self.abandoned.discard(slot)
        else:
            self.forget(slot)
        self.let_callers_dial()

    def let_callers_dial(self) -> None:
        self.callers_dial = True
        for slot in list(self.unanswered.values()):
            self.forget(slot)
        self.match(self.clock())

    def landed(self, slot: Slot, conn: Any) -> None:
        """A dial has succeeded; whoever is first in the queue gets it."""
        now = self.clock()
        if slot.state is GONE:  # given up before: overdue, or the pool was closed
            self.late_arrival(slot, conn)
            return
        self.settle(slot, conn, now)
        self.shelve(slot, now)
        self.notify()
        self.look(now)

    def settle(self, slot: Slot, conn: Any, now: float) -> None:
        """Enter a new connection into the books."""
        began_at = self.dialing.pop(slot.number, now)
        self.young.pop(slot.number, None)
        self.rule.succeeded(now - began_at)
        self.succeeded = True
        self.last_error = self.last_fault = None
        self.counts["opened"] += 1
        self.tell("opened", seconds=now - began_at)
        slot.conn = conn
        slot.opened_at = now
        if slot.expires_at > now:  # else it was drained while it was dialled
            slot.expires_at = self.end_of_life(slot)
        if len(self.upkeep) > 2 * self.limits.max_size + ROUND:  # of connections that did not live to see their turn
            self.upkeep = [entry for entry in self.upkeep if entry[1] in self.slots]
            heapq.heapify(self.upkeep)
        heapq.heappush(self.upkeep, (self.care_at(slot, now), slot.number))
        self.arm(self.upkeep[0][0])

    def late_arrival(self, slot: Slot, conn: Any) -> None:
        self.abandoned.discard(slot)
        self.counts["opened"] += 1
        self.retired[Reason.LATE] += 1
        self.outbox.append((Notice.CLOSE, conn))
        self.notify()

    def dial_failed(self, slot: Slot, error: BaseException) -> None:
        """A dial has failed: tell those whom waiting cannot help, and arrange for the next try."""
        now = self.clock()
        if slot.state is GONE:
            self.abandoned.discard(slot)
            self.notify()
            return
        fault = self.ports.classify(error)
        self.counts["failed"] += 1
        self.tell("open_failed", error=error, seconds=now - slot.opened_at)
        error = replica(error)  # without its traceback, whose frames would keep what callers hold alive
        self.last_error, self.last_fault = error, fault
        self.rule.failed(now)
        if fault is Fault.CREDENTIALS:
            self.rule.refused(now)
        self.forget(slot)
        may_pass = fault in (Fault.SERVER_FULL, Fault.TRANSIENT)
        if not self.succeeded and not may_pass:
            self.fail_all(error)
            self.fail_watchers(error)
        elif self.hopeless(now):
            self.fail_hopeless(now)
        self.room_freed(now)

    def dial_interrupted(self, slot: Slot) -> None:
        """Whoever dialled was called away: that says nothing of the server, and concerns nobody else."""
        now = self.clock()
        if slot.state is GONE:
            self.abandoned.discard(slot)
            self.notify()
            return
        self.counts["failed"] += 1
        self.rule.failed(now)  # the next try is not made at once: the host may be about to end
        self.forget(slot)
        self.room_freed(now)

    def abandon_overdue(self, now: float) -> None:
        """Give back the room of dials that their drivers cannot end in time."""
        limit_s = self.limits.connect_timeout_s + OVERRUN_S
        while self.dialing:
            number, begun_at = next(iter(self.dialing.items()))
            if now - begun_at < limit_s - TOLERANCE_S:
                self.arm(begun_at + limit_s)
                return
            slot = self.slots[number]()
            if slot is None:  # its dialer is gone too: recover() has it
                self.dialing.pop(number)
                continue
            self.counts["abandoned"] += 1
            self.abandon(slot)
            self.rule.failed(now)

    def abandon(self, slot: Slot) -> None:
        """Give a dial up: its room is free at once, its driver's call may come back or not."""
        if slot.number not in self.unanswered:
            self.abandoned.add(slot)
        self.forget(slot)

    # ------------------------------------------------------------------ time
    def tick(self) -> None:
        """Do what is due now; a shell calls this at each alarm, and whenever it was nudged."""
        now = self.clock()
        self.alarm_at = FOREVER
        self.recover(now)
        self.bury_undead(now)
        self.count_slots(now)
        for reference in list(itertools.islice(self.granted, ROUND)):
            ticket = reference()
            if ticket is None:
                self.granted.discard(reference)
            else:
                self.outbox.append((Notice.WAKE, ticket))  # the first one may have been lost to a signal
        for number, slot in list(self.unanswered.items()):
            if now - self.dialing.get(number, now) >= START_ANSWER_S - TOLERANCE_S:
                self.outbox.append((Notice.DIAL, slot))
        self.abandon_overdue(now)
        if self.hopeless(now):
            self.fail_hopeless(now)
        self.care(now)
        self.care_for_settling()
        self.tend(now)
        self.match(now)
        self.look(now)
        self.notify()
        self.arm_for_the_next(now)

    def arm_for_the_next(self, now: float) -> None:
        """See to it that whatever is left to do is looked at in time."""
        if not self.slots:
            self.upkeep.clear()
        waited_for = self.tickets or self.granted or self.watchers or self.dialing
        in_progress = waited_for or self.settling or self.untended or self.undead or self.missing
        keeps_idle = self.limits.min_idle and self.room > 0 and not self.closed and not self.callers_dial
        if in_progress or keeps_idle:  # a checkout outside of any step may have taken one of ``min_idle``
            self.arm(now + HOUSEKEEPING_S)
        if self.upkeep:
            self.arm(self.upkeep[0][0])
        if self.tending_until > now:  # whoever tends may never come back
            self.arm(self.tending_until)
        if self.lost.found:
            self.arm(now)

    def arm(self, at: float) -> None:
        """See to it that ``tick`` is called at *at* or before."""
        if at < self.alarm_at:
            self.alarm_at = at
            self.outbox.append((Notice.ALARM, at))

    def alarm_refused(self) -> None:
        """Nobody can be had now who calls ``tick``: let the next step that needs it ask again."""
        self.alarm_at = FOREVER

    def care_at(self, slot: Slot, now: float) -> float:
        """Return when this slot will next need to be looked at."""
        due_at = slot.expires_at if slot.renewed else slot.expires_at - self.renew_s
        patience_s = self.limits.idle_timeout_s
        if slot.state is IDLE:
            idle_at = slot.returned_at + patience_s
            # One that is kept idle for longer, because of ``min_idle``, is looked at every so often.
            due_at = min(due_at, self.keepalive_at(slot), idle_at if idle_at > now else now + patience_s)
        else:
            due_at = min(due_at, now + min(max(self.limits.check_after_s, KEEPALIVE_S), patience_s))
        # Whatever the limits are: a pool at rest must not keep a processor busy.
        return max(due_at, now + HOUSEKEEPING_S)

    def keepalive_at(self, slot: Slot) -> float:
        """Return when an idle connection must prove its life although nobody asks for it."""
        return slot.best_before + max(0.0, KEEPALIVE_S - self.limits.check_after_s)

    @property
    def renew_s(self) -> float:
        return min(RENEW_S, RENEW_SHARE * self.limits.max_lifetime_s)

    def care(self, now: float) -> None:
        """Look after the slots whose turn it is: lifetime, idle time, signs of life."""
        for _ in range(ROUND):
            if not self.upkeep or self.upkeep[0][0] > now + TOLERANCE_S:
                return
            _, number = heapq.heappop(self.upkeep)
            reference = self.slots.get(number)
            slot = reference() if reference is not None else None
            if slot is None:
                continue
            self.care_for(slot, now)
            if slot.state is not GONE:
                heapq.heappush(self.upkeep, (self.care_at(slot, now), number))

    def care_for(self, slot: Slot, now: float) -> None:
        if now >= slot.expires_at - self.renew_s and not slot.renewed:
            self.renew(slot, now)
        if slot.state is not IDLE:
            return
        surplus = self.resting > self.limits.min_idle
        if now >= slot.expires_at:
            self.retire_idle(slot, slot.reason)
        elif surplus and now >= slot.returned_at + self.limits.idle_timeout_s - TOLERANCE_S:
            self.retire_idle(slot, Reason.IDLE)
        elif now >= self.keepalive_at(slot) - TOLERANCE_S and self.withdraw(slot):
            self.move(slot, CHECKING)
            self.untended.append(slot)
            self.tend(now)

    def tend(self, now: float) -> None:
        """Have the withdrawn connections checked, unless somebody is at it."""
        if self.untended and now >= self.tending_until:
            self.tending_until = now + self.limits.check_timeout_s + OVERRUN_S
            self.outbox.append((Notice.TEND, None))

    def care_for_settling(self) -> None:
        """Have the answers read that have come meanwhile."""
        for _ in range(min(len(self.settling), ROUND)):
            slot = self.settling.popleft()
            self.move(slot, COLLECTING)
            self.untended.append(slot)

    def renew(self, slot: Slot, now: float) -> None:
        """Dial a replacement for a connection whose life ends soon, if it is in use and there is room beside it."""
        in_use = slot.state is not IDLE or now - slot.returned_at < self.limits.check_after_s
        needed = in_use or len(self.slots) - len(self.dialing) <= self.limits.min_idle
        slot.renewed = True
        needed = needed and slot.reason is not Reason.SURPLUS
        if needed and not self.tickets and not self.callers_dial and self.may_dial(now):
            self.counts["renewed"] += 1
            self.dial(now)

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

    def suspect(self, now: float) -> None:
        """A connection was found dead: let every other idle one prove its life before it is handed out."""
        if now - self.suspected_at < SUSPICION_S:
            return
        self.suspected_at = now
        for slot in list(self.idle):
            slot.best_before = RETIRED

    def reject_broken(self, slot: Slot, now: float) -> None:
        """A holder gives back a connection whose link broke in its hands: the others may have fared no better."""
        if self.account(slot, now):
            self.suspect(now)
            self.discard(slot, Reason.DEAD)

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
        for slot in self.live() if len(self.slots) > limits.max_size else ():
            if slot.expires_at > RETIRED:  # whichever come back first are given up, the others are pardoned
                slot.reason, slot.expires_at = Reason.SURPLUS, RETIRED
        self.room_freed(now)

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
            self.upkeep.clear()

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

    # ------------------------------------------------------------------ proof
    def audit(self, *, in_hand: int = 0, crossing: bool = False, silent: int = 0) -> None:
        """Assert the invariants; for tests and simulations, between two steps.

        Args:
            in_hand: slots in IDLE that a shell holds this instant, outside of any step.
            crossing: a shell has shelved a slot outside of any step, and has not looked again yet.
            silent: slots whose finalizers were struck by a signal, so that they died without a word.
        """
        lost = {slot.number for slot in self.lost.found if isinstance(slot, Slot)}
        held = [slot for slot in self.live() if slot.number not in lost]
        dead = self.slots.keys() - lost - self.undead.keys() - {slot.number for slot in held}
        assert len(dead) <= silent, "bug: a slot is dead"
        states = Counter([slot.state for slot in held])
        assert GONE not in states, "bug: a slot in the books is gone"
        self.audit_queue()
        self.audit_dials(states)
        self.audit_time()
        assert all((slot.conn is None) == (slot.state is OPENING) for slot in held), "bug: a slot is half open"
        assert states[SETTLING] == len(self.settling), "bug: a settling slot is not where settling slots are"
        assert all(slot.state is SETTLING for slot in self.settling), "bug: something settling is not SETTLING"
        assert all(slot.state in (CHECKING, COLLECTING) for slot in self.untended), "bug: something untended is not"
        kept = sum(slot.expires_at > RETIRED for slot in held)
        assert kept <= self.limits.max_size, "bug: more slots than max_size"
        if crossing:
            return
        assert not (self.tickets and self.resting), "bug: somebody waits while a connection is there"
        assert states[IDLE] == len(self.idle) + in_hand, "bug: an idle slot is not where idle slots are"
        assert all(slot.state is IDLE for slot in self.idle), "bug: something idle is not IDLE"
        assert not any(slot.expires_at == RETIRED for slot in self.idle), "bug: something retired is idle"
        assert not (self.closed and self.resting), "bug: a closed pool keeps connections"

    def audit_queue(self) -> None:
        assert self.tickets.keys() >= self.fresh.keys(), "bug: a fresh ticket is not in the queue"
        assert not any(ticket.served for ticket in self.tickets), "bug: a served ticket is still queued"
        assert not (self.tickets and self.closed), "bug: somebody waits for a closed pool"
        arrivals = [ticket.since for ticket in self.tickets]
        assert arrivals == sorted(arrivals), "bug: the queue is not in the order of arrival"
        if self.callers_dial and self.tickets:
            assert self.room <= 0, "bug: somebody waits who could dial"

    def audit_dials(self, states: Counter[State]) -> None:
        assert states[OPENING] <= len(self.dialing), "bug: a dial is not in the books"
        assert self.dialing.keys() <= self.slots.keys(), "bug: a dial has no slot"
        assert self.unanswered.keys() <= self.dialing.keys(), "bug: a dial nobody began is not in the books"
        assert self.young.keys() <= self.dialing.keys(), "bug: a young dial is not in flight"
        assert not (self.closed and self.dialing), "bug: a closed pool dials"

    def audit_time(self) -> None:
        """Whatever waits for time to pass must have an alarm."""
        assert not (self.tickets or self.granted or self.dialing) or self.alarm_at < FOREVER, "bug: no alarm is set"
        if self.upkeep and self.slots:
            assert self.alarm_at <= self.upkeep[0][0], "bug: upkeep is due and no alarm is set"
