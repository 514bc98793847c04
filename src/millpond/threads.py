"""The thread shell: how threads park, wake, dial and close; it decides nothing.

The lock is taken in :meth:`Pool._converse`, :meth:`Pool._decide` and :meth:`Pool._step`, and held while a conversation
or a decision advances, never while anything takes time.  Outside of it there are only the two halves of the fast path,
in :meth:`Pool.connection` and :meth:`millpond.lease.Lease.close`: pop, two comparisons, push, second look.

A slot between two of their instructions is held by the frame that runs them and by nothing else; if a signal handler
raises just there, the slot dies with the frame and its finalizer tells the pool (docs/adr/019-signals.md).
"""

from __future__ import annotations

import contextvars
import functools
import sys
import types
from _thread import get_ident
from collections import deque
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any, TypeVar

from ._core import census, conversations
from ._core.states import FOREVER, LEASED, RETIRED, Notice, Reason, Slot, Verb
from ._crew import AlarmClock, Crew, LockLike, Runtime, Waiter
from ._shell import PARTING_S, QUIET_S, C, Shell, register
from .drivers.base import Driver
from .errors import Error
from .lease import Lease
from .limits import Dial, Growth, IdleOrder, timeout_of
from .observer import Observer
from .stats import PoolStats, thread_names

if TYPE_CHECKING:
    from typing_extensions import Self

    from ._core.conversations import Request

T = TypeVar("T")
_getframe = sys._getframe
WAKE = Notice.WAKE
ONCE = (Notice.CLOSE, Notice.TELL)  # all other notices may be performed twice without harm


class Pool(Shell[C]):
    """A pool of database connections for threads.

    Args:
        source: a URL (``mysql://user:password@host/database``), a DB-API module, a callable that connects, or a driver
            adapter.
        connect_args: passed to the driver's ``connect`` for a module or a callable, or beside what a URL says.
        driver: the name of the adapter for connections of a callable; found from the first connection if not given.
        max_size: most connections open or being opened at once; 1 or more.
        min_idle: connections kept open, as room allows; 0 to ``max_size``.
        timeout: seconds a caller waits for a connection, all in all; 0 or more, None for ever.
        max_lifetime: seconds after which a connection is replaced; each has its own, shorter by up to 20 %.  Keep it
            below what proxies and load balancers allow.  More than 0, None for ever.
        idle_timeout: seconds after which a connection that nobody uses is closed, down to ``min_idle``; more than 0,
            None for ever.
        check_after: seconds without use after which a connection is checked before it is handed out; 0 or more, None
            for never.
        check_timeout: most seconds for such a check; more than 0.
        connect_timeout: most seconds for a dial, in which a driver that can be bounded ends and any other is given up;
            more than 0.
        fail_after: seconds of outage after which callers are told at once instead of waiting; 0 or more, None: they
            wait.
        reset: how a connection is made as good as new: "auto" (what is needed, by what the driver can tell), "always",
            "rollback", "none" (also None), or a callable that gets the connection and returns False to have it given
            up.
        on_connect: a statement, several, or a callable that gets the connection: run once for each new one.
        max_uses: checkouts after which a connection is replaced; 1 or more, None for no limit.
        max_waiting: most callers who wait for one to be given back, the next is turned away at once; those for whom a
            connection can be opened do not count.  0 or more, None for no limit.
        idle_order: "lifo" keeps few connections warm and lets the others go; "fifo" uses all evenly.
        dial: "auto" and "threads": in threads of their own ("auto" finds out where that cannot be); "caller": callers
            connect for themselves, in their own thread.
        max_dialing: most connections being opened at once; 1 or more.
        growth: "thrifty" dials when waiting for a return would cost more; "eager" dials for every caller who has to
            wait.
        track_use: note who takes a connection, where and for how long, and count it; some 0.2 us a checkout and
            return.
        observer: called with every event (see :mod:`millpond.observer`).
        name: in reports; numbered if not given.
        runtime: where clock, locks and threads come from; for tests.

    Raises:
        InvalidSetting: a setting is out of bounds, unknown, or malformed; nothing was opened.
        DriverMissing: the driver's package is not installed.
    """

    _lease_kind: type[Lease[C]]
    _driver: Driver[C]  # pyright: ignore[reportIncompatibleVariableOverride]  # set once

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
        self._take_settings(
            source,
            connect_args=connect_args,
            driver=driver,
            reset=reset,
            on_connect=on_connect,
            track_use=track_use,
            observer=observer,
            name=name,
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
        self._runtime = runtime or Runtime.of_host()
        self._begin()
        register(self)
        self._decide(lambda: self._ledger.look(self._clock()))

    def _begin(self) -> None:
        """Make everything that must not be shared with a forked child."""
        runtime = self._runtime
        self._clock = runtime.clock
        self._lock: LockLike = runtime.new_lock()
        self._stepper = 0  # the thread that is in a step, while there is one
        self._crew = Crew(runtime)
        self._alarm = AlarmClock(runtime, self._crew, self)
        self._context = contextvars.Context()
        self._lay_ledger(
            clock=runtime.clock,
            jitter=runtime.jitter,
            new_waiter=functools.partial(Waiter, runtime.new_lock),
            nudge=self._alarm.nudge,
            holder_names=thread_names,
            with_gil=runtime.with_gil,
        )
        self._probed = False
        self._perform: dict[Verb, Callable[[Any, float], Any]] = {
            Verb.OPEN: self._open,
            Verb.CHECK: self._check,
            Verb.RESET: self._reset,
            Verb.DEFER: self._defer,
            Verb.COLLECT: self._collect,
            Verb.PARK: self._park,
        }

    # ------------------------------------------------------------------ for callers
    def connection(self, timeout: float | None = None) -> Lease[C]:
        """Take a connection, waiting for one if need be.

        Args:
            timeout: seconds to wait, all in all; None for the pool's own ``timeout``, 0 for not at all.

        Returns:
            A lease: use it in a ``with`` block, or call its ``close()``; both give the connection back.

        Raises:
            PoolTimeout: nothing came in time; says who holds the connections, or what is wrong with the server.
            TooManyWaiting: ``max_waiting`` callers wait for a return already.
            PoolClosed: the pool was closed.
            InvalidSetting: *timeout* is no number of seconds, 0 or more: the program's fault.
            Exception: the driver's own, while no connect has ever succeeded and waiting cannot mend it.
        """
        if timeout is not None:  # a mistake must show at the first call, not only when somebody has to wait
            timeout_of(timeout, 0.0)
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

    @property
    def driver(self) -> Driver[C]:
        """The adapter of the pool's driver: what tells its errors apart, and opens connections beside the pool's."""
        return self._driver

    def stats(self) -> PoolStats:
        """Return a snapshot of the pool: sizes, the queue, counters, who holds what."""
        self._refuse_in_a_step()
        return self._step(self._snapshot)

    def wait(self, timeout: float | None = None) -> None:
        """Wait until ``min_idle`` connections are open.

        Args:
            timeout: seconds to wait at most; None for the pool's own ``timeout``.

        Raises:
            PoolTimeout: they were not there in time.
            PoolClosed: the pool was closed.
            InvalidSetting: *timeout* is no number of seconds, 0 or more: the program's fault.
            Exception: the driver's own, while no connect has ever succeeded and waiting cannot mend it.
        """
        self._refuse_in_a_step()
        try:
            self._converse(self._filling(timeout))
        except Error as error:
            raise self._joined(error) from error.__cause__

    def release(self, conn: Any) -> None:
        """Give a connection back, as its own ``close()`` does; for code that is handed the pool as well.

        Raises:
            InvalidSetting: it is no lease, or one of another pool.
        """
        self._check_owner(conn)
        conn.close()

    def close(self, timeout: float | None = 5.0) -> None:
        """Close the pool: refuse new callers, wait for connections that are out, then cut those that are left.

        A connection whose driver has no way to be cut stays with its holder and is closed when it comes back.

        Args:
            timeout: seconds to wait for connections to be given back, and for dials in flight to end; 0 cuts at once,
                None waits as long as it takes.  Saying goodbye may take two seconds more.

        Raises:
            InvalidSetting: that is no time-out; the pool stays open.
        """
        until = self._clock() + timeout_of(timeout, FOREVER)
        self._decide(self._ledger.close)
        if not self._converse(self._emptying(until)):
            self._cut_what_is_out()
        self._decide(self._ledger.rest)
        self._alarm.nudge()
        now = self._clock()
        dials_end_at = min(until, now + self._limits.connect_timeout_s)
        self._crew.join(max(dials_end_at, now + PARTING_S))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    # ------------------------------------------------------------------ the slow path
    def _checkout(self, timeout: float | None, popped: Slot | None) -> Slot:
        if self._stepper:
            self._refuse_in_a_step()
        if self._left:
            self._take_what_was_left()
        try:
            return self._converse(self._asking(timeout, popped))
        except Error as error:
            raise self._refusal(error) from error.__cause__

    def _lend(self, slot: Slot, frame: types.FrameType) -> Lease[C]:
        lease = self._lease_kind()
        lease._pool = self
        lease._slot = slot
        if self._tracks:
            slot.code = frame.f_code
            slot.instruction = frame.f_lasti
            slot.thread_id = get_ident()
        return lease

    def _hand_over(self, slot: Slot, _: type[BaseException] | None) -> None:
        """Give back what is as good as new while others wait: each of them has waited for every line in here."""
        if self._stepper and self._puts_aside(slot):
            return
        self._decide(self._ledger.take_back, slot)
        self._runtime.step_aside()  # whoever was served is awake by now, and needs the interpreter to begin

    def _give_back(self, slot: Slot, exc_type: type[BaseException] | None) -> None:
        if self._stepper and self._puts_aside(slot):
            return
        self._give_back_now(slot, exc_type)

    def _discard(self, slot: Slot) -> None:
        slot.expires_at = RETIRED  # so that whoever it is left to gives it up
        if not self._puts_aside(slot):
            super()._discard(slot)

    def _look_again(self, slot: Slot) -> None:
        if self._is_stepping():
            self._alarm.nudge()
            return
        super()._look_again(slot)

    def _puts_aside(self, slot: Slot) -> bool:
        """Leave a slot to whoever comes after the step that this thread is in; say whether it is in one."""
        if not self._is_stepping():
            return False
        self._left.append(slot)
        self._alarm.nudge()
        return True

    def _is_stepping(self) -> bool:
        """Say whether this thread is in a step: the collector, or a signal, has called somebody's code there.

        A signal may have struck between the end of a step and the word of it: then that word is still this thread's,
        and whoever has the lock by now may not have said so yet.  Only the thread's own frames are certain, and nothing
        is taken to look at them that a second signal could keep from being given back.
        """
        return self._stepper == get_ident() and self._lock.locked() and is_within(STEPS)

    def _refuse_in_a_step(self) -> None:
        if self._is_stepping():
            text = (
                f"{self.name}: used by a finalizer or a signal handler that has interrupted the pool itself in this "
                "thread; there, connections can be given back, and nothing else be done with the pool"
            )
            raise Error(text)

    def _take_what_was_left(self) -> None:
        while (slot := self._next_left()) is not None:
            self._give_back_now(slot, GeneratorExit)

    def _alarm_rang(self) -> None:
        self._take_what_was_left()
        super()._alarm_rang()

    def _give_back_now(self, slot: Slot, exc_type: type[BaseException] | None) -> None:
        if census.was_garbage(self._ledger, slot):  # its holder's finalizer gives it back; its own may be about to run
            found = self._reclaimed(slot, left=False)
            if found is None:
                return
            slot = found
        if slot.conn is not None and self._driver.role_suspect(slot.conn):
            self._look_into_role(slot.conn)
        conversation = self._take_back(slot, exc_type)
        if conversation is None:
            return
        try:
            self._converse(conversation)
        except Exception as error:  # noqa: BLE001  see there
            self._report_unreset(error)

    def _look_into_role(self, conn: C) -> None:
        """The server may have become read-only: ask it, and if so, leave it; addresses are looked up anew by dials."""
        now = self._clock()
        asks = self._step(self._ledger.looks_into_role, now)
        if asks and self._driver.has_lost_role(conn, now + self._limits.check_timeout_s):
            self._decide(lambda: self._ledger.drain(Reason.ROLE))

    def _converse(self, conversation: Generator[Request, Any, T]) -> T:
        """Hold a conversation to its end."""
        step: Callable[[Any], Request] = conversation.send
        answer: Any = None
        request: Any = None
        raised: BaseException | None = None
        me = get_ident()
        while True:
            try:
                with self._lock:
                    # Nothing is raised through the end of this block: between an exception and the release of the lock
                    # Python 3.10 looks for signals, and a handler that raised there would leave the lock held for ever.
                    try:
                        self._stepper = me
                        request = step(answer)
                    except StopIteration as end:
                        request, answer = None, end.value
                    except BaseException as error:  # noqa: BLE001  raised again below
                        raised = error
                    self._stepper = 0
            finally:
                if self._outbox:
                    self._deliver()
            if raised is not None:
                try:
                    raise raised
                finally:
                    raised = answer = None  # their tracebacks hold this frame, which would hold them in turn
            if request is None:
                result: T = answer
                return result
            verb, subject, until = request
            try:
                answer = self._perform[verb](subject, until)
                step = conversation.send
            except BaseException as error:  # noqa: BLE001  it is the conversation's to decide about
                step, answer = conversation.throw, error

    def _decide(self, decision: Callable[..., object], *subjects: Any) -> None:
        if self._stepper:
            self._refuse_in_a_step()
        me = get_ident()  # not a call later: the collector may run at any
        with self._lock:
            self._stepper = me
            try:
                decision(*subjects)
            finally:
                self._stepper = 0
        self._deliver()

    def _step(self, decision: Callable[..., T], *subjects: Any) -> T:
        """Take a step whose notices, if any, are delivered by whoever called this; return what was decided."""
        me = get_ident()
        with self._lock:
            self._stepper = me
            try:
                return decision(*subjects)
            finally:
                self._stepper = 0

    # ------------------------------------------------------------------ verbs
    def _open(self, slot: Slot, until: float) -> C | None:
        slot.asker = None  # it keeps a context alive
        conn = self._driver.open(until)
        if type(conn) is not self._kind:
            self._meet(conn)
        by_dialer = not self._ledger.callers_dial
        if not self._probed and self._driver.bound_to_thread(conn):
            self._let_callers_dial()
            if by_dialer:
                self._driver.close(conn)
                return None
        self._probed = True
        return conn

    def _let_callers_dial(self) -> None:
        """Let each caller make its own connections, which nobody else may use; one of another thread is replaced."""
        self._limits = self._limits.changed(dial="caller", check_after=0.0)
        self._step(self._ledger.obey, self._limits)
        self._check_after_s = 0.0
        self._probed = True  # last: another dialer, who has found this set, hands its connection over without a look

    def _check(self, slot: Slot, until: float) -> bool:
        answered = self._is_answered(slot)
        if answered is not None:
            return answered
        try:
            return self._driver.is_alive(slot.conn, until)
        except Exception as error:  # noqa: BLE001  a connection that cannot be checked is as good as dead
            self._report_unchecked(error)
            return False

    def _reset(self, slot: Slot, until: float) -> bool:
        return self._driver.reset(slot.conn, until)

    def _defer(self, slot: Slot, until: float) -> bool | None:
        send_reset = self._driver.send_reset
        if send_reset is None:  # the ports were made for another connection's capabilities
            return self._reset(slot, until)
        return send_reset(slot.conn)

    def _collect(self, slot: Slot, until: float) -> bool | None:
        try:
            return self._driver.collect(slot.conn, until)
        except Exception as error:  # noqa: BLE001  as above
            self._report_unchecked(error)
            return False

    def _park(self, ticket: Any, until: float) -> None:
        if runs_event_loop():
            self._report_blocked_loop()
        ticket.waiter.wait(until - self._clock())

    # ------------------------------------------------------------------ notices
    def _deliver(self) -> None:
        """Perform what is in the outbox; several threads may be at it, and a signal in between loses nothing.

        Most notices may be performed twice without harm, so they are performed first and removed then.  Closing a
        connection and telling of an event are to happen once: who has removed the notice performs it.
        """
        outbox = self._outbox
        while outbox:
            try:
                notice = outbox[0]
            except IndexError:  # another thread was quicker
                return
            if notice[0] is WAKE:  # in every hand-over
                notice[1].waiter.wake()
                claim(outbox, notice)
            elif notice[0] in ONCE:
                self._perform_once(notice)
            else:
                self._notify(*notice)
                claim(outbox, notice)

    def _perform_once(self, notice: tuple[Notice, Any]) -> None:
        try:
            if claim(self._outbox, notice):
                self._notify(*notice)
        except BaseException:  # a signal's: whether it was performed is not known, and twice is better than never
            if notice not in self._outbox:
                self._outbox.append(notice)
            raise

    def _notify(self, notice: Notice, subject: Any) -> None:
        if notice is Notice.DIAL:
            self._start_dialer(subject)
        elif notice is Notice.ALARM:
            self._arm()
        elif notice is Notice.CLOSE:
            self._part(subject)
        elif notice is Notice.TEND:
            self._crew.start(self._tend, self._context)
        else:
            self._tell(*subject)

    def _arm(self) -> None:
        if not self._alarm.arm():  # the next step that needs an alarm is to ask for a thread again
            self._step(self._ledger.alarm_refused)

    def _start_dialer(self, slot: Slot) -> None:
        asker = slot.asker
        context = asker.context if asker is not None else self._context
        started = self._crew.start(lambda: self._dial(slot), context)
        if not started:  # the next step will see it: notices are delivered outside the lock
            self._step(self._ledger.let_callers_dial)

    def _dial(self, slot: Slot) -> None:
        self._converse(conversations.dial(self._ledger, slot))

    def _tend(self) -> None:
        self._converse(conversations.tend(self._ledger))

    def _part(self, conn: C) -> None:
        if self._ledger.callers_dial:  # threads are not to be had, or not to be let near these connections
            self._driver_close(conn)
        else:
            self._crew.part(lambda: self._driver_close(conn))


# What takes the lock, in lines that no signal can cut in two.
STEPS = frozenset(function.__code__ for function in (Pool._converse, Pool._decide, Pool._step))


def is_within(codes: frozenset[types.CodeType]) -> bool:
    """Say whether this thread is within a call of any of these."""
    frame: types.FrameType | None = _getframe(1)
    while frame is not None:
        if frame.f_code in codes:
            return True
        frame = frame.f_back
    return False


def claim(outbox: deque[tuple[Notice, Any]], notice: tuple[Notice, Any]) -> bool:
    """Remove a notice; False if another thread has."""
    try:
        outbox.remove(notice)
    except ValueError:
        return False
    return True


def runs_event_loop() -> bool:
    """Say whether an event loop runs in this thread, which stands still while the thread waits."""
    asyncio: Any = sys.modules.get("asyncio")
    return asyncio is not None and asyncio._get_running_loop() is not None  # the public one raises where none runs
