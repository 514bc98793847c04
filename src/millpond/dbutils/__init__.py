"""DBUtils 3.2 by changing an import, on millpond's pool and without DBUtils' losses.

::

    from millpond.dbutils.pooled_db import PooledDB     # was: from dbutils.pooled_db import PooledDB

Every module, class, parameter and error of DBUtils 3.2 is here by its name.  What differs, and why, is in
``docs/migrate-from-dbutils.md``; in one sentence: with a driver that is known, no statement is sent twice, no
transaction is cut in two, and a connection goes to its next borrower as good as new.

:func:`install` lets code that says ``import dbutils``, and cannot be changed, find these modules.
"""

from __future__ import annotations

import importlib
import sys
from typing import Final

from ._errors import DropInError
from ._version import DBUTILS_VERSION

__all__ = ["InstalledTooLate", "__version__", "install"]

__version__ = DBUTILS_VERSION

MODULES: Final = (
    "pooled_db",
    "steady_db",
    "persistent_db",
    "simple_pooled_db",
    "pooled_pg",
    "steady_pg",
    "persistent_pg",
    "simple_pooled_pg",
)


class InstalledTooLate(DropInError, ImportError):
    """DBUtils itself has been imported already, and code may hold its classes."""


def install() -> None:
    """Have ``import dbutils``, and of each of its modules, find the drop-in; call it before anything imports DBUtils.

    Raises:
        InstalledTooLate: DBUtils itself was imported before.
    """
    here = sys.modules[__name__]
    there = sys.modules.get("dbutils")
    if there is not None and there is not here:
        raise InstalledTooLate("dbutils was imported already: call millpond.dbutils.install() before that")
    aliases = {"dbutils": here}
    for name in MODULES:
        aliases[f"dbutils.{name}"] = importlib.import_module(f"{__name__}.{name}")
    sys.modules.update(aliases)
