"""What the adapters of mysqlclient and mysql-connector-python make of settings and texts; nothing connects here."""

from __future__ import annotations

from typing import Any

import pytest

from millpond.drivers._model_session import Abilities, in_one, is_on, quoted, set_role, split, together
from millpond.drivers._mysqlclient_session import quiet
from millpond.drivers.mysqlclient import MySQLClientDriver
from millpond.errors import InvalidSetting
from millpond.url import URL


def arguments(options: str) -> dict[str, Any]:
    """Return what mysqlclient is given for the options of a URL."""
    told = MySQLClientDriver.arguments_of(URL.parse(f"mysql://u:p@h/d?{options}"))
    return {name: value for name, value in told.items() if name not in ("user", "password", "host", "database")}


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ("ssl=required", {"ssl_mode": "REQUIRED"}),
        ("ssl=verify-ca&ssl_ca=/ca", {"ssl_mode": "VERIFY_CA", "ssl": {"ca": "/ca"}}),
        ("ssl_disabled=true", {"ssl_mode": "DISABLED"}),
        ("connect_timeout=0.2&read_timeout=2.4", {"connect_timeout": 1, "read_timeout": 2}),
    ],
)
def test_options_become_the_drivers_arguments(options: str, expected: dict[str, Any]) -> None:
    """Words for TLS are the library's, and time-outs whole seconds."""
    assert expected == arguments(options)


def test_options_that_contradict_each_other_are_refused() -> None:
    """TLS cannot be required and disabled."""
    with pytest.raises(InvalidSetting, match="contradict"):
        arguments("ssl=required&ssl_disabled=true")


def test_our_statements_go_together() -> None:
    """Statements are joined into one text, but for those in which a separator could be lost."""
    plain = ["SET a = 1", "USE `b`"]
    assert ["SET a = 1;\nUSE `b`"] == together(plain, allowed=True)
    assert plain == together(plain, allowed=False)
    commented = ["SET a = 1", "SET b = 2 -- why", "SET c = 3", "SET d = 4"]
    assert ["SET a = 1", "SET b = 2 -- why", "SET c = 3;\nSET d = 4"] == together(commented, allowed=True)


def test_a_value_is_a_literal_under_every_sql_mode() -> None:
    """A quote is doubled, and a backslash, which may or may not escape, is left out."""
    assert "'it''s'" == quoted("it's\\")


@pytest.mark.parametrize(
    ("shown", "expected"),
    [(1, True), (b"ON", True), ("NO_LOCK_NO_ADMIN", True), (0, False), (b"0", False), ("off", False), (None, False)],
    ids=repr,
)
def test_a_switch_is_read_as_it_is_shown(shown: Any, expected: bool) -> None:
    """Drivers hand it over as a number, as bytes or as text; MariaDB 12 has more than one way to be read-only."""
    assert expected == is_on(shown)


def test_init_connect_is_divided_at_its_semicolons() -> None:
    """A semicolon inside a string divides nothing."""
    assert ["SET @a = ';'", "SET @b = 2"] == split("SET @a = ';'; SET @b = 2;")


@pytest.mark.parametrize(
    ("active", "brand", "statement"),
    [
        ("NONE", "mysql", "SET ROLE NONE"),
        ("`a`@`%`,`b`@`%`", "mysql", "SET ROLE `a`@`%`,`b`@`%`"),
        ("we`ird", "mariadb", "SET ROLE `we``ird`"),
    ],
)
def test_roles_are_set_as_they_were(active: str, brand: str, statement: str) -> None:
    """MySQL tells roles as it wants them, MariaDB tells a bare name."""
    assert statement == set_role(active, brand)


@pytest.mark.parametrize(
    ("version", "roles", "tracking", "isolation"),
    [
        ("5.7.19-log", False, True, "tx_isolation"),
        ("5.7.44", False, True, "transaction_isolation"),
        ("8.0.36", True, True, "transaction_isolation"),
        ("9.7.4-2", True, True, "transaction_isolation"),
        ("5.5.5-10.1.48-MariaDB", True, False, "tx_isolation"),
        ("10.11.19-MariaDB-0+deb12u1", True, True, "tx_isolation"),
        ("5.6.51", False, False, "tx_isolation"),
    ],
)
def test_servers_are_asked_what_they_know(version: str, roles: bool, tracking: bool, isolation: str) -> None:
    """A question to a server names only what its version has."""
    abilities = Abilities(version)
    assert (roles, tracking, isolation) == (abilities.roles, abilities.tracking, abilities.isolation)
    assert roles == ("CURRENT_ROLE()" in abilities.question)


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (("SET NAMES utf8mb4", "SET autocommit = 1"), ["SET NAMES utf8mb4, autocommit = 1"]),
        (
            ("SET NAMES 'utf8mb4' COLLATE 'utf8mb4_bin'", "SET @@session.autocommit = ON", "SET autocommit = 1, a = 2"),
            ["SET NAMES 'utf8mb4' COLLATE 'utf8mb4_bin', @@session.autocommit = ON, autocommit = 1, a = 2"],
        ),
        (
            ("SET NAMES utf8mb4", "SET SESSION sql_mode='ANSI'", "SET autocommit = 1"),
            ["SET NAMES utf8mb4", "SET SESSION sql_mode='ANSI'", "SET autocommit = 1"],
        ),
        (("SET NAMES utf8mb4; DROP TABLE t",), ["SET NAMES utf8mb4; DROP TABLE t"]),
        ((), []),
    ],
)
def test_what_drivers_send_for_a_new_session_is_one_set(said: tuple[str, ...], expected: list[str]) -> None:
    """Simple SETs beside each other become one statement; anything else stays as it is."""
    assert expected == in_one(said)


class OtherLibrary:
    """A class behind connections that is built otherwise."""

    __slots__ = ("room",)


def test_a_driver_that_is_built_otherwise_sends_as_it_does() -> None:
    """Where a quiet connection could not become one of the driver's own, there is none."""

    class Other(OtherLibrary):
        """A driver's connection."""

        __slots__ = ()

    assert [None, None] == [quiet(Other, OtherLibrary), quiet(OtherLibrary, Other)]
