"""Prove of a statement, once, that it leaves its session as it found it, whatever its values are.

Why: to judge a statement costs a microsecond, and two or three where the processor has done something else meanwhile,
which it has after each answer of a server.  What a program sends again and again is its own text with other values in
it; so that text can be judged instead, and the verdict kept.

The promise: when :class:`Proofs` says a number for a template, then whatever is made of it with so many values of
:data:`TYPES`, each written as one literal as servers of the MySQL family read them, is a SELECT that is clean in the
sense of :mod:`millpond._sql.cleanliness`.  A template for no values is the whole statement.

Rules:
- A place is where a literal is one token, and a part of nothing else: outside strings and comments, and alone between
  spaces, commas, parentheses and a few operators, so that no name, number, comment or string grows together with it.
- No parenthesis follows a place, no backslash, double quote, backtick or letter beyond ASCII is in the text, and the
  statement is proved clean with a literal of each kind in all of its places.
- What is seen once is not proved: who writes values into the text would pay for each, and gain nothing.

It must not see a value, and it must not be asked about a session whose character set is not one of UTF-8.
"""

from __future__ import annotations

import re
from typing import Final

from millpond._sql import tokens as t
from millpond._sql.cleanliness import Brand, is_clean_statement

__all__ = ["TYPES", "Proofs", "places_of"]

#: Values of exactly these types are written as one literal: a number (with a sign, perhaps), NULL or a string.
TYPES: Final[frozenset[type]] = frozenset({bool, float, int, str, type(None)})
PLACE: Final = "%s"
LENGTH_MAX: Final = 2048  # longer ones are judged each time
TEMPLATES_MAX: Final = 1000  # remembered; and as many that were seen once
_PROBES: Final = ("0", "-1.5e0", "'x'", "NULL")
_SPACE: Final = " \t\n\v\f\r"
_READ: Final = re.compile(rf"[{_SPACE}]*SELECT\b", re.IGNORECASE)
_LONE_PLACE: Final = re.compile(
    rf"(?<=[{_SPACE}(,=<>+*])%s(?=[{_SPACE}),=<>+*;]|\Z)(?![{_SPACE}]*\()",
)
_NOT_UNDERSTOOD: Final = re.compile(r"[\\\"`\x80-\U0010ffff]")


class Proofs(dict[str, "int | None"]):
    """What was proved of templates for one brand of server: template -> number of its values, None if nothing was."""

    def __init__(self, brand: Brand | None) -> None:
        super().__init__()
        self._brand: Brand | None = brand
        self._seen: set[str] = set()  # once

    def __missing__(self, template: str) -> int | None:
        if len(template) > LENGTH_MAX:
            return None
        if template not in self._seen:
            if len(self._seen) >= TEMPLATES_MAX:
                self._seen.clear()
            self._seen.add(template)
            return None
        self._seen.remove(template)
        if len(self) >= TEMPLATES_MAX:
            self.clear()
        places = self[template] = places_of(template, self._brand)
        return places


def places_of(template: str, brand: Brand | None) -> int | None:
    """Return how many values a SELECT takes that is clean with any; None if that is not proved.

    Args:
        template: the text as it is written for a driver that puts literals in the place of ``%s``.
        brand: which server it is for; see :func:`is_clean_statement`.
    """
    if _READ.match(template) is None or _NOT_UNDERSTOOD.search(template) is not None:
        return None
    between = template.split(PLACE)
    places = len(between) - 1
    if any("%" in piece for piece in between) or places != len(_LONE_PLACE.findall(template)):
        return None
    if places != sum(kind == t.FORMAT for kind, _, _ in t.tokens(template)):  # some are in a string, or in a comment
        return None
    is_clean = all(is_clean_statement(probe.join(between), brand=brand) for probe in _PROBES)
    return places if is_clean else None
