"""What the tests of the drop-in on real servers share: a scene with one table, and DBUtils itself as the control."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import pymysql
import pytest

from millpond.testing import ScratchServer
from tests.dbutils.control import is_ours, package, pooled

from .scenes import Scene

__all__ = ["is_ours", "package", "pool_of", "pooled", "scene"]  # fixtures


@pytest.fixture
def scene(server: ScratchServer, schema: str) -> Iterator[Scene]:
    """Return each server in turn, with a table ``x (id, v)`` in a schema of its own."""
    with contextlib.ExitStack() as closing:
        yield Scene(server, schema, closing)


@pytest.fixture
def pool_of(pooled: ModuleType, scene: Scene) -> Iterator[Callable[..., Any]]:
    """Return a function that makes a pool on the scene's schema; closed after the test."""
    with contextlib.ExitStack() as closing:

        def make(creator: Any = pymysql, **settings: Any) -> Any:
            pool = pooled.PooledDB(creator, **{**scene.args, **settings})
            closing.callback(pool.close)
            return pool

        yield make
