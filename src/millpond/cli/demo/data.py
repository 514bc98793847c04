"""The data of the demo: the world's time zones and countries, from the IANA tables in the ``tzdata`` package."""

from __future__ import annotations

import importlib.metadata
import importlib.resources
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Zone:
    """One line of ``zone1970.tab``: ``countries`` are ISO codes, the country with most of the zone's people first."""

    name: str
    countries: str
    coordinates: str
    comment: str

    @property
    def country(self) -> str:
        """Return the code of the first country."""
        return self.countries.partition(",")[0]


@dataclass(frozen=True)
class World:
    """All zones, the names of all countries by their ISO code, and the release of the package they are from."""

    zones: tuple[Zone, ...]
    countries: dict[str, str]
    release: str

    def row(self, zone: Zone) -> tuple[str, str, str]:
        """Return what a database that has the tables must answer about *zone*: name, coordinates, country's name."""
        return zone.name, zone.coordinates, self.countries[zone.country]


def load() -> World:
    """Read the tables from the installed ``tzdata`` package."""
    countries = {code: name for code, name, *_ in _lines("iso3166.tab")}
    zones = tuple(
        Zone(name, codes, coordinates, rest[0] if rest else "")
        for codes, coordinates, name, *rest in _lines("zone1970.tab")
    )
    return World(zones, countries, importlib.metadata.version("tzdata"))


def _lines(table: str) -> Iterator[list[str]]:
    text = importlib.resources.files("tzdata.zoneinfo").joinpath(table).read_text(encoding="utf-8")
    for line in text.splitlines():
        if line and not line.startswith("#"):
            yield line.split("\t")
