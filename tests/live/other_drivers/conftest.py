"""Roads: ``road`` runs a test for each driver on each server, ``polled_road`` for those that show a descriptor.

What tests read, write and call is made once a server: making it anew for each would take most of the time.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pymysql
import pytest

from millpond.testing import ScratchServer
from tests.live.asking import ask

from .roads import DRIVERS, POLLED, TABLE, Road

SET_UP = (
    f"DROP TABLE IF EXISTS {TABLE}",
    "DROP PROCEDURE IF EXISTS leaves_all",
    "DROP FUNCTION IF EXISTS leaves_a_lock",
    "DROP ROLE IF EXISTS road_boss",
    f"CREATE TABLE {TABLE} (a INT PRIMARY KEY, b INT) ENGINE=InnoDB",
    "CREATE ROLE road_boss",
    f"""CREATE PROCEDURE leaves_all() BEGIN
        SET @a = 1; DO GET_LOCK('left', 0); START TRANSACTION;
        INSERT INTO {TABLE} VALUES (9, 9); SIGNAL SQLSTATE '45000';
    END""",
    "CREATE FUNCTION leaves_a_lock() RETURNS INT DETERMINISTIC NO SQL RETURN GET_LOCK('left', 0)",
)


@pytest.fixture(scope="session")
def furnished(server: ScratchServer) -> Iterator[ScratchServer]:
    """Return each server in turn, with a table, a role, a function and a procedure."""
    with pymysql.connect(**server.connect_args(user="root", socket=True), autocommit=True) as root:
        ask(root, f"USE {server.database}")
        for statement in SET_UP:
            ask(root, statement)
        grantee = f"SELECT CONCAT(QUOTE(User), '@', QUOTE(Host)) FROM mysql.user WHERE User = '{server.user}'"
        ask(root, f"GRANT road_boss TO {ask(root, grantee)[0][0]}")
        yield server
        ask(root, "DROP ROLE road_boss")


def swept(road: Road) -> Road:
    """Have the table hold one row."""
    name = f"{road.server.database}.{TABLE}"
    ask(road.root(), f"DELETE FROM {name}")
    ask(road.root(), f"INSERT INTO {name} VALUES (1, 1)")
    return road


@pytest.fixture(params=DRIVERS)
def road(furnished: ScratchServer, request: pytest.FixtureRequest) -> Iterator[Road]:
    """Return each driver to each server, in the clear."""
    with contextlib.ExitStack() as closing:
        yield swept(Road(request.param, furnished, closing))


@pytest.fixture(params=POLLED)
def polled_road(furnished: ScratchServer, request: pytest.FixtureRequest) -> Iterator[Road]:
    """Return each driver that shows its descriptor to each server, in the clear, through a proxy in this process.

    The other one, mysql-connector-python's C library, also holds the interpreter while it waits, for the proxy too.
    """
    with contextlib.ExitStack() as closing:
        yield swept(Road(request.param, furnished, closing))


@pytest.fixture(params=POLLED)
def polled_tls_road(furnished: ScratchServer, request: pytest.FixtureRequest) -> Iterator[Road]:
    """Return each driver that shows its descriptor to each server, under TLS."""
    with contextlib.ExitStack() as closing:
        yield swept(Road(request.param, furnished, closing, tls=True))


@pytest.fixture
def client_road(furnished: ScratchServer) -> Iterator[Road]:
    """Return mysqlclient to each server, in the clear."""
    with contextlib.ExitStack() as closing:
        yield swept(Road("mysqlclient", furnished, closing))
