"""The books of a transaction: who takes part in it, whether it still stands, whether it may be run once more.

Why: a server ends a transaction by itself (a deadlock, a lost link, DDL), and a driver then goes on as if nothing had
happened, so that the second half of a block is committed without the first.  Here everything that happened inside is
noted, and what comes after the end is refused.

Rules:
- No I/O: a shell sends, and tells the books what was answered.  Where the books are in doubt they say so
  (:attr:`Books.doubtful`), and the shell asks the server by :attr:`Dialect.probe` before it sends anything else.
- A transaction belongs to the thread, task or greenlet that began it.  A context that was copied into another one still
  points at it; whoever finds it there does not take part.
- Nothing is run again of which any part may have been committed.

An ``async`` shell uses all of it as it is: the books do not know who waits.
"""

from __future__ import annotations

import random
import sys
import threading
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, Final, Generic, Protocol, TypeVar, cast

from millpond.errors import ConnectionReturned, InvalidSetting

from . import errors as e
from .dialects import Dialect
from .statements import Statement

ISOLATIONS: Final = ("READ UNCOMMITTED", "READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE")
ATTEMPTS: Final = 5
FIRST_DELAY_S: Final = 0.02  # the most that is waited before the second attempt; doubled for each further one
LONGEST_DELAY_S: Final = 1.0
BLOCK_NOT_TAKEN_BACK: Final = "a block within was left by an exception, and could not be taken back"

# Who runs within a thread, by the libraries that have such things; each raises RuntimeError where nobody does.
_WITHIN_THREADS: Final = (("asyncio", "current_task"), ("trio.lowlevel", "current_task"), ("greenlet", "getcurrent"))


def myself() -> tuple[Any, ...]:
    """Return who is running: the thread, and the task or greenlet within it."""
    parts: list[Any] = [threading.current_thread()]
    for module_name, function_name in _WITHIN_THREADS:
        module = sys.modules.get(module_name)
        if module is not None:
            try:
                parts.append(getattr(module, function_name)())
            except RuntimeError:  # no loop runs in this thread
                continue
    return tuple(parts)


class Owned(Protocol):
    """What can be joined: it knows whose it is, and whether its block was left."""

    owner: tuple[Any, ...]
    is_over: bool


OwnedT = TypeVar("OwnedT", bound=Owned)


class Joining(Generic[OwnedT]):
    """Which transaction of one database a caller is in, by context."""

    def __init__(self) -> None:
        self._open: ContextVar[OwnedT | None] = ContextVar("millpond transaction", default=None)
        #: The fast path: None if no transaction was begun in this context, or in the one that it is a copy of.
        self.hint: Callable[[], OwnedT | None] = self._open.get

    def current(self) -> OwnedT | None:
        """Return the transaction that the caller is in; None if it is in none, or in one of somebody else's.

        One whose block was left stays behind in a context where that was done in another one, or not at all.
        """
        found = self._open.get()
        return None if found is None or found.is_over or found.owner != myself() else found

    def enter(self, transaction: OwnedT) -> None:
        """Let what this caller does from now on take part."""
        self._open.set(transaction)

    def leave(self, transaction: OwnedT) -> None:
        """Let nothing take part any more; in another context than it was begun in there is nothing to do."""
        if self._open.get() is transaction:
            self._open.set(None)


class Books:
    """What is known of one open transaction.

    Args:
        dialect: of its connection.
        read_only: it was begun so.

    Attributes:
        repeatable: nothing inside can have been committed, so that the whole may be run once more.
        doubtful: the server may have ended it, and has to be asked before anything else is sent.
        spoilt: the connection was left in the middle of something, and must not be used again.
        streaming: a stream is being read, and nothing else can be sent.
        depth: how many blocks are open within the outermost.
    """

    __slots__ = (
        *("_cause", "_dialect", "_ended", "depth", "doubtful", "read_only"),
        *("repeatable", "spoilt", "streaming"),
    )

    def __init__(self, dialect: Dialect, *, read_only: bool = False) -> None:
        self._dialect = dialect
        self._ended = ""
        self._cause: BaseException | None = None
        self.read_only = read_only
        self.repeatable = True
        self.doubtful = False
        self.spoilt = False
        self.streaming = False
        self.depth = 0

    @property
    def stands(self) -> bool:
        """Say whether it is still open, as far as is known."""
        return not self._ended

    def admit(self, what: str) -> None:
        """Refuse to go on with a transaction that has ended, or that cannot take a statement now.

        Args:
            what: the statement, or COMMIT.

        Raises:
            TransactionLost: it has ended.
            TransactionMisuse: a stream of it is being read.
        """
        if self._ended:
            text = f"the transaction had ended before this: {self._ended}; nothing was done\n{e.shown(what)}"
            raise e.TransactionLost(text) from self._cause
        if self.streaming:
            text = f"a stream of this transaction is being read: read it to its end, or close it\n{e.shown(what)}"
            raise e.TransactionMisuse(text)

    def look_for(self, lease: Any) -> None:
        """Give the transaction up if its connection was given back inside, or taken back: it may be somebody else's."""
        try:
            _ = lease.driver_connection
        except ConnectionReturned as error:
            self.spoil("its connection had been given back", error)

    def answered(self, statement: Statement, conn: Any) -> None:
        """Take in that a statement was done."""
        if not statement.transactional:
            self.repeatable = False
        is_open = self._dialect.in_transaction(conn)
        if is_open is False or (is_open is None and statement.commits):
            self.repeatable = False
            self.end(f"{statement.verb} commits by itself")

    def failed(self, statement: Statement, conn: Any, error: BaseException) -> None:
        """Take in that a statement was not done."""
        if not isinstance(error, e.StatementFailed):
            if not isinstance(error, Exception):  # Ctrl-C, a cancelled task: who knows how far it came
                self.spoil("it was interrupted in the middle of a statement", error)
            return
        if isinstance(error, (e.ServerGone, e.OutcomeUnknown)):
            self.spoil("the link to the server was lost", error)
        elif self._dialect.tells_after_errors:
            if not self._dialect.in_transaction(conn):
                self.end("the database has rolled it back", error)
        elif isinstance(error, e.Deadlock):
            self.end("a deadlock, and the server has rolled it back", error)
        elif isinstance(error, e.LockTimeout) or not statement.transactional:
            self.repeatable = self.repeatable and statement.transactional
            self.doubt(f"{type(error).__name__} may have ended it", error)
        elif e.plain(type(error)) is e.StatementFailed and self._dialect.probe is not None:
            self.doubt("an error that is not known here may have ended it", error)

    def doubt(self, why: str, cause: BaseException) -> None:
        """Have the server asked whether it still stands; where it cannot be asked, it does not."""
        if self._dialect.probe is None:
            if self._dialect.brand != "other":
                self.end(f"{why}, and this driver does not tell", cause)
            return
        self.doubtful = True
        self._cause = cause

    def probed(self, conn: Any) -> None:
        """Take in that the server has answered the probe."""
        self.doubtful = False
        if not self._dialect.in_transaction(conn):  # or not told any more
            self.end("the server has ended it", self._cause)

    def spoil(self, why: str, cause: BaseException | None = None) -> None:
        """Give up the transaction and its connection."""
        self.spoilt = True
        self.end(why, cause)

    def end(self, why: str, cause: BaseException | None = None) -> None:
        """Note that it has ended; the first reason is kept."""
        if not self._ended:
            self._ended = why
            self._cause = cause

    def open_block(self) -> str:
        """Open a block within, and return the name of its savepoint."""
        self.depth += 1
        return f"millpond_{self.depth}"

    def close_block(self) -> None:
        """Close the innermost block."""
        self.depth -= 1


class Attempts:
    """How often, and after how long, a transaction is run again.

    Args:
        most: how often it is run at all; 1 or more.
        jitter: a number from 0 to 1, anew for each call.

    Raises:
        InvalidSetting: *most* is less than 1.
    """

    def __init__(self, most: int, jitter: Callable[[], float] = random.random) -> None:
        given = cast("object", most)
        if isinstance(given, bool) or not isinstance(given, int) or most < 1:
            raise InvalidSetting("attempts", most, "a whole number, 1 or more")
        self._most = most
        self._made = 0
        self._jitter = jitter

    def delay_after(self, error: BaseException, *, repeatable: bool) -> float | None:
        """Return the seconds to wait before the transaction is run again; None: it must not be, or not any more.

        Args:
            error: what ended it.
            repeatable: nothing of it can have been committed.
        """
        self._made += 1
        if not repeatable or not is_passing(error) or self._made >= self._most:
            return None
        return self._jitter() * min(LONGEST_DELAY_S, FIRST_DELAY_S * 2.0 ** (self._made - 1))


def is_passing(error: BaseException) -> bool:
    """Say whether running the whole transaction again may help: a deadlock, a lock, a link that was lost."""
    if isinstance(error, e.TransactionLost):  # somebody went on after the error that ended it
        error = error.__cause__ or error
    return isinstance(error, (e.Deadlock, e.LockTimeout, e.ServerGone))


def isolation_of(isolation: str | None) -> str | None:
    """Return an isolation level as SQL has it, from "read committed" or "READ_COMMITTED".

    Raises:
        InvalidSetting: there is no such level.
    """
    if isolation is None:
        return None
    name = " ".join(str(isolation).upper().replace("_", " ").replace("-", " ").split())
    if name not in ISOLATIONS:
        raise InvalidSetting("isolation", isolation, ", ".join(ISOLATIONS).lower())
    return name


def refuse_options_within(isolation: str | None, *, read_only: bool) -> None:
    """Refuse what only the outermost block of a transaction can choose.

    Raises:
        TransactionMisuse: one of them was chosen.
    """
    if isolation is not None or read_only:
        chosen = "isolation" if isolation is not None else "read_only"
        raise e.TransactionMisuse(f"{chosen}= within a transaction: only the outermost block can choose it")
