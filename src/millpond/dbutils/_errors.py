"""The drop-in's errors: DBUtils' names, with a text, and of the driver's family too.

Why: DBUtils' own errors say nothing and derive from nothing, so that ``except pymysql.Error`` misses them.  Here each
has the class that code for DBUtils names, is a :class:`millpond.Error`, and joins the driver's ``OperationalError`` or
``InterfaceError`` where the driver is known.

It must not know pools or connections.
"""

from __future__ import annotations

import types
from typing import Any, TypeVar

from millpond.errors import Error, InvalidSetting, joined

KindT = TypeVar("KindT", bound="DropInError")


class DropInError(Error):
    """The base of what the drop-in raises of its own; unlike others, it can be made without a text, as in DBUtils."""

    def __init__(self, text: str = "") -> None:
        super().__init__(text)

    def __reduce__(self) -> tuple[Any, ...]:
        kind = type(self)
        plain = next(base for base in kind.__mro__ if base.__module__.startswith("millpond.") and is_named(base))
        return plain, (self.text,)


class WrongKind(InvalidSetting, TypeError):
    """A parameter was given something of a kind that it does not take."""


def is_named(kind: type[Any]) -> bool:
    """Say whether a class is what its module calls by its name; classes joined with a driver's are not."""
    import sys

    return getattr(sys.modules[kind.__module__], kind.__name__, None) is kind


def told(kind: type[KindT], text: str, module: types.ModuleType | None) -> KindT:
    """Return an error of *kind* that is also of the family of the DB-API *module*, if one is known."""
    theirs: Any = getattr(module, kind.family, None)
    family = theirs if isinstance(theirs, type) and issubclass(theirs, BaseException) else None
    return joined(kind, family)(text)


def refuse_unless(condition: bool, name: str, value: object, allowed: str, why: str = "") -> None:
    """Say which parameter cannot be what it is, and what it can be.

    Raises:
        WrongKind: *condition* does not hold.
    """
    if not condition:
        raise WrongKind(name, value, allowed, why)


def not_copied(what: object) -> TypeError:
    """Return the error for who copies or pickles what leads to a server: two would give it back, or close it."""
    return TypeError(f"a {type(what).__name__} cannot be copied or pickled: take another connection from the pool")
