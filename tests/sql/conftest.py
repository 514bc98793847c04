"""What the tests of statements share: a measure of effort that hardly depends on how busy the machine is."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

GROWTH = 8
SHORT_LENGTH = 4000
MEASURABLE_S = 20e-6  # below this the clock says little


@pytest.fixture
def growth_of_effort() -> Callable[[Callable[[str], object], str], float]:
    """Return a function that says how many times longer a text eight times as long takes.

    The text repeats a piece; the best of five runs counts, in this thread's processor time.
    """

    def measure(function: Callable[[str], object], piece: str) -> float:
        short = piece * (SHORT_LENGTH // len(piece))
        return _best_s(function, short * GROWTH) / _best_s(function, short)

    return measure


def _best_s(function: Callable[[str], object], text: str) -> float:
    spent_s: list[float] = []
    for _ in range(5):
        begun_at = time.thread_time()
        function(text)
        spent_s.append(time.thread_time() - begun_at)
    return max(min(spent_s), MEASURABLE_S)
