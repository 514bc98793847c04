"""The drop-in with psycopg, by a double of it: what libpq tells, what its socket says, and how a session is renewed."""

from __future__ import annotations

import socket
import types
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

from millpond.dbutils._libpq import RENEW
from millpond.dbutils.pooled_db import PooledDB

from .waiting import let_rest

if TYPE_CHECKING:
    from typing_extensions import Self

IDLE, IN_TRANSACTION = 0, 2


class Connection:
    """A connection with a real socket, whose other end the test has."""

    def __init__(self, of: Any) -> None:
        self.of = of
        self.here, self.there = socket.socketpair()
        self.info = types.SimpleNamespace(transaction_status=IDLE, status=0)
        self.autocommit = False
        self.closed = 0
        self.encoding = "UTF8"
        self.notifies: list[str] = []
        self.notices: list[str] = []
        self.log: list[str] = []

    def fileno(self) -> int:
        """Return the socket's."""
        return self.here.fileno()

    def cursor(self, cursor_factory: Any = None) -> Cursor:
        """Make a cursor."""
        return Cursor(self)

    def commit(self) -> None:
        """End the transaction."""
        self.info.transaction_status = IDLE
        self.log.append("COMMIT")

    def rollback(self) -> None:
        """End the transaction."""
        self.info.transaction_status = IDLE
        self.log.append("ROLLBACK")

    def close(self) -> None:
        """Close the socket."""
        self.closed = 1
        self.here.close()


class Cursor:
    """Runs everything, with no rows for an answer; fails when the other end is closed."""

    description = None
    name = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __init__(self, con: Connection) -> None:
        self.con = con

    def execute(self, statement: str) -> None:
        """Note it, and begin a transaction as the driver does."""
        self.con.here.setblocking(False)
        try:
            if self.con.here.recv(100) == b"":  # a notification is taken, the end of the link is not
                self.con.info.status = 1
                raise self.con.of.OperationalError("server closed the connection unexpectedly")
        except BlockingIOError:
            self.con.log.append(statement)
        else:
            self.con.log.append(statement)
        if not self.con.autocommit:
            self.con.info.transaction_status = IN_TRANSACTION

    def close(self) -> None:
        """Do nothing."""


@pytest.fixture
def psycopg2() -> Iterator[Any]:
    """Return a module that passes for psycopg2."""
    made: Any = types.ModuleType("psycopg2")
    made.apilevel, made.threadsafety = "2.0", 2
    made.DatabaseError = type("DatabaseError", (Exception,), {})
    for name in ("OperationalError", "InterfaceError", "InternalError"):
        setattr(made, name, type(name, (made.DatabaseError,), {}))
    made.extensions = types.SimpleNamespace(cursor=Cursor)
    made.connections = []

    def connect(**_: Any) -> Connection:
        made.connections.append(Connection(made))
        return made.connections[-1]  # type: ignore[no-any-return]  # a module is anything

    made.connect = connect
    yield made
    for con in made.connections:
        con.here.close()
        con.there.close()


def test_a_session_is_renewed_at_its_return(psycopg2: Any) -> None:
    """The next borrower finds nothing of the one before, and what setsession has set."""
    pool = PooledDB(psycopg2, setsession=["SET timezone TO 'UTC'"])
    with pool.connection() as db:
        db.cursor().execute("SET search_path TO mine")
        db.commit()
    (con,) = psycopg2.connections
    renewed = ["ROLLBACK", RENEW, "SET timezone TO 'UTC'"]
    assert ["SET timezone TO 'UTC'", "COMMIT", "SET search_path TO mine", "COMMIT", *renewed] == con.log
    assert not con.autocommit
    pool.close()


def test_an_untouched_session_costs_nothing(psycopg2: Any) -> None:
    """A connection that was taken and not used goes back as it is."""
    pool = PooledDB(psycopg2)
    pool.connection().close()
    assert [] == psycopg2.connections[0].log
    pool.close()


def test_a_link_that_has_ended_is_not_handed_out(psycopg2: Any) -> None:
    """Its socket says so; the program sees a new connection."""
    pool = PooledDB(psycopg2)
    pool.connection().close()
    psycopg2.connections[0].there.close()
    let_rest()
    assert psycopg2.connections[0] is not pool.connection().dbapi_connection
    pool.close()


def test_a_notification_is_no_end(psycopg2: Any) -> None:
    """There is something to be read, and the server still answers: the connection is used on."""
    pool = PooledDB(psycopg2)
    pool.connection().close()
    psycopg2.connections[0].there.send(b"a notification")
    let_rest()
    db = pool.connection()
    assert psycopg2.connections[0] is db.dbapi_connection
    db.close()
    pool.close()


def test_maxusage_does_not_cut_a_transaction(psycopg2: Any) -> None:
    """What libpq says of the transaction decides."""
    pool = PooledDB(psycopg2, maxusage=2)
    db = pool.connection()
    for number in range(5):
        db.cursor().execute(f"INSERT {number}")
    db.commit()
    db.close()
    assert 1 == len(psycopg2.connections)
    assert psycopg2.connections[0] is not pool.connection().dbapi_connection
    pool.close()
