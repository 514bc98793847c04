"""What the tests of the drop-in share: DBUtils itself, as the control that shows each loss."""

from __future__ import annotations

from typing import Any

import pytest

from . import fakes
from .control import is_ours, package, pooled

__all__ = ["fakedb", "is_ours", "package", "pooled"]  # fixtures


@pytest.fixture
def fakedb() -> Any:
    """Return a DB-API module that nobody knows."""
    return fakes.module()
