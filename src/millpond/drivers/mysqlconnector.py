"""mysql-connector-python, to the limit of what it can be asked and told.

What this adapter does better than ``mysql.connector.connect`` and any DB-API adapter:
- A session is proved clean by what was sent and by the status words, all of which this driver reads.
- ``cursor()`` sends no COM_PING: a cycle with one statement is one command.
- With the pure implementation a poll tells a connection that the server has closed, a deadline holds for dial, check
  and reset, a reset is sent at return and its answers are read later, one TLS context is made for all connections.

Rules: the pure implementation is used unless ``use_pure=False`` says otherwise, because the other one shows no
descriptor: nothing tells that its connection is dead but a command, and nothing ends a call that hangs.  Private parts
are used where ``_mysqlconnector_session.py`` has found them; how our own statements are sent is in
``_mysqlconnector_asking.py``.  See docs/adr/014-mysql-connector-is-pure.md.
"""

from __future__ import annotations

import copy
import functools
import importlib
import socket
import time
import types
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Final

from millpond._core.states import Fault
from millpond._cursors import CursorClasses
from millpond.errors import DriverMissing, InvalidSetting
from millpond.url import MYSQL_OPTIONS, URL, Parser, boolean

from . import _mysqlconnector_asking as asking
from ._model_session import SQL_MODE_AT, Abilities, Facts, as_text, together
from ._mysqlconnector_session import (
    LOOKS,
    ListeningC,
    ListeningPure,
    begin,
    can_listen,
    detach,
    drain,
    is_misuse,
    is_unread,
    listening,
)
from ._session import CLIENT_SSL, IN_TRANSACTION, MULTI_STATEMENTS, TLS_FAILED, Session, Way
from ._watchdog import watchdog
from ._watched import WatchedDriver
from .base import LONGEST_S
from .faults import is_of_tls
from .settings import OnConnect, Reset

SESSION_TRACK: Final = 1 << 23  # CLIENT_SESSION_TRACK
EXPIRED_PASSWORDS: Final = 1 << 22  # CLIENT_CAN_HANDLE_EXPIRED_PASSWORDS
SEND_S: Final = 1.0  # a few hundred bytes go at once, or the peer has stopped reading
NOT_HERE = (
    "bind_address",
    "max_allowed_packet",
    "program_name",
    "ssl_key_password",
    "local_infile",
    "read_default_group",
)
RENAMED = {"connect_timeout": "connection_timeout", "read_default_file": "option_files"}
# With any of these the driver makes connections of other kinds, by itself.
OTHER_KINDS = ("pool_name", "pool_size", "failover", "dsn", "oci_config_file", "krb_service_principal")


class MySQLConnectorDriver(WatchedDriver):
    """Adapter for mysql-connector-python 8.4 and later.

    Args: as for :class:`~millpond.drivers.dbapi.DbapiDriver`; ``connect_args`` are those of
        ``mysql.connector.connect``, where ``ssl`` may also be one of "disabled", "preferred", "required", "verify-ca"
        and "verify-identity".
    """

    name = "mysqlconnector"
    capabilities: ClassVar[dict[str, str]] = {
        "deadline": "yes, for dial, check, reset and farewell; host names are looked up by the system",
        "alive": "poll of the descriptor; COM_PING under a deadline",
        "clean": "proved, by the statements and every status word",
        "reset": "COM_RESET_CONNECTION and one statement, or a ROLLBACK: sent at return and read later",
        "in flight": "yes: a result, or further results, not read to the end",
        "cut": "its descriptor is shut down",
        "errors": "by number",
        "private parts": "_socket, _protocol, _handle_ok, _handle_result, _do_auth, _get_connection",
    }
    #: What is left of it with ``use_pure=False``.
    variants: ClassVar[dict[str, dict[str, str]]] = {
        "use_pure=False": {
            "deadline": "dial only, to the next whole second; no other call can be ended",
            "alive": "COM_PING, without a deadline; nothing tells that a connection is dead but a command",
            "clean": "proved, by the statements and every status word",
            "reset": "COM_RESET_CONNECTION and one statement, or a ROLLBACK: answered at return",
            "in flight": "yes: a result, or further results, not read to the end; closing the connection reads it",
            "cut": "cannot",
            "errors": "by number",
            "private parts": "_cmysql, with its status word and its reset",
        }
    }
    options: ClassVar[Mapping[str, Parser]] = {
        **{name: read for name, read in MYSQL_OPTIONS.items() if name not in NOT_HERE},
        "use_pure": boolean,
    }

    def __init__(
        self,
        source: types.ModuleType | Any = None,
        *,
        connect_args: Mapping[str, Any] | None = None,
        reset: Reset = "auto",
        on_connect: OnConnect = None,
        described: str = "",
    ) -> None:
        super().__init__(source, connect_args=connect_args, reset=reset, on_connect=on_connect, described=described)
        self._context: Any = None
        arguments = self._connect_args
        self._pure = self._dials and arguments.get("use_pure", True) is not False
        self._requires_tls = False
        if self._dials and "ssl" in arguments:
            mode = arguments.pop("ssl")
            arguments.update(arguments_of_mode(mode, arguments))
            self._requires_tls = mode == "required"
        if self._requires_tls and not self._pure:
            raise InvalidSetting(
                "ssl",
                "required",
                "disabled, preferred, verify-ca, verify-identity",
                "use_pure=False goes on without TLS",
            )
        if self._dials and not self._pure:
            self.is_readable = None  # it shows no descriptor
            vars(self)["capabilities"] = self.variants["use_pure=False"]  # of this one alone
        if self._time_zone is not None:
            arguments["time_zone"], self._time_zone = self._time_zone, None  # the driver has it itself

    @classmethod
    def import_module(cls) -> types.ModuleType:
        """Import mysql.connector."""
        try:
            return importlib.import_module("mysql.connector")
        except ImportError as error:
            text = 'mysql-connector-python is not installed; install it with: pip install "millpond[mysqlconnector]"'
            raise DriverMissing(text) from error

    @classmethod
    def arguments_of(cls, url: URL) -> dict[str, Any]:
        """Return the arguments of ``mysql.connector.connect``; the first time-out is whole seconds there."""
        arguments = super().arguments_of(url)
        if "connect_timeout" in arguments:
            arguments["connect_timeout"] = max(1, round(arguments["connect_timeout"]))
        return {RENAMED.get(name, name): value for name, value in arguments.items()}

    def cursor_classes(self) -> CursorClasses:
        """Every cursor may read from the connection by itself."""
        return CursorClasses(sever=detach)

    # -- opening
    def dial(self, arguments: dict[str, Any], until: float) -> Any:
        """Connect by *until*; with the pure implementation TCP, TLS and handshake together."""
        if not self._dials:
            return super().dial(arguments, until)
        left_s = min(until - time.monotonic(), LONGEST_S)
        pure = arguments.pop("use_pure", True) is not False
        if pure:
            arguments["client_flags"] = with_tracking(arguments.get("client_flags"))
        limit_s = float(arguments.pop("connection_timeout", None) or left_s)
        if not pure or any(name in arguments for name in OTHER_KINDS):
            return self._connect(**arguments, use_pure=pure, connection_timeout=max(1, int(min(left_s, limit_s))))
        kind: Any = importlib.import_module("mysql.connector.connection").MySQLConnection
        if not can_listen(kind):
            return self._connect(**arguments, use_pure=True, connection_timeout=max(1, int(min(left_s, limit_s))))
        return self._dial_pure(listening(kind), arguments, min(until, time.monotonic() + limit_s))

    def _dial_pure(self, kind: Any, arguments: dict[str, Any], until: float) -> Any:
        conn: Any = kind()
        conn._millpond = Session()
        conn._millpond_admit = self._admit if self._requires_tls else None
        sockets: list[Any] = []

        def prepare(sock: Any) -> None:
            sockets.append(sock)
            sock.build_ssl_context = functools.partial(self._shared_context, sock.build_ssl_context)

        conn._millpond_prepare = prepare
        if not has_flag(arguments["client_flags"], EXPIRED_PASSWORDS):  # there an answer decides what comes next
            vars(conn)["_millpond_collected"] = []
        try:
            with watchdog.guard_by(lambda: shut_all(sockets), until) as guard:
                conn.connect(**arguments, connection_timeout=max(0.001, until - time.monotonic()))
        except BaseException as error:
            conn.close()
            if is_of_tls(error):
                self._context = None  # the next dial reads the files again
            raise
        if guard.fired:
            conn.close()
            raise TimeoutError("timed out")
        conn._connection_timeout = None  # it was for the dial, and would bound each statement of a reconnect
        conn.__dict__["_millpond_left_to_say"] = conn._millpond_collected or []
        conn._millpond_collected = None
        conn._millpond_prepare = None  # it keeps the first socket alive
        return conn

    def _shared_context(self, build: Any, *args: Any, **kwargs: Any) -> Any:
        if self._context is None:
            self._context = build(*args, **kwargs)  # two first dials may make one each; either will do
        return self._context

    def _admit(self, conn: Any) -> None:
        """Send no credentials to a server without TLS, where that is required."""
        if not conn._client_flags & CLIENT_SSL:  # cleared where the server offers none
            lacks = "this driver has none over unix sockets" if conn._unix_socket else "this server has none"
            text = f"TLS is required, and {lacks}; ssl=preferred would go on without"
            kind: Any = self.family("InterfaceError") or ConnectionError
            raise kind(msg=text, errno=TLS_FAILED)

    # -- how it is asked
    def left_to_say(self, conn: Any) -> list[str]:
        """Return what the driver was kept from sending while it connected."""
        found: list[str] = conn.__dict__.get("_millpond_left_to_say", [])
        return found

    def watch(self, conn: Any) -> Session | None:
        """Make a connection listen."""
        return begin(conn)

    def ask(self, conn: Any, statements: Sequence[str]) -> list[list[Any]]:
        """Run statements of our own past what listens."""
        if self.session(conn) is None:
            return asking.ask_publicly(conn, statements)
        texts = together(statements, allowed=bool(conn._client_flags & MULTI_STATEMENTS))
        if isinstance(conn, ListeningC):
            return asking.ask_c(conn, texts)
        if self._compresses(conn):
            return asking.ask_stepwise(conn, texts)
        return asking.ask_pure(conn, texts)

    @staticmethod
    def _compresses(conn: Any) -> bool:
        return bool(getattr(conn, "_compress", False))

    def status_of(self, conn: Any) -> int:
        """Return the status word of the last reply."""
        session = self.session(conn)
        if isinstance(conn, ListeningC) and conn._cmysql is not None:
            return int(conn._cmysql.st_server_status())
        return IN_TRANSACTION if session is None else session.status

    def version_of(self, conn: Any) -> str:
        """Return what the server called itself."""
        told: Any = getattr(conn, "server_info", None)  # 8.4 has the method only
        return as_text(told if told is not None else conn.get_server_info())

    def thread_of(self, conn: Any) -> int:
        """Return the number of the connection."""
        return int(conn.connection_id)

    def reset_link(self, conn: Any) -> bool:
        """Reset by COM_RESET_CONNECTION, without the driver's own three statements after it: ours are one."""
        if isinstance(conn, ListeningPure):
            if self._is_readable(conn):
                return False
            asking.reset_pure(conn)
            return True
        if isinstance(conn, ListeningC):
            return bool(conn._cmysql.reset_connection())
        return bool(conn.cmd_reset_connection())

    def is_unread(self, conn: Any) -> bool:
        """Say whether a part of a reply is left."""
        return is_unread(conn)

    def in_flight(self, conn: Any) -> bool | None:
        """Say whether a part of a reply is left; the driver itself tells, where nobody watches."""
        return bool(conn.unread_result) if self.session(conn) is None else super().in_flight(conn)

    def drain(self, conn: Any) -> bool:
        """Read what follows a result that was read; a result that was not is left alone."""
        return drain(conn)

    def _learn(self, conn: Any, abilities: Abilities, row: Sequence[Any]) -> Facts:
        facts = super()._learn(conn, abilities, row)
        conn.__dict__["_sql_mode"] = as_text(row[SQL_MODE_AT])  # or it asks before the first statement with values
        return facts

    def look_at(self, conn: Any) -> Any:
        """Return the driver object's own settings."""
        values = conn.__dict__
        return [*(values.get(name) for name in LOOKS), copy.copy(values.get("_query_attrs"))]

    def look_as(self, conn: Any, looks: Any) -> None:
        """Give the driver object its settings again."""
        if looks is None:
            return
        for name, value in zip((*LOOKS, "_query_attrs"), looks, strict=True):
            if name in conn.__dict__:
                conn.__dict__[name] = copy.copy(value) if name == "_query_attrs" else value

    def descriptor(self, conn: Any) -> int | None:
        """Return the descriptor, which the pure implementation has."""
        sock = getattr(getattr(conn, "_socket", None), "sock", None)
        try:
            fd = -1 if sock is None else sock.fileno()
        except OSError:
            return None
        return fd if fd >= 0 else None

    def is_buffered(self, conn: Any) -> bool:
        """Look for what TLS has read and not handed on."""
        pending = getattr(getattr(getattr(conn, "_socket", None), "sock", None), "pending", None)
        return pending is not None and bool(pending())

    def is_closed(self, conn: Any) -> bool:
        """Say whether its borrower has closed it."""
        return isinstance(conn, (ListeningC, ListeningPure)) and not conn._is_open()

    def classify(self, error: BaseException) -> Fault:
        """Sort an exception; those without a number are about how the driver was called, unless they name the link."""
        return Fault.STATEMENT if self._is_own(error) else super().classify(error)

    def _is_own(self, error: BaseException) -> bool:
        family = self.family("Error")
        return family is not None and isinstance(error, family) and is_misuse(error)

    # -- sent ahead
    def _send_reset(self, conn: Any) -> bool | None:
        session = self.session(conn)
        facts = self.facts(conn)
        if not isinstance(conn, ListeningPure) or session is None or facts is None or self._compresses(conn):
            return super()._send_reset(conn)
        rolls_back = session.way is Way.ROLLBACK or (self._reset == "auto" and self._needs_rollback_only(conn, session))
        if self._is_hopeless(conn, session) or self._is_readable(conn):
            return False  # the latter: more has come than was asked for
        self.look_as(conn, session.looks)
        statements = ["ROLLBACK"] if rolls_back else self._restoring(conn, session, facts)
        prepared = self._may_be_prepared(conn, session)
        first = [] if rolls_back else asking.reset_packets(conn, rolls_back=prepared)
        with self.bounded(conn, time.monotonic() + SEND_S):
            texts = asking.send(conn, statements, first=first)
        conn.__dict__["_millpond_sent"] = (rolls_back, len(first), texts)
        return None

    def read_answers(self, conn: Any) -> bool:
        """Read the answers to what was sent at return."""
        rolls_back, oks, texts = conn.__dict__.pop("_millpond_sent")
        session, facts = self.session(conn), self.facts(conn)
        assert session is not None
        assert facts is not None
        replies = asking.read_sent(conn, texts, oks=oks)
        return self._rolled_back(conn, session) if rolls_back else self._restored(conn, session, facts, replies)

    def last_words(self, conn: Any) -> None:
        """Close; a reply that was left unread is not read."""
        conn.__dict__["_consume_results"] = False
        conn.close()


def arguments_of_mode(mode: Any, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return the driver's arguments for one of our words for how much TLS."""
    if mode == "disabled":
        return {"ssl_disabled": True}
    if mode in ("preferred", "required"):
        return {}
    if mode in ("verify-ca", "verify-identity"):
        if "ssl_ca" not in arguments:
            raise InvalidSetting("ssl", mode, "with ssl_ca", "this driver verifies by a file of authorities only")
        return {"ssl_verify_cert": True, "ssl_verify_identity": mode == "verify-identity"}
    raise InvalidSetting("ssl", mode, "disabled, preferred, required, verify-ca, verify-identity")


def with_tracking(flags: Any) -> Any:
    """Return client flags with that for session tracking."""
    if flags is None:
        return [SESSION_TRACK]
    return flags | SESSION_TRACK if isinstance(flags, int) else [*flags, SESSION_TRACK]


def has_flag(flags: Any, flag: int) -> bool:
    """Say whether client flags, a number or a list, have one."""
    return bool(flags & flag) if isinstance(flags, int) else flag in flags


def shut_all(sockets: Sequence[Any]) -> None:
    """Shut down what a dial has opened; the watchdog calls this."""
    for sock in sockets:
        raw: Any = getattr(sock, "sock", None)
        if raw is None:
            continue
        try:
            raw.shutdown(socket.SHUT_RDWR)
        except OSError:  # not connected yet: its own time-out ends that
            continue
