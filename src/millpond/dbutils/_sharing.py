"""How connections are shared by several threads: references are counted here; the engine lends a shared one once.

Why: drivers whose ``threadsafety`` is 2 or more let threads share a connection.  While fewer than ``maxshared`` are
shared, each caller gets another one; then the one that is shared least, and is in no transaction.

Rules: the lock is held while something is decided, never while a connection is taken, checked or given back.
Whatever may let a waiting caller go on wakes them all: a share that goes back, a connection that arrives, a
transaction that ends.
"""

from __future__ import annotations

import math
import threading
import time
import types
from collections import deque
from typing import TYPE_CHECKING

from ._errors import told
from ._proxies import SharedDBConnection, TooManyConnectionsError

if TYPE_CHECKING:
    from .pooled_db import PooledDB


class Sharing:
    """The shared connections of one pool.

    Args:
        most: how many may be shared; 0 for none.
        wait_s: how long a caller waits, in seconds.

    Attributes:
        cache: what is shared now, a list that programs look at.
        dropped: shares of proxies that a finalizer could not give back where it ran.
    """

    def __init__(self, most: int, wait_s: float) -> None:
        self.most = most
        self.wait_s = wait_s
        self.cache: list[SharedDBConnection] = []
        self.dropped: deque[SharedDBConnection] = deque()
        self.closed = False
        self._fetching = 0  # callers who are getting a connection to be shared
        self._changes = threading.Condition(threading.Lock())

    def take(self, pool: PooledDB, frame: types.FrameType) -> SharedDBConnection:
        """Take a share: of a new connection while there are fewer than may be, else of the one that is shared least."""
        until = time.monotonic() + self.wait_s
        while True:
            with self._changes:
                self._forget_dropped()
                if self.closed:
                    raise pool._closed_error()
                fetches = self._may_fetch() and (not self.cache or pool._has_room())
                shared = None if fetches else self._choose()
                if shared is None and not fetches:
                    self._wait(pool, until)
                    continue
                waits = not self.cache and self.wait_s > 0
                self._fetching += fetches
            if fetches:
                shared = self._fetch(pool, frame, waits)
            if shared is not None:
                return shared

    def give_back(self, shared: SharedDBConnection) -> None:
        """Let go of one share; the last one gives the connection back."""
        lease = None
        with self._changes:
            shared.unshare()
            if shared.shared <= 0:
                lease, shared._lease = shared._lease, None
                if shared in self.cache:
                    self.cache.remove(shared)
            self._changes.notify_all()
        if lease is not None:
            lease.close()
            self.changed()

    def changed(self) -> None:
        """Wake who waits for something that may be shared."""
        with self._changes:
            self._changes.notify_all()

    def close(self) -> None:
        """Share nothing any more; what is shared stays with who has it."""
        with self._changes:
            self.closed = True
            self.cache.clear()
            self._changes.notify_all()

    def begin_anew(self) -> None:
        """Forget what a forked parent shares."""
        self._changes = threading.Condition(threading.Lock())
        self._fetching = 0
        self.dropped.clear()
        self.cache.clear()

    # ------------------------------------------------------------------ under the lock
    def _may_fetch(self) -> bool:
        return len(self.cache) + self._fetching < self.most

    def _choose(self) -> SharedDBConnection | None:
        """Take a share of the connection that is shared least; None if all are in transactions."""
        self.cache.sort()
        if not self.cache or self.cache[0].busy:
            return None
        first = self.cache.pop(0)
        first.share()
        self.cache.append(first)
        return first

    def _wait(self, pool: PooledDB, until: float) -> None:
        """Wait until something has changed.

        Raises:
            TooManyConnectionsError: the caller does not want to wait, or not any longer.
        """
        if not self.wait_s and self._fetching:
            self._changes.wait()  # another caller is connecting, which is no waiting for what others hold
            return
        left_s = until - time.monotonic()
        if not self.wait_s or left_s <= 0:
            text = (
                f"all {len(self.cache)} connections that maxshared allows are in transactions, and cannot be shared; "
                "ask for dedicated_connection(), raise maxshared, or let callers wait by blocking=SECONDS"
            )
            raise told(TooManyConnectionsError, text, pool._source.module)
        self._changes.wait(None if math.isinf(left_s) else left_s)

    def _forget_dropped(self) -> None:
        """Take in the shares that were dropped; the engine finds a connection that nobody holds, and closes it."""
        while self.dropped:
            shared = self.dropped.popleft()
            shared.unshare()
            if shared.shared <= 0 and shared in self.cache:
                self.cache.remove(shared)
                shared._lease = None

    # ------------------------------------------------------------------ outside of it
    def _fetch(self, pool: PooledDB, frame: types.FrameType, waits: bool) -> SharedDBConnection | None:
        """Take a connection to be shared; None if meanwhile there is another to be shared instead."""
        shared: SharedDBConnection | None = None
        try:
            lease = pool._take(frame, waits=waits)
            shared = SharedDBConnection(lease.driver_connection)
            shared._lease = lease
        except TooManyConnectionsError:
            with self._changes:
                if not self.cache:
                    raise
        finally:
            with self._changes:
                self._fetching -= 1
                if shared is not None:
                    self.cache.append(shared)
                self._changes.notify_all()
        return shared
