"""Where in a program something happened, noted for next to nothing.

A code object and an instruction's offset in it are two attribute reads on the caller's frame (55-90 ns together,
measured by ``bench/site.py``); file, line and function are worked out only when somebody asks.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import CodeType


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

    def __str__(self) -> str:
        return f"{self.file}:{self.line} in {self.function}"
