"""What the adapters of mysqlclient and mysql-connector-python share: sessions are watched, and made as good as new.

Why: both drivers do their own I/O, a statement at a time, and tell the server's status word if they are asked the right
way.  What follows from it is the same for both: which session is clean, when a ROLLBACK is enough, what a reset forgets
and in which order it is given back.  How each is asked is in its own module, behind the few methods of
:class:`WatchedDriver` that are abstract.

Rules:
- Clean is proved or it is dirt (see ``_session.py``).  A connection that cannot be watched is reset at every return;
  where no reset is to be had it is closed instead.
- Our own statements are never judged, and go out together: one write, one wait, where the connection allows several
  statements in one.
- What a reset forgets is asked of the server, not guessed from settings: the session that a dial made is the model.
- A call into a driver between two borrowers has a deadline: the descriptor is shut down when it has passed.

It must not know how a driver sends anything.
"""

from __future__ import annotations

import abc
import itertools
import logging
import time
import types
from _thread import get_ident
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from . import faults
from ._model_session import (
    ASK_SPARED,
    Abilities,
    Facts,
    abilities_of,
    as_text,
    identifier,
    in_one,
    is_on,
    quoted,
    split,
)
from ._session import (
    AUTOCOMMIT,
    FAREWELL_S,
    IN_TRANSACTION,
    UNKNOWN_VARIABLE,
    UTF8,
    Session,
    Way,
    speaks_of_charset,
)
from ._watchdog import has_news, unpatched_poll, wait_for_news
from .dbapi import DbapiDriver
from .settings import OnConnect, Reset

logger = logging.getLogger("millpond")

FACTS_S: Final = 60.0  # facts about a server are asked again when they are older
RESET_S: Final = 5.0  # a reset that is answered at return
DRAIN_S: Final = 0.02  # what is left of a reply is read if it is there already,
DRAINED_ROWS_MAX: Final = 100  # and short; a longer one costs the connection
USER_TIMEOUT_S: Final = 60.0  # data that the peer has not confirmed for so long means that it is gone
_numbers = itertools.count(1)


class WatchedDriver(DbapiDriver):
    """Adapter for a driver of the MySQL family that does its own I/O.

    Args: as for :class:`~millpond.drivers.dbapi.DbapiDriver`; ``time_zone`` in *connect_args* sets the session's.
    """

    def __init__(
        self,
        source: types.ModuleType | Callable[..., Any] | None = None,
        *,
        connect_args: Mapping[str, Any] | None = None,
        reset: Reset = "auto",
        on_connect: OnConnect = None,
        described: str = "",
    ) -> None:
        super().__init__(source, connect_args=connect_args, reset=reset, on_connect=on_connect, described=described)
        self.module = self.import_module()
        self._dials = isinstance(self._given, types.ModuleType)
        self._time_zone: str | None = self._connect_args.pop("time_zone", None) if self._dials else None
        self._init_command: Any = self._connect_args.get("init_command")
        self._facts: Facts | None = None
        self._tracking_works = True
        self._took_writes = False  # a server that this adapter has been on
        self._chains = False  # a ROLLBACK was seen to begin the next transaction: the server's completion_type
        self._new_poll = unpatched_poll()
        if self._reset == "auto":
            self.is_clean = self._is_clean
        if self._new_poll is not None:  # nor could it be told whether an answer has come
            self.is_readable = self._is_readable
            if self._reset in ("auto", "always"):
                self.send_reset = self._send_reset

    # -- how this driver is asked, in its own module -----------------------------------------------------------------
    @abc.abstractmethod
    def watch(self, conn: Any) -> Session | None:
        """Make a connection be watched; None if it cannot be."""

    @abc.abstractmethod
    def ask(self, conn: Any, statements: Sequence[str]) -> list[list[Any]]:
        """Run statements of our own, in one wait where it can be, and return the rows of each reply."""

    @abc.abstractmethod
    def status_of(self, conn: Any) -> int:
        """Return the status word of the last reply; what is not told is assumed to be open and dirty."""

    def tells(self, conn: Any) -> bool:
        """Say whether the status word is the server's, and not an assumption."""
        return True

    @abc.abstractmethod
    def version_of(self, conn: Any) -> str:
        """Return what the server called itself when it greeted."""

    @abc.abstractmethod
    def thread_of(self, conn: Any) -> int:
        """Return the number of the connection, as the server that greeted told it."""

    @abc.abstractmethod
    def reset_link(self, conn: Any) -> bool:
        """Reset the session by the driver's own means; False if there are none."""

    def link_reset(self) -> str:
        """Return what :meth:`reset_link` does, for people."""
        return Way.RESET.value

    @abc.abstractmethod
    def drain(self, conn: Any) -> bool:
        """Read to its end what is left of a reply and is short; False if more is left."""

    @abc.abstractmethod
    def is_unread(self, conn: Any) -> bool:
        """Say whether a part of a reply is left, without I/O."""

    @abc.abstractmethod
    def look_at(self, conn: Any) -> Any:
        """Return the driver object's own settings, which a borrower can change without a word to the server."""

    @abc.abstractmethod
    def look_as(self, conn: Any, looks: Any) -> None:
        """Give the driver object the settings that it had when it was new."""

    @abc.abstractmethod
    def descriptor(self, conn: Any) -> int | None:
        """Return the descriptor of a connection that nobody is using now."""

    @abc.abstractmethod
    def is_closed(self, conn: Any) -> bool:
        """Say whether a connection without a descriptor was closed; False where that cannot be told."""

    def last_words(self, conn: Any) -> None:
        """Say goodbye and close."""
        conn.close()

    # -- a new connection ----------------------------------------------------------------------------------------------
    def set_up(self, conn: Any, until: float) -> None:
        """Have a new connection watched and its session set up, in one wait where the driver allows it."""
        session = self.watch(conn)
        with self.bounded(conn, until) as guard:
            guard.keep_alive(USER_TIMEOUT_S)
            abilities = abilities_of(self.version_of(conn))
            known = self._facts if self._dials else None
            if known is not None and time.monotonic() - known.read_at > FACTS_S:
                known = None
            statements = () if callable(self._on_connect) or self._on_connect is None else self._on_connect
            facts = self._furnish(conn, session, abilities, known, statements)
            conn.__dict__["_millpond_facts"] = facts
            if callable(self._on_connect):
                self._on_connect(conn)
                self._read_what_was_left(conn, session)
            if session is not None:
                session.recoded = session.recoded or any(map(speaks_of_charset, statements))
                session.holder = 0
            if self.status_of(conn) & IN_TRANSACTION and self._on_connect is not None:
                conn.commit()  # what somebody's statements began is theirs to keep
        if session is None:
            self.is_clean = None  # cannot tell: every return is cleaned
        else:
            self._begin(conn, session, abilities, facts)
        if self.fileno(conn) is None:
            self.is_readable = None  # nothing to poll: a check is a ping

    def _read_what_was_left(self, conn: Any, session: Session | None) -> None:
        """Read what the caller's ``on_connect`` left unread: it would be the first borrower's error."""
        if session is not None and self.is_unread(conn):
            self.drain(conn)

    def _furnish(
        self, conn: Any, session: Session | None, abilities: Abilities, facts: Facts | None, more: Sequence[str]
    ) -> Facts:
        """Set what a new session needs, and ask what is to be known about it."""
        tracking = session is not None and abilities.tracking and self._tracking_works
        number = next(_numbers)
        asked = [] if facts is not None else [f"{abilities.question}, {number}"]
        statements = [*in_one((*self.left_to_say(conn), *self.setting(tracking=tracking))), *asked, *more]
        try:
            replies = self.ask(conn, statements) if statements else []
        except Exception as error:
            if not tracking or faults.number_of(error) != UNKNOWN_VARIABLE:
                raise
            self._tracking_works = False
            return self._furnish(conn, session, abilities, facts, more)
        if session is not None:
            session.tracked = tracking
        if facts is None:
            (told,) = (rows[0] for rows in replies if rows and as_text(rows[0][-1]) == str(number))
            facts = self._learn(conn, abilities, told)
            if self._dials:
                self._facts = facts
        return facts

    def left_to_say(self, conn: Any) -> list[str]:
        """Return the driver's own statements for a new session, where it was kept from sending them itself."""
        return []

    def setting(self, *, tracking: bool) -> list[str]:
        """Return the statement that sets a new session up, or none."""
        parts = [*(["session_track_state_change = 1"] if tracking else []), *self.own_settings()]
        return [f"SET {', '.join(parts)}"] if parts else []

    def own_settings(self) -> list[str]:
        """Return what is to be set besides."""
        return [] if self._time_zone is None else [f"time_zone = {quoted(self._time_zone)}"]

    def _learn(self, conn: Any, abilities: Abilities, row: Sequence[Any]) -> Facts:
        """Make the model session out of what the server told."""
        facts = abilities.facts_in(row, self.thread_of(conn))
        facts.read_at = time.monotonic()
        self._took_writes = self._took_writes or facts.takes_writes
        if facts.init_connect and as_text(self.ask(conn, [ASK_SPARED])[0][0][0]) == "0":
            facts.restoring = (*split(facts.init_connect), *facts.restoring)
        return facts

    def _begin(self, conn: Any, session: Session, abilities: Abilities, facts: Facts) -> None:
        """Let the watching begin: from here on the session is as good as new until something is seen."""
        session.brand = abilities.brand
        session.utf8 = facts.charset in UTF8
        session.take_in_set_up()
        session.way = Way.RESET if facts.direct else Way.ROLLBACK
        session.looks = self.look_at(conn)
        session.renew(self._settled_status(conn))

    def _settled_status(self, conn: Any) -> int:
        """Return the status word after a reply of ours: where none is told, its OK has left no transaction open."""
        return self.status_of(conn) & (~0 if self.tells(conn) else ~IN_TRANSACTION)

    # -- between two borrowers -----------------------------------------------------------------------------------------
    @staticmethod
    def session(conn: Any) -> Session | None:
        """Return what is known of the session; None if it is not watched."""
        found: Session | None = conn.__dict__.get("_millpond")
        return found

    @staticmethod
    def facts(conn: Any) -> Facts | None:
        """Return the model of its session."""
        found: Facts | None = conn.__dict__.get("_millpond_facts")
        return found

    def _is_clean(self, conn: Any) -> bool:
        values = conn.__dict__
        session: Session | None = values.get("_millpond")
        if session is None or self.is_unread(conn):
            return False
        return not session.dirt and not session.holder and not session.status & IN_TRANSACTION and self._is_as_new(conn)

    def _is_as_new(self, conn: Any) -> bool:
        """Say whether autocommit and the driver object's settings are as when it was new."""
        values = conn.__dict__
        session: Session = values["_millpond"]
        facts: Facts = values["_millpond_facts"]
        return bool(session.status & AUTOCOMMIT) == facts.autocommit and self.looks_like(conn, session.looks)

    def looks_like(self, conn: Any, looks: Any) -> bool:
        """Say whether the driver object's settings are these."""
        return bool(self.look_at(conn) == looks)

    def clean(self, conn: Any, until: float) -> bool:
        """Make the session as good as new by *until*, by as little as will do."""
        session = self.session(conn)
        if self._reset == "auto" and self._is_clean(conn):
            return True
        with self.bounded(conn, until):
            if self._reset == "rollback" or (session is not None and session.way is Way.ROLLBACK):
                conn.rollback()
                if session is not None:
                    session.renew(self.status_of(conn))
                return True
            if session is not None and self._reset == "auto" and self._needs_rollback_only(conn, session):
                self.ask(conn, ["ROLLBACK"])
                return self._rolled_back(conn, session)
            return self._renew(conn, session)

    def _needs_rollback_only(self, conn: Any, session: Session) -> bool:
        """Say whether all that is left is an open transaction."""
        session.owed = int(self.is_unread(conn))
        open_only = not session.dirt and not session.is_hopeless and not session.holder
        return open_only and not self._chains and bool(session.status & IN_TRANSACTION) and self._is_as_new(conn)

    def _rolled_back(self, conn: Any, session: Session) -> bool:
        """Take in the answer to a ROLLBACK: as good as new?"""
        status = self._settled_status(conn)
        if status & IN_TRANSACTION:
            self._chains = True
            return False
        session.renew(status)
        return True

    def _renew(self, conn: Any, session: Session | None) -> bool:
        """Reset the session, and give it back what that forgot."""
        facts = self.facts(conn)
        if facts is None or self._is_hopeless(conn, session):
            return False
        self.tell_of_xa(conn, session)
        if not self.reset_link(conn):
            return False
        self.look_as(conn, None if session is None else session.looks)
        replies = self.ask(conn, self._restoring(conn, session, facts))
        return self._restored(conn, session, facts, replies)

    def tell_of_xa(self, conn: Any, session: Session | None) -> None:
        """Raise the server's error where a transaction was prepared by XA: a ROLLBACK is refused there."""
        if session is not None and self._may_be_prepared(conn, session):
            self.ask(conn, ["ROLLBACK"])

    def _may_be_prepared(self, conn: Any, session: Session) -> bool:
        """Say whether a procedure may have prepared a transaction by XA, which MariaDB's reset leaves."""
        session.status = self.status_of(conn)
        return session.may_be_prepared and not session.owed

    def _is_hopeless(self, conn: Any, session: Session | None) -> bool:
        """Say whether nothing makes the session as good as new; what is left unread of a reply is owed."""
        if session is None:
            return False
        session.owed = int(self.is_unread(conn))
        return session.is_hopeless

    def _restoring(self, conn: Any, session: Session | None, facts: Facts) -> list[str]:
        """Return the statements that give a session back what a reset forgot; the first asks what it kept.

        The number in it comes back with the answer: proof that it is the answer to this, and not to something before.
        """
        number = conn.__dict__["_millpond_asked"] = next(_numbers)
        statements = [f"SELECT DATABASE(), {number}", *facts.restoring]
        statements += self.setting(tracking=session is not None and session.tracked)
        statements += [facts.role] if facts.role is not None else []
        statements += [f"USE {identifier(facts.schema)}"] if facts.schema is not None else []
        if isinstance(self._init_command, str):
            statements.append(self._init_command)
        if self._on_connect is not None and not callable(self._on_connect):
            statements += self._on_connect
        return statements

    def _restored(self, conn: Any, session: Session | None, facts: Facts, replies: list[list[Any]]) -> bool:
        """Take in the answers to :meth:`_restoring`: as good as new?"""
        ((schema, number),) = replies[0]
        if as_text(number) != str(conn.__dict__["_millpond_asked"]):
            return False
        if facts.schema is None and schema is not None:  # there is no way back to none
            return False
        if callable(self._on_connect):
            self._on_connect(conn)
            self._read_what_was_left(conn, session)
        if self.status_of(conn) & IN_TRANSACTION and self._on_connect is not None:
            conn.commit()
        if session is not None:
            session.holder = 0
            session.renew(self._settled_status(conn))
        return True

    def _send_reset(self, conn: Any) -> bool | None:
        """Clean now; an adapter that can send without waiting does that instead."""
        return self.reset(conn, time.monotonic() + RESET_S)

    def collect(self, conn: Any, until: float) -> bool | None:
        """Read the answer to what was sent, if it has come by *until*, and look whether the link is still there."""
        fd = self.fileno(conn)
        if fd is None or self._new_poll is None:
            return False
        if not self.is_buffered(conn) and not wait_for_news(fd, until, self._new_poll):
            return None
        try:
            with self.bounded(conn, max(until, time.monotonic() + RESET_S)):
                good = self.read_answers(conn)
        except Exception as error:  # noqa: BLE001  whatever it is, the session is not as good as new
            logger.debug("a reset was not answered as it should be, and its connection is closed: %r", error)
            return False
        return good and not self._is_readable(conn)

    @abc.abstractmethod
    def read_answers(self, conn: Any) -> bool:
        """Read the answers to what :meth:`send_reset` sent: as good as new?"""

    def is_buffered(self, conn: Any) -> bool:
        """Say whether something was read from the descriptor and not handed on."""
        return False

    # -- alive, and time -----------------------------------------------------------------------------------------------
    def _is_readable(self, conn: Any) -> bool:
        """Poll the descriptor, and look for what TLS has read and not handed on: an idle server says nothing."""
        fd = self.fileno(conn)
        if fd is None or self._new_poll is None:
            return self.is_closed(conn)
        return has_news(conn.__dict__, fd, self._new_poll) or self.is_buffered(conn)

    def is_alive(self, conn: Any, until: float) -> bool:
        """Ping by *until*, without reconnecting."""
        if self.in_flight(conn):
            return False
        with self.bounded(conn, until) as guard:
            alive = super().is_alive(conn, until)
        session = self.session(conn)
        if session is not None:
            session.holder = 0
        return alive and not guard.fired

    def fileno(self, conn: Any) -> int | None:
        """Return the socket's descriptor; the last known one while a call of its holder is under way."""
        session = self.session(conn)
        if session is not None and session.holder and session.holder != get_ident():
            known: int | None = conn.__dict__.get("_millpond_fd")
            return known
        fd = self.descriptor(conn)
        conn.__dict__["_millpond_fd"] = fd
        return fd

    def in_flight(self, conn: Any) -> bool | None:
        """Say whether a part of a reply is left that is not short; what is short is read."""
        session = self.session(conn)
        if session is None:
            return None
        if session.holder and session.holder != get_ident():
            return True
        if not self.is_unread(conn):
            return False
        try:
            with self.bounded(conn, time.monotonic() + DRAIN_S) as guard:
                drained = self.drain(conn)
        except Exception as error:  # noqa: BLE001  whatever it is, the reply was not read to its end
            logger.debug("a reply that was left unread could not be read to its end: %r", error)
            return True
        return guard.fired or not drained

    def uncommitted(self, conn: Any) -> bool:
        """Say whether the last reply told of an open transaction in which something was written."""
        session = self.session(conn)
        return session is not None and session.uncommitted

    def is_broken(self, conn: Any) -> bool:
        """Say whether the link was seen to break while it was used."""
        session = self.session(conn)
        return session is not None and session.lost

    def role_suspect(self, conn: Any) -> bool:
        """Say whether an error told that the server may have become read-only."""
        session = self.session(conn)
        return session is not None and session.role_suspect

    def has_lost_role(self, conn: Any, until: float) -> bool:
        """Ask whether the server takes no writes now, where this adapter has been on one that did."""
        try:
            with self.bounded(conn, until):
                found = is_on(self.ask(conn, ["SELECT @@global.read_only"])[0][0][0])
        except Exception as error:  # noqa: BLE001  it has not answered: that is no proof
            logger.debug("a server was asked for its role and has not answered: %r", error)
            return False
        facts = self._facts
        if facts is not None:
            facts.read_at = float("-inf")  # the next dial asks anew
        return found and self._took_writes

    def is_harmless(self, conn: Any, text: str) -> bool:
        """Say whether a statement is proved to leave nothing behind, whatever literals stand for its places."""
        session = self.session(conn)
        return session is not None and session.is_harmless(text.encode("utf-8", "surrogateescape"))

    def reset_way(self) -> str:
        """Return how sessions are made as good as new, as far as this is known yet; for people."""
        if callable(self._reset) or self._reset in ("none", "rollback"):
            return ""
        facts = self._facts
        if facts is None:
            return ""
        if not facts.direct:
            return Way.ROLLBACK.value
        return self.link_reset() + ("" if self._tracking_works else ", after every write: changes are not told")

    def close(self, conn: Any) -> None:
        """Say goodbye without waiting for anything; a reply that was left unread is not read."""
        try:
            session = self.session(conn)
            if session is not None and (session.holder or self.is_unread(conn)):
                self.cut(conn)
            with self.bounded(conn, time.monotonic() + FAREWELL_S):
                self.last_words(conn)
        except Exception as error:  # noqa: BLE001  it is being given up; that it was dead is no news
            logger.debug("closing a connection failed: %r", error)
