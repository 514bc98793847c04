"""Database URLs: who, where, which database, and typed options for the driver.

``scheme[+driver]://user:password@host:port/database?option=value``

Rules: everything is percent-decoded once, here.  What options exist, and of which type, is the adapter's to say
(:data:`MYSQL_OPTIONS` is what the MySQL family shares); an unknown one is an error that names the nearest.  Settings
of the pool do not belong here: they are arguments of ``Pool``.

A password must not get out of here but by :attr:`URL.password`: not in a repr, not in an error, not in the chain of one
(the standard library quotes what it could not parse), so malformed URLs are named by their scheme alone.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import SplitResult, parse_qsl, quote, unquote, urlsplit

from .errors import InvalidSetting

SHAPE = "scheme[+driver]://user:password@host:port/database?option=value"
QUOTING = "percent-encode what user, password and database contain of @ : / ? # % (urllib.parse.quote does)"
MYSQL_SCHEMES = ("mysql", "mariadb")
SCHEMES = (*MYSQL_SCHEMES, "sqlite")

Parser = Callable[[str, str], Any]

# What Pool() takes: refused in a URL, by a message that says where it goes.  ``connect_timeout`` is not among them: it
# is an option of the drivers, and bounds the same thing.
POOL_SETTINGS = frozenset(
    {
        "max_size",
        "min_idle",
        "timeout",
        "max_lifetime",
        "idle_timeout",
        "check_after",
        "check_timeout",
        "fail_after",
        "reset",
        "on_connect",
        "max_uses",
        "max_waiting",
        "idle_order",
        "dial",
        "max_dialing",
        "growth",
        "track_use",
        "observer",
        "name",
        "runtime",
        "driver",
        "connect_args",
    }
)
# What other libraries call them, or what belongs elsewhere in a URL.
MISPLACED = {
    "db": "the database goes into the path: ...host/database",
    "database": "the database goes into the path: ...host/database",
    "user": "the user goes before the host: scheme://user:password@host/database",
    "passwd": "the password goes before the host: scheme://user:password@host/database",
    "password": "the password goes before the host: scheme://user:password@host/database",
    "host": "the host goes after the @: scheme://user:password@host/database",
    "port": "the port goes behind the host: scheme://user:password@host:port/database",
    "pool_size": "it is a setting of the pool, called max_size: Pool(url, max_size=...)",
    "pool_recycle": "it is a setting of the pool, called max_lifetime: Pool(url, max_lifetime=...)",
    "pool_timeout": "it is a setting of the pool, called timeout: Pool(url, timeout=...)",
    "pool_pre_ping": "the pool checks connections by itself: Pool(url, check_after=...)",
}
SECRETS = frozenset({"ssl_key_password"})


@dataclass(frozen=True)
class URL:
    """A parsed URL; its repr, and everything made from it, hides the password.

    Attributes:
        scheme: the kind of database, such as ``mysql``.
        driver: what follows the ``+``; None leaves the choice to us.
        user, password, host, port: as given, decoded; None where the URL says nothing.
        database: the path, decoded; "" if there is none.
        options: what follows the ``?``, as text; :meth:`typed` reads them.
    """

    scheme: str
    driver: str | None = None
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    host: str | None = None
    port: int | None = None
    database: str = ""
    options: Mapping[str, str] = field(default_factory=dict[str, str], repr=False)

    @classmethod
    def parse(cls, text: str) -> URL:
        """Take a URL apart.

        Raises:
            InvalidSetting: it is malformed; the message says where and what to do, and does not quote it.
        """
        prefix, separator, _ = text.partition("://")
        scheme, _, driver = prefix.lower().partition("+")
        # Both are shown in errors, so they must be words: a password may have come into their place.
        if not separator or not re.fullmatch(r"[a-z][a-z0-9.\-]*(\+[a-z][a-z0-9._\-]*)?", prefix.lower()):
            raise InvalidSetting("url", "...", SHAPE, "this is no database URL")
        shown = f"{prefix}://..."
        parts = taken_apart(text)
        if parts is None:
            raise InvalidSetting("url", shown, SHAPE, f"host or port cannot be read; {QUOTING}")
        if parts.fragment or "#" in text:
            raise InvalidSetting("url", shown, SHAPE, f"a URL of a database has no part behind #; {QUOTING}")
        if "@" in parts.path + parts.query and scheme != "sqlite":
            # Most likely a password with / or ? in it, the rest of which would be taken for a database's name.
            raise InvalidSetting("url", shown, SHAPE, f"there is an @ behind the host; {QUOTING}")
        if parts.port == 0:
            raise InvalidSetting("url", shown, "a port from 1 to 65535", "the port is 0")
        return cls(
            scheme=scheme,
            driver=driver or None,
            user=decoded(parts.username),
            password=decoded(parts.password),
            host=decoded(parts.hostname) or None,
            port=parts.port,
            database=unquote(parts.path[1:]),
            options=options_of(parts.query, shown),
        )

    def typed(self, known: Mapping[str, Parser]) -> dict[str, Any]:
        """Return the options as values of their types.

        Args:
            known: for each option there is, what reads it.

        Raises:
            InvalidSetting: an option is unknown (the nearest is named), or its value cannot be read.
        """
        values: dict[str, Any] = {}
        for name, value in self.options.items():
            read = known.get(name)
            if read is None:
                raise unknown_option(name, known)
            values[name] = read(name, value)
        return values

    def __str__(self) -> str:
        """Return the URL with the password and what else is secret left out."""
        driver = f"+{self.driver}" if self.driver else ""
        user = quote(self.user, safe="") if self.user is not None else ""
        secret = ":***" if self.password is not None else ""
        at = "@" if user or secret else ""
        host = f"[{self.host}]" if self.host and ":" in self.host else self.host or ""
        port = f":{self.port}" if self.port else ""
        query = "&".join(f"{name}={'***' if name in SECRETS else value}" for name, value in self.options.items())
        path = quote(self.database, safe="/:")
        return f"{self.scheme}{driver}://{user}{secret}{at}{host}{port}/{path}{'?' if query else ''}{query}"

    __repr__ = __str__


def taken_apart(text: str) -> SplitResult | None:
    """Return the parts of a URL; None if they cannot be read.

    The standard library's error quotes what it cannot read, which may be the password: it is in no error of ours, not
    even as its context.
    """
    try:
        parts = urlsplit(text)
        _ = parts.hostname, parts.port
    except ValueError:
        return None
    return parts


def decoded(text: str | None) -> str | None:
    """Decode the percent signs of a part that may be missing."""
    return None if text is None else unquote(text)


def options_of(query: str, shown: str) -> dict[str, str]:
    """Split the query; each option once, each with a value."""
    options: dict[str, str] = {}
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name in options:
            raise InvalidSetting("url", shown, "each option once", f"it has the option {name} twice")
        if not value:
            raise InvalidSetting("url", shown, "option=value", f"its option {name} has no value")
        options[name] = value
    return options


def unknown_option(name: str, known: Mapping[str, Parser]) -> InvalidSetting:
    """Say what is wrong with an option that the driver does not have; its value may be a secret and is not shown."""
    options = ", ".join(sorted(known))
    if name in POOL_SETTINGS:
        why = f"it is a setting of the pool, not of the driver: Pool(url, {name}=...)"
    elif name in MISPLACED:
        why = MISPLACED[name]
    else:
        near = difflib.get_close_matches(name, known, n=1)
        why = f"there is no such option in a URL{f'; did you mean {near[0]}?' if near else ''}"
    return InvalidSetting(name, "...", f"in a URL: {options}", why)


# -- types of options ------------------------------------------------------------------------------------------------
def text(_: str, value: str) -> str:
    """Read an option as it is."""
    return value


def boolean(name: str, value: str) -> bool:
    """Read true or false, as people write them."""
    meaning = {"true": True, "1": True, "yes": True, "on": True, "false": False, "0": False, "no": False, "off": False}
    if value.lower() not in meaning:
        raise InvalidSetting(name, value, "true or false")
    return meaning[value.lower()]


def whole(name: str, value: str) -> int:
    """Read a whole number, 1 or more."""
    if not value.isascii() or not value.isdigit() or int(value) < 1:
        raise InvalidSetting(name, value, "a whole number, 1 or more")
    return int(value)


def seconds(name: str, value: str) -> float:
    """Read a duration in seconds, more than 0."""
    try:
        number = float(value)
    except ValueError:
        number = 0.0
    if not 0 < number < float("inf"):
        raise InvalidSetting(name, value, "seconds, more than 0")
    return number


def one_of(*words: str) -> Parser:
    """Make the reader of an option that has only these values."""

    def read(name: str, value: str) -> str:
        if value.lower() not in words:
            raise InvalidSetting(name, value, "one of " + ", ".join(words))
        return value.lower()

    return read


def zone(_: str, value: str) -> str:
    """Read a time zone; ``+`` in a query means a space, so that ``+02:00`` arrives as ``" 02:00"``."""
    return f"+{value[1:]}" if re.fullmatch(r" \d\d?:\d\d", value) else value


# The ladder of what a connection insists on; each rung has all of those below it.
#   disabled         never TLS
#   preferred        TLS if the server has it; in the clear otherwise, and any certificate is taken
#   required         TLS or no connection; any certificate is taken
#   verify-ca        TLS, by a certificate that ``ssl_ca`` (or the system) vouches for
#   verify-identity  TLS, by such a certificate, made out to this host
SSL_MODES = ("disabled", "preferred", "required", "verify-ca", "verify-identity")

MYSQL_OPTIONS: dict[str, Parser] = {
    "autocommit": boolean,
    "bind_address": text,
    "charset": text,
    "collation": text,
    "connect_timeout": seconds,
    "init_command": text,
    "local_infile": boolean,
    "max_allowed_packet": whole,
    "program_name": text,
    "read_default_file": text,
    "read_default_group": text,
    "read_timeout": seconds,
    "sql_mode": text,
    "ssl": one_of(*SSL_MODES),
    "ssl_ca": text,
    "ssl_cert": text,
    "ssl_disabled": boolean,
    "ssl_key": text,
    "ssl_key_password": text,
    "ssl_verify_cert": boolean,
    "ssl_verify_identity": boolean,
    "time_zone": zone,
    "unix_socket": text,
    "write_timeout": seconds,
}
