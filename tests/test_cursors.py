"""Cursor classes of leases, and what stands in for those that cannot be extended."""

from __future__ import annotations

from typing import Any

import pytest

from millpond import _cursors
from millpond._cursors import CursorClasses, ForwardedCursor
from millpond.errors import ConnectionReturned


class FakeLease:
    """A lease that can be given back."""

    def __init__(self) -> None:
        self.held = True
        self.tracked: list[Any] = []

    @property
    def driver_connection(self) -> str:
        """Return the connection, or say that it was given back."""
        if not self.held:
            raise ConnectionReturned("given back")
        return "connection"

    def _track(self, cursor: Any) -> None:
        self.tracked.append(cursor)


class PlainCursor:
    """A cursor that holds its rows, written in Python."""

    def __init__(self) -> None:
        self.connection: Any = "raw"
        self.rows = [1, 2]
        self.closed = 0

    def execute(self, statement: str) -> PlainCursor:
        """Run."""
        self.statement = statement
        return self

    def fetchone(self) -> int:
        """Fetch."""
        return self.rows.pop(0)

    def close(self) -> None:
        """Close."""
        self.closed += 1


class ClosedKind:
    """A class with a layout of its own, which no subclass of ours can take on: like a closed type written in C."""

    __slots__ = ("statement",)

    def __init_subclass__(cls, **_: Any) -> None:
        raise TypeError("this class is final")

    def execute(self, statement: str) -> ClosedKind:
        """Run."""
        self.statement = statement
        return self

    def fetchone(self) -> int:
        """Fetch."""
        return 7

    def close(self) -> None:
        """Close."""

    def __iter__(self) -> Any:
        return iter([7])

    def __next__(self) -> int:
        return 7


@pytest.fixture
def lease() -> FakeLease:
    """Make a lease."""
    return FakeLease()


def test_a_cursor_becomes_one_of_a_subclass_made_once(lease: FakeLease) -> None:
    """Two cursors of a class are of the same subclass, which has its name; fetching is the class's own function."""
    classes = CursorClasses()
    first, second = classes.lend(PlainCursor(), lease), classes.lend(PlainCursor(), lease)
    assert type(first) is type(second)
    assert isinstance(first, PlainCursor)
    assert "PlainCursor" == type(first).__name__
    assert PlainCursor.fetchone is type(first).fetchone
    assert lease is first.connection


def test_a_cursor_asks_before_it_sends(lease: FakeLease) -> None:
    """After the return a statement is refused before it reaches the driver."""
    cursor = CursorClasses().lend(PlainCursor(), lease)
    assert cursor is cursor.execute("one")
    lease.held = False
    with pytest.raises(ConnectionReturned):
        cursor.execute("two")
    assert "one" == cursor.statement


def test_a_cursor_that_was_cut_off_refuses_everything_but_to_be_closed(lease: FakeLease) -> None:
    """Closing it after the return lets go of what it holds, once; from then on every method says so."""
    cursor = CursorClasses().lend(PlainCursor(), lease)
    lease.held = False
    cursor.close()
    cursor.close()
    assert 1 == cursor.closed
    for use in (lambda: cursor.execute("x"), cursor.fetchone):
        with pytest.raises(ConnectionReturned):
            use()
    assert isinstance(cursor, PlainCursor)


def test_only_cursors_that_fetch_by_themselves_are_tracked(lease: FakeLease) -> None:
    """What holds its rows in memory need not be cut off."""
    CursorClasses(tracked=lambda kind: kind is not PlainCursor).lend(PlainCursor(), lease)
    assert [] == lease.tracked
    cursor = CursorClasses().lend(PlainCursor(), lease)
    assert [cursor] == lease.tracked


def test_a_class_that_cannot_be_extended_is_forwarded(lease: FakeLease) -> None:
    """A look-alike takes its place: isinstance holds, everything works, and it is cut off as well."""
    cursor: Any = CursorClasses().lend(ClosedKind(), lease)
    kinds: list[type[Any]] = [type(cursor), cursor.__class__]
    assert [ForwardedCursor, ClosedKind] == kinds
    assert cursor is cursor.execute("one")
    assert (7, [7], 7, "one") == (cursor.fetchone(), list(cursor), next(cursor), cursor.statement)
    cursor.statement = "two"
    assert "two" == cursor.statement
    with cursor:
        assert repr(cursor).startswith("<")
    lease.held = False
    uses: list[Any] = [lambda: cursor.execute("x"), lambda: cursor.fetchone, cursor.__iter__, cursor.__next__]
    for use in uses:
        with pytest.raises(ConnectionReturned):
            use()
    with pytest.raises(ConnectionReturned):
        cursor.statement = "three"


def test_a_program_that_makes_cursor_classes_without_end_does_not_fill_the_memory(lease: FakeLease) -> None:
    """The classes that were made are forgotten from time to time, and made again."""
    classes = CursorClasses()
    for _ in range(_cursors.CLASSES_MAX + 5):
        kind = type("Made", (PlainCursor,), {})
        assert classes.kind(kind) is not None
    assert len(vars(classes)["_leased"]) <= _cursors.CLASSES_MAX
