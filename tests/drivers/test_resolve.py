"""What a pool can be made of: each way finds its adapter, and each mistake is named with its remedy."""

from __future__ import annotations

import asyncio
import json
import logging
import sqlite3
import sys
import traceback
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pymysql
import pytest

import millpond
from millpond.drivers import Driver, resolve
from millpond.drivers.aiomysql import AiomysqlDriver
from millpond.drivers.asyncmy import AsyncmyDriver
from millpond.drivers.dbapi import DbapiDriver
from millpond.drivers.found import FoundDriver
from millpond.drivers.pymysql import PyMySQLDriver
from millpond.drivers.sqlite import SQLiteDriver
from millpond.errors import DriverMissing, DriverUnsuitable, InvalidSetting
from millpond.testing import FakeDriver

SECRET = "hunter2"
NOWHERE = f"mysql+pymysql://u:{SECRET}@127.0.0.1:1/d"  # nobody listens on port 1


async def connect_in_a_loop() -> None:
    """Stand for the ``connect`` of an asyncio driver."""
    await asyncio.sleep(0)


class TestEachWay:
    """Sources that are right."""

    @pytest.mark.parametrize(
        ("source", "adapter"),
        [
            ("sqlite://", SQLiteDriver),
            ("sqlite+sqlite3:///x.db", SQLiteDriver),
            ("mysql+pymysql://h/d", PyMySQLDriver),
            ("MariaDB+PyMySQL://h/d", PyMySQLDriver),
            ("mysql://h/d", PyMySQLDriver),
            (sqlite3, SQLiteDriver),
            (pymysql, PyMySQLDriver),
            (FakeDriver().module, DbapiDriver),
            (lambda: None, FoundDriver),
        ],
    )
    def test_the_adapter_is_found(self, source: Any, adapter: type[Any]) -> None:
        """A URL, a module and a callable each find the adapter that is meant for them."""
        assert adapter is type(resolve(source))

    def test_an_adapter_is_taken_as_it_is(self) -> None:
        """An adapter that was made before is used as it is."""
        driver = FakeDriver()
        assert resolve(driver) is driver

    @pytest.mark.parametrize("name", ["sqlite", "sqlite3", "SQLite"])
    def test_a_callable_whose_driver_is_named(self, name: str) -> None:
        """A callable's adapter can be named, by any name that the driver goes by."""
        assert SQLiteDriver is type(resolve(lambda: sqlite3.connect(":memory:"), driver=name))

    def test_a_callable_is_known_by_its_first_connection(self, tmp_path: Path) -> None:
        """Without a name, the first connection tells which adapter fits."""
        found = resolve(lambda: sqlite3.connect(tmp_path / "found.db", check_same_thread=False))
        assert isinstance(found, FoundDriver)
        assert DbapiDriver is type(found.adapter)
        found.close(found.open(float("inf")))
        assert SQLiteDriver is type(found.adapter)
        assert found.module is sqlite3

    def test_all_that_an_adapter_offers_is_handed_on(self, tmp_path: Path) -> None:
        """The adapter found takes over everything that a pool may ask, but for opening connections."""
        found = resolve(lambda: sqlite3.connect(tmp_path / "handed.db", check_same_thread=False))
        assert isinstance(found, FoundDriver)
        found.close(found.open(float("inf")))
        offered = {name for name in dir(Driver) if not name.startswith("_")} - {"open"}
        assert {name: getattr(found.adapter, name) for name in offered} == {
            name: getattr(found, name) for name in offered
        }

    def test_connect_args_win_over_the_url(self, tmp_path: Path) -> None:
        """What is said in Python counts more than what a URL says."""
        url = f"sqlite:///{tmp_path / 'a.db'}?busy_timeout=3&isolation_level=immediate"
        driver = resolve(url, connect_args={"isolation_level": "EXCLUSIVE"})
        conn = driver.open(float("inf"))
        assert ("EXCLUSIVE", 3000) == (conn.isolation_level, *conn.execute("PRAGMA busy_timeout").fetchone())
        driver.close(conn)

    def test_a_password_that_is_a_callable_is_asked_at_each_dial(self, tmp_path: Path) -> None:
        """Passwords that change are asked for whenever a connection is opened."""
        passwords = iter(["one", "two"])
        seen: list[Any] = []

        def connect(*, password: str) -> Any:
            seen.append(password)
            return sqlite3.connect(tmp_path / "asked.db", check_same_thread=False)

        driver = resolve(connect, connect_args={"password": lambda: next(passwords)})
        for _ in range(2):
            driver.close(driver.open(float("inf")))
        assert ["one", "two"] == seen


SOURCES = [
    pytest.param("", "url", "this is no database URL", id="empty"),
    pytest.param("localhost:3306", "url", "scheme[+driver]://", id="no scheme"),
    pytest.param("/var/lib/notes.db", "url", "this is no database URL", id="path"),
    pytest.param(f"mysqll://u:{SECRET}@h/d", "url", "did you mean mysql://?", id="scheme misspelt"),
    pytest.param(f"postgresql://u:{SECRET}@h/d", "url", "Pool(module, connect_args={...})", id="scheme unknown"),
    pytest.param(f"mysql+pymsql://u:{SECRET}@h/d", "driver", "did you mean pymysql?", id="driver misspelt"),
    pytest.param(f"mysql+oursql://u:{SECRET}@h/d", "driver", "Pool(module, connect_args={...})", id="driver unknown"),
    pytest.param("mysql+asyncmy://h/d", "driver", "millpond.AsyncPool", id="asyncio's driver"),
    pytest.param("mysql+sqlite://h/d", "driver", "it does not go with mysql://", id="driver of another scheme"),
    pytest.param("sqlite+pymysql:///x", "driver", "with mysql or mariadb://", id="scheme of another driver"),
    pytest.param("mysql+dbapi://h/d", "driver", "takes none", id="no URLs"),
    pytest.param(f"mysql://u:{SECRET}@h/d?chraset=x", "chraset", "did you mean charset?", id="option misspelt"),
    pytest.param("sqlite:///x.db?timeot=3", "timeot", "busy_timeout", id="option of SQLite misspelt"),
    pytest.param("sqlite://x.db", "url", "a path begins with the third /", id="SQLite with a host"),
    pytest.param("sqlite:///x.db?mode=rwx", "mode", "one of ro, rw, rwc", id="value unknown"),
    pytest.param("sqlite:///x.db?autocommit=on&isolation_level=immediate", "autocommit", "without", id="contradiction"),
    pytest.param(b"sqlite://", "source", "a URL, a DB-API module", id="bytes"),
    pytest.param(None, "source", "a URL, a DB-API module", id="None"),
    pytest.param({"host": "h", "password": SECRET}, "source", "a URL, a DB-API module", id="dict"),
    pytest.param(json, "source", "this module is no DB-API 2 driver", id="a module that is none"),
    pytest.param(sqlite3.connect(":memory:"), "source", "pass what makes one", id="a connection"),
]


@pytest.mark.parametrize(("source", "setting", "said"), SOURCES)
def test_a_wrong_source_is_named(source: Any, setting: str, said: str) -> None:
    """What no pool can be made of is refused when it is made: the setting, the fault and the remedy are told."""
    with pytest.raises(InvalidSetting) as caught:
        millpond.Pool(source)
    assert setting == caught.value.name
    assert said in str(caught.value)
    assert SECRET not in told_by(caught.value)


SETTINGS = [
    pytest.param({"connect_args": [1]}, "connect_args", "a dict of keyword arguments", id="a list"),
    pytest.param({"connect_args": f"password={SECRET}"}, "connect_args", "a dict of keyword arguments", id="text"),
    pytest.param({"connect_args": {1: SECRET}}, "connect_args", "no name", id="a key that is no name"),
    pytest.param({"connect_args": {"db": "a", "database": SECRET}}, "connect_args", "database alone", id="both names"),
    pytest.param({"driver": 3}, "driver", "the name of a driver", id="driver is no name"),
    pytest.param({"driver": "mysqlclient"}, "driver", "pymysql, or nothing", id="driver contradicts the URL"),
    pytest.param({"reset": "rolback"}, "reset", '"rollback"', id="reset misspelt"),
    pytest.param({"reset": 3}, "reset", "a callable that gets the connection", id="reset is a number"),
    pytest.param({"on_connect": 3}, "on_connect", "a statement, a list of statements", id="on_connect is a number"),
    pytest.param({"on_connect": [f"SET @x = '{SECRET}'", ""]}, "on_connect", "something else", id="an empty statement"),
    pytest.param({"observer": 3}, "observer", "a callable that takes an event", id="observer"),
    pytest.param({"track_use": "no"}, "track_use", "True or False", id="track_use"),
    pytest.param({"name": 3}, "name", "text, or None", id="name"),
    pytest.param({"max_size": 0}, "max_size", "1 or more", id="max_size 0"),
    pytest.param({"max_size": -1}, "max_size", "1 or more", id="max_size below 0"),
    pytest.param({"max_size": "3"}, "max_size", "a whole number", id="max_size is text"),
    pytest.param({"max_size": True}, "max_size", "a whole number", id="max_size is a truth"),
    pytest.param({"min_idle": 11}, "min_idle", "at most max_size, which is 10", id="min_idle above max_size"),
    pytest.param({"min_idle": -1}, "min_idle", "0 or more", id="min_idle below 0"),
    pytest.param({"timeout": -0.1}, "timeout", "seconds, 0 or more", id="timeout below 0"),
    pytest.param({"timeout": float("nan")}, "timeout", "seconds, 0 or more", id="timeout is no number"),
    pytest.param({"max_lifetime": 0}, "max_lifetime", "more than 0", id="max_lifetime 0"),
    pytest.param({"connect_timeout": None}, "connect_timeout", "more than 0", id="connect_timeout without end"),
    pytest.param({"max_uses": 0}, "max_uses", "1 or more, or None", id="max_uses 0"),
    pytest.param({"max_waiting": -1}, "max_waiting", "0 or more, or None", id="max_waiting below 0"),
    pytest.param({"idle_order": "random"}, "idle_order", "'lifo', 'fifo'", id="idle_order"),
    pytest.param({"dial": "thread"}, "dial", "'threads', 'caller'", id="dial"),
    pytest.param({"growth": "slow"}, "growth", "'thrifty', 'eager'", id="growth"),
]


@pytest.mark.parametrize(("settings", "setting", "said"), SETTINGS)
@pytest.mark.filterwarnings("ignore:connect_args")  # an old name is warned of, beside what the test is about
def test_a_wrong_setting_is_named(settings: dict[str, Any], setting: str, said: str) -> None:
    """A setting that cannot be is refused when the pool is made, and what is allowed is told."""
    with pytest.raises(InvalidSetting) as caught:
        millpond.Pool(NOWHERE, **settings)
    assert setting == caught.value.name
    assert said in str(caught.value)
    assert SECRET not in told_by(caught.value)


WRONG_FOR_TASKS = [
    pytest.param("mysql://h/d", {"connect_args": {1: SECRET}}, "connect_args", "no name", id="a key that is no name"),
    pytest.param("mysql://h/d", {"driver": 3}, "driver", "the name of a driver", id="driver is no name"),
    pytest.param("mysql+aiomysql://h/d", {"driver": "asyncmy"}, "driver", "aiomysql, or nothing", id="contradiction"),
    pytest.param("mysql+pymysql://h/d", {}, "driver", "use millpond.Pool for it", id="a driver for threads"),
    pytest.param("mysql+AIOMYSLQ://h/d", {}, "driver", "did you mean aiomysql?", id="driver misspelt"),
    pytest.param("mysql+aiosqlite://h/d", {}, "driver", "it does not go with mysql://", id="driver of another scheme"),
    pytest.param("sqlite+AioMySQL:///x", {}, "driver", "with mysql or mariadb://", id="scheme of another driver"),
    pytest.param("mysqll://h/d", {}, "url", "did you mean mysql://?", id="scheme misspelt"),
    pytest.param("postgresql://h/d", {}, "url", "AsyncPool(adapter)", id="scheme unknown"),
    pytest.param(json, {}, "driver", "there is no such asyncio driver", id="a module that is none"),
    pytest.param(sqlite3.connect(":memory:"), {}, "source", "pass what makes one", id="a connection"),
    pytest.param(lambda: None, {}, "driver", "whose connections the callable makes", id="a callable alone"),
    pytest.param(FakeDriver(), {}, "source", "for threads; use millpond.Pool", id="an adapter for threads"),
    pytest.param(None, {}, "source", "an asyncio driver's module", id="None"),
]


@pytest.mark.parametrize(("source", "settings", "setting", "said"), WRONG_FOR_TASKS)
def test_what_no_pool_for_tasks_can_be_made_of_is_named(
    source: Any, settings: dict[str, Any], setting: str, said: str
) -> None:
    """As for threads: the setting, the fault and the remedy are told when the pool is made."""
    with pytest.raises(InvalidSetting) as caught:
        millpond.AsyncPool(source, **settings)
    assert setting == caught.value.name
    assert said in str(caught.value)
    assert SECRET not in told_by(caught.value)


def test_settings_of_an_adapter_are_not_lost() -> None:
    """What an adapter was made without cannot be added by the pool, which says so."""
    for settings in ({"connect_args": {"password": SECRET}}, {"driver": "pymysql"}, {"reset": "always"}):
        with pytest.raises(InvalidSetting, match="when that is made") as caught:
            millpond.Pool(FakeDriver(), **settings)
        assert SECRET not in told_by(caught.value)


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (lambda: None, "returned None"),
        (lambda: "a connection", "of the class str"),
        (connect_in_a_loop, "for millpond.AsyncPool"),
    ],
)
@pytest.mark.parametrize("driver", [None, "pymysql", "mysqlconnector"])
def test_a_callable_that_makes_no_connection(made: Callable[[], Any], said: str, driver: str | None) -> None:
    """What a callable returns must be a connection; what it is instead is told to the first caller, at once."""
    with millpond.Pool(made, driver=driver, timeout=60.0) as pool, pytest.raises(DriverUnsuitable, match=said):
        pool.connection()


def test_what_connecting_raises_is_the_callers() -> None:
    """The mistakes of a callable, of its arguments and of ``on_connect`` reach the first caller as they are."""
    with millpond.Pool(lambda: 1 / 0) as pool, pytest.raises(ZeroDivisionError):
        pool.connection()
    wrong: millpond.Pool[Any] = millpond.Pool(pymysql, connect_args={"hots": "h", "password": SECRET})
    with wrong, pytest.raises(TypeError, match="hots") as caught:
        wrong.connection()
    assert SECRET not in told_by(caught.value)
    with millpond.Pool("sqlite://", on_connect="SELEKT 1") as pool, pytest.raises(sqlite3.OperationalError):
        pool.connection()
    assert 0 == pool.stats().size


def ignored(*_: Any) -> None:
    """Do nothing."""


class TestMissingDrivers:
    """Drivers that are not installed."""

    @pytest.mark.parametrize(
        ("source", "module", "extra"),
        [
            ("mysql+pymysql://h/d", "pymysql", "pymysql"),
            ("mysql+mysqlclient://h/d", "MySQLdb", "mysqlclient"),
            ("mysql+mysqldb://h/d", "MySQLdb", "mysqlclient"),
            ("mysql+mysqlconnector://h/d", "mysql", "mysqlconnector"),
        ],
    )
    def test_the_extra_is_named(self, source: str, module: str, extra: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """The message has the very command that installs what is missing."""
        monkeypatch.setitem(sys.modules, module, None)
        monkeypatch.setitem(sys.modules, f"{module}.connector", None)
        with pytest.raises(DriverMissing) as caught:
            millpond.Pool(source)
        assert f'pip install "millpond[{extra}]"' in str(caught.value)
        assert isinstance(caught.value, ImportError)

    def test_none_of_a_family(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A URL that leaves the choice of the driver to us needs one of them."""
        for module in ("pymysql", "MySQLdb", "mysql", "mysql.connector"):
            monkeypatch.setitem(sys.modules, module, None)
        with pytest.raises(DriverMissing, match=r"no driver for mysql:// is installed.*millpond\[pymysql\]"):
            millpond.Pool("mysql://h/d")

    def test_a_driver_that_cannot_be_pooled(self) -> None:
        """A module whose connections threads must not share is refused, and says why."""
        module = types.ModuleType("unshared")
        module.__dict__.update(apilevel="2.0", threadsafety=0, connect=lambda: None)
        with pytest.raises(DriverUnsuitable, match="threadsafety=0"):
            millpond.Pool(module)

    @pytest.mark.parametrize(("name", "adapter"), [("asyncmy", AsyncmyDriver), ("aiomysql", AiomysqlDriver)])
    def test_a_driver_for_tasks_without_its_private_parts(
        self, name: str, adapter: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It could not be listened to, so that dirt would pass for clean: what it lacks is told."""
        monkeypatch.setattr(f"{name}.connection.Connection", object)
        kind: Any = type("Fresh", (adapter,), {"_class": None})
        with pytest.raises(DriverUnsuitable, match=rf"version of {name} .* it lacks .*_write_bytes"):
            kind.connection_class()

    @pytest.mark.parametrize("driver", [None, "dbapi"])
    def test_a_connection_of_a_driver_that_cannot_be_pooled_is_closed(
        self, driver: str | None, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A callable's driver is seen in its first connection, which is not left open."""
        module = types.ModuleType("unshared")
        module.__dict__.update(apilevel="2.0", threadsafety=0, OperationalError=Exception)
        monkeypatch.setitem(sys.modules, "unshared", module)
        closed: list[bool] = []
        methods = {"__module__": "unshared", "cursor": ignored, "close": lambda _: closed.append(True)}
        kind = type("Connection", (), methods)
        with millpond.Pool(kind, driver=driver) as pool, pytest.raises(DriverUnsuitable, match="threadsafety=0"):
            pool.connection()
        assert [True] == closed


class TestPasswords:
    """A password is in nothing that a pool shows."""

    def test_in_no_repr(self) -> None:
        """Neither a pool nor its adapter, statistics or settings show it."""
        for source, arguments in ((NOWHERE, None), (pymysql, {"password": SECRET, "host": "h"})):
            pool: millpond.Pool[Any] = millpond.Pool(source, connect_args=arguments)
            with pool:
                assert SECRET not in f"{pool!r} {pool} {pool.stats()!r}"
                assert SECRET not in repr(resolve(source, connect_args=arguments))

    def test_in_no_error_and_no_log(self, caplog: pytest.LogCaptureFixture) -> None:
        """Neither the driver's error at the first dial, nor a time-out and its cause, nor any log line has it."""
        caplog.set_level(logging.DEBUG)
        pool: millpond.Pool[Any] = millpond.Pool(NOWHERE)
        with pool, pytest.raises(pymysql.err.OperationalError) as refused:
            pool.connection()
        assert SECRET not in told_by(refused.value)
        assert SECRET not in caplog.text

    def test_in_no_time_out(self, caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
        """When the server has gone away, the time-out and the driver's error behind it do not have it either."""
        caplog.set_level(logging.DEBUG)
        there = iter([True])

        def connect(**arguments: Any) -> Any:
            if next(there, False):
                return sqlite3.connect(tmp_path / "there.db", check_same_thread=False)
            return pymysql.connect(**arguments)

        where = {"host": "127.0.0.1", "port": 1, "user": "u", "password": SECRET}
        with millpond.Pool(connect, connect_args=where, max_size=1, fail_after=0.0) as pool:  # told at once, not late
            with pool.connection() as conn:
                conn.driver_connection.close()
            with pytest.raises(millpond.PoolTimeout, match="server unreachable") as late:
                pool.connection()
        assert isinstance(late.value.__cause__, pymysql.err.OperationalError)
        assert SECRET not in told_by(late.value)
        assert SECRET not in caplog.text


def told_by(error: BaseException) -> str:
    """Return all that an error and those behind it would tell in a log, but for the source lines of a traceback."""
    told: list[str] = []
    seen: BaseException | None = error
    while seen is not None:
        told += traceback.format_exception_only(type(seen), seen)
        told.append(f"{seen!r} {seen.args!r} {seen.__dict__!r}")
        seen = seen.__cause__ or (None if seen.__suppress_context__ else seen.__context__)
    return "\n".join(told)


def test_nothing_is_opened_by_a_pool_that_is_refused(tmp_path: Path) -> None:
    """A wrong setting beside a right source leaves nothing behind, not even a file."""
    with pytest.raises(InvalidSetting):
        millpond.Pool(f"sqlite:///{tmp_path / 'no.db'}", max_size=0)
    assert [] == list(tmp_path.iterdir())


def test_other_packages_bring_adapters_for_tasks_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Found by a driver's name and by a scheme, and named among those that there are."""
    (tmp_path / "brought.py").write_text(
        "from millpond.drivers.aiosqlite import AiosqliteDriver\n\n\n"
        "class Brought(AiosqliteDriver):\n    name = 'brought'\n"
    )
    info = tmp_path / "brought-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: brought\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[millpond.async_drivers]\nbroughtlite = brought:Brought\n")
    monkeypatch.syspath_prepend(str(tmp_path))

    async def main() -> None:
        for source, driver in (("broughtlite://", None), ("sqlite://", "broughtlite")):
            async with millpond.AsyncPool(source, driver=driver) as pool, pool.connection() as conn:
                assert (1,) == await (await conn.execute("SELECT 1")).fetchone()
                assert "brought" == pool.driver.name

    asyncio.run(main())
    with pytest.raises(InvalidSetting, match="asyncmy, aiomysql, aiosqlite, broughtlite"):
        millpond.AsyncPool("sqlite://", driver="brougthlite")
