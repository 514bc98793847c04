"""Real servers for the tests in this folder.

``server`` runs a test on MariaDB and again on MySQL; ``mariadb`` and ``mysql`` are for what is about one of them.
These are started once for a session and shared, so a test must leave them running and their settings as they were;
what a test does to a server of its own, made by ``start_server``, is nobody else's business. Shared servers offer TLS
and take connections without: ``server.url(tls=False)``.
"""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Callable, Iterator
from typing import Any

import pymysql
import pytest

from millpond.testing.servers import Kind, ScratchServer
from tests.live.asking import close_if_open


def _leave_out_if_asked(config: pytest.Config, kind: Kind) -> None:
    left_out: list[str] = config.getoption("--without") or []
    if kind in left_out:
        pytest.skip(f"left out by --without {kind}")


@pytest.fixture(scope="session")
def mariadb(pytestconfig: pytest.Config) -> Iterator[ScratchServer]:
    """Return the session's MariaDB."""
    _leave_out_if_asked(pytestconfig, "mariadb")
    with ScratchServer("mariadb", tls=True) as running:
        yield running


@pytest.fixture(scope="session")
def mysql(pytestconfig: pytest.Config) -> Iterator[ScratchServer]:
    """Return the session's MySQL."""
    _leave_out_if_asked(pytestconfig, "mysql")
    with ScratchServer("mysql", tls=True) as running:
        yield running


@pytest.fixture(scope="session", params=["mariadb", "mysql"])
def server(request: pytest.FixtureRequest) -> ScratchServer:
    """Return each of the session's servers in turn."""
    shared: ScratchServer = request.getfixturevalue(request.param)
    return shared


@pytest.fixture
def start_server(pytestconfig: pytest.Config) -> Iterator[Callable[..., ScratchServer]]:
    """Return a function that starts a server of the test's own, to be killed, filled or restarted at will.

    It takes what :class:`ScratchServer` takes; the servers are closed after the test.
    """
    with contextlib.ExitStack() as servers:

        def start(kind: Kind, **settings: Any) -> ScratchServer:
            _leave_out_if_asked(pytestconfig, kind)
            return servers.enter_context(ScratchServer(kind, **settings))

        yield start


@pytest.fixture
def as_root() -> Iterator[Callable[[ScratchServer], pymysql.Connection[Any]]]:
    """Return a function that gives an autocommitting root connection to a server; closed after the test."""
    with contextlib.ExitStack() as connections:

        def connect(to: ScratchServer) -> pymysql.Connection[Any]:
            connection = pymysql.connect(**to.connect_args(user="root", socket=True), autocommit=True)
            connections.callback(close_if_open, connection)
            return connection

        yield connect


@pytest.fixture
def fresh_schema() -> Iterator[Callable[[ScratchServer], str]]:
    """Return a function that makes an empty schema that a server's ordinary user owns; dropped after the test."""
    with contextlib.ExitStack() as schemas:

        def create(on: ScratchServer) -> str:
            name = f"{on.database}_{secrets.token_hex(6)}"
            _execute_as_root(on, f"CREATE DATABASE `{name}`")
            schemas.callback(_execute_as_root, on, f"DROP DATABASE IF EXISTS `{name}`")
            return name

        yield create


@pytest.fixture
def schema(server: ScratchServer, fresh_schema: Callable[[ScratchServer], str]) -> str:
    """Return the name of an empty schema on ``server``."""
    return fresh_schema(server)


def _execute_as_root(on: ScratchServer, statement: str) -> None:
    if not on.is_running:
        return  # a test's own server, dead by the test's will: its schemas went with it
    arguments = on.connect_args(user="root", socket=True)
    with pymysql.connect(**arguments, autocommit=True) as connection, connection.cursor() as cursor:
        cursor.execute(statement)
