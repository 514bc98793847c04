"""Where in a program something happened, noted for next to nothing.

A code object and an instruction's offset in it are two attribute reads on the caller's frame (55-90 ns together,
measured by ``bench/site.py``); file, line and function are worked out only when somebody asks.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from types import CodeType, FrameType


@dataclass(frozen=True)
class Site:
    """A place in a program."""

    file: str
    line: int
    function: str

    @classmethod
    def of(cls, code: CodeType | None, instruction: int) -> Site | None:
        """Return the place of an instruction; None if it was not noted."""
        if code is None:
            return None
        line = code.co_firstlineno
        for start, end, found in code.co_lines():
            if start <= instruction < end and found is not None:
                line = found
        return cls(code.co_filename, line, code.co_name)

    @classmethod
    def outside(cls, package: str) -> Site | None:
        """Return the place in the caller's program: the innermost frame that is not in *package*."""
        frame: FrameType | None = sys._getframe(1)  # noqa: SLF001  as everywhere in here: the one way to see who calls
        while frame is not None:
            if frame.f_globals.get("__name__", "").partition(".")[0] != package:
                return cls(frame.f_code.co_filename, frame.f_lineno, frame.f_code.co_name)
            frame = frame.f_back
        return None

    def __str__(self) -> str:
        return f"{self.file}:{self.line} in {self.function}"
