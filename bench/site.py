"""What it costs to note where a connection was taken; must stay under 150 ns.

Two ways are compared: code object and instruction offset (what millpond notes; the line is worked out when somebody
asks) and the line number at once.
"""

from __future__ import annotations

import sys
import timeit
import types

from _peers import build

getframe = sys._getframe  # noqa: SLF001


class Place:
    """Somewhere to write to, as a slot is."""

    __slots__ = ("code", "instruction", "line")
    code: types.CodeType
    instruction: int
    line: int


place = Place()


def nothing() -> None:
    """Be called."""
    return


def offset() -> None:
    """Note code and instruction."""
    frame = getframe(1)
    place.code = frame.f_code
    place.instruction = frame.f_lasti


def line() -> None:
    """Note code and line."""
    frame = getframe(1)
    place.code = frame.f_code
    place.line = frame.f_lineno


def main() -> None:
    """Print what each costs beyond a call."""
    print(build())
    best = {
        work.__name__: min(timeit.repeat(work, number=200_000, repeat=9)) / 200_000 * 1e9
        for work in (nothing, offset, line)
    }
    for name in ("offset", "line"):
        print(f"{name:7} {best[name] - best['nothing']:6.0f} ns")


if __name__ == "__main__":
    main()
