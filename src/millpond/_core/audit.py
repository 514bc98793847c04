"""What must hold of a ledger between any two steps.

Why: tests of a pool see what callers see, and a book that is wrong can serve callers rightly for long.  Explorations
and the tests of both shells ask in here between two steps; no pool in use does.

Rules: read a ledger, change nothing.  What a shell does outside of any step, and what a signal has silenced, must be
told by whoever asks; everything else is a bug.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from .states import CHECKING, COLLECTING, FOREVER, GONE, IDLE, OPENING, RETIRED, SETTLING, Slot, State

if TYPE_CHECKING:
    from .ledger import Ledger


def audit(ledger: Ledger, *, in_hand: int = 0, crossing: bool = False, silent: int = 0) -> None:
    """Assert the invariants; for tests and simulations, between two steps.

    Args:
        in_hand: slots in IDLE that a shell holds this instant, outside of any step.
        crossing: a shell has shelved a slot outside of any step, and has not looked again yet.
        silent: slots whose finalizers were struck by a signal, so that they died without a word.
    """
    lost = {slot.number for slot in ledger.lost.found if isinstance(slot, Slot)}
    held = [slot for slot in ledger.live() if slot.number not in lost]
    dead = ledger.slots.keys() - lost - ledger.census.undead.keys() - {slot.number for slot in held}
    assert len(dead) <= silent, "bug: a slot is dead"
    states = Counter([slot.state for slot in held])
    assert GONE not in states, "bug: a slot in the books is gone"
    audit_queue(ledger)
    audit_dials(ledger, states)
    audit_time(ledger)
    assert all((slot.conn is None) == (slot.state is OPENING) for slot in held), "bug: a slot is half open"
    assert states[SETTLING] == len(ledger.settling), "bug: a settling slot is not where settling slots are"
    assert all(slot.state is SETTLING for slot in ledger.settling), "bug: something settling is not SETTLING"
    assert all(slot.state in (CHECKING, COLLECTING) for slot in ledger.untended), "bug: something untended is not"
    kept = sum(slot.expires_at > RETIRED for slot in held)
    assert kept <= ledger.limits.max_size, "bug: more slots than max_size"
    if crossing:
        return
    assert not (ledger.tickets and ledger.resting), "bug: somebody waits while a connection is there"
    assert states[IDLE] == len(ledger.idle) + in_hand, "bug: an idle slot is not where idle slots are"
    assert all(slot.state is IDLE for slot in ledger.idle), "bug: something idle is not IDLE"
    assert not any(slot.expires_at == RETIRED for slot in ledger.idle), "bug: something retired is idle"
    assert not (ledger.closed and ledger.resting), "bug: a closed pool keeps connections"


def audit_queue(ledger: Ledger) -> None:
    assert ledger.tickets.keys() >= ledger.fresh.keys(), "bug: a fresh ticket is not in the queue"
    assert not any(ticket.served for ticket in ledger.tickets), "bug: a served ticket is still queued"
    assert not (ledger.tickets and ledger.closed), "bug: somebody waits for a closed pool"
    arrivals = [ticket.since for ticket in ledger.tickets]
    assert arrivals == sorted(arrivals), "bug: the queue is not in the order of arrival"
    if ledger.callers_dial and ledger.tickets:
        assert ledger.room <= 0, "bug: somebody waits who could dial"


def audit_dials(ledger: Ledger, states: Counter[State]) -> None:
    assert states[OPENING] <= len(ledger.dialing), "bug: a dial is not in the books"
    assert ledger.dialing.keys() <= ledger.slots.keys(), "bug: a dial has no slot"
    assert ledger.unanswered.keys() <= ledger.dialing.keys(), "bug: a dial nobody began is not in the books"
    assert ledger.young.keys() <= ledger.dialing.keys(), "bug: a young dial is not in flight"
    assert not (ledger.closed and ledger.dialing), "bug: a closed pool dials"


def audit_time(ledger: Ledger) -> None:
    """Whatever waits for time to pass must have an alarm."""
    assert not (ledger.tickets or ledger.granted or ledger.dialing) or ledger.alarm_at < FOREVER, "bug: no alarm is set"
    if ledger.slots:
        assert ledger.alarm_at <= ledger.turns.next_at, "bug: upkeep is due and no alarm is set"
