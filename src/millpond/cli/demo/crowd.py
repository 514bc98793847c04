"""Many threads that do the same for a while, watched from one place."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager

Watch = Callable[[float, int], None]  # told again and again how far it is (0 to 1) and how many turns were taken

_LOOK_EVERY_S = 0.08


def crowd(count: int, seconds: float, turn: Callable[[int], None], watch: Watch) -> list[int]:
    """Have *count* threads take turns for a while, and return how many each has taken.

    Args:
        count: threads, 1 or more.
        seconds: for how long, above 0; a turn that has begun is finished.
        turn: called with the thread's number, from 0, over and over.
        watch: called from this thread, meanwhile and at the end.

    Raises:
        BaseException: what a turn raised first; the others have ended then.
    """
    turns = [0] * count
    raised: list[BaseException] = []
    start, stop = threading.Event(), threading.Event()

    def live(number: int) -> None:
        start.wait()
        try:
            while not stop.is_set():
                turn(number)
                turns[number] += 1
        except BaseException as error:  # noqa: BLE001  it is raised again, in the thread that asked
            raised.append(error)
            stop.set()

    threads = [
        threading.Thread(target=live, args=(number,), name=f"thread {number + 1}", daemon=True)
        for number in range(count)
    ]
    with _all_ended(threads, start, stop):
        began_at = time.monotonic()
        start.set()
        while (passed := time.monotonic() - began_at) < seconds and not stop.wait(min(_LOOK_EVERY_S, seconds - passed)):
            watch(min(passed / seconds, 1.0), sum(turns))
    if raised:
        raise raised[0]
    watch(1.0, sum(turns))
    return turns


@contextmanager
def _all_ended(
    threads: list[threading.Thread], start: threading.Event, stop: threading.Event
) -> Generator[None, None, None]:
    """Start all, and end all: also those that there are when a signal raises in the middle of starting them."""
    try:
        for thread in threads:
            thread.start()
        yield
    finally:
        stop.set()
        start.set()
        for thread in threads:
            if thread.ident is not None:
                thread.join()


class Gate:
    """Lets many threads pass freely, until one asks them all to stand still for a moment."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._inside = 0
        self._closed = False

    @contextmanager
    def passing(self) -> Generator[None, None, None]:
        """Hold this while doing something that must not be going on when all stand still."""
        with self._changed:
            self._changed.wait_for(lambda: not self._closed)
            self._inside += 1
        try:
            yield
        finally:
            with self._changed:
                self._inside -= 1
                self._changed.notify_all()

    @contextmanager
    def closed(self) -> Generator[None, None, None]:
        """Wait until nobody is passing, and let nobody pass until the end of the block."""
        with self._changed:
            self._closed = True
            self._changed.wait_for(lambda: self._inside == 0)
        try:
            yield
        finally:
            with self._changed:
                self._closed = False
                self._changed.notify_all()
