"""A driver without a database, which does what a test tells it to: answers, refuses, answers late, never, or lies.

::

    driver = FakeDriver()
    pool = millpond.Pool(driver, max_size=2)
    driver.behave("open", "late")            # from now on each dial waits ...
    driver.await_waiting("open", 2)          # ... until there are two of them ...
    driver.release("open")                   # ... and are let go

It counts everything, and keeps a list of what a pool must never do: close a connection twice, use one that was closed,
let two threads into one at once.  ``FakeDriver.module`` is a DB-API module over the same connections, for tests of code
that takes one.  Its connections understand a few words of SQL, so that examples run.

Rules: it never sleeps; whatever waits, waits for the test, or for its deadline.  :meth:`FakeDriver.shut_down` ends
every wait, so that no thread outlives a test.
"""

from __future__ import annotations

import threading
import time
import types
from collections import Counter
from collections.abc import Callable
from typing import Any, ClassVar, Literal

from millpond._core.states import Fault
from millpond._cursors import CursorClasses
from millpond.drivers import faults
from millpond.drivers.base import Driver
from millpond.errors import InvalidSetting
from millpond.testing._fake_database import (
    DatabaseError,
    Error,
    FakeConnection,
    FakeCursor,
    FakeDatabase,
    InterfaceError,
    OperationalError,
    ProgrammingError,
)
from millpond.testing.sim_clock import SimClock

__all__ = [
    "DatabaseError",
    "Error",
    "FakeConnection",
    "FakeCursor",
    "FakeDriver",
    "InterfaceError",
    "OperationalError",
    "ProgrammingError",
]

Operation = Literal["open", "check", "reset", "close"]
Behaviour = Literal["ok", "no", "error", "late", "never", "lie"]
OPERATIONS: tuple[Operation, ...] = ("open", "check", "reset", "close")
BEHAVIOURS: tuple[Behaviour, ...] = ("ok", "no", "error", "late", "never", "lie")


class FakeDriver(FakeDatabase, Driver[FakeConnection]):
    """A driver that does what a test tells it to; usable from many threads.

    Args:
        tells_clean: it can tell without asking whether a session is as good as new (``is_clean``).
        tells_readable: it can tell without asking whether an idle connection was closed (``is_readable``).
        bounded: what would never be answered fails when its deadline has passed; False: it never ends by itself.
        clock: what deadlines are measured on; on a :class:`SimClock` they pass by its ``advance`` alone.

    Attributes:
        counts: how often each operation was begun ("open", "check", "reset", "close"), and "opened" and "closed".
        connections: all that were ever opened.
        mishaps: what no pool must ever do, as text; a test ends by ``assert [] == driver.mishaps``.
        module: a DB-API module over the same connections.
    """

    name = "fake"
    tracks_cursors = False
    capabilities: ClassVar[dict[str, str]] = {
        "deadline": "as it is told (bounded=)",
        "alive": "as it is told",
        "clean": "if it is told so (tells_clean=)",
        "reset": "as it is told",
        "in flight": "by an attribute of the connection",
        "cut": "the connection dies",
        "errors": "by their attribute fault, else by class",
    }

    def __init__(
        self,
        *,
        tells_clean: bool = False,
        tells_readable: bool = False,
        bounded: bool = True,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        # On a clock of the test's, whoever waits for a deadline waits for that clock.
        super().__init__(clock.changed if isinstance(clock, SimClock) else threading.Condition())
        self.module = fake_module(self)
        self._bounded = bounded
        self._clock = clock
        self._plans: dict[str, tuple[Behaviour, int | None, BaseException | None]] = {}
        self._tokens: Counter[str] = Counter()
        self._waiting: Counter[str] = Counter()
        self._down = False
        self._cursors = CursorClasses(tracked=lambda _: False)
        if tells_clean:
            self.is_clean = self._is_clean
        if tells_readable:
            self.is_readable = self._is_readable

    # -- what a test says ------------------------------------------------------------------------------------------
    def behave(
        self,
        operation: Operation,
        behaviour: Behaviour,
        *,
        times: int | None = None,
        error: BaseException | None = None,
    ) -> None:
        """Say how an operation goes from now on.

        Args:
            operation: "open", "check", "reset" or "close".
            behaviour: "ok"; "no" (a check or reset answers False); "error" (it raises); "late" (it waits for
                :meth:`release`, deadline or not, and then goes well); "never" (it waits for its deadline, if the driver
                is bounded, else for :meth:`shut_down`, and fails); "lie" (it says that all is well, and has done
                nothing).
            times: for so many calls, then "ok" again; None for ever.
            error: what is raised for "error" and "never"; an ``OperationalError`` if not given.

        Raises:
            InvalidSetting: there is no such operation or behaviour.
        """
        if operation not in OPERATIONS:
            raise InvalidSetting("operation", operation, f"one of {', '.join(OPERATIONS)}")
        if behaviour not in BEHAVIOURS:
            raise InvalidSetting("behaviour", behaviour, f"one of {', '.join(BEHAVIOURS)}")
        with self._changed:
            self._plans[operation] = (behaviour, times, error)

    def release(self, operation: Operation, count: int | None = None) -> None:
        """Let calls that are late go on: *count* of them, waiting now or to come, or all that wait now."""
        with self._changed:
            self._tokens[operation] += self._waiting[operation] if count is None else count
            self._changed.notify_all()

    def waiting(self, operation: Operation) -> int:
        """Return how many calls wait to be released, or for ever."""
        with self._changed:
            return self._waiting[operation]

    def await_waiting(self, operation: Operation, count: int, timeout: float = 10.0) -> None:
        """Wait until that many calls wait.

        Raises:
            TimeoutError: it took more than *timeout* seconds.
        """
        self.await_that(lambda: self._waiting[operation] >= count, f"{count} calls of {operation} to wait", timeout)

    def await_count(self, what: str, count: int, timeout: float = 10.0) -> None:
        """Wait until ``counts[what]`` has reached *count*.

        Raises:
            TimeoutError: it took more than *timeout* seconds.
        """
        self.await_that(lambda: self.counts[what] >= count, f"{what} to reach {count}", timeout)

    def await_that(self, condition: Callable[[], bool], what: str, timeout: float = 10.0) -> None:
        """Wait until something is so, looked at whenever something happens to this driver or its connections.

        Raises:
            TimeoutError: it took more than *timeout* seconds; the message says *what* was waited for.
        """
        with self._changed:
            if not self._changed.wait_for(condition, timeout):
                raise TimeoutError(f"waited {timeout} s for {what}; counts are {dict(self.counts)}")

    def kill(self, conn: FakeConnection) -> None:
        """Have the server end a connection."""
        conn.alive = False

    def shut_down(self) -> None:
        """End every wait: what is late goes well, what would never be answered fails."""
        with self._changed:
            self._down = True
            self._changed.notify_all()

    @property
    def live(self) -> list[FakeConnection]:
        """The connections that were opened and not closed."""
        with self._changed:
            return [conn for conn in self.connections if not conn.closed]

    # -- the port --------------------------------------------------------------------------------------------------
    def open(self, until: float) -> FakeConnection:
        """Connect, as told."""
        behaviour = self._pass("open", until)
        with self._changed:
            conn = FakeConnection(self, len(self.connections) + 1)
            conn.alive = behaviour != "lie"
            self.connections.append(conn)
            self._count("opened")
        return conn

    def is_alive(self, conn: FakeConnection, until: float) -> bool:
        """Tell, as told."""
        with conn.used("check"):
            behaviour = self._pass("check", until)
            return behaviour == "lie" or (behaviour == "ok" and conn.alive and not conn.closed)

    def reset(self, conn: FakeConnection, until: float) -> bool:
        """Make as good as new, as told."""
        with conn.used("reset"):
            behaviour = self._pass("reset", until)
            if behaviour != "ok":
                return behaviour == "lie"
            conn.check_usable("reset")
            conn.renew()
            return True

    def close(self, conn: FakeConnection) -> None:
        """Close, as told."""
        with conn.used("close"):
            if self._pass("close", float("inf")) != "lie":
                self.forget(conn)

    def in_flight(self, conn: FakeConnection) -> bool | None:
        """Say whether a reply was left unread."""
        return conn.unread

    def uncommitted(self, conn: FakeConnection) -> bool:
        """Say whether there are writes that were not committed."""
        return conn.in_transaction

    def cut(self, conn: FakeConnection) -> bool:
        """Have the connection die under its holder."""
        conn.alive = False
        return True

    def classify(self, error: BaseException) -> Fault:
        """Sort by the attribute ``fault``, else by class."""
        fault: Fault | None = getattr(error, "fault", None)
        return fault or faults.classify(error)

    def cursor(self, conn: FakeConnection, lease: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Make a cursor for a lease."""
        return self._cursors.lend(conn.cursor(*args, **kwargs), lease)

    def _is_clean(self, conn: FakeConnection) -> bool:
        return not conn.in_transaction and not conn.session and not conn.unread

    def _is_readable(self, conn: FakeConnection) -> bool:
        return not conn.alive or conn.unread

    # -- gates -----------------------------------------------------------------------------------------------------
    def _pass(self, operation: Operation, until: float) -> Behaviour:
        """Go through the gate of an operation; return what is left to be done: "ok", "no" or "lie"."""
        with self._changed:
            self._count(operation)
            behaviour, error = self._next(operation)
            if behaviour == "late":
                self._wait_for_release(operation)
                return "ok"
            if behaviour == "never":
                self._wait_in_vain(operation, until)
            if behaviour in ("error", "never"):
                raise error or OperationalError(0, f"{operation}: {behaviour}, as the test has told")
            return behaviour

    def _next(self, operation: Operation) -> tuple[Behaviour, BaseException | None]:
        behaviour, times, error = self._plans.get(operation, ("ok", None, None))
        if times is not None:
            self._plans[operation] = (behaviour, times - 1, error) if times > 1 else ("ok", None, None)
        return behaviour, error

    def _wait_for_release(self, operation: Operation) -> None:
        self._waiting[operation] += 1
        self._changed.notify_all()
        try:
            self._changed.wait_for(lambda: self._down or self._tokens[operation] > 0)
            if self._tokens[operation]:
                self._tokens[operation] -= 1
        finally:
            self._waiting[operation] -= 1

    def _wait_in_vain(self, operation: Operation, until: float) -> None:
        if not self._bounded:
            until = float("inf")
        no_real_time = until == float("inf") or isinstance(self._clock, SimClock)
        left_s = None if no_real_time else max(0.0, until - self._clock())
        self._waiting[operation] += 1
        self._changed.notify_all()
        try:
            self._changed.wait_for(lambda: self._down or self._clock() >= until, left_s)
        finally:
            self._waiting[operation] -= 1

    def __repr__(self) -> str:
        return f"<fake adapter: {len(self.connections)} opened, {len(self.live)} live>"


def fake_module(driver: FakeDriver) -> types.ModuleType:
    """Make a DB-API module whose connections are those of *driver*."""
    module: Any = types.ModuleType("fake_dbapi", "A DB-API 2 module over the connections of a FakeDriver.")
    module.apilevel = "2.0"
    module.threadsafety = 1
    module.paramstyle = "format"
    for kind in (Error, InterfaceError, DatabaseError, OperationalError, ProgrammingError):
        setattr(module, kind.__name__, kind)

    def connect(**_: Any) -> FakeConnection:
        """Connect; the arguments are for show."""
        return driver.open(float("inf"))

    module.connect = connect
    made: types.ModuleType = module
    return made
