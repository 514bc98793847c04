"""What is done when time has passed, for connections that nobody asks for and callers whom nobody has told.

Why: a pool that is left alone must not decay.  Connections grow old, are cut off by firewalls while they are idle, and
hold row locks behind answers that nobody reads; notices are lost to signals; dials never end.  :func:`tick` looks at
all of it, so that whatever goes wrong costs time and never a connection.

Rules: nobody outside of this module adds to :class:`Turns`.  A tick does a bounded number of things, and arms the alarm
for the rest.  Whatever the limits are, one connection has at most one turn in ``HOUSEKEEPING_S``.  Nothing in here
waits; what must be asked of a server is left to the tend conversation.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Container
from typing import TYPE_CHECKING

from .census import bury_undead, count_slots
from .dialrule import TOLERANCE_S
from .pace import HOUSEKEEPING_S, OVERRUN_S, ROUND, START_ANSWER_S
from .states import CHECKING, COLLECTING, FOREVER, GONE, IDLE, Notice, Reason, Slot

if TYPE_CHECKING:
    from .ledger import Ledger
    from .ports import Limits

RENEW_S = 10.0  # a replacement is dialled this long before the end of a lifetime ...
RENEW_SHARE = 0.05  # ... or this share of it, whichever is less
KEEPALIVE_S = 10.0  # unasked checks of one idle connection are at least so far apart, however small ``check_after`` is


class Turns:
    """When to look after which slot: one entry a slot, from when it is opened until the turn after its end."""

    def __init__(self) -> None:
        self.heap: list[tuple[float, int]] = []

    def __len__(self) -> int:
        return len(self.heap)

    @property
    def next_at(self) -> float:
        return self.heap[0][0] if self.heap else FOREVER

    def add(self, number: int, at: float) -> None:
        heapq.heappush(self.heap, (at, number))

    def take(self) -> int:
        """Take out the slot whose turn is next."""
        _, number = heapq.heappop(self.heap)
        return number

    def keep(self, numbers: Container[int]) -> None:
        """Forget the slots that are not among *numbers*."""
        self.heap = [entry for entry in self.heap if entry[1] in numbers]
        heapq.heapify(self.heap)

    def clear(self) -> None:
        self.heap.clear()


def tick(ledger: Ledger) -> None:
    """Do what is due now; a shell calls this at each alarm, and whenever it was nudged."""
    now = ledger.clock()
    ledger.alarm_at = FOREVER
    ledger.recover(now)
    bury_undead(ledger, now)
    count_slots(ledger, now)
    repeat_notices(ledger, now)
    abandon_overdue(ledger, now)
    if ledger.hopeless(now):
        ledger.fail_hopeless(now)
    care(ledger, now)
    care_for_settling(ledger)
    ledger.tend(now)
    ledger.match(now)
    ledger.look(now)
    ledger.notify()
    arm_for_the_next(ledger, now)


def repeat_notices(ledger: Ledger, now: float) -> None:
    """Leave those notices once more that nobody seems to have acted on."""
    for reference in list(itertools.islice(ledger.granted, ROUND)):
        ticket = reference()
        if ticket is None:
            ledger.granted.discard(reference)
        else:
            ledger.outbox.append((Notice.WAKE, ticket))  # the first one may have been lost to a signal
    for number, slot in list(ledger.unanswered.items()):
        if now - ledger.dialing.get(number, now) >= START_ANSWER_S - TOLERANCE_S:
            ledger.outbox.append((Notice.DIAL, slot))


def abandon_overdue(ledger: Ledger, now: float) -> None:
    """Give back the room of dials that their drivers cannot end in time."""
    limit_s = ledger.limits.connect_timeout_s + OVERRUN_S
    while ledger.dialing:
        number, begun_at = next(iter(ledger.dialing.items()))
        if now - begun_at < limit_s - TOLERANCE_S:
            ledger.arm(begun_at + limit_s)
            return
        slot = ledger.slots[number]()
        if slot is None:  # its dialer is gone too: recover() has it
            ledger.dialing.pop(number)
            continue
        ledger.counts["abandoned"] += 1
        ledger.abandon(slot)
        ledger.rule.failed(now)


def arm_for_the_next(ledger: Ledger, now: float) -> None:
    """See to it that whatever is left to do is looked at in time."""
    if not ledger.slots:
        ledger.turns.clear()
    waited_for = ledger.tickets or ledger.granted or ledger.watchers or ledger.dialing
    in_progress = waited_for or ledger.settling or ledger.untended or ledger.census.is_open
    keeps_idle = ledger.limits.min_idle and ledger.room > 0 and not ledger.closed and not ledger.callers_dial
    if in_progress or keeps_idle:  # a checkout outside of any step may have taken one of ``min_idle``
        ledger.arm(now + HOUSEKEEPING_S)
    ledger.arm(ledger.turns.next_at)
    if ledger.tending_until > now:  # whoever tends may never come back
        ledger.arm(ledger.tending_until)
    if ledger.lost.found:
        ledger.arm(now)


# ---------------------------------------------------------------------- whose turn it is, and when
def take_charge(ledger: Ledger, slot: Slot, now: float) -> None:
    """Look after a new connection from now on."""
    if len(ledger.turns) > 2 * ledger.limits.max_size + ROUND:  # of some that did not live to see their turn
        ledger.turns.keep(ledger.slots)
    ledger.turns.add(slot.number, care_at(slot, ledger.limits, now))
    ledger.arm(ledger.turns.next_at)


def care(ledger: Ledger, now: float) -> None:
    """Look after the slots whose turn it is: lifetime, idle time, signs of life."""
    for _ in range(ROUND):
        if ledger.turns.next_at > now + TOLERANCE_S:
            return
        number = ledger.turns.take()
        reference = ledger.slots.get(number)
        slot = reference() if reference is not None else None
        if slot is None:
            continue
        care_for(ledger, slot, now)
        if slot.state is not GONE:
            ledger.turns.add(number, care_at(slot, ledger.limits, now))


def care_at(slot: Slot, limits: Limits, now: float) -> float:
    """Return when this slot will next need to be looked at."""
    due_at = slot.expires_at if slot.renewed else renewal_at(slot, limits)
    patience_s = limits.idle_timeout_s
    if slot.state is IDLE:
        idle_at = slot.returned_at + patience_s
        # One that is kept idle for longer, because of ``min_idle``, is looked at every so often.
        due_at = min(due_at, keepalive_at(slot, limits), idle_at if idle_at > now else now + patience_s)
    else:
        due_at = min(due_at, now + min(max(limits.check_after_s, KEEPALIVE_S), patience_s))
    # Whatever the limits are: a pool at rest must not keep a processor busy.
    return max(due_at, now + HOUSEKEEPING_S)


def renewal_at(slot: Slot, limits: Limits) -> float:
    """Return when a replacement is to be dialled for a connection in use."""
    return slot.expires_at - min(RENEW_S, RENEW_SHARE * limits.max_lifetime_s)


def keepalive_at(slot: Slot, limits: Limits) -> float:
    """Return when an idle connection must prove its life although nobody asks for it."""
    return slot.best_before + max(0.0, KEEPALIVE_S - limits.check_after_s)


# ---------------------------------------------------------------------- what is done for it
def care_for(ledger: Ledger, slot: Slot, now: float) -> None:
    """Renew, retire or check one connection, or leave it alone."""
    limits = ledger.limits
    if now >= renewal_at(slot, limits) and not slot.renewed:
        renew(ledger, slot, now)
    if slot.state is not IDLE:
        return
    surplus = ledger.resting > limits.min_idle
    if now >= slot.expires_at:
        ledger.retire_idle(slot, slot.reason)
    elif surplus and now >= slot.returned_at + limits.idle_timeout_s - TOLERANCE_S:
        ledger.retire_idle(slot, Reason.IDLE)
    elif now >= keepalive_at(slot, limits) - TOLERANCE_S and ledger.withdraw(slot):
        ledger.move(slot, CHECKING)
        ledger.untended.append(slot)
        ledger.tend(now)


def renew(ledger: Ledger, slot: Slot, now: float) -> None:
    """Dial a replacement for a connection whose life ends soon, if it is in use and there is room beside it."""
    in_use = slot.state is not IDLE or now - slot.returned_at < ledger.limits.check_after_s
    needed = in_use or len(ledger.slots) - len(ledger.dialing) <= ledger.limits.min_idle
    slot.renewed = True
    needed = needed and slot.reason is not Reason.SURPLUS
    if needed and not ledger.tickets and not ledger.callers_dial and ledger.may_dial(now):
        ledger.counts["renewed"] += 1
        ledger.dial(now)


def care_for_settling(ledger: Ledger) -> None:
    """Have the answers read that have come meanwhile."""
    for _ in range(min(len(ledger.settling), ROUND)):
        slot = ledger.settling.popleft()
        ledger.move(slot, COLLECTING)
        ledger.untended.append(slot)
