"""When to dial: one rule, in one place.

Callers wait in a queue; connections come to it by being returned or by being dialled.  Dialling for every waiter opens
dozens of useless connections in a spike of short queries; dialling for nobody leaves a pool that started small, small
for ever.  The rule reads: *dial for the tickets that returns will not serve within a dial, and at least for those that
have already waited a dial; dials in flight cover the head of the queue, whoever caused them.*  On top of that, every
four dials' worth of waiting buys one connection for those who come later (an investment).

While dials succeed and room is left, a caller waits at most the estimate (the fastest of the last eight dials, at most
a quarter of a second) plus one dial; a dial that stalls adds at most two estimates.  ``tests/core/test_dialrule.py``
asserts the numbers; ``docs/adr/002-dial-rule.md`` has the alternatives that were measured.

This module must not know slots or tickets: it is told what happened, and answers how many dials are wanted and when to
ask again.  Everything is O(1).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from .states import FOREVER, RETIRED

PATIENCE_S = 0.25  # the longest estimate that is believed: a stale one must not cost more
KEEP = 8  # successful dials remembered; the fastest is the estimate, so one stall does not poison it
LATE = 2.0  # a dial older than so many estimates no longer counts as help on its way ...
LATE_AT_LEAST_S = 0.01  # ... but not before this: where dials take microseconds, it is the scheduler that is slow
INVESTMENT = 4.0  # so many dials' worth of waiting buy one connection
SMOOTHING = 1 / 8  # weight of the newest hold in the average; anything from 1/2 to 1/64 does as well
FAILURES = 5  # in a row, until the server counts as down and one dial probes at a time
FIRST_BACKOFF_S = 0.01
PROBE_EVERY_S = 0.2  # the longest pause between probes at first ...
PATIENT_AFTER_S = 10.0  # ... and after so long an outage it may grow
PROBE_SELDOM_S = 2.0
REFUSED_PAUSE_S = 1.0  # after refused credentials: at least so long between two dials, each of which a caller asked for
TOLERANCE_S = 1e-9  # instants are sums of floats


class DialRule:
    """What has been learned about holds, dials and failures, and what follows from it."""

    __slots__ = (
        "backoff_s", "barred", "eager", "failures", "fastest_s", "formed_at", "hold_s", "jitter",
        "last_return_at", "outage_at", "paid_s", "patience_s", "recent", "retry_at", "wary",
    )  # fmt: skip

    def __init__(self, jitter: Callable[[], float], *, eager: bool = False) -> None:
        self.jitter = jitter
        self.eager = eager
        self.hold_s = 0.0  # smoothed length of holds that ended while somebody waited; 0: not known yet, hope
        self.recent: deque[float] = deque(maxlen=KEEP)
        self.fastest_s = 0.0  # of ``recent``; 0 before the first success
        self.patience_s = 0.0  # how long a ticket may wait before it counts as overdue
        self.paid_s = 0.0  # waiting suffered since the last dial was begun
        self.last_return_at = RETIRED
        self.formed_at = RETIRED  # when the present queue began
        self.failures = 0  # in a row
        self.backoff_s = 0.0
        self.retry_at = RETIRED
        self.outage_at = FOREVER  # when the present row of failures began
        self.wary = False  # credentials were refused, and none have been accepted since
        self.barred = False  # ... and nobody has asked for a connection since: there is to be no dial at all

    # ------------------------------------------------------------------ what happened
    def asked(self, now: float, waiting: int) -> None:
        """A caller has queued, as number *waiting*."""
        if waiting == 1:
            self.formed_at = now
        self.barred = False

    def returned(self, now: float, held_s: float) -> None:
        """A connection came back while somebody waited."""
        self.hold_s = self.hold_s + (held_s - self.hold_s) * SMOOTHING if self.hold_s else held_s
        self.last_return_at = now

    def served(self, waited_s: float) -> None:
        self.paid_s += waited_s

    def gave_up(self, waited_s: float) -> None:
        """A caller's time was up: callers in a hurry wait as others do, though none of them waits for a whole dial."""
        self.paid_s += waited_s

    def begun(self, now: float) -> None:
        self.paid_s = 0.0
        if self.wary:
            self.retry_at = now + REFUSED_PAUSE_S

    def succeeded(self, took_s: float) -> None:
        self.recent.append(took_s)
        self.fastest_s = min(self.recent)
        self.patience_s = min(self.fastest_s, PATIENCE_S)
        self.failures = 0
        self.backoff_s = 0.0
        self.retry_at = RETIRED
        self.outage_at = FOREVER
        self.wary = self.barred = False

    def failed(self, now: float) -> None:
        if not self.failures:
            self.outage_at = now
        self.failures += 1
        if self.failures < FAILURES or now < self.retry_at - TOLERANCE_S:
            return
        long_outage = now - self.outage_at >= PATIENT_AFTER_S
        longest_s = PROBE_SELDOM_S if long_outage else PROBE_EVERY_S
        self.backoff_s = min(longest_s, max(FIRST_BACKOFF_S, 2 * self.backoff_s))
        # The jitter keeps a fleet of processes from probing in step; it only ever shortens the pause.
        self.retry_at = now + self.backoff_s * (1.0 - 0.5 * self.jitter())

    def refused(self, now: float) -> None:
        """Credentials were refused: trying again by ourselves could lock the account."""
        self.wary = self.barred = True
        self.retry_at = now + REFUSED_PAUSE_S

    # ------------------------------------------------------------------ what follows
    @property
    def late_after_s(self) -> float:
        """The age at which a dial in flight no longer counts as help; never, before one has succeeded."""
        return max(LATE * self.fastest_s, LATE_AT_LEAST_S) if self.fastest_s else FOREVER

    @property
    def down(self) -> bool:
        return self.failures >= FAILURES

    def may_dial(self, now: float, *, waiting: int, pending: int) -> bool:
        if self.wary and (self.barred or not waiting):
            return False
        if not self.down and not self.wary:
            return True
        return now >= self.retry_at - TOLERANCE_S and not pending

    def wanted(self, now: float, *, waiting: int, overdue: int, busy: int, pending: int) -> float:
        """Return how many dials should be in flight for the present queue.

        Args:
            waiting: tickets in the queue.
            overdue: those of them that have waited a dial or longer; the head of the queue.
            busy: connections that are out and may come back.
            pending: dials in flight that are not late.
        """
        if self.eager or not busy:
            return waiting
        # Silence beyond one average hold says that the average is out of date.
        silence_s = now - max(self.last_return_at, self.formed_at) - self.hold_s
        gap_s = max(self.hold_s / busy, silence_s)
        coming = self.patience_s / gap_s if gap_s > TOLERANCE_S else FOREVER
        wanted = max(float(overdue), waiting - coming)
        if not pending and self.fastest_s and self.paid_s >= INVESTMENT * self.fastest_s - TOLERANCE_S:
            wanted = max(wanted, 1.0)
        return wanted
