"""Tell an error of a socket that is about its other end from one that is about this machine.

Why: that a client resets, or that no server listens, is what these tools are there to show, and an end like any other.
That this process may open no more files, or has no memory, is not: taken for an end, it would make a test of
something else fail, or pass.

It must not raise, nor close: what becomes of either is its caller's business.
"""

from __future__ import annotations

import errno

_OF_THE_OTHER_END = frozenset(
    {
        errno.ECONNABORTED,  # it had gone before it was accepted
        errno.ECONNREFUSED,
        errno.ECONNRESET,
        errno.EHOSTUNREACH,
        errno.ENETUNREACH,
        errno.ENOTCONN,
        errno.EPIPE,
        errno.EPROTO,  # as ECONNABORTED, on some systems
        errno.ETIMEDOUT,
    }
)


def is_of_other_end(error: OSError) -> bool:
    """Say whether *error* means that whoever is at the other end has gone, or was never there."""
    return error.errno in _OF_THE_OTHER_END
