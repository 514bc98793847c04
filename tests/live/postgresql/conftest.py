"""A PostgreSQL for the tests in this folder, and both generations of its driver."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from typing import Any

import pytest

from millpond.testing import ScratchPostgreSQL


@pytest.fixture(scope="session")
def postgresql(pytestconfig: pytest.Config) -> Iterator[ScratchPostgreSQL]:
    """Return the session's PostgreSQL: shared, so that a test must leave it running and its settings as they were."""
    left_out: list[str] = pytestconfig.getoption("--without") or []
    if "postgresql" in left_out:
        pytest.skip("left out by --without postgresql")
    with ScratchPostgreSQL(options={"max_connections": 40}) as running:
        yield running


@pytest.fixture(params=["psycopg2", "psycopg"])
def driver(request: pytest.FixtureRequest) -> Any:
    """Return the module of psycopg 2, and of psycopg 3."""
    return importlib.import_module(request.param)
