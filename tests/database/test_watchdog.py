"""Deadlines kept from outside: what is ended, in which order, and what is left alone."""

from __future__ import annotations

import _thread
import functools
import gc
import threading
import time
import weakref
from collections.abc import Callable
from typing import Any

import pytest

from millpond._database.watchdog import Latch, Watch, Watchdog
from millpond._deadlines import Fate
from tests.finalizing import FinalizerAt, Garbage, in_time, places
from tests.garbage import collect

WAIT_S = 20.0


class Ends:
    """Notes what was ended, and waits for it."""

    def __init__(self) -> None:
        self.happened: list[str] = []
        self._changed = threading.Condition()

    def noting(self, what: str) -> Callable[[], None]:
        """Return a function that notes that it was called."""

        def note() -> None:
            with self._changed:
                self.happened.append(what)
                self._changed.notify_all()

        return note

    def wait_for(self, *what: str) -> None:
        """Wait until exactly this has happened."""
        with self._changed:
            assert self._changed.wait_for(lambda: self.happened == list(what), WAIT_S), self.happened


def test_a_statement_that_is_done_in_time_is_left_alone() -> None:
    """A watch that was disarmed never fires, also if somebody fires it."""
    ends = Ends()
    watch = Watch(ends.noting("statement"), ends.noting("link"))
    assert not watch.disarm()
    assert not watch.fire()
    watch.cut()
    assert ([], False) == (ends.happened, watch.fired)


def test_first_the_statement_is_ended_and_then_the_link() -> None:
    """Somebody who still waits a second after the statement was ended is cut off."""
    ends = Ends()
    watch = Watch(ends.noting("statement"), ends.noting("link"))
    Watchdog().watch(0.0, watch)
    ends.wait_for("statement", "link")
    assert (True, True) == (watch.fired, watch.disarm())


def test_a_link_is_cut_at_once_where_nothing_else_ends_a_statement() -> None:
    """Without a way to end a statement there is one step only."""
    ends = Ends()
    watch = Watch(None, ends.noting("link"))
    Watchdog().watch(0.0, watch)
    ends.wait_for("link")
    assert watch.wait_until_settled(WAIT_S)


def test_an_end_that_helped_spares_the_link() -> None:
    """Whoever was told in time is not cut off: the connection may be used on by its transaction."""
    ends = Ends()
    watch = Watch(ends.noting("statement"), ends.noting("link"))
    assert watch.fire()
    ends.wait_for("statement")
    assert watch.disarm()
    assert watch.wait_until_settled(WAIT_S)
    watch.cut()
    assert ["statement"] == ends.happened


def test_a_kill_that_fails_is_no_ones_error() -> None:
    """The link is cut instead, a moment later."""
    ends = Ends()

    def fail() -> None:
        raise OSError("no second connection")

    watch = Watch(fail, ends.noting("link"))
    Watchdog().watch(0.0, watch)
    ends.wait_for("link")


def test_an_order_that_is_under_way_is_given_more_time() -> None:
    """A machine with much to do is slow to connect: the link is cut when the order is done and does not help."""
    ends = Ends()
    going = threading.Event()

    def connect_slowly() -> None:
        assert going.wait(WAIT_S)

    watch = Watch(connect_slowly, ends.noting("link"))
    assert watch.fire()
    assert watch.press()
    assert [] == ends.happened
    going.set()
    assert watch.wait_until_settled(WAIT_S)
    assert not watch.press()
    ends.wait_for("link")


def test_an_order_that_never_comes_to_an_end_is_not_waited_for() -> None:
    """The rounds of grace are few, then the link is cut."""
    ends = Ends()
    never = threading.Event()

    def hang() -> None:
        never.wait(WAIT_S)

    watch = Watch(hang, ends.noting("link"))
    assert watch.fire()
    assert [True, True, False] == [watch.press() for _ in range(3)]
    never.set()
    ends.wait_for("link")


def test_the_nearest_deadline_comes_first() -> None:
    """A later deadline that was set before does not hold up an earlier one."""
    ends = Ends()
    dog = Watchdog()
    dog.watch(3600.0, Watch(None, ends.noting("late")))
    dog.watch(0.0, Watch(None, ends.noting("early")))
    ends.wait_for("early")


def test_a_deadline_after_a_long_rest_is_kept() -> None:
    """Whether its thread is still there or has to come back, the next deadline is kept."""
    now = [0.0]
    ends = Ends()
    dog = Watchdog(clock=lambda: now[0])
    dog.watch(0.0, Watch(None, ends.noting("one")))
    ends.wait_for("one")
    now[0] = 1000.0
    dog.watch(0.0, Watch(None, ends.noting("two")))
    ends.wait_for("one", "two")


class Counted(Watch):
    """A watch of which it can be seen whether it is still there."""


def test_deadlines_that_were_disarmed_are_not_kept_until_they_pass() -> None:
    """A program that limits each of its statements does not fill the memory with the past."""
    ends = Ends()
    dog = Watchdog(clock=lambda: 0.0)
    dog.watch(1800.0, waiting := Counted(None, ends.noting("link")))
    seen: weakref.WeakSet[Watch] = weakref.WeakSet()
    for _ in range(5_000):
        watch = Counted(None, ends.noting("link"))
        dog.watch(3600.0, watch)
        watch.disarm()
        seen.add(watch)
    gc.collect()
    assert len(seen) <= 600
    assert not waiting.fire()
    ends.wait_for("link")


@pytest.mark.parametrize("times", [1, 2])
def test_a_deadline_passes_once(times: int) -> None:
    """However often it is fired, a statement is ended once."""
    ends = Ends()
    watch = Watch(ends.noting("statement"), ends.noting("link"))
    assert [True, *[False] * (times - 1)] == [watch.fire() for _ in range(times)]
    ends.wait_for("statement")


# -- finalizers, which leave streams in the middle of anything --------------------------------------------------------
def test_a_stream_that_is_left_by_a_finalizer_while_its_link_is_cut_waits_for_nobody() -> None:
    """The collector may run that in the thread that cuts: the statement is over, and the next deadline is kept."""
    ends = Ends()
    dog = Watchdog()
    answers: list[bool] = []

    def cut() -> None:
        Garbage(lambda: answers.append(watch.disarm()))
        collect()
        ends.noting("link")()

    watch = Watch(None, cut)
    dog.watch(0.0, watch)
    ends.wait_for("link")
    assert [True] == answers
    dog.watch(0.0, Watch(None, ends.noting("next")))
    ends.wait_for("link", "next")


def test_a_finalizer_may_send_a_statement_while_its_thread_sets_a_deadline() -> None:
    """A rollback has a deadline of its own."""
    ends = Ends()
    sent: list[Watch] = []

    def send() -> None:
        sent.append(Watch(None, ends.noting("rollback")))
        dog.watch(3600.0, sent[0])

    def clock() -> float:
        if not sent:
            Garbage(send)
            collect()
        return time.monotonic()

    dog = Watchdog(clock)
    assert in_time(functools.partial(dog.watch, 0.0, Watch(None, ends.noting("link"))))
    ends.wait_for("link")
    assert not sent[0].disarm()


def test_a_child_that_was_forked_while_a_link_was_cut_waits_for_nobody() -> None:
    """The thread that was at it is its parent's."""
    ends = Ends()
    cutting, opened = threading.Event(), threading.Event()

    def cut() -> None:
        cutting.set()
        assert opened.wait(WAIT_S)

    dog = Watchdog()
    watch = Watch(None, cut)
    dog.watch(0.0, watch)
    assert cutting.wait(WAIT_S)
    dog.after_fork()
    assert in_time(watch.disarm)
    assert watch.wait_until_settled(WAIT_S)
    dog.watch(0.0, Watch(None, ends.noting("next")))
    ends.wait_for("next")
    opened.set()


def test_where_no_thread_can_be_had_a_statement_is_not_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever wants it to end in time is told; the next one is ended in time, when the host has recovered."""
    start, refusals = _thread.start_new_thread, iter([RuntimeError("can't start new thread")])

    def start_or_refuse(*given: Any) -> int:
        for refusal in refusals:
            raise refusal
        return start(*given)

    monkeypatch.setattr(_thread, "start_new_thread", start_or_refuse)
    ends = Ends()
    dog = Watchdog()
    refused = Watch(None, ends.noting("refused"))
    with pytest.raises(RuntimeError, match="it was not sent"):
        dog.watch(0.0, refused)
    dog.watch(0.0, Watch(None, ends.noting("link")))
    ends.wait_for("link")
    assert not refused.fired


def test_where_no_thread_can_be_had_to_end_a_statement_its_link_is_cut(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """At once, and the deadlines of others are kept."""
    ends = Ends()
    dog = Watchdog()
    dog.watch(0.0, Watch(None, ends.noting("first")))
    ends.wait_for("first")

    def refuse(*_: Any) -> int:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(_thread, "start_new_thread", refuse)
    dog.watch(0.0, Watch(ends.noting("statement"), ends.noting("link")))
    ends.wait_for("first", "link")
    dog.watch(0.0, Watch(None, ends.noting("next")))
    ends.wait_for("first", "link", "next")
    assert "its link is cut" in caplog.text


WATCH: tuple[Any, ...] = (
    Watch.disarm, Watch.fall_due, Watch.fire, Watch._note_fired, Watch.press, Watch.cut, Watch._cut_now, Fate.done,
    Fate.cut, Latch.set, Latch.wait,
)  # fmt: skip


def play(watch: Watch) -> None:
    """Have a deadline pass, wait for what it does, and come back to it as often as it wants, in one thread."""
    while watch.fall_due(0.0) is not None:
        assert watch.wait_until_settled(WAIT_S)
    assert watch.wait_until_settled(WAIT_S)
    watch.disarm()
    assert watch.fall_due(0.0) is None


@pytest.mark.parametrize("ends_statement", [True, False])
def test_a_finalizer_anywhere_in_a_deadline_is_harmless(*, ends_statement: bool) -> None:
    """Wherever the statement is over, in the thread that is about to end it: it is left alone, or that is told."""
    ran = 0
    for code, offset, where in places(*WATCH):
        happened: list[str] = []
        watch = Watch(
            functools.partial(happened.append, "statement") if ends_statement else None,
            functools.partial(happened.append, "link"),
        )

        def leave(watch: Watch = watch, happened: list[str] = happened) -> None:
            happened.append("fired" if watch.disarm() else "in time")

        at = FinalizerAt(code, offset, leave)
        assert in_time(at.traced(functools.partial(play, watch))), where
        assert not at.failures, f"{where}: {at.failures[0]!r}"
        ran += at.ran
        assert sorted(set(happened)) == sorted(happened), f"{where}: something was done twice: {happened}"
        assert "in time" not in happened or ["in time"] == happened, f"{where}: ended, though it was over: {happened}"
    assert ran > 50, "the finalizer never ran"
