"""Places and values: what is found in a text, what is bound, and what is refused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from millpond._sql.params import Marks, Misbound, Template
from millpond._sql.tokens import Dialect

FORMAT = Marks()
QMARK = Marks("?", doubles_percent=False, nothing="SELECT {} WHERE 0", rows="VALUES ", no_values=())
CONNECTOR = Marks("%s", doubles_percent=False)

Bound = tuple[str, "Sequence[Any] | None"]


def bind(
    sql: str,
    params: Sequence[Any] | Mapping[str, Any] | None,
    marks: Marks = FORMAT,
    dialect: Dialect = Dialect.MYSQL,
) -> Bound:
    """Bind as a database does."""
    return Template(sql, dialect, marks).bind(params)


BINDINGS: dict[str, tuple[str, Any, Bound]] = {
    "no values": ("SELECT '%' -- %s", None, ("SELECT '%' -- %s", None)),
    "positional": ("a = %s AND b = %s", (1, "x"), ("a = %s AND b = %s", (1, "x"))),
    "question marks": ("a = ? AND b = ?", [1, 2], ("a = %s AND b = %s", [1, 2])),
    "named": ("a = :a AND b = :b_1", {"b_1": 2, "a": 1, "c": 3}, ("a = %s AND b = %s", (1, 2))),
    "named twice": ("a = :x OR b = :x", {"x": 1}, ("a = %s OR b = %s", (1, 1))),
    "pyformat": ("a = %(a)s", {"a": 1}, ("a = %s", (1,))),
    "percent in code": ("a % 2 = %s", (1,), ("a %% 2 = %s", (1,))),
    "percent in a string": ("a LIKE '50%s' AND b = %s", (1,), ("a LIKE '50%%s' AND b = %s", (1,))),
    "percent doubled already": ("a %% 2 = %s", (1,), ("a %% 2 = %s", (1,))),
    "percent without places": ("a LIKE '5%'", (), ("a LIKE '5%%'", ())),
    "colons": ("a = ':x' AND b = `:y` AND c = :z -- :w", {"z": 1}, ("a = ':x' AND b = `:y` AND c = %s -- :w", (1,))),
    "times": ("a > '12:30:00' AND b = :b", {"b": 1}, ("a > '12:30:00' AND b = %s", (1,))),
    "assignment": ("SET @a := :a", {"a": 1}, ("SET @a := %s", (1,))),
    "a list": ("a IN %s", ([1, 2],), ("a IN (%s, %s)", (1, 2))),
    "a list in parentheses": ("a IN (%s) AND b = %s", ((1, 2), 3), ("a IN (%s, %s) AND b = %s", (1, 2, 3))),
    "a named list": ("a IN :l", {"l": {7}}, ("a IN (%s)", (7,))),
    "an empty list": ("a NOT IN %s", ([],), ("a NOT IN (SELECT NULL FROM DUAL WHERE FALSE)", ())),
    "rows": ("(a, b) IN %s", ([(1, 2), (3, 4)],), ("(a, b) IN ((%s, %s), (%s, %s))", (1, 2, 3, 4))),
    "no rows": ("(a, b) IN %s", ([],), ("(a, b) IN (SELECT NULL, NULL FROM DUAL WHERE FALSE)", ())),
    "a function before IN": ("f(a, b) IN (%s)", ([],), ("f(a, b) IN (SELECT NULL FROM DUAL WHERE FALSE)", ())),
    "one value in parentheses": ("a IN (%s)", (5,), ("a IN (%s)", (5,))),
}


@pytest.mark.parametrize(("sql", "params", "expected"), BINDINGS.values(), ids=BINDINGS)
def test_values_are_put_beside_the_text(sql: str, params: Any, expected: Bound) -> None:
    """Places become the driver's marks, lists several of them, and nothing else is touched."""
    assert expected == bind(sql, params)


def test_each_driver_gets_its_own_marks() -> None:
    """SQLite wants question marks and single percent signs, and has casts, names and parameters of its own."""
    sqlite = Dialect.SQLITE
    assert ("a = ? AND b % 2", (1,)) == bind("a = %s AND b % 2", (1,), QMARK, sqlite)
    assert ("a = ? AND b % 2", (1,)) == bind("a = %s AND b %% 2", (1,), QMARK, sqlite)
    assert ("[:x] = ? AND \":y\" = '::'", (1,)) == bind("[:x] = :z AND \":y\" = '::'", {"z": 1}, QMARK, sqlite)
    assert ("a IN (?, ?)", (1, 2)) == bind("a IN %s", ([1, 2],), QMARK, sqlite)
    assert ("(a, b) IN (VALUES (?, ?), (?, ?))", (1, 2, 3, 4)) == bind(
        "(a, b) IN %s", ([(1, 2), (3, 4)],), QMARK, sqlite
    )
    assert ("a IN (SELECT NULL WHERE 0)", ()) == bind("a IN %s", ([],), QMARK, sqlite)
    assert ("SELECT 1", ()) == bind("SELECT 1", None, QMARK, sqlite)


def test_a_cast_is_no_place() -> None:
    """PostgreSQL's double colon is left alone."""
    assert ("a::text = %s", (1,)) == bind("a::text = :a", {"a": 1})


def test_where_a_string_ends_depends_on_the_mode() -> None:
    """A backslash before a quote escapes it, unless the session says that it does not."""
    sql = r"SELECT '\', %s, '\'"
    assert (sql, (1,)) == bind(sql, (1,), dialect=Dialect.MYSQL_NO_BACKSLASH_ESCAPES)
    with pytest.raises(Misbound):
        bind(sql, (1,))


REFUSALS: dict[str, tuple[str, Any, str]] = {
    "too few": ("a = %s AND b = %s", (1,), "2 places for values, and 1 came"),
    "too many": ("a = %s", (1, 2), "1 place for values, and 2 came"),
    "a missing name": ("a = :a AND b = :b", {"a": 1}, "did not come: b"),
    "a sequence for names": ("a = :a", (1,), "names its values"),
    "a mapping for places": ("a = %s", {"a": 1}, "without a name"),
    "a single value": ("a = %s", "x", r"write \(value,\) for a single one"),
    "a number": ("a = %s", 5, "a sequence or a mapping, not int"),
    "two styles": ("a = %s AND b = :b", (1, 2), "use one of the two"),
    "an open string": ("a = %s AND b = 'x", (1,), "never closed; it begins at character 16"),
    "a list where none can be": ("a = %s", ([1, 2],), "a list can only stand right after IN"),
    "a dict as a value": ("a = %s", ({"a": 1},), r"value number 1 is a dict.* as of json\.dumps"),
    "no list after IN": ("a IN %s", (5,), "stands right after IN"),
    "a list within a list": ("a IN %s", ([1, [2]],), "mixes single values and rows"),
    "rows of two lengths": ("(a, b) IN %s", ([(1, 2), (3,)],), "rows of different lengths"),
    "a list in a row": ("(a, b) IN %s", ([(1, [2])],), "no row of values"),
}


@pytest.mark.parametrize(("sql", "params", "why"), REFUSALS.values(), ids=REFUSALS)
def test_what_could_be_read_in_two_ways_is_refused(sql: str, params: Any, why: str) -> None:
    """The message says what is wrong, and has no value in it."""
    with pytest.raises(Misbound, match=why):
        bind(sql, params)


def test_a_driver_that_finds_places_in_strings_is_not_given_any() -> None:
    """mysql-connector takes %s in a string for a place: such a text is refused, not misread."""
    with pytest.raises(Misbound, match="give that string as a value"):
        bind("a = %s AND b = 'x%s'", (1,), CONNECTOR)
    assert ("a = %s AND b LIKE '5%'", (1,)) == bind("a = %s AND b LIKE '5%'", (1,), CONNECTOR)


def test_many_rows_are_checked_without_being_copied() -> None:
    """Rows in order go as they are, named ones are put in order, and a list in one of them is refused."""
    template = Template("INSERT INTO t VALUES (%s, %s)", Dialect.MYSQL, Marks())
    rows = [(1, 2), [3, 4]]
    assert rows is template.bind_rows(rows)
    named = Template("INSERT INTO t VALUES (:a, :b)", Dialect.MYSQL, Marks())
    assert [(1, 2), (3, 4)] == named.bind_rows([{"b": 2, "a": 1}, {"a": 3, "b": 4}])
    with pytest.raises(Misbound, match="2 places"):
        template.bind_rows([(1, 2), (3,)])
    with pytest.raises(Misbound, match="one row of many"):
        template.bind_rows([(1, [2])])
    with pytest.raises(Misbound, match=r"value b is a dict.* as of json\.dumps"):
        named.bind_rows([{"b": {}, "a": 1}])


def test_what_a_driver_would_describe_instead_of_binding_is_refused() -> None:
    """A memoryview goes to drivers that bind its bytes; those of the MySQL family would write its repr."""
    view = memoryview(b"x")
    describing = Marks(takes_views=False)
    assert ("a = ?", (view,)) == bind("a = %s", (view,), Marks("?"))
    with pytest.raises(Misbound, match=r"value number 1 is a memoryview.* give bytes"):
        bind("a = %s", (view,), describing)
    for marks in (Marks(), describing):
        template = Template("INSERT INTO t VALUES (%s)", Dialect.MYSQL, marks)
        if marks.takes_views:
            assert [(view,)] == template.bind_rows([(view,)])
        else:
            with pytest.raises(Misbound, match="memoryview"):
                template.bind_rows([(view,)])
