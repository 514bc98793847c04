"""No value gets out of its place: a hundred thousand tries, on a database that would show it.

Each run puts fifty hostile values into one statement, in places of one style, with strings, comments and names that
look like places beside them.  Had any value become a part of the text, the statement would fail, return other columns,
or change the table that is looked at in the end.  Every interpreter tries five thousand values; one of them, under the
profile ``break-out``, a hundred thousand.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from millpond import Database
from millpond._sql.params import Marks, Template
from millpond._sql.tokens import Dialect

TOGETHER = 50
# What opens, closes, escapes or stands for something in one dialect or another, and what looks like it.
CHARACTERS = [*"'\"`\\%:;#?-*/()[]{}@$ \t\r\n\0\x1a\x08sx01aé語𝄞", "\u02bc", "\u2019", "\uff07", "\xa5"]
ATTACKS = [
    "'; DROP TABLE t; --",
    "\\' OR 1=1 -- ",
    "%(a0)s",
    "%s",
    ":a0",
    "x' UNION SELECT 1, 2, 3 --",
    "*/ , 1 /*",
    "\\",
    "''",
]
HOSTILE = st.text(st.sampled_from(CHARACTERS), max_size=12) | st.sampled_from(ATTACKS)
VALUES = st.lists(HOSTILE, min_size=TOGETHER, max_size=TOGETHER)
STYLES = st.sampled_from(["%s", "?", ":a{}", "%(a{})s"])
runs = settings(deadline=None, database=None, suppress_health_check=list(HealthCheck))


@pytest.fixture(scope="module")
def db() -> Iterator[Database]:
    """Return a database with a table of one row, which nobody is to touch."""
    with Database("sqlite://", max_size=1) as database:
        database.execute("CREATE TABLE t (x TEXT)")
        database.insert("t", {"x": "only"})
        yield database


@runs
@given(values=VALUES, style=STYLES)
def test_values_stay_values(db: Database, values: list[str], style: str) -> None:
    """Values come back as they went in, beside texts that are as they were written."""
    places = ", 'a %s :a0 ?' /* %s :a0 ? ' */, ".join(style.format(n) for n in range(TOGETHER - 1))
    listed = values[-1:] * 3
    sql = f'SELECT {places}, (SELECT COUNT(*) FROM t WHERE x IN {style.format("list")}) AS ":a0 %s ?" -- ? %s \''
    named = {f"a{n}": value for n, value in enumerate(values[:-1])} | {"alist": listed}
    row = db.select_row(sql, named if "a" in style else [*values[:-1], listed], required=True)
    assert values[:-1] == list(row[:-1:2])
    assert {"a %s :a0 ?"} == set(row[1:-1:2])
    assert 0 == row[-1]
    assert [("only",)] == db.select_rows("SELECT x FROM t")


@runs
@given(values=VALUES, marks=st.sampled_from([Marks(), Marks("?", doubles_percent=False)]))
def test_a_text_does_not_depend_on_its_values(values: list[str], marks: Marks) -> None:
    """What is sent as text is the same for any two sets of values of one shape."""
    template = Template("SELECT %s, 'x%%' WHERE y IN (%s) AND z = %s", Dialect.MYSQL, marks)
    text, bound = template.bind((values[0], values, values[-1]))
    plain_text, _ = template.bind(("a", ["b"] * len(values), "c"))
    assert plain_text == text
    assert [values[0], *values, values[-1]] == list(bound or ())
