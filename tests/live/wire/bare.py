"""PyMySQL without its private parts: what a version would be in which they have other names."""

from __future__ import annotations

from typing import Any

import pymysql

SEEN = frozenset({"_result"})  # what PyMySQL's own cursors take from their connection


class Bare:
    """A connection of which only the public names can be seen."""

    def __init__(self, **arguments: Any) -> None:
        object.__setattr__(self, "hidden__", pymysql.connect(**arguments))

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") and name not in SEEN:
            raise AttributeError(name)
        return getattr(object.__getattribute__(self, "hidden__"), name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(object.__getattribute__(self, "hidden__"), name, value)

    def cursor(self, *args: Any) -> Any:
        """Make a cursor, whose connection is the hidden one."""
        return object.__getattribute__(self, "hidden__").cursor(*args)
