"""The asyncio shell: how tasks park, wake, dial and close; it decides nothing.

There is no lock: a conversation advances between two awaits, on one loop, and that is atomic.  A pool is bound to the
loop that first uses it; used from another loop or thread it says so instead of racing.

Rules:
- A task that is cancelled ends cancelled, at once.  What it asked for goes on where others gain by it (a dial) or where
  a connection is being cleaned: such work is done in tasks of the pool, and nobody's cancellation reaches it.
- There is no await between a connection being granted and the lease that holds it.
- Finalizers run in any thread: they append to a list and nudge the loop, and call nothing else of ours.
- Timers and the loop hold the pool weakly.  After ``close()`` no task, timer or connection of the pool is left.
- The end of the loop is to a pool what ``close()`` is, but that it waits for hardly anything (see ``_aio_crew.py``).
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import functools
import random
import sys
import time
import types
import warnings
import weakref
from asyncio import AbstractEventLoop, _get_running_loop
from collections.abc import Awaitable, Callable, Coroutine, Generator
from typing import TYPE_CHECKING, Any, Final, TypeVar

from . import _aio_compiled
from ._aio_bounds import CutShort, Late, TooSlow, bounded, heard
from ._aio_crew import TaskCrew
from ._aio_here import asker
from ._aio_names import TaskNames
from ._aio_waiting import Sleepers, context_of, wake
from ._core import conversations, upkeep
from ._core.states import FOREVER, IDLE, LEASED, RETIRED, Notice, Reason, Slot, Ticket, Verb
from ._shell import PARTING_S, QUIET_S, C, Shell, register
from .aio_lease import NOTHING, Asked, AsyncLease, Untaken, awaited, take
from .drivers.aio import AsyncDriver, resolve
from .errors import Error, WrongEventLoop
from .limits import Growth, IdleOrder, timeout_of
from .observer import Observer
from .stats import PoolStats

if TYPE_CHECKING:
    from typing_extensions import Self

    from ._core.conversations import Request
    from ._core.ledger import Ledger

T = TypeVar("T")
_getframe = sys._getframe
current_task = asyncio.current_task
FINISH_S = 0.05  # for what a borrower has left of a reply
LAST_S = 0.5  # what is not given back so long after its loop has begun to end is taken away


@dataclasses.dataclass(frozen=True)
class Clockwork:
    """What an asynchronous pool takes from its host besides the loop.

    Args:
        clock: seconds on a clock that never goes back, of the loop's own pace.
        jitter: a number in [0, 1), drawn anew at each call.
    """

    clock: Callable[[], float] = time.monotonic
    jitter: Callable[[], float] = random.random


class Remainder:
    """What a task of the pool is still doing: await it or not, and whoever is cancelled meanwhile does not end it."""

    __slots__ = ("_task",)

    def __init__(self, task: asyncio.Task[None]) -> None:
        self._task = task

    def __await__(self) -> Generator[Any, Any, None]:
        yield from asyncio.wait((self._task,)).__await__()
        if not self._task.cancelled():  # the pool's own task, ended with its loop: that was nobody's cancellation
            self._task.result()


class AsyncPool(Shell[C]):
    """A pool of database connections for the tasks of one event loop.

    It may be made before there is a loop, and belongs to the first that uses it.

    Args:
        source: a URL (``mysql://user:password@host/database``), an asyncio driver's module, a callable that returns a
            connection or an awaitable of one, or an adapter.
        connect_args: passed to the driver's ``connect`` for a module or a callable, or beside what a URL says.
        driver: the name of the adapter for connections of a callable.
        max_size, min_idle, timeout, max_lifetime, idle_timeout, check_after, check_timeout, connect_timeout,
            fail_after: as for :class:`millpond.Pool`.
        reset, on_connect: as there; a callable may be a coroutine function.
        max_uses, max_waiting, idle_order, max_dialing, growth, track_use, observer, name: as there.
        clockwork: where time and chance come from; for tests.

    Raises:
        InvalidSetting: a setting is out of bounds, unknown, or malformed; nothing was opened.
        DriverMissing: the driver's package is not installed.
    """

    # What a checkout and a return look at: read soonest as slots, and where compiled code finds it.
    __slots__ = (
        "_check_after_s",
        "_clock",
        "_here",
        "_idle",
        "_lease_kind",
        "_ledger",
        "_loop",
        "_readable",
        "_tickets",
        "_tracks",
        "_unclean",
    )

    _keeps_inherited = True
    _plain_lease = AsyncLease
    _lease_kind: type[AsyncLease[C]]
    _resolve = staticmethod(resolve)
    _driver: AsyncDriver[C]  # pyright: ignore[reportIncompatibleVariableOverride]  # set once
    _crew: TaskCrew
    _ledger: Ledger

    def __init__(
        self,
        source: str | types.ModuleType | Callable[[], Any] | AsyncDriver[C],
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
        max_dialing: int = 64,
        growth: Growth = "thrifty",
        track_use: bool = True,
        observer: Observer | None = None,
        name: str | None = None,
        clockwork: Clockwork | None = None,
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
            max_dialing=max_dialing,
            growth=growth,
        )
        self._clockwork = clockwork or Clockwork()
        self._begin()
        register(self)

    def _begin(self) -> None:
        """Make everything that must not be shared with a forked child."""
        if hasattr(self, "_crew"):  # not by its __dict__: CPython 3.12 reads attributes slower ever after
            self._crew.forget()
        self._loop: AbstractEventLoop | None = None
        self._here: Callable[[], object] = object  # which is nobody's loop: the first that asks is bound
        self._myself: weakref.ref[Any] = weakref.ref(self)
        self._crew = TaskCrew()
        self._timer: asyncio.TimerHandle | None = None
        self._clock = self._clockwork.clock
        self._sleepers = Sleepers(self._clock)
        self._lay_ledger(
            clock=self._clock,
            jitter=self._clockwork.jitter,
            new_waiter=self._sleepers.new_future,
            nudge=self._nudge,
            holder_names=functools.partial(self._task_names, TaskNames()),
            with_gil=True,  # one loop, one thread: nothing happens between two lines of ours
        )
        self._ledger.dialers_answer = True  # a task that was made runs
        self._perform: dict[Verb, Callable[[Any, float], Any]] = {
            Verb.OPEN: self._open,
            Verb.CHECK: self._check,
            Verb.RESET: self._reset,
            Verb.DEFER: self._reset,  # what can be deferred never gets here: see _go_on
            Verb.COLLECT: self._collect,
            Verb.PARK: self._sleepers.park,
        }

    # ------------------------------------------------------------------ for callers
    def connection(self, timeout: float | None = None) -> AsyncLease[C]:
        """Take a connection, waiting for one if need be: ``async with`` this, or await it and ``close()`` the result.

        Args:
            timeout: seconds to wait, all in all; None for the pool's own ``timeout``, 0 for not at all.

        Returns:
            A lease that takes its connection when it is awaited or entered, and not before.

        Raises:
            PoolTimeout: nothing came in time; says who holds the connections, or what is wrong with the server.
            TooManyWaiting: ``max_waiting`` callers wait for a return already.
            PoolClosed: the pool was closed.
            WrongEventLoop: the pool belongs to another loop.
            Exception: the driver's own, while no connect has ever succeeded and waiting cannot mend it.
        """
        lease: AsyncLease[C] = Asked()
        lease._pool = self
        lease._timeout = timeout
        return lease

    @property
    def driver(self) -> AsyncDriver[C]:
        """The adapter of the pool's driver: what tells its errors apart, and opens connections beside the pool's."""
        return self._driver

    def stats(self) -> PoolStats:
        """Return a snapshot of the pool: sizes, the queue, counters, who holds what."""
        self._guard()
        return self._snapshot()

    async def wait(self, timeout: float | None = None) -> None:
        """Wait until ``min_idle`` connections are open.

        Args:
            timeout: seconds to wait at most; None for the pool's own ``timeout``.

        Raises:
            PoolTimeout: they were not there in time.
            PoolClosed: the pool was closed.
            WrongEventLoop: the pool belongs to another loop.
            Exception: the driver's own, while no connect has ever succeeded and waiting cannot mend it.
        """
        self._bind()
        self._go_on_after_the_end()
        try:
            await self._converse(self._filling(timeout))
        except Error as error:
            raise self._joined(error) from error.__cause__

    def release(self, conn: Any) -> Awaitable[None]:
        """Give a connection back, as its own ``close()`` does; for code that is handed the pool as well.

        Raises:
            InvalidSetting: it is no lease, or one of another pool.
        """
        self._check_owner(conn)
        given_back: Awaitable[None] = conn.close()
        return given_back

    def close(self, timeout: float | None = 5.0) -> Awaitable[None]:
        """Close the pool: refuse new callers, wait for connections that are out, then cut those that are left.

        It begins when it is called, awaited or not.  Called while no loop is running it does what can be done without
        waiting, and warns if connections are out.

        Args:
            timeout: seconds to wait for connections to be given back; 0 cuts at once, None waits as long as it takes.

        Returns:
            What is left to be waited for; whoever is cancelled while awaiting it has closed the pool all the same.

        Raises:
            InvalidSetting: that is no time-out; the pool stays open.
        """
        until = self._clock() + timeout_of(timeout, FOREVER)
        self._guard()
        self._crew.dismissed = True
        self._decide(self._ledger.close)
        self._crew.call_dials_off()
        if _get_running_loop() is None:
            return self._close_without_loop()
        if not self._ledger.slots and self._crew.rests:
            self._rest()
            return NOTHING
        return Remainder(self._crew.spawn_closer(lambda: self._finish(until)))

    async def __aenter__(self) -> Self:
        self._bind()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    # ------------------------------------------------------------------ the loop it belongs to
    def _bind(self) -> None:
        """Make sure that this is the pool's loop; the first one that asks becomes it."""
        if self._loop is not None:
            self._guard()
            if _get_running_loop() is not None:
                return
        self._loop = asyncio.get_running_loop()
        self._here = asker(self._loop)
        self._sleepers.bind(self._loop)
        self._ledger.ports = dataclasses.replace(self._ledger.ports, new_waiter=self._sleepers.new_future)
        self._crew.bind(self._loop, weakref.WeakMethod(self._end_with_loop))
        self._decide(lambda: self._ledger.look(self._clock()))

    def _guard(self) -> None:
        """Say so if this is not the pool's loop, nor a moment at which no loop runs.

        Raises:
            WrongEventLoop: another loop or thread than the pool's own.
        """
        loop = self._loop
        if loop is None:
            return
        here = _get_running_loop()
        if here is loop or (here is None and not loop.is_running()):
            return
        if here is not None:
            which = "which is closed" if loop.is_closed() else "not to this one"
            text = f"{self!r} belongs to the event loop that first used it, {which}; make one pool for each loop"
        else:
            text = (
                f"{self!r} was called from a thread that does not run its event loop; use loop.call_soon_threadsafe "
                "or asyncio.run_coroutine_threadsafe"
            )
        raise self._error(WrongEventLoop, text)

    def _is_over(self) -> bool:
        """Say whether nothing can be started any more."""
        return self._loop is None or self._loop.is_closed()

    def _part_at_exit(self) -> None:
        loop, self._loop = self._loop, None  # it does not run any more, or not for us
        super()._part_at_exit()
        if loop is None or not loop.is_running():
            self._take_all()

    def _take_all(self) -> None:
        """Close every connection, for whoever has one will never give it back."""
        self._crew.abandon()
        self._decide(upkeep.tick, self._ledger)  # what tasks held that never go on
        self._decide(self._ledger.take_all)

    # ------------------------------------------------------------------ the slow path
    def _checkout(self, conversation: Generator[Request, Any, Slot]) -> Generator[Any, Any, Slot]:
        self._go_on_after_the_end()
        try:
            return (yield from self._hold(conversation))
        except Error as error:
            raise self._refusal(error) from error.__cause__

    def _ask(self, popped: Slot | None, timeout: float | None) -> Generator[Any, Any, Slot]:
        """Hold the conversation of a checkout; *popped* is what the fast path does not dare to hand out."""
        if popped is not None:
            popped.best_before = RETIRED
        return self._checkout(self._asking(timeout, popped))

    def _line_up(self, timeout: float | None, now: float) -> Ticket:
        """Take a place behind others, whose waiter is done when there is something to be said."""
        until = now + (self._limits.timeout_s if timeout is None else timeout)
        try:
            ticket = self._ledger.enqueue(now, now)
        except Error as error:
            raise self._refusal(error) from error.__cause__
        if self._outbox:
            self._deliver()
        if until > now:
            _ = self._sleepers.sleep(ticket.waiter, until, now)  # its caller waits for the same future
        else:
            wake(ticket.waiter)
        return ticket

    def _step_out(self, ticket: Ticket, error: BaseException) -> None:
        """Whoever waited was called away; what they were granted goes to the next."""
        if isinstance(error, GeneratorExit):  # see _hold
            self._ledger.lost.take(ticket)
        else:
            self._decide(self._ledger.recover_parked, ticket)

    def _wait_on(self, ticket: Ticket, timeout: float | None) -> Generator[Any, Any, Slot]:
        """Hold the conversation of a caller who was woken, and not by a connection that can be used as it is."""
        until = ticket.since + (self._limits.timeout_s if timeout is None else timeout)
        return self._checkout(conversations.checkout(self._ledger, until, ticket=ticket))

    def _give_back(self, slot: Slot, exc_type: type[BaseException] | None) -> Awaitable[None]:
        if exc_type is GeneratorExit:  # dropped, perhaps by the garbage collector in the middle of a step
            self._left.append(slot)
            self._nudge()
            return NOTHING
        if slot.conn is not None and self._driver.may_end_soon(slot.conn):
            return self._send_for(slot, exc_type, self._finish_reply)
        if slot.conn is not None and self._driver.role_suspect(slot.conn) and not self._driver.in_flight(slot.conn):
            return self._send_for(slot, exc_type, self._look_into_role)
        return self._take_in(slot, exc_type)

    def _send_for(
        self,
        slot: Slot,
        exc_type: type[BaseException] | None,
        first: Callable[[Slot, type[BaseException] | None], Coroutine[Any, Any, None]],
    ) -> Remainder:
        """Have a task of the pool do something first; a program that cancels all tasks makes no dropped lease of it."""
        task = self._crew.spawn(lambda: first(slot, exc_type), called_off=lambda: self._take_in(slot, exc_type))
        return Remainder(task)

    def _take_in(self, slot: Slot, exc_type: type[BaseException] | None) -> Awaitable[None]:
        """Do of a return what takes no time; what is left of it can be awaited."""
        conversation = self._take_back(slot, exc_type)
        return NOTHING if conversation is None else self._go_on(conversation)

    async def _finish_reply(self, slot: Slot, exc_type: type[BaseException] | None) -> None:
        """A reply was left that may be short: read it, if it ends in a moment; it costs the connection otherwise."""
        try:
            with contextlib.suppress(Exception):  # an error ends it too, and the adapter knows what else has happened
                await self._bounded(lambda: self._driver.finish(slot.conn), self._clock() + FINISH_S)
        except asyncio.CancelledError:  # by a program that cancels all tasks; its borrower has given it back
            _ = self._take_in(slot, exc_type)
            raise
        await self._take_in(slot, exc_type)

    async def _look_into_role(self, slot: Slot, exc_type: type[BaseException] | None) -> None:
        """The server may have become read-only: ask it, and if so, leave it; addresses are looked up anew by dials."""
        now = self._clock()
        lost = False
        if self._ledger.looks_into_role(now):
            until = now + self._limits.check_timeout_s
            try:
                lost = await self._bounded(lambda: self._driver.has_lost_role(slot.conn, until), until)
            except TimeoutError:  # it has not answered: that is no proof
                pass
            except asyncio.CancelledError:  # see _finish_reply
                _ = self._take_in(slot, exc_type)
                raise
        if lost:
            self._decide(lambda: self._ledger.drain(Reason.ROLE))
        await self._take_in(slot, exc_type)

    def _go_on(self, conversation: Generator[Request, Any, None]) -> Awaitable[None]:
        """Hold a return's conversation as far as nothing is waited for; a task of the pool does the rest."""
        try:
            verb, slot, until = next(conversation)
            send_reset = self._driver.send_reset
            if verb is Verb.DEFER and send_reset is not None:
                conversation.send(send_reset(slot.conn))
        except StopIteration:
            return NOTHING
        except Exception as error:  # noqa: BLE001  see there
            self._report_unreset(error)
            return NOTHING
        finally:
            self._deliver()
        reset = functools.partial(self._reset_and_shelve, conversation, slot, until)
        return Remainder(self._crew.spawn(reset, called_off=lambda: self._call_off(conversation)))

    def _call_off(self, conversation: Generator[Request, Any, None]) -> None:
        """End a return's conversation whose task was cancelled before it began."""
        with contextlib.suppress(asyncio.CancelledError):
            conversation.throw(asyncio.CancelledError())
        self._deliver()

    async def _reset_and_shelve(self, conversation: Generator[Request, Any, None], slot: Slot, until: float) -> None:
        try:
            await self._converse(conversation, (Verb.RESET, slot, until))
        except Exception as error:  # noqa: BLE001  see there
            self._report_unreset(error)

    def _hold(self, conversation: Generator[Request, Any, T], request: Request | None = None) -> Generator[Any, Any, T]:
        """Hold a conversation to its end; *request* is what it has asked for already, if it was begun."""
        step: Callable[[Any], Request] = conversation.send
        answer: Any = None
        while True:
            try:
                verb, subject, until = request or step(answer)
            except StopIteration as end:
                result: T = end.value
                return result
            finally:
                answer = None  # an error's traceback holds this frame, which would hold it in turn
                if self._outbox:
                    self._deliver()
            request = None
            try:
                performing: Generator[Any, Any, Any] = self._perform[verb](subject, until).__await__()
                answer = yield from performing
                step = conversation.send
            except GeneratorExit:  # dropped, perhaps by the garbage collector in another thread: touch nothing
                raise
            except BaseException as error:  # noqa: BLE001  it is the conversation's to decide about
                step, answer = conversation.throw, error

    _converse = awaited(_hold)

    def _decide(self, decision: Callable[..., object], *subjects: Any) -> None:
        if _get_running_loop() is not self._loop:
            self._guard()
            if self._loop is not None and self._loop.is_closed():
                decision(*subjects)
                self._deliver_to_nobody()
                return
        decision(*subjects)
        self._deliver()

    # ------------------------------------------------------------------ verbs
    async def _open(self, slot: Slot, until: float) -> C:
        slot.asker = None  # it keeps a context alive
        try:
            conn: C = await self._bounded(lambda: self._driver.open(until), until, late=self._part_late)
        except CutShort as error:  # that says nothing of the server
            raise asyncio.CancelledError from error
        except TooSlow:
            text = f"not connected within {self._limits.connect_timeout_s:g} s (connect_timeout)"
            raise TimeoutError(text) from None
        if type(conn) is not self._kind:
            self._meet(conn)
        return conn

    async def _check(self, slot: Slot, until: float) -> bool:
        check, began_until = slot.check or (None, until)  # begun for somebody who was called away
        slot.check = None
        if check is None:
            answered = self._is_answered(slot)
            if answered is not None:
                return answered
            check = self._crew.spawn(lambda: self._driver.is_alive(slot.conn, until))
            check.add_done_callback(heard)  # it may end unasked
        until = min(until, began_until)
        try:
            await asyncio.wait((check,), timeout=max(0.0, until - self._clock()))
        except asyncio.CancelledError:
            slot.check = check, until
            raise
        if not check.done():
            check.cancel()
            return False
        return not check.cancelled() and check.exception() is None and check.result()

    def _check_survives(self, slot: Slot) -> bool:
        """Say whether a check goes on by itself; whoever comes next has its answer."""
        return slot.check is not None or super()._check_survives(slot)

    async def _reset(self, slot: Slot, until: float) -> bool:
        clean: bool = await self._bounded(lambda: self._driver.reset(slot.conn, until), until)
        return clean

    async def _collect(self, slot: Slot, until: float) -> bool | None:
        patience = max(until, self._clock()) + self._limits.check_timeout_s
        try:
            clean: bool | None = await self._bounded(lambda: self._driver.collect(slot.conn, until), patience)
        except Exception as error:  # noqa: BLE001  the caller gets another connection, and no error of this one
            self._report_unchecked(error)
            return False
        return clean

    def _bounded(
        self, work: Callable[[], Coroutine[Any, Any, T]], until: float, late: Late[T] | None = None
    ) -> Coroutine[Any, Any, T]:
        return bounded(self._crew.spawn(work), until - self._clock(), late)

    def _part_late(self, dial: asyncio.Task[C]) -> None:
        """Close a connection that nobody waits for any more."""
        if not dial.cancelled() and dial.exception() is None:
            self._part(dial.result())

    # ------------------------------------------------------------------ notices
    def _deliver(self) -> None:
        """Perform what is in the outbox: first take it out, for an eager task may come back here meanwhile."""
        outbox = self._outbox
        while outbox:
            notice, subject = outbox.popleft()
            if notice is not Notice.WAKE:
                self._notify(notice, subject)
            elif not subject.waiter.done():
                subject.waiter.set_result(None)

    def _deliver_to_nobody(self) -> None:
        """Perform what is in the outbox but for wake-ups: the loop is closed, and whoever waited was left there."""
        while self._outbox:
            notice, subject = self._outbox.popleft()
            if notice is not Notice.WAKE:
                self._notify(notice, subject)

    def _notify(self, notice: Notice, subject: Any) -> None:
        if notice is Notice.TELL:
            self._tell(*subject)
        elif notice is Notice.CLOSE:
            self._part(subject)
        elif self._is_over():
            return
        elif notice is Notice.ALARM:
            self._arm()
        elif notice is Notice.DIAL:
            asker = subject.asker
            self._crew.spawn_dial(lambda: self._dial(subject), None if asker is None else context_of(asker))
        else:
            assert notice is Notice.TEND, f"bug: unknown notice {notice}"
            _ = self._crew.spawn(self._tend)

    async def _dial(self, slot: Slot) -> None:
        await self._converse(conversations.dial(self._ledger, slot))

    async def _tend(self) -> None:
        await self._converse(conversations.tend(self._ledger))

    def _part(self, conn: C) -> None:
        left: Awaitable[Any] | None = self._driver_close(conn)
        if left is not None:
            self._crew.see_off(left)

    def _driver_close(self, conn: C) -> Any:
        left = super()._driver_close(conn)
        if left is not None and self._is_over():  # nobody can await it any more
            abandon(left)
            return None
        return left

    def _task_names(self, names: TaskNames) -> dict[int, str]:
        if self._is_over():
            return {}
        assert self._loop is not None
        return names.of(self._loop)

    # ------------------------------------------------------------------ time, and the end of it
    def _nudge(self) -> None:
        """Have the loop look for what finalizers have left; never raises, and may be called from anywhere."""
        loop = self._loop
        if loop is None:
            return
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(ring, self._myself)

    def _arm(self) -> None:
        """Set the one timer to when a tick is due."""
        assert self._loop is not None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        due_s = self._alarm_in()
        if due_s < FOREVER:
            self._timer = self._loop.call_later(max(0.0, due_s), ring, self._myself)

    def _rang(self) -> None:
        while (slot := self._next_left()) is not None:
            conversation = self._take_back(slot, GeneratorExit)
            if conversation is not None:
                _ = self._go_on(conversation)
        self._alarm_rang()
        self._arm()

    def _rest(self) -> None:
        """Nothing is left to look after."""
        self._decide(self._ledger.rest)
        self._sleepers.rest()
        if self._timer is not None and not self._ledger.slots:
            self._timer.cancel()
            self._timer = None

    def _close_without_loop(self) -> Awaitable[None]:
        out = len(self._ledger.slots)
        if out:
            text = f"{self!r} was closed while no event loop runs, and {out} of its connections are out: they are cut"
            warnings.warn(text, ResourceWarning, stacklevel=3)
        if self._is_over():
            self._take_all()
        elif out:
            self._cut_what_is_out()
        self._rest()
        return NOTHING

    async def _finish(self, until: float) -> None:
        """Do of ``close()`` what takes time."""
        try:
            in_time = await self._converse(self._emptying(until))
        except asyncio.CancelledError:  # the loop is about to end
            self._cut_what_is_out()
            raise
        if not in_time:
            self._cut_what_is_out()
        self._rest()
        now = self._clock()
        dials_end_at = min(until, now + self._limits.connect_timeout_s)
        await self._crew.join(self._clock, max(dials_end_at, now + PARTING_S), PARTING_S)

    async def _end_with_loop(self) -> None:
        """Close what is left, for the loop is about to end: all tasks have been cancelled, and most are gone."""
        self._decide(self._ledger.close)
        self._crew.call_dials_off()
        self._crew.cancel_closers()
        self._rang()
        if self._ledger.slots and not self._crew.is_alone():  # others are being ended too, and may hold some
            await self._converse(self._emptying(self._clock() + LAST_S))
        self._decide(self._ledger.take_all)
        self._rest()
        await self._crew.join(self._clock, self._clock() + PARTING_S, LAST_S)
        self._crew.has_ended = True

    def _go_on_after_the_end(self) -> None:
        """Open again what was closed for the end of a loop, which only its generators have seen: it goes on."""
        if self._crew.has_ended and not self._crew.dismissed:
            self._crew.has_ended = False
            self._decide(self._ledger.reopen)


def ring(pool: weakref.ref[Any]) -> None:
    """Do what is due in a pool, if it is still there."""
    alive = pool()
    if alive is not None:
        alive._rang()


def abandon(left: Awaitable[Any]) -> None:
    """Let go of what nobody can await any more."""
    close = getattr(left, "close", None)
    if close is not None:
        close()


COMPILED: Final = _aio_compiled.learn(
    {"pool": AsyncPool, "lease": AsyncLease, "asked": Asked, "untaken": Untaken, "slot": Slot, "ticket": Ticket},
    {"connection": AsyncPool.connection, "take": take, "close": vars(AsyncLease)["close"]},
    {"leased": LEASED, "idle": IDLE, "quiet_s": QUIET_S, "nothing": NOTHING},
)
