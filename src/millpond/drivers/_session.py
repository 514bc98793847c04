"""What is known of one session without asking: was everything that went over its connection harmless?

Why: a pool that hands sessions on must know which of them are as good as new.  The server says most of it unasked (an
open transaction, changed session state, warnings: in the status words of its replies) and the statements say the rest
(:mod:`millpond._sql.cleanliness`).  This is where the two come together, for every driver of the MySQL family that can
be listened to.

Rules:
- Clean is proved: every statement since the session was new was proved harmless, every reply was read to its end, none
  was an error, none had a warning, none told of changed state.  Everything else is dirty, and dirt stays until a reset.
  See docs/adr/003-clean-is-proved.md.
- A transaction in which nothing was written is no dirt: a ROLLBACK ends it.
- A server that does not tell of changed state is not trusted with writes: a trigger may have changed it.
- A reply is owed until all is noted that it said: a borrower who is interrupted in between leaves no clean session.
- Only the borrower's thread writes here, or whoever makes the session as good as new between two borrowers.

It must not do I/O, and it must not know a driver.
"""

from __future__ import annotations

import enum
import functools
import re
import struct
import sys
import threading
from collections.abc import Callable, Sequence
from typing import Any, Final

from millpond._core.states import Fault
from millpond._sql.cleanliness import LENGTH_MAX, Brand, is_clean_statement, is_transaction_control
from millpond.errors import ConcurrentUse, joined

from . import faults
from .faults import number_of

IN_TRANSACTION: Final = 0x0001  # SERVER_STATUS_IN_TRANS
AUTOCOMMIT: Final = 0x0002  # SERVER_STATUS_AUTOCOMMIT
MORE_RESULTS: Final = 0x0008  # SERVER_MORE_RESULTS_EXISTS
NO_BACKSLASH_ESCAPES: Final = 0x0200  # SERVER_STATUS_NO_BACKSLASH_ESCAPES
STATE_CHANGED: Final = 0x4000  # SERVER_SESSION_STATE_CHANGED

COM_INIT_DB: Final = 0x02
COM_QUERY: Final = 0x03
COM_PING: Final = 0x0E
COM_RESET_CONNECTION: Final = 0x1F

CLIENT_SSL: Final = 1 << 11
MULTI_STATEMENTS: Final = 1 << 16  # CLIENT_MULTI_STATEMENTS
UNKNOWN_VARIABLE: Final = 1193  # ER_UNKNOWN_SYSTEM_VARIABLE
TLS_FAILED: Final = 2026  # CR_SSL_CONNECTION_ERROR: of a dial, and in some drivers of any link under TLS that breaks

UTF8: Final = frozenset({"utf8mb4", "utf8mb3", "utf8"})
TOO_LONG: Final = 1153  # ER_NET_PACKET_TOO_LARGE: more than max_allowed_packet
DEADLOCK: Final = 1213  # ER_LOCK_DEADLOCK: the server has rolled back all of the transaction
UNTOLD: Final = frozenset({2006, 2013, TLS_FAILED, 2055})  # of a client whose link broke, and that has not read why

CONNECTING: Final = "connecting"  # what is dirt of a session that is being opened
DRAINED_BYTES_MAX: Final = 64 * 1024  # of replies that were left unread; longer ones cost the connection
FAREWELL_S: Final = 0.5  # COM_QUIT is five bytes: they go at once, or the peer has stopped reading

JUDGED_LENGTH_MAX: Final = 512  # shorter texts are judged once, as long as they are among the last ``JUDGED_MAX``
JUDGED_MAX: Final = 512
CONTROL_LENGTH_MAX: Final = 128  # longer texts are not kept: they are no BEGIN, COMMIT or ROLLBACK

# What may stand before a statement; what is in a comment that begins with /*! or /*M! is run.
_COMMENT: Final = rb"/\*(?!M?!)[^*]*(?:\*(?!/)[^*]*)*\*/|#[^\n]*\n|--(?=\s)[^\n]*\n"
_BEFORE: Final = rb"[\s(]*(?:(?:" + _COMMENT + rb")[\s(]*)*"
_BEGIN: Final = rb"BEGIN(?!\s+NOT\b)"  # BEGIN NOT ATOMIC heads a block of statements, on MariaDB
# Statements that write nothing.  WITH may head an UPDATE or DELETE, and SET STATEMENT any statement.
_READS: Final = re.compile(
    rb"(?:SET STATEMENT max_statement_time=[0-9.]+ FOR )?" + _BEFORE + rb"(?:" + _BEGIN + rb"|SELECT|SHOW|EXPLAIN|DESC"
    rb"|DESCRIBE|VALUES|TABLE|START|COMMIT|ROLLBACK|SAVEPOINT|RELEASE|SET(?!\s+STATEMENT)|USE"
    rb"|WITH(?!.*\b(?:UPDATE|DELETE)\b))\b",
    re.IGNORECASE | re.DOTALL,
)
# One statement for certain, all of which is undone if it fails: no procedure, whose first half would stay.
_MAY_STAY: Final = re.compile(_BEFORE + rb"(?:CALL|EXECUTE|SET)\b", re.IGNORECASE)
# MariaDB marks SET STATEMENT by the state-changed bit, though it puts the variable back (seen on 10.11).
LIMITED_READ: Final = b"SET STATEMENT"
_LIMITED_READ: Final = re.compile(rb"SET STATEMENT max_statement_time=[0-9.]+ FOR SELECT\b", re.IGNORECASE)
_BEGINS: Final = re.compile(_BEFORE + rb"(?:" + _BEGIN + rb"|START)\b", re.IGNORECASE)
_MENTIONS_XA: Final = re.compile(rb"\bXA\b", re.IGNORECASE)
_NAMES_CHARSET: Final = re.compile(rb"\bNAMES\b|CHARACTER|CHARSET", re.IGNORECASE)

judged: Final = functools.lru_cache(JUDGED_MAX)(is_clean_statement)  # the texts of most programs come again and again


class Way(enum.Enum):
    """How a session that is not clean is made as good as new; the words are for people."""

    RESET = "COM_RESET_CONNECTION"
    RENEWAL = "ROLLBACK, or a new connection: COM_RESET_CONNECTION does not do here"
    OVERHEARD = "ROLLBACK at every return, or a new connection: this version of PyMySQL cannot be listened to"
    DEAF = "ROLLBACK at every return: the driver's connections cannot be listened to"
    ROLLBACK = "ROLLBACK at every return: a proxy stands between, and no word about sessions can be trusted"


def packet(command: int, payload: bytes = b"") -> bytes:
    """Return a command as it goes over the wire; payloads here are far below the 16 MiB of one packet."""
    return struct.pack("<iB", len(payload) + 1, command) + payload


class Session:
    """The knowledge about one session.

    Attributes:
        brand: which server it is; None trusts only what both have.
        utf8: its character set is one of UTF-8.
        tracked: the server tells of changed session state.
        way: how it is made as good as new.
        looks: the driver object's settings as they were when it was new.
        dirt: why it is not as good as new; empty while it is.
        owed: replies of which the last packet was not seen yet.
        status: the last status word.
        text: what the next reply is about, if it is short.
        limited: it is about a read with a limit on its time, which MariaDB calls a change of state.
        wrote: something may have been written since the open transaction began.
        trying: by the statement that is at work, and by none before it; if it fails, nothing was.
        recoded: a statement spoke of a character set.
        unsure: a statement failed, and its answer does not tell whether it has left a transaction.
        pending: a ROLLBACK was sent, and its answer has not been read.
        answers: how many replies a reset that was sent will have.
        oks: how many of these were read, and were OK.
        sent_at: when one of these two was sent.
        holder: the thread that waits for a reply; 0 for none.
        beyond_reset: what no reset restores was touched (XA, the link itself): it costs the connection.
        lost: the link was seen to break.
        role_suspect: an error told that the server may have become read-only.
    """

    __slots__ = (
        "answers",
        "beyond_reset",
        "brand",
        "dirt",
        "holder",
        "limited",
        "looks",
        "lost",
        "oks",
        "owed",
        "pending",
        "recoded",
        "role_suspect",
        "sent_at",
        "status",
        "text",
        "tracked",
        "trying",
        "unsure",
        "utf8",
        "way",
        "wrote",
    )

    def __init__(self) -> None:
        self.brand: Brand | None = None
        self.utf8 = False
        self.tracked = False
        self.way = Way.RESET
        self.looks: Any = None
        self.holder = 0
        self.beyond_reset = False
        self.lost = False
        self.sent_at = 0.0
        self.renew(0)
        self.dirt = "not set up"

    def renew(self, status: int) -> None:
        """Begin anew: from now on it is as good as new until something is seen."""
        self.dirt = self.way.value if self.way in (Way.DEAF, Way.ROLLBACK) else ""
        self.owed = 0
        self.answers = self.oks = 0
        self.status = status
        self.wrote = self.trying = self.unsure = self.recoded = False
        self.pending = False
        self.role_suspect = False
        self.text: bytes = b""
        self.limited = False

    # -- what is sent
    def judge(self, command: int, text: bytes) -> None:
        """Judge a command that is about to be sent."""
        self.owed += 1
        self.weigh(command, text)

    def weigh(self, command: int, text: bytes) -> None:
        """Judge a command whose reply is owed already: it may be on its way, while the server is at work."""
        if command == COM_QUERY:
            if not _READS.match(text):
                self.trying = not self.wrote and b";" not in text and not _MAY_STAY.match(text)
                self.wrote = True
                if not self.tracked:
                    self.dirt = self.dirt or "a write, and the server does not tell what triggers changed"
            elif self.wrote and _BEGINS.match(text):  # it commits what was written before
                self.wrote = False
            if (self.dirt and not self.pending) or not self.is_harmless(text):
                self.dirt = self.dirt or "a statement that is not proved harmless"
                if _MENTIONS_XA.search(text, 0, LENGTH_MAX):
                    self.beyond_reset = True
                if speaks_of_charset(text):
                    self.recoded = True
        elif command != COM_PING:
            self.dirt = self.dirt or "a command other than a statement"

    def is_harmless(self, text: bytes) -> bool:
        """Say whether a statement is proved to leave nothing behind."""
        escapes = not self.status & NO_BACKSLASH_ESCAPES
        judge = judged if type(text) is bytes and len(text) <= JUDGED_LENGTH_MAX else is_clean_statement
        return judge(text, brand=self.brand, backslash_escapes=escapes, utf8=self.utf8)

    def sent(self, text: bytes) -> None:
        """Keep what the next reply is about; a longer text than any that matters is not kept alive."""
        self.text = text if len(text) <= CONTROL_LENGTH_MAX else b""
        self.limited = text.startswith(LIMITED_READ) and _LIMITED_READ.match(text) is not None

    # -- what is told
    def note(self, status: int, warnings: int) -> None:
        """Take in what the last packet of a result says."""
        self.status = status
        if not status & IN_TRANSACTION:
            self.wrote = False
        else:
            self.trying = False
        if status & STATE_CHANGED and not self.limited and not is_transaction_control(self.text):
            self.dirt = self.dirt or "changed session state"
        if warnings:  # MariaDB keeps them over a ROLLBACK for the next SHOW WARNINGS
            self.dirt = self.dirt or "warnings"
        if not status & MORE_RESULTS:
            self.owed -= 1

    def failed(self, error: BaseException, *, answered: bool) -> None:
        """Take in an error; an ERR packet carries no status, so nothing is known of what the statement left."""
        self.dirt = self.dirt or "an error"
        self.unsure = True
        fault = faults.classify(error)
        number = number_of(error)
        if self.trying or number == DEADLOCK:
            self.wrote = self.trying = False
        if number == TOO_LONG:
            self.beyond_reset = True  # the server closes the link, which says nothing of any other
        elif fault is Fault.GONE:
            self.lost = True
        elif fault is Fault.READ_ONLY:
            self.role_suspect = True
        if answered:  # it was the last packet of its reply
            self.owed -= 1

    # -- what follows
    def take_in_set_up(self) -> None:
        """Trust no text beyond ASCII if the caller's own set-up, which has just run, spoke of a character set."""
        self.utf8 = self.utf8 and not self.recoded

    @property
    def may_be_prepared(self) -> bool:
        """Say whether a procedure may have prepared a transaction by XA, which MariaDB's reset leaves.

        If it has, a ROLLBACK is refused.
        """
        return self.brand == "mariadb" and (self.unsure or bool(self.status & IN_TRANSACTION))

    @property
    def is_clean(self) -> bool:
        """Say whether it is proved to be as good as new, the driver object's settings aside."""
        return not self.dirt and not self.owed and not self.status & IN_TRANSACTION

    @property
    def is_hopeless(self) -> bool:
        """Say whether nothing makes it as good as new."""
        return self.lost or self.beyond_reset or self.owed > 0

    @property
    def needs_rollback_only(self) -> bool:
        """Say whether all that is left is an open transaction in which nothing was written."""
        return not self.dirt and not self.owed and bool(self.status & IN_TRANSACTION) and not self.wrote

    @property
    def uncommitted(self) -> bool:
        """Say whether writes would be lost by a rollback; over a broken link they are lost already, with an error."""
        return self.wrote and not self.lost and bool(self.status & IN_TRANSACTION)


def speaks_of_charset(text: str | bytes) -> bool:
    """Say whether a statement may choose a character set, which the driver would not hear of."""
    data = text if isinstance(text, bytes) else text.encode("utf-8", "replace")
    return _NAMES_CHARSET.search(data, 0, LENGTH_MAX) is not None


def mark_methods(mixin: Any, names: Sequence[str], attribute: str, *, beyond_reset: bool = False) -> None:
    """Have methods of the driver's connections noted as dirt when they are called.

    Args:
        mixin: the class that a driver's connections gain; it gets a method of each name, which does what the driver's
            does.
        names: of methods that send something and are no statement, or none that is judged.
        attribute: where such a connection has its :class:`Session`.
        beyond_reset: the connection is another one afterwards, or leads to another session.
    """

    def marking(name: str) -> Callable[..., Any]:
        def call(self: Any, *args: Any, **kwargs: Any) -> Any:
            session: Session = getattr(self, attribute)
            session.dirt = session.dirt or f"{name}() of the driver's connection"
            session.beyond_reset = session.beyond_reset or beyond_reset
            return getattr(super(mixin, self), name)(*args, **kwargs)  # pyright: ignore[reportUnknownArgumentType]  # a driver's

        call.__name__ = name
        call.__doc__ = f"Do what {name}() does, and note it."
        return call

    for name in names:
        setattr(mixin, name, marking(name))


def explained(error: BaseException, length: int, limit: float) -> BaseException:
    """Return what a server would have told of a statement that was too long for it, if that is why the link broke.

    It closes the link as soon as it has seen the length, and its error is lost if the client was still writing.
    """
    if length < limit or number_of(error) not in UNTOLD:
        return error
    text = (
        f"Got a packet bigger than 'max_allowed_packet' bytes: the statement has {length:,}, the server takes "
        f"{limit:,.0f}; it has closed the connection, and has not run the statement"
    )
    kind: Any = getattr(sys.modules[type(error).__module__], "OperationalError", type(error))
    told: BaseException = kind(msg=text, errno=TOO_LONG) if hasattr(error, "errno") else kind(TOO_LONG, text)
    told.__cause__ = error
    return told


def used_by_two(holder: int, me: int, kind: type[BaseException]) -> ConcurrentUse:
    """Return the error that names both threads."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    other, this = names.get(holder, f"thread {holder}"), names.get(me, f"thread {me}")
    return joined(ConcurrentUse, kind)(
        f"two threads used one connection at the same time: {other!r} waits for a reply on it, and {this!r} sent a "
        "command. Let each thread take its own connection from the pool."
    )


def brand_of(version: str) -> Brand:
    """Return which server it is by the version it greets with."""
    return "mariadb" if "mariadb" in version.lower() else "mysql"
