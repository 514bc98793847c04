"""A signal's exception in front of one chosen bytecode, as a handler would raise it that the interpreter calls there.

:class:`SignalAt` strikes anywhere, which is more than real signals do: an interpreter calls handlers when a function
begins, after calls and at the ends of loops.  :class:`SignalAtLook` strikes there, in whatever the package runs.
"""

from __future__ import annotations

import dis
import itertools
import sys
import threading
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import millpond

from .doubles import join, start_tracing, trace_bytecodes

PACKAGE = Path(millpond.__file__).parent
IN_FINALIZERS = ("__del__", "take", "nudge")  # Python drops what a handler raises there


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


class Looks(dict[types.CodeType, "frozenset[int]"]):
    """Where in each code object an interpreter looks for signals; nowhere in what finalizers call."""

    def __missing__(self, code: types.CodeType) -> frozenset[int]:
        found: set[int] = set()
        if Path(code.co_filename).is_relative_to(PACKAGE) and code.co_name not in IN_FINALIZERS:
            instructions = [i for i in dis.get_instructions(code) if i.opname not in ("CACHE", "PRECALL", "RESUME")]
            found.add(instructions[0].offset)
            for before, here in itertools.pairwise(instructions):
                if before.opname.startswith("CALL") or here.opname in ("JUMP_BACKWARD", "JUMP_ABSOLUTE"):
                    found.add(here.offset)
        self[code] = frozenset(found)
        return self[code]


class SignalAtLook:
    """Raises where the interpreter looks for signals for the n-th time while the package's own code runs."""

    looks = Looks()

    def __init__(self, turn: int) -> None:
        self.left = turn
        self.where = ""  # nowhere yet

    def __enter__(self) -> SignalAtLook:  # noqa: PYI034  as above
        start_tracing(self.on_call)
        return self

    def __exit__(self, *_: object) -> None:
        sys.settrace(None)

    def on_call(self, frame: types.FrameType, event: str, arg: object) -> Any:
        """Trace the instructions of the package."""
        if self.where or not self.looks[frame.f_code]:
            return None
        trace_bytecodes(frame, self.on_instruction)
        return self.on_instruction

    def on_instruction(self, frame: types.FrameType, event: str, arg: object) -> Any:
        """Raise when the turn has come."""
        if event == "opcode" and not self.where and frame.f_lasti in self.looks[frame.f_code]:
            self.left -= 1
            if not self.left:
                self.where = f"{frame.f_code.co_name}, line {frame.f_lineno}, bytecode {frame.f_lasti}"
                raise Signalled
        return self.on_instruction


def offsets(code: types.CodeType) -> Iterator[int]:
    """Return where a signal may strike."""
    return (instruction.offset for instruction in dis.get_instructions(code))


def strike(at: SignalAt | SignalAtLook, work: Callable[[], object]) -> bool:
    """Run *work* in a thread of its own, to be struck there; say whether it was.

    Not in the caller's: struck at the end of an ``except`` block, Python takes that block's exception for the current
    one as long as the thread lives, chains it to all that come, and keeps alive what its frames hold.
    """
    struck: list[bool] = []
    failures: list[BaseException] = []

    def run() -> None:
        try:
            with at:
                work()
        except Signalled:
            struck.append(True)
        except BaseException as error:  # noqa: BLE001  raised again where the test sees it
            failures.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    join([thread])
    if failures:
        raise failures.pop()
    return bool(struck)
