"""How a steady connection behaves: what its two policies, ``_careful`` and ``_stubborn``, have in common.

Both are modules, not objects: a connection that pointed at an object which points back would not be closed when the
program drops it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from .steady_db import SteadyDBConnection, SteadyDBCursor


class Policy(Protocol):
    """What a policy has to know."""

    def in_transaction(self, con: SteadyDBConnection) -> bool:
        """Say whether a transaction is, or may be, open."""
        ...

    def touch(self, con: SteadyDBConnection) -> None:
        """The driver's connection is about to be used in a way that is not watched."""
        ...

    def run(self, cursor: SteadyDBCursor, name: str, *args: Any, **kwargs: Any) -> Any:
        """Run a statement by that method of the driver's cursor."""
        ...

    def cursor(self, con: SteadyDBConnection, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Return a cursor of the driver's."""
        ...

    def ping(self, con: SteadyDBConnection, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Call the driver's own ``ping``, for the program."""
        ...

    def begin(self, con: SteadyDBConnection, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Begin a transaction."""
        ...

    def commit(self, con: SteadyDBConnection) -> None:
        """Commit."""
        ...

    def rollback(self, con: SteadyDBConnection) -> None:
        """Roll back."""
        ...

    def leave(self, con: SteadyDBConnection) -> None:
        """Its user is done with a connection that is not to be closed."""
        ...

    def part(self, con: SteadyDBConnection, driver_connection: Any, /) -> None:
        """Close a connection of the driver's; never raises."""
        ...

    def ping_check(self, con: SteadyDBConnection, ping: int, reconnect: bool) -> bool | None:
        """Check whether it is alive, if the bits say so; None if they do not, or it cannot be told."""
        ...


def answers_by(pinger: Any, con: Any) -> bool:
    """Ask by a statement, or by a function of the program's."""
    if not isinstance(pinger, str):
        alive = pinger(con)
        return alive is None or bool(alive)
    cursor = con.cursor()
    try:
        cursor.execute(pinger)
        if getattr(cursor, "description", None) is not None:
            cursor.fetchall()
    finally:
        cursor.close()
    return True
