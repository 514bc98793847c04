"""Many threads take turns, and one place knows how it went."""

from __future__ import annotations

import threading

import pytest

from millpond.cli.demo.crowd import Gate, crowd

DEADLINE_S = 10.0


def test_counts_the_turns_of_each_thread() -> None:
    """What each thread is said to have done is what it did, and the last look sees all of it."""
    done: list[int] = []
    looks: list[tuple[float, int]] = []
    turns = crowd(3, 0.05, done.append, lambda progress, count: looks.append((progress, count)))
    assert [done.count(number) for number in range(3)] == turns
    assert (1.0, sum(turns)) == looks[-1]


def test_raises_what_a_turn_raised() -> None:
    """An error in one thread ends all of them and reaches the one who asked."""

    def turn(number: int) -> None:
        if number == 1:
            raise LookupError("turn")

    before = threading.active_count()
    with pytest.raises(LookupError, match="turn"):
        crowd(3, DEADLINE_S, turn, lambda _progress, _count: None)
    assert before == threading.active_count()


class StruckThread(threading.Thread):
    """The third of its kind is not started: Ctrl-C was faster."""

    def start(self) -> None:
        """Start, or be struck."""
        if self.name == "thread 3":
            raise KeyboardInterrupt
        super().start()


def test_nobody_is_left_when_a_signal_strikes_between_two_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that had been started would wait for the others for ever."""
    monkeypatch.setattr(threading, "Thread", StruckThread)
    before = threading.active_count()
    with pytest.raises(KeyboardInterrupt):
        crowd(5, DEADLINE_S, lambda _number: None, lambda _progress, _count: None)
    assert before == threading.active_count()


def test_gate_stands_still() -> None:
    """Whoever closes the gate is alone until it opens."""
    gate = Gate()
    passing, leave, entered = threading.Event(), threading.Event(), threading.Event()
    order: list[str] = []

    def pass_slowly() -> None:
        with gate.passing():
            passing.set()
            assert leave.wait(DEADLINE_S)
            order.append("the slow one leaves")

    def pass_later() -> None:
        with gate.passing():
            order.append("the late one enters")
            entered.set()

    slow = threading.Thread(target=pass_slowly)
    slow.start()
    assert passing.wait(DEADLINE_S)
    threading.Timer(0.05, leave.set).start()  # while the gate is being closed
    with gate.closed():
        order.append("alone")
        late = threading.Thread(target=pass_later)
        late.start()
        assert not entered.wait(0.05)
    assert entered.wait(DEADLINE_S)
    slow.join(DEADLINE_S)
    late.join(DEADLINE_S)
    assert ["the slow one leaves", "alone", "the late one enters"] == order
