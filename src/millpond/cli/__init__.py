"""The command line, ``millpond ...``: an extra, so that the package itself needs nothing.

This module is only the door: it must be importable without the extra, to say what to install.
"""

from __future__ import annotations

import importlib
import sys

_NEEDED = ("click", "rich", "tzdata")


def main() -> None:
    """Run the command line and exit with its code: 0 all well, 1 something is wrong, 2 it was called wrongly."""
    missing = [name for name in _NEEDED if not _is_there(name)]
    if missing:
        print(  # noqa: T201  there is nothing else to say it with
            f"millpond's command line needs {', '.join(missing)}: pip install 'millpond[cli]'", file=sys.stderr
        )
        raise SystemExit(2)
    from .app import millpond

    try:
        millpond(prog_name="millpond")
    except OSError as error:  # a full disk, a folder that must not be written to: the machine's fault, told in a line
        print(f"millpond: {error}", file=sys.stderr)  # noqa: T201  as above
        raise SystemExit(1) from None


def _is_there(name: str) -> bool:
    try:
        importlib.import_module(name)
    except ImportError:
        return False
    return True
