"""Count the bytecodes and frames that run in a block: a cost that is the same on every machine."""

from __future__ import annotations

import sys
import types
from collections.abc import Callable
from typing import Any

from tests.threads.doubles import start_tracing, trace_bytecodes

GRACE = 2  # bytecodes by which patch releases of one interpreter may differ


class Counter:
    """Counts what runs inside its block.

    Args:
        counts: says of a code object whether it is counted.
    """

    def __init__(self, counts: Callable[[types.CodeType], bool]) -> None:
        self.counts = counts
        self.bytecodes = 0
        self.frames = 0

    def __enter__(self) -> Counter:  # noqa: PYI034  typing.Self is younger than the oldest Python we run on
        start_tracing(self.on_call)
        return self

    def __exit__(self, *_: object) -> None:
        sys.settrace(None)

    def on_call(self, frame: types.FrameType, event: str, arg: object) -> Any:
        """Count a frame, and trace its bytecodes; one that is resumed counts each time."""
        if frame.f_code is Counter.__exit__.__code__ or not self.counts(frame.f_code):
            return None
        self.frames += 1
        trace_bytecodes(frame, self.on_bytecode)
        return self.on_bytecode

    def on_bytecode(self, frame: types.FrameType, event: str, arg: object) -> Any:
        """Count a bytecode."""
        if event == "opcode":
            self.bytecodes += 1
        return self.on_bytecode

    def assert_within(self, most: tuple[int, int], times: int = 1) -> None:
        """Assert that no more was counted, a time, than so many bytecodes and frames."""
        bytecodes, frames = most
        assert self.bytecodes / times <= bytecodes + GRACE, "see the top of this test's module"
        assert self.frames / times <= frames, "see the top of this test's module"
