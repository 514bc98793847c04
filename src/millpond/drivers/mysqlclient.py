"""mysqlclient (``MySQLdb``), to the limit of what it and the C library under it can be asked and told.

What this adapter does better than ``MySQLdb.connect`` and any DB-API adapter:
- A session is proved clean by what was sent and by the server's status word, read out of the C library; a clean
  return sends nothing.  Without that word (MySQL's own client library tells none) a read costs a ROLLBACK, and
  everything else a reset.
- A poll of the descriptor tells a connection that the server has closed; check, reset and farewell have a deadline,
  kept by a watchdog that shuts the descriptor down.
- An unbuffered result that was not read to its end is never read in a destructor: its connection is closed first.

Rules: what is private (``_get_native_connection``, and the library behind it) is used where
``_mysqlclient_session.py`` has proved it, and nowhere else.  A dial is bounded by the library's own time-out, in whole
seconds: no descriptor is known before it is over.  See docs/adr/013-the-library-under-mysqlclient.md.
"""

from __future__ import annotations

import functools
import importlib
import time
import types
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Final

from millpond._core.states import Fault
from millpond._cursors import CursorClasses
from millpond.errors import DriverMissing, InvalidSetting
from millpond.url import MYSQL_OPTIONS, URL, Parser

from ._model_session import Abilities, Facts, together
from ._mysqlclient_session import LINK_ERRORS, LOOKS, Native, begin, native_of, quiet, worst_case
from ._session import (
    AUTOCOMMIT,
    CLIENT_SSL,
    IN_TRANSACTION,
    MORE_RESULTS,
    MULTI_STATEMENTS,
    TLS_FAILED,
    UTF8,
    Session,
    Way,
)
from ._watched import DRAINED_ROWS_MAX, RESET_S, WatchedDriver
from .base import LONGEST_S
from .faults import number_of
from .settings import OnConnect, Reset

BROKEN: Final = ("unexpected eof", "reset by peer", "broken pipe", "error in the", "not properly terminated")
MODES = {
    "disabled": "DISABLED",
    "preferred": "PREFERRED",
    "required": "REQUIRED",
    "verify-ca": "VERIFY_CA",
    "verify-identity": "VERIFY_IDENTITY",
}
TLS_FILES = {"ssl_ca": "ca", "ssl_cert": "cert", "ssl_key": "key"}
NOT_HERE = (
    "bind_address",
    "max_allowed_packet",
    "program_name",
    "ssl_key_password",
    "ssl_verify_cert",
    "ssl_verify_identity",
)


class MySQLClientDriver(WatchedDriver):
    """Adapter for mysqlclient 2.2 and later.

    Args: as for :class:`~millpond.drivers.dbapi.DbapiDriver`; ``connect_args`` are those of ``MySQLdb.connect``, and
        ``time_zone`` sets the session's.
    """

    name = "mysqlclient"
    capabilities: ClassVar[dict[str, str]] = {
        "deadline": "yes: check, reset and farewell to the millisecond, a dial to the next whole second",
        "alive": "poll of the descriptor; COM_PING under a deadline",
        "clean": "proved, by the statements and the status word (MariaDB Connector/C); else a reset at every return",
        "reset": "a ROLLBACK, sent and read later; or COM_RESET_CONNECTION, and one statement sent and read later",
        "in flight": "yes: an unbuffered result, or further results, not read to the end",
        "cut": "its descriptor is shut down",
        "errors": "by number",
        "private parts": "_mysql.connection, _get_native_connection(), and behind it mariadb_get_info and "
        "mysql_reset_connection",
    }
    options: ClassVar[Mapping[str, Parser]] = {
        name: read for name, read in MYSQL_OPTIONS.items() if name not in NOT_HERE
    }
    _native: Native | None = None

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
        # The driver sets it by a statement of its own; here it goes with ours.
        self._autocommit: Any = self._connect_args.get("autocommit", False) if self._dials else None
        self._kind: Any = None
        if self._dials:
            self._connect_args["autocommit"] = None
            self._kind = importlib.import_module("MySQLdb.connections").Connection
            self._connect = quiet(self._kind, self._raw) or self._connect

    def own_settings(self) -> list[str]:
        """Return what is to be set besides."""
        autocommit = [] if self._autocommit is None else [f"autocommit = {int(bool(self._autocommit))}"]
        return [*super().own_settings(), *autocommit]

    @classmethod
    def import_module(cls) -> types.ModuleType:
        """Import MySQLdb."""
        try:
            return importlib.import_module("MySQLdb")
        except ImportError as error:
            text = 'mysqlclient is not installed; install it with: pip install "millpond[mysqlclient]"'
            raise DriverMissing(text) from error

    @classmethod
    def arguments_of(cls, url: URL) -> dict[str, Any]:
        """Return the arguments of ``MySQLdb.connect``; time-outs are whole seconds there."""
        arguments = super().arguments_of(url)
        for name in ("connect_timeout", "read_timeout", "write_timeout"):
            if name in arguments:
                arguments[name] = max(1, round(arguments[name]))
        mode = arguments.pop("ssl", None)
        if arguments.pop("ssl_disabled", False):
            if mode not in (None, "disabled"):
                raise InvalidSetting("ssl", mode, "without ssl_disabled", "the two contradict each other")
            mode = "disabled"
        if mode is not None:
            arguments["ssl_mode"] = MODES[mode]
        files = {key: arguments.pop(name) for name, key in TLS_FILES.items() if name in arguments}
        return {**arguments, **({"ssl": files} if files else {})}

    def cursor_classes(self) -> CursorClasses:
        """Unbuffered cursors read from the connection by themselves; the others have their rows already."""
        cursors = importlib.import_module("MySQLdb.cursors")
        unbuffered: type[Any] = cursors.CursorUseResultMixIn
        return CursorClasses(sever=detach, tracked=lambda kind: issubclass(kind, unbuffered))

    def dial(self, arguments: dict[str, Any], until: float) -> Any:
        """Connect by the next whole second, and see that TLS is what was asked for."""
        if not self._dials:
            return super().dial(arguments, until)
        mode = arguments.get("ssl_mode")
        if mode == "PREFERRED" and self._is_mariadbs():
            arguments["ssl_mode"] = "REQUIRED"  # what that library takes for it: TLS where the server has it
        limit_s = arguments.pop("connect_timeout", None) or LONGEST_S
        arguments["connect_timeout"] = max(1, int(min(limit_s, until - time.monotonic())))
        conn = super().dial(arguments, until)
        conn.__class__ = self._kind  # from here on it sends what it is told to
        if (mode == "REQUIRED" or arguments.get("ssl") is True) and not conn.server_capabilities & CLIENT_SSL:
            conn.close()  # nothing tells before: MariaDB's library goes on without
            kind: Any = self.family("OperationalError") or ConnectionError
            raise kind(TLS_FAILED, "TLS is required, and this server has none; ssl=preferred would go on without")
        return conn

    @staticmethod
    def _is_mariadbs() -> bool:
        """Say whether the library is MariaDB's: its versions are 3.x, those of MySQL's began at 4."""
        return str(importlib.import_module("MySQLdb._mysql").get_client_info()).startswith("3.")

    # -- how it is asked
    def left_to_say(self, conn: Any) -> list[str]:
        """Return what the driver was kept from sending while it connected."""
        kept: list[str] = conn.__dict__.pop("_millpond_left_to_say", [])
        return kept

    def watch(self, conn: Any) -> Session | None:
        """Make a connection listen."""
        if self._native is None:
            self._native = self.find_native()
        return begin(conn, self._native)

    @staticmethod
    def find_native() -> Native | None:
        """Return the C library, if this build leads to it."""
        return native_of(importlib.import_module("MySQLdb._mysql"))

    def _begin(self, conn: Any, session: Session, abilities: Abilities, facts: Facts) -> None:
        super()._begin(conn, session, abilities, facts)
        values = conn.__dict__
        if values["_millpond_told"] and bool(self.status_of(conn) & AUTOCOMMIT) != bool(conn.get_autocommit()):
            values["_millpond_told"] = False  # it is not the word of this connection
            values["_millpond_status"] = functools.partial(worst_case, conn.get_autocommit)
        if not values["_millpond_told"]:
            session.tracked = False
        session.utf8 = session.utf8 and conn.character_set_name() in UTF8  # what the driver writes its texts in

    def ask(self, conn: Any, statements: Sequence[str]) -> list[list[Any]]:
        """Run statements of our own past what listens, several in one text where the connection allows it."""
        raw = self._raw
        replies: list[list[Any]] = []
        for text in together(statements, allowed=bool(conn.client_flag & MULTI_STATEMENTS)):
            raw.query(conn, text.encode(conn.encoding))
            replies.extend(read_replies(raw, conn))
        return replies

    @property
    def _raw(self) -> Any:
        """The class behind all connections, whose methods send and read without a word to us."""
        return importlib.import_module("MySQLdb._mysql").connection

    def status_of(self, conn: Any) -> int:
        """Return the status word."""
        read: Callable[[], int] | None = conn.__dict__.get("_millpond_status")
        return IN_TRANSACTION if read is None else read() & 0xFFFF

    def tells(self, conn: Any) -> bool:
        """Say whether the status word is the server's."""
        return bool(conn.__dict__.get("_millpond_told"))

    def version_of(self, conn: Any) -> str:
        """Return what the server called itself."""
        return str(conn.get_server_info())

    def thread_of(self, conn: Any) -> int:
        """Return the number of the connection."""
        return int(conn.thread_id())

    def reset_link(self, conn: Any) -> bool:
        """Reset by COM_RESET_CONNECTION, or by logging in anew over the same link."""
        if self._native is not None and self._native.can_reset:
            return self._native.reset(conn)
        if not self._dials:
            return False  # nobody has told us whom to log in as
        arguments = self.fresh_arguments()
        user, password = arguments.get("user"), arguments.get("password", "")
        if not isinstance(user, str) or not isinstance(password, str):
            return False
        self._raw.change_user(conn, user, password, arguments.get("database") or "")
        return True

    def is_unread(self, conn: Any) -> bool:
        """Say whether a result was announced and not read, was begun unbuffered, or is followed by another."""
        values = conn.__dict__
        if values["_millpond_unread"] or values["_millpond_awaited"]:
            return True
        return bool(values["_millpond"].status & MORE_RESULTS)

    def drain(self, conn: Any) -> bool:
        """Read a short rest of an unbuffered result, and what follows it."""
        values = conn.__dict__
        if values["_millpond_awaited"]:
            return False
        if (
            values["_millpond_unread"]
            and len(values["_millpond_result"].fetch_row(DRAINED_ROWS_MAX)) == DRAINED_ROWS_MAX
        ):
            return False
        while conn.next_result() == 0:  # raises where an unbuffered result is not at its end
            conn.store_result()
        return True

    def look_at(self, conn: Any) -> Any:
        """Return the driver object's own settings."""
        return (conn.converter.copy(), conn.encoders.copy(), plain_looks(conn))

    def looks_like(self, conn: Any, looks: Any) -> bool:
        """Say whether the driver object's settings are these."""
        return bool(
            conn.converter == looks[0] and conn.__dict__["encoders"] == looks[1] and plain_looks(conn) == looks[2]
        )

    def look_as(self, conn: Any, looks: Any) -> None:
        """Give the driver object its settings again, and the library the character set that it escapes for."""
        facts = self.facts(conn)
        if facts is not None and facts.charset and conn.character_set_name() != facts.charset:
            self._raw.set_character_set(conn, facts.charset)
        if looks is None:
            return
        converter, encoders, plain = looks
        for mine, wanted in ((conn.converter, converter), (conn.encoders, encoders)):
            mine.clear()
            mine.update(wanted)
        for name, value in zip(LOOKS, plain, strict=True):
            if value is not None or name in conn.__dict__:
                conn.__dict__[name] = value

    def descriptor(self, conn: Any) -> int | None:
        """Return the descriptor; mysqlclient itself tells a closed one after the link was lost."""
        if not conn.open:
            return None
        read: Callable[[], int] | None = conn.__dict__.get("_millpond_socket")
        fd = read() if read is not None else -1 if conn.errno() in LINK_ERRORS else conn.fileno()
        return fd if fd >= 0 else None

    def is_closed(self, conn: Any) -> bool:
        """Say whether its borrower has closed it, or the library has, after an error."""
        return True

    def link_reset(self) -> str:
        """Return how a link is reset."""
        if self._native is not None and self._native.can_reset:
            return Way.RESET.value
        return "COM_CHANGE_USER" if self._dials else Way.RENEWAL.value

    def classify(self, error: BaseException) -> Fault:
        """Sort an exception; under TLS a link that breaks has the number of a handshake that fails."""
        if number_of(error) == TLS_FAILED and any(words in str(error).lower() for words in BROKEN):
            return Fault.GONE
        return super().classify(error)

    # -- what can be sent ahead: one text
    def _send_reset(self, conn: Any) -> bool | None:
        session, facts = self.session(conn), self.facts(conn)
        if session is None or facts is None or (self._reset == "auto" and self._is_clean(conn)):
            return super()._send_reset(conn)
        rolls_back = session.way is Way.ROLLBACK or (self._reset == "auto" and self._needs_rollback_only(conn, session))
        statements = ["ROLLBACK"] if rolls_back else self._restoring(conn, session, facts)
        texts = together(statements, allowed=bool(conn.client_flag & MULTI_STATEMENTS))
        if len(texts) > 1:
            return super()._send_reset(conn)
        with self.bounded(conn, time.monotonic() + RESET_S):
            if not rolls_back:
                if self._is_hopeless(conn, session):
                    return False
                self.tell_of_xa(conn, session)
                if not self.reset_link(conn):
                    return False
                self.look_as(conn, session.looks)
            self._raw.send_query(conn, texts[0].encode(conn.encoding))
        conn.__dict__["_millpond_rolls_back"] = rolls_back
        return None

    def read_answers(self, conn: Any) -> bool:
        """Read the answers to what was sent at return."""
        session, facts = self.session(conn), self.facts(conn)
        assert session is not None
        assert facts is not None
        self._raw.read_query_result(conn)
        replies = read_replies(self._raw, conn)
        if conn.__dict__.pop("_millpond_rolls_back"):
            return self._rolled_back(conn, session)
        return self._restored(conn, session, facts, replies)

    def last_words(self, conn: Any) -> None:
        """Close, and only then let go of a result that was left unread: its destructor would read it to its end."""
        self._raw.close(conn)
        conn.__dict__.pop("_millpond_result", None)


def plain_looks(conn: Any) -> list[Any]:
    """Return those settings that are no tables."""
    values = conn.__dict__
    return [values.get(name) for name in LOOKS]


def read_replies(raw: Any, conn: Any) -> list[list[Any]]:
    """Read all replies to one text, each to its end."""
    replies: list[list[Any]] = []
    while True:
        result = raw.store_result(conn)
        replies.append([] if result is None else list(result.fetch_row(0)))
        if raw.next_result(conn) != 0:
            return replies


def detach(cursor: Any, _: type[Any]) -> None:
    """Let go of an unbuffered result without reading it to its end: its connection keeps it until it is closed."""
    cursor._result = None  # noqa: SLF001  the one place besides that holds it
