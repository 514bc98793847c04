"""What has come over a PyMySQL connection that has not been read: an idle server says nothing but that it is gone.

Why: a poll of the descriptor tells that a server has closed a connection, without asking it.  But what was read of it
may lie in two buffers before anybody sees it, PyMySQL's and that of TLS; and over TLS what is on its way need not mean
anything.

Rules: nothing here waits but :func:`await_news`, which says until when.  Private parts as in ``_pymysql_session.py``,
and where a version lacks them, the connection counts as quiet while it is open.

It must not know of sessions.
"""

from __future__ import annotations

import select
import ssl
import time
from typing import Any

from ._watchdog import unpatched_poll


def has_news(conn: Any) -> bool:
    """Say whether anything can be read, the end included; whether it is whole, only reading it tells."""
    sock = getattr(conn, "_sock", None)
    fd = -1 if sock is None else sock.fileno()
    known = conn.__dict__.get("_millpond_poll")
    if known is None or known[0] != fd:  # new, or its borrower has closed it, or reconnected it
        if fd < 0:
            return not getattr(conn, "open", True)  # this version does not tell
        new_poll = unpatched_poll()
        if new_poll is None:  # Windows
            return wait(fd, 0.0)
        known = (fd, new_poll())
        known[1].register(fd, select.POLLIN)
        conn.__dict__["_millpond_poll"] = known
    if known[1].poll(0):
        return True
    pending = getattr(sock, "pending", None)
    return pending is not None and bool(pending())


def await_news(conn: Any, until: float) -> bool:
    """Wait until *until*, which may be past, for anything that can be read; say whether it has come."""
    if has_news(conn):
        return True
    left_s = until - time.monotonic()
    sock = getattr(conn, "_sock", None)
    return left_s > 0 and sock is not None and wait(sock.fileno(), left_s)


def wait(fd: int, seconds: float) -> bool:
    """Wait until a descriptor can be read; by whatever the host's ``select`` is, which lets others run meanwhile."""
    if hasattr(select, "poll"):
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        return bool(poll.poll(seconds * 1000))
    return bool(select.select([fd], [], [], seconds)[0])


def has_unread(conn: Any) -> bool:
    """Say whether the driver's own buffer has more than was read from it, or can be given more."""
    sock = conn._sock  # noqa: SLF001  see the module's rules
    allowed_s = sock.gettimeout()
    sock.settimeout(0)
    try:
        return bool(conn._rfile.peek(1))  # noqa: SLF001  see the module's rules
    except (BlockingIOError, ssl.SSLWantReadError):
        return False
    except OSError:
        return True
    finally:
        sock.settimeout(allowed_s)


def is_quiet(conn: Any) -> bool:
    """Say whether nothing has come, in the buffers or on its way: over TLS there may be news that says nothing."""
    return not has_unread(conn) and not has_news(conn)
