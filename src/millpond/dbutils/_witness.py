"""What known drivers tell, without being asked: is a transaction open, was anything written, what outlives a statement.

Why: a connection may be replaced by another only where nothing can be cut in two, and a dead link is no harm only where
nothing was lost with it.  The driver knows most of it; the rest is read off the first words of statements, always to
the safe side: what cannot be told counts as a transaction.  The driver is asked first, whatever was seen here: programs
for DBUtils run statements on the driver's own connection (``_con._con``) as well, past everything that counts them.

Rules: no I/O.  A driver that is not listed here is not known: for it DBUtils' own ways hold (:mod:`._stubborn`).
"""

from __future__ import annotations

import re
import types
from collections.abc import Callable
from typing import Any, Final

from millpond.drivers import name_for_module

IN_TRANSACTION: Final = 0x0001  # SERVER_STATUS_IN_TRANS
AUTOCOMMIT: Final = 0x0002  # SERVER_STATUS_AUTOCOMMIT
IDLE, UNKNOWN = 0, 4  # libpq's PQTRANS_IDLE and PQTRANS_UNKNOWN

#: Statements that leave nothing behind but rows and an open transaction, and, of these, those that write nothing.
READING: Final = frozenset(
    {
        *("SELECT", "SHOW", "EXPLAIN", "DESC", "DESCRIBE", "VALUES", "TABLE", "FETCH", "MOVE"),
        *("COMMIT", "ROLLBACK", "SAVEPOINT", "RELEASE"),
    }
)
WRITING: Final = ("INSERT", "UPDATE", "DELETE", "REPLACE", "MERGE")
PLAIN: Final = READING.union(WRITING, ("WITH",))
OPENING: Final = frozenset({"BEGIN", "START", "XA"})
# Comments before it are looked past, but for those of MySQL and MariaDB that are run.
FIRST_WORD: Final = re.compile(
    r"(?:[\s(;]|/\*(?!M?!)[^*]*(?:\*(?!/)[^*]*)*\*/|#[^\n]*\n|--(?=\s)[^\n]*\n)*([A-Za-z]+)", re.DOTALL
)
#: What ``WITH`` may have in it.
WRITES: Final = re.compile(rf"\b({'|'.join(WRITING)})\b", re.IGNORECASE)
#: What a plain statement may leave in a session all the same.
TRACES: Final = re.compile(r"@|GET_LOCK|ADVISORY|SET_CONFIG|\bINTO\s+TEMP", re.IGNORECASE)


class Activity:
    """What was done on a connection since it was new, and since its last transaction ended.

    Attributes:
        touched: a statement was sent, and no transaction has ended since.
        opening: one of them may have begun a transaction by itself.
        wrote: one of them may have written.
        unsure: the last one failed: what the server said before may not hold any more.
        used: a statement was sent since the session was new, or made as good as new.
        traces: something may have been left in the session that a new one would not have.
    """

    __slots__ = ("opening", "touched", "traces", "unsure", "used", "wrote")

    def __init__(self) -> None:
        self.renewed()

    def renewed(self) -> None:
        """The session is new, or as good as new."""
        self.used = self.traces = False
        self.ended()

    def ended(self) -> None:
        """No transaction is open any more."""
        self.touched = self.opening = self.wrote = self.unsure = False

    def note(self, statement: object) -> None:
        """A statement is about to be sent."""
        word = first_word(statement)
        self.touched = True
        if word not in PLAIN:
            self.opening = True
        if word not in READING and word not in OPENING and not (word == "WITH" and not WRITES.search(str(statement))):
            self.wrote = True
        if not self.traces and leaves_traces(word, statement):
            self.traces = True


Outside = Callable[[Any, Activity], bool]


def outside_of_pymysql(con: Any, seen: Activity) -> bool:
    """PyMySQL keeps the last status word; an error has none, so that after one nothing is sure."""
    status: int = getattr(con, "server_status", IN_TRANSACTION)
    if seen.unsure or status & IN_TRANSACTION:
        return False
    # The adapter's own connections hear every status word; others miss those that end rows, where autocommit is off.
    return bool(status & AUTOCOMMIT) or hasattr(con, "_millpond") or not seen.touched


def outside_of_mysqlclient(con: Any, seen: Activity) -> bool:
    """Mysqlclient tells whether autocommit is on; the adapter hears of transactions, if the library under it tells."""
    if getattr(con, "_millpond_told", False) and con._millpond.status & IN_TRANSACTION:
        return False
    return not seen.touched or (not seen.unsure and not seen.opening and bool(con.get_autocommit()))


def outside_of_mysql_connector(con: Any, seen: Activity) -> bool:
    """mysql-connector-python reads every status word."""
    return not seen.unsure and not con.in_transaction


def outside_of_psycopg(con: Any, seen: Activity) -> bool:
    """Libpq follows the transaction, errors included; of a connection that was closed it knows nothing."""
    status = con.info.transaction_status
    return bool(status == IDLE or (status == UNKNOWN and not seen.touched))


def outside_of_sqlite(con: Any, _: Activity) -> bool:
    """SQLite tells exactly."""
    return not con.in_transaction


WITNESSES: Final[dict[str, Outside]] = {
    "pymysql": outside_of_pymysql,
    "mysqlclient": outside_of_mysqlclient,
    "mysqlconnector": outside_of_mysql_connector,
    "psycopg": outside_of_psycopg,
    "psycopg2": outside_of_psycopg,
    "sqlite": outside_of_sqlite,
}
#: Drivers of which statements have to be read: they do not tell what was written, or what was begun.
BY_WORDS: Final = frozenset({"mysqlclient", "mysqlconnector", "psycopg", "psycopg2"})


def name_of(module: types.ModuleType) -> str | None:
    """Return the name by which the driver of a DB-API module is known here; None: nobody knows it."""
    top = module.__name__.partition(".")[0]
    if top in ("psycopg", "psycopg2"):
        return top
    name = name_for_module(module)
    return name if name in WITNESSES else None


def text_of(statement: object, con: Any) -> object:
    """Return a statement as it is sent, if it was composed by the means of psycopg; any other as it is."""
    compose = getattr(statement, "as_string", None)
    if compose is None:
        return statement
    try:
        return str(compose(con))
    except Exception:  # noqa: BLE001  the driver says what is wrong with it, when it is given it
        return ""


def first_word(statement: object) -> str:
    """Return the first word of a statement in capitals; empty if there is none to be read."""
    if isinstance(statement, (bytes, bytearray)):
        statement = bytes(statement[:200]).decode("ascii", "replace")
    if not isinstance(statement, str):
        return ""
    found = FIRST_WORD.match(statement)
    return found[1].upper() if found else ""


def leaves_traces(word: str, statement: object) -> bool:
    """Say whether a statement that begins with *word* may leave something in its session beside a transaction."""
    if word not in PLAIN and word not in OPENING:
        return True
    text = statement if isinstance(statement, str) else str(statement)
    return TRACES.search(text) is not None
