"""What a driver's exception says about the world: the link, the server, the credentials, or only the statement.

One table a family of drivers.  Numbers are those of the MySQL and MariaDB manuals ("Server Error Message Reference",
"Client Error Message Reference"), result codes those of SQLite, states those of ISO 9075.  Where a driver has none of
these, the names of PEP 249's exception classes decide, and "the link is gone" is the worst case.

Rules: nothing in here asks a server.  A number that an application can cause by a statement of its own must never count
against the server: 1290 is a role only if its text says read-only (``SELECT ... INTO OUTFILE`` has the same number),
and 1792 (a write in the caller's own READ ONLY transaction) never is.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from typing import Final

from millpond._core.states import Fault

# 1152 to 1161 are the network's: aborted, too large, cut short, out of order, timed out, reading or writing.
MYSQL_NUMBERS: Final[dict[int, Fault]] = {
    **dict.fromkeys((1053, 1927, 2006, 2013, 2014, 2045, 2055, 4031, *range(1152, 1162)), Fault.GONE),
    **dict.fromkeys((1129, 2002, 2003, 2005, 2026), Fault.REFUSED),
    **dict.fromkeys((1040, 1203, 1226), Fault.SERVER_FULL),
    # User, password, database, host not allowed; expired; locked; no such authentication.  Waiting mends none of them.
    **dict.fromkeys(
        (1044, 1045, 1049, 1130, 1251, 1524, 1698, 1820, 1862, 2059, 2061, 3118, 3159, 4151), Fault.CREDENTIALS
    ),
    **dict.fromkeys((1836, 3100), Fault.READ_ONLY),
    **dict.fromkeys((1205, 1213, 1317, 1615, 1969, 3024), Fault.TRANSIENT),
}
READ_ONLY_OPTION: Final = 1290  # "running with the --... option so it cannot execute this statement"

SQLITE_CODES: Final[dict[int, Fault]] = {
    5: Fault.TRANSIENT,  # BUSY
    6: Fault.TRANSIENT,  # LOCKED
    8: Fault.READ_ONLY,
    10: Fault.GONE,  # IOERR
    11: Fault.GONE,  # CORRUPT
    3: Fault.CREDENTIALS,  # PERM
    14: Fault.CREDENTIALS,  # CANTOPEN: no such folder, no permission
    23: Fault.CREDENTIALS,  # AUTH
    26: Fault.CREDENTIALS,  # NOTADB
}
# Before Python 3.11 the code is not told, only the text that goes with it.
SQLITE_TEXTS: Final[dict[str, Fault]] = {
    "is locked": Fault.TRANSIENT,
    "unable to open database file": Fault.CREDENTIALS,
    "file is not a database": Fault.CREDENTIALS,
    "access permission denied": Fault.CREDENTIALS,
    "attempt to write a readonly database": Fault.READ_ONLY,
    "disk I/O error": Fault.GONE,
    "database disk image is malformed": Fault.GONE,
    "Cannot operate on a closed database": Fault.GONE,
    "created in a thread can only be used in that same thread": Fault.GONE,  # of no use to whoever sees this
}

SQLSTATES: Final[dict[str, Fault]] = {
    "08": Fault.GONE,
    "25006": Fault.READ_ONLY,
    "25P03": Fault.GONE,  # idle in a transaction for too long: the session is ended
    "25P04": Fault.GONE,  # a transaction that took too long, as above
    "28": Fault.CREDENTIALS,
    "3D": Fault.CREDENTIALS,
    "40": Fault.TRANSIENT,
    "53300": Fault.SERVER_FULL,
    "55P03": Fault.TRANSIENT,
    "57014": Fault.TRANSIENT,
    "57P03": Fault.REFUSED,
    "57P": Fault.GONE,
}
# libpq tells no state where a connect has failed, only the server's words; in other languages the worst is assumed.
POSTGRESQL_TEXTS: Final[dict[str, Fault]] = {
    "too many clients": Fault.SERVER_FULL,
    "too many connections": Fault.SERVER_FULL,
    "connection slots are reserved": Fault.SERVER_FULL,
    "authentication failed": Fault.CREDENTIALS,
    "no pg_hba.conf entry": Fault.CREDENTIALS,
    "does not exist": Fault.CREDENTIALS,
    "not permitted": Fault.CREDENTIALS,
    "no password supplied": Fault.CREDENTIALS,
    "the database system is": Fault.REFUSED,
    "could not translate host name": Fault.REFUSED,
    "onnection refused": Fault.REFUSED,
    "timeout expired": Fault.REFUSED,
}

MYSQL_FAMILY: Final = frozenset({"pymysql", "MySQLdb", "mysql", "mariadb", "aiomysql", "asyncmy"})


def classify(error: BaseException) -> Fault:
    """Sort an exception of any driver."""
    for cause in chain(error):
        if isinstance(cause, ssl.SSLCertVerificationError):
            return Fault.CREDENTIALS
    families = {kind.__module__.partition(".")[0] for kind in type(error).__mro__}
    if families & MYSQL_FAMILY:
        return of_mysql(error)
    if "sqlite3" in families:
        return of_sqlite(error)
    if isinstance(error, OSError):
        unreachable = isinstance(error, (ConnectionRefusedError, TimeoutError, socket.gaierror, FileNotFoundError))
        return Fault.REFUSED if unreachable else Fault.GONE
    if families & {"psycopg", "psycopg2"} and of_state(error) is None:
        return of_postgresql_text(error)
    return of_state(error) or of_class(error)


def chain(error: BaseException) -> Iterator[BaseException]:
    """Yield the error and what is behind it; PyMySQL keeps that in an attribute of its own."""
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        yield current
        original: BaseException | None = getattr(current, "original_exception", None)
        current = original or current.__cause__ or current.__context__


def is_of_tls(error: BaseException) -> bool:
    """Say whether it was TLS that failed.

    The files that its context was made of may be others by now: authorities and certificates are renewed.
    """
    return any(isinstance(cause, ssl.SSLError) for cause in chain(error))


def broke_while_binding(error: BaseException) -> BaseException | None:
    """Return what happened to mysql-connector-python while it bound values, before it sent anything; None otherwise.

    It asks the server for the session's ``sql_mode`` then, and tells of a lost link by an error without a number.
    """
    cause = error.__cause__
    if cause is None or getattr(error, "errno", None) != -1 or not isinstance(getattr(cause, "errno", None), int):
        return None
    return cause if "format-parameters" in str(error) else None


def number_of(error: BaseException) -> int:
    """Return the error's number; 0 if it has none."""
    error = broke_while_binding(error) or error
    number = getattr(error, "errno", None)  # mysql-connector-python and mariadb
    if not isinstance(number, int) and error.args:
        number = error.args[0]
    return number if isinstance(number, int) else 0


def of_mysql(error: BaseException) -> Fault:
    """Sort an exception of a driver of the MySQL family by its number."""
    number = number_of(error)
    if number == READ_ONLY_OPTION:
        words = str(error).lower().replace("_", "-")
        return Fault.READ_ONLY if "read-only" in words else Fault.STATEMENT
    if number in MYSQL_NUMBERS:
        return MYSQL_NUMBERS[number]
    if number > 0:
        return Fault.STATEMENT
    # Without a number: used after it was closed, replies out of step.
    return of_class(error)


def of_sqlite(error: BaseException) -> Fault:
    """Sort an exception of sqlite3 by its result code, or by the text that stands for it."""
    code: int | None = getattr(error, "sqlite_errorcode", None)
    if code is not None:
        return SQLITE_CODES.get(code & 0xFF, Fault.STATEMENT)
    words = str(error)
    return next((fault for part, fault in SQLITE_TEXTS.items() if part in words), Fault.STATEMENT)


def of_state(error: BaseException) -> Fault | None:
    """Sort an exception by its SQLSTATE, if it has one; None if that does not decide."""
    state = getattr(error, "sqlstate", None) or getattr(error, "pgcode", None)
    if not isinstance(state, str):
        return None
    return next((fault for start, fault in SQLSTATES.items() if state.startswith(start)), Fault.STATEMENT)


def of_postgresql_text(error: BaseException) -> Fault:
    """Sort an exception of psycopg without a state by the words of the server, or else by its class."""
    words = str(error)
    told = (fault for part, fault in POSTGRESQL_TEXTS.items() if part in words)
    return next(told, None) or of_class(error)


def of_class(error: BaseException) -> Fault:
    """Sort an exception by the name of its class in PEP 249."""
    names = {kind.__name__ for kind in type(error).__mro__}
    if names & {"OperationalError", "InterfaceError", "InternalError"}:
        return Fault.GONE
    # Everything else that a driver raises is about a statement, and the rest is a mistake in somebody's code.
    return Fault.STATEMENT
