"""How a session is set up, and made as good as new: what is sent, in which order, and how the answers are read.

Why: COM_RESET_CONNECTION forgets more than it should (the adapter's own settings, the server's ``init_connect``) and
less (the role, on both servers; the schema).  What a new connection would have is therefore written down here, once,
and used twice: right after the handshake, and behind each reset.  See docs/adr/007-what-a-reset-restores.md.

Rules:
- One write and one wait, for both.  Nothing sent depends on an answer, but for the first connection's questions.
- Any step that is answered by an error costs the connection; nobody gets a session that is nearly right.
- What is learned of a server is asked anew at a dial when it is a minute old: servers change behind their addresses.
- What has several steps is told as a generator of commands that is sent their replies: threads and tasks hold the same.

It must not decide when, and it must not poll or wait without a deadline: that is the adapter's.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from typing import Any, Final, TypeAlias, TypeVar

from . import _model_session
from ._model_session import as_text, is_on, set_role, split
from ._session import (
    COM_INIT_DB,
    COM_QUERY,
    COM_RESET_CONNECTION,
    IN_TRANSACTION,
    UNKNOWN_VARIABLE,
    UTF8,
    Session,
    Way,
    brand_of,
    packet,
    speaks_of_charset,
)

T = TypeVar("T")
Steps: TypeAlias = "Generator[Sequence[bytes], Sequence[Any], T]"  # commands to send, and the replies to them

CLIENT_SESSION_TRACK: Final = 1 << 23
IN_XA: Final = 1399  # ER_XAER_RMFAIL, which is not about a reset
UNANSWERED_S: Final = 1.0  # a reset that was given up after so long was not answered
THREAD_ID_MASK: Final = 0xFFFF_FFFF  # a greeting has room for four bytes of it

ROLLBACK: Final = packet(COM_QUERY, b"ROLLBACK")
COMMIT: Final = packet(COM_QUERY, b"COMMIT")
ASK_SCHEMA: Final = packet(COM_QUERY, b"SELECT DATABASE()")
ASK_FACTS: Final = b"SELECT @@init_connect, @@global.read_only, CONNECTION_ID(), @@max_allowed_packet"
ASK_ROLE: Final = b"SELECT CURRENT_ROLE()"
ASK_SPARED: Final = _model_session.ASK_SPARED.encode()
ASK_READ_ONLY: Final = b"SELECT @@global.read_only"
ASK_VARIABLES: Final = b"SHOW SESSION VARIABLES"
# They differ from statement to statement, whatever anybody sets.
RESTLESS: Final = frozenset(
    {"timestamp", "rand_seed1", "rand_seed2", "last_insert_id", "identity", "insert_id", "pseudo_thread_id"}
    | {"error_count", "warning_count", "last_gtid", "in_transaction", "statement_id", "session_track_state_change"}
)


class Facts:
    """What a server gives each new session of a user, and a reset does not give back.

    Attributes:
        read_at: when this was asked.
        init_connect: the server's own statements for new sessions; none for a user whom the server spares them.
        role: what makes the role be as at connect; None where there are no roles.
        way: how sessions are made as good as new here.
        packet_max: the bytes of a statement that the server refuses, and any that has more.
    """

    __slots__ = ("init_connect", "packet_max", "read_at", "role", "way")

    def __init__(self, read_at: float) -> None:
        self.read_at = read_at
        self.init_connect: tuple[bytes, ...] = ()
        self.role: bytes | None = None
        self.way = Way.RESET
        self.packet_max = float("inf")


class Plan:
    """How one adapter's sessions are set up, and made as good as new.

    Args:
        time_zone: the session's, or None for the server's.
        statements: run for each new session, and again after each reset.
        ahead: commands may be written without waiting for the answer to the one before.
        clock: seconds; facts are asked anew when they are older than ``FACTS_S``.

    Attributes:
        was_writable: this adapter has been on a server that took writes.
        told: what makers of connections set can be read off their attributes; None until it was tried.
        tracking_works: no server has refused to tell of changed state.
        tracks: the last server that was met tells of it.
        proved: some reset has been answered as it should be since the facts were asked.
    """

    FACTS_S: Final = 60.0

    def __init__(
        self, *, time_zone: str | None, statements: Sequence[str], ahead: bool, clock: Callable[[], float]
    ) -> None:
        self.time_zone = time_zone
        self.statements = tuple(statements)
        self.ahead = ahead
        self.clock = clock
        self.facts: Facts | None = None
        self.was_writable = False
        self.told: bool | None = None
        self.tracking_works = True
        self.tracks = False
        self.known: tuple[Any, list[bytes]] = ((), [])  # the commands of the last reset, and what they follow from
        self.proved = False
        self.chains = False  # a ROLLBACK was seen to begin the next transaction: the server's completion_type

    @property
    def facts_are_due(self) -> bool:
        """Say whether the facts are to be asked, for the first time or anew."""
        return self.facts is None or self.clock() - self.facts.read_at > self.FACTS_S

    # -- a new session ---------------------------------------------------------------------------------------------
    def set_up(self, conn: Any) -> None:
        """Set up the session of a connection that has just shaken hands."""
        self.hold(conn, self.setting_up(conn))

    def setting_up(self, conn: Any) -> Steps[None]:
        """Tell the steps of that."""
        session = self.introduce(conn)
        asks = self.facts_are_due
        tracking = self.tracking_works and bool(conn.client_flag & conn.server_capabilities & CLIENT_SESSION_TRACK)
        own = self.own_statements(conn, tracking=tracking)
        questions = (ASK_FACTS, ASK_ROLE) if asks else ()
        replies = list((yield queries((*own, *questions))))
        if tracking and is_error(replies[0], UNKNOWN_VARIABLE):
            self.tracking_works = tracking = False
            own = self.own_statements(conn, tracking=False)
            replies[: len(own)] = yield queries(own)
        raise_first(replies[: len(own)])
        if asks:
            yield from self.learning(conn, replies[-2], replies[-1])
        self.tracks = tracking
        yield from self.beginning(conn, session, tracking=tracking)

    def adopt(self, conn: Any, another: Callable[[], Any]) -> None:
        """Learn about the session of a connection that somebody else has made, and run the caller's statements in it.

        Args:
            conn: the connection.
            another: makes one more such connection that listens, to try a reset on; None if that cannot be had.
        """
        session = self.introduce(conn)
        if self.facts_are_due:
            self.hold(conn, self.learning(conn, *self.converse(conn, queries([ASK_FACTS, ASK_ROLE]))))
            if self.told is None:
                spare = another()
                self.told = spare is not None and self.is_told_by_attributes(spare)
            if self.facts is not None and self.facts.way is Way.RESET and not self.told:
                self.facts.way = Way.RENEWAL
        raise_first(self.converse(conn, queries([text.encode(conn.encoding) for text in self.statements])))
        self.begin(conn, session, tracking=False)

    def is_told_by_attributes(self, conn: Any) -> bool:
        """Try whether a reset brings back all that a connection's maker has set; *conn* is of no use afterwards."""
        session = self.introduce(conn)
        steps = [packet(COM_QUERY, ASK_VARIABLES), *self.restoring(conn, session), packet(COM_QUERY, ASK_VARIABLES)]
        before, *answers, after = self.converse(conn, steps)
        restored = not any(isinstance(answer, Exception) for answer in answers)
        return restored and variables(before) == variables(after)

    def introduce(self, conn: Any) -> Session:
        """Note what a connection tells of itself."""
        session: Session = conn._millpond  # noqa: SLF001  one body: see _pymysql_session
        session.brand = brand_of(conn.server_version)
        own = (*self.statements, conn.init_command)
        session.utf8 = conn.charset in UTF8 and not any(speaks_of_charset(str(text)) for text in own)
        return session

    def begin(self, conn: Any, session: Session, *, tracking: bool) -> None:
        """Take the session as it is for a new one."""
        self.hold(conn, self.beginning(conn, session, tracking=tracking))

    def beginning(self, conn: Any, session: Session, *, tracking: bool) -> Steps[None]:
        """Tell the steps of that."""
        if conn.server_status & IN_TRANSACTION:  # what somebody's statements began is theirs to keep
            raise_first((yield [COMMIT]))
        self._begun(session, conn.server_status, tracking=tracking)

    def _begun(self, session: Session, status: int, *, tracking: bool) -> None:
        session.way = self.facts.way if self.facts is not None else Way.RENEWAL
        session.tracked = tracking and session.way is not Way.ROLLBACK
        session.renew(status)

    def own_statements(self, conn: Any, *, tracking: bool) -> list[bytes]:
        """Return what makes a session of this adapter out of the server's own: one SET, and the caller's statements."""
        more = [conn.init_command] if conn.init_command is not None else []
        more += self.statements
        return [self.set_statement(conn, tracking=tracking), *(text.encode(conn.encoding) for text in more)]

    def set_statement(self, conn: Any, *, tracking: bool) -> bytes:
        """Return the one SET with all settings of this adapter."""
        parts = [f"NAMES {conn.charset} COLLATE {conn.collation}" if conn.collation else f"NAMES {conn.charset}"]
        if conn.autocommit_mode is not None:
            parts.append(f"autocommit = {int(bool(conn.autocommit_mode))}")
        if conn.sql_mode is not None:
            parts.append(f"sql_mode = {conn.escape(conn.sql_mode)}")
        if self.time_zone is not None:
            parts.append(f"time_zone = {conn.escape(self.time_zone)}")
        if tracking:
            parts.append("session_track_state_change = 1")
        return f"SET {', '.join(parts)}".encode(conn.encoding)

    # -- what the server is ----------------------------------------------------------------------------------------
    def learning(self, conn: Any, about: Any, role: Any) -> Steps[None]:
        """Read the facts out of the two replies; a server that does not know about roles has none."""
        facts = Facts(self.clock())
        self.proved = False
        if isinstance(about, Exception):  # nothing is known of this server
            facts.way = Way.RENEWAL
            self.facts = facts
            return
        init_connect, read_only, thread, packet_max = about.rows[0]
        if packet_max is not None:
            facts.packet_max = int(packet_max)
        self.was_writable = self.was_writable or not is_on(read_only)
        if int(thread) & THREAD_ID_MASK != conn.server_thread_id[0]:
            facts.way = Way.ROLLBACK  # who greeted is not who answers
        if init_connect and not is_spared((yield queries([ASK_SPARED]))):
            facts.init_connect = tuple(part.encode(conn.encoding) for part in split(as_text(init_connect)))
        if not isinstance(role, Exception):
            active = as_text(role.rows[0][0] or "NONE")
            facts.role = set_role(active, brand_of(conn.server_version)).encode(conn.encoding)
        self.facts = facts

    def is_read_only(self, conn: Any) -> bool:
        """Ask whether the server takes no writes; False where this adapter has never been on one that did."""
        return self.hold(conn, self.asking_role())

    def asking_role(self) -> Steps[bool]:
        """Tell the steps of that."""
        (reply,) = yield queries([ASK_READ_ONLY])
        if isinstance(reply, Exception):
            raise reply
        found = is_on(reply.rows[0][0])
        if self.facts is not None:
            self.facts.read_at = float("-inf")  # the next dial asks anew
        return found and self.was_writable

    # -- as good as new --------------------------------------------------------------------------------------------
    def commands(self, conn: Any) -> list[bytes]:
        """Return what makes a session as good as new; the first is the reset itself."""
        session: Session = conn._millpond  # noqa: SLF001  one body: see _pymysql_session
        modes = (conn.autocommit_mode, conn.sql_mode, conn.init_command, conn.db)
        key = (session.tracked, self.facts, conn.charset, conn.collation, conn.encoding, *modes)
        known_key, commands = self.known  # in one look: others may be at it in other threads
        if known_key != key:
            own = self.own_statements(conn, tracking=session.tracked)
            steps = self.restoring(conn, session) + queries(own[1:])
            commands = steps if conn.db else [*steps, ASK_SCHEMA]
            self.known = (key, commands)
        return commands

    def restoring(self, conn: Any, session: Session) -> list[bytes]:
        """Return the reset, and what brings back all that it forgets but for the caller's statements."""
        facts = self.facts
        settings = packet(COM_QUERY, self.set_statement(conn, tracking=session.tracked))
        steps = [packet(COM_RESET_CONNECTION), settings]
        if facts is not None and facts.role is not None:
            steps.append(packet(COM_QUERY, facts.role))
        if conn.db:
            schema = conn.db.encode(conn.encoding) if isinstance(conn.db, str) else conn.db
            steps.append(packet(COM_INIT_DB, schema))
        if facts is not None and facts.init_connect:  # the server runs them first of all, and ours win
            steps += [*queries(facts.init_connect), settings]
        return steps

    def cleaning(
        self,
        conn: Any,
        session: Session,
        reset: object,
        *,
        is_clean: bool,
        keeps_looks: bool,
        restore: Callable[[], None] | None,
    ) -> list[bytes] | bool:
        """Return what makes a session as good as new; True if nothing is to be sent, False if nothing would help.

        Args:
            conn: the connection; it was not closed.
            session: its session.
            reset: "auto", "always" or "rollback".
            is_clean: it is proved to be as good as new.
            keeps_looks: nobody has changed the connection object.
            restore: undoes what was changed there, for what is sent follows from it; None if nothing was.
        """
        always = reset == "always"
        if session.is_hopeless:
            return False
        if is_clean and not always:
            return True
        if reset == "rollback" or session.way in (Way.DEAF, Way.ROLLBACK):
            return [ROLLBACK]
        if keeps_looks and not (always or session.dirt or self.chains):
            return [ROLLBACK]  # a transaction is all that was left
        if session.way is Way.RENEWAL:
            return False
        if restore is not None:
            restore()
        tells_of_xa = [ROLLBACK] if session.may_be_prepared else []
        return tells_of_xa + self.commands(conn)

    def is_restored(self, conn: Any, replies: Sequence[Any]) -> bool:
        """Judge the answers to :meth:`commands`, and begin the session anew; False if it has to be given up."""
        return self.hold(conn, self.judging(conn, replies))

    def begin_again(self, conn: Any, session: Session) -> bool:
        """Begin the session anew where every answer to :meth:`commands` was a plain OK; False: judge them instead."""
        was_reset = session.answers > 1  # one is that to a ROLLBACK
        if conn.server_status & IN_TRANSACTION or (was_reset and not conn.db):
            return False
        self.proved = self.proved or was_reset
        if self.facts is not None and session.way is self.facts.way:
            session.renew(conn.server_status)
        else:  # meanwhile the server has turned out to be another
            self._begun(session, conn.server_status, tracking=session.tracked)
        return True

    def judging(self, conn: Any, replies: Sequence[Any]) -> Steps[bool]:
        """Tell the steps of that."""
        session: Session = conn._millpond  # noqa: SLF001  one body: see _pymysql_session
        if len(replies) == 1:  # to a ROLLBACK
            if isinstance(replies[0], Exception):
                return False
            if conn.server_status & IN_TRANSACTION:
                self.chains = True
                return False
            session.renew(conn.server_status)
            return True
        if isinstance(replies[0], Exception) and not is_error(replies[0], IN_XA):
            self.reset_failed()
        if any(isinstance(reply, Exception) for reply in replies):
            return False
        self.proved = True
        if not conn.db and replies[-1].rows[0][0] is not None:
            return False  # its borrower chose a schema; there is no way back to none
        yield from self.beginning(conn, session, tracking=session.tracked)
        return True

    def reset_failed(self) -> None:
        """Take in that a reset was refused, or not answered: if none ever was here, there are to be no more."""
        if not self.proved and self.facts is not None:
            self.facts.way = Way.RENEWAL

    def given_up(self, session: Session) -> None:
        """Take in that a connection is closed: that it was drained before it could answer proves nothing."""
        is_overdue = self.clock() - session.sent_at > UNANSWERED_S
        if session.answers > 1 and (session.lost or is_overdue):
            self.reset_failed()

    def hold(self, conn: Any, steps: Steps[T]) -> T:
        """Send what the steps ask for, and tell them the replies."""
        try:
            commands = next(steps)
            while True:
                commands = steps.send(self.converse(conn, commands))
        except StopIteration as end:
            result: T = end.value
            return result

    def converse(self, conn: Any, commands: Sequence[bytes]) -> list[Any]:
        """Send commands and read their replies, each a result or the error that was answered."""
        if self.ahead:
            conn.write_all(commands)
            return [read_or_error(conn) for _ in commands]
        replies: list[Any] = []
        for command in commands:
            conn.write_all([command])
            replies.append(read_or_error(conn))
        return replies


def read_or_error(conn: Any) -> Any:
    """Return a reply, or the error that it was; a link that broke is raised."""
    from pymysql import err

    try:
        return conn.read_reply()
    except err.MySQLError as error:
        if conn._sock is None:  # noqa: SLF001  see _pymysql_session
            raise
        return error


def queries(texts: Sequence[bytes]) -> list[bytes]:
    """Return statements as commands."""
    return [packet(COM_QUERY, text) for text in texts]


def raise_first(replies: Sequence[Any]) -> None:
    """Raise the first error among replies."""
    for reply in replies:
        if isinstance(reply, Exception):
            raise reply


def is_error(reply: Any, number: int) -> bool:
    """Say whether a reply is the error of that number."""
    return isinstance(reply, Exception) and reply.args[:1] == (number,)


def is_spared(replies: Sequence[Any]) -> bool:
    """Say whether this user has a privilege that spares it ``init_connect``; where that was not told, it has."""
    (reply,) = replies
    return isinstance(reply, Exception) or bool(int(reply.rows[0][0]))


def variables(reply: Any) -> dict[str, str] | None:
    """Return the session variables that stay as they are until somebody sets them; None where they were not told."""
    if isinstance(reply, Exception):
        return None
    told = {as_text(row[0]): as_text(row[1]) for row in reply.rows}
    return {name: value for name, value in told.items() if name not in RESTLESS}
