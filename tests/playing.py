"""The demo, played once more where it was the machine that spoilt what it shows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeVar

T = TypeVar("T")

# What a thread that is kept from running for a tenth of a second makes of a demo of seconds.
OF_THE_MACHINE: Final = ("unfair: one thread", "too few connections were killed")
PLAYS: Final = 4


def played(play: Callable[[], T], said: Callable[[T], str]) -> T:
    """Play the demo, again if need be, and return how it went in the end.

    Args:
        play: plays it from the beginning.
        said: tells what it printed.
    """
    for _ in range(PLAYS - 1):
        went = play()
        if not any(words in said(went) for words in OF_THE_MACHINE):
            return went
    return play()
