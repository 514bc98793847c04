"""A PostgreSQL for the tests in this folder, and both generations of its driver."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import pytest

from millpond.testing import ScratchPostgreSQL
from tests.dbutils.control import is_ours, package, pooled

from .scenes import Scene

__all__ = ["driver", "is_ours", "package", "pool_of", "pooled", "postgresql", "scene"]  # fixtures


@pytest.fixture(scope="session")
def postgresql(pytestconfig: pytest.Config) -> Iterator[ScratchPostgreSQL]:
    """Return the session's PostgreSQL: shared, so that a test must leave it running and its settings as they were."""
    left_out: list[str] = pytestconfig.getoption("--without") or []
    if "postgresql" in left_out:
        pytest.skip("left out by --without postgresql")
    with ScratchPostgreSQL(options={"max_connections": 60, "deadlock_timeout": "100ms"}) as running:
        yield running


@pytest.fixture(params=["psycopg2", "psycopg"])
def driver(request: pytest.FixtureRequest) -> Any:
    """Return the module of psycopg 2, and of psycopg 3."""
    return importlib.import_module(request.param)


@pytest.fixture
def scene(postgresql: ScratchPostgreSQL, driver: Any) -> Iterator[Scene]:
    """Return a role with a schema of its own, for each driver in turn."""
    with contextlib.ExitStack() as closing:
        yield Scene(postgresql, driver, closing)


@pytest.fixture
def pool_of(pooled: ModuleType, scene: Scene) -> Iterator[Callable[..., Any]]:
    """Return a function that makes a pool of either on the scene's schema; closed after the test."""
    with contextlib.ExitStack() as closing:

        def make(creator: Any = None, **settings: Any) -> Any:
            pool = pooled.PooledDB(creator or scene.driver, **{**scene.args, **settings})
            closing.callback(pool.close)
            return pool

        yield make
