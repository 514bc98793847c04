"""DBUtils itself as the control: fixtures of tests that show a loss on it, and that the drop-in does not have it."""

from __future__ import annotations

import importlib
from types import ModuleType

import pytest


@pytest.fixture(params=["dbutils", "millpond.dbutils"])
def package(request: pytest.FixtureRequest) -> str:
    """Return DBUtils itself, and then the drop-in, by name."""
    name: str = request.param
    return name


@pytest.fixture
def pooled(package: str) -> ModuleType:
    """Return ``pooled_db`` of each."""
    return importlib.import_module(f"{package}.pooled_db")


@pytest.fixture
def is_ours(package: str) -> bool:
    """Say whether it is the drop-in."""
    return package.startswith("millpond.")
