"""Ways to real servers: ``way`` runs a test four times, on MariaDB and MySQL, each in the clear and under TLS."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest

from millpond.testing import ScratchServer
from tests.live.asking import ask

from .dirt import make_spoilable
from .ways import TABLE, Way, with_table


@pytest.fixture(params=["plain", "tls"])
def way(server: ScratchServer, request: pytest.FixtureRequest) -> Iterator[Way]:
    """Return each server in turn, in the clear and under TLS, with a table of one row."""
    with contextlib.ExitStack() as closing:
        yield with_table(Way(server, tls=request.param == "tls", closing=closing))


@pytest.fixture
def plain_way(server: ScratchServer) -> Iterator[Way]:
    """Return each server in turn, in the clear: for what TLS has no part in, and where commands are counted."""
    with contextlib.ExitStack() as closing:
        yield with_table(Way(server, tls=False, closing=closing))


@pytest.fixture
def tls_way(server: ScratchServer) -> Iterator[Way]:
    """Return each server in turn, under TLS."""
    with contextlib.ExitStack() as closing:
        yield with_table(Way(server, tls=True, closing=closing))


@pytest.fixture(scope="session")
def spoilable_ports() -> set[int]:
    """Return the ports of the servers that were made spoilable in this session: it takes them a tenth of a second."""
    return set()


@pytest.fixture(params=["plain", "tls"])
def spoilable(server: ScratchServer, request: pytest.FixtureRequest, spoilable_ports: set[int]) -> Iterator[Way]:
    """Return each server in turn, in the clear and under TLS, with a schema in which traces can be left."""
    with contextlib.ExitStack() as closing:
        way = Way(server, tls=request.param == "tls", closing=closing)
        way.database = f"{server.database}_spoilt"
        if server.port not in spoilable_ports:
            make_spoilable(way)
            spoilable_ports.add(server.port)
        conn = way.raw()
        ask(conn, f"DELETE FROM {TABLE}")
        ask(conn, f"INSERT INTO {TABLE} VALUES (1, 1)")
        yield way
