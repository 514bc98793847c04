"""What the helper layer raises: one name for one mishap, whatever the driver calls it.

::

    millpond.Error
      StatementFailed           the database, or the way to it, refused a statement; also of the driver's own class
        DuplicateKey  ForeignKeyViolation  NotNullViolation  CheckViolation  InvalidValue
        Deadlock  LockTimeout  StatementTimeout  StatementKilled
        InvalidStatement        syntax, or a name that does not exist: the program's fault
        AccessDenied  ReadOnlyServer  ReadOnlyTransaction
        ServerGone              the link was lost; what was not committed is undone
        OutcomeUnknown          the link was lost after a COMMIT, or a write that commits itself, was sent
      NoRow  TooManyRows        the program expected another number of rows
      RowMismatch               columns do not fit what rows are to become: the program's fault
      InvalidParameters         values do not fit the places of a statement: the program's fault
      TransactionLost           a statement or COMMIT came after the transaction had ended: nothing was done
      TransactionMisuse         something that cannot be done in, or with, a transaction: the program's fault
    AutocommitOff               a warning

Rules: an error carries the statement as it was written, never its values (what the server itself quotes in its message
is the server's).  ``args`` are the driver's, so that ``error.args[0] == 1062`` goes on working.  Pickled, an error
becomes the plain class again: the driver's may not be installed where it is read.
"""

from __future__ import annotations

from typing import Any

from millpond.errors import Error, joined

STATEMENT_SHOWN_MAX = 500  # characters of a statement in a message; the whole is in the attribute


class _Portable:
    """What pickles as our own class, whatever double class it was raised as."""

    args: tuple[Any, ...]

    def __reduce__(self) -> tuple[Any, ...]:
        return _revive, (plain(type(self)), self.args, self.__dict__)


class StatementFailed(_Portable, Error):
    """A statement was refused, by the database or by the way to it.

    Attributes:
        statement: the text as it was given to millpond, without values.
    """

    def __init__(self, text: str, statement: str = "") -> None:
        super().__init__(text)
        self.statement = statement

    def __str__(self) -> str:
        return "\n".join(part for part in (self.text, shown(self.statement)) if part)


class DuplicateKey(StatementFailed):
    """A row with this primary or unique key exists."""


class ForeignKeyViolation(StatementFailed):
    """The row refers to one that does not exist, or is referred to."""


class NotNullViolation(StatementFailed):
    """A column that must have a value got none."""


class CheckViolation(StatementFailed):
    """A CHECK constraint says no."""


class InvalidValue(StatementFailed):
    """A value is too long, out of range or of the wrong kind for its column."""


class Deadlock(StatementFailed):
    """The database has undone the whole transaction, because of another one: a deadlock, or a row changed meanwhile.

    Running it again is safe.
    """


class LockTimeout(StatementFailed):
    """A lock was not had in time; the statement was undone, the transaction is still open."""


class StatementTimeout(StatementFailed):
    """The statement took longer than its ``timeout``, or than the server allows; it was ended and undone."""


class StatementKilled(StatementFailed):
    """Somebody else has ended the statement; it was undone."""


class InvalidStatement(StatementFailed):
    """The statement's syntax is wrong, or it names something that does not exist."""


class AccessDenied(StatementFailed):
    """The user may not do this."""


class ReadOnlyServer(StatementFailed):
    """The server takes no writes: it is a replica, or was switched to read-only."""


class ReadOnlyTransaction(StatementFailed):
    """A write in a transaction that was begun read-only."""


class ServerGone(StatementFailed):
    """The link to the server was lost; nothing of the statement, or of its transaction, was committed."""


class OutcomeUnknown(StatementFailed):
    """The link was lost after something that commits was sent: it may have been done, or not.

    Look before doing it again.
    """


class NoRow(_Portable, Error, LookupError):
    """A row was required, and there is none."""

    def __init__(self, text: str) -> None:
        Error.__init__(self, text)


class TooManyRows(_Portable, Error, LookupError):
    """There is more than one row; pass ``first=True`` if any will do, or narrow the statement."""

    def __init__(self, text: str) -> None:
        Error.__init__(self, text)


class RowMismatch(_Portable, Error, TypeError):
    """The columns of a result do not fit what its rows are to become."""

    def __init__(self, text: str) -> None:
        Error.__init__(self, text)


class InvalidParameters(_Portable, Error, ValueError):
    """Values do not go with the places of a statement."""

    def __init__(self, text: str) -> None:
        Error.__init__(self, text)


class TransactionLost(_Portable, Error):
    """The transaction had ended before this: by a deadlock, a lost link, or a statement that commits by itself.

    The reason is the ``__cause__``, where there is one.
    """


class TransactionMisuse(_Portable, Error):
    """This cannot be done in, or with, a transaction."""


class AutocommitOff(UserWarning):
    """The pool's connections have autocommit off: a statement outside a transaction costs a second command."""


def failed(kind: type[StatementFailed], error: BaseException, statement: str, explanation: str = "") -> StatementFailed:
    """Make the error of *kind* that is also of the class of a driver's *error*, and says what that said."""
    text = f"{explanation}: {error}" if explanation else str(error)
    double = joined(kind, type(error))
    if double is kind:  # these two classes cannot be one
        return kind(text, statement)
    made = double.__new__(double, *error.args)
    made.__dict__.update(error.__dict__)
    made.args = error.args
    made.text = text
    made.statement = statement
    return made


def shown(statement: str) -> str:
    """Return a statement as a line of a message."""
    text = statement.strip()
    more = len(text) - STATEMENT_SHOWN_MAX
    return (
        f"statement: {text[:STATEMENT_SHOWN_MAX]}{f' ... ({more} characters more)' if more > 0 else ''}" if text else ""
    )


def plain(kind: type[Any]) -> type[Any]:
    """Return our own class behind a double one."""
    ours: dict[str, type[Any]] = globals()
    return next(base for base in kind.__mro__ if ours.get(base.__name__) is base)


def _revive(kind: type[Error], args: tuple[Any, ...], state: dict[str, Any]) -> Error:
    error = kind.__new__(kind, *args)
    error.args = args
    error.__dict__.update(state)
    return error
