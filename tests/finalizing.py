"""Somebody's finalizer in front of one chosen bytecode, as the collector would run it there."""

from __future__ import annotations

import dis
import sys
import threading
import types
from collections.abc import Callable, Iterator
from typing import Any

from tests.threads.doubles import start_tracing, trace_bytecodes

PATIENCE_S = 10.0  # for what takes no time, unless it waits for itself


class FinalizerAt:
    """Runs something in front of one instruction, once, in whichever of the threads that are traced comes there first.

    Args:
        code: of the function.
        offset: of the instruction.
        finalize: what a finalizer would do there.
    """

    def __init__(self, code: types.CodeType, offset: int, finalize: Callable[[], object]) -> None:
        self.code = code
        self.offset = offset
        self.finalize = finalize
        self.ran = False
        self.failures: list[BaseException] = []

    def __enter__(self) -> FinalizerAt:  # noqa: PYI034  typing.Self is younger than the oldest Python we run on
        start_tracing(self.on_call)
        return self

    def __exit__(self, *_: object) -> None:
        sys.settrace(None)

    def traced(self, work: Callable[[], object]) -> Callable[[], None]:
        """Return what does *work*, traced as well."""

        def run() -> None:
            with self:
                work()

        return run

    def on_call(self, frame: types.FrameType, event: str, arg: object) -> Any:
        """Trace the instructions of the function, and nothing else."""
        if frame.f_code is not self.code or self.ran:
            return None
        trace_bytecodes(frame, self.on_instruction)
        return self.on_instruction

    def on_instruction(self, frame: types.FrameType, event: str, arg: object) -> Any:
        """Run the finalizer at the instruction; as everywhere, nobody is told what it raises."""
        if event == "opcode" and frame.f_lasti == self.offset and not self.ran:
            self.ran = True
            try:
                self.finalize()
            except BaseException as error:  # noqa: BLE001  for the test to see
                self.failures.append(error)
        return self.on_instruction


def places(*functions: Any) -> Iterator[tuple[types.CodeType, int, str]]:
    """Return each instruction of the functions and of what is defined in them: its code, its place, its name."""
    for function in functions:
        yield from places_in(function.__code__, function.__qualname__)


def places_in(code: types.CodeType, name: str) -> Iterator[tuple[types.CodeType, int, str]]:
    """Return each instruction of a code object and of those in it."""
    for instruction in dis.get_instructions(code):
        yield code, instruction.offset, f"{name} at {instruction.offset}"
    for inner in code.co_consts:
        if isinstance(inner, types.CodeType):
            yield from places_in(inner, f"{name}.{inner.co_name}")


class Garbage:
    """Something that only the collector ends, and what its finalizer does."""

    def __init__(self, end: Callable[[], object]) -> None:
        self.end = end
        self.me = self

    def __del__(self) -> None:
        self.end()


def in_time(work: Callable[[], object]) -> bool:
    """Do *work* in a thread of its own; False if it does not come to an end."""
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(PATIENCE_S)
    return not thread.is_alive()
