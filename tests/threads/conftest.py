"""What the tests of the thread shell share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from millpond.testing.fake_driver import FakeDriver


@pytest.fixture
def driver() -> Iterator[FakeDriver]:
    """Lend a driver that does as it is told; at the end it must have seen nothing that no pool must do."""
    made = FakeDriver()
    yield made
    made.shut_down()
    assert [] == made.mishaps
