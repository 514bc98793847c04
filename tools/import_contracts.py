"""Two kinds of import contract that import-linter does not have; they are named in ``pyproject.toml``.

Both are closed rules: a module or a dependency that is added later is under them without being listed.
"""

from __future__ import annotations

import abc
import sys
from collections.abc import Iterable, Iterator
from typing import Any

from grimp import ImportGraph
from importlinter import Contract, ContractCheck, fields, output


class _Offences(Contract):
    """A contract that is broken by every import that :meth:`offences` yields."""

    def check(self, graph: ImportGraph, verbose: bool) -> ContractCheck:  # noqa: ARG002  import-linter's signature
        found = sorted(set(self.offences(graph)))
        return ContractCheck(kept=not found, metadata={"offences": found})

    def render_broken_contract(self, check: ContractCheck) -> None:
        for importer, imported in check.metadata["offences"]:
            output.print_error(f"{importer} imports {imported}")

    @abc.abstractmethod
    def offences(self, graph: ImportGraph) -> Iterator[tuple[str, str]]:
        """Yield importer and imported for each import that is not allowed."""


class StandardLibraryOnly(_Offences):
    """The modules, and everything below them, import nothing from outside the standard library and millpond.

    Options: ``itself_only`` forbids the rest of millpond too; ``allowed`` makes exceptions, as in
    ``millpond.cli: click, rich``.
    """

    type_name = "standard_library_only"
    modules: Any = fields.ListField(subfield=fields.StringField())
    itself_only: Any = fields.BooleanField(required=False, default=False)
    allowed: Any = fields.ListField(subfield=fields.StringField(), required=False)

    def offences(self, graph: ImportGraph) -> Iterator[tuple[str, str]]:
        """Yield importer and imported for each import that is not allowed."""
        for module, importer, imported in _imports(graph, self.modules):
            if not self._is_allowed(module, importer, imported):
                yield importer, imported

    def _is_allowed(self, module: str, importer: str, imported: str) -> bool:
        top = imported.partition(".")[0]
        if top in sys.stdlib_module_names:
            return True
        if top == module.partition(".")[0]:
            return not self.itself_only or _is_below(imported, module)
        return any(_is_below(importer, place) and top in packages for place, packages in self._exceptions())

    def _exceptions(self) -> Iterator[tuple[str, list[str]]]:
        for line in self.allowed or ():
            place, _, packages = line.partition(":")
            yield place.strip(), [package.strip() for package in packages.split(",")]


class PublicNamesOnly(_Offences):
    """The modules, and everything below them, import no module of another folder whose name starts with ``_``."""

    type_name = "public_names_only"
    modules: Any = fields.ListField(subfield=fields.StringField())

    def offences(self, graph: ImportGraph) -> Iterator[tuple[str, str]]:
        """Yield importer and imported for each import of something private."""
        for module, importer, imported in _imports(graph, self.modules):
            private = any(part.startswith("_") for part in imported.split("."))
            ours = imported.partition(".")[0] == module.partition(".")[0]
            if private and ours and not _is_below(imported, module):
                yield importer, imported


def _imports(graph: ImportGraph, modules: Iterable[str]) -> Iterator[tuple[str, str, str]]:
    """Yield each import by one of *modules* or below it: that module, the importer, and what it imports."""
    for module in modules:
        for importer in _family(graph, module):
            for imported in graph.find_modules_directly_imported_by(importer):
                yield module, importer, imported


def _family(graph: ImportGraph, module: str) -> set[str]:
    """Return *module* and all below it; nothing, if it is not there."""
    if module not in graph.modules:
        return set()
    return {module, *graph.find_descendants(module)}


def _is_below(module: str, folder: str) -> bool:
    return module == folder or module.startswith(folder + ".")
