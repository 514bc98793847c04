"""PyMySQL, to the limit of what it can be asked and told.

What this adapter does better than ``pymysql.connect`` and any DB-API adapter:
- One deadline bounds a whole dial.  PyMySQL's ``connect_timeout`` covers TCP only, each address anew, and a server that
  accepts and stays silent is waited for without end; here the socket is ours, and each packet has what is left.
- One TLS context for all connections: making one costs 45 to 90 ms of CPU, an ordinary connect 1 ms.
- A poll of the descriptor tells a connection that the server has closed; the check of an idle one has a deadline.
- A reply that was left unread is seen, and never read to its end in a finalizer or at return.

Rules: PyMySQL's private parts are used where :class:`Parts` has found them, and nowhere else; without them the
adapter does what any DB-API adapter does.  PyMySQL 1.1 and 1.2 differ in TLS: 1.1 has none unless asked and, asked
for it, goes on in the clear with a server that has none; 1.2 uses it where the server can.  What was asked for as
"required" is required with both.
"""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
import sys
import threading
import time
import types
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Final

from millpond._cursors import CursorClasses
from millpond.errors import DriverMissing, InvalidSetting
from millpond.url import MYSQL_OPTIONS, Parser

from .dbapi import DbapiDriver, OnConnect, Reset, run, shut_down

IN_TRANSACTION: Final = 0x0001  # SERVER_STATUS_IN_TRANS
AUTOCOMMIT: Final = 0x0002  # SERVER_STATUS_AUTOCOMMIT
CLIENT_SSL: Final = 1 << 11
CANNOT_CONNECT: Final = 2003  # CR_CONN_HOST_ERROR
TLS_FAILED: Final = 2026  # CR_SSL_CONNECTION_ERROR
TLS_ARGUMENTS = (
    *("ssl", "ssl_disabled", "ssl_ca", "ssl_verify_cert", "ssl_verify_identity"),
    *("ssl_cert", "ssl_key", "ssl_key_password"),
)
FAREWELL_S = 0.5  # COM_QUIT is five bytes: they go at once, or the peer has stopped reading


class Parts:
    """Which of PyMySQL's private parts this version has; looked for once, on the first connection object."""

    __slots__ = ("packets", "tls")

    def __init__(self, conn: Any) -> None:
        has = frozenset(dir(conn)) | frozenset(conn.__dict__)
        #: Each packet of a handshake can be given its time, and something be checked before credentials are sent.
        self.packets = {"_read_timeout", "_write_timeout", "_read_packet", "_request_authentication"} <= has
        #: A TLS context made for one connection can be given to another.
        self.tls = {"ssl", "client_flag"} <= has and (not getattr(conn, "ssl", False) or "ctx" in has)


class Tls:
    """What PyMySQL made of the TLS arguments, once, for all connections to share."""

    __slots__ = ("context", "flag", "required", "wanted")

    def __init__(self, conn: Any, *, required: bool) -> None:
        self.wanted = bool(conn.ssl)
        self.context: ssl.SSLContext | None = getattr(conn, "ctx", None) if self.wanted else None
        self.flag = conn.client_flag & CLIENT_SSL
        self.required = required

    def give(self, conn: Any) -> None:
        """Make *conn*, which has no TLS yet, use the shared context."""
        if not self.wanted:
            return
        conn.ssl = True
        conn.ctx = self.context
        conn.client_flag |= self.flag
        if hasattr(conn, "_ssl_required"):
            conn._ssl_required = self.required  # noqa: SLF001  PyMySQL 1.2; see the module's rules


class PyMySQLDriver(DbapiDriver):
    """Adapter for PyMySQL 1.1 and later.

    Args: as for :class:`~millpond.drivers.dbapi.DbapiDriver`; ``connect_args`` are those of ``pymysql.connect``, where
        ``ssl`` may also be one of "disabled", "preferred", "required", "verify-ca" and "verify-identity", and
        ``time_zone`` sets the session's.
    """

    name = "pymysql"
    capabilities: ClassVar[dict[str, str]] = {
        "deadline": "yes, for dial, check and reset; host names are looked up by the system, which cannot be ended",
        "alive": "poll of the descriptor; COM_PING under a deadline",
        "clean": "not yet: a rollback at every return",
        "reset": "ROLLBACK under a deadline",
        "in flight": "yes: an unbuffered result, or further results, not read to the end",
        "cut": "its descriptor is shut down",
        "errors": "by number",
    }
    options: ClassVar[Mapping[str, Parser]] = MYSQL_OPTIONS

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
        arguments = self._connect_args
        self._time_zone: str | None = arguments.pop("time_zone", None) if self._dials else None
        self._mode: str | None = take_mode(arguments) if self._dials else None
        self._parts: Parts | None = None
        self._tls: Tls | None = None
        self._tls_lock = threading.Lock()
        self._new_poll = unpatched_poll()
        if self._new_poll is not None:
            self.is_readable = self._is_readable

    @classmethod
    def import_module(cls) -> types.ModuleType:
        """Import PyMySQL."""
        try:
            import pymysql
        except ImportError as error:
            text = 'PyMySQL is not installed; install it with: pip install "millpond[pymysql]"'
            raise DriverMissing(text) from error
        return pymysql

    def cursor_classes(self) -> CursorClasses:
        """Unbuffered cursors read from the connection by themselves; the others have their rows already."""
        from pymysql.cursors import SSCursor

        return CursorClasses(sever=detach, tracked=lambda kind: issubclass(kind, SSCursor))

    # -- opening ---------------------------------------------------------------------------------------------------
    def dial(self, arguments: dict[str, Any], until: float) -> Any:
        """Connect by *until*, host names aside: TCP, TLS and handshake together."""
        if not self._dials:
            return self._connect(**arguments)
        until = min(until, time.monotonic() + float(arguments.pop("connect_timeout", None) or float("inf")))
        conn = self._unconnected(arguments)
        if (
            self._parts is None or not self._parts.packets
        ):  # this version cannot be told how long to wait for a packet: the driver's own way
            conn.connect_timeout = remaining(until)
            conn.connect()
            return conn
        try:
            sock = open_socket(conn, until)
        except OSError as error:
            raise self._cannot_connect(conn, error) from error
        try:
            shake_hands(conn, sock, until, self._demand_tls(conn))
        except BaseException:
            sock.close()
            raise
        return conn

    def _unconnected(self, arguments: dict[str, Any]) -> Any:
        """Make a connection object that is not connected yet, with the TLS context that all share."""
        tls = self._tls
        if tls is None:
            with self._tls_lock:
                tls = self._tls
                if tls is None:
                    return self._first_unconnected(arguments)
        bare = {name: value for name, value in arguments.items() if name not in TLS_ARGUMENTS}
        conn = self._connect(**bare, ssl_disabled=True, defer_connect=True)
        tls.give(conn)
        return conn

    def _first_unconnected(self, arguments: dict[str, Any]) -> Any:
        """Have PyMySQL itself make of the TLS arguments what it makes of them."""
        asked = dict(arguments)
        if self._mode is not None:
            asked.update(ssl_of_mode(self._mode, asked, keeps_preferred=self._prefers_by_itself()))
        conn = self._connect(**asked, defer_connect=True)
        if self._parts is None:
            self._parts = Parts(conn)
        if self._parts.tls:
            # PyMySQL 1.1 knows no difference between asked for and required; there, TLS is what somebody asked for.
            required = self._mode != "preferred" and bool(getattr(conn, "_ssl_required", conn.ssl))
            self._tls = Tls(conn, required=required)
            self._tls.give(conn)
        return conn

    def _prefers_by_itself(self) -> bool:
        """Say whether this PyMySQL uses TLS where the server can, unasked: 1.2 does, 1.1 does not."""
        version: tuple[Any, ...] = getattr(self.module, "VERSION", (0, 0))
        return tuple(version[:2]) >= (1, 2)

    def _demand_tls(self, conn: Any) -> Callable[[], None] | None:
        """Return what to do before credentials are sent: PyMySQL 1.1 would go on without TLS."""
        if self._tls is None or not self._tls.wanted:
            return None
        tls = self._tls

        def check() -> None:
            offered = bool(conn.server_capabilities & CLIENT_SSL)
            if tls.required and not offered:
                text = "TLS is required, and this server has none; ssl=preferred would go on without"
                raise self._operational(TLS_FAILED, text)
            if not offered:
                conn.client_flag &= ~CLIENT_SSL

        return check

    def _operational(self, number: int, text: str) -> Exception:
        kind: Any = self.family("OperationalError") or ConnectionError
        error: Exception = kind(number, text)
        return error

    def _cannot_connect(self, conn: Any, error: OSError) -> Exception:
        """Return what PyMySQL would raise."""
        return self._operational(CANNOT_CONNECT, f"Can't connect to MySQL server on {conn.host!r} ({error})")

    def set_up(self, conn: Any, until: float) -> None:
        """Set the time zone, and run ``on_connect``, under the dial's deadline."""
        with within(conn, until):
            if self._time_zone is not None:
                with conn.cursor() as cursor:
                    cursor.execute("SET time_zone = %s", (self._time_zone,))
            if callable(self._on_connect):
                self._on_connect(conn)
            elif self._on_connect is not None:
                run(conn, self._on_connect)
                if getattr(conn, "server_status", IN_TRANSACTION) & IN_TRANSACTION:
                    conn.commit()

    # -- using -----------------------------------------------------------------------------------------------------
    def is_alive(self, conn: Any, until: float) -> bool:
        """Ping by *until*, without reconnecting."""
        try:
            with within(conn, until):
                conn.ping(reconnect=False)
        except Exception:  # noqa: BLE001  whatever it is, this connection has not answered
            return False
        return True

    def clean(self, conn: Any, until: float) -> bool:
        """Roll back by *until*; PyMySQL's in-transaction flag misses what EOF packets say, so it is never left out."""
        with within(conn, until):
            conn.rollback()
        return True

    def close(self, conn: Any) -> None:
        """Send COM_QUIT without waiting, or a server would count an aborted client, and close."""
        result = getattr(conn, "_result", None)
        if getattr(result, "unbuffered_active", False):
            result.unbuffered_active = False  # type: ignore[union-attr]  # or its finalizer would read what is left
        with contextlib.suppress(Exception), within(conn, time.monotonic() + FAREWELL_S):
            conn.close()

    # -- capabilities ----------------------------------------------------------------------------------------------
    def fileno(self, conn: Any) -> int | None:
        """Return the socket's descriptor."""
        sock = getattr(conn, "_sock", None)
        try:
            fd = -1 if sock is None else sock.fileno()
        except (OSError, AttributeError):
            return None
        return fd if fd >= 0 else None

    def _is_readable(self, conn: Any) -> bool:
        """Poll the descriptor, and look for what TLS has read and not handed on: an idle server says nothing."""
        fd = self.fileno(conn)
        if fd is None:
            return not getattr(conn, "open", True)  # closed by its borrower; or this version does not tell
        known = conn.__dict__.get("_millpond_poll")
        if known is None or known[0] != fd:  # new, or its borrower has reconnected it
            assert self._new_poll is not None
            known = (fd, self._new_poll())
            known[1].register(fd, select.POLLIN)
            conn.__dict__["_millpond_poll"] = known
        if known[1].poll(0):
            return True
        pending = getattr(conn._sock, "pending", None)  # noqa: SLF001  it was there for fileno()
        return bool(pending is not None and pending())

    def in_flight(self, conn: Any) -> bool | None:
        """Say whether an unbuffered result, or another result of the same command, waits to be read."""
        try:
            result = conn._result  # noqa: SLF001  see the module's rules
        except AttributeError:
            return None
        return result is not None and bool(result.unbuffered_active or result.has_next)

    def uncommitted(self, conn: Any) -> bool:
        """Say whether the last OK packet told of an open transaction; after writes the flag is right."""
        return bool(getattr(conn, "server_status", 0) & IN_TRANSACTION)

    def cut(self, conn: Any) -> bool:
        """Shut the socket down under whoever reads from it."""
        fd = self.fileno(conn)
        return fd is not None and shut_down(fd)


# -- dialling --------------------------------------------------------------------------------------------------------
def remaining(until: float) -> float:
    """Return the seconds left until *until*.

    Raises:
        TimeoutError: there are none.
    """
    left_s = until - time.monotonic()
    if left_s <= 0:
        raise TimeoutError("timed out")
    return left_s


def open_socket(conn: Any, until: float) -> socket.socket:
    """Connect a socket to where *conn* leads, trying each address, all by *until*."""
    if conn.unix_socket:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.settimeout(remaining(until))
            sock.connect(conn.unix_socket)
        except BaseException:
            sock.close()
            raise
        conn.host_info = "Localhost via UNIX socket"
        conn._secure = True  # noqa: SLF001  as PyMySQL does: a password may be sent through it in the clear
        return sock
    source = (conn.bind_address, 0) if conn.bind_address is not None else None
    failure: OSError = OSError("no address")
    for family, kind, protocol, _, address in socket.getaddrinfo(conn.host, conn.port, 0, socket.SOCK_STREAM):
        sock = socket.socket(family, kind, protocol)
        try:
            sock.settimeout(remaining(until))
            if source is not None:
                sock.bind(source)
            sock.connect(address)
        except OSError as error:
            sock.close()
            failure = error
            continue
        except BaseException:
            sock.close()
            raise
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        conn.host_info = f"socket {conn.host}:{conn.port}"
        return sock
    raise failure


def shake_hands(conn: Any, sock: socket.socket, until: float, before_credentials: Callable[[], None] | None) -> None:
    """Have PyMySQL do the handshake and its set-up on *sock*, each packet with the time that is left."""
    authenticate = getattr(conn, "_request_authentication", None)
    if before_credentials is not None and authenticate is not None:

        def check_first() -> Any:
            before_credentials()
            return authenticate()

        conn._request_authentication = check_first  # noqa: SLF001  on this one object, until it is connected
    try:
        with within(conn, until):
            conn.connect(sock)
    finally:
        conn.__dict__.pop("_request_authentication", None)


class within:  # noqa: N801  reads as a word: with within(conn, until)
    """Give each packet that *conn* reads or writes only the time that is left; its own time-outs come back afterwards."""

    __slots__ = ("_bounded", "_conn", "_read_s", "_until", "_write_s")

    def __init__(self, conn: Any, until: float) -> None:
        self._conn: Any = conn
        self._until = until
        self._bounded = False

    def __enter__(self) -> None:
        conn = self._conn
        try:
            read_packet = conn._read_packet  # noqa: SLF001  see the module's rules
            self._read_s = conn._read_timeout  # noqa: SLF001
            self._write_s = conn._write_timeout  # noqa: SLF001
        except AttributeError:
            return  # this version cannot be told
        self._allow()
        self._bounded = True

        def read_in_time(*args: Any, **kwargs: Any) -> Any:
            self._allow()
            return read_packet(*args, **kwargs)

        conn._read_packet = read_in_time  # noqa: SLF001  on this one object, until __exit__

    def _allow(self) -> None:
        left_s = remaining(self._until)
        conn = self._conn
        conn._read_timeout = left_s if self._read_s is None else min(left_s, self._read_s)  # noqa: SLF001
        conn._write_timeout = left_s if self._write_s is None else min(left_s, self._write_s)  # noqa: SLF001

    def __exit__(self, *_: object) -> None:
        if not self._bounded:
            return
        conn = self._conn
        conn.__dict__.pop("_read_packet", None)
        conn._read_timeout, conn._write_timeout = self._read_s, self._write_s  # noqa: SLF001


# -- TLS -------------------------------------------------------------------------------------------------------------
def take_mode(arguments: dict[str, Any]) -> str | None:
    """Take our own word for how much TLS out of the arguments, if they have one."""
    from millpond.url import SSL_MODES

    mode = arguments.get("ssl")
    if not isinstance(mode, str):
        return None
    if mode not in SSL_MODES:
        raise InvalidSetting("ssl", mode, f"one of {', '.join(SSL_MODES)}, or what pymysql.connect takes")
    for name in ("ssl_disabled", "ssl_verify_cert", "ssl_verify_identity"):
        if arguments.get(name) is not None:
            raise InvalidSetting("ssl", mode, f"without {name}", f"it says all that {name} does")
    del arguments["ssl"]
    return mode


def ssl_of_mode(mode: str, arguments: Mapping[str, Any], *, keeps_preferred: bool) -> dict[str, Any]:
    """Return PyMySQL's arguments for one of our modes."""
    if mode == "disabled":
        return {"ssl_disabled": True}
    certificate = {name: arguments.get(name) for name in ("ssl_ca", "ssl_cert", "ssl_key", "ssl_key_password")}
    if mode == "preferred" and keeps_preferred and not any(certificate.values()):
        return {}
    context = ssl.create_default_context(cafile=certificate["ssl_ca"])
    # Python 3.13 made this the default, and the certificates that servers make for themselves do not pass it.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    context.check_hostname = mode == "verify-identity"
    if mode in ("preferred", "required"):
        context.verify_mode = ssl.CERT_NONE
    if certificate["ssl_cert"] is not None:
        context.load_cert_chain(certificate["ssl_cert"], certificate["ssl_key"], certificate["ssl_key_password"])
    return {**dict.fromkeys(certificate), "ssl": context}


# -- cursors and polls -----------------------------------------------------------------------------------------------
def detach(cursor: Any, _: type[Any]) -> None:
    """Let go of an unbuffered result without reading it to its end, which may be long."""
    cursor._result = None  # noqa: SLF001  see the module's rules


def unpatched_poll() -> Callable[[], Any] | None:
    """Return the system's ``poll``; not gevent's, which switches greenlets and costs forty times as much."""
    monkey = sys.modules.get("gevent.monkey")
    if monkey is not None and monkey.is_module_patched("select"):
        found: Callable[[], Any] | None = monkey.get_original("select", "poll")
        return found
    return getattr(select, "poll", None)
