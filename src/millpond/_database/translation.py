"""From a driver's exception to one of ours, by its number, its SQLite code or its SQLSTATE.

Numbers are those of the MySQL and MariaDB manuals ("Server Error Message Reference"), SQLite's those of
sqlite.org/rescode.html, states those of ISO 9075 and PostgreSQL's appendix A.

Rules: what is no error of a database stays what it is.  A lost link is sorted by what was lost with it: before the
statement was sent, nothing; of a statement in a transaction, nothing that was committed; of anything that commits,
nobody knows.
"""

from __future__ import annotations

from typing import Any, Final

from millpond._core.states import Fault
from millpond.drivers import faults
from millpond.errors import Error

from . import errors as e

KINDS_BY_NUMBER: Final[dict[int, type[e.StatementFailed]]] = {
    **dict.fromkeys((1022, 1062, 1169, 1586, 1859), e.DuplicateKey),
    **dict.fromkeys((1216, 1217, 1451, 1452, 1761, 1762), e.ForeignKeyViolation),
    **dict.fromkeys((1048, 1364, 1263), e.NotNullViolation),
    **dict.fromkeys((3819, 4025), e.CheckViolation),
    # 1153: longer than max_allowed_packet; the server has not run it, though it closes the connection.
    **dict.fromkeys((1153, 1264, 1265, 1292, 1365, 1366, 1406, 1411, 1367, 1441, 1690, 3140, 3141), e.InvalidValue),
    # The server has undone the whole transaction: to end a deadlock; because a row has changed since it was read (1020,
    # MariaDB's innodb_snapshot_isolation); for want of room for locks (1206); a group of servers in conflict (3101).
    **dict.fromkeys((1020, 1206, 1213, 3101), e.Deadlock),
    **dict.fromkeys((1205, 3572), e.LockTimeout),
    **dict.fromkeys((1969, 3024), e.StatementTimeout),
    1317: e.StatementKilled,
    1792: e.ReadOnlyTransaction,
    **dict.fromkeys((1044, 1045, 1142, 1143, 1227, 1370, 1419), e.AccessDenied),
    **dict.fromkeys(
        (
            *(1046, 1049, 1050, 1051, 1052, 1054, 1055, 1056, 1060, 1061, 1064, 1065, 1066, 1091, 1109, 1111, 1115),
            *(1136, 1140, 1146, 1149, 1176, 1193, 1222, 1241, 1273, 1305, 1318, 1582, 1630),
        ),
        e.InvalidStatement,
    ),
}
KINDS_BY_SQLITE_CODE: Final[dict[int, type[e.StatementFailed]]] = {
    **dict.fromkeys((2067, 1555, 2579), e.DuplicateKey),  # UNIQUE, PRIMARYKEY, ROWID
    787: e.ForeignKeyViolation,
    1299: e.NotNullViolation,
    275: e.CheckViolation,
    517: e.Deadlock,  # BUSY_SNAPSHOT: waiting cannot help, beginning anew does
    5: e.LockTimeout,
    6: e.LockTimeout,
    8: e.ReadOnlyServer,
    9: e.StatementKilled,
    18: e.InvalidValue,
    20: e.InvalidValue,
    23: e.AccessDenied,
}
# Before Python 3.11 the code is not told; some of these are not told by code ever.
KINDS_BY_SQLITE_TEXT: Final[dict[str, type[e.StatementFailed]]] = {
    "UNIQUE constraint failed": e.DuplicateKey,
    "FOREIGN KEY constraint failed": e.ForeignKeyViolation,
    "NOT NULL constraint failed": e.NotNullViolation,
    "CHECK constraint failed": e.CheckViolation,
    "is locked": e.LockTimeout,
    "interrupted": e.StatementKilled,
    "readonly database": e.ReadOnlyServer,
    "syntax error": e.InvalidStatement,
    "no such": e.InvalidStatement,
    "has no column named": e.InvalidStatement,
    "already exists": e.InvalidStatement,
    "ambiguous column name": e.InvalidStatement,
    "misuse of aggregate": e.InvalidStatement,
    "malformed JSON": e.InvalidValue,
    "incomplete input": e.InvalidStatement,
}
KINDS_BY_STATE: Final[dict[str, type[e.StatementFailed]]] = {
    "23505": e.DuplicateKey,
    "23503": e.ForeignKeyViolation,
    "23502": e.NotNullViolation,
    "23514": e.CheckViolation,
    "40": e.Deadlock,
    "55P03": e.LockTimeout,
    "57014": e.StatementKilled,
    "25006": e.ReadOnlyTransaction,
    "22": e.InvalidValue,
    "42501": e.AccessDenied,
    "42": e.InvalidStatement,
}
# The link was found dead before, or while, the statement was sent, so that the server never had the whole of it:
# CR_SERVER_GONE_ERROR, and MySQL's ER_CLIENT_INTERACTION_TIMEOUT, which was there before the statement was.
UNSENT: Final = frozenset({2006, 4031})


def kind_of(error: BaseException, driver: Any) -> type[e.StatementFailed] | None:
    """Return what a driver's exception is called here; None if it does not come from a database."""
    if isinstance(error, e.StatementFailed):
        return e.plain(type(error))
    base = driver.family("Error")
    if isinstance(error, Error) or not isinstance(error, (*((base,) if base else ()), OSError)):
        return None
    found = of_family(error)
    if found is not None:
        return found
    fault = driver.classify(error)
    if fault in (Fault.GONE, Fault.REFUSED):
        return e.ServerGone
    return e.ReadOnlyServer if fault is Fault.READ_ONLY else e.StatementFailed


def of_family(error: BaseException) -> type[e.StatementFailed] | None:
    """Sort an exception by what its driver's family has for that: numbers, codes or states."""
    families = {kind.__module__.partition(".")[0] for kind in type(error).__mro__}
    if "sqlite3" in families:
        return of_sqlite(error)
    if families & faults.MYSQL_FAMILY:
        return KINDS_BY_NUMBER.get(faults.number_of(error))
    return of_state(error)


def of_sqlite(error: BaseException) -> type[e.StatementFailed] | None:
    """Sort an exception of sqlite3."""
    code: int | None = getattr(error, "sqlite_errorcode", None)
    if code is not None:
        found = KINDS_BY_SQLITE_CODE.get(code) or KINDS_BY_SQLITE_CODE.get(code & 0xFF)
        if found is not None:
            return found
    words = str(error)
    return next((kind for part, kind in KINDS_BY_SQLITE_TEXT.items() if part in words), None)


def of_state(error: BaseException) -> type[e.StatementFailed] | None:
    """Sort an exception by its SQLSTATE."""
    state = getattr(error, "sqlstate", None) or getattr(error, "pgcode", None)
    if not isinstance(state, str):
        return None
    return next((kind for start, kind in KINDS_BY_STATE.items() if state.startswith(start)), None)


def was_unsent(error: BaseException) -> bool:
    """Say whether the server cannot have had the whole statement."""
    if faults.broke_while_binding(error) is not None:
        return True
    number = faults.number_of(error)
    if number == 0 and type(error).__name__ == "InterfaceError":  # PyMySQL's (0, ''): the connection was closed before
        return True
    return number in UNSENT


def translated(
    error: BaseException, driver: Any, sql: str, *, commits: bool, timeout: float | None = None, read_only: bool = False
) -> e.StatementFailed | None:
    """Return our own error for a driver's; None if it does not come from a database.

    Args:
        error: what the driver raised.
        driver: its adapter.
        sql: the statement as it was written.
        commits: whether what was sent commits itself, so that a lost answer leaves the outcome open.
        timeout: seconds after which the statement was ended by us; None if it was not.
        read_only: the transaction was begun read-only, which SQLite says in the words for a read-only file.
    """
    kind = kind_of(error, driver)
    if kind is None:
        return None
    if kind is e.ServerGone and commits and not was_unsent(error):
        return e.failed(e.OutcomeUnknown, error, sql, "the answer was lost: it may have been done, or not")
    if timeout is not None and kind in (e.ServerGone, e.StatementKilled):
        return e.failed(e.StatementTimeout, error, sql, f"not done within {timeout:g} s, and ended")
    if read_only and kind is e.ReadOnlyServer:
        kind = e.ReadOnlyTransaction
    return e.failed(kind, error, sql)
