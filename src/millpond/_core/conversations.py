"""The pool's conversations: what takes time, told as a generator.

A conversation yields ``(verb, subject, until)`` for whatever takes time and is sent the answer, or thrown the error.
Code between two yields is atomic: the thread shell holds its lock exactly while a conversation advances, the asyncio
shell does not need one, the simulator interleaves at the same points.

Rules: no yield in ``except`` or ``finally``.  A conversation that is dropped (GeneratorExit) may be running in any
thread, without the lock: it touches nothing.  The slot it held dies with it and is found again; a place in the queue
goes the same way, by :class:`millpond._core.states.Lost`.  Everything else that is thrown in leaves the ledger whole
before it goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any, TypeAlias

from .dials import (
    answer_by,
    begun_by_caller,
    dial_begins,
    dial_failed,
    dial_interrupted,
    dial_unusable,
    enter,
    landed,
    late_arrival,
)
from .ledger import Ledger
from .pace import OVERRUN_S
from .ports import replica
from .states import CHECKING, CLEANING, COLLECTING, GONE, LEASED, OPENING, RETIRED, Reason, Slot, Ticket, Verb, Watcher

SETTLE_PATIENCE_S = 0.02  # a caller waits so long for one settling connection before it waits for any

OPEN, CHECK, RESET, DEFER, COLLECT, PARK = Verb

Request: TypeAlias = tuple[Verb, Any, float]


def checkout(
    ledger: Ledger, until: float, slot: Slot | None = None, *, queues: bool = True, ticket: Ticket | None = None
) -> Generator[Request, Any, Slot]:
    """Return a leased slot, waiting for one until *until*.

    Args:
        until: the deadline of everything in here, on the ledger's clock.
        slot: one that the shell has popped from idle and does not dare to hand out.
        queues: wait for what others hold; else only for what has to be done with a slot that is there, or room for one.
        ticket: of a caller whom the shell has queued itself.

    Raises:
        the ports' ``closed``, ``timed_out`` or ``queue_full`` errors, or what the driver raised while connecting.
    """
    now = came_at = ledger.clock()
    if ticket is None:
        slot = begin(ledger, slot, now)
    else:
        slot = yield from wait(ledger, until, ticket, queues=queues)
    while True:
        if slot is None:
            if ticket is None:
                ticket = ledger.enqueue(now, came_at)
            else:
                queue_again(ledger, ticket, now, until)
            slot = yield from wait(ledger, until, ticket, queues=queues)
        if slot.state is LEASED:
            slot.leased_at = ledger.clock()
            return slot
        if slot.state is GONE:  # taken off the books before it was picked up
            ledger.close_disowned(slot)
            slot = None
        else:
            assert slot.state in PROOFS, f"bug: {slot!r} was handed to a caller"
            # Instead of a dead one, another may be taken that is to be proved as well.
            slot = yield from PROOFS[slot.state](ledger, slot, until)
        now = ledger.clock()


def queue_again(ledger: Ledger, ticket: Ticket, now: float, until: float) -> None:
    """Give a ticket its place back, as long as its caller has time."""
    ledger.requeue(ticket)
    if now >= until:  # it may have been served at once, and the same way, again and again
        ledger.pass_on(ticket)


def begin(ledger: Ledger, slot: Slot | None, now: float) -> Slot | None:
    """Return what can be had without waiting, if anything."""
    if ledger.lost.found:
        ledger.recover(now)
    if ledger.closed:
        if slot is not None:
            ledger.discard(slot, Reason.CLOSED)
        raise ledger.ports.closed()
    if slot is None and ledger.tickets:  # no barging past the queue
        return None
    size = len(ledger.slots)
    if slot is None:
        slot = ledger.claim(now) if ledger.idle else ledger.claim_unready(now)
    else:
        slot = take_popped(ledger, slot, now)
    if len(ledger.slots) < size:  # some were too old to be handed out
        ledger.look(now)
    return slot


def take_popped(ledger: Ledger, slot: Slot, now: float) -> Slot | None:
    """Decide about a slot that a shell popped outside any step; those who were already waiting come first."""
    if ledger.tickets:
        ledger.idle.append(slot)
        ledger.match(now)
        return None
    return slot if ledger.take(slot, now) else ledger.claim(now)


def wait(ledger: Ledger, until: float, ticket: Ticket, *, queues: bool) -> Generator[Request, Any, Slot]:
    """Wait until a ticket is served, and return what it was granted."""
    try:
        while ticket.slot is None and ticket.error is None:
            now = ledger.clock()
            if now >= until or not queues:
                break
            yield PARK, ticket, until if ledger.dialers_answer else min(until, answer_by(ledger, now))
            if ledger.unanswered:
                begun_by_caller(ledger, ticket)
    except GeneratorExit:
        ledger.lost.take(ticket)
        raise
    except BaseException:
        ledger.recover_parked(ticket)  # what it had been granted goes to the next
        raise
    slot = ledger.pick_up(ticket)
    if slot is None:
        ledger.leave(ticket)
        raise refusal(ledger, ticket)
    return slot


def refusal(ledger: Ledger, ticket: Ticket) -> BaseException:
    """Return what a caller who got no slot is to be told."""
    if ticket.error is not None:
        return replica(ticket.error)
    waited_s = ledger.clock() - ticket.since
    ledger.counts["timeouts"] += 1
    ledger.rule.gave_up(waited_s)
    return ledger.ports.timed_out(ledger, waited_s)


def check(ledger: Ledger, slot: Slot, until: float) -> Generator[Request, Any, Slot | None]:
    """Prove that a connection is alive before it is handed out; None if it was not."""
    now = ledger.clock()
    try:
        alive = yield CHECK, slot, min(until, now + ledger.limits.check_timeout_s)
    except GeneratorExit:
        raise
    except Exception:
        ledger.discard(slot, Reason.DEAD)
        raise
    except BaseException:
        ledger.check_later(slot)  # that somebody was called away says nothing of the connection
        raise
    now = ledger.clock()
    if alive and slot.state is not GONE and not ledger.is_over(slot, now):
        ledger.move(slot, LEASED)
        return slot
    if not alive:
        ledger.suspect(now)
    ledger.discard(slot, slot.reason if alive else Reason.DEAD)
    return None if ledger.tickets else ledger.claim(now)


def collect(ledger: Ledger, slot: Slot, until: float) -> Generator[Request, Any, Slot | None]:
    """Read the answer to a deferred reset; None if it was not good, or did not come while one may wait for it."""
    try:
        clean = yield COLLECT, slot, min(until, ledger.clock() + SETTLE_PATIENCE_S)
    except GeneratorExit:
        raise
    except Exception:
        ledger.discard(slot, Reason.UNCLEAN)
        raise
    except BaseException:
        if ledger.ports.unread_survives and slot.state is not GONE:
            ledger.settle_later(slot)  # whoever was called away has read nothing, or has closed the link
        else:
            ledger.discard(slot, Reason.UNCLEAN)
        raise
    if clean and slot.state is not GONE:
        now = ledger.clock()
        if not ((now >= slot.expires_at or ledger.closed) and ledger.is_over(slot, now)):
            ledger.move(slot, LEASED)
            return slot
    if clean is None and slot.state is not GONE:
        ledger.settle_later(slot)
    else:
        ledger.discard(slot, slot.reason if clean else Reason.UNCLEAN)
    return None


def dial_here(ledger: Ledger, slot: Slot, until: float) -> Generator[Request, Any, Slot | None]:
    """Dial in the caller's own conversation, where dialers are not to be had or not wanted."""
    try:
        conn = yield OPEN, slot, min(until, ledger.clock() + ledger.limits.connect_timeout_s)
    except GeneratorExit:
        raise
    except Exception as error:
        dial_failed(ledger, slot, error)
        raise
    except BaseException:
        dial_interrupted(ledger, slot)
        raise
    if slot.state is GONE:
        late_arrival(ledger, slot, conn)
        return None
    enter(ledger, slot, conn, ledger.clock())
    ledger.move(slot, LEASED)
    return slot


# What makes a slot that may be handed out of one that may not, if it can be done, by the slot's state.
PROOFS = {OPENING: dial_here, CHECKING: check, COLLECTING: collect}


def dial(ledger: Ledger, slot: Slot) -> Generator[Request, Any, None]:
    """Open one connection for whoever is first in the queue when it lands; a dialer holds this."""
    taken_up = dial_begins(ledger, slot)
    if taken_up is None:
        return
    slot = taken_up
    del taken_up
    try:
        conn = yield OPEN, slot, ledger.clock() + ledger.limits.connect_timeout_s
    except GeneratorExit:
        raise
    except Exception as error:  # noqa: BLE001  it is told to whoever waits
        dial_failed(ledger, slot, error)
        return
    except BaseException:
        dial_interrupted(ledger, slot)
        raise
    if conn is None:
        dial_unusable(ledger, slot)
    else:
        landed(ledger, slot, conn)


def checkin(ledger: Ledger, slot: Slot, until: float) -> Generator[Request, Any, None]:
    """Take back a slot that may not be as good as new: make it so, then shelve it, hand it over or give it up.

    A slot that is known to be as good as new needs no conversation: :meth:`Ledger.take_back`.
    """
    now = ledger.clock()
    if not ledger.account(slot, now):
        return
    if (now >= slot.expires_at or ledger.closed) and ledger.is_over(slot, now):
        ledger.discard(slot, slot.reason)
        return
    ledger.move(slot, CLEANING)
    try:
        # Who is waiting already gains nothing by a reset whose answer is read later.
        clean = yield DEFER if ledger.ports.defers and not ledger.tickets else RESET, slot, until
    except GeneratorExit:
        raise
    except BaseException:
        ledger.discard(slot, Reason.UNCLEAN)
        raise
    if slot.state is GONE:
        ledger.close_disowned(slot)
    elif clean:
        ledger.shelve(slot, ledger.clock())
    elif clean is None:
        ledger.settle_later(slot)
    else:
        ledger.discard(slot, Reason.UNCLEAN)
    if len(ledger.slots) < ledger.limits.max_size:  # without room there is nothing to be looked at
        ledger.look(ledger.clock())


def tend(ledger: Ledger) -> Generator[Request, Any, None]:
    """Look after connections that nobody uses, one after another, so that no caller has to wait for it.

    Those that have been idle for long must prove their life; of those that are settling, answers are read that have
    come.
    """
    while ledger.untended:
        slot = ledger.untended.popleft()
        settling = slot.state is COLLECTING
        now = ledger.clock()
        ledger.tending_until = now + ledger.limits.check_timeout_s + OVERRUN_S
        try:
            if settling:
                good = yield COLLECT, slot, now
            else:
                good = yield CHECK, slot, now + ledger.limits.check_timeout_s
        except GeneratorExit:
            raise
        except BaseException:
            ledger.tending_until = RETIRED
            ledger.discard(slot, Reason.DEAD)
            raise
        ledger.tending_until = RETIRED
        now = ledger.clock()
        if slot.state is GONE:
            ledger.close_disowned(slot)
        elif good:
            ledger.shelve(slot, now, oldest=True)
        elif settling and good is None:
            ledger.settle_later(slot)
        else:
            ledger.suspect(now)
            ledger.discard(slot, Reason.DEAD)
    ledger.tending_until = RETIRED  # a caller may have taken all that was to be done
    ledger.look(ledger.clock())


def await_filled(ledger: Ledger, until: float) -> Generator[Request, Any, bool]:
    """Wait until ``min_idle`` connections are open; False if the time was up before.

    Raises:
        what the driver raised when it was refused, if that was before anybody waited: no dial is made since that no
            caller asks for, and nobody would be told again.
    """
    rule_forbids = ledger.rule.wary and not ledger.succeeded
    if rule_forbids and ledger.last_error is not None and not (ledger.dialing or ledger.tickets):
        raise replica(ledger.last_error)
    return (yield from await_state(ledger, ledger.is_filled, until))


def await_state(ledger: Ledger, reached: Callable[[], bool], until: float) -> Generator[Request, Any, bool]:
    """Wait until the pool has reached a state; False if the time was up before."""
    watcher = Watcher(ledger.ports.new_waiter(), reached)
    ledger.watch(watcher)
    try:
        while not reached() and watcher.error is None and ledger.clock() < until:
            yield PARK, watcher, until
    except GeneratorExit:
        ledger.lost.take(watcher)
        raise
    except BaseException:
        ledger.unwatch(watcher)
        raise
    ledger.unwatch(watcher)
    if watcher.error is not None:
        raise replica(watcher.error)
    return reached()
