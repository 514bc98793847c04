"""Roads: ``road`` runs a test for each driver on each server, in the clear; ``tls_road`` under TLS."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest

from millpond.testing import ScratchServer

from .roads import DRIVERS, TABLE, Road, ask


def furnished(road: Road) -> Road:
    """Make the table that tests read and write, with one row."""
    conn = road.root()
    name = f"{road.server.database}.{TABLE}"
    ask(conn, f"DROP TABLE IF EXISTS {name}")
    ask(conn, f"CREATE TABLE {name} (a INT PRIMARY KEY, b INT) ENGINE=InnoDB")
    ask(conn, f"INSERT INTO {name} VALUES (1, 1)")
    return road


@pytest.fixture(params=DRIVERS)
def road(server: ScratchServer, request: pytest.FixtureRequest) -> Iterator[Road]:
    """Return each driver to each server, in the clear."""
    with contextlib.ExitStack() as closing:
        yield furnished(Road(request.param, server, closing))


@pytest.fixture(params=DRIVERS)
def tls_road(server: ScratchServer, request: pytest.FixtureRequest) -> Iterator[Road]:
    """Return each driver to each server, under TLS."""
    with contextlib.ExitStack() as closing:
        yield furnished(Road(request.param, server, closing, tls=True))


@pytest.fixture
def client_road(server: ScratchServer) -> Iterator[Road]:
    """Return mysqlclient to each server, in the clear."""
    with contextlib.ExitStack() as closing:
        yield furnished(Road("mysqlclient", server, closing))
