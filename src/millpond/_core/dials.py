"""What becomes of a dial: taken up by a dialer or by the caller who waits for it, landed, failed, given up.

Why: a dial is the one thing in a pool that somebody else does while nobody waits for it in particular.  Its end finds
the pool as it is by then: drained, closed, its queue served by others, its room given to another one.

Rules: conversations call these, each in one step.  Whether a dial is begun at all is not decided here: the ledger does
that (``look``), by the dial rule.  An error of a driver says nothing of who dialled, an interruption nothing of the
server.
"""

from __future__ import annotations

import weakref
from typing import Any

from .ledger import Ledger
from .pace import START_ANSWER_S
from .ports import replica
from .states import FOREVER, GONE, Fault, Notice, Reason, Slot, Ticket
from .upkeep import take_charge


# ---------------------------------------------------------------------- who dials
def dial_begins(ledger: Ledger, slot: Slot) -> Slot | None:
    """Return what a dialer is to go on with: nothing if another one has begun, or the dial was given up."""
    ledger.dialers_answer = True
    if ledger.callers_dial and not ledger.limits.callers_dial:
        ledger.callers_dial = False
        ledger.look(ledger.clock())
    return taken_up(ledger, slot) if slot.number in ledger.unanswered else None


def taken_up(ledger: Ledger, slot: Slot) -> Slot:
    """Give a dial that begins a body of its own: threads that began too late, or never, may hold the old one."""
    del ledger.unanswered[slot.number]
    heir = slot.heir()
    ledger.slots[slot.number] = weakref.ref(heir)
    return heir


def answer_by(ledger: Ledger, now: float) -> float:
    """Return when a parked caller should look whether any dialer works here at all."""
    return FOREVER if ledger.dialers_answer or ledger.callers_dial else now + START_ANSWER_S


def begun_by_caller(ledger: Ledger, ticket: Ticket) -> None:
    """Hand one of the dials to the caller who waits for it, if no dialer has ever answered; leave it at that.

    Hosts exist where a new thread starts without an error and never runs (uWSGI without ``enable-threads``).
    """
    if ticket.served or ledger.dialers_answer or not ledger.unanswered:
        return
    ticket.slot = taken_up(ledger, next(iter(ledger.unanswered.values())))
    ledger.leave(ticket)
    ledger.let_callers_dial()


def dial_unusable(ledger: Ledger, slot: Slot) -> None:
    """Let callers dial for themselves: dialers make connections that only they may use."""
    if slot.state is GONE:
        ledger.abandoned.discard(slot)
    else:
        ledger.forget(slot)
    ledger.let_callers_dial()


# ---------------------------------------------------------------------- how it ends
def landed(ledger: Ledger, slot: Slot, conn: Any) -> None:
    """A dial has succeeded; whoever is first in the queue gets it."""
    now = ledger.clock()
    if slot.state is GONE:  # given up before: overdue, or the pool was closed
        late_arrival(ledger, slot, conn)
        return
    enter(ledger, slot, conn, now)
    ledger.shelve(slot, now)
    ledger.notify()
    ledger.look(now)


def enter(ledger: Ledger, slot: Slot, conn: Any, now: float) -> None:
    """Enter a new connection into the books."""
    began_at = ledger.dialing.pop(slot.number, now)
    ledger.young.pop(slot.number, None)
    ledger.rule.succeeded(now - began_at)
    ledger.succeeded = True
    ledger.last_error = ledger.last_fault = None
    ledger.counts["opened"] += 1
    ledger.tell("opened", seconds=now - began_at)
    slot.conn = conn
    slot.opened_at = now
    if slot.expires_at > now:  # else it was drained while it was dialled
        slot.expires_at = ledger.end_of_life(slot)
    take_charge(ledger, slot, now)


def late_arrival(ledger: Ledger, slot: Slot, conn: Any) -> None:
    """A dial has succeeded after it was given up: its connection is closed, and counted."""
    ledger.abandoned.discard(slot)
    ledger.counts["opened"] += 1
    ledger.tell("opened", seconds=ledger.clock() - slot.opened_at)
    ledger.retired[Reason.LATE] += 1
    ledger.tell("retired", reason=Reason.LATE.value, uses=0, age=0.0)
    ledger.outbox.append((Notice.CLOSE, conn))
    ledger.notify()


def dial_failed(ledger: Ledger, slot: Slot, error: BaseException) -> None:
    """A dial has failed: tell those whom waiting cannot help, and arrange for the next try."""
    now = ledger.clock()
    if was_given_up(ledger, slot):
        return
    fault = ledger.ports.classify(error)
    ledger.counts["failed"] += 1
    ledger.tell("open_failed", error=error, seconds=now - slot.opened_at)
    error = replica(error)  # without its traceback, whose frames would keep what callers hold alive
    ledger.last_error, ledger.last_fault = error, fault
    ledger.rule.failed(now)
    if fault is Fault.CREDENTIALS:
        ledger.rule.refused(now)
    ledger.forget(slot)
    may_pass = fault in (Fault.SERVER_FULL, Fault.TRANSIENT)
    if not ledger.succeeded and not may_pass:
        ledger.fail_all(error)
        ledger.fail_watchers(error)
    elif ledger.hopeless(now):
        ledger.fail_hopeless(now)
    ledger.room_freed(now)


def dial_interrupted(ledger: Ledger, slot: Slot) -> None:
    """Whoever dialled was called away: that says nothing of the server, and concerns nobody else."""
    now = ledger.clock()
    if was_given_up(ledger, slot):
        return
    ledger.counts["failed"] += 1
    ledger.rule.failed(now)  # the next try is not made at once: the host may be about to end
    ledger.forget(slot)
    ledger.room_freed(now)


def was_given_up(ledger: Ledger, slot: Slot) -> bool:
    """Say whether a dial that has failed had been given up before; then its end concerns nobody."""
    if slot.state is not GONE:
        return False
    ledger.abandoned.discard(slot)
    ledger.notify()
    return True
