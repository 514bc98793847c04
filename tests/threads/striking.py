"""A signal's exception in front of one chosen bytecode, as a handler would raise it that the interpreter calls there.

More than real signals do: an interpreter calls handlers after calls and at the ends of loops only.  What holds in front
of every bytecode holds wherever the next version looks.
"""

from __future__ import annotations

import dis
import sys
import types
from collections.abc import Iterator
from typing import Any

from .doubles import start_tracing, trace_bytecodes


class Signalled(BaseException):
    """What the handler raises."""


class SignalAt:
    """Raises in front of one instruction of one function, once."""

    def __init__(self, code: types.CodeType, offset: int) -> None:
        self.code = code
        self.offset = offset
        self.raised = False

    def __enter__(self) -> SignalAt:  # noqa: PYI034  typing.Self is younger than the oldest Python we run on
        start_tracing(self.on_call)
        return self

    def __exit__(self, *_: object) -> None:
        sys.settrace(None)

    def on_call(self, frame: types.FrameType, event: str, arg: object) -> Any:
        """Trace the instructions of the function, and nothing else."""
        if frame.f_code is not self.code or self.raised:
            return None
        trace_bytecodes(frame, self.on_instruction)
        return self.on_instruction

    def on_instruction(self, frame: types.FrameType, event: str, arg: object) -> Any:
        """Raise at the instruction."""
        if event == "opcode" and frame.f_lasti == self.offset and not self.raised:
            self.raised = True
            raise Signalled
        return self.on_instruction


def offsets(code: types.CodeType) -> Iterator[int]:
    """Return where a signal may strike."""
    return (instruction.offset for instruction in dis.get_instructions(code))
