"""The driver contract, over every adapter that needs no server; those that do are in tests/live."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import pytest

from millpond.drivers import resolve
from millpond.drivers.base import Driver
from millpond.drivers.dbapi import DbapiDriver
from millpond.drivers.sqlite import SQLiteDriver
from millpond.testing.contract import DriverContract
from millpond.testing.fake_driver import FakeDriver


class TestFakeDriver(DriverContract):
    """The fake driver keeps the contract as long as it is told nothing else."""

    tells_clean = False

    @pytest.fixture(autouse=True)
    def _tables(self) -> None:
        self.tables: dict[str, list[Any]] = {}

    def make_driver(self, **settings: Any) -> Driver[Any]:
        """Make the adapter."""
        fake = FakeDriver(tells_clean=self.tells_clean, tells_readable=self.tells_clean)
        fake.tables = self.tables
        # The fake has no settings of its own; its module has them by way of the adapter for any module.
        return DbapiDriver(fake.module, **settings) if settings else fake

    def break_connection(self, conn: Any) -> None:
        """End the link as a server would."""
        conn.alive = False


class TestFakeDriverThatTells(TestFakeDriver):
    """The same with the capabilities switched on."""

    tells_clean = True


class TestSQLite(DriverContract):
    """SQLite in a file, by URL."""

    @pytest.fixture(autouse=True)
    def _file(self, tmp_path: Path) -> None:
        self.url = f"sqlite:///{tmp_path / 'contract.db'}"

    def make_driver(self, **settings: Any) -> Driver[Any]:
        """Make the adapter."""
        return resolve(self.url, **settings)


class TestSQLiteByCallable(DriverContract):
    """SQLite by a callable of the user's: connections that are not watched."""

    @pytest.fixture(autouse=True)
    def _file(self, tmp_path: Path) -> None:
        self.path = tmp_path / "contract.db"

    def make_driver(self, **settings: Any) -> Driver[Any]:
        """Make the adapter."""
        return resolve(lambda: sqlite3.connect(self.path, check_same_thread=False), **settings)


class TestSQLiteByItsClass(DriverContract):
    """SQLite by the adapter's class."""

    @pytest.fixture(autouse=True)
    def _file(self, tmp_path: Path) -> None:
        self.path = tmp_path / "contract.db"

    def make_driver(self, **settings: Any) -> Driver[Any]:
        """Make the adapter."""
        return SQLiteDriver(connect_args={"database": str(self.path)}, **settings)


class TestAnyDbapiDriver(DriverContract):
    """The adapter for any driver, over sqlite3: nothing is known of it but PEP 249."""

    @pytest.fixture(autouse=True)
    def _file(self, tmp_path: Path) -> None:
        self.path = tmp_path / "contract.db"

    def make_driver(self, **settings: Any) -> Driver[Any]:
        """Make the adapter."""
        return DbapiDriver(sqlite3, connect_args={"database": self.path, "check_same_thread": False}, **settings)
