"""Put values beside a statement: find the places of parameters, and make of them what a driver binds.

Why: callers write ``%s``, ``?``, ``:name`` or ``%(name)s``, whichever driver is below, percent signs and colons as the
server should see them, and a list after ``IN``. A driver wants its own marks and a sequence with one value for each.

Rules:
- The text of a statement and its values never mix: a value only ever becomes one more element of the sequence that the
  driver binds. What is written into the text is marks, commas and parentheses.
- Without values nothing is touched, and the driver is asked to bind nothing: the text is sent as it was written.
- What could be read in two ways is refused: a text that is not closed, two styles at once, a list where no list can be.

It must not know what a statement means, convert a value, or ask a connection anything.
"""

from __future__ import annotations

import collections
import itertools
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple, TypeAlias, cast

from millpond._sql import tokens as t

__all__ = ["Marks", "Misbound", "Params", "Template"]

Params: TypeAlias = Sequence[Any] | Mapping[str, Any]

# Types that are no value for one place. Looked at by identity of the type: a check that costs 0.2 us for a few values.
_EMPTY: Final[dict[Any, Any]] = {}
LISTS: Final[tuple[type[Any], ...]] = (
    *(list, tuple, set, frozenset, range),
    *(collections.deque, type(_EMPTY.keys()), type(_EMPTY.values())),
)
NOT_VALUES: Final[frozenset[type[Any]]] = frozenset((*LISTS, dict, type(_EMPTY.items()), memoryview))
SEQUENCES: Final[frozenset[type[Any]]] = frozenset({tuple, list})
POSITIONAL: Final = frozenset({t.FORMAT, t.QMARK})
# Before a parenthesis these are no function's name, so that what follows is a row of columns.
BEFORE_ROWS: Final = frozenset(
    {"WHERE", "AND", "OR", "XOR", "NOT", "ON", "HAVING", "WHEN", "SELECT", "THEN", "ELSE", "BY"}
)


class Misbound(ValueError):
    """Values do not go with the places of a statement; the text says which and why, and has no value in it."""


class Marks(NamedTuple):
    """How a driver wants statements.

    Attributes:
        place: what stands for a value: ``%s`` or ``?``.
        doubles_percent: whether a percent sign has to be doubled beside values, because the driver formats with ``%``.
        nothing: a query without rows, one column of it left open as ``{}``; what an empty list becomes.
        rows: what goes before rows in an IN list, such as ``VALUES ``.
        no_values: what stands for no values at all.
        takes_views: whether a memoryview is bound as the bytes that it shows; some drivers write its repr instead.
    """

    place: str = "%s"
    doubles_percent: bool = True
    nothing: str = "SELECT {} FROM DUAL WHERE FALSE"
    rows: str = ""
    no_values: Sequence[Any] | None = None
    takes_views: bool = True


class Template:
    """The text of a statement, taken apart once and bound many times.

    Args:
        sql: the statement as the caller wrote it.
        dialect: by whose rules it is cut.
        marks: how the driver wants it.

    Attributes:
        keys: the name of each place; None for a statement whose places have none.
        text: the statement with the driver's marks, for values that are no lists.
    """

    __slots__ = (
        "_bare",
        "_count",
        "_fault",
        "_pieces",
        "_places",
        "_widths",
        "dialect",
        "keys",
        "marks",
        "sql",
        "text",
    )

    def __init__(self, sql: str, dialect: t.Dialect, marks: Marks) -> None:
        self.sql = sql
        self.dialect = dialect
        self.marks = marks
        self._places = t.parameters(sql, dialect)
        self._fault = fault_of(sql, dialect, self._places, marks)
        named = bool(self._places) and self._places[0].kind not in POSITIONAL
        self.keys: tuple[str, ...] | None = tuple(place.name for place in self._places) if named else None
        self._count = len(self._places)
        self._bare = any(place.in_list == "bare" for place in self._places)
        self._pieces = list(pieces(sql, dialect, self._places, marks))
        self._widths: dict[int, int] = {}
        self.text = marks.place.join(self._pieces)

    def bind(self, params: Params | None) -> tuple[str, Sequence[Any] | None]:
        """Return the text for the driver and the values for it to bind; None for no values.

        Raises:
            Misbound: the values do not go with the places.
        """
        if params is None:
            return self.sql, self.marks.no_values
        if self.keys is None:
            kind = type(params)
            if (
                (kind is tuple or kind is list)
                and len(params) == self._count
                and not self._bare
                and self._fault is None
                and NOT_VALUES.isdisjoint(map(type, params))
            ):
                return self.text, params  # type: ignore[return-value]  # a tuple or a list, see above
        values = self.values(params)
        if not self._bare and NOT_VALUES.isdisjoint(map(type, values)):
            return self.text, values
        return self._expanded(values)

    def values(self, params: Params) -> Sequence[Any]:
        """Return one value for each place, lists still whole.

        Raises:
            Misbound: there are too few or too many, or no values at all.
        """
        if self._fault is not None:
            raise Misbound(self._fault)
        if isinstance(params, Mapping):
            return self._named(params)
        given = cast("object", params)
        if isinstance(given, (str, bytes, bytearray)) or not isinstance(given, Sequence):
            kind = type(params).__name__
            raise Misbound(
                f"the values of a statement are a sequence or a mapping, not {kind}: write (value,) for a single one"
            )
        if self.keys is not None:
            raise Misbound(
                f"the statement names its values ({self._names()}): give a mapping, not a {type(params).__name__}"
            )
        if len(params) != self._count:
            raise Misbound(f"the statement has {plural(self._count, 'place')} for values, and {len(params)} came")
        return params if isinstance(params, (tuple, list)) else tuple(params)

    def _named(self, params: Mapping[str, Any]) -> tuple[Any, ...]:
        if self.keys is None:
            if self._count:
                raise Misbound(
                    f"the statement has {plural(self._count, 'place')} without a name: give a sequence, not a mapping"
                )
            return ()
        try:
            return tuple([params[key] for key in self.keys])
        except KeyError:
            missing = ", ".join(dict.fromkeys(key for key in self.keys if key not in params))
            raise Misbound(f"the statement names values that did not come: {missing}") from None

    def _names(self) -> str:
        return ", ".join(dict.fromkeys(self.keys or ()))

    def bind_rows(self, chunk: list[Any]) -> list[Any]:
        """Return the values of each of many rows, for :attr:`text`; the very rows where they are in order already.

        Raises:
            Misbound: a row does not go with the places, or a value is a list.
        """
        if self._fault is None and not self._bare and self.keys is None:
            are_sequences = set(map(type, chunk)) <= SEQUENCES and set(map(len, chunk)) <= {self._count}
            if are_sequences and NOT_VALUES.isdisjoint(map(type, itertools.chain.from_iterable(chunk))):
                return chunk
        rows = [self.values(params) for params in chunk]
        kinds = NOT_VALUES.intersection(map(type, itertools.chain.from_iterable(rows)))
        if self._bare or not kinds.isdisjoint(LISTS):
            raise Misbound("a list cannot be a value of one row of many")
        if kinds:
            for index, value in itertools.chain.from_iterable(map(enumerate, rows)):
                self._refuse(index, value)
        return rows

    # ---- lists
    def _expanded(self, values: Sequence[Any]) -> tuple[str, tuple[Any, ...]]:
        text, bound = [self._pieces[0]], list[Any]()
        for index, (place, value) in enumerate(zip(self._places, values, strict=True)):
            if place.in_list != "none" and isinstance(value, LISTS):
                marks = self._list(index, cast("Collection[Any]", value), bound)
                text.append(f"({marks})" if place.in_list == "bare" else marks)
            else:
                self._refuse(index, value)
                text.append(self.marks.place)
                bound.append(value)
            text.append(self._pieces[index + 1])
        return "".join(text), tuple(bound)

    def _refuse(self, index: int, value: object) -> None:
        """Refuse what is no value for one place.

        Raises:
            Misbound: so it is.
        """
        place = self._places[index]
        kind = type(value)
        which = f"value {place.name or f'number {index + 1}'} is a {kind.__name__}"
        if kind is memoryview and not self.marks.takes_views:
            raise Misbound(
                f"{which}, which this driver would write as the text that describes it: give bytes(...) of it"
            )
        if kind is dict:
            raise Misbound(f"{which}, which is no value for a place: for a JSON column give text, as of json.dumps")
        if kind in NOT_VALUES and kind is not memoryview:
            raise Misbound(f"{which}: a list can only stand right after IN, as in: id IN %s")
        if place.in_list == "bare":
            raise Misbound(f"{which}, and stands right after IN, where a list has to be")

    def _list(self, index: int, value: Collection[Any], bound: list[Any]) -> str:
        """Return the marks for a list, and add its elements to what is bound."""
        mark = self.marks.place
        elements = list(value)
        if not elements:
            return self.marks.nothing.format(", ".join(["NULL"] * self._width(index)))
        if not is_row(elements[0]):
            if not NOT_VALUES.isdisjoint(map(type, elements)):
                raise Misbound("a list after IN mixes single values and rows, or has lists within lists")
            bound += elements
            return ", ".join([mark] * len(elements))
        width = len(elements[0])
        for row in elements:
            if not is_row(row) or len(row) != width or not NOT_VALUES.isdisjoint(map(type, row)):
                raise Misbound("a list of rows after IN has rows of different lengths, or what is no row of values")
            bound += row
        marks = f"({', '.join([mark] * width)})"
        return self.marks.rows + ", ".join([marks] * len(elements))

    def _width(self, index: int) -> int:
        """Return how many columns are compared with the list at this place."""
        if index not in self._widths:
            self._widths[index] = columns_before(self.sql, self.dialect, self._places[index].start)
        return self._widths[index]


def fault_of(sql: str, dialect: t.Dialect, places: Sequence[t.Parameter], marks: Marks) -> str | None:
    """Return why no values can be bound to a text; None if they can."""
    kinds = {place.kind for place in places}
    if kinds & POSITIONAL and kinds - POSITIONAL:
        return "the statement has places with a name and places without: use one of the two"
    if any(place.kind == t.QMARK and place.name for place in places):
        return "numbered places (?1) are not served: use ? or :name"
    for kind, start, _ in t.tokens(sql, dialect):
        if kind == t.UNTERMINATED:
            return f"a quote or comment in the statement is never closed; it begins at character {start + 1}"
    if marks.place == "%s" and not marks.doubles_percent and any("%s" in piece for piece in literal(sql, places)):
        return "this driver takes %s within a string or a comment for a place: give that string as a value"
    return None


def literal(sql: str, places: Sequence[t.Parameter]) -> Iterator[str]:
    """Yield the text between the places."""
    start = 0
    for place in places:
        yield sql[start : place.start]
        start = place.end
    yield sql[start:]


def pieces(sql: str, dialect: t.Dialect, places: Sequence[t.Parameter], marks: Marks) -> Iterator[str]:
    """Yield the text between the places as a driver wants it beside values."""
    if "%" not in sql:
        yield from literal(sql, places)
        return
    start = 0
    edits = (
        [(position, position + 1, "%%") for position in t.percent_signs(sql, dialect)] if marks.doubles_percent else []
    )
    if not marks.doubles_percent:  # written for a driver that formats; no database has an operator %%
        edits = [(begin, end, "%") for kind, begin, end in t.tokens(sql, dialect) if kind == t.PERCENT_PAIR]
    for place in (*places, None):
        end = len(sql) if place is None else place.start
        yield edited(sql, start, end, edits)
        start = end if place is None else place.end


def edited(sql: str, start: int, end: int, edits: Sequence[tuple[int, int, str]]) -> str:
    """Return a part of a text with some of its characters replaced."""
    result: list[str] = []
    for begin, until, replacement in edits:
        if start <= begin < end:
            result += (sql[start:begin], replacement)
            start = until
    return "".join((*result, sql[start:end]))


def columns_before(sql: str, dialect: t.Dialect, position: int) -> int:
    """Return how many columns stand before the IN of a list that begins at *position*: 2 in ``(a, b) IN %s``."""
    code = [(kind, sql[start:end].upper()) for kind, start, end in t.code_tokens(sql[:position], dialect)]
    while code and (code[-1][0] == t.OPEN or code[-1][1] in ("IN", "NOT")):
        code.pop()
    if not code or code[-1][0] != t.CLOSE:
        return 1
    depth, commas = 0, 0
    while code:
        kind, _ = code.pop()
        depth += (kind == t.CLOSE) - (kind == t.OPEN)
        commas += kind == t.COMMA and depth == 1
        if depth == 0:
            break
    kind, text = code[-1] if code else ("", "")
    is_call = kind in (t.WORD, t.QUOTED) and text not in BEFORE_ROWS
    return 1 if is_call else commas + 1


def is_row(value: Any) -> bool:
    """Say whether an element of a list is a row of several values."""
    return isinstance(value, (tuple, list))


def plural(count: int, noun: str) -> str:
    """Return "1 place", "2 places"."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
