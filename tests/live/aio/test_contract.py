"""The contract of asyncio adapters, over each of ours, on whatever it connects to."""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from millpond._core.states import Fault
from millpond.drivers.aio import AsyncDriver, resolve
from millpond.testing import AsyncDriverContract, ScratchServer
from millpond.testing.aio_contract import raised_by
from millpond.testing.contract import SECRET
from tests.live.asking import end_session

from .servers import arguments_of, root


class OnServer(AsyncDriverContract):
    """The contract on a MariaDB, over a driver that is named."""

    __test__ = False
    module: str
    table = "aio_contract"

    @pytest.fixture(autouse=True)
    def _server(self, mariadb: ScratchServer) -> None:
        self.server = mariadb

    def arguments(self, **changes: Any) -> dict[str, Any]:
        """Return what the adapter connects by, with autocommit off as the driver has it."""
        return arguments_of(self.server, autocommit=False) | changes

    def adapter(self, arguments: dict[str, Any], **settings: Any) -> AsyncDriver[Any]:
        """Make the adapter of given arguments."""
        return resolve(importlib.import_module(self.module), connect_args=arguments, **settings)

    def make_driver(self, **settings: Any) -> AsyncDriver[Any]:
        """Make the adapter."""
        return self.adapter(self.arguments(), **settings)

    async def break_connection(self, driver: AsyncDriver[Any], conn: Any) -> None:
        """Have the server end the link, and wait until it has."""
        ((number,),) = await self.run(conn, "SELECT CONNECTION_ID()")
        with root(self.server) as beside:
            end_session(beside, number)

    def driver_with_password(self, password: str) -> AsyncDriver[Any]:
        """Make an adapter that knows a password."""
        return self.adapter(self.arguments(password=password))

    def driver_to_port(self, port: int) -> AsyncDriver[Any]:
        """Make an adapter that leads to a port."""
        return self.adapter(self.arguments(host="127.0.0.1", port=port))

    def driver_asking(self, asked: Callable[[], object]) -> AsyncDriver[Any]:
        """Make an adapter that asks for its password, and has to wait for it."""

        async def password() -> str:
            asked()
            return str(self.arguments()["password"])

        return self.adapter(self.arguments(password=password))

    def test_a_refused_password_is_shown_nowhere(self) -> None:
        """Not in what a refused connect says, either, which is the credentials' fault."""
        driver = self.driver_with_password(SECRET)
        error = asyncio.run(raised_by(driver.family("OperationalError") or Exception, driver.open(self.soon())))
        assert SECRET not in f"{error!r} {error}"
        assert Fault.CREDENTIALS is driver.classify(error)


class TestAsyncmy(OnServer):
    """asyncmy."""

    __test__ = True
    module = "asyncmy"


class TestAiomysql(OnServer):
    """aiomysql."""

    __test__ = True
    module = "aiomysql"


class TestAiosqlite(AsyncDriverContract):
    """aiosqlite, in a file."""

    @pytest.fixture(autouse=True)
    def _file(self, tmp_path: Path) -> None:
        self.url = f"sqlite:///{tmp_path / 'contract.db'}"

    def make_driver(self, **settings: Any) -> AsyncDriver[Any]:
        """Make the adapter."""
        return resolve(self.url, **settings)
