"""What a type checker knows about pools; mypy reads this file, pytest runs it."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import TYPE_CHECKING, Any

import millpond
from millpond.testing import FakeDriver

if TYPE_CHECKING:
    from typing_extensions import assert_type

    from millpond.testing import FakeConnection


def test_a_pool_of_a_url_needs_no_annotation() -> None:
    """A URL does not say what its connections are: anything can be done with them."""
    with millpond.Pool("sqlite://", max_size=1) as pool, pool.connection() as conn:
        if TYPE_CHECKING:
            assert_type(pool, millpond.Pool[Any])
            assert_type(conn, millpond.Lease[Any])
        assert isinstance(conn.driver_connection, sqlite3.Connection)


def test_a_pool_of_a_callable_lends_what_that_returns(tmp_path: Path) -> None:
    """A lease of what a callable returns knows the connection's class."""

    def connect() -> sqlite3.Connection:
        return sqlite3.connect(tmp_path / "typed.db", check_same_thread=False)

    with millpond.Pool(connect) as pool, pool.connection() as conn:
        if TYPE_CHECKING:
            assert_type(pool, millpond.Pool[sqlite3.Connection])
            assert_type(conn.driver_connection, sqlite3.Connection)
        assert isinstance(conn.driver_connection, sqlite3.Connection)


def test_a_pool_of_an_adapter_lends_its_connections() -> None:
    """An adapter says what its connections are."""
    with millpond.Pool(FakeDriver()) as pool, pool.connection() as conn:
        if TYPE_CHECKING:
            assert_type(pool, millpond.Pool[FakeConnection])
        assert 1 == conn.driver_connection.number
