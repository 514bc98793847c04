"""What a new session is like, as its server tells it, and the statements that make a session like it again.

Why: a reset forgets what a dial has set, and settings of a driver do not say all of it (defaults, option files,
``init_connect``).  So the server is asked, once in a while, about a session that was just made: that is the model.

Rules: nothing in here sends anything, or knows a driver.  What is told may be text, bytes or a number, as drivers will
have it.  Every statement means the same under every sql_mode.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from typing import Any, Final

from millpond._sql import tokens
from millpond._sql.cleanliness import Brand

from ._session import brand_of

ASK_SPARED: Final = (
    "SELECT COUNT(*) FROM information_schema.USER_PRIVILEGES"
    " WHERE PRIVILEGE_TYPE IN ('SUPER', 'CONNECTION_ADMIN', 'CONNECTION ADMIN')"
)
_COMMENTS: Final = re.compile(r"--|#|/\*|;|delimiter", re.IGNORECASE)


# What drivers send once they are connected, and we: names, numbers and plain strings only.
_SIMPLE_SET: Final = re.compile(
    r"SET (NAMES '?\w+'?(?: COLLATE '?\w+'?)?(?:, .+)?"
    r"|(?:@@session\.)?(?:autocommit|time_zone|session_track_state_change) = [\w':+-]+(?:, .+)?)"
)


class Facts:
    """The session that a dial made, as the server tells it: the model for every reset.

    Attributes:
        schema: the current one; None for none.
        role: the statement that makes the role be as at connect; None where there are no roles.
        restoring: what a reset forgets, as statements.
        direct: nobody stands between: the server that greeted is the one that answers.
        packet_max: the bytes of a statement that the server refuses, and any that has more.
        takes_writes: the server is not read-only.
        init_connect: what the server runs for a new session, unless its user is spared.
        read_at: when this was asked, on ``time.monotonic``.
    """

    __slots__ = (
        "autocommit",
        "charset",
        "direct",
        "init_connect",
        "packet_max",
        "read_at",
        "restoring",
        "role",
        "schema",
        "takes_writes",
    )

    def __init__(self) -> None:
        self.read_at = float("-inf")
        self.takes_writes = True
        self.init_connect = ""
        self.autocommit = False
        self.charset = ""
        self.direct = True
        self.packet_max = float("inf")
        self.restoring: tuple[str, ...] = ()
        self.role: str | None = None
        self.schema: str | None = None


SQL_MODE_AT: Final = 8  # where the answer to ``Abilities.question`` has the session's sql_mode


class Abilities:
    """What a server of this version knows."""

    __slots__ = ("brand", "isolation", "roles", "tracking")

    def __init__(self, version: str) -> None:
        self.brand: Brand = brand_of(version)
        text = version.removeprefix("5.5.5-") if self.brand == "mariadb" else version
        number = tuple(int(part) for part in re.findall(r"\d+", text)[:3])
        mysql = self.brand == "mysql"
        self.roles = number >= ((8, 0) if mysql else (10, 0, 5))
        self.tracking = number >= ((5, 7, 4) if mysql else (10, 2, 2))
        self.isolation = "transaction_isolation" if mysql and number >= (5, 7, 20) else "tx_isolation"

    @property
    def question(self) -> str:
        """Return the statement that asks for the facts."""
        names = [
            *("@@character_set_client", "@@collation_connection", "@@autocommit", "DATABASE()", "CONNECTION_ID()"),
            *("@@init_connect", "@@global.read_only", "@@max_allowed_packet"),
        ]
        for name in ("sql_mode", "time_zone", self.isolation):
            names += [f"@@session.{name}", f"@@global.{name}"]
        return f"SELECT {', '.join(names)}{', CURRENT_ROLE()' if self.roles else ''}"

    def facts_in(self, row: Sequence[Any], thread: int) -> Facts:
        """Make the model session out of the answer to :attr:`question`.

        Args:
            row: the answer; what follows the facts in it is nobody's business here.
            thread: the number of the connection, as the server that greeted told it.
        """
        facts = Facts()
        told = [None if value is None else as_text(value) for value in row]
        charset, collation, autocommit, facts.schema, number, init_connect, read_only, packet_max = told[:8]
        facts.packet_max = int(packet_max or 0) or facts.packet_max
        facts.charset = charset or ""
        facts.autocommit = autocommit == "1"
        facts.takes_writes = not is_on(read_only)
        facts.direct = number == str(thread)
        facts.init_connect = init_connect or ""
        parts = [f"NAMES {charset} COLLATE {collation}", f"autocommit = {int(facts.autocommit)}"]
        for name, ours_at in (("sql_mode", SQL_MODE_AT), ("time_zone", 10), (self.isolation, 12)):
            ours, general = told[ours_at : ours_at + 2]
            if ours != general:
                parts.append(f"{name} = {quoted(ours or '')}")
        if self.roles:
            facts.role = set_role(told[14] or "NONE", self.brand)
        facts.restoring = (f"SET {', '.join(parts)}",)
        return facts


def limit_of(conn: Any) -> float:
    """Return the bytes of a statement that the server of a connection refuses, as far as that is known."""
    facts: Facts | None = conn.__dict__.get("_millpond_facts")
    return float("inf") if facts is None else facts.packet_max


@functools.lru_cache(maxsize=64)
def abilities_of(version: str) -> Abilities:
    """Return what a server of a version knows."""
    return Abilities(version)


# -- text ------------------------------------------------------------------------------------------------------------
def as_text(value: Any) -> str:
    """Return what a server told as text, however the driver hands it over."""
    return value.decode("utf-8", "replace") if isinstance(value, (bytes, bytearray)) else str(value)


def is_on(value: Any) -> bool:
    """Read a switch as servers and proxies show it; ``read_only`` has more positions than two in MariaDB 12."""
    return as_text(value).upper() not in ("0", "OFF", "NONE", "")


def quoted(text: str) -> str:
    """Return a string literal that means the same under every sql_mode; a backslash has no place in our values."""
    return "'{}'".format(text.replace("\\", "").replace("'", "''"))


def identifier(name: str) -> str:
    """Return a name in backticks."""
    return "`{}`".format(name.replace("`", "``"))


def set_role(active: str, brand: str) -> str:
    """Return the statement that makes *active*, as CURRENT_ROLE() tells it, the active role or roles."""
    if active.upper() == "NONE":
        return "SET ROLE NONE"
    return f"SET ROLE {active}" if brand == "mysql" else f"SET ROLE {identifier(active)}"  # MySQL tells them quoted


def split(statements: str) -> list[str]:
    """Return the single statements of a text in which they are divided by semicolons."""
    return [statements[start:end] for start, end in tokens.split_statements(statements)]


@functools.lru_cache(maxsize=64)
def in_one(statements: tuple[str, ...]) -> list[str]:
    """Join the drivers' own SETs for a new session to one, as far as they stand beside each other and are simple."""
    joined: list[str] = []
    for statement in statements:
        simple = _SIMPLE_SET.fullmatch(statement)
        if simple and joined and _SIMPLE_SET.fullmatch(joined[-1]):
            joined[-1] += f", {simple[1]}"
        else:
            joined.append(statement)
    return joined


def together(statements: Sequence[str], *, allowed: bool) -> list[str]:
    """Join statements that can be sent as one text; one with a comment or a semicolon in it goes alone."""
    texts: list[str] = []
    joins = False
    for statement in statements:
        plain = not _COMMENTS.search(statement)
        if joins and plain and allowed:
            texts[-1] += f";\n{statement}"
        else:
            texts.append(statement)
        joins = plain
    return texts
