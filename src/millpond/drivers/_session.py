"""What is known of one session without asking: was everything that went over its connection harmless?

Why: a pool that hands sessions on must know which of them are as good as new.  The server says most of it unasked (an
open transaction, changed session state, warnings: in the status words of its replies) and the statements say the rest
(:mod:`millpond._sql.cleanliness`).  This is where the two come together, for every driver of the MySQL family that can
be listened to.

Rules:
- Clean is proved: every statement since the session was new was proved harmless, every reply was read to its end, none
  was an error, none had a warning, none told of changed state.  Everything else is dirty, and dirt stays until a reset.
- A transaction in which nothing was written is no dirt: a ROLLBACK ends it.
- Only the borrower's thread writes here, or whoever makes the session as good as new between two borrowers.

It must not do I/O, and it must not know a driver.
"""

from __future__ import annotations

import re
from typing import Any, Final

from millpond._sql.cleanliness import Brand, is_clean_statement, is_transaction_control

IN_TRANSACTION: Final = 0x0001  # SERVER_STATUS_IN_TRANS
AUTOCOMMIT: Final = 0x0002  # SERVER_STATUS_AUTOCOMMIT
MORE_RESULTS: Final = 0x0008  # SERVER_MORE_RESULTS_EXISTS
NO_BACKSLASH_ESCAPES: Final = 0x0200  # SERVER_STATUS_NO_BACKSLASH_ESCAPES
STATE_CHANGED: Final = 0x4000  # SERVER_SESSION_STATE_CHANGED

COM_QUERY: Final = 0x03
COM_PING: Final = 0x0E

UTF8: Final = frozenset({"utf8mb4", "utf8mb3", "utf8"})
CONTROL_LENGTH_MAX: Final = 128  # longer texts are not kept: they are no BEGIN, COMMIT or ROLLBACK

# Statements that write nothing.  WITH may head an UPDATE on MySQL.
_READS: Final = re.compile(
    rb"[\s(]*(?:SELECT|SHOW|EXPLAIN|DESC|DESCRIBE|VALUES|TABLE|BEGIN|START|COMMIT|ROLLBACK|SET|USE|WITH(?!.*\b(?:UPDATE|DELETE)\b))\b",
    re.IGNORECASE | re.DOTALL,
)
_BEGINS: Final = re.compile(rb"\s*(?:BEGIN|START)\b", re.IGNORECASE)
_MENTIONS_XA: Final = re.compile(rb"\bXA\b", re.IGNORECASE)
_MENTIONS_SCHEMA: Final = re.compile(rb"\bUSE\b|\bDATABASE\b|\bSCHEMA\b", re.IGNORECASE)

ROLE_NUMBERS: Final = frozenset({1836, 3100})
READ_ONLY_OPTION: Final = 1290


class Session:
    """The knowledge about one session.

    Attributes:
        dirt: why it is not as good as new; empty while it is.
        owed: replies of which the last packet was not seen yet.
        status: the last status word.
        wrote: something may have been written since the open transaction began.
        pending: a ROLLBACK was sent, and its answer has not been read.
        holder: the thread that waits for a reply; 0 for none.
        beyond_reset: what no reset restores was touched (XA, the link itself): it costs the connection.
        chose_schema: the current schema may be another one.
        role_suspect: an error told that the server may have become read-only.
    """

    __slots__ = (
        "answers",
        "beyond_reset",
        "brand",
        "chose_schema",
        "dirt",
        "holder",
        "looks",
        "owed",
        "pending",
        "reset_proved",
        "role_suspect",
        "sender",
        "status",
        "text",
        "tracked",
        "utf8",
        "wrote",
    )

    def __init__(self) -> None:
        self.brand: Brand | None = None
        self.utf8 = False
        self.tracked = False  # the server tells of changed session state
        self.reset_proved = False  # a reset was answered as it should be on this connection
        self.looks: Any = None  # the driver object's settings as they were when it was new
        self.answers = 0  # how many replies a reset that was sent will have
        self.holder = 0
        self.beyond_reset = False
        self.dirt = "not set up"
        self.owed = 0
        self.status = 0
        self.wrote = False
        self.pending = False
        self.chose_schema = False
        self.role_suspect = False
        self.text: bytes = b""

    def renew(self, status: int) -> None:
        """Begin anew: from now on it is as good as new until something is seen."""
        self.dirt = ""
        self.owed = 0
        self.answers = 0
        self.status = status
        self.wrote = False
        self.pending = False
        self.chose_schema = False
        self.role_suspect = False
        self.text = b""

    # -- what is sent
    def judge(self, command: int, text: bytes) -> None:
        """Judge a command that is about to be sent."""
        self.owed += 1
        if command == COM_QUERY:
            if not _READS.match(text):
                self.wrote = True
            elif self.wrote and _BEGINS.match(text):  # it commits what was written before
                self.wrote = False
            if self.dirt and not self.pending:  # no need to be proved dirty twice
                self.note_reach(text)
            elif not is_clean_statement(
                text, brand=self.brand, backslash_escapes=not self.status & NO_BACKSLASH_ESCAPES, utf8=self.utf8
            ):
                self.dirt = self.dirt or "a statement that is not proved harmless"
                self.note_reach(text)
        elif command != COM_PING:
            self.dirt = self.dirt or "a command other than a statement"
            self.chose_schema = True

    def note_reach(self, text: bytes) -> None:
        """Note what a reset cannot undo by itself."""
        if _MENTIONS_XA.search(text):
            self.beyond_reset = True
        if _MENTIONS_SCHEMA.search(text):
            self.chose_schema = True

    def sent(self, text: bytes) -> None:
        """Keep what the next reply is about; a longer text than any that matters is not kept alive."""
        self.text = text if len(text) <= CONTROL_LENGTH_MAX else b""

    # -- what is told
    def note(self, status: int, warnings: int) -> None:
        """Take in what the last packet of a result says."""
        self.status = status
        if not status & MORE_RESULTS:
            self.owed -= 1
        if not status & IN_TRANSACTION:
            self.wrote = False
        if status & STATE_CHANGED and not is_transaction_control(self.text):
            self.dirt = self.dirt or "changed session state"
        if warnings:  # MariaDB keeps them over a ROLLBACK for the next SHOW WARNINGS
            self.dirt = self.dirt or "warnings"

    def failed(self, error: BaseException, *, answered: bool) -> None:
        """Take in an error; an ERR packet carries no status, so nothing is known of what the statement left."""
        self.dirt = self.dirt or "an error"
        if answered:  # it was the last packet of its reply
            self.owed -= 1
        number = error.args[0] if error.args else 0
        if number in ROLE_NUMBERS or (number == READ_ONLY_OPTION and tells_read_only(error)):
            self.role_suspect = True

    # -- what follows
    @property
    def needs_rollback_only(self) -> bool:
        """Say whether all that is left is an open transaction in which nothing was written."""
        return not self.dirt and not self.owed and bool(self.status & IN_TRANSACTION) and not self.wrote

    @property
    def uncommitted(self) -> bool:
        return self.wrote and bool(self.status & IN_TRANSACTION)


def tells_read_only(error: BaseException) -> bool:
    """Say whether error 1290 is about --read-only or --super-read-only; SELECT ... INTO OUTFILE has the same number."""
    return "read-only" in str(error).lower().replace("_", "-")


def brand_of(version: str) -> Brand:
    """Return which server it is by the version it greets with."""
    return "mariadb" if "mariadb" in version.lower() else "mysql"
