"""A DB-API module that nobody knows, of which a test can hold up, count and fail every call; no two share anything."""

from __future__ import annotations

import threading
import types
from collections import Counter
from collections.abc import Callable
from typing import Any

DEADLINE_S = 10.0  # what a test waits for happens within this, or it fails


class Gate:
    """Calls of one kind: how many there were, how many at the same time at most, and what holds them up."""

    def __init__(self) -> None:
        self.calls = 0
        self.inside = 0
        self.most_inside = 0
        self.before: Callable[[], None] | None = None
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._open = threading.Event()
        self._open.set()

    def close(self) -> None:
        """Hold up whoever comes from now on."""
        self._open.clear()

    def open(self) -> None:
        """Let everybody go on."""
        self._open.set()

    def await_inside(self, number: int, timeout: float = DEADLINE_S) -> bool:
        """Wait until so many are inside at the same time."""
        with self._changed:
            return self._changed.wait_for(lambda: self.inside >= number, timeout)

    def await_calls(self, number: int, timeout: float = DEADLINE_S) -> bool:
        """Wait until there have been so many."""
        with self._changed:
            return self._changed.wait_for(lambda: self.calls >= number, timeout)

    def __enter__(self) -> None:
        with self._changed:
            self.calls += 1
            self.inside += 1
            self.most_inside = max(self.most_inside, self.inside)
            self._changed.notify_all()
        try:
            assert self._open.wait(DEADLINE_S), "nobody opened this gate"
            if self.before is not None:
                self.before()
        except BaseException:
            self.__exit__()
            raise

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self.inside -= 1


def module(threadsafety: int = 1) -> Any:
    """Return a new module: ``connect``, the errors of PEP 249, and a gate for each kind of call in ``gates``."""
    made: Any = types.ModuleType("fakedb")
    made.apilevel, made.threadsafety, made.paramstyle = "2.0", threadsafety, "format"
    made.Error = type("Error", (Exception,), {"__module__": "fakedb"})
    made.DatabaseError = type("DatabaseError", (made.Error,), {"__module__": "fakedb"})
    for name in ("OperationalError", "InterfaceError", "InternalError", "ProgrammingError", "NotSupportedError"):
        setattr(made, name, type(name, (made.DatabaseError,), {"__module__": "fakedb"}))
    made.gates = {kind: Gate() for kind in ("connect", "ping", "rollback", "execute", "close")}
    made.down = False
    made.connections = []

    def connect(**settings: Any) -> Connection:
        with made.gates["connect"]:
            if made.down:
                raise made.OperationalError(2003, "the server is down")
            made.connections.append(Connection(made, len(made.connections) + 1, settings))
            return made.connections[-1]  # type: ignore[no-any-return]  # a module is anything

    made.connect = connect
    return made


class Connection:
    """A connection; ``alive`` is False once its server is gone."""

    def __init__(self, of: Any, number: int, settings: dict[str, Any]) -> None:
        self.of = of
        self.number = number
        self.settings = settings
        self.alive = True
        self.closed = False
        self.log: list[str] = []
        self.counts: Counter[str] = Counter()

    def _check(self) -> None:
        if self.closed or not self.alive:
            raise self.of.OperationalError(2013, "the link is lost")

    def ping(self) -> None:
        """Answer, or raise."""
        with self.of.gates["ping"]:
            self._check()

    def cursor(self) -> Cursor:
        """Make a cursor."""
        self._check()
        return Cursor(self)

    def commit(self) -> None:
        """Note it."""
        self._check()
        self.log.append("commit")

    def rollback(self) -> None:
        """Note it."""
        with self.of.gates["rollback"]:
            self._check()
            self.log.append("rollback")

    def close(self) -> None:
        """Close it."""
        with self.of.gates["close"]:
            self.closed = True


class Cursor:
    """A cursor that notes what it is asked."""

    description = None
    arraysize = 1

    def __init__(self, con: Connection) -> None:
        self.con = con

    def execute(self, statement: str) -> None:
        """Note it; ``FAIL`` raises, as a wrong statement does with many drivers."""
        with self.con.of.gates["execute"]:
            self.con._check()
            self.con.log.append(statement)
            if statement == "FAIL":
                raise self.con.of.OperationalError(1644, "by request")

    def fetchone(self) -> tuple[int]:
        """Return the number of the connection."""
        return (self.con.number,)

    def close(self) -> None:
        """Do nothing."""
