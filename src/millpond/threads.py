"""The thread shell: how threads park, wake, dial and close; it decides nothing.

The lock is taken in two lines, in :meth:`Pool._converse` and :meth:`Pool._decide`, and held while a conversation or a
decision advances, never while anything takes time.  Outside of it there are only the two halves of the fast path, in
:meth:`Pool.connection` and :meth:`millpond.lease.Lease.close`: pop, two comparisons, push, second look.

A slot between two of their instructions is held by the frame that runs them and by nothing else; if a signal handler
raises just there, the slot dies with the frame and its finalizer tells the pool.
"""

from __future__ import annotations

import atexit
import contextvars
import dataclasses
import itertools
import logging
import os
import sys
import types
import warnings
import weakref
from _thread import get_ident
from collections import deque
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from . import diagnosis
from ._core import conversations
from ._core.ledger import Ledger
from ._core.ports import Ports
from ._core.states import FOREVER, GONE, LEASED, RETIRED, Notice, Slot, Verb
from ._crew import AlarmClock, Crew, LockLike, Runtime, Waiter
from .drivers import resolve
from .drivers.base import Driver
from .errors import Error, ErrorT, InvalidSetting, LeaseDropped, PoolClosed, PoolTimeout, UncommittedWork, joined
from .lease import Lease, forwarding
from .limits import Dial, Growth, IdleOrder, Limits, timeout_of
from .observer import Observer, event_of
from .sites import Site
from .stats import PoolStats, snapshot

if TYPE_CHECKING:
    from typing_extensions import Self

    from ._core.conversations import Request

C = TypeVar("C")
T = TypeVar("T")
logger = logging.getLogger("millpond")
_getframe = sys._getframe
_numbers = itertools.count(1)
_pools: weakref.WeakSet[Pool[Any]] = weakref.WeakSet()
_kept_from_closing: list[Any] = []  # connections inherited by a fork that have no descriptor to disarm


class Pool(Generic[C]):
    """A pool of database connections for threads.

    Args:
        source: a URL (``mysql://user:password@host/database``), a DB-API module, a callable that connects, or a driver
        adapter. connect_args: passed to the driver's ``connect`` for a module, or beside what a URL says.
        driver: the name of the adapter for connections of a callable; found from the first connection if not given.
        max_size: most connections open or being opened at once; 1 or more.
        min_idle: idle connections kept open, as room allows; 0 to ``max_size``.
        timeout: seconds a caller waits for a connection, all in all; 0 or more, None for ever.
        max_lifetime: seconds after which a connection is replaced; each has its own, shorter by up to 20 %.  Keep it
        below
            what proxies and load balancers allow.  None for ever.
        idle_timeout: seconds after which a connection that nobody uses is closed, down to ``min_idle``; None for ever.
        check_after: seconds without use after which a connection is checked before it is handed out; 0 or more.
        check_timeout: most seconds for such a check.
        connect_timeout: most seconds for a dial, in which a driver that can be bounded ends and any other is given up.
        fail_after: seconds of outage after which callers are told at once instead of waiting; None: they wait.
        reset: how a connection is made as good as new: "auto" (what is needed, by what the driver can tell), "always",
            "rollback", "none" (also None), or a callable that gets the connection and returns False to have it given
            up.
        on_connect: a statement, several, or a callable that gets the connection: run once for each new one.
        max_uses: checkouts after which a connection is replaced; None for no limit.
        max_waiting: most callers in the queue; the next is turned away at once.  None for no limit.
        idle_order: "lifo" keeps few connections warm and lets the others go; "fifo" uses all evenly.
        dial: "auto"; "threads"; or "caller": callers connect for themselves, in their own thread.
        max_dialing: most connections being opened at once; 1 or more.
        growth: "thrifty" dials when waiting for a return would cost more; "eager" dials for every caller who has to
        wait. track_use: note who takes a connection, where and for how long, and count it; some 0.2 us a checkout, off
        for none. observer: called with every event (see :mod:`millpond.observer`).
        name: in reports; numbered if not given.
        runtime: where clock, locks and threads come from; for tests.

    Raises:
        InvalidSetting: a setting is out of bounds, unknown, or malformed; nothing was opened.
        DriverMissing: the driver's package is not installed.
    """

    def __init__(
        self,
        source: str | types.ModuleType | Callable[[], C] | Driver[C],
        *,
        connect_args: dict[str, Any] | None = None,
        driver: str | None = None,
        max_size: int = 10,
        min_idle: int = 0,
        timeout: float | None = 30.0,
        max_lifetime: float | None = 1800.0,
        idle_timeout: float | None = 600.0,
        check_after: float | None = 30.0,
        check_timeout: float = 2.0,
        connect_timeout: float = 10.0,
        fail_after: float | None = None,
        reset: str | Callable[[C], Any] | None = "auto",
        on_connect: str | list[str] | tuple[str, ...] | Callable[[C], Any] | None = None,
        max_uses: int | None = None,
        max_waiting: int | None = None,
        idle_order: IdleOrder = "lifo",
        dial: Dial = "auto",
        max_dialing: int = 64,
        growth: Growth = "thrifty",
        track_use: bool = True,
        observer: Observer | None = None,
        name: str | None = None,
        runtime: Runtime | None = None,
    ) -> None:
        self._limits = Limits.of(
            max_size=max_size,
            min_idle=min_idle,
            timeout=timeout,
            max_lifetime=max_lifetime,
            idle_timeout=idle_timeout,
            check_after=check_after,
            check_timeout=check_timeout,
            connect_timeout=connect_timeout,
            fail_after=fail_after,
            max_uses=max_uses,
            max_waiting=max_waiting,
            idle_order=idle_order,
            dial=dial,
            max_dialing=max_dialing,
            growth=growth,
        )
        listener: object = observer
        if listener is not None and not callable(listener):
            raise InvalidSetting("observer", observer, "a callable that takes an event, or None")
        self._driver: Driver[C] = resolve(
            source,
            connect_args=connect_args,
            driver=driver,
            reset=reset,
            on_connect=on_connect,
            connect_timeout=self._limits.connect_timeout_s,
        )
        self._resets = reset not in ("none", None)
        self._reset_name = reset if isinstance(reset, str) else "none" if reset is None else "callable"
        self._dial_setting = dial
        self._observer = observer
        self._tracks = track_use
        self._uncommitted = 0
        self._warned: set[tuple[types.CodeType | None, int]] = set()
        self.name = name or f"pool-{next(_numbers)}"
        self._runtime = runtime or Runtime.of_host()
        self._begin()
        _pools.add(self)
        self._decide(lambda: self._ledger.look(self._clock()))

    def _begin(self) -> None:
        """Make everything that must not be shared with a forked child."""
        runtime = self._runtime
        self._clock = runtime.clock
        self._lock: LockLike = runtime.new_lock()
        self._crew = Crew(runtime)
        self._alarm = AlarmClock(runtime, self._crew, self)
        self._context = contextvars.Context()
        driver = self._driver
        self._ledger = Ledger(
            self._limits,
            Ports(
                clock=runtime.clock,
                jitter=runtime.jitter,
                new_waiter=lambda: Waiter(runtime.new_lock),
                nudge=self._alarm.nudge,
                classify=driver.classify,
                timed_out=diagnosis.timed_out,
                closed=pool_closed,
                queue_full=diagnosis.queue_full,
                observing=self._observer is not None,
            ),
        )
        self._outbox = self._ledger.outbox
        self._tickets = self._ledger.tickets
        self._check_after_s = self._limits.check_after_s
        self._kind: type[Any] | None = None  # of connections seen so far
        self._lease_kind: type[Lease[Any]] = Lease
        self._probed = False
        self._perform: dict[Verb, Callable[[Any, float], Any]] = {
            Verb.OPEN: self._open,
            Verb.CHECK: self._check,
            Verb.RESET: self._reset,
            Verb.DEFER: self._defer,
            Verb.COLLECT: self._collect,
            Verb.PARK: self._park,
        }
        self._lay_fast_path()

    def _lay_fast_path(self) -> None:
        """Choose what the fast path looks at; on a build without the GIL every step goes through the lock."""
        self._must_clean = must_clean(self._driver, resets=self._resets)
        with_gil: bool = getattr(sys, "_is_gil_enabled", lambda: True)()
        self._idle: deque[Slot] = self._ledger.idle if with_gil and self._limits.lifo else deque()
        self._unclean = self._must_clean if with_gil and self._limits.max_uses == FOREVER else always
        self._readable = self._driver.is_readable
        self._ledger.ports = dataclasses.replace(
            self._ledger.ports,
            quiet_s=FOREVER if self._readable is None else QUIET_S,
            defers=self._driver.send_reset is not None,
        )

    # ------------------------------------------------------------------ for callers
    def connection(self, timeout: float | None = None) -> Lease[C]:
        """Take a connection, waiting for one if need be.

        Args:
            timeout: seconds to wait, all in all; None for the pool's own ``timeout``, 0 for not at all.

        Returns:
            A lease: use it in a ``with`` block, or call its ``close()``; both give the connection back.

        Raises:
            PoolTimeout: nothing came in time; says who holds the connections, or what is wrong with the server.
            TooManyWaiting: ``max_waiting`` callers are in the queue already.
            PoolClosed: the pool was closed.
            Exception: the driver's own, while no connect has ever succeeded and waiting cannot mend it.
        """
        if self._tickets:
            slot = None
        else:
            try:
                slot = self._idle.pop()
            except IndexError:
                slot = None
            else:
                now = self._clock()
                readable = self._readable
                if (
                    now < slot.best_before
                    and now < slot.expires_at
                    and (readable is None or now - slot.returned_at < QUIET_S or not readable(slot.conn))
                ):
                    slot.state = LEASED
                    slot.leased_at = now
                    lease = self._lease_kind()
                    lease._pool = self
                    lease._slot = slot
                    if self._tracks:
                        frame = _getframe(1)
                        slot.code = frame.f_code
                        slot.instruction = frame.f_lasti
                        slot.thread_id = get_ident()
                    return lease
                slot.best_before = RETIRED
        return self._lend(self._checkout(timeout, slot), _getframe(1))

    def stats(self) -> PoolStats:
        """Return a snapshot of the pool: sizes, the queue, counters, who holds what."""
        with self._lock:
            return snapshot(self._ledger, name=self.name, reset=self._reset_name, uncommitted=self._uncommitted)

    def wait(self, timeout: float | None = None) -> None:
        """Wait until ``min_idle`` connections are open.

        Args:
            timeout: seconds to wait at most; None for the pool's own ``timeout``.

        Raises:
            PoolTimeout: they were not there in time.
            PoolClosed: the pool was closed.
            Exception: the driver's own, while no connect has ever succeeded and waiting cannot mend it.
        """
        ledger = self._ledger
        began_at = self._clock()
        until = began_at + timeout_of(timeout, self._limits.timeout_s)
        if ledger.closed:
            raise self._joined(pool_closed())
        try:
            there = self._converse(conversations.await_state(ledger, ledger.is_filled, until))
        except Error as error:
            raise self._joined(error) from error.__cause__
        if not there:
            with self._lock:
                late = diagnosis.timed_out(ledger, self._clock() - began_at)
            raise self._joined(late) from late.__cause__

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

    def release(self, conn: Any) -> None:
        """Give a connection back, as its own ``close()`` does; for code that is handed the pool as well.

        Raises:
            InvalidSetting: it is no lease, or one of another pool.
        """
        lender: object = getattr(conn, "_pool", None) if issubclass(type(conn), Lease) else None
        if lender is not self:
            owner = "" if lender is None else f"; it belongs to {lender!r}"
            raise InvalidSetting("conn", conn, f"a connection of {self!r}", f"this pool did not lend it{owner}")
        conn.close()

    def close(self, timeout: float = 5.0) -> None:
        """Close the pool: refuse new callers, wait for connections that are out, then cut those that are left.

        Args:
            timeout: seconds to wait for connections to be given back; 0 cuts at once.

        A connection whose driver has no way to be cut stays with its holder and is closed when it comes back.
        """
        until = self._clock() + timeout_of(timeout, timeout)
        ledger = self._ledger
        self._decide(ledger.close)
        if not self._converse(conversations.await_state(ledger, ledger.is_empty, until)):
            with self._lock:
                conns = ledger.cut()
            for conn in conns:
                self._driver.cut(conn)
            self._deliver()
        self._decide(ledger.rest)
        self._alarm.nudge()
        self._crew.join(max(until, self._clock() + PARTING_S))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __repr__(self) -> str:
        ledger = self._ledger
        state = (
            "closed" if ledger.closed else f"{len(ledger.slots)}/{ledger.limits.max_size} open, {len(ledger.idle)} idle"
        )
        return f"<millpond.Pool {self.name} of {self._driver!r}: {state}>"

    def __del__(self) -> None:
        # Nobody else can reach the pool any more, so nothing here is shared.
        ledger: Ledger | None = getattr(self, "_ledger", None)
        if ledger is None or not ledger.idle:
            return
        warnings.warn(f"{self!r} was never closed", ResourceWarning, stacklevel=2, source=self)
        self._part_at_exit()

    # ------------------------------------------------------------------ the slow path
    def _checkout(self, timeout: float | None, popped: Slot | None) -> Slot:
        until = self._clock() + (self._limits.timeout_s if timeout is None else timeout_of(timeout, 0.0))
        try:
            return self._converse(conversations.checkout(self._ledger, until, popped))
        except Error as error:
            if isinstance(error, PoolTimeout):
                self._tell("timed_out", {"error": error})
            raise self._joined(error) from error.__cause__

    def _lend(self, slot: Slot, frame: types.FrameType) -> Lease[C]:
        lease = self._lease_kind()
        lease._pool = self
        lease._slot = slot
        if self._tracks:
            slot.code = frame.f_code
            slot.instruction = frame.f_lasti
            slot.thread_id = get_ident()
        return lease

    def _give_back(self, slot: Slot, exc_type: type[BaseException] | None) -> None:
        ledger = self._ledger
        if slot.cursors:
            self._cut_cursors(slot)
        if self._is_spoilt(slot, exc_type):
            self._decide(lambda: ledger.reject(slot, self._clock()))
            return
        if self._must_clean is None or not self._must_clean(slot):
            with self._lock:
                ledger.take_back(slot, self._clock())
            self._deliver()
            return
        until = self._clock() + self._limits.connect_timeout_s
        try:
            # Whoever leaves a block by an exception expects a rollback, and is not warned of it.
            if exc_type is None and slot.conn is not None and self._driver.uncommitted(slot.conn):
                self._report_uncommitted(slot)
            self._converse(conversations.checkin(ledger, slot, until))
        except Exception as error:  # noqa: BLE001  a reset that failed cost the connection, and that is all it costs
            logger.debug("%s: a connection could not be reset and was closed: %r", self.name, error)

    def _is_spoilt(self, slot: Slot, exc_type: type[BaseException] | None) -> bool:
        """Was it left in the middle of something?  That a generator was closed proves nothing by itself."""
        if slot.conn is None:
            return False
        in_flight = self._driver.in_flight(slot.conn)
        if exc_type is None or issubclass(exc_type, Exception):
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

    def _converse(self, conversation: Generator[Request, Any, T]) -> T:
        """Hold a conversation to its end."""
        step: Callable[[Any], Request] = conversation.send
        answer: Any = None
        while True:
            try:
                with self._lock:
                    verb, subject, until = step(answer)
            except StopIteration as end:
                result: T = end.value
                return result
            finally:
                if self._outbox:
                    self._deliver()
            try:
                step, answer = conversation.send, self._perform[verb](subject, until)
            except BaseException as error:  # noqa: BLE001  it is the conversation's to decide about
                step, answer = conversation.throw, error

    def _decide(self, decision: Callable[[], object]) -> None:
        with self._lock:
            decision()
        self._deliver()

    # ------------------------------------------------------------------ verbs
    def _open(self, slot: Slot, until: float) -> C | None:
        slot.asker = None  # it keeps a context alive
        conn = self._driver.open(until)
        if type(conn) is not self._kind:
            self._meet(conn)
        by_dialer = not self._ledger.callers_dial
        if by_dialer and not self._probed and self._driver.bound_to_thread(conn):
            self._let_callers_dial()
            self._driver.close(conn)
            return None
        self._probed = True
        return conn

    def _meet(self, conn: C) -> None:
        """Learn what the first connection of a kind can do."""
        self._lease_kind = forwarding(conn)
        self._kind = type(conn)
        with self._lock:
            self._lay_fast_path()

    def _let_callers_dial(self) -> None:
        """Let each caller make its own connections, which nobody else may use; one of another thread is replaced."""
        self._probed = True
        self._limits = self._limits.changed(dial="caller", check_after=0.0)
        with self._lock:
            self._ledger.limits = self._limits
        self._check_after_s = 0.0

    def _check(self, slot: Slot, until: float) -> bool:
        conn = slot.conn
        readable = self._driver.is_readable
        if readable is not None and readable(conn):
            return False
        if self._clock() < slot.best_before:
            return True
        return self._driver.is_alive(conn, until)

    def _reset(self, slot: Slot, until: float) -> bool:
        return self._driver.reset(slot.conn, until)

    def _defer(self, slot: Slot, until: float) -> bool | None:
        send_reset = self._driver.send_reset
        if send_reset is None:  # the ports were made for another connection's capabilities
            return self._reset(slot, until)
        return send_reset(slot.conn)

    def _collect(self, slot: Slot, until: float) -> bool | None:
        return self._driver.collect(slot.conn, until)

    def _park(self, ticket: Any, until: float) -> None:
        ticket.waiter.wait(until - self._clock())

    # ------------------------------------------------------------------ notices
    def _deliver(self) -> None:
        """Perform what is in the outbox: first perform, then remove, so that a signal in between loses nothing."""
        outbox = self._outbox
        while outbox:
            try:
                notice = outbox[0]
            except IndexError:  # another thread was quicker
                return
            self._notify(*notice)
            try:
                outbox.remove(notice)
            except ValueError:  # another thread has performed it as well: all of them may be performed twice
                continue

    def _notify(self, notice: Notice, subject: Any) -> None:
        if notice is Notice.WAKE:
            subject.waiter.wake()
        elif notice is Notice.DIAL:
            self._start_dialer(subject)
        elif notice is Notice.ALARM:
            self._alarm.arm()
        elif notice is Notice.CLOSE:
            self._part(subject)
        elif notice is Notice.TEND:
            self._crew.start(self._tend, self._context)
        else:
            self._tell(*subject)

    def _start_dialer(self, slot: Slot) -> None:
        asker = slot.asker
        context = asker.context if asker is not None else self._context
        started = self._crew.start(lambda: self._dial(slot), context)
        if not started:  # the next step will see it: notices are delivered outside the lock
            with self._lock:
                self._ledger.dial_elsewhere(slot)

    def _dial(self, slot: Slot) -> None:
        self._converse(conversations.dial(self._ledger, slot))

    def _tend(self) -> None:
        self._converse(conversations.tend(self._ledger))

    def _part(self, conn: C) -> None:
        self._crew.part(lambda: self._driver_close(conn))

    def _driver_close(self, conn: C) -> None:
        try:
            self._driver.close(conn)
        except Exception as error:  # noqa: BLE001  the connection is being given up; that it was dead is no news
            logger.debug("%s: closing a connection failed: %r", self.name, error)

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
        warn(text, LeaseDropped)

    def _report_uncommitted(self, slot: Slot) -> None:
        self._uncommitted += 1
        place = (slot.code, slot.instruction)
        if place in self._warned or len(self._warned) >= WARNED_MAX:
            return
        self._warned.add(place)
        site = Site.of(*place)
        where = f" (taken at {site})" if site else ""
        text = f"{self.name}: a connection{where} came back with writes that were not committed; they are rolled back"
        warn(text, UncommittedWork)

    # ------------------------------------------------------------------ time, and the end of it
    def _alarm_in(self) -> float:
        """Return how many seconds are left until a tick is due."""
        if self._ledger.lost.found:
            return 0.0
        return self._ledger.alarm_at - self._clock()

    def _alarm_rang(self) -> None:
        if self._alarm_in() <= 0:
            self._decide(self._ledger.tick)

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

    def _part_at_exit(self) -> None:
        """Say goodbye to idle connections, here and now; threads may not be had any more."""
        idle = self._ledger.idle
        while idle:
            slot = idle.popleft()
            slot.state, conn, slot.conn = GONE, slot.conn, None
            self._driver_close(conn)

    def _after_fork(self) -> None:
        """Forget the parent's connections, without a word to its server, and begin anew."""
        for slot in self._ledger.live():
            slot.state, slot.expires_at = GONE, RETIRED
            conn, slot.conn = slot.conn, None
            if conn is None:
                continue
            fd = self._driver.fileno(conn)
            if fd is None:
                _kept_from_closing.append(conn)  # its destructor would end the parent's session
            else:
                point_nowhere(fd)
        self._begin()


QUIET_S = 0.001  # a connection that answered so short a time ago is not polled
PARTING_S = 2.0  # close() waits so long for connections to be closed, beyond its own time-out
WARNED_MAX = 1000  # call sites remembered, so that a program that makes code objects cannot fill the memory


def must_clean(driver: Driver[Any], *, resets: bool) -> Callable[[Slot], bool] | None:
    """Return what tells, of a slot given back, whether anything is to be done about it; None if never."""
    is_clean = driver.is_clean
    if not resets:
        return has_cursors if driver.tracks_cursors else None
    if is_clean is None:
        return always
    if driver.tracks_cursors:
        return lambda slot: bool(slot.cursors) or not is_clean(slot.conn)
    return lambda slot: not is_clean(slot.conn)


def always(_: Slot) -> bool:
    """Say that something is always to be done."""
    return True


def has_cursors(slot: Slot) -> bool:
    """Say whether cursors have to be cut off."""
    return bool(slot.cursors)


def pool_closed() -> PoolClosed:
    """Make the error of a caller who came too late."""
    return PoolClosed("the pool is closed")


def warn(text: str, category: type[Warning]) -> None:
    """Issue a warning that names its place in the text: the stack here is the pool's own, often in another thread."""
    try:
        warnings.warn(text, category, stacklevel=2)
    except Warning as error:  # warnings made errors must not kill the thread that happens to report
        logger.error("%s", error)  # noqa: TRY400  the traceback would be the pool's own


def point_nowhere(fd: int) -> None:
    """Let a descriptor that a fork inherited lead to /dev/null: the server does not hear what is said there."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    os.dup2(nowhere, fd)
    os.close(nowhere)


def _after_fork_in_child() -> None:
    for pool in list(_pools):
        pool._after_fork()


def _at_exit() -> None:
    for pool in list(_pools):
        pool._part_at_exit()


atexit.register(_at_exit)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
