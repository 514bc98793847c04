"""What callers of the drop-in get while their server is away."""

from __future__ import annotations

from typing import Any

import pytest

from millpond.testing import FaultProxy
from tests.dbutils.waiting import let_rest

from .asking import ask


def ask_while_down(pool: Any, proxy: FaultProxy, error: type[Exception]) -> tuple[int, list[Exception]]:
    """Have the server go away, and ask for a connection three times.

    Args:
        pool: what is asked; all its connections go through the proxy.
        proxy: ends them, and refuses from now on.
        error: the class of the driver's errors.

    Returns:
        How many connections were handed out, each of them dead, and the errors that came instead.
    """
    proxy.refusing = True
    proxy.reset()
    proxy.wait_for(lambda: proxy.connections == 0)
    let_rest()
    handed_out = 0
    refused: list[Exception] = []
    for _ in range(3):
        try:
            db = pool.connection()
        except error as told:
            refused.append(told)
            continue
        handed_out += 1
        with pytest.raises(error):
            ask(db, "SELECT 1")
        db.close()
    return handed_out, refused
