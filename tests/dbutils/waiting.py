"""What tests of the drop-in wait for: threads that do the same at the same time, and connections that have rested."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

DEADLINE_S = 20.0  # what a test waits for happens within this, or it fails


def in_threads(number: int, work: Callable[[], Any]) -> list[threading.Thread]:
    """Start so many threads that do *work*."""
    threads = [threading.Thread(target=work, daemon=True) for _ in range(number)]
    for thread in threads:
        thread.start()
    return threads


def joined(threads: list[threading.Thread], timeout: float = DEADLINE_S) -> bool:
    """Wait for threads; False if one is still running."""
    for thread in threads:
        thread.join(timeout)
    return not any(thread.is_alive() for thread in threads)


def let_rest() -> None:
    """Wait until the last answer of every connection is longer ago than a pool trusts it."""
    since, resting = time.monotonic(), threading.Event()
    while time.monotonic() - since < 0.01:
        resting.wait(0.002)
