"""The nouns of the core: what a slot may be, what a conversation may ask for, and who owns what.

Two ideas carry everything else.

*The decision is the recorded state.*  A slot changes hands by changing :attr:`Slot.state` in the same step that decides
it; nothing is first returned as an opinion and written down later.

*Ownership is a reference.*  While a slot is idle, leased, in a conversation or granted to a ticket, exactly one of
these holds the :class:`Slot` object; the ledger itself holds only a weak reference to it.  So a slot that nobody holds
- a lease that was dropped, a thread that a signal interrupted between two bytecodes - dies, and its finalizer puts it
on the ledger's list of lost slots.  No census can mistake a stopped thread for a lost one: a stopped thread still
holds its reference.
"""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Callable
from types import CodeType
from typing import Any

FOREVER = float("inf")
RETIRED = float("-inf")  # as ``expires_at``: give this connection up as soon as its holder lets go


class Verb(enum.Enum):
    """What a conversation may ask a shell for; behind each, what it is asked with and what is sent back."""

    __hash__ = object.__hash__  # in C; Enum's own hashes the name, in Python

    OPEN = "open"  # (slot, until) -> a driver connection, or the driver's exception
    CHECK = "check"  # (slot, until) -> is it alive?
    RESET = "reset"  # (slot, until) -> is it as good as new?
    DEFER = "defer"  # (slot, until) -> as RESET, or None: sent, to be collected later
    COLLECT = "collect"  # (slot, until) -> is it as good as new?  None: no answer yet
    PARK = "park"  # (ticket or watcher, until) -> None; woken, or the time is up


class Notice(enum.Enum):
    """What a step may leave in the outbox: effects that need no answer, and may be performed twice without harm."""

    __hash__ = object.__hash__  # in C; Enum's own hashes the name, in Python

    WAKE = "wake"  # ticket or watcher: look again
    DIAL = "dial"  # slot: hold the dial conversation for it, somewhere else
    TEND = "tend"  # None: hold the tend conversation, somewhere else
    CLOSE = "close"  # connection: say goodbye and close it, without waiting
    ALARM = "alarm"  # instant: call ``tick`` then
    TELL = "tell"  # (what happened, its details): for observers and reports


class State(enum.Enum):
    """What a slot is right now."""

    __hash__ = object.__hash__  # in C; Enum's own hashes the name, in Python

    OPENING = "opening"  # room is reserved for a dial that has not landed
    CHECKING = "checking"  # taken out of idle, its life must be proved first
    LEASED = "leased"  # a caller has it
    CLEANING = "cleaning"  # given back, being made as good as new
    SETTLING = "settling"  # the server has been told to make it as good as new, and has not answered yet
    COLLECTING = "collecting"  # taken out of settling, that answer is being read
    IDLE = "idle"  # ready for the next caller
    GONE = "gone"  # its room belongs to somebody else


OPENING, CHECKING, LEASED, CLEANING, SETTLING, COLLECTING, IDLE, GONE = State

# Every change that a slot may make.  The fast path of a shell makes two of them itself: IDLE -> LEASED -> IDLE.
LEGAL: dict[State, frozenset[State]] = {
    OPENING: frozenset({IDLE, LEASED, GONE}),
    CHECKING: frozenset({IDLE, LEASED, GONE}),  # to LEASED also when it is handed to a waiting caller
    LEASED: frozenset({CLEANING, IDLE, GONE}),
    CLEANING: frozenset({IDLE, LEASED, SETTLING, GONE}),
    SETTLING: frozenset({COLLECTING, GONE}),
    COLLECTING: frozenset({SETTLING, IDLE, LEASED, GONE}),
    IDLE: frozenset({LEASED, CHECKING, GONE}),
    GONE: frozenset(),
}


class Fault(enum.Enum):
    """What a driver's exception says about the world; the driver adapter sorts it."""

    GONE = "gone"  # this link is dead
    REFUSED = "refused"  # no server answers there: refused, unknown host, timed out
    SERVER_FULL = "server full"  # the server is there and has no room for us now
    CREDENTIALS = "credentials"  # who we are, or what we ask for by name, is not accepted
    READ_ONLY = "read only"  # the server may have changed its role
    TRANSIENT = "transient"  # try again; the link is fine
    STATEMENT = "statement"  # the statement is wrong; the link is fine


class Reason(enum.Enum):
    """Why a connection was given up; the keys of ``PoolStats.retired``."""

    LIFETIME = "lifetime"
    IDLE = "idle"
    USES = "uses"
    DEAD = "dead"  # found dead by a check
    UNCLEAN = "unclean"  # could not be made as good as new, or was left in the middle of a command
    DRAINED = "drained"
    ROLE = "role"  # the server that it leads to has become read-only
    SURPLUS = "surplus"  # the pool was made smaller
    CLOSED = "closed"  # the pool was closed
    LATE = "late"  # its dial was given up before it landed


class Lost:
    """Where slots go that nobody holds any more, and the places of callers whose conversations were dropped.

    Finalizers run anywhere: in any thread, in the middle of any step.  So :meth:`take` takes no lock and calls nothing
    of ours but *nudge*, which must be safe in the same sense.
    """

    __slots__ = ("found", "nudge")

    def __init__(self, nudge: Callable[[], None]) -> None:
        self.found: deque[Slot | Ticket | Watcher] = deque()
        self.nudge = nudge

    def take(self, what: Slot | Ticket | Watcher) -> None:
        self.found.append(what)
        self.nudge()


class Slot:
    """Room for one connection.  Only its holder writes to it, but for ``expires_at``, which the ledger may set to
    RETIRED, and the ``reason`` for that.

    Invariants: ``conn`` is None while OPENING; ``state`` changes as LEGAL allows; a slot that is not GONE
    is in the ledger's ``slots`` under its ``number``.
    """

    __slots__ = (
        "__weakref__",
        "asker",
        "best_before",
        "busy_s",
        "check",
        "code",
        "conn",
        "cursors",
        "expires_at",
        "instruction",
        "leased_at",
        "lost",
        "number",
        "opened_at",
        "reason",
        "renewed",
        "returned_at",
        "state",
        "thread_id",
        "uses",
    )

    def __init__(self, number: int, lost: Lost, opened_at: float) -> None:
        self.number = number
        self.lost = lost
        self.conn: Any = None
        self.asker: Any = None  # while OPENING: the waiter of the caller who asked for this dial, if one did
        self.state = OPENING
        self.reason = Reason.LIFETIME  # why it will be retired, once ``expires_at`` has passed
        self.opened_at = opened_at  # while OPENING: when the dial was decided
        self.expires_at = FOREVER
        self.best_before = RETIRED  # until then it is handed out without a check
        self.returned_at = opened_at
        self.leased_at = opened_at
        self.check: Any = None  # the shell's own: of a check that goes on although its caller was called away
        self.renewed = False  # a replacement for it has been dialled
        self.uses = 0
        self.busy_s = 0.0
        self.cursors: list[Any] | None = None  # to be cut off at return, where the driver's cursors need it
        self.code: CodeType | None = None  # where it was taken: code object and instruction in it
        self.instruction = 0
        self.thread_id = 0

    def __del__(self) -> None:
        if self.state is not GONE or self.conn is not None:
            # The finalizer of whatever held the lease may give it back all the same, before this or after it.
            self.expires_at, self.reason = RETIRED, Reason.UNCLEAN
            self.lost.take(self)

    def heir(self) -> Slot:
        """Return a new slot with all that this one had: an object is finalized only once, so it needs a new body."""
        heir = self.twin()
        self.lay_down()
        return heir

    def twin(self) -> Slot:
        """Return a copy, to be laid down unless this one dies."""
        twin = Slot(self.number, self.lost, self.opened_at)
        for name in _INHERITED:
            setattr(twin, name, getattr(self, name))
        return twin

    def lay_down(self) -> None:
        """Be nobody's and nothing's from now on."""
        self.state, self.conn = GONE, None

    def __repr__(self) -> str:
        return f"<slot {self.number} {self.state.value}>"


_INHERITED = tuple(name for name in Slot.__slots__ if name not in ("__weakref__", "number", "lost", "opened_at"))


class Ticket:
    """A caller's place in the queue.

    Invariant: ``slot`` or ``error`` is set, never both, by whoever serves it.  Only what has turned out dead is taken
    out again, and the ticket queued anew (:meth:`millpond._core.ledger.Ledger.requeue`).
    """

    __slots__ = ("__weakref__", "error", "since", "slot", "waiter")

    def __init__(self, waiter: Any, since: float) -> None:
        self.waiter = waiter  # the shell's way to park and to wake this caller
        self.since = since
        self.slot: Slot | None = None
        self.error: BaseException | None = None

    @property
    def served(self) -> bool:
        return self.slot is not None or self.error is not None

    def __repr__(self) -> str:
        return f"<ticket of {self.since:.3f}>"


class Watcher:
    """Somebody who waits for the pool to reach a state, not for a connection: ``wait()`` and ``close()``."""

    __slots__ = ("error", "reached", "waiter")

    def __init__(self, waiter: Any, reached: Callable[[], bool]) -> None:
        self.waiter = waiter
        self.reached = reached
        self.error: BaseException | None = None

    def __repr__(self) -> str:
        return f"<watcher for {getattr(self.reached, '__name__', 'something')}>"
