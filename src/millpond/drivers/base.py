"""What a driver adapter offers to a pool, and what a pool assumes of one that cannot tell.

Four operations are mandatory: :meth:`Driver.open`, :meth:`Driver.is_alive`, :meth:`Driver.reset`, :meth:`Driver.close`.
Everything else is a capability with a default that means "cannot tell": the pool then assumes the worst (rollback at
every return, a check after ``check_after``).  One contract test runs against every adapter:
:class:`millpond.testing.DriverContract`.

An adapter knows connections, never slots or pools, and keeps no state of its own about a connection outside of it.
"""

from __future__ import annotations

import abc
import types
from collections.abc import Callable
from typing import Any, ClassVar, Final, Generic, TypeVar

from millpond._core.states import Fault

C = TypeVar("C")

LONGEST_S: Final = 86400  # told to drivers, and to the system, in place of for ever, which they do not take


class Adapter(abc.ABC, Generic[C]):
    """What every adapter can be asked without waiting, be its driver for threads or for tasks.

    Attributes:
        name: as in ``mysql+NAME://`` and ``driver="NAME"``.
        module: the DB-API module whose exception classes our errors join; None until a connection tells.
        capabilities: how far the adapter can see; shown in ``stats()`` and the capability table of the docs.
    """

    name: ClassVar[str] = "dbapi"
    # One line each for the docs: what this adapter can do, by which means.
    capabilities: ClassVar[dict[str, str]] = {}

    module: types.ModuleType | None = None

    @abc.abstractmethod
    def close(self, conn: C) -> object:
        """Say goodbye without waiting for an answer, and close; never raises for a connection that is dead already."""

    # -- capabilities, with what "cannot tell" means ---------------------------------------------------------------
    # None of these raises for a connection that is broken or was closed by its borrower: what it cannot tell any more
    # it tells as the worst case (not clean, readable, nothing to lose).
    #
    # Asked at every return, without I/O: is this session provably as good as new?  None: cannot tell.
    is_clean: Callable[[C], bool] | None = None
    # Asked before an idle connection is handed out, without I/O beyond a poll of its descriptor: is it closed, or is
    # there anything unread?  None: cannot tell.
    is_readable: Callable[[C], bool] | None = None
    # Sends what makes the session as good as new and does not wait for the answer: True (nothing is left to collect),
    # False (give it up), None (sent; ``collect`` reads the answer).  None instead of a method: cannot defer.
    send_reset: Callable[[C], bool | None] | None = None
    # Whoever is called away while reading that answer has read nothing of it, or has closed the link.
    unread_survives: bool = False
    # Reads all rows of one statement with fewer steps than a cursor takes: (text, values) to (rows, description).  Only
    # for statements that ``is_harmless`` said yes to.  None: by a cursor.
    fetch: Callable[[C, str, Any], tuple[Any, Any]] | None = None
    # Methods of a connection that make a cursor, run a statement on it and return it (``sqlite3``'s ``execute``): a
    # lease makes that cursor itself, or it would not be cut off.
    shortcuts: tuple[str, ...] = ()
    # Cursors that fetch from the connection by themselves have to be cut off one by one when it is given back.
    tracks_cursors: bool = True

    def in_flight(self, conn: C) -> bool | None:
        """Say whether a command has been sent whose reply was not read to its end; None: cannot tell.

        Asked when a connection comes back: a short rest that has arrived may be read here, and then is no more.
        """
        return None

    def may_end_soon(self, conn: C) -> bool:
        """Say whether a reply was left that may be read to its end in a moment; a pool of tasks does that."""
        return False

    def is_harmless(self, conn: C, text: str) -> bool:
        """Say whether a statement is proved to leave nothing in its session, whatever values its places get."""
        return False

    def uncommitted(self, conn: C) -> bool:
        """Say whether writes would be lost by a rollback now, as far as can be told without asking the server."""
        return False

    def is_broken(self, conn: C) -> bool:
        """Say whether the link was seen to break while *conn* was out: then the others are suspect too."""
        return False

    def role_suspect(self, conn: C) -> bool:
        """Say whether an error told, while *conn* was out, that the server may have become read-only."""
        return False

    def reset_way(self) -> str:
        """Return how sessions are made as good as new here, for people; empty: nothing to add to the setting."""
        return ""

    def fileno(self, conn: C) -> int | None:
        """Return the descriptor of the connection's socket; None: cannot tell, or there is none."""
        return None

    def cut(self, conn: C) -> bool:
        """Break the link under a holder who did not give it back in time; False: this driver has no way to."""
        return False

    def classify(self, error: BaseException) -> Fault:
        """Sort an exception: what does it say about the link, the server, the credentials?"""
        return Fault.GONE

    def cursor(self, conn: C, lease: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Make a cursor of the user's own cursor class, whose ``connection`` is *lease* where it can be."""
        return conn.cursor(*args, **kwargs)  # type: ignore[attr-defined]  # every DB-API connection has it

    def family(self, kind: str) -> type[BaseException] | None:
        """Return the driver's exception class of that name (``OperationalError``, ``InterfaceError``, ...)."""
        found = getattr(self.module, kind, None)
        return found if isinstance(found, type) and issubclass(found, BaseException) else None


class Driver(Adapter[C]):
    """The base of all adapters of drivers that threads wait for."""

    # -- mandatory -----------------------------------------------------------------------------------------------
    @abc.abstractmethod
    def open(self, until: float) -> C:
        """Connect, and set the session up, by *until* (seconds on ``time.monotonic``) where the driver can be bounded.

        A pool tells a finite instant here, and wherever else one is told; ``math.inf`` means without a deadline.

        Raises:
            Exception: the driver's own, unchanged.
        """

    @abc.abstractmethod
    def is_alive(self, conn: C, until: float) -> bool:
        """Ask the server, by *until*.  Must not raise for a dead connection, and must not reconnect."""

    @abc.abstractmethod
    def reset(self, conn: C, until: float) -> bool:
        """Make the session as good as new; False (or an exception) if the connection has to be given up."""

    @abc.abstractmethod
    def close(self, conn: C) -> None:
        """Say goodbye without waiting for an answer, and close; never raises for a connection that is dead already."""

    def collect(self, conn: C, until: float) -> bool | None:
        """Read the answer to ``send_reset``: as good as new?  None: no answer by *until*, which may be past."""
        return False

    def bound_to_thread(self, conn: C) -> bool:
        """Say whether *conn* can only be used by the thread that opened it."""
        return False

    def has_lost_role(self, conn: C, until: float) -> bool:
        """Ask the server, by *until*, whether it takes no writes now although it, or the one before it, once did."""
        return False
