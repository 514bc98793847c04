"""Say why a caller got no connection, in one message: what is wrong, who is in the way, what to change."""

from __future__ import annotations

from ._core.ledger import Ledger
from ._core.states import Fault
from .errors import PoolTimeout, TooManyWaiting
from .stats import Holder, holders_of, oldest_wait_s

TOLD = 5  # holders named in a message; the error's ``holders`` has them all


def timed_out(ledger: Ledger, waited_s: float) -> PoolTimeout:
    """Make the error of a caller who has waited in vain."""
    now = ledger.clock()
    holders = holders_of(ledger.live(), now, ledger.ports.holder_names())
    reason = reason_for(ledger, holders)
    text = f"no connection after {waited_s:.3g} s: {reason} ({state_of(ledger, now)})."
    text += _told(holders) + " " + remedy_for(reason, ledger, now)
    error = PoolTimeout(text, reason=reason, waited=waited_s, holders=holders)
    error.__cause__ = ledger.last_error
    return error


def queue_full(ledger: Ledger) -> TooManyWaiting:
    """Make the error of a caller who found the queue full."""
    now = ledger.clock()
    text = (
        f"{len(ledger.tickets)} callers are waiting already, as many as max_waiting allows ({state_of(ledger, now)})."
    )
    return TooManyWaiting(text + _told(holders_of(ledger.live(), now, ledger.ports.holder_names())))


def reason_for(ledger: Ledger, holders: tuple[Holder, ...]) -> str:
    """Name what stands between the callers and a connection."""
    if ledger.last_error is not None and len(holders) < ledger.limits.max_size:
        if ledger.last_fault is Fault.SERVER_FULL:
            return "server full"
        if ledger.last_fault is Fault.CREDENTIALS:
            return "credentials refused"
        return "server unreachable"
    if ledger.dialing or ledger.abandoned:
        return "dials too slow"
    if not holders:  # what there was had to answer first, a check or a reset, and did not in time
        return "server silent"
    return "pool exhausted" if ledger.room <= 0 else "dials too slow"  # none was begun: too little time to gain by one


def state_of(ledger: Ledger, now: float) -> str:
    """Describe the pool in half a line."""
    oldest_s = oldest_wait_s(ledger, now)
    parts = [f"{ledger.busy} of {ledger.limits.max_size} connections are out", f"{len(ledger.dialing)} being opened"]
    unanswered = len(ledger.settling) + len(ledger.untended)
    if unanswered:
        parts.append(f"{unanswered} have not answered yet")
    if ledger.tickets:
        parts.append(f"{len(ledger.tickets)} callers wait, the first for {oldest_s:.3g} s")
    if ledger.rule.failures:
        parts.append(
            f"{ledger.rule.failures} attempts to connect failed in a row, for {now - ledger.rule.outage_at:.3g} s"
        )
    return ", ".join(parts)


def remedy_for(reason: str, ledger: Ledger, now: float) -> str:
    """Say what the reader can change."""
    limits = ledger.limits
    if reason == "pool exhausted":
        return (
            f"Give connections back sooner, or raise max_size (now {limits.max_size}) if the server has room, "
            "or wait longer (timeout)."
        )
    if reason == "server silent":
        return (
            "The connections that were there had to answer first, and did not in time: look at the network and the "
            "server, or raise timeout."
        )
    if reason == "dials too slow":
        return (
            "Connecting takes longer than callers wait: look at the network and the server, raise timeout, "
            f"or keep min_idle (now {limits.min_idle}) open."
        )
    next_s = max(0.0, ledger.rule.retry_at - now)
    tries = f"the next attempt is due in {next_s:.2g} s" if next_s else "an attempt is made whenever somebody asks"
    if ledger.dialing:
        tries = "an attempt is under way"
    advice = {
        "server full": "Raise the server's limit, close connections elsewhere, or lower max_size of each process",
        "credentials refused": "Check user, password and database name",
    }.get(reason, "Check host, port and whether the server runs")
    return f"{advice}; {tries}."


def _told(holders: tuple[Holder, ...]) -> str:
    if not holders:
        return ""
    more = f"; and {len(holders) - TOLD} more" if len(holders) > TOLD else ""
    return " Held by " + "; ".join(str(holder) for holder in holders[:TOLD]) + more + "."
