"""Count what the core does: a cost that is the same on every machine."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any


@contextmanager
def counting_calls(*names: str) -> Iterator[Counter[str]]:
    """Count the calls of functions of the core by name, and of what they call in C; all of them if none is named."""
    counted: Counter[str] = Counter()

    def profile(frame: FrameType, event: str, what: Any) -> None:
        code = frame.f_code
        if "_core" not in code.co_filename:
            return
        if event == "call" and (not names or code.co_name in names):
            counted[code.co_name] += 1
        elif event == "c_call" and not names:
            counted[what.__name__] += 1

    before = sys.getprofile()
    sys.setprofile(profile)
    try:
        yield counted
    finally:
        sys.setprofile(before)
