"""Ways to real servers: ``way`` runs a test four times, on MariaDB and MySQL, each in the clear and under TLS."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest

from millpond.testing import ScratchServer

from .ways import Way, with_table


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
