"""No value gets out of its place: whatever is put in comes back, and nothing else happens."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from millpond.database import Database

# What escapes, closes, begins or ends something in one dialect or another.
CHARACTERS = [*"'\"`\\%:;#?-*/() \t\n\0\x1a\x08s0aé語𝄞", "\u02bc", "\u2019", "\uff07", "\xa5", "\u20a9"]
HOSTILE = st.text(st.sampled_from(CHARACTERS), max_size=30)
EARLIEST = dt.datetime(1000, 1, 1)  # noqa: DTZ001  what a server's DATETIME begins with has no zone
VALUES = st.one_of(
    HOSTILE,
    st.text(st.characters(exclude_categories=["Cs"]), max_size=30),
    st.binary(max_size=30),
    st.integers(-(2**63), 2**63 - 1),
    st.none(),
    st.booleans(),
    st.decimals(allow_nan=False, allow_infinity=False, places=4, min_value=-(10**10), max_value=10**10),
    st.datetimes(min_value=EARLIEST).map(lambda moment: moment.replace(microsecond=0)),
)
PER_STATEMENT = 40


@pytest.mark.parametrize("mode", ["", "NO_BACKSLASH_ESCAPES", "ANSI_QUOTES"])
@settings(max_examples=60, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(values=st.lists(VALUES, min_size=PER_STATEMENT, max_size=PER_STATEMENT))
def test_values_come_back_as_they_were(db: Database, mode: str, values: list[object]) -> None:
    """Each value is one value to the server, in every mode that changes what a quote or a backslash means."""
    places = ", ".join(["HEX(%s)" if isinstance(value, bytes) else "%s" for value in values])
    text = ":x %" if db.pool.driver.name == "mysqlconnector" else "%s :x"  # that one cannot be told a %s in a string
    sql = f"SELECT {places}, '{text}', 'end'"
    with db.transaction():
        db.execute("SET SESSION sql_mode = %s", (mode,))
        row = db.select_row(sql, values, required=True)
        found = db.select_value("SELECT %s IN %s", ("x", values[:5]))
    assert len(values) + 2 == len(row)
    assert (text, "end") == row[-2:]
    assert [plain(value) for value in values] == [plain(value) for value in row[:-2]]
    assert found in (0, 1, None)
    if not mode:  # outside a transaction a text that was seen before takes a shorter way
        assert [row, row] == [db.select_row(sql, values) for _ in range(2)]


def plain(value: object) -> object:
    """Return what a value is to a server: booleans are numbers, dates may be text, bytes are asked for in hex."""
    if isinstance(value, bytes):
        return value.hex().upper()
    if isinstance(value, dt.datetime):
        return str(value)
    if isinstance(value, (bool, int)):
        return int(value)
    return Decimal(value).normalize() if isinstance(value, Decimal) else value
