"""End calls that nobody else can end: a deadline on a descriptor, for drivers that do their own I/O.

Why: a C library that waits for a reply cannot be told to stop, and its thread cannot be interrupted.  But the socket it
waits on can be shut down by another thread; then the library's call comes back with an error of its own.

Rules:
- What is shut down is a duplicate of the descriptor, made while the connection was surely open: the driver may close
  its own and the system give the number to somebody else, the duplicate still leads to the same socket.
- A guard that was left is never fired, and one that is being fired is not left before that is done.
- Guards are entered and left by finalizers, which close connections in the middle of anything: see ``_deadlines.py``.
- One thread serves the process; it lives only while something is guarded, and for a while after.  It is a thread of the
  system's even where gevent has patched threads, because a C library that waits lets no greenlet run.

It must not know drivers, nor decide what a deadline is.
"""

from __future__ import annotations

import _thread
import dataclasses
import logging
import os
import select
import socket
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from millpond._crew import Runtime
from millpond._deadlines import Deadlines, Fate

if TYPE_CHECKING:
    from typing_extensions import Self

logger = logging.getLogger("millpond")


class Watchdog:
    """Keeper of deadlines; each guarded descriptor is shut down at its own, unless it was released before.

    Args:
        runtime: where the clock, locks and threads come from; the system's own, if not given.
    """

    def __init__(self, runtime: Runtime | None = None) -> None:
        self._runtime = runtime or system_runtime()
        self._begin()

    def _begin(self) -> None:
        self._deadlines = Deadlines(self._runtime)

    def guard(self, fd: int | None, until: float) -> Guard:
        """Return a context in which the socket behind *fd* is shut down at *until*; None: nothing can be done."""
        return Guard(self, fd, until)

    def guard_by(self, cut: Callable[[], object], until: float) -> Guard:
        """Return a context in which *cut* is called at *until*: what it cuts is not known yet.  It must be quick."""
        return Guard(self, None, until, cut)

    def enter(self, guard: Guard) -> None:
        """Begin to watch."""
        if not self._deadlines.keep(guard):  # the host starts no more threads
            logger.warning("no thread could be started to end a driver's call in time: this one has no deadline")

    def leave(self, guard: Guard) -> None:
        """Cease to watch; from here on nothing is shut down."""
        guard.fate.done()
        self._deadlines.let_go(guard)

    def after_fork(self) -> None:
        """Begin anew in a child, in which the thread is no more."""
        inherited: set[Any] = self._deadlines.kept.copy()
        self._begin()
        for guard in inherited:
            guard.fate.forget()
            guard.let_go()


class Guard:
    """One deadline on one socket, for the length of a ``with`` block.

    Attributes:
        due_at: when it is over.
        fate: whether it was left in time or fired.
        fired: it was, or is about to be.
    """

    __slots__ = ("_cut", "_dog", "_fd", "_twin", "due_at", "fate", "fired")

    def __init__(self, dog: Watchdog, fd: int | None, until: float, cut: Callable[[], object] | None = None) -> None:
        self._dog = dog
        self._fd = fd
        self._twin: socket.socket | None = None
        self._cut = cut
        self.due_at = until
        self.fate = Fate()
        self.fired = False

    def __enter__(self) -> Self:
        if self._fd is not None:
            self._twin = duplicate(self._fd)
        if self._twin is not None or self._cut is not None:
            try:
                self._dog.enter(self)
            except BaseException:  # a signal's: nobody would leave it
                self.__exit__()
                raise
        return self

    def __exit__(self, *_: object) -> None:
        self._dog.leave(self)
        self.let_go()

    def fall_due(self, now: float) -> None:
        """Shut the socket down, unless that is not wanted any more; the watchdog's thread calls this."""
        self.fate.cut(self._fire, unpatched("_thread", _thread).RLock())

    def _fire(self) -> None:
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

    def keep_alive(self, user_timeout_s: float) -> None:
        """Have the system notice that the peer is gone, where it has sockets for that."""
        if self._twin is not None:
            keep_alive(self._twin, user_timeout_s)


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


def system_runtime() -> Runtime:
    """Return the host's runtime, with the system's threads where gevent has patched them."""
    thread = unpatched("_thread", _thread)
    start_new_thread = thread.start_new_thread

    def start(work: Callable[[], None]) -> None:
        start_new_thread(work, ())

    return dataclasses.replace(Runtime.of_host(), new_lock=thread.allocate_lock, start=start)


watchdog: Final = Watchdog()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=watchdog.after_fork)
