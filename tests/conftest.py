"""Options of the whole test suite.

Nothing is left out of a run but by name: a server that is not on the machine fails the tests that need it, and says
how to get it.
"""

from __future__ import annotations

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the one way to leave a server out."""
    parser.addoption(
        "--without",
        action="append",
        choices=("mariadb", "mysql", "postgresql"),
        default=[],
        metavar="SERVER",
        help="leave out the tests that need this server (mariadb, mysql or postgresql); may be given several times",
    )
