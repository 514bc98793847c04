"""What a caller holds: forwarding, the way through, and the end of it."""

from __future__ import annotations

import copy
import pickle
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import millpond
from millpond.drivers.base import Driver
from millpond.lease import Lease, forwarding, is_settable


class Base:
    """A connection with every kind of attribute."""

    __slots__ = ("__dict__", "__weakref__", "in_slot")

    of_class = "class"

    def __init__(self) -> None:
        self.in_slot = 1
        self.plain = 2
        self._number = 3
        self.closed = False

    @property
    def number(self) -> int:
        """A property that can be set."""
        return self._number

    @number.setter
    def number(self, value: int) -> None:
        self._number = value

    @property
    def fixed(self) -> int:
        """A property that cannot be set."""
        return 4

    def echo(self, *args: Any, **kwargs: Any) -> Any:
        """Return what it is called with."""
        return args, kwargs

    def cursor(self) -> str:
        """Make a cursor."""
        return "cursor"

    def commit(self) -> str:
        """Commit."""
        self.plain = "committed"  # type: ignore[assignment]  # it may be anything
        return "ok"

    def rollback(self) -> str:
        """Roll back."""
        self.plain = "rolled back"  # type: ignore[assignment]  # as above
        return "ok"


class BaseDriver(Driver[Base]):
    """Opens those."""

    name = "base"
    tracks_cursors = False

    def open(self, until: float) -> Base:
        """Open one."""
        return Base()

    def is_alive(self, conn: Base, until: float) -> bool:
        """Say yes."""
        return True

    def reset(self, conn: Base, until: float) -> bool:
        """Say yes."""
        return True

    def close(self, conn: Base) -> None:
        """Note it."""
        conn.closed = True


@pytest.fixture
def pool() -> Any:
    """Lend a pool of such connections."""
    with millpond.Pool(BaseDriver(), reset="none") as made:
        yield made


def take(pool: millpond.Pool[Any]) -> Any:
    """Take a connection; whatever it has is its class's affair."""
    return pool.connection()


def test_a_lease_reads_what_the_connection_has(pool: millpond.Pool[Any]) -> None:
    """Attributes of every kind, and methods with whatever they are called with."""
    with pool.connection() as conn:
        assert ("class", 1, 2, 3, 4) == (conn.of_class, conn.in_slot, conn.plain, conn.number, conn.fixed)
        assert ((1,), {"key": 2}) == conn.echo(1, key=2)
        with pytest.raises(AttributeError, match="no_such_thing"):
            _ = conn.no_such_thing


def test_a_lease_sets_what_the_connection_lets_be_set(pool: millpond.Pool[Any]) -> None:
    """What is set arrives at the driver's connection; what it does not let be set is an error, as there."""
    with take(pool) as conn:
        conn.in_slot, conn.plain, conn.number = 10, 20, 30
        raw = conn.driver_connection
        assert (10, 20, 30) == (raw.in_slot, raw.plain, raw.number)
        with pytest.raises(AttributeError):
            conn.fixed = 40
        with pytest.raises(AttributeError):
            conn.no_such_thing = 1


def test_commit_and_rollback_are_the_connection_s_own(pool: millpond.Pool[Any]) -> None:
    """The pool puts nothing in between."""
    with pool.connection() as conn:
        conn.commit()
        assert "committed" == conn.plain
        conn.rollback()
        assert "rolled back" == conn.plain


def test_the_named_way_through(pool: millpond.Pool[Any]) -> None:
    """driver_connection is the object itself, for code that insists on its class."""
    with pool.connection() as conn:
        assert Base is type(conn.driver_connection)
        assert isinstance(conn, Lease)


USES: dict[str, Any] = {
    "cursor": lambda conn: conn.cursor(),
    "commit": lambda conn: conn.commit(),
    "rollback": lambda conn: conn.rollback(),
    "driver_connection": lambda conn: conn.driver_connection,
    "reading": lambda conn: conn.plain,
    "setting": lambda conn: setattr(conn, "plain", 1),
    "a method": lambda conn: conn.echo(),
}


@pytest.mark.parametrize("use", USES)
def test_use_after_return_says_where_it_was_given_back(pool: millpond.Pool[Any], use: str) -> None:
    """Whatever is tried, the error names file, line and function of the return, and what to do."""
    conn = pool.connection()
    conn.close()
    with pytest.raises(millpond.ConnectionReturned) as caught:
        USES[use](conn)
    line = test_use_after_return_says_where_it_was_given_back.__code__.co_firstlineno + 4
    for part in ("no longer yours", f"given back at {__file__}:{line} in test_use", "Take a new one"):
        assert part in str(caught.value)


def test_use_after_the_end_of_a_block_says_where_that_was(pool: millpond.Pool[Any]) -> None:
    """The end of a with block is a return like any other."""
    with pool.connection() as conn:
        pass
    with pytest.raises(millpond.ConnectionReturned, match=f"given back at {__file__}:"):
        conn.commit()


def test_a_stale_lease_does_not_reach_the_next_holder(pool: millpond.Pool[Any]) -> None:
    """A connection that somebody else has by now is out of reach of who had it before."""
    stale = take(pool)
    stale.close()
    with pool.connection() as conn:
        with pytest.raises(millpond.ConnectionReturned):
            stale.plain = "mine"
        assert 2 == conn.plain


def test_without_tracking_the_place_is_not_known_and_not_made_up() -> None:
    """The error is the same but for the place."""
    with millpond.Pool(BaseDriver(), reset="none", track_use=False) as pool:
        conn = pool.connection()
        conn.close()
        with pytest.raises(millpond.ConnectionReturned, match=r"no longer yours\. Take a new one"):
            conn.commit()


def test_release_gives_back_and_refuses_what_is_not_its_own(pool: millpond.Pool[Any]) -> None:
    """A lease of another pool, a bare connection or anything else is told so, and stays where it is."""
    conn = pool.connection()
    raw = conn.driver_connection
    with millpond.Pool(BaseDriver(), name="another") as other:
        with pytest.raises(millpond.InvalidSetting, match="did not lend it; it belongs to"):
            other.release(conn)
        assert 1 == pool.stats().leased
    for wrong in (raw, None, "conn"):
        with pytest.raises(millpond.InvalidSetting, match="did not lend it"):
            pool.release(wrong)
    pool.release(conn)
    pool.release(conn)
    assert 1 == pool.stats().idle


def test_discard_gives_up_the_connection(pool: millpond.Pool[Any]) -> None:
    """Who knows that a connection is of no use says so, and its room is free."""
    conn = pool.connection()
    raw = conn.driver_connection
    conn.discard()
    conn.discard()
    conn.close()
    assert (0, {"unclean": 1}) == (pool.stats().size, pool.stats().retired)
    pool.close()
    assert raw.closed


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, pickle.dumps])
def test_neither_pools_nor_leases_are_copied(pool: millpond.Pool[Any], copied: Callable[[Any], object]) -> None:
    """A lease's copy would give the same connection back once more, and two callers would have it."""
    with pytest.raises(TypeError, match=r"a millpond\.Pool cannot be copied or pickled; each process"):
        copied(pool)
    with pool.connection() as conn, pytest.raises(TypeError, match="cannot be copied"):
        copied(conn)


def test_a_lease_shows_what_it_holds(pool: millpond.Pool[Any]) -> None:
    """Its repr names the connection while it holds one, and does not raise afterwards."""
    conn = pool.connection()
    assert repr(conn) == f"<millpond lease of {conn.driver_connection!r}>"
    conn.close()
    assert "<millpond lease, given back>" == repr(conn)


def test_a_kind_of_lease_is_made_for_a_class_of_connection() -> None:
    """Its properties are those that can be set; it is a Lease, and as small as one."""
    kind: type[Any] = forwarding(Base(), Lease)
    assert issubclass(kind, Lease)
    assert () == kind.__slots__
    assert all(isinstance(vars(kind)[name], property) for name in ("in_slot", "plain", "number", "fixed"))
    assert "echo" not in vars(kind)
    assert "commit" not in vars(kind)


@pytest.mark.parametrize(
    ("name", "expected"), [("in_slot", True), ("number", True), ("echo", False), ("of_class", False)]
)
def test_what_a_class_lets_be_set(name: str, expected: bool) -> None:
    """Members and properties can be set by their class; methods and plain class attributes cannot."""
    assert expected == is_settable(Base, name)


# -- cursors, on SQLite, whose classes are written in C ----------------------------------------------------------------
@pytest.fixture
def database(tmp_path: Path) -> Any:
    """Lend a pool of SQLite connections over a small table."""
    with millpond.Pool(f"sqlite:///{tmp_path / 'data.db'}", max_size=1) as made:
        with made.connection() as conn:
            conn.execute("CREATE TABLE t (x)")
            conn.executemany("INSERT INTO t VALUES (?)", [(number,) for number in range(3)])
            conn.commit()
        yield made


class OwnCursor(sqlite3.Cursor):
    """A cursor class of the user's own."""

    def first(self) -> Any:
        """Return the first column of the next row."""
        return self.fetchone()[0]


def test_a_cursor_is_an_instance_of_the_user_s_own_class(database: millpond.Pool[Any]) -> None:
    """An isinstance holds, its own methods work, and fetching is the class's own, not a wrapper's."""
    with database.connection() as conn:
        cursor = conn.cursor(OwnCursor)
        assert isinstance(cursor, OwnCursor)
        cursor.execute("SELECT x FROM t ORDER BY x")
        assert 0 == cursor.first()
        assert sqlite3.Cursor.fetchone is type(cursor).fetchone
        assert sqlite3.Cursor.fetchall is type(cursor).fetchall
        assert [(1,), (2,)] == list(cursor)


def test_a_cursor_s_connection_is_the_lease(database: millpond.Pool[Any]) -> None:
    """Who goes on from a cursor does not get past the pool."""
    with database.connection() as conn:
        assert conn is conn.cursor().connection


@pytest.mark.parametrize("use", ["execute", "fetchone", "fetchall", "__next__"])
def test_a_cursor_is_cut_off_when_its_connection_is_given_back(database: millpond.Pool[Any], use: str) -> None:
    """It can neither send nor fetch afterwards, and says where the connection was given back."""
    with database.connection() as conn:
        cursor = conn.execute("SELECT x FROM t")
    with pytest.raises(millpond.ConnectionReturned, match=f"given back at {__file__}:"):
        getattr(cursor, use)(*(["SELECT 1"] if use == "execute" else []))
    cursor.close()


def test_a_cursor_keeps_its_lease(database: millpond.Pool[Any]) -> None:
    """One that is made in passing works as long as it is held, and its lease is given back with it or reported."""
    cursor = database.connection().cursor()
    assert (3,) == cursor.execute("SELECT COUNT(*) FROM t").fetchone()
    assert 1 == database.stats().leased
    cursor.connection.close()
    assert 0 == database.stats().leased


def test_rows_that_were_fetched_stay(database: millpond.Pool[Any]) -> None:
    """What was read is the reader's, also after the return."""
    with database.connection() as conn:
        rows = conn.execute("SELECT x FROM t ORDER BY x").fetchall()
    assert [(0,), (1,), (2,)] == rows
