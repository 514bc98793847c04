"""Connections of PyGreSQL's classic interface that mend themselves: ``dbutils.steady_pg``.

Why: ``pg.DB`` tells by its status whether its link is good, so that a bad one is reset before it is used, and a query
whose link went bad under it can be told from one that is wrong.

Rules: in a transaction nothing is reset and nothing tried again.  PyGreSQL is imported when the first connection is
made.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from . import _parameters as parameters
from ._errors import DropInError
from ._version import DBUTILS_VERSION

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["InvalidConnection", "InvalidConnectionError", "SteadyPgConnection", "SteadyPgError"]

__version__ = DBUTILS_VERSION

#: Methods of ``pg.DB`` that send something, and are tried once more on a link that went bad.
SENDING: Final = ("query", "get", "insert", "update", "upsert", "delete", "truncate")


class SteadyPgError(DropInError):
    """The base of the errors of this module."""


class InvalidConnectionError(SteadyPgError):
    """There is no connection behind this one."""


InvalidConnection = InvalidConnectionError


class SteadyPgConnection:
    """A ``pg.DB`` that is reset when its link is bad, or when it is worn out.

    Args:
        maxusage: queries after which it is reset, outside of transactions; 0 or None for no limit.
        setsession: statements to be run on each new session.
        closeable: whether ``close()`` closes it; else it ends a transaction at most.
        args: given to ``pg.DB``.
        kwargs: given to it as well.

    Raises:
        WrongKind: a parameter is of a kind that it does not take (a TypeError).
        Exception: PyGreSQL's own.
    """

    version = __version__

    _con: Any = None
    _closed = True
    _transaction = False
    _usage = 0
    _maxusage = 0

    def __init__(
        self, maxusage: int | None = None, setsession: Any = None, closeable: bool = True, *args: Any, **kwargs: Any
    ) -> None:
        self._maxusage = parameters.maxusage_of(maxusage)
        self._setsession_sql = setsession
        self._closeable = closeable
        self._con = importlib.import_module("pg").DB(*args, **kwargs)
        self._closed = False
        self._setsession()

    def _setsession(self) -> None:
        for statement in parameters.setsession_of(self._setsession_sql) or ():
            self._con.query(statement)

    # ------------------------------------------------------------------ closing and mending
    def _close(self) -> None:
        """Close, whatever ``closeable`` says; twice is harmless."""
        if not self._closed:
            with contextlib.suppress(Exception):  # that it is dead is no news
                self._con.close()
            self._transaction = False
            self._closed = True

    def close(self) -> None:
        """Close it, if it may be closed; else end the transaction that is open."""
        if self._closeable:
            self._close()
        elif self._transaction:
            self.reset()

    def reopen(self) -> None:
        """Connect anew; a connection that cannot is left as it is, out of its transaction."""
        try:
            self._con.reopen()
        except Exception:  # noqa: BLE001  the next query tells
            self._give_up_transaction()
        else:
            self._renewed()

    def reset(self) -> None:
        """Begin a new session, on the same link if it is good, else on a new one."""
        for way in ("reset", "reopen"):
            try:
                getattr(self._con, way)()
                self._renewed()
            except Exception:  # noqa: BLE001, S112  the next way is worse, and may work
                continue
            return
        self._give_up_transaction()

    def _renewed(self) -> None:
        self._transaction = False
        self._closed = False
        self._setsession()
        self._usage = 0

    def _give_up_transaction(self) -> None:
        with contextlib.suppress(Exception):  # then it has gone with its link
            self.rollback()
        self._transaction = False

    # ------------------------------------------------------------------ transactions
    def begin(self, sql: str | None = None) -> Any:
        """Begin a transaction: until it has ended nothing is reset, and every error is raised."""
        self._transaction = True
        return self._control("begin", sql)

    def end(self, sql: str | None = None) -> Any:
        """Commit the transaction."""
        self._transaction = False
        return self._control("end", sql)

    def commit(self, sql: str | None = None) -> Any:
        """Commit the transaction."""
        self._transaction = False
        return self._control("commit", sql)

    def rollback(self, sql: str | None = None) -> Any:
        """Roll the transaction back."""
        self._transaction = False
        return self._control("rollback", sql)

    def _control(self, what: str, sql: str | None) -> Any:
        own = getattr(self._con, what, None)
        if own is None:
            return self._con.query(sql or what)
        return own(sql=sql) if sql else own()

    def __enter__(self) -> Self:
        self.begin()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.commit()
        else:
            self.rollback()

    # ------------------------------------------------------------------ the rest is PyGreSQL's
    def _is_good(self) -> bool:
        """Say whether the link is good, as far as PyGreSQL knows."""
        link = getattr(self._con, "db", None)
        return bool(link is not None and link.status)

    def _run(self, name: str, *args: Any, **kwargs: Any) -> Any:
        """Run a method that sends something."""
        worn = self._maxusage and self._usage >= self._maxusage
        if not self._transaction and (worn or not self._is_good()):
            self.reset()
        try:
            result = getattr(self._con, name)(*args, **kwargs)
        except Exception:
            if self._is_good():
                raise
            if self._transaction:
                self._transaction = False
                raise
            self.reset()
            result = getattr(self._con, name)(*args, **kwargs)
        self._usage += 1
        return result

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        if self._con is None:
            raise InvalidConnectionError("there is no connection behind this one")
        found = getattr(self._con, name)
        if name.split("_", 1)[0] in SENDING and callable(found):
            runner: Callable[..., Any] = functools.partial(self._run, name)
            return runner
        return found

    def __del__(self) -> None:
        if not sys.is_finalizing():
            self._close()
