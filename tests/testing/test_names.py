"""What ``millpond.testing`` offers, and what it costs to import it."""

from __future__ import annotations

import subprocess
import sys

import pytest

import millpond.testing


@pytest.mark.parametrize("name", millpond.testing.__all__)
def test_every_name_leads_somewhere(name: str) -> None:
    """Each public name is a class, and is the same one whenever it is asked for."""
    found = getattr(millpond.testing, name)
    assert isinstance(found, type)
    assert found is getattr(millpond.testing, name)
    assert name in dir(millpond.testing)


def test_an_unknown_name_is_an_attribute_error() -> None:
    """A name that is not there is told as Python tells it."""
    with pytest.raises(AttributeError, match="has no attribute 'FakeNetwork'"):
        millpond.testing.FakeNetwork  # noqa: B018  asking is the test


def test_importing_it_imports_none_of_the_tools() -> None:
    """A program that imports the package pays for what it uses, and no driver and no asyncio comes with any of it."""
    look = (
        "import sys, millpond.testing; assert not [n for n in sys.modules if n.startswith('millpond.testing.')];"
        "from millpond.testing import FakeDriver, SimClock, Simulator, DriverContract;"
        "assert not {'asyncio', 'pymysql', 'pytest'} & set(sys.modules)"
    )
    answer = subprocess.run([sys.executable, "-c", look], check=False, capture_output=True, text=True)
    assert (0, "") == (answer.returncode, answer.stderr)
