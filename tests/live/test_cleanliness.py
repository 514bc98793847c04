"""The names that are trusted before a parenthesis are the server's own: no user's function is meant by one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pymysql
import pytest

from millpond._sql import cleanliness
from millpond.testing import ScratchServer

ARGUMENTS = ("", "0", "0, 0", "0, 0, 0")  # never 1: SLEEP() is one of the names
MOVED = {"MD5", "SHA", "SHA1"}  # out of MySQL 9.6, into a component: of what is not seen, see the list itself
WRONG_COUNT = 1318  # of arguments, of a function that takes none: a user's was meant


@pytest.fixture
def root(
    server: ScratchServer, schema: str, as_root: Callable[[ScratchServer], pymysql.Connection[Any]]
) -> pymysql.Connection[Any]:
    """Return a connection that may make functions, in a schema of its own."""
    connection = as_root(server)
    connection.select_db(schema)
    return connection


def calls(brand: cleanliness.Brand) -> Iterator[tuple[str, str]]:
    """Return each name that is trusted on a brand of server, with what may stand between it and the parenthesis."""
    names = cleanliness._HARMLESS[brand]
    for name in sorted(names.anywhere):
        yield from ((name, ""), (name, " "))
    for name in sorted(names.without_space - names.anywhere):
        yield name, ""


def calls_function(root: pymysql.Connection[Any], name: str, gap: str) -> bool:
    """Say whether a user's function of this name is called, with whatever arguments."""
    with root.cursor() as cursor:
        cursor.execute("SET @called = 0")
        for arguments in ARGUMENTS:
            try:
                cursor.execute(f"SELECT {name}{gap}({arguments})")
            except pymysql.MySQLError as error:
                if error.args[0] == WRONG_COUNT:
                    return True
        cursor.execute("SELECT @called")
        ((called,),) = cursor.fetchall()
    return bool(called)


def make_function(root: pymysql.Connection[Any], name: str) -> None:
    """Make a function of this name that leaves something in the session."""
    with root.cursor() as cursor:
        cursor.execute(f"CREATE FUNCTION `{name}`() RETURNS INT NO SQL BEGIN SET @called = 1; RETURN 1; END")


def test_a_harmless_name_before_a_parenthesis_is_the_server_s_own(
    server: ScratchServer, root: pymysql.Connection[Any]
) -> None:
    """With a user's function under each name, none of them is called by it."""
    wanted = list(calls(server.kind))
    for name in sorted({name for name, _ in wanted} | {"NOBODYS"}):
        make_function(root, name)
    called = {name for name, gap in wanted if calls_function(root, name, gap)}
    assert (MOVED if server.kind == "mysql" else set()) == called
    assert calls_function(root, "NOBODYS", " "), "this would not notice a call"
    assert calls_function(root, "COUNT", " "), "a name of the server's own is somebody else's where a space follows"
