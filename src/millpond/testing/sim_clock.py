"""A clock that stands still until it is told to go on: for tests that must not sleep.

::

    clock = SimClock()
    pool = millpond.Pool(driver, max_lifetime=1800.0, runtime=clock.runtime())
    ...
    clock.advance(1800.0)                    # half an hour has passed, for this pool

It goes wherever millpond takes a clock (a pool's ``runtime``, the simulator).  It must never go back: instants are
compared everywhere, and a deadline that was reached stays reached.

Rules: whoever waits on this clock waits for :meth:`SimClock.advance`, however long that takes.  Only
:meth:`SimClock.await_that`, which a test calls, gives up after a while of real time.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from millpond._crew import Runtime


class SimClock:
    """A monotonic clock under a test's control; call it to read it.

    Args:
        start: the first reading, in seconds; any finite number.
    """

    __slots__ = ("changed", "now")

    def __init__(self, start: float = 0.0) -> None:
        if not math.isfinite(start):
            raise ValueError(f"start={start!r}: a clock starts at a finite number of seconds")
        self.now = float(start)
        self.changed = threading.Condition()

    def __call__(self) -> float:
        """Return the present reading in seconds."""
        return self.now

    def advance(self, seconds: float) -> float:
        """Let time pass.

        Args:
            seconds: how much; 0 or more.

        Returns:
            The new reading.

        Raises:
            ValueError: time would stand still for ever or go back; the caller's fault.
        """
        if not 0 <= seconds < math.inf:
            raise ValueError(f"seconds={seconds!r}: time passes by 0 or more seconds")
        return self._go_on(self.now + seconds)

    def advance_to(self, instant: float) -> float:
        """Let time pass until *instant*, exactly; an instant that has passed changes nothing.

        Returns:
            The new reading.

        Raises:
            ValueError: *instant* is no finite number; the caller's fault.
        """
        if not math.isfinite(instant):
            raise ValueError(f"instant={instant!r}: a clock is set to a finite number of seconds")
        return self._go_on(float(instant))

    def _go_on(self, instant: float) -> float:
        with self.changed:
            self.now = max(self.now, instant)
            self.changed.notify_all()
            return self.now

    def runtime(self, jitter: float = 0.0) -> Runtime:
        """Return what lets a pool live on this clock: ``Pool(..., runtime=clock.runtime())``.

        Its callers' time-outs, its connections' ages and its own alarms then pass by :meth:`advance` alone.

        Args:
            jitter: what the pool takes for chance, 0 to 1; 0 gives every connection the whole ``max_lifetime``.
        """
        from millpond._crew import Runtime

        return replace(Runtime.of_host(), clock=self, new_lock=lambda: SimLock(self), jitter=lambda: jitter)

    def await_that(self, condition: Callable[[], bool], timeout: float = 10.0) -> None:
        """Wait until something about a pool on this clock is so; looked at whenever a thread of the pool does anything.

        Args:
            condition: asked again and again, as in ``lambda: pool.stats().waiting == 2``.
            timeout: seconds of real time.

        Raises:
            TimeoutError: it did not become so.
        """
        with self.changed:
            if not self.changed.wait_for(condition, timeout):
                raise TimeoutError(f"waited {timeout} s of real time for {condition!r}")

    def __repr__(self) -> str:
        return f"SimClock({self.now!r})"


class SimLock:
    """A lock whose time-outs pass on a :class:`SimClock`; any thread may release it."""

    __slots__ = ("_clock", "_held")

    def __init__(self, clock: SimClock) -> None:
        self._clock = clock
        self._held = False

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        """Take the lock, waiting for it if need be; False if it did not become free in time."""
        clock = self._clock
        with clock.changed:
            until = clock.now + timeout if timeout >= 0 else math.inf
            if blocking:
                clock.changed.wait_for(lambda: not self._held or clock.now >= until)
            if self._held:
                return False
            self._held = True
            return True

    def release(self) -> None:
        """Let go of the lock.

        Raises:
            RuntimeError: nobody has it.
        """
        with self._clock.changed:
            if not self._held:
                raise RuntimeError("release unlocked lock")
            self._held = False
            self._clock.changed.notify_all()

    def locked(self) -> bool:
        """Say whether anybody has the lock."""
        return self._held

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()
