"""A finalizer in front of every bytecode of the drivers' watchdog, in the thread that is guarded and in its own.

Wherever it runs: nobody waits for himself, what is due is cut, what is not due or was left is not, and the next
deadline is kept.
"""

from __future__ import annotations

import _thread
import threading
import time
import types
from collections.abc import Callable
from typing import Any

import pytest

from millpond._crew import Crew, Job, Post, Runtime
from millpond._deadlines import Deadlines, Fate
from millpond.drivers._watchdog import Guard, Watchdog
from tests.finalizing import FinalizerAt, places
from tests.threads.doubles import DEADLINE_S, join, runtime_with, until

FUNCTIONS: tuple[Any, ...] = (
    Guard.__init__, Guard.__enter__, Guard.__exit__, Guard.fall_due, Guard.let_go, Watchdog.enter, Watchdog.leave,
    Deadlines.keep, Deadlines.let_go, Deadlines._ring, Deadlines._serve, Deadlines._watch, Deadlines._do_what_is_due,
    Deadlines._next_at, Fate.__init__, Fate.done, Fate.cut, Crew.man, Crew.send, Crew.do, Crew.done, Post.take,
    Post.leave, Job.begin,
)  # fmt: skip
LATER_S = 600.0
AT_ONCE = 20  # each of them waits most of its time


class Impatient:
    """A lock that is not waited for long: the watchdog's thread ends soon when there is nothing to watch."""

    def __init__(self) -> None:
        self._lock = _thread.allocate_lock()
        self.release = self._lock.release
        self.locked = self._lock.locked

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        """Wait for a moment."""
        return self._lock.acquire(blocking, min(timeout, 0.001))

    def __enter__(self) -> bool:
        return self._lock.__enter__()

    def __exit__(self, *exc: object) -> None:
        self._lock.release()


class Late:
    """A guard of a call that is late."""

    def __init__(self, dog: Watchdog) -> None:
        self._cut = threading.Event()
        self.guard = dog.guard_by(self._cut.set, time.monotonic())

    def await_cut(self) -> None:
        """See that the call is cut off."""
        assert self._cut.wait(DEADLINE_S), "a call that was due was not cut"


class Scene:
    """A watchdog, calls that it guards, and what finalizers do to it in the middle of them."""

    def __init__(self) -> None:
        self.dog = Watchdog()
        self.wrong: list[str] = []
        self.kept: list[tuple[Guard, ...]] = []
        self.begun: list[Late] = []

    def not_due(self, name: str) -> Guard:
        """Make a guard of a call that has time."""
        return self.dog.guard_by(lambda: self.wrong.append(name), time.monotonic() + LATER_S)

    def finalize(self) -> None:
        """Close a connection, give up one that is guarded and one that is late, and begin calls that go on."""
        with self.not_due("closed"):
            self.leave_all()
        late, begun = Late(self.dog), self.not_due("begun")
        late.guard.__enter__()
        begun.__enter__()
        self.kept.append((late.guard, begun))
        self.begun.append(late)

    def leave_all(self) -> None:
        """Leave whatever was entered, due or not."""
        while self.kept:
            for guard in self.kept.pop():
                guard.__exit__()

    def play(self) -> None:
        """Guard calls: some that are done in time, and two that are late while others are not."""
        early = Late(self.dog)
        for guard in (self.not_due("left"), early.guard, self.not_due("also left")):
            guard.__enter__()
            self.kept.append((guard,))
        late = Late(self.dog)
        with self.not_due("outer"):
            until(lambda: early.guard.fired or self.begun, "the cut of what is due, or its end")
            with late.guard:
                late.await_cut()

    def end(self) -> None:
        """See that the watchdog does its work, and that its thread comes to an end."""
        late = Late(self.dog)
        with late.guard:
            late.await_cut()
        self.leave_all()
        crew = self.dog._deadlines._crew
        until(lambda: self.begun or not crew.jobs, "the end of the watchdog's thread")
        if self.begun and self.kept:  # just now, in the last lines of that thread
            self.begun[0].await_cut()
        self.leave_all()
        assert not self.dog._deadlines.kept
        assert crew.join(time.monotonic() + DEADLINE_S), "the thread goes on with nothing to watch"


class Turn:
    """One playing of a scene, with a finalizer at one place, in a thread of its own."""

    def __init__(self, code: types.CodeType, offset: int, where: str) -> None:
        self.where = where
        self.scene = Scene()
        self.at = FinalizerAt(code, offset, self.scene.finalize)
        self.failures: list[BaseException] = []
        self.thread = threading.Thread(target=self.run, daemon=True)

    def run(self) -> None:
        """Play it."""
        try:
            self.scene.dog = Watchdog(runtime_for(self.at))
            with self.at:
                self.scene.play()
            self.scene.end()
        except BaseException as error:  # noqa: BLE001  told of where the test sees it
            self.failures.append(error)


def runtime_for(at: FinalizerAt) -> Runtime:
    """Return a host whose threads are traced."""

    def start(work: Callable[[], None]) -> None:
        _thread.start_new_thread(at.traced(work), ())

    return runtime_with(new_lock=Impatient, start=start)


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda function: function.__qualname__)
def test_a_finalizer_anywhere_in_the_watchdog_is_harmless(function: Any) -> None:
    """It enters, leaves and fires guards in the same thread, in the middle of every function in turn."""
    turns = [Turn(*place) for place in places(function)]
    for some in (turns[first : first + AT_ONCE] for first in range(0, len(turns), AT_ONCE)):
        for turn in some:
            turn.thread.start()
        join(turn.thread for turn in some)
    for turn in turns:
        failures = [*turn.failures, *turn.at.failures]
        assert not failures, f"{turn.where}: {failures[0]!r}"
        assert not turn.scene.wrong, f"{turn.where}: cut before their time: {turn.scene.wrong}"
    assert any(turn.at.ran for turn in turns), "no finalizer has run"
