"""What a database learns from its first connection, and what every call needs of it; without waiting.

Why: the shells for threads and for asyncio prepare a statement, limit it in time, and sort what went wrong in the same
way.  They differ in how they take a connection and how they wait for it, and in nothing that is here.

Rules: nothing in here sends anything.  What was learnt from the first connection holds for all: a pool's connections
are alike.  What may differ from connection to connection, or change (an open transaction, the mode of strings), is
asked of the connection each time, which knows it by itself.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence
from types import FrameType
from typing import Any, Final

from millpond._sql.params import Misbound, Params
from millpond.errors import joined
from millpond.forks import LockOfProcess
from millpond.url import SCHEMES, URL

from . import errors as e
from .dialects import PACKET_SLACK, STATEMENT_BYTES_MAX, Dialect, dialect_of
from .statements import PlainRead, Statement, Statements
from .translation import translated

ASK_PACKET_MAX: Final = "SHOW VARIABLES LIKE 'max_allowed_packet'"
AUTOCOMMIT_OFF: Final = (
    "the connections of this pool have autocommit off, so each statement outside a transaction costs a second command "
    "to the server, the COMMIT or ROLLBACK that ends it; Database(url) turns autocommit on, as autocommit=true in the "
    "pool's URL does"
)


class Knowledge:
    """What is known of a database.

    Args:
        driver: the adapter of its pool.

    Attributes:
        dialect: of its connections; there from the first one on.
        statements: prepared for it.
        autocommit: its connections commit each statement as it is done.
        plain_reads: the fast path of threads; see :class:`~millpond._database.statements.Statements`.
        packet_max: bytes that the server takes in one statement; None until it was asked.
    """

    dialect: Dialect
    statements: Statements
    autocommit: bool

    def __init__(self, driver: Any) -> None:
        self.driver = driver
        self.has_met = False
        self.plain_reads: dict[str, PlainRead] = {}
        self.packet_max: int | None = None
        self._meeting = LockOfProcess()

    def meet(self, conn: Any) -> None:
        """Learn from a connection, if it is the first."""
        if self.has_met or not self._learn(conn):
            return
        if not self.autocommit and self.dialect.autocommit_saves:
            warnings.warn(AUTOCOMMIT_OFF, e.AutocommitOff, stacklevel=caller()[1])

    def _learn(self, conn: Any) -> bool:
        with self._meeting():
            if self.has_met:
                return False
            self.dialect = dialect_of(self.driver, conn)
            self.statements = Statements(self.dialect, self.driver, self.plain_reads)
            self.autocommit = self.dialect.autocommit(conn)
            self.has_met = True
            return True

    def failure(
        self,
        error: BaseException,
        sql: str,
        *,
        commits: bool,
        timeout: float | None = None,
        read_only: bool = False,
    ) -> BaseException:
        """Return what to raise for an exception that came out of a statement: ours, or itself.

        Args: as for :func:`~millpond._database.translation.translated`.
        """
        if isinstance(error, e.StatementFailed):
            return error
        ours = translated(error, self.driver, sql, commits=commits, timeout=timeout, read_only=read_only)
        return error if ours is None else ours

    def too_late(self, sql: str, timeout: float) -> e.StatementTimeout:
        """Make the error for a statement whose time was over before it was sent, or before its answer was taken."""
        kind = joined(e.StatementTimeout, self.driver.family("OperationalError"))
        return kind(f"not done within {timeout:g} s", sql)

    def gone(self, sql: str) -> e.ServerGone:
        """Make the error for a link that was found dead before a statement was sent."""
        kind = joined(e.ServerGone, self.driver.family("OperationalError"))
        return kind("the server has closed the link before this was sent", sql)

    def bytes_max(self) -> int:
        """Return how many bytes a statement of a batch may have."""
        return min(STATEMENT_BYTES_MAX, max(1, (self.packet_max or 0) - PACKET_SLACK))

    def learn_packet_max(self, rows: Sequence[Sequence[Any]]) -> None:
        """Take in the answer to :data:`ASK_PACKET_MAX`."""
        self.packet_max = int(rows[0][1]) if rows else STATEMENT_BYTES_MAX

    def knows_packet_max(self) -> bool:
        """Say whether the server need not be asked how much it takes."""
        return self.packet_max is not None or self.dialect.brand not in ("mysql", "mariadb")


def bound(statement: Statement, params: Params | None) -> tuple[str, Sequence[Any] | None]:
    """Return the text for the driver and what it is to bind.

    Raises:
        InvalidParameters: the values do not go with the places.
    """
    try:
        return statement.bind(params)
    except Misbound as error:
        raise misbound(error, statement.sql) from None


def misbound(error: Misbound, sql: str) -> e.InvalidParameters:
    """Make the error for values that do not go with the places of a statement."""
    return e.InvalidParameters(f"{error}\n{e.shown(sql)}")


def with_autocommit(url: str) -> str:
    """Return a URL that says ``autocommit=true``, unless it says something about that already, or nobody knows it."""
    parsed = URL.parse(url)
    if "autocommit" in parsed.options or parsed.scheme not in SCHEMES:
        return url
    return f"{url}{'&' if '?' in url else '?'}autocommit=true"


def caller() -> tuple[FrameType, int]:
    """Return the frame of the first caller that is not millpond, and its ``stacklevel`` in whoever calls this."""
    depth, frame = 0, sys._getframe(1)  # noqa: SLF001  documented, and the only way
    while frame.f_back is not None and is_ours(frame):
        depth, frame = depth + 1, frame.f_back
    return frame, depth + 1


def is_ours(frame: FrameType) -> bool:
    """Say whether a frame is of this package, or of what it calls itself through."""
    name = str(frame.f_globals.get("__name__", ""))
    return name.startswith("millpond.") or name == "contextlib"
