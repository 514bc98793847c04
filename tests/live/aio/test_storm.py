"""Thousands of cancellations at random, on a real server: the census."""

from __future__ import annotations

import asyncio

import pytest

from millpond.testing import ScratchServer

from .cancellations import weather


@pytest.mark.parametrize(("driver", "count"), [("asyncmy", 5000), ("aiomysql", 1500)])
def test_nothing_is_lost_in_a_storm_of_cancellations(
    mariadb: ScratchServer, driver: str, count: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """No slot is lost, no row is wrong, no session runs for nobody; the census is printed."""
    census = asyncio.run(weather(mariadb, driver, count, seed=2026))
    with capsys.disabled():
        print(f"\n{driver} on MariaDB: {census}")  # noqa: T201  the figures are the point
    assert count <= census.cancelled
    assert census.is_clear, str(census)


@pytest.mark.parametrize("driver", ["asyncmy", "aiomysql"])
def test_nothing_is_lost_on_mysql_either(mysql: ScratchServer, driver: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The same, shorter."""
    census = asyncio.run(weather(mysql, driver, 500, seed=2027))
    with capsys.disabled():
        print(f"\n{driver} on MySQL: {census}")  # noqa: T201  the figures are the point
    assert census.is_clear, str(census)
