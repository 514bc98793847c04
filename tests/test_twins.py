"""What threads and tasks may ask for is the same: it stands twice, and the docstrings of the one refer to the other."""

from __future__ import annotations

import inspect
from typing import Any

import pytest

import millpond

# What one of them has by nature: threads to dial in and a host of threads, or a loop's clock; streams that tasks leave.
OWN = {"dial", "runtime", "clockwork", "abandoned"}
TWINS: list[tuple[type[Any], type[Any]]] = [
    (millpond.Pool, millpond.AsyncPool),
    (millpond.Database, millpond.AsyncDatabase),
    (millpond.Transaction, millpond.AsyncTransaction),
    (millpond.Stream, millpond.AsyncStream),
]


def settings_of(function: Any) -> dict[str, Any]:
    """Return the parameters of a function, by name, and their defaults."""
    given = inspect.signature(function).parameters
    return {name: parameter.default for name, parameter in given.items() if name not in OWN}


def public(kind: type[Any]) -> dict[str, Any]:
    """Return what a class has for everybody: its methods' settings, and its properties."""
    found: dict[str, Any] = {"__init__": settings_of(kind.__init__)}
    for name in dir(kind):
        member = inspect.getattr_static(kind, name)
        if not name.startswith("_"):
            found[name] = "a property" if isinstance(member, property) else settings_of(getattr(kind, name))
    return found


@pytest.mark.parametrize(("ours", "theirs"), TWINS, ids=lambda kind: kind.__name__)
def test_threads_and_tasks_ask_alike(ours: type[Any], theirs: type[Any]) -> None:
    """Each method and property of the one is the other's as well, with the same parameters and defaults."""
    assert public(ours) == public(theirs)
