"""Adapters by their names: ours, and those that other packages bring; a catalogue for threads, and one for tasks.

Why: what a URL or a name leads to is found in the same way in both, and so is what is wrong about it; they differ in
which adapters there are.

Rules: adapters are imported when they are needed, and drivers by their adapters, so that importing millpond pulls in
none.  What is wrong is told with its remedy, and never quotes what may have a password in it.

It must not know what an adapter does with its settings.
"""

from __future__ import annotations

import difflib
import importlib
import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from millpond.errors import DriverMissing, InvalidSetting
from millpond.url import MYSQL_SCHEMES, SCHEMES, URL

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

CONNECT_ARGS = "a dict of keyword arguments for connect"


@dataclass(frozen=True)
class Catalogue:
    """All adapters for threads, or all for tasks.

    Args:
        kind: what its drivers are called in errors.
        built_in: name -> where the adapter is, and the module that shows that its driver is installed.
        mysql: those of them for MySQL and MariaDB, in the order in which one is taken where a URL names none.
        sqlite: the one for SQLite.
        group: of entry points, by which other packages bring adapters: the name of each is a driver's.
        is_elsewhere: says whether a name is that of a driver in the other catalogue.
        instead: what to do with such a driver.
        remedy: what to do with a driver that nobody knows.
        without_url: those that no URL can name.
        aliases: other names of the same drivers.
    """

    kind: str
    built_in: Mapping[str, tuple[str, str]]
    mysql: tuple[str, ...]
    sqlite: str
    group: str
    is_elsewhere: Callable[[str], bool]
    instead: str
    remedy: str
    without_url: frozenset[str] = frozenset()
    aliases: Mapping[str, str] = field(default_factory=dict[str, str])

    def canonical(self, name: str) -> str:
        """Return the one name of a driver that has several."""
        return self.aliases.get(name.lower(), name.lower())

    def adapter_named(self, name: str) -> Any:
        """Return the adapter class of that name.

        Raises:
            InvalidSetting: there is none.
            DriverMissing: there is, but its driver is not installed.
        """
        place = self.built_in.get(self.canonical(name))
        if place is None:
            return self._brought(name)
        where, needed = place
        if not is_installed(needed):
            raise missing(self.canonical(name), f"the driver {needed} is not installed")
        module, _, attribute = where.partition(":")
        return getattr(importlib.import_module(module), attribute)

    def _brought(self, name: str) -> Any:
        added = self.entry_points()
        if name in added:
            return added[name].load()
        known = [*self.built_in, *added]
        if self.is_elsewhere(name):
            raise InvalidSetting("driver", name, ", ".join(known), self.instead)
        near = difflib.get_close_matches(name, known, n=1)
        why = f"there is no such {self.kind}" + (f"; did you mean {near[0]}?" if near else f"; {self.remedy}")
        raise InvalidSetting("driver", name, ", ".join(known), why)

    def entry_points(self) -> dict[str, EntryPoint]:
        """Return the adapters that other packages bring."""
        # Imported here, since it brings a sixth of all that an import of millpond would cost, e-mail included.
        from importlib.metadata import entry_points

        return {point.name: point for point in entry_points(group=self.group)}

    def of_url(self, text: str, driver: str | None, settings: Mapping[str, Any]) -> Any:
        """Make the adapter for a URL.

        Args:
            text: the URL.
            driver: the name of the adapter; None: as the URL says.
            settings: for the adapter.

        Raises:
            InvalidSetting: the URL, its options or the driver cannot be.
            DriverMissing: the driver is not installed.
        """
        url = URL.parse(text)
        if driver is not None and url.driver is not None and self.canonical(driver) != self.canonical(url.driver):
            allowed = f"{url.driver}, or nothing"
            raise InvalidSetting("driver", driver, allowed, f"the URL says {url.scheme}+{url.driver}://")
        name = driver or url.driver or self.default_for(url.scheme)
        adapter = self.adapter_named(name)
        if not hasattr(adapter, "from_url") or self.canonical(name) in self.without_url:
            raise InvalidSetting("driver", name, "an adapter that takes URLs", f"the adapter {name} takes none")
        schemes = self.schemes_of(name)
        if schemes and url.scheme not in schemes:
            why = f"it does not go with {url.scheme}://"
            raise InvalidSetting("driver", name, f"with {' or '.join(schemes)}://", why)
        return adapter.from_url(url, **settings)

    def schemes_of(self, name: str) -> tuple[str, ...]:
        """Return the schemes of one of our own adapters; none for others, who know theirs."""
        if self.canonical(name) in self.mysql:
            return MYSQL_SCHEMES
        return ("sqlite",) if self.canonical(name) == self.sqlite else ()

    def default_for(self, scheme: str) -> str:
        """Return the driver for a URL that names none.

        Raises:
            DriverMissing: none of those for MySQL is installed.
            InvalidSetting: nobody knows the scheme.
        """
        if scheme in MYSQL_SCHEMES:
            for name in self.mysql:
                if is_installed(self.built_in[name][1]):
                    return name
            raise missing(self.mysql[0], f"no {self.kind} for {scheme}:// is installed")
        if scheme == "sqlite":
            return self.sqlite
        added = self.entry_points()
        if scheme in added:
            return scheme
        known = [*SCHEMES, *added]
        near = difflib.get_close_matches(scheme, known, n=1)
        why = "there is no such scheme" + (f"; did you mean {near[0]}://?" if near else f"; {self.remedy}")
        raise InvalidSetting("url", f"{scheme}://...", ", ".join(f"{name}://" for name in known), why)


def is_installed(module: str) -> bool:
    """Say whether a module can be imported, without importing it."""
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        return False


def missing(name: str, why: str) -> DriverMissing:
    """Make the error for a driver that is not installed; the extra has the driver's name."""
    return DriverMissing(f'{why}; install one with: pip install "millpond[{name}]"')


# -- what a pool is given ----------------------------------------------------------------------------------------------
def keyword_arguments(connect_args: Any) -> dict[str, Any]:
    """Return ``connect_args`` as a dict of its own.

    Raises:
        InvalidSetting: they are no keyword arguments; what was given is not quoted.
    """
    try:
        arguments: dict[Any, Any] = dict(connect_args or {})
    except (TypeError, ValueError):  # not chained: it may quote what was given
        raise InvalidSetting("connect_args", type(connect_args).__name__, CONNECT_ARGS) from None
    if not all(isinstance(name, str) for name in arguments):
        raise InvalidSetting("connect_args", type(connect_args).__name__, CONNECT_ARGS, "one of its keys is no name")
    return arguments


def checked_driver(driver: Any) -> str | None:
    """Return the name of a driver, or None.

    Raises:
        InvalidSetting: it is something else.
    """
    if driver is not None and not isinstance(driver, str):
        raise InvalidSetting("driver", driver, "the name of a driver, such as 'pymysql'")
    return driver


def refuse_connection(source: Any, allowed: str) -> None:
    """Say so if a pool is to be made of a connection."""
    if hasattr(source, "cursor") and not isinstance(source, type):
        raise InvalidSetting("source", type(source).__name__, allowed, "this is a connection: pass what makes one")


def refuse_settings(arguments: dict[str, Any], driver: str | None, reset: Any, on_connect: Any) -> None:
    """Say so if a setting would be lost because an adapter, made before, has its own."""
    lost = {"connect_args": arguments or None, "driver": driver, "on_connect": on_connect}
    lost["reset"] = None if reset in ("auto", "none", None) else reset  # the pool itself leaves resets out
    for name, value in lost.items():
        if value is not None:
            shown = "..." if name == "connect_args" else value
            raise InvalidSetting(name, shown, "leave it out", "it has to be given to the adapter, when that is made")
