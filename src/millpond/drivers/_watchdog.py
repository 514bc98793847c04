"""End calls that nobody else can end: a deadline on a descriptor, for drivers that do their own I/O.

Why: a C library that waits for a reply cannot be told to stop, and its thread cannot be interrupted.  But the socket it
waits on can be shut down by another thread; then the library's call comes back with an error of its own.

Rules:
- What is shut down is a duplicate of the descriptor, made while the connection was surely open: the driver may close
  its own and the system give the number to somebody else, the duplicate still leads to the same socket.
- A guard that was left is never fired: both happen under one lock.
- One thread serves the process; it lives only while something is guarded, and for a while after.  It is a thread of the
  system's even where gevent has patched threads, because a C library that waits lets no greenlet run.

It must not know drivers, nor decide what a deadline is.
"""

from __future__ import annotations

import _thread
import heapq
import itertools
import logging
import os
import select
import socket
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from typing_extensions import Self

logger = logging.getLogger("millpond")

LINGER_S: Final = 5.0  # the thread ends after so long without anything to guard


class Watchdog:
    """Keeper of deadlines; each guarded descriptor is shut down at its own, unless it was released before."""

    def __init__(self) -> None:
        self._begin()

    def _begin(self) -> None:
        thread = unpatched("_thread", _thread)
        self._start: Callable[..., object] = thread.start_new_thread
        # Taken again by the same thread where the collector runs a finalizer in a block, which closes a connection.
        self._lock: Any = thread.RLock()
        self._bell: Any = thread.allocate_lock()  # released to make the thread look again
        self._bell.acquire()
        self._running = False
        self._wakes_at = float("inf")
        self._order = itertools.count()
        self._guards: list[tuple[float, int, Guard]] = []

    def guard(self, fd: int | None, until: float) -> Guard:
        """Return a context in which the socket behind *fd* is shut down at *until*; None: nothing can be done."""
        return Guard(self, fd, until)

    def guard_by(self, cut: Callable[[], object], until: float) -> Guard:
        """Return a context in which *cut* is called at *until*: what it cuts is not known yet.  It must be quick."""
        return Guard(self, None, until, cut)

    def enter(self, guard: Guard) -> None:
        """Begin to watch."""
        with self._lock:
            heapq.heappush(self._guards, (guard.until, next(self._order), guard))
            sleeps_too_long = guard.until < self._wakes_at
            starts, self._running = not self._running, True
        if starts:
            self._begin_to_run(guard)
        elif sleeps_too_long:
            self._ring()

    def _begin_to_run(self, guard: Guard) -> None:
        try:
            self._start(self._run, ())
        except RuntimeError as error:  # the host starts no more threads: this call has no deadline, the next may have
            self._running = False
            self.leave(guard)
            logger.warning("no thread could be started to end a driver's call in time: %s", error)

    def leave(self, guard: Guard) -> None:
        """Cease to watch; from here on nothing is shut down."""
        if not guard.watched:
            return
        with self._lock:
            guard.watched = False
            while self._guards and not self._guards[0][2].watched:
                heapq.heappop(self._guards)

    def _ring(self) -> None:
        try:
            self._bell.release()
        except RuntimeError:  # it has been rung already
            return

    def _run(self) -> None:
        while True:
            now = time.monotonic()
            with self._lock:
                while self._guards and self._guards[0][0] <= now:
                    heapq.heappop(self._guards)[2].fire()
                left_s = self._guards[0][0] - now if self._guards else LINGER_S
                idle = not self._guards
                self._wakes_at = now + left_s
            rung = self._bell.acquire(timeout=min(left_s, _thread.TIMEOUT_MAX))
            if rung or not idle:
                continue
            with self._lock:
                if not self._guards:
                    self._running = False
                    self._wakes_at = float("inf")
                    return

    def after_fork(self) -> None:
        """Begin anew in a child, in which the thread is no more."""
        guards = self._guards
        self._begin()
        for _, _, guard in guards:
            guard.watched = False
            guard.let_go()


class Guard:
    """One deadline on one socket, for the length of a ``with`` block."""

    __slots__ = ("_cut", "_dog", "_fd", "_twin", "fired", "until", "watched")

    def __init__(self, dog: Watchdog, fd: int | None, until: float, cut: Callable[[], object] | None = None) -> None:
        self._dog = dog
        self._fd = fd
        self._twin: socket.socket | None = None
        self._cut = cut
        self.until = until
        self.watched = False
        self.fired = False

    def __enter__(self) -> Self:
        if self._fd is not None:
            self._twin = duplicate(self._fd)
        if self._twin is not None or self._cut is not None:
            self.watched = True
            self._dog.enter(self)
        return self

    def __exit__(self, *_: object) -> None:
        self._dog.leave(self)
        self.let_go()

    def keep_alive(self, user_timeout_s: float) -> None:
        """Have the system notice that the peer is gone, where it has sockets for that."""
        if self._twin is not None:
            keep_alive(self._twin, user_timeout_s)

    def fire(self) -> None:
        """Shut the socket down, if this is still wanted; the watchdog's lock is held."""
        if not self.watched:
            return
        self.fired = True
        if self._twin is not None:
            shut(self._twin)
        elif self._cut is not None:
            self._cut()

    def let_go(self) -> None:
        """Close the duplicate."""
        twin, self._twin = self._twin, None
        if twin is not None:
            twin.close()


# -- descriptors -----------------------------------------------------------------------------------------------------
def duplicate(fd: int) -> socket.socket | None:
    """Return a second handle on the socket behind *fd*; None if there is no socket."""
    try:
        copy = os.dup(fd)
    except OSError:
        return None
    try:
        return socket.socket(fileno=copy)
    except OSError:  # not a socket: /dev/null in a forked child
        os.close(copy)
        return None


def shut(twin: socket.socket) -> bool:
    """Shut down both directions; False if they were already."""
    try:
        twin.shutdown(socket.SHUT_RDWR)
    except OSError:
        return False
    return True


def shut_down(fd: int | None) -> bool:
    """Shut down the link behind a descriptor, for whoever uses it in whatever thread; False if there is none to end."""
    twin = None if fd is None else duplicate(fd)
    if twin is None:
        return False
    with twin:
        return shut(twin)


def has_news(owner: dict[str, Any], fd: int, new_poll: Callable[[], Any]) -> bool:
    """Poll a descriptor: is there anything to read, or is it closed?  The poll object is kept in *owner*."""
    known = owner.get("_millpond_poll")
    if known is None or known[0] != fd:  # new, or its borrower has reconnected it
        known = (fd, new_poll())
        known[1].register(fd, select.POLLIN)
        owner["_millpond_poll"] = known
    return bool(known[1].poll(0))


def wait_for_news(fd: int, until: float, new_poll: Callable[[], Any]) -> bool:
    """Wait until there is something to read, at most until *until*, which may be past."""
    poll = new_poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(max(0.0, until - time.monotonic()) * 1000))


def keep_alive(twin: socket.socket, user_timeout_s: float) -> None:
    """Have the system notice a peer that is gone: by probes while idle, and by what is not confirmed in time."""
    if twin.family == getattr(socket, "AF_UNIX", None):
        return
    twin.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    twin.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # mysql-connector-python leaves it as it is
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        twin.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(user_timeout_s * 1000))


def unpatched_poll() -> Callable[[], Any] | None:
    """Return the system's ``poll``; not gevent's, which switches greenlets and costs forty times as much."""
    found: Callable[[], Any] | None = getattr(unpatched("select", select), "poll", None)
    return found


class _Original:
    """What a module had before gevent patched it."""

    def __init__(self, name: str, module: Any, monkey: Any) -> None:
        self._name, self._module, self._monkey = name, module, monkey

    def __getattr__(self, attribute: str) -> Any:
        if not hasattr(self._module, attribute) and attribute not in self._monkey.saved.get(self._name, {}):
            raise AttributeError(attribute)
        return self._monkey.get_original(self._name, attribute)


def unpatched(name: str, module: Any) -> Any:
    """Return a module as it was before gevent patched it, if it did."""
    monkey = sys.modules.get("gevent.monkey")
    if monkey is None or not monkey.is_module_patched(name):
        return module
    return _Original(name, module, monkey)


watchdog: Final = Watchdog()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=watchdog.after_fork)
