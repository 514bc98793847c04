"""The texts of INSERT and upsert for mappings: names quoted, values left to the driver.

Rules: a name, from wherever it comes, is quoted and can be nothing but a name; values are not looked at.  Texts are
remembered, and what they are remembered by keeps no database alive.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple, TypeAlias, cast

from millpond.errors import InvalidSetting

from .dialects import Dialect, quoted
from .errors import InvalidParameters

Table: TypeAlias = str | tuple[str, ...]
Names: TypeAlias = tuple[str, ...]

# The release from which MySQL has a name for the row that was to be inserted, and warns of VALUES() instead.
ROW_ALIAS_SINCE: Final = (8, 0, 20)


Maker: TypeAlias = Callable[..., str]  # of a dialect, and of how many rows


def names_new_row(dialect: Dialect) -> bool:
    """Say whether an upsert names the row that was to be inserted: no driver puts the rows of such a text together."""
    return dialect.brand == "mysql" and dialect.version >= ROW_ALIAS_SINCE


def new_row_of(table: Table) -> str:
    """Return a name for the row that was to be inserted, other than the table's."""
    last = table.rpartition(".")[2] if isinstance(table, str) else table[-1]
    return "new row" if last.lower() != "new row" else "newer row"


class Script(NamedTuple):
    """How a database writes, as far as a text depends on it.

    Attributes:
        quote: what names are quoted by.
        place: what stands for a value.
        names_new_row: as the function of that name says.
    """

    quote: str
    place: str
    names_new_row: bool

    def quoted(self, name: str) -> str:
        """Return a name, quoted."""
        return quoted(name, self.quote)

    def table(self, table: Table) -> str:
        """Return a table's name, quoted: ``"table"``, ``"schema.table"``, or the parts as a tuple."""
        parts = table.split(".") if isinstance(table, str) else table
        return ".".join([self.quoted(part) for part in parts])


def script_of(dialect: Dialect) -> Script:
    """Return how a dialect writes."""
    return Script(dialect.quote, dialect.marks.place, names_new_row(dialect))


def insert_text(dialect: Dialect, table: Table, columns: Names, rows: int = 1) -> str:
    """Return the INSERT of one row, or of several, with these columns."""
    return _insert_text(script_of(dialect), table, columns, rows)


def upsert_text(dialect: Dialect, table: Table, columns: Names, key: Names, update: Names, rows: int = 1) -> str:
    """Return the INSERT of a row, or of several, that updates the columns *update* of one that is there already."""
    return _upsert_text(script_of(dialect), table, columns, key, update, rows)


@functools.lru_cache(maxsize=512)
def _insert_text(script: Script, table: Table, columns: Names, rows: int) -> str:
    into = f"INSERT INTO {script.table(table)}"
    if not columns:
        return f"{into} () VALUES ()" if script.quote == "`" else f"{into} DEFAULT VALUES"
    names = ", ".join([script.quoted(column) for column in columns])
    row = f"({', '.join([script.place] * len(columns))})"
    return f"{into} ({names}) VALUES {', '.join([row] * rows)}"


@functools.lru_cache(maxsize=512)
def _upsert_text(script: Script, table: Table, columns: Names, key: Names, update: Names, rows: int) -> str:
    insert = _insert_text(script, table, columns, rows)
    names = [script.quoted(column) for column in update]
    if script.quote != "`":
        target = f" ({', '.join([script.quoted(column) for column in key])})" if key else ""
        changes = ", ".join([f"{name}=excluded.{name}" for name in names])
        return f"{insert} ON CONFLICT{target} DO {f'UPDATE SET {changes}' if changes else 'NOTHING'}"
    if not names:  # keep the row as it is; unlike INSERT IGNORE this hides no other error
        same = script.quoted((key or columns)[0])
        return f"{insert} ON DUPLICATE KEY UPDATE {same}={script.table(table)}.{same}"
    if script.names_new_row:
        alias = script.quoted(new_row_of(table))
        changes = ", ".join([f"{name}={alias}.{name}" for name in names])
        return f"{insert} AS {alias} ON DUPLICATE KEY UPDATE {changes}"
    changes = ", ".join([f"{name}=VALUES({name})" for name in names])
    return f"{insert} ON DUPLICATE KEY UPDATE {changes}"


def upsert_maker(table: Table, columns: Names, key: str | Sequence[str], update: str | Sequence[str] | None) -> Maker:
    """Return what writes the upsert for a dialect.

    Raises:
        InvalidParameters: the row has no columns at all.
        InvalidSetting: a column of the key, or one to be updated, has no value.
    """
    if not columns:
        raise InvalidParameters("a row without columns can be inserted, but is no upsert: there is nothing to meet")
    names = as_names(key)
    changed = columns_to_update(columns, names, None if update is None else as_names(update))
    return functools.partial(upsert_text, table=table, columns=columns, key=names, update=changed)


def columns_to_update(columns: Names, key: Names, update: Names | None) -> Names:
    """Return what an upsert changes in the row that exists: all columns but the key, or those named.

    Raises:
        InvalidSetting: one of the columns named has no value to be set to.
    """
    for name, named in (("key", key), ("update", update or ())):
        unknown = [column for column in named if column not in columns]
        if unknown:
            allowed = f"columns that have a value: {', '.join(columns)}"
            raise InvalidSetting(name, list(named), allowed, f"no value for {', '.join(unknown)}")
    return update if update is not None else tuple([column for column in columns if column not in key])


def names_of(values: Mapping[str, Any]) -> Names:
    """Return the columns of a mapping.

    Raises:
        InvalidParameters: it is no mapping.
    """
    given = cast("object", values)
    if not isinstance(given, Mapping):
        raise InvalidParameters(f"a row is a mapping of columns to values, not {type(values).__name__}")
    return tuple(values)


def columns_of_first(rows: Iterable[Mapping[str, Any]]) -> tuple[Names | None, Iterator[Mapping[str, Any]]]:
    """Return the columns of the first of many rows, None if there are none, and all of the rows."""
    remaining = iter(rows)
    first = next(remaining, None)
    if first is None:
        return None, remaining
    return names_of(first), itertools.chain((first,), remaining)


def rows_of(mappings: Iterable[Mapping[str, Any]], columns: Names) -> Iterator[tuple[Any, ...]]:
    """Yield the values of each mapping in the order of *columns*.

    Raises:
        InvalidParameters: a mapping has other columns than the first.
    """
    count = len(columns)
    for number, values in enumerate(mappings, start=1):
        try:
            row = tuple([values[column] for column in columns])
        except (KeyError, TypeError):
            row = ()
        if len(row) != count or len(values) != count:
            names = names_of(values)
            differing = ", ".join(sorted(set(names) ^ set(columns)))
            raise InvalidParameters(f"row {number} has other columns than the first; they differ in: {differing}")
        yield row


def as_names(names: str | Sequence[str] | None) -> Names:
    """Return one name or several as a tuple."""
    return () if names is None else (names,) if isinstance(names, str) else tuple(names)
