"""What every shell does the same: the parts of a pool that neither wait nor decide.

Why: the thread shell and the asyncio shell differ in how they wait, wake, dial and close, and in nothing else.
Settings, ports, reports, errors, what a return needs, what the pool tells of itself, fork and exit are here, once.

Rules: nothing in here takes time, starts anything or knows what a thread or a task is.  A subclass performs steps
(:meth:`Shell._decide`) and notices; whatever the two would decide differently belongs into the core.
"""

from __future__ import annotations

import abc
import atexit
import dataclasses
import itertools
import logging
import os
import types
import warnings
import weakref
from collections import deque
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any, Generic, NoReturn

from . import _returning, diagnosis
from ._core import census, conversations, upkeep
from ._core.ledger import Ledger
from ._core.ports import Ports
from ._core.states import FOREVER, GONE, RETIRED, Slot, Verb
from .drivers import resolve
from .drivers.base import Adapter
from .errors import (
    Error,
    ErrorT,
    EventLoopBlocked,
    InvalidSetting,
    LeaseDropped,
    PoolClosed,
    PoolTimeout,
    UncommittedWork,
    joined,
)
from .forks import everyone_in, point_nowhere
from .lease import Lease, forwarding
from .limits import Limits, timeout_of
from .observer import event_of
from .sites import Site
from .stats import PoolStats, snapshot

if TYPE_CHECKING:
    from typing_extensions import TypeVar

    from ._core.conversations import Request

    C = TypeVar("C", default=Any)  # a URL does not tell what its connections are
else:
    from typing import TypeVar

    C = TypeVar("C")

logger = logging.getLogger("millpond")
_numbers = itertools.count(1)
_pools: weakref.WeakSet[Shell[Any]] = weakref.WeakSet()
_kept_from_closing: list[Any] = []  # connections inherited by a fork that have no descriptor to disarm

QUIET_S = 0.001  # a connection that answered so short a time ago is not polled
PARTING_S = 2.0  # close() waits so long for connections to be closed, beyond its own time-out
WARNED_MAX = 1000  # call sites remembered, so that a program that makes code objects cannot fill the memory


class Shell(abc.ABC, Generic[C]):
    """A pool, but for its way to wait.

    CPython reads the attributes of an object that has more than 29 of them a third slower, and the fast path reads 14:
    what is rarely set has its first value here.
    """

    _loop_was_blocked = False
    _keeps_inherited = False  # in a forked child: a finalizer would look for a loop that is the parent's
    _plain_lease: type[Any] = Lease
    _lease_kind: type[Any]
    _resolve: Callable[..., Any] = staticmethod(resolve)
    _driver: Adapter[C]
    _clock: Callable[[], float]
    _perform: dict[Verb, Callable[[Any, float], Any]]

    def _take_settings(
        self,
        source: Any,
        *,
        connect_args: dict[str, Any] | None,
        driver: str | None,
        reset: Any,
        on_connect: Any,
        track_use: bool,
        observer: Any,
        name: str | None,
        **numbers: Any,
    ) -> None:
        """Validate all settings and find the driver's adapter; nothing is opened."""
        self._limits = Limits.of(**numbers)
        if observer is not None and not callable(observer):
            raise InvalidSetting("observer", observer, "a callable that takes an event, or None")
        if not isinstance(track_use, bool):  # pyright: ignore[reportUnnecessaryIsInstance]  # from users
            raise InvalidSetting("track_use", track_use, "True or False")
        if name is not None and not isinstance(name, str):  # pyright: ignore[reportUnnecessaryIsInstance]  # from users
            raise InvalidSetting("name", name, "text, or None for a number")
        self._driver = self._resolve(
            source,
            connect_args=connect_args,
            driver=driver,
            reset=reset,
            on_connect=on_connect,
            connect_timeout=self._limits.connect_timeout_s,
        )
        self._resets = reset not in ("none", None)
        self._reset_name = reset if isinstance(reset, str) else "none" if reset is None else "callable"
        self._observer = observer
        self._tracks = track_use
        self._warned: set[tuple[types.CodeType | None, int]] = set()
        self.name = name or f"pool-{next(_numbers)}"

    @abc.abstractmethod
    def _begin(self) -> None:
        """Make everything that must not be shared with a forked child."""

    @abc.abstractmethod
    def _decide(self, decision: Callable[..., object], *subjects: Any) -> None:
        """Take one step, and perform what it leaves in the outbox."""

    def _guard(self) -> None:
        """Say so if the pool must not be touched from here; a pool for threads may be, from any."""

    def _lay_ledger(
        self,
        *,
        clock: Callable[[], float],
        jitter: Callable[[], float],
        new_waiter: Callable[[], Any],
        nudge: Callable[[], None],
        holder_names: Callable[[], dict[int, str]],
        with_gil: bool,
    ) -> None:
        """Make the ledger and what the fast path looks at."""
        self._ledger = Ledger(
            self._limits,
            Ports(
                clock=clock,
                jitter=jitter,
                new_waiter=new_waiter,
                nudge=nudge,
                classify=self._driver.classify,
                timed_out=diagnosis.timed_out,
                closed=pool_closed,
                queue_full=diagnosis.queue_full,
                holder_names=holder_names,
                check_survives=self._check_survives,
                observing=self._observer is not None,
            ),
        )
        self._outbox = self._ledger.outbox
        self._tickets = self._ledger.tickets
        self._check_after_s = self._limits.check_after_s
        self._kind: type[Any] | None = None  # of connections seen so far
        self._lease_kind = self._plain_lease
        self._with_gil = with_gil
        self._left: deque[Slot] = deque()  # given back by generators and coroutines in the middle of a step
        self._lay_fast_path()

    def _lay_fast_path(self) -> None:
        """Choose what the fast path looks at; without the GIL every step goes through the slow one."""
        self._must_clean = _returning.must_clean(self._driver, resets=self._resets)
        inlined = self._with_gil and self._limits.lifo
        self._idle: deque[Slot] = self._ledger.idle if inlined else deque()
        self._unclean = self._must_clean if inlined and self._limits.max_uses == FOREVER else _returning.always
        if self._unclean is not _returning.always and self._limits.max_idle != FOREVER:
            self._unclean = _returning.unless_room(self._ledger.idle, self._limits.max_idle, self._must_clean)
        self._readable = self._driver.is_readable
        self._ledger.ports = dataclasses.replace(
            self._ledger.ports,
            quiet_s=FOREVER if self._readable is None else QUIET_S,
            defers=self._driver.send_reset is not None,
            unread_survives=self._driver.unread_survives,
        )

    def _meet(self, conn: C) -> None:
        """Learn what the first connection of a kind can do."""
        self._lease_kind = forwarding(conn, self._plain_lease, self._driver.shortcuts)
        self._kind = type(conn)
        self._decide(self._lay_fast_path)

    # ------------------------------------------------------------------ for callers
    def drain(self) -> None:
        """Retire every connection: idle ones now, leased ones when they come back; callers get new ones."""
        self._decide(self._ledger.drain)

    def resize(self, max_size: int, min_idle: int | None = None) -> None:
        """Obey other sizes from now on; what is too many is closed when it is idle.

        Raises:
            InvalidSetting: a size is out of bounds, or ``min_idle`` is more than ``max_size``; nothing was changed.
        """
        sizes = {"max_size": max_size} if min_idle is None else {"max_size": max_size, "min_idle": min_idle}
        limits = self._limits.changed(**sizes)
        self._limits = limits
        self._decide(lambda: self._ledger.resize(limits))

    def __reduce_ex__(self, _: Any) -> NoReturn:
        """Refuse to be copied or pickled: connections and threads stay where they are."""
        what = f"a millpond.{type(self).__name__}"
        raise TypeError(f"{what} cannot be copied or pickled; each process makes its own, or has it by being forked")

    def __repr__(self) -> str:
        ledger = self._ledger
        state = (
            "closed" if ledger.closed else f"{len(ledger.slots)}/{ledger.limits.max_size} open, {len(ledger.idle)} idle"
        )
        return f"<millpond.{type(self).__name__} {self.name} of {self._driver!r}: {state}>"

    def __del__(self) -> None:
        # Nobody else can reach the pool any more, so nothing here is shared.
        ledger: Ledger | None = getattr(self, "_ledger", None)
        if ledger is None or not ledger.resting:
            return
        warnings.warn(f"{self!r} was never closed", ResourceWarning, stacklevel=2, source=self)
        self._part_at_exit()

    def _snapshot(self) -> PoolStats:
        way = self._driver.reset_way()
        return snapshot(self._ledger, name=self.name, reset=f"{self._reset_name}: {way}" if way else self._reset_name)

    def _check_owner(self, conn: Any) -> None:
        """Make sure that *conn* is a lease of this pool."""
        lender: object = getattr(conn, "_pool", None) if issubclass(type(conn), self._plain_lease) else None
        if lender is not self:
            owner = "" if lender is None else f"; it belongs to {lender!r}"
            raise InvalidSetting("conn", conn, f"a connection of {self!r}", f"this pool did not lend it{owner}")

    # ------------------------------------------------------------------ what the slow path holds
    def _asking(
        self, timeout: float | None, popped: Slot | None, *, queues: bool = True
    ) -> Generator[Request, Any, Slot]:
        """Return the conversation of a checkout; *popped* is what the fast path does not dare to hand out.

        Without *queues* the caller is told at once if all connections are out, and *timeout* is what a dial may take.
        """
        until = self._clock() + (self._limits.timeout_s if timeout is None else timeout_of(timeout, 0.0))
        return conversations.checkout(self._ledger, until, popped, queues=queues)

    def _filling(self, timeout: float | None) -> Generator[Request, Any, None]:
        """Hold the conversation of ``wait()``: ``min_idle`` connections are open, or the error says why not."""
        ledger = self._ledger
        began_at = self._clock()
        until = began_at + timeout_of(timeout, self._limits.timeout_s)
        if ledger.closed:
            raise pool_closed()
        there = yield from conversations.await_filled(ledger, until)
        if not there:
            raise diagnosis.timed_out(ledger, self._clock() - began_at)

    def _emptying(self, until: float) -> Generator[Request, Any, bool]:
        """Hold the conversation of ``close()`` until everything has come back; False if that did not happen in time."""
        ledger = self._ledger
        return (yield from conversations.await_state(ledger, ledger.is_empty, until))

    def _cut_what_is_out(self) -> None:
        """Break the links under holders who did not give them back in time."""
        conns: list[C] = []
        self._decide(lambda: conns.extend(self._ledger.cut()))
        for conn in conns:
            self._driver.cut(conn)

    def _take_back(self, slot: Slot, exc_type: type[BaseException] | None) -> Generator[Request, Any, None] | None:
        """Do of a return what takes no time; what is left of it, if anything, is a conversation to be held."""
        ledger = self._ledger
        if slot.cursors:
            self._cut_cursors(slot)
        conn, must_clean = slot.conn, self._must_clean
        if conn is not None:  # None: disowned by a fork
            if self._driver.is_broken(conn):
                self._decide(lambda: ledger.reject_broken(slot, self._clock()))
                return None
            if self._driver.in_flight(conn) if exc_type is None else self._is_spoilt(conn, exc_type):
                self._decide(lambda: ledger.reject(slot, self._clock()))
                return None
        if conn is None or must_clean is None or not must_clean(slot):
            self._decide(ledger.take_back, slot)
            return None
        # Whoever leaves a block by an exception expects a rollback, and is not warned of it.
        if exc_type is None and self._driver.uncommitted(conn):
            self._report_uncommitted(slot)
        return conversations.checkin(ledger, slot, self._clock() + self._limits.connect_timeout_s)

    def _next_left(self) -> Slot | None:
        """Return the next slot that was given back while that could not be done; None if there is none."""
        while self._left:
            slot = self._reclaimed(self._left.popleft(), left=True)
            if slot is not None:
                return slot
        return None

    def _reclaimed(self, slot: Slot, *, left: bool) -> Slot | None:
        found: list[Slot | None] = []
        self._decide(lambda: found.append(census.reclaim(self._ledger, slot, left=left)))
        return found[0]

    def _discard(self, slot: Slot) -> None:
        """Take a connection back that its holder does not want to be used again."""
        if slot.cursors:
            if self._driver.in_flight(slot.conn) is None:  # closing a cursor might read a long reply to its end
                self._driver.cut(slot.conn)
            self._cut_cursors(slot)
        self._decide(lambda: self._ledger.reject(slot, self._clock()))

    def _is_spoilt(self, conn: C, exc_type: type[BaseException]) -> bool:
        """Was it left in the middle of something?  That a generator was closed proves nothing by itself."""
        in_flight = self._driver.in_flight(conn)
        if issubclass(exc_type, Exception):
            return bool(in_flight)
        return issubclass(exc_type, KeyboardInterrupt) or in_flight is not False

    def _cut_cursors(self, slot: Slot) -> None:
        cursors, slot.cursors = slot.cursors or [], None
        for reference in cursors:
            cursor = reference()
            if cursor is None:
                continue
            try:
                cursor.close()
            except Exception as error:  # noqa: BLE001  some drivers object to closing a cursor twice, or a dead one
                logger.debug("%s: a cursor could not be closed at return: %r", self.name, error)

    def _look_again(self, slot: Slot) -> None:
        self._decide(lambda: self._ledger.look_again(slot))

    def _is_answered(self, slot: Slot) -> bool | None:
        """Judge the life of a connection without asking its server; None if that has to be asked."""
        readable = self._driver.is_readable
        if readable is not None and readable(slot.conn):
            return False
        return True if self._clock() < slot.best_before else None

    # ------------------------------------------------------------------ errors and reports
    def _refusal(self, error: Error) -> Error:
        """Return what a caller is to be told, as one of the driver's family too; observers hear of time-outs."""
        if isinstance(error, PoolTimeout):
            self._tell("timed_out", {"error": error})
        return self._joined(error)

    def _joined(self, error: ErrorT) -> ErrorT:
        """Return the error as one of the driver's family too."""
        kind = joined(type(error), self._driver.family(error.family))
        if kind is type(error):
            return error
        twin = kind.__new__(kind, *error.args)
        twin.args = error.args
        twin.__dict__.update(error.__dict__)
        twin.__cause__ = error.__cause__
        return twin

    def _error(self, kind: type[ErrorT], text: str) -> ErrorT:
        return joined(kind, self._driver.family(kind.family))(text)

    def _tell(self, what: str, details: dict[str, Any]) -> None:
        if what == "dropped":
            self._report_dropped(**details)
        if self._observer is None:
            return
        try:
            self._observer(event_of(self.name, what, details))
        except Exception:
            logger.exception("%s: the observer failed; the pool goes on", self.name)

    def _report_dropped(self, slot: Slot, held_s: float) -> None:
        site = Site.of(slot.code, slot.instruction)
        where = f" taken at {site}" if site else ""
        text = f"{self.name}: a connection{where} was dropped after {held_s:.1f} s, not given back; it has been closed"
        logger.warning(text)
        warn(text, LeaseDropped, site)

    def _report_uncommitted(self, slot: Slot) -> None:
        self._decide(lambda: self._ledger.counts.update(uncommitted=1))
        place = (slot.code, slot.instruction)
        if place in self._warned or len(self._warned) >= WARNED_MAX:
            return
        self._warned.add(place)
        site = Site.of(*place)
        where = f" (taken at {site})" if site else ""
        text = f"{self.name}: a connection{where} came back with writes that were not committed; they are rolled back"
        warn(text, UncommittedWork, site)

    def _check_survives(self, slot: Slot) -> bool:
        """Say whether a check that was broken off has left a connection as it was."""
        return self._driver.in_flight(slot.conn) is False

    def _report_unchecked(self, error: Exception) -> None:
        """A check that raises says what one that answers False says: this connection is of no use."""
        logger.debug("%s: a connection could not be checked and was closed: %r", self.name, error)

    def _report_blocked_loop(self) -> None:
        if self._loop_was_blocked:
            return
        self._loop_was_blocked = True
        site = Site.outside(__package__ or "millpond")
        text = (
            f"{self.name}: a caller waits in a thread that runs an event loop, which stands still meanwhile"
            f"{f' ({site})' if site else ''}; use millpond.AsyncPool there, or call from a thread (asyncio.to_thread)"
        )
        warn(text, EventLoopBlocked, site)

    def _report_unreset(self, error: Exception) -> None:
        """A reset that failed has cost the connection, and that is all; a mistake in the caller's own is told."""
        of_link = (OSError, self._driver.family("Error") or OSError)
        own = self._reset_name == "callable" and not isinstance(error, of_link)
        text = "%s: a connection could not be reset and was closed: %r"
        logger.log(logging.WARNING if own else logging.DEBUG, text, self.name, error, exc_info=error if own else None)

    # ------------------------------------------------------------------ time, and the end of it
    def _alarm_in(self) -> float:
        """Return how many seconds are left until a tick is due."""
        if self._ledger.lost.found or self._left:
            return 0.0
        return self._ledger.alarm_at - self._clock()

    def _alarm_rang(self) -> None:
        if self._alarm_in() <= 0:
            self._decide(upkeep.tick, self._ledger)

    def _driver_close(self, conn: C) -> Any:
        """Close a connection here and now, without waiting for its server."""
        try:
            return self._driver.close(conn)
        except Exception as error:  # noqa: BLE001  the connection is being given up; that it was dead is no news
            logger.debug("%s: closing a connection failed: %r", self.name, error)

    def _part_at_exit(self) -> None:
        """Say goodbye to connections that nobody uses, here and now; nothing that waits may be had any more."""
        for shelf in (self._ledger.idle, self._ledger.settling, self._ledger.untended):
            while shelf:
                try:
                    slot = shelf.popleft()
                except IndexError:  # another thread, which the exit has not ended yet, was quicker
                    break
                conn, slot.conn = slot.conn, None
                slot.state = GONE
                self._driver_close(conn)

    def _after_fork(self) -> None:
        """Forget the parent's connections, without a word to its server, and begin anew."""
        for slot in self._ledger.live():
            slot.state, slot.expires_at = GONE, RETIRED
            conn, slot.conn = slot.conn, None
            if conn is None:
                continue
            fd = self._driver.fileno(conn)
            if fd is not None:
                point_nowhere(fd)
            if fd is None or self._keeps_inherited:
                _kept_from_closing.append(conn)  # its destructor would end the parent's session, or complain
        self._begin()


def pool_closed() -> PoolClosed:
    """Make the error of a caller who came too late."""
    return PoolClosed("the pool is closed")


def warn(text: str, category: type[Warning], site: Site | None) -> None:
    """Issue a warning at the place it is about: the stack here is the pool's own, often in another thread."""
    try:
        if site is None:
            warnings.warn(text, category, stacklevel=2)
        else:
            warnings.warn_explicit(text, category, site.file, site.line)
    except Warning as error:  # warnings made errors must not kill whoever happens to report
        # Not the error itself: a handler that keeps its records would keep the frames here, and what they hold.
        logger.error(str(error))  # noqa: TRY400  the traceback would be the pool's own


def register(pool: Shell[Any]) -> None:
    """Look after a pool at fork and at exit."""
    _pools.add(pool)


def _after_fork_in_child() -> None:
    for pool in everyone_in(_pools):
        pool._after_fork()


def _at_exit() -> None:
    for pool in everyone_in(_pools):
        pool._part_at_exit()


atexit.register(_at_exit)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
