"""The release of DBUtils whose place the drop-in takes."""

from __future__ import annotations

from typing import Final

DBUTILS_VERSION: Final = "3.2.0"
