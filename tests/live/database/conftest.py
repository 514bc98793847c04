"""Databases on real servers: ``db`` runs a test on MariaDB and on MySQL, in a schema of its own with one table.

``MILLPOND_TEST_DRIVER`` (mysqlclient, mysqlconnector) chooses another driver than PyMySQL for all of them, where it is
installed: in the environment with the extra ``live``.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from typing import Any

import pymysql
import pytest

from millpond.database import Database
from millpond.testing import ScratchServer

DRIVER = os.environ.get("MILLPOND_TEST_DRIVER", "pymysql")
TABLE = """
    CREATE TABLE accounts (
        id INT PRIMARY KEY, owner VARCHAR(50) NOT NULL, balance INT NOT NULL DEFAULT 0, UNIQUE KEY (owner)
    ) ENGINE=InnoDB
"""


@pytest.fixture
def open_database(server: ScratchServer, schema: str) -> Iterator[Callable[..., Database]]:
    """Return a function that makes a database on ``server``, in the schema of this test; closed after the test."""
    # MySQL has to have seen a user before mysql-connector-python can log in without TLS.
    pymysql.connect(**server.connect_args(tls=False)).close()
    with contextlib.ExitStack() as databases:

        def make(*, port: int | None = None, options: str = "", **settings: Any) -> Database:
            url = server.url(DRIVER, tls=False, port=port).replace(f"/{server.database}?", f"/{schema}?")
            return databases.enter_context(Database(url + options, **settings))

        yield make


@pytest.fixture
def db(open_database: Callable[..., Database]) -> Database:
    """Return a database with an empty table ``accounts``."""
    database = open_database()
    database.execute(TABLE)
    return database
