"""Garbage that is gone when a test says so."""

from __future__ import annotations

import gc
import threading
import time
from typing import Any

DEADLINE_S = 10.0


def collect() -> None:
    """Collect all garbage: while another thread is at it, ``gc.collect()`` by itself returns and has done nothing."""
    until = time.monotonic() + DEADLINE_S
    nobody = threading.Event()
    while True:
        cycle: list[Any] = []
        cycle.append(cycle)
        del cycle
        if gc.collect():  # a collection that took place has found this one at least
            return
        assert time.monotonic() < until, "another thread collects garbage without end"
        nobody.wait(0.001)
