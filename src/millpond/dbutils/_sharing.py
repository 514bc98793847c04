"""How connections are shared by several threads: references are counted here; the engine lends a shared one once.

Why: drivers whose ``threadsafety`` is 2 or more let threads share a connection.  While fewer than ``maxshared`` are
shared, each caller gets another one; then the one that is shared least, and is in no transaction.

Rules:
- One thread at a time decides, and nothing takes time meanwhile: no connection is taken, checked or given back.
- Finalizers and signal handlers give shares back, in the middle of a decision of their own thread too.  So nothing in
  here takes a lock: what has happened is added to a deque, and whoever decides takes it in, before and after.  He who
  adds does that first and looks then whether somebody decides; he who decides is done first, and looks then.
- Whatever may let a waiting caller go on wakes them all: a share or a connection that goes back, a connection that
  arrives, a transaction that ends.  Nobody tells of the rest (a connection that was dropped, a notice that a signal has
  cut off), so that whoever waits looks again now and then.
- A share is let go when it is given back, or by nobody's having it any more, once.
- One caller at most queues for what others hold, and nobody takes a connection past him: those who come meanwhile share
  what he gets.
"""

from __future__ import annotations

import enum
import math
import sys
import threading
import time
import types
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Final, TypeVar

from millpond.errors import Error

from ._errors import told
from ._proxies import SharedDBConnection, TooManyConnectionsError

if TYPE_CHECKING:
    from millpond import Lease

    from .pooled_db import PooledDB

T = TypeVar("T")
LOOK_AGAIN_S: Final = 1.0  # whoever waits does, so that the loss of any notice costs that much at most


class Told(enum.Enum):
    """What a caller is told who gets no share now."""

    COME_AGAIN = "another thread decides just now"
    WAIT = "wait until something has changed"
    REFUSED = "all are in transactions, and you do not wait"


class Share:
    """One share of a connection; if whoever has it loses it to a signal, or is dropped, it is let go by itself.

    Args:
        sharing: where it was taken.
        shared: what it is a share of.

    Attributes:
        counts: it was counted, and is still to be let go.
    """

    __slots__ = ("counts", "shared", "sharing")

    def __init__(self, sharing: Sharing, shared: SharedDBConnection) -> None:
        self.counts = False
        self.sharing = sharing
        self.shared = shared

    def __del__(self) -> None:
        if getattr(self, "counts", False) and not sys.is_finalizing():  # False: a signal kept it from being made
            self.sharing.drop(self.shared)


class Errand:
    """One caller who is getting a connection to be shared; it is over when he has said so, or is no more.

    Args:
        queues: he waits for what others hold; else he takes what can be had without that.
    """

    __slots__ = ("__weakref__", "queues")

    def __init__(self, *, queues: bool) -> None:
        self.queues = queues


class Sharing:
    """The shared connections of one pool.

    Args:
        most: how many may be shared; 0 for none.
        wait_s: how long a caller waits, in seconds.

    Attributes:
        cache: what is shared now, a list that programs look at.
    """

    def __init__(self, most: int, wait_s: float) -> None:
        self.most = most
        self.wait_s = wait_s
        self.cache: list[SharedDBConnection] = []
        self.closed = False
        self.begin_anew()

    def begin_anew(self) -> None:
        """Forget what a forked parent shares."""
        self.cache.clear()
        self._errands: list[weakref.ref[Errand]] = []  # a signal may end one before it has begun
        self._fetched: deque[tuple[Errand, SharedDBConnection | None]] = deque()  # what came of them
        self._given_back: deque[Share] = deque()
        self._dropped: deque[SharedDBConnection] = deque()
        self._leases: deque[Lease[Any]] = deque()  # of what nobody shares any more, to be given back
        self._waiting: deque[Bell] = deque()
        self._turned_away: deque[Bell] = deque()
        self._deciding: dict[str, tuple[int]] = {}  # the one who does, and in which thread

    def take(self, pool: PooledDB, frame: types.FrameType) -> Share:
        """Take a share: of a new connection while there are fewer than may be, else of the one that is shared least.

        Raises:
            TooManyConnectionsError: all are in transactions, and the caller does not want to wait, or not any longer.
            InvalidConnectionError: the pool was closed.
            Error: a finalizer or a signal handler asks, and has interrupted this very thing.
            Exception: the driver's own, if one could not be opened.
        """
        found = self._look(pool, frame)
        return found if isinstance(found, Share) else self._line_up(pool, frame)

    def _look(self, pool: PooledDB, frame: types.FrameType, until: float | None = None) -> Share | Told | None:
        """Take a share if there is one now, or what a caller is told; None: look again."""
        found: Share | Told | Errand = self._decide(lambda: self._choose(pool))
        return self._fetch(pool, frame, found, until) if isinstance(found, Errand) else found

    def _line_up(self, pool: PooledDB, frame: types.FrameType) -> Share:
        """Look, and wait for what may change that, until there is a share."""
        until = time.monotonic() + self.wait_s
        bell = Bell()
        self._waiting.append(bell)  # first: nothing that changes from here on is missed
        try:
            while True:
                found = self._look(pool, frame, until)
                if isinstance(found, Share):
                    return found
                if found is Told.COME_AGAIN:
                    self._await_turn(bell)
                elif found is not None:
                    self._wait(pool, bell, found, until)
        finally:
            self._waiting.remove(bell)

    def give_back(self, share: Share) -> None:
        """Let go of one share; the last one gives the connection back."""
        self._given_back.append(share)
        self._tidy_up()

    def drop(self, shared: SharedDBConnection) -> None:
        """Let go of a share that was dropped; of the last one, the engine finds that nobody holds its connection."""
        self._dropped.append(shared)
        self._see_to_news()

    def changed(self) -> None:
        """Wake who waits for something that may be shared."""
        for bell in self._waiting.copy():
            bell.ring()

    def close(self) -> None:
        """Share nothing any more; what is shared stays with who has it."""
        self.closed = True
        self._tidy_up()
        self.changed()

    # ------------------------------------------------------------------ one at a time
    def _decide(self, decision: Callable[[], Any]) -> Any:
        """Take a decision, unless another thread is at one, and see to what has happened before and meanwhile."""
        decided = self._decide_alone(decision)
        if decided is not Told.COME_AGAIN:
            self._tidy_up()
        return decided

    def _tidy_up(self) -> None:
        """See to what has happened, and give back what nobody shares any more."""
        self._see_to_news()
        for lease in drained(self._leases):
            lease.close()
            self.changed()

    def _see_to_news(self) -> None:
        """See to what has happened, unless somebody decides just now: he does it when he is done."""
        while self._has_news() and self._decide_alone(bool) is not Told.COME_AGAIN:
            continue

    def _has_news(self) -> bool:
        return bool(self._given_back or self._dropped or self._fetched or (self.closed and self.cache))

    def _decide_alone(self, decision: Callable[[], Any]) -> Any:
        me = (threading.get_ident(),)  # a new one each time
        try:
            if self._deciding.setdefault("", me) is not me:
                return Told.COME_AGAIN
            changed = True  # for all that is known
            try:
                changed = self._take_in()
                return decision()
            finally:
                self._deciding.clear()
                if changed or self._turned_away:
                    self._ring(changed)
        finally:
            if self._deciding.get("") is me:  # a signal has come between
                self._deciding.clear()

    def _ring(self, changed: bool) -> None:
        """Wake who was turned away, and if something has changed, who waits for that."""
        if changed:
            self.changed()
        for bell in drained(self._turned_away):
            bell.ring()

    def _await_turn(self, bell: Bell) -> None:
        """Wait until who decides just now is done.

        Raises:
            Error: that is this thread: a finalizer or a signal handler has interrupted it, and would wait for itself.
        """
        self._turned_away.append(bell)
        now = self._deciding.get("")
        if now is None:
            return
        if now[0] == threading.get_ident():
            raise Error(
                "the pool was used by a finalizer or a signal handler that has interrupted it in this thread; there, "
                "connections can be given back, and nothing else be done with the pool"
            )
        bell.wait(LOOK_AGAIN_S)

    # ------------------------------------------------------------------ by whoever decides
    def _take_in(self) -> bool:
        """Take in what has happened; say whether that may let somebody go on."""
        if not self._has_news():
            return False
        while self._fetched:
            errand, fetched = self._fetched.popleft()
            self._errands = [known for known in self._errands if known() is not errand]
            if fetched is not None and fetched.shared > 0:  # else it was dropped before it came here
                self.cache.append(fetched)
        while self._given_back:
            share = self._given_back.popleft()
            share.counts = False
            shared = share.shared
            if self._let_go(shared) and shared._lease is not None:
                lease, shared._lease = shared._lease, None
                self._leases.append(lease)
        while self._dropped:
            shared = self._dropped.popleft()
            if self._let_go(shared):
                shared._lease = None
        if self.closed:
            self.cache.clear()
        return True

    def _let_go(self, shared: SharedDBConnection) -> bool:
        """Count one share less; say whether that was the last."""
        shared.unshare()
        if shared.shared > 0:
            return False
        if shared in self.cache:
            self.cache.remove(shared)
        return True

    def _choose(self, pool: PooledDB) -> Any:
        """Share the connection that is shared least, or tell the caller what to do instead."""
        if self.closed:
            raise pool._closed_error()
        self._errands = [errand for errand in self._errands if errand() is not None]
        fetching = len(self._errands)
        if len(self.cache) + fetching < self.most and not self._has_who_queues():
            has_room = pool._has_room()
            if has_room or not (self.cache or fetching):
                errand = Errand(queues=not has_room and self.wait_s > 0)
                self._errands.append(weakref.ref(errand))
                return errand
        ordered = sorted(self.cache)
        if ordered and not ordered[0].busy:
            first = ordered.pop(0)
            share = Share(self, first)
            first.share()
            share.counts = True
            self.cache[:] = [*ordered, first]
            return share
        # While another caller connects, that is no waiting for what others hold.
        return Told.WAIT if self.wait_s or fetching else Told.REFUSED

    def _has_who_queues(self) -> bool:
        errands = [errand() for errand in self._errands]
        return any(errand is not None and errand.queues for errand in errands)

    # ------------------------------------------------------------------ outside of it
    def _wait(self, pool: PooledDB, bell: Bell, told_to: Told, until: float) -> None:
        """Wait until something has changed.

        Raises:
            TooManyConnectionsError: the caller does not want to wait, or not any longer.
        """
        left_s = until - time.monotonic() if self.wait_s else math.inf
        if told_to is Told.REFUSED or left_s <= 0:
            raise told(TooManyConnectionsError, self._refusal(), pool._source.module)
        bell.wait(min(left_s, LOOK_AGAIN_S))

    def _refusal(self) -> str:
        if not self.cache:
            return "all connections that maxconnections allows are out, and none came back in time that could be shared"
        return (
            f"all {len(self.cache)} connections that maxshared allows are in transactions, and cannot be shared; "
            "ask for dedicated_connection(), raise maxshared, or let callers wait by blocking=SECONDS"
        )

    def _fetch(self, pool: PooledDB, frame: types.FrameType, errand: Errand, until: float | None) -> Share | None:
        """Take a connection to be shared; None if another caller was quicker, and it is to be looked again."""
        shared: SharedDBConnection | None = None
        share: Share | None = None
        try:
            left_s = None if until is None or math.isinf(until) else max(0.0, until - time.monotonic())
            lease = pool._take(frame, waits=errand.queues, outwaits=not self.cache, timeout=left_s)
            shared = SharedDBConnection(lease.driver_connection)
            shared._lease = lease
            share = Share(self, shared)
            share.counts = True
        except TooManyConnectionsError:
            if errand.queues or not (self.wait_s or self.cache or len(self._errands) > 1):
                raise
        finally:
            self._fetched.append((errand, shared))
            self._tidy_up()
        return share


def drained(things: deque[T]) -> Iterator[T]:
    """Take out what is in a deque, from which other threads take, too."""
    while things:
        try:
            thing = things.popleft()
        except IndexError:  # somebody was quicker
            return
        yield thing


class Bell:
    """What a caller waits for; rung once too often, it has him look once more."""

    __slots__ = ("_lock",)

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lock.acquire()

    def ring(self) -> None:
        """Let the caller look, now or when he comes to wait."""
        try:
            self._lock.release()
        except RuntimeError:  # it was rung already
            return

    def wait(self, seconds: float) -> None:
        """Wait for it, so long at most."""
        self._lock.acquire(timeout=seconds)
