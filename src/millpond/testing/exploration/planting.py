"""Load the core once more, as it is or with a fault planted in it.

Why: a search that finds nothing proves little, unless the same search finds faults that are known to be there.  A
planted fault is a change of one piece of the core's source; the changed source is loaded into modules of its own, so
that the real ones, and whoever uses them at the same time, are left alone.
"""

from __future__ import annotations

import itertools
import sys
import types
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from millpond import _core
from millpond._core import audit, census, conversations, dialrule, dials, ledger, pace, ports, states, upkeep

# Each imports only those before it.
MODULES = ("states", "dialrule", "ports", "pace", "census", "upkeep", "ledger", "dials", "audit", "conversations")
_numbers = itertools.count(1)


@dataclass(frozen=True)
class Core:
    """The modules of one core; those of a planted one have the same names inside and share nothing with the real."""

    states: Any
    dialrule: Any
    ports: Any
    pace: Any
    census: Any
    upkeep: Any
    ledger: Any
    dials: Any
    audit: Any
    conversations: Any


REAL = Core(states, dialrule, ports, pace, census, upkeep, ledger, dials, audit, conversations)


@dataclass(frozen=True)
class Plant:
    """A fault to plant.

    Args:
        name: what the fault is, in a few words.
        module: the module of the core that it is planted in.
        old: the piece of source to replace; it is there exactly once.
        new: what stands there instead.
    """

    name: str
    module: str
    old: str
    new: str


def planted(plant: Plant) -> Core:
    """Return a core of its own with *plant* in it.

    Raises:
        LookupError: the piece to replace is not there exactly once: the core has changed, and the plant must follow.
    """
    package = f"millpond_planted_{next(_numbers)}"
    folder = Path(_core.__file__ or "").parent
    modules: dict[str, types.ModuleType] = {}
    try:
        for name in MODULES:
            path = folder / f"{name}.py"
            source = path.read_text(encoding="utf-8")
            if name == plant.module:
                source = replaced(source, plant)
            module = types.ModuleType(f"{package}.{name}")
            module.__package__ = package
            sys.modules[module.__name__] = modules[name] = module
            exec(compile(source, str(path), "exec"), module.__dict__)  # noqa: S102  our own source, from our own folder
    finally:
        for name in MODULES:
            sys.modules.pop(f"{package}.{name}", None)
    return Core(**modules)


def replaced(source: str, plant: Plant) -> str:
    """Return *source* with the fault in it."""
    found = source.count(plant.old)
    if found != 1:
        raise LookupError(f"{plant.name!r}: its piece of {plant.module}.py is there {found} times, not once")
    return source.replace(plant.old, plant.new)
