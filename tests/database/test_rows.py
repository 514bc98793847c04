"""What rows become, and what is said when they cannot."""

from __future__ import annotations

import collections
import dataclasses
import pickle
import weakref
from typing import Any, NamedTuple

import pytest

from millpond import NamedRow, NoRow, RowMismatch, TooManyRows
from millpond._database import rows

SQL = "SELECT 1"
ROWS = [(1, "ada"), (2, "bob")]
COLUMNS = (("id",), ("name",))


@dataclasses.dataclass
class Person:
    """Has a default, and a field that is no argument."""

    name: str
    id: int
    age: int = 7
    label: str = dataclasses.field(init=False, default="")


class Pair(NamedTuple):
    """Has the columns in another order."""

    name: str
    id: int


def shaped(into: Any, columns: Any = COLUMNS, found: Any = ROWS) -> list[Any]:
    """Shape two rows."""
    return rows.shaped(found, into, columns, SQL)


def test_rows_become_what_is_asked_for() -> None:
    """Tuples, lists, dicts, named tuples, dataclasses and callables all get the columns by name."""
    assert ROWS == shaped(None)
    assert ROWS == shaped(tuple, found=[list(row) for row in ROWS])
    assert [[1, "ada"], [2, "bob"]] == shaped(list)
    assert [{"id": 1, "name": "ada"}, {"id": 2, "name": "bob"}] == shaped(dict)
    assert [Pair("ada", 1), Pair("bob", 2)] == shaped(Pair)
    assert [Person("ada", 1), Person("bob", 2)] == shaped(Person)
    assert ["1 ada", "2 bob"] == shaped(lambda **row: f"{row['id']} {row['name']}")


def test_a_named_row_is_a_tuple_with_attributes_that_pickles() -> None:
    """Its values are found by name and by position, also after a trip through pickle."""
    first = shaped(NamedRow)[0]
    assert (1, "ada", (1, "ada")) == (first.id, first.name, first)
    assert isinstance(first, NamedRow)
    copy = pickle.loads(pickle.dumps(first))
    assert ("ada", first) == (copy.name, copy)


@pytest.mark.parametrize("into", [dict, NamedRow, Pair, Person, lambda **row: row])
def test_columns_of_one_name_are_refused_but_in_tuples(into: Any) -> None:
    """A name that occurs twice is named; tuples and lists have no names."""
    columns = (("id",), ("id",))
    with pytest.raises(RowMismatch, match="more than one column id: rename") as caught:
        shaped(into, columns)
    assert SQL in str(caught.value)
    assert ROWS == shaped(None, columns)


@pytest.mark.parametrize(
    ("into", "names", "why"),
    [
        (Person, ("id",), "it has no column name"),
        (Person, ("id", "name", "size"), "it has size which it does not take"),
        (Person, ("id", "name", "label"), "has label"),
        (Pair, ("id", "other"), "no column name and has other"),
        (NamedRow, ("count(*)", "x"), r"no attribute can be called count\(\*\)"),
        (5, ("id",), "a class or another callable"),
    ],
    ids=["missing", "too many", "no argument", "named tuple", "no name", "no callable"],
)
def test_columns_that_do_not_fit_are_named(into: Any, names: tuple[str, ...], why: str) -> None:
    """What is missing or one too many is in the message."""
    with pytest.raises(RowMismatch, match=why):
        shaped(into, [(name,) for name in names], [tuple(range(len(names)))])


def test_what_a_function_holds_on_to_is_not_kept() -> None:
    """How rows are made is remembered for classes; a function of this one call goes with it."""

    class Request:
        """What a handler has in hand."""

    request = Request()
    reference = weakref.ref(request)
    assert [request, request] == shaped(lambda request=request, **row: request)
    del request
    assert reference() is None


def test_a_callable_that_cannot_be_hashed_will_do() -> None:
    """Whatever can be called makes a row."""

    class Unhashable:
        __hash__ = None  # type: ignore[assignment]  # as Python has it for what cannot be hashed

        def __call__(self, **row: Any) -> Any:
            return collections.OrderedDict(row)

    assert [{"id": 1, "name": "ada"}, {"id": 2, "name": "bob"}] == shaped(Unhashable())


def test_the_one_row_is_asked_for_with_care() -> None:
    """None, one and several rows are told apart, and so is a statement that has none at all."""
    assert rows.one_of([], COLUMNS, SQL, required=False, first=False) is None
    assert (1, "ada") == rows.one_of(ROWS, COLUMNS, SQL, required=True, first=True)
    with pytest.raises(NoRow):
        rows.one_of([], COLUMNS, SQL, required=True, first=False)
    with pytest.raises(TooManyRows, match="first=True"):
        rows.one_of(ROWS, COLUMNS, SQL, required=False, first=False)
    with pytest.raises(RowMismatch, match="returns no rows"):
        rows.one_of([], None, SQL, required=False, first=False)


def test_one_value_and_one_column_have_one_column() -> None:
    """Two columns where one is expected are named."""
    assert 5 == rows.only_value((5,), SQL, [("a",)])
    assert [5, 6] == rows.only_values([(5,), (6,)], SQL, [("a",)])
    with pytest.raises(RowMismatch, match="returns 2: id, name"):
        rows.only_value((1, 2), SQL, COLUMNS)
    with pytest.raises(RowMismatch, match="returns 2: id, name"):
        rows.only_values(ROWS, SQL, COLUMNS)
    with pytest.raises(RowMismatch, match="returns no rows"):
        rows.only_values([], SQL, None)
