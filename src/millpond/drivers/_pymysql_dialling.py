"""How PyMySQL is made to connect: by our socket, in our time, with the TLS that was asked for, made once.

Why: PyMySQL's ``connect_timeout`` covers TCP only, each address anew, and a server that accepts and stays silent is
waited for without end; and it makes an SSL context for every connection, 45 to 90 ms of CPU.

Rules: PyMySQL's private parts are used here where :class:`Parts` has found them.  What "preferred", "required" and
"verified" mean is decided by PyMySQL's own code, once; a connection is never given less.

It must not know of pools or sessions.
"""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

from millpond.errors import InvalidSetting
from millpond.forks import LockOfProcess

from ._pymysql_wires import straighten
from ._session import CLIENT_SSL, TLS_FAILED
from .base import LONGEST_S
from .faults import is_of_tls

CANNOT_CONNECT: Final = 2003  # CR_CONN_HOST_ERROR
TLS_ARGUMENTS: Final = (
    *("ssl", "ssl_disabled", "ssl_ca", "ssl_verify_cert", "ssl_verify_identity"),
    *("ssl_cert", "ssl_key", "ssl_key_password"),
)
ANSWER_S: Final = 2.0  # the rest of an answer that has begun to come
RENEWED_S: Final = 60.0  # servers forget TLS sessions after minutes
# An idle peer that has gone is noticed after a minute, instead of two hours; one that confirms nothing, after as long.
KEEPALIVE: Final = {"TCP_KEEPIDLE": 30, "TCP_KEEPINTVL": 10, "TCP_KEEPCNT": 3, "TCP_USER_TIMEOUT": 60_000}


class Parts:
    """Which of PyMySQL's private parts this version has; looked for once, on the first connection object."""

    __slots__ = ("packets", "tls")

    def __init__(self, conn: Any) -> None:
        has = frozenset(dir(conn)) | frozenset(conn.__dict__)
        #: Each packet of a handshake can be given its time, and something be checked before credentials are sent.
        self.packets = {"_read_timeout", "_write_timeout", "_read_packet", "_request_authentication"} <= has
        #: A TLS context made for one connection can be given to another.
        self.tls = {"ssl", "client_flag"} <= has and (not getattr(conn, "ssl", False) or "ctx" in has)


class Resuming:
    """A TLS context that all connections share, and that resumes the last session with a server.

    A resumed session skips certificates and key exchange, which were verified when it began; a server that does not
    know it, or does not resume, does the whole handshake as if nothing had been offered.
    """

    def __init__(self, context: ssl.SSLContext) -> None:
        self.context = context
        self.sessions: dict[str | None, ssl.SSLSession] = {}
        self.renew_at = 0.0

    def wrap_socket(self, sock: socket.socket, *, server_hostname: str | None = None) -> ssl.SSLSocket:
        """Shake hands, offering to resume."""
        session = self.sessions.get(server_hostname)
        wrapped = self.context.wrap_socket(sock, server_hostname=server_hostname, session=session)
        straighten(wrapped)
        return wrapped

    def keep(self, conn: Any) -> None:
        """Keep the session of a connection that has heard from its server: tickets come after the handshake.

        Taking one costs 0.3 ms, as much as resuming it saves, and each does for many connections.
        """
        sock = getattr(conn, "_sock", None)
        if not isinstance(sock, ssl.SSLSocket) or (sock.session_reused and time.monotonic() < self.renew_at):
            return
        session = sock.session
        if session is not None and (session.has_ticket or session.id):
            self.sessions[conn.host] = session
            self.renew_at = time.monotonic() + RENEWED_S

    def __getattr__(self, name: str) -> Any:
        return getattr(self.context, name)


class Tls:
    """What PyMySQL made of the TLS arguments, once, for all connections to share."""

    __slots__ = ("context", "flag", "required", "wanted")

    def __init__(self, conn: Any, *, required: bool) -> None:
        self.wanted = bool(conn.ssl)
        self.context: Resuming | None = Resuming(conn.ctx) if self.wanted else None
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
            conn._ssl_required = self.required  # PyMySQL 1.2

    def keep(self, conn: Any) -> None:
        """Keep what lets the next connection shake hands in less time."""
        if self.context is not None:
            self.context.keep(conn)


class Dialler:
    """How one adapter's connections are made.

    Args:
        connect: PyMySQL's class of connections, or one made from it.
        module: PyMySQL.
        mode: our own word for how much TLS is asked for, if it was used.
        prepare: is handed each connection object before it is connected.
    """

    def __init__(self, connect: Any, *, module: Any, mode: str | None, prepare: Callable[[Any], None]) -> None:
        self._connect = connect
        self._module = module
        self._mode = mode
        self._prepare = prepare
        self._parts: Parts | None = None
        self._tls: Tls | None = None
        self._tls_lock = LockOfProcess()

    def dial(self, arguments: dict[str, Any], until: float) -> Any:
        """Connect by *until*, host names aside: TCP, TLS and handshake together."""
        until = min(until, time.monotonic() + float(arguments.pop("connect_timeout", None) or float("inf")))
        arguments.pop("defer_connect", None)  # here it is always deferred, and never left at that
        conn = self._unconnected(arguments)
        self._prepare(conn)
        if self._parts is None or not self._parts.packets:
            # This version cannot be told how long to wait for a packet: the driver's own way.
            conn.connect_timeout = remaining(until)
            conn.connect()
            return conn
        try:
            sock = open_socket(conn, until)
        except OSError as error:
            text = f"Can't connect to MySQL server on {conn.host!r} ({error})"  # as PyMySQL has it
            raise self._module.OperationalError(CANNOT_CONNECT, text) from error
        try:
            shake_hands(conn, sock, until, self._demand_tls(conn))
        except BaseException as error:
            sock.close()
            if is_of_tls(error):
                self._tls = None  # the next dial reads the files again
            raise
        if self._tls is not None:
            self._tls.keep(conn)
        return conn

    def plainly_dialled(self, arguments: dict[str, Any], until: float) -> Any:
        """Connect by the driver's own means, which bound TCP alone."""
        arguments["connect_timeout"] = min(remaining(until), float(arguments.get("connect_timeout") or 3600.0))
        return self._connect(**self._with_tls(arguments))

    def _unconnected(self, arguments: dict[str, Any]) -> Any:
        """Make a connection object that is not connected yet, with the TLS context that all share."""
        tls = self._tls
        if tls is None:
            with self._tls_lock():
                tls = self._tls
                if tls is None:
                    return self._first_unconnected(arguments)
        bare = {name: value for name, value in arguments.items() if name not in TLS_ARGUMENTS}
        conn = self._connect(**bare, ssl_disabled=True, defer_connect=True)
        tls.give(conn)
        return conn

    def _first_unconnected(self, arguments: dict[str, Any]) -> Any:
        """Have PyMySQL itself make of the TLS arguments what it makes of them."""
        conn = self._connect(**self._with_tls(arguments), defer_connect=True)
        if self._parts is None:
            self._parts = Parts(conn)
        if self._parts.tls:
            # PyMySQL 1.1 knows no difference between asked for and required; there, TLS is what somebody asked for.
            required = self._mode != "preferred" and bool(getattr(conn, "_ssl_required", conn.ssl))
            self._tls = Tls(conn, required=required)
            self._tls.give(conn)
        return conn

    def _with_tls(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """Return arguments that say in PyMySQL's words how much TLS is asked for."""
        if self._mode is None:
            return arguments
        version: tuple[Any, ...] = getattr(self._module, "VERSION", (0, 0))
        # PyMySQL 1.2 uses TLS where the server can, unasked; 1.1 does not.
        return arguments | ssl_of_mode(self._mode, arguments, keeps_preferred=tuple(version[:2]) >= (1, 2))

    def _demand_tls(self, conn: Any) -> Callable[[], None] | None:
        """Return what to do before credentials are sent: PyMySQL 1.1 would go on without TLS."""
        if self._tls is None or not self._tls.wanted:
            return None
        tls = self._tls

        def check() -> None:
            offered = bool(conn.server_capabilities & CLIENT_SSL)
            if tls.required and not offered:
                text = "TLS is required, and this server has none; ssl=preferred would go on without"
                raise self._module.OperationalError(TLS_FAILED, text)
            if not offered:
                conn.client_flag &= ~CLIENT_SSL

        return check


# -- time and sockets ------------------------------------------------------------------------------------------------
def remaining(until: float) -> float:
    """Return the seconds left until *until*.

    Raises:
        TimeoutError: there are none.
    """
    left_s = until - time.monotonic()
    if left_s <= 0:
        raise TimeoutError("timed out")
    return min(left_s, LONGEST_S)


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
        conn._secure = True  # as PyMySQL does: a password may be sent through it in the clear
        return sock
    source = (conn.bind_address, 0) if conn.bind_address is not None else None
    failure: OSError = OSError("no address")
    addresses = socket.getaddrinfo(conn.host, conn.port, 0, socket.SOCK_STREAM)
    for tried, (family, kind, protocol, _, address) in enumerate(addresses):
        sock = socket.socket(family, kind, protocol)
        try:
            # One that does not answer must leave time for the others: it gets its share of what is left.
            sock.settimeout(remaining(until) / (len(addresses) - tried))
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
        keep_alive(sock)
        conn.host_info = f"socket {conn.host}:{conn.port}"
        return sock
    raise failure


def keep_alive(sock: socket.socket) -> None:
    """Have the system notice a peer that is gone, as far as it can be told to."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in KEEPALIVE.items():
        option = getattr(socket, name, None)
        if option is not None:
            sock.setsockopt(socket.IPPROTO_TCP, option, value)


def shake_hands(conn: Any, sock: socket.socket, until: float, before_credentials: Callable[[], None] | None) -> None:
    """Have PyMySQL do the handshake and its set-up on *sock*, each packet with the time that is left."""
    straighten(sock)
    authenticate = getattr(conn, "_request_authentication", None)
    if before_credentials is not None and authenticate is not None:

        def check_first() -> Any:
            before_credentials()
            return authenticate()

        conn._request_authentication = check_first  # on this one object, until it is connected
    try:
        with within(conn, until):
            conn.connect(sock)
    finally:
        conn.__dict__.pop("_request_authentication", None)


class within:  # noqa: N801  reads as a word: with within(conn, until)
    """Give each packet that *conn* reads or writes only the time that is left; its own time-outs come back."""

    __slots__ = ("_bounded", "_conn", "_read_s", "_until", "_write_s")

    def __init__(self, conn: Any, until: float) -> None:
        self._conn: Any = conn
        self._until = until
        self._bounded = False

    def __enter__(self) -> None:
        conn = self._conn
        try:
            read_packet = conn._read_packet
            self._read_s = conn._read_timeout
            self._write_s = conn._write_timeout
        except AttributeError:
            return  # this version cannot be told
        self._allow()
        self._bounded = True

        def read_in_time(*args: Any, **kwargs: Any) -> Any:
            self._allow()
            return read_packet(*args, **kwargs)

        conn._read_packet = read_in_time  # on this one object, until __exit__

    def _allow(self) -> None:
        left_s = remaining(self._until)
        conn = self._conn
        conn._read_timeout = left_s if self._read_s is None else min(left_s, self._read_s)
        conn._write_timeout = left_s if self._write_s is None else min(left_s, self._write_s)

    def __exit__(self, *_: object) -> None:
        if not self._bounded:
            return
        conn = self._conn
        conn.__dict__.pop("_read_packet", None)
        conn._read_timeout, conn._write_timeout = self._read_s, self._write_s


class patient:  # noqa: N801  reads as a word: with patient(conn)
    """Give each packet of an answer that has begun to come ``ANSWER_S``; for a connection that listens."""

    __slots__ = ("_conn", "_read_s")

    def __init__(self, conn: Any) -> None:
        self._conn: Any = conn

    def __enter__(self) -> None:
        self._read_s = self._conn._read_timeout
        self._conn._read_timeout = ANSWER_S if self._read_s is None else min(ANSWER_S, self._read_s)

    def __exit__(self, *_: object) -> None:
        self._conn._read_timeout = self._read_s


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
    return {**{name: None for name in certificate if name in arguments}, "ssl": context}
