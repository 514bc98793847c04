"""What type checkers see of a database; never run, checked by mypy and pyright."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from millpond import Database, Done, NamedRow, Stream, Transaction

if TYPE_CHECKING:
    from typing_extensions import assert_type

    Row = tuple[Any, ...]

T = TypeVar("T")


@dataclass
class User:
    """A class for rows."""

    id: int
    name: str


class Pair(NamedTuple):
    """A named tuple for rows."""

    id: int
    name: str


def label(*, id: int, name: str) -> str:  # noqa: A002  as the column
    """Return something made of a row."""
    return f"{id} {name}"


def rows(db: Database) -> None:
    """One row is what ``into`` makes, or None unless it is required."""
    assert_type(db.select_row("SELECT 1"), Row | None)
    assert_type(db.select_row("SELECT 1", required=True), Row)
    assert_type(db.select_row("SELECT 1", into=User), User | None)
    assert_type(db.select_row("SELECT 1", ("x",), into=User, required=True), User)
    assert_type(db.select_row("SELECT 1", into=Pair, first=True), Pair | None)
    assert_type(db.select_row("SELECT 1", {"id": 1}, into=dict), dict[str, Any] | None)
    assert_type(db.select_row("SELECT 1", into=dict, required=True), dict[str, Any])
    assert_type(db.select_row("SELECT 1", into=list, required=True), list[Any])
    assert_type(db.select_row("SELECT 1", into=label), str | None)
    assert_type(db.select_row("SELECT 1", into=NamedRow, required=True), NamedRow)


def rows_that_may_be_required(db: Database, required: bool) -> None:
    """What is not known before it is run may be None."""
    assert_type(db.select_row("SELECT 1", required=required), Row | None)
    assert_type(db.select_row("SELECT 1", into=dict, required=required), dict[str, Any] | None)
    assert_type(db.select_row("SELECT 1", into=User, required=required), User | None)
    assert_type(db.select_value("SELECT 1", into=int, required=required), int | None)


def rows_of_a_kind(db: Database, kind: type[T], make: Callable[..., T]) -> tuple[T | None, T, list[T]]:
    """A function can pass on what it is given."""
    required = db.select_row("SELECT 1", into=make, required=True)
    return db.select_row("SELECT 1", into=kind), required, db.select_rows("SELECT 1", into=kind)


def many_rows(db: Database) -> None:
    """Lists and streams have rows of that type."""
    assert_type(db.select_rows("SELECT 1"), list[Row])
    assert_type(db.select_rows("SELECT 1", into=User), list[User])
    assert_type(db.select_rows("SELECT 1", into=dict), list[dict[str, Any]])
    assert_type(db.select_rows("SELECT 1", into=list), list[list[Any]])
    assert_type(db.stream("SELECT 1"), Stream[Row])
    assert_type(db.stream("SELECT 1", into=Pair), Stream[Pair])
    for user in db.stream("SELECT 1", into=User):
        assert_type(user, User)
    with db.stream("SELECT 1", into=dict) as found:
        assert_type(next(found), dict[str, Any])


def values(db: Database) -> None:
    """Values are whatever the database has, or what ``into`` makes of them."""
    assert_type(db.select_value("SELECT 1"), Any)
    assert_type(db.select_value("SELECT 1", into=int), int | None)
    assert_type(db.select_column("SELECT 1"), list[Any])
    assert_type(db.select_column("SELECT 1", into=str), list[str])


def writes(db: Database) -> None:
    """Writes tell what they did."""
    assert_type(db.execute("UPDATE t SET x = 1"), Done)
    assert_type(db.execute_many("UPDATE t SET x = %s", [(1,), (2,)]), int)
    assert_type(db.insert("t", {"x": 1}), Done)
    assert_type(db.insert_many("t", [{"x": 1}]), int)
    assert_type(db.upsert("t", {"x": 1}, key="x"), Done)
    assert_type(db.upsert("t", [{"x": 1}], key=["x"], update=()), Done)


def transactions(db: Database) -> None:
    """A block gives its transaction, and a function's result comes through."""
    with db.transaction(isolation="serializable") as transaction:
        assert_type(transaction, Transaction)
    assert_type(db.run_transaction(lambda: 5), int)


def mistakes(db: Database) -> None:
    """What cannot work is seen before it is run."""
    db.select_row("SELECT 1", into=5)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]
    db.insert("t", ["x"])  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    db.run_transaction(5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
