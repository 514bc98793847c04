"""The pool under the drop-in's pools: :class:`millpond.Pool`, with the doors that DBUtils' programs need.

Why: there is one pool engine in this project.  DBUtils' pools look into what is idle, tell a caller at once that all
are out although connecting takes its time, limit what is kept idle, leave what is out alone when they are closed, and
are closed by being dropped.  The engine can do all of that; what it does not offer to everybody is reached from here,
and from nowhere else (see docs/adr/030-the-drop-in-on-the-core.md).

What the engine pools is a *steady* connection, through an adapter of its own (:class:`SteadyDriver`) that passes what
the engine asks on to the adapter of the real driver.
"""

from __future__ import annotations

import contextlib
import gc
import sys
import time
import types
from _thread import get_ident
from collections.abc import Callable
from typing import Any, TypeVar

from millpond import Lease, Pool
from millpond.drivers.base import Driver
from millpond.errors import Error, PoolTimeout

from . import _careful
from ._source import Source
from .steady_db import SteadyDBConnection

C = TypeVar("C")
DAY_S = 86_400.0  # for what cannot be bounded in time, or need not be
#: Settings of pools that do as DBUtils does: connections are kept as they are, for ever, and go round.
AS_THEY_ARE: dict[str, Any] = {
    "connect_timeout": DAY_S,
    "max_lifetime": None,
    "idle_timeout": None,
    "check_after": None,
    "idle_order": "fifo",
}
NO_LIMIT = 2**31 - 1  # connections, where the program has set no limit
ANSWER_S = 1.0  # an idle connection that is asked whether it is alive has so long to answer, at the least
#: Modules of ours that hold no lock, and that drop connections in their course.
LOCKLESS = frozenset(
    f"{__package__}.{name}" for name in ("steady_db", "_steady_cursor", "_careful", "_stubborn", "_checkout")
)
PARTING_S = 2.0  # connections that are closed with their pool are waited for so long


class Engine(Pool[C]):
    """A pool whose callers connect for themselves, and which can be looked into.

    Args:
        driver: the adapter of what is pooled.
        max_idle: most connections kept idle; None for no limit.
        queues: whether callers wait for what others hold; if not, ``timeout`` is for connecting, checking and cleaning.
        settings: those of :class:`millpond.Pool`.
    """

    def __init__(self, driver: Driver[C], *, max_idle: int | None, queues: bool = True, **settings: Any) -> None:
        self._max_idle = max_idle
        self._queues = queues
        self._aside: list[Lease[C]] = []
        super().__init__(driver, dial="caller", **settings)

    def _take_settings(self, source: Any, **settings: Any) -> None:
        super()._take_settings(source, **settings, max_idle=self._max_idle)

    def lend(self, frame: types.FrameType) -> Lease[C]:
        """Take a connection for the caller in *frame*.

        Raises:
            PoolTimeout: nothing came in time; where callers do not queue, all connections are out.
            PoolClosed: the pool was closed.
        """
        lease = self.connection()
        lease.note_holder(frame)
        return lease

    def lend_at_once(self, frame: types.FrameType) -> Lease[C]:
        """Take a connection without waiting for what others hold, whatever the setting.

        Raises:
            PoolTimeout: all connections are out.
            PoolClosed: the pool was closed.
        """
        return self._lend(self._ask(DAY_S, None, queues=False), frame)

    def _checkout(self, timeout: float | None, popped: Any) -> Any:
        return self._ask(timeout, popped, queues=self._queues)

    def _ask(self, timeout: float | None, popped: Any, *, queues: bool) -> Any:
        try:
            return self._converse(self._asking(timeout, popped, queues=queues))
        except Error as error:
            raise self._refusal(error) from error.__cause__

    def idle_now(self) -> list[C]:
        """Return what is idle, in the order in which it will be handed out first in, first out."""
        slots = [*self._ledger.idle.copy(), *self._ledger.settling.copy()]
        return [slot.conn for slot in slots if slot.conn is not None]

    @property
    def out(self) -> int:
        """How many connections are handed out, or being opened for somebody."""
        ledger = self._ledger
        # What was dropped, and not yet found, is not out; nor what was given back while that could not be done.
        self._take_what_was_left()
        self._decide(ledger.recover, self._clock())
        return ledger.busy + len(ledger.dialing)

    def holders(self) -> list[int]:
        """Return the threads that took what is out, by their numbers."""
        return self._step(self._holders_now)

    def _holders_now(self) -> list[int]:
        idle = {id(slot) for slot in (*self._ledger.idle, *self._ledger.settling)}
        return [slot.thread_id for slot in self._ledger.live() if slot.conn is not None and id(slot) not in idle]

    def retire(self) -> None:
        """Close the pool: what is idle now, what is out when it comes back."""
        self._decide(self._ledger.close)
        if self._ledger.is_empty():
            self._decide(self._ledger.rest)
            self._alarm.nudge()
            self._crew.join(self._clock() + PARTING_S)

    def take_in(self, conn: C, put: Callable[[C], object]) -> None:
        """Make room for one more connection, and have the next dial find *conn*, which *put* gives to the adapter."""
        put(conn)
        self.resize(self._limits.max_size + 1)
        with contextlib.suppress(PoolTimeout):  # somebody who was waiting has got it
            self.lend_at_once(sys._getframe(1)).close()

    def drop_idle(self) -> None:
        """Close what is idle now, and wait for that; the pool goes on."""
        for _ in self.idle_now():
            self.lend_at_once(sys._getframe(1)).discard()
        self._crew.join(self._clock() + PARTING_S)

    def set_aside(self, frame: types.FrameType) -> C:
        """Take a connection out by itself; :meth:`put_back` gives it back."""
        lease = self.lend_at_once(frame)
        self._aside.append(lease)
        return lease.driver_connection

    def put_back(self, conn: C) -> None:
        """Give back what was set aside."""
        lease = next(lease for lease in self._aside if lease.driver_connection is conn)
        self._aside.remove(lease)
        lease.close()

    def dismiss(self) -> None:
        """Close what is idle, here and now, without a lock or a thread: nobody can reach the pool any more."""
        self._part_at_exit()

    def __del__(self) -> None:
        # As in DBUtils a pool is closed by being dropped, and that is no fault: no warning.
        if getattr(self, "_ledger", None) is not None and not sys.is_finalizing():
            self._part_at_exit()


class SteadyDriver(Driver[SteadyDBConnection]):
    """The adapter through which the engine pools steady connections.

    Args:
        source: where connections come from.
        make: makes a steady connection.
        reset: as the program has it: True for as good as new, else only a transaction that is open is ended.
    """

    name = "steady"
    tracks_cursors = False  # a checkout knows its cursors itself

    def __init__(self, source: Source, make: Callable[[], SteadyDBConnection], *, reset: Any) -> None:
        self._source = source
        self._make = make
        self._full = bool(reset)
        self._proves: Callable[[Any], bool] | None = None  # the real adapter's proof that a session is clean
        self._learn()

    def _learn(self) -> None:
        """Offer the engine what the real adapter can do; seen again when the first connection tells which it is."""
        adapter = self._source.adapter
        self.module = self._source.module
        if adapter is None:
            return
        if adapter.is_readable is not None:
            self.is_readable = self._is_readable
        self._proves = adapter.is_clean
        self.is_clean = self._is_clean
        if adapter.send_reset is not None and self._full:
            self.send_reset = self._send_reset

    def _adapter(self) -> Driver[Any]:
        adapter = self._source.adapter
        assert adapter is not None, "bug: the engine asked for what only known drivers can tell"
        return adapter

    # -- mandatory -------------------------------------------------------------------------------------------------
    def open(self, until: float) -> SteadyDBConnection:
        """Connect, in the time that a connect may take: who does not want to queue has time for that."""
        steady = self._make()
        steady._pooled = True
        if self.is_clean is None:
            self._learn()
        self.module = steady._dbapi
        return steady

    def is_alive(self, conn: SteadyDBConnection, until: float) -> bool:
        """Ask the server."""
        if conn._closed:
            return False
        until = max(until, time.monotonic() + ANSWER_S)
        alive = self._adapter().is_alive(conn._con, until)
        if alive:
            conn._answered_at = time.monotonic()
        return alive

    def reset(self, conn: SteadyDBConnection, until: float) -> bool:
        """Make it as good as new, or end its transaction; False if it is to be given up."""
        if self._source.adapter is None:
            return self._reset_unknown(conn)
        if conn._closed or conn._lost is not None:
            return False
        if not self._full and not _careful.in_transaction(conn) and not conn._altered:
            return True
        good = self._adapter().reset(conn._con, until)
        self._refresh(conn)
        return good

    def _reset_unknown(self, conn: SteadyDBConnection) -> bool:
        """Roll back as DBUtils does; a connection that cannot be rolled back is given up, not replaced here."""
        if conn._closed or not (self._full or conn._transaction):
            return True  # a closed one opens itself when it is used
        conn._transaction = False
        conn._con.rollback()
        if conn._altered:
            conn._restore()
        return True

    def _refresh(self, conn: SteadyDBConnection) -> None:
        """Forget what was done on a session that is as good as new."""
        conn._transaction = False
        conn._activity.renewed()
        if conn._altered:
            conn._restore()

    def close(self, conn: SteadyDBConnection) -> None:
        """Say goodbye without waiting."""
        conn.close()

    # -- capabilities ----------------------------------------------------------------------------------------------
    def _is_clean(self, conn: SteadyDBConnection) -> bool:
        """Say whether nothing is to be done; what the driver cannot tell is told by whether anything was sent."""
        if conn._closed or conn._transaction or conn._lost is not None or conn._altered:
            return False
        activity = conn._activity
        if not self._full:
            return not _careful.in_transaction(conn)
        if self._proves is None:
            return not activity.used and not _careful.in_transaction(conn)
        if not self._proves(conn._con):
            return False
        activity.touched = activity.unsure = activity.used = False
        if self._source.reads_words:
            activity.renewed()
        return True

    def _is_readable(self, conn: SteadyDBConnection) -> bool:
        if conn._closed:
            return True
        readable = self._adapter().is_readable
        return readable is not None and readable(conn._con)

    def _send_reset(self, conn: SteadyDBConnection) -> bool | None:
        if conn._closed or conn._lost is not None:
            return False
        send_reset = self._adapter().send_reset
        assert send_reset is not None, "bug: it was there when this driver was learned"
        answer = send_reset(conn._con)
        self._refresh(conn)
        return answer

    def collect(self, conn: SteadyDBConnection, until: float) -> bool | None:
        """Read the answer to a reset."""
        return self._adapter().collect(conn._con, until)

    def in_flight(self, conn: SteadyDBConnection) -> bool | None:
        """Say whether a reply is unread."""
        adapter = self._source.adapter
        return None if adapter is None or conn._closed else adapter.in_flight(conn._con)

    def uncommitted(self, conn: SteadyDBConnection) -> bool:
        """Say whether writes are about to be rolled back."""
        adapter = self._source.adapter
        if adapter is None or conn._closed:
            return False
        return adapter.uncommitted(conn._con) or (conn._activity.wrote and _careful.in_transaction(conn))

    def is_broken(self, conn: SteadyDBConnection) -> bool:
        """Say whether the link was seen to break."""
        adapter = self._source.adapter
        return adapter is not None and adapter.is_broken(conn._con)

    def role_suspect(self, conn: SteadyDBConnection) -> bool:
        """Say whether an error told that the server may have become read-only."""
        adapter = self._source.adapter
        return adapter is not None and not conn._closed and adapter.role_suspect(conn._con)

    def has_lost_role(self, conn: SteadyDBConnection, until: float) -> bool:
        """Ask the server whether it has."""
        return self._adapter().has_lost_role(conn._con, until)

    def fileno(self, conn: SteadyDBConnection) -> int | None:
        """Return the descriptor."""
        adapter = self._source.adapter
        return None if adapter is None or conn._closed else adapter.fileno(conn._con)

    def cut(self, conn: SteadyDBConnection) -> bool:
        """Break the link."""
        adapter = self._source.adapter
        return adapter is not None and not conn._closed and adapter.cut(conn._con)

    def classify(self, error: BaseException) -> Any:
        """Sort an exception."""
        adapter = self._source.adapter
        return super().classify(error) if adapter is None else adapter.classify(error)

    def __repr__(self) -> str:
        return repr(self._source.adapter or self._source.creator)


def may_give_back(depth: int) -> bool:
    """Say whether a finalizer, whose caller is *depth* frames up from here, may give a connection back by itself.

    Not inside of the engine: a finalizer may run in the middle of anything, and there its own thread holds locks that
    it would want.  Not when it runs on behalf of the collector: of what is collected together, the slot may be
    finalized before or after, and has told the engine by itself.  The engine then finds the connection, and closes it.
    """
    if sys.is_finalizing() or _collecting == get_ident():
        return False
    frame: types.FrameType | None = sys._getframe(depth)
    while frame is not None:
        name = str(frame.f_globals.get("__name__", ""))
        if name.startswith("millpond.") and name not in LOCKLESS:
            return False
        frame = frame.f_back
    return True


_collecting = 0  # the thread in which the garbage collector runs just now


def _note_collection(phase: str, _: dict[str, int]) -> None:
    global _collecting  # noqa: PLW0603  the collector calls back by this function alone
    _collecting = get_ident() if phase == "start" else 0


gc.callbacks.append(_note_collection)
