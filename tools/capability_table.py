"""Write the one table of what each driver's adapter can do into docs/drivers.md, from the adapters themselves.

    python -m tools.capability_table          writes it
    python -m tools.capability_table --check  exits with 1 if the page says something else

Adapters are found, not listed: whatever class in ``millpond.drivers`` has a name and capabilities of its own.
"""

from __future__ import annotations

import importlib
import pkgutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import millpond.drivers
from millpond.drivers.base import Adapter

PAGE = Path(__file__).resolve().parent.parent / "docs" / "drivers.md"
BEGIN = "<!-- capabilities: written by tools/capability_table.py -->"
END = "<!-- end of capabilities -->"
# In this order, where adapters tell of them; what else they tell of comes behind.
FIRST = ("alive", "deadline", "clean", "reset", "in flight", "cut", "errors", "private parts")
FRONTS = ("found",)  # adapters that stand for whichever they find


def adapters() -> Iterator[tuple[str, dict[str, str]]]:
    """Yield the name and the capabilities of each adapter, and of each variant that it has."""
    for module in pkgutil.iter_modules(millpond.drivers.__path__):
        importlib.import_module(f"millpond.drivers.{module.name}")
    kinds = sorted(subclasses(Adapter), key=order)
    for kind in kinds:
        yield kind.name, kind.capabilities
        variants: dict[str, dict[str, str]] = getattr(kind, "variants", {})
        for setting, capabilities in variants.items():
            yield f"{kind.name}, {setting}", capabilities


def subclasses(kind: type[Any]) -> Iterator[type[Adapter[Any]]]:
    """Yield the adapters among the classes made from *kind*."""
    for child in kind.__subclasses__():
        own = vars(child)
        ours = child.__module__.startswith("millpond.drivers.") and "name" in own
        if ours and child.capabilities and child.name not in FRONTS:
            yield child
        yield from subclasses(child)


def order(kind: type[Adapter[Any]]) -> tuple[bool, int, str]:
    """Sort by threads or tasks, MySQL first, any driver last."""
    known = ("pymysql", "mysqlclient", "mysqlconnector", "asyncmy", "aiomysql", "sqlite", "aiosqlite", "dbapi")
    place = known.index(kind.name) if kind.name in known else len(known) - 1
    return (kind.name == "dbapi", place, kind.name)


def table() -> str:
    """Return the table: one group of rows for each thing that can be told, one row for each adapter."""
    found = dict(adapters())
    told = {key for capabilities in found.values() for key in capabilities}
    lines = ["| | driver | |", "| --- | --- | --- |"]
    for key in (*(key for key in FIRST if key in told), *sorted(told - set(FIRST))):
        label = f"**{key}**"
        for name, capabilities in found.items():
            if key in capabilities:
                lines.append(f"| {label} | {name} | {capabilities[key]} |")
                label = ""
    return "\n".join(lines)


def page_with(text: str, new: str) -> str:
    """Return the page with *new* between the two marks."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{new}\n\n{END}{after}"


def main(arguments: Sequence[str]) -> int:
    """Write the table, or check that it is there."""
    text = PAGE.read_text(encoding="utf-8")
    wanted = page_with(text, table())
    if "--check" in arguments:
        return 0 if wanted == text else 1
    PAGE.write_text(wanted, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
