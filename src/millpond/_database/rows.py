"""What rows become: tuples, dicts, named tuples, or whatever a class or function makes of the columns.

Rules: columns are matched by name, never by position, but in tuples and lists; a name that occurs twice, is missing, or
is one too many is an error that names it.  How to make a row is found out once for a result, not once for a row.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
import operator
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from .errors import NoRow, RowMismatch, TooManyRows, shown

Row: TypeAlias = tuple[Any, ...]
Maker: TypeAlias = Callable[[Row], Any]


class NamedRow(tuple[Any, ...]):
    """A row whose values are also its attributes, by the names of the columns: ``into=NamedRow``."""

    __slots__ = ()

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any: ...

    def __reduce__(self) -> tuple[Any, ...]:
        return _named_row, (getattr(self, "_fields", ()), tuple(self))


def shaped(rows: Iterable[Any], into: Any, columns: Sequence[Any] | None, sql: str) -> list[Any]:
    """Return *rows*, each as *into* says.

    Args:
        rows: as the driver gave them.
        into: None or ``tuple``, ``list``, ``dict``, ``NamedRow``, a named tuple class, a dataclass, or any callable.
        columns: the driver's description of the result.
        sql: the statement, for errors.

    Raises:
        RowMismatch: the columns do not fit.
    """
    maker = maker_of(into, columns, sql)
    if maker is not None:
        return [maker(row) for row in rows]
    return [row if type(row) is tuple else tuple(row) for row in rows]


def maker_of(into: Any, columns: Sequence[Any] | None, sql: str) -> Maker | None:
    """Return what makes a row; None if it is to stay the tuple that it is.

    Raises:
        RowMismatch: there are no columns, or they do not fit.
    """
    if columns is None:
        raise no_columns(sql)
    if into is None or into is tuple:
        return None
    if into is list:
        return list
    names = tuple([column[0] for column in columns])
    make = _maker if isinstance(into, type) else _make_maker  # functions come and go, with all that they hold on to
    try:
        return make(into, names)
    except RowMismatch as error:
        raise RowMismatch(f"{error.text}\n{shown(sql)}") from None


def one_of(found: Sequence[Any], columns: Sequence[Any] | None, sql: str, *, required: bool, first: bool) -> Any:
    """Return the one row of a result; None if there is none and none is required.

    Raises:
        NoRow, TooManyRows, RowMismatch: as they say.
    """
    if len(found) == 1 or (found and first):
        return found[0]
    if found:
        raise too_many_rows(sql)
    if columns is None:
        raise no_columns(sql)
    if required:
        raise no_row(sql)
    return None


def no_columns(sql: str) -> RowMismatch:
    """Make the error for a statement that returns no rows at all, where rows were expected."""
    return RowMismatch(f"this statement returns no rows, not even none; execute() is for those\n{shown(sql)}")


def only_values(found: Sequence[Sequence[Any]], sql: str, columns: Sequence[Any] | None) -> list[Any]:
    """Return the values of the only column.

    Raises:
        RowMismatch: there is another number of columns.
    """
    if columns is None:
        raise no_columns(sql)
    if len(columns) != 1:
        raise too_many_columns(sql, columns)
    return [row[0] for row in found]


def too_many_columns(sql: str, columns: Sequence[Any] | None) -> RowMismatch:
    """Make the error for more than one column."""
    names = ", ".join(str(column[0]) for column in columns or ())
    count = len(columns or ())
    return RowMismatch(f"one column is expected, and the statement returns {count}: {names}\n{shown(sql)}")


def only_value(row: Sequence[Any], sql: str, columns: Sequence[Any] | None) -> Any:
    """Return the one value of a row.

    Raises:
        RowMismatch: it has another number of columns.
    """
    if len(row) != 1:
        raise too_many_columns(sql, columns)
    return row[0]


def no_row(sql: str) -> NoRow:
    """Make the error for a row that was required."""
    return NoRow(f"the statement found no row, and one is required\n{shown(sql)}")


def too_many_rows(sql: str) -> TooManyRows:
    """Make the error for a second row."""
    return TooManyRows(f"the statement found more than one row; pass first=True if any will do\n{shown(sql)}")


# ---- inside


@functools.lru_cache(maxsize=256)
def _maker(into: Any, names: tuple[str, ...]) -> Maker:
    return _make_maker(into, names)


def _make_maker(into: Any, names: tuple[str, ...]) -> Maker:
    _refuse_duplicates(names)
    if into is dict:
        return lambda row: dict(zip(names, row))  # noqa: B905  the driver gives a value for each column
    if into is NamedRow:
        return _named_row_class(names)._make  # type: ignore[no-any-return]  # made by namedtuple
    if is_named_tuple(into):
        return _named_tuple_maker(into, names)
    if is_dataclass(into):
        fields = [field for field in dataclasses.fields(into) if field.init]
        required = {field.name for field in fields if not has_default(field)}
        _refuse_misfits(into, names, {field.name for field in fields}, required)
    elif not callable(into):
        raise RowMismatch(f"into={into!r}: a class or another callable is needed")
    return lambda row: into(**dict(zip(names, row)))  # noqa: B905  the driver gives a value for each column


def is_named_tuple(into: Any) -> bool:
    bases: tuple[type, ...] = getattr(into, "__mro__", ())
    return tuple in bases and hasattr(into, "_fields")


def is_dataclass(into: Any) -> bool:
    return isinstance(into, type) and dataclasses.is_dataclass(into)


def has_default(field: dataclasses.Field[Any]) -> bool:
    return field.default is not dataclasses.MISSING or field.default_factory is not dataclasses.MISSING


def _named_tuple_maker(into: Any, names: tuple[str, ...]) -> Maker:
    fields: tuple[str, ...] = into._fields
    _refuse_misfits(into, names, set(fields), set(fields) - set(into._field_defaults))
    if names == fields:
        return into._make  # type: ignore[no-any-return]  # made by namedtuple
    if set(names) != set(fields):
        return lambda row: into(**dict(zip(names, row)))  # noqa: B905  the driver gives a value for each column
    pick = operator.itemgetter(*(names.index(field) for field in fields))
    return lambda row: into._make(pick(row))


def _refuse_duplicates(names: tuple[str, ...]) -> None:
    if len(set(names)) == len(names):
        return
    twice = [name for name, count in collections.Counter(names).items() if count > 1]
    raise RowMismatch(f"the result has more than one column {', '.join(twice)}: rename all but one of them by AS")


def _refuse_misfits(into: Any, names: tuple[str, ...], known: set[str], required: set[str]) -> None:
    missing = [name for name in sorted(required) if name not in names]
    unknown = [name for name in names if name not in known]
    if missing or unknown:
        sides = (("has no column", missing), ("has", unknown))
        parts = [f"{label} {', '.join(found)}" for label, found in sides if found]
        takes = " which it does not take" if unknown else ""
        raise RowMismatch(f"the result does not fit {into.__name__}: it {' and '.join(parts)}{takes}")


@functools.lru_cache(maxsize=256)
def _named_row_class(names: tuple[str, ...]) -> Any:
    try:
        base = collections.namedtuple("NamedRow", names)  # type: ignore[misc]  # noqa: PYI024  names from the result
    except ValueError:
        unfit = [name for name in names if not name.isidentifier() or name.startswith("_")] or list(names)
        text = f"no attribute can be called {', '.join(unfit)}: rename the column by AS, or use into=dict"
        raise RowMismatch(text) from None
    members = {"__slots__": (), "__module__": __name__, "__reduce__": NamedRow.__reduce__}
    return type("NamedRow", (base, NamedRow), members)


def _named_row(names: tuple[str, ...], values: Row) -> Any:
    return _named_row_class(names)._make(values)
