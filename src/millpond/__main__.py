"""``python -m millpond`` is ``millpond``."""

from __future__ import annotations

from millpond.cli import main

if __name__ == "__main__":
    main()
