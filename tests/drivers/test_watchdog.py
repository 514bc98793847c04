"""The watchdog shuts down what is guarded, at its deadline, and nothing else."""

from __future__ import annotations

import _thread
import contextlib
import dataclasses
import functools
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from millpond._crew import Runtime
from millpond.drivers._watchdog import Watchdog, duplicate, has_news, shut_down, unpatched_poll, wait_for_news
from tests.finalizing import Garbage, in_time
from tests.garbage import collect

PATIENCE_S = 10.0


@pytest.fixture
def dog() -> Watchdog:
    """Return a watchdog of the test's own."""
    return Watchdog()


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Return two ends of a link."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.settimeout(PATIENCE_S)
        yield ours, theirs


def is_whole(pair: tuple[socket.socket, socket.socket]) -> bool:
    """Say whether what one end sends arrives at the other."""
    pair[0].sendall(b"x")
    return pair[1].recv(1) == b"x"


def test_what_is_guarded_is_shut_down_at_its_deadline(dog: Watchdog, pair: tuple[socket.socket, socket.socket]) -> None:
    """The end of the link is seen at the other end, and not before the deadline."""
    began_at = time.monotonic()
    with dog.guard(pair[0].fileno(), began_at + 0.05) as guard:
        assert b"" == pair[1].recv(1)
    assert guard.fired
    assert time.monotonic() - began_at >= 0.05


def test_what_was_left_in_time_is_left_alone(dog: Watchdog, pair: tuple[socket.socket, socket.socket]) -> None:
    """A guard that was left is not fired, though the watchdog goes on."""
    with dog.guard(pair[0].fileno(), time.monotonic() + 0.05) as early:
        pass
    fired = threading.Event()
    with dog.guard_by(fired.set, time.monotonic() + 0.1):
        assert fired.wait(PATIENCE_S)
    assert not early.fired
    assert is_whole(pair)


def test_an_earlier_deadline_comes_first(dog: Watchdog, pair: tuple[socket.socket, socket.socket]) -> None:
    """A deadline that is set later and comes earlier is kept, though the watchdog sleeps for the other."""
    with dog.guard(pair[0].fileno(), time.monotonic() + 600) as late:
        fired = threading.Event()
        with dog.guard_by(fired.set, time.monotonic() + 0.02) as early:
            assert fired.wait(PATIENCE_S)
    assert [True, False] == [early.fired, late.fired]
    assert is_whole(pair)


def test_a_number_that_was_given_to_somebody_else_is_not_touched(dog: Watchdog) -> None:
    """The driver closes its socket, the system gives the number away: the stranger's socket stays whole."""
    ours, theirs = socket.socketpair()
    fired = threading.Event()
    with theirs, dog.guard(ours.fileno(), time.monotonic() + 0.02):
        number = ours.fileno()
        ours.close()
        stranger = socket.socketpair()
        with stranger[0], stranger[1]:
            assert number in (stranger[0].fileno(), stranger[1].fileno())
            with dog.guard_by(fired.set, time.monotonic() + 0.04):
                assert fired.wait(PATIENCE_S)
            assert is_whole(stranger)


def test_what_is_no_socket_is_left_alone(dog: Watchdog) -> None:
    """A descriptor of a forked child leads to /dev/null: there is nothing to shut down."""
    fd = os.open(os.devnull, os.O_RDWR)
    try:
        assert duplicate(fd) is None
        with dog.guard(fd, 0.0) as guard:
            pass
        assert not guard.fired
    finally:
        os.close(fd)


def test_what_is_no_socket_cannot_be_shut_down_and_costs_no_descriptor(tmp_path: Path) -> None:
    """In a forked child descriptors lead to a file: closing a pool there ends nothing, and leaves no duplicate."""
    file = tmp_path / "no socket"
    with file.open("wb") as opened:
        assert [False, False] == [shut_down(opened.fileno()), shut_down(None)]
    assert file not in [Path(os.path.realpath(link)) for link in Path("/proc/self/fd").iterdir()]


def test_what_is_shut_down_ends_for_whoever_uses_it(pair: tuple[socket.socket, socket.socket]) -> None:
    """It is said whether there was anything to end."""
    assert shut_down(pair[0].fileno())
    assert b"" == pair[0].recv(1) == pair[1].recv(1)


def test_no_descriptor_is_no_guard(dog: Watchdog) -> None:
    """Where nothing can be cut, nothing is watched."""
    with dog.guard(None, 0.0) as guard:
        pass
    assert not guard.fired


def test_where_no_thread_can_be_had_a_call_has_no_deadline(
    pair: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It is made all the same, and told of; the next one is kept in time again, when the host has recovered."""
    start, refusals = _thread.start_new_thread, iter([RuntimeError("can't start new thread")])

    def start_or_refuse(*given: Any) -> int:
        for refusal in refusals:
            raise refusal
        return start(*given)

    monkeypatch.setattr(_thread, "start_new_thread", start_or_refuse)
    dog = Watchdog()
    with dog.guard(pair[0].fileno(), 0.0) as unkept:
        assert is_whole(pair)
    assert "no thread could be started" in caplog.text
    with dog.guard(pair[0].fileno(), 0.0) as kept:
        assert b"" == pair[1].recv(1)
    assert [False, True] == [unkept.fired, kept.fired]


def test_a_deadline_that_is_set_while_a_thread_is_refused_is_kept() -> None:
    """It relies on the thread that another call asks for just then; the host has one a moment later."""
    start, refusals = _thread.start_new_thread, iter([RuntimeError("can't start new thread")])
    fired = threading.Event()

    def start_or_refuse(work: Callable[[], None]) -> None:
        for refusal in refusals:
            meanwhile.enter_context(dog.guard_by(fired.set, 0.0))
            raise refusal
        start(work, ())

    dog = Watchdog(dataclasses.replace(Runtime.of_host(), start=start_or_refuse))
    with contextlib.ExitStack() as meanwhile, dog.guard_by(list, time.monotonic() + 600):
        assert fired.wait(PATIENCE_S)


def test_after_a_fork_nothing_of_the_parents_is_cut(dog: Watchdog, pair: tuple[socket.socket, socket.socket]) -> None:
    """A child begins with an empty watchdog, which works."""
    with dog.guard(pair[0].fileno(), time.monotonic() + 600) as inherited:
        dog.after_fork()
        fired = threading.Event()
        with dog.guard_by(fired.set, time.monotonic()):
            assert fired.wait(PATIENCE_S)
    assert not inherited.fired
    assert is_whole(pair)


class Moment(float):
    """A time that makes garbage wherever it is compared, and has it collected."""

    end: Callable[[], object]

    def __eq__(self, other: object) -> bool:
        self.collect()
        return float(self) == other

    def __lt__(self, other: float) -> bool:
        self.collect()
        return float(self) < other

    __hash__ = float.__hash__

    def collect(self) -> None:
        """Have a finalizer run."""
        Garbage(self.end)
        collect()


def test_a_finalizer_guards_its_calls_where_its_thread_is_at_the_watchdog(dog: Watchdog) -> None:
    """The collector may run it while a guard is entered: it closes a connection there, in the same thread."""
    closed, fired = threading.Event(), threading.Event()
    until = time.monotonic() + 600

    def close() -> None:
        with dog.guard_by(fired.set, until + 1):
            closed.set()

    def enter() -> None:
        moment = Moment(until)
        moment.end = close
        with dog.guard_by(fired.set, until), dog.guard_by(fired.set, moment):
            assert closed.is_set()

    assert in_time(enter)
    assert closed.is_set()
    assert in_time(functools.partial(expect_to_be_cut, dog))
    assert not fired.is_set()


def expect_to_be_cut(dog: Watchdog) -> None:
    """See that the watchdog does its work."""
    cut = threading.Event()
    with dog.guard_by(cut.set, time.monotonic()):
        assert cut.wait(PATIENCE_S)


def test_a_finalizer_guards_its_calls_in_the_watchdog_s_own_thread(dog: Watchdog) -> None:
    """It runs there while a guard is being fired; it may even be the one that leaves that."""
    finalized, left = threading.Event(), threading.Event()

    def close() -> None:
        with dog.guard_by(finalized.set, time.monotonic() + 600):
            guard.__exit__()
        left.set()

    def fire() -> None:
        Garbage(close)
        collect()
        finalized.set()

    guard = dog.guard_by(fire, time.monotonic())
    assert in_time(guard.__enter__)
    assert finalized.wait(PATIENCE_S)
    assert left.wait(PATIENCE_S)
    assert guard.fired
    assert in_time(functools.partial(expect_to_be_cut, dog))


def fire_until(opened: threading.Event, done: list[str], begun: threading.Event) -> None:
    """Take some time to cut."""
    begun.set()
    assert opened.wait(PATIENCE_S)
    done.append("cut")


def test_a_guard_that_is_being_fired_is_not_left_before_that_is_done(dog: Watchdog) -> None:
    """Else a connection would be cut that has gone back to its pool."""
    opened, begun, leaving = threading.Event(), threading.Event(), threading.Event()
    done: list[str] = []
    guard = dog.guard_by(functools.partial(fire_until, opened, done, begun), time.monotonic())

    def leave() -> None:
        leaving.set()
        guard.__exit__()
        done.append("left")

    guard.__enter__()
    assert begun.wait(PATIENCE_S)
    thread = threading.Thread(target=leave, daemon=True)
    thread.start()
    assert leaving.wait(PATIENCE_S)
    opened.set()
    thread.join(PATIENCE_S)
    assert ["cut", "left"] == done


def test_a_child_that_was_forked_while_a_guard_was_fired_waits_for_nobody(dog: Watchdog) -> None:
    """The thread that was at it is its parent's."""
    opened, begun = threading.Event(), threading.Event()
    guard = dog.guard_by(functools.partial(fire_until, opened, [], begun), time.monotonic())
    guard.__enter__()
    assert begun.wait(PATIENCE_S)
    dog.after_fork()
    assert in_time(guard.__exit__)
    assert in_time(functools.partial(expect_to_be_cut, dog))
    opened.set()


def test_a_cut_that_fails_does_not_cost_the_others_their_deadlines(
    dog: Watchdog, caplog: pytest.LogCaptureFixture
) -> None:
    """It is told of, and the next one is cut in time."""

    def fail() -> None:
        raise ValueError("no such socket")

    with dog.guard_by(fail, time.monotonic()) as failed:
        expect_to_be_cut(dog)
    assert failed.fired
    assert "no such socket" in caplog.text


def test_many_deadlines_in_any_order(dog: Watchdog) -> None:
    """Of many guards, entered in reverse, all fire."""
    fired: set[int] = set()
    all_fired = threading.Event()
    now = time.monotonic()

    def note(number: int) -> None:
        fired.add(number)
        if len(fired) == 50:
            all_fired.set()

    with contextlib.ExitStack() as guards:
        for number in reversed(range(50)):
            guards.enter_context(dog.guard_by(functools.partial(note, number), now + 0.001 * number))
        assert all_fired.wait(PATIENCE_S)
    assert set(range(50)) == fired


def test_news_are_seen_without_reading_them(pair: tuple[socket.socket, socket.socket]) -> None:
    """A poll tells what has arrived, and that nothing has."""
    new_poll = unpatched_poll()
    assert new_poll is not None
    owner: dict[str, object] = {}
    fd = pair[0].fileno()
    assert not has_news(owner, fd, new_poll)
    assert not wait_for_news(fd, time.monotonic() - 1, new_poll)
    pair[1].sendall(b"x")
    assert wait_for_news(fd, time.monotonic() + PATIENCE_S, new_poll)
    assert has_news(owner, fd, new_poll)


def test_keepalive_is_set() -> None:
    """A peer that is gone is noticed by the system, where it can be told to."""
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as ours:
        with Watchdog().guard(ours.fileno(), time.monotonic() + PATIENCE_S) as guard:
            guard.keep_alive(60.0)
        assert ours.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            assert 60_000 == ours.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT)
