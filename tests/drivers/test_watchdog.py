"""The watchdog shuts down what is guarded, at its deadline, and nothing else."""

from __future__ import annotations

import _thread
import contextlib
import functools
import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from millpond.drivers._watchdog import Watchdog, duplicate, has_news, shut_down, unpatched_poll, wait_for_news

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
    assert "can't start new thread" in caplog.text
    with dog.guard(pair[0].fileno(), 0.0) as kept:
        assert b"" == pair[1].recv(1)
    assert [False, True] == [unkept.fired, kept.fired]


def test_after_a_fork_nothing_of_the_parents_is_cut(dog: Watchdog, pair: tuple[socket.socket, socket.socket]) -> None:
    """A child begins with an empty watchdog, which works."""
    with dog.guard(pair[0].fileno(), time.monotonic() + 600) as inherited:
        dog.after_fork()
        fired = threading.Event()
        with dog.guard_by(fired.set, time.monotonic()):
            assert fired.wait(PATIENCE_S)
    assert not inherited.fired
    assert is_whole(pair)


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
