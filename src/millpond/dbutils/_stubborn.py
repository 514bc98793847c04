"""DBUtils' own ways, for drivers that nobody knows: what fails is tried again, on another connection if need be.

Why: such a driver tells neither errors nor transactions apart.  Programs for DBUtils that use one count on what it
does: up to three tries of a statement, and reconnection in the middle of what they did not mark by ``begin()``.  They
say otherwise by ``isfatal``, ``failures`` and ``no_failover()``, and are heard.

The order, for a statement outside of ``begin()``: as it is; with a new cursor; on a new connection, which is kept if
it does better or fails in another way.  In ``begin()`` nothing is tried again: the connection is replaced, and the
error raised.
"""

from __future__ import annotations

import contextlib
import importlib
import sys
import types
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ._policy import answers_by

if TYPE_CHECKING:
    from .steady_db import SteadyDBConnection, SteadyDBCursor


# -- what it is --------------------------------------------------------------------------------------------------------
def module_of(connect: Any, creator: Any, con: Any) -> types.ModuleType | None:
    """Return the DB-API module of a connection: as the creator says, or as its origins tell."""
    named: types.ModuleType | None = getattr(creator, "dbapi", None)
    if callable(getattr(named, "connect", None)):  # some modules have something else by that name
        return named
    if isinstance(creator, types.ModuleType):
        return creator
    by_connect = module_named(getattr(connect, "__module__", None))
    if by_connect is not None and by_connect.connect is connect:
        return by_connect
    return module_named(con.__class__.__module__) or module_named(
        getattr(getattr(con, "OperationalError", None), "__module__", None)
    )


def module_named(name: Any) -> types.ModuleType | None:
    """Return the module of that name, if it is one that connects."""
    if not isinstance(name, str):
        return None
    module = sys.modules.get(name)
    if module is None:
        try:
            module = importlib.import_module(name)
        except ImportError:
            return None
    return module if callable(getattr(module, "connect", None)) else None


def failures_of(sources: Sequence[Any], names: Sequence[str]) -> tuple[type[BaseException], ...]:
    """Return the exceptions of these names, of the first that has them all.

    Raises:
        AttributeError: none has.
    """
    for source in sources:
        if source is not None and all(hasattr(source, name) for name in names):
            return tuple(getattr(source, name) for name in names)
    raise AttributeError("the failure exceptions cannot be told: set failures, or creator.dbapi")


# -- the policy --------------------------------------------------------------------------------------------------------
def in_transaction(con: SteadyDBConnection) -> bool:
    return con._transaction


def touch(con: SteadyDBConnection) -> None:
    pass


def part(_: SteadyDBConnection, driver_connection: Any) -> None:
    with contextlib.suppress(Exception):
        driver_connection.close()


def leave(con: SteadyDBConnection) -> None:
    if con._transaction and not con._closed:
        with contextlib.suppress(Exception):
            rollback(con)


def begin(con: SteadyDBConnection, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    con._transaction = True
    own = getattr(con._con, "begin", None)
    if own is not None:
        own(*args, **kwargs)


def commit(con: SteadyDBConnection) -> None:
    end(con, "commit")


def rollback(con: SteadyDBConnection) -> None:
    end(con, "rollback")


def end(con: SteadyDBConnection, how: str) -> None:
    """End the transaction; a connection that fails to is replaced, and its error raised."""
    con._transaction = False
    try:
        getattr(con._con, how)()
    except con._failures:
        replace(con)
        raise


def replace(con: SteadyDBConnection) -> bool:
    """Take a new connection, if one can be had."""
    try:
        fresh = con._create()
    except Exception:  # noqa: BLE001  the program is told the error that led here
        return False
    con._close()
    con._store(fresh)
    return True


def ping(con: SteadyDBConnection, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return con._con.ping(*args, **kwargs)


def ping_check(con: SteadyDBConnection, ping: int, reconnect: bool) -> bool | None:
    if not con._ping & ping:
        return None
    alive = answers(con)
    if alive is False and reconnect and not con._transaction:
        return replace(con)
    return alive


def answers(con: SteadyDBConnection) -> bool | None:
    """Ask whether a connection is alive; a driver that has no ping is not asked again."""
    try:
        if con._pinger is not None:
            return answers_by(con._pinger, con._con)
        try:
            alive = con._con.ping(False)  # do not reconnect, in drivers that would
        except TypeError:
            alive = con._con.ping()
    except (AttributeError, IndexError, TypeError, ValueError):
        if con._pinger is not None:
            return False
        con._ping = 0
        return None
    except Exception:  # noqa: BLE001  whatever it is, it has not answered
        return False
    return alive is None or bool(alive)


def is_worn(con: SteadyDBConnection) -> bool:
    """Say whether a connection has run as many statements as it may, and can be replaced now."""
    return bool(con._maxusage) and con._usage >= con._maxusage and not con._transaction


def is_fatal(con: SteadyDBConnection, error: BaseException) -> bool:
    return con._isfatal is None or bool(con._isfatal(error))


# -- cursors -----------------------------------------------------------------------------------------------------------
def cursor(con: SteadyDBConnection, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    if not con._transaction:
        con._ping_check(2)
    if is_worn(con):
        made = cursor_elsewhere(con, args, kwargs)
        if made is not None:
            return made  # else the worn one is better than none
    try:
        return con._con.cursor(*args, **kwargs)
    except con._failures as error:
        if not is_fatal(con, error):
            raise
        was_in_transaction = con._transaction
        made = cursor_elsewhere(con, args, kwargs)
        con._transaction = False
        if made is None or was_in_transaction:
            raise
        return made


def cursor_elsewhere(con: SteadyDBConnection, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Replace the connection and return a cursor of the new one; None, and nothing is changed, if that fails."""
    try:
        fresh = con._create()
    except Exception:  # noqa: BLE001  as in replace()
        return None
    try:
        made = fresh.cursor(*args, **kwargs)
    except Exception:  # noqa: BLE001  as in replace()
        part(con, fresh)
        return None
    con._close()
    con._store(fresh)
    return made


# -- statements --------------------------------------------------------------------------------------------------------
def run(cursor: SteadyDBCursor, name: str, *args: Any, **kwargs: Any) -> Any:
    cursor._check_held(name)
    con = cursor._con
    if not con._transaction:
        con._ping_check(4)
    if is_worn(con):
        refresh_worn(cursor)
    try:
        result = attempt(cursor, cursor._cursor, name, args, kwargs)
    except con._failures as error:
        if cursor._no_failover or not is_fatal(con, error):
            raise
        result = Failover(cursor, name, args, kwargs).run(error)
    con._usage += 1
    return result


def refresh_worn(cursor: SteadyDBCursor) -> None:
    """Replace the connection of a cursor, and its own; if that fails the worn one goes on: it is healthy."""
    made = cursor_elsewhere(cursor._con, cursor._args, cursor._kwargs)
    if made is not None:
        close_quietly(cursor._cursor)
        cursor._renew(made)


def attempt(cursor: SteadyDBCursor, own: Any, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Run a statement by a cursor of the driver's."""
    is_execute = name.startswith("execute")
    if is_execute:
        cursor._setsizes(own)
    result = getattr(own, name)(*args, **kwargs)
    if is_execute:
        cursor._clearsizes()
    return result


def close_quietly(own: Any) -> None:
    with contextlib.suppress(Exception):
        own.close()


class Failover:
    """The further tries of one statement that has failed."""

    def __init__(self, cursor: SteadyDBCursor, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.cursor = cursor
        self.con = cursor._con
        self.call = (name, args, kwargs)

    def run(self, error: BaseException) -> Any:
        """Return what a further try has answered, or raise *error*, or what a new connection says instead."""
        if self.con._transaction:
            self.give_up_transaction()
            raise error
        answered, result = self.on_a_new_cursor()
        if not answered:
            answered, result = self.on_a_new_connection(type(error))
        if not answered:
            raise error
        return result

    def give_up_transaction(self) -> None:
        """Replace the connection: what was open on it is not to be gone on with."""
        con, cursor = self.con, self.cursor
        made = cursor_elsewhere(con, cursor._args, cursor._kwargs)
        con._transaction = False
        if made is not None:
            close_quietly(cursor._cursor)
            cursor._renew(made)

    def on_a_new_cursor(self) -> tuple[bool, Any]:
        """Try with another cursor; of the same connection, unless that gives none any more."""
        con, cursor = self.con, self.cursor
        try:
            own = con._cursor(*cursor._args, **cursor._kwargs)
        except Exception:  # noqa: BLE001  the next try is on another connection
            return False, None
        try:
            result = attempt(cursor, own, *self.call)
        except Exception:  # noqa: BLE001  as above
            close_quietly(own)
            return False, None
        cursor.close()  # once closed by the program it stays so, as in DBUtils: closing it again closes nothing
        cursor._renew(own)
        return True, result

    def on_a_new_connection(self, kind: type[BaseException]) -> tuple[bool, Any]:
        """Try on another connection; it is kept unless it fails as the old one did."""
        con, cursor = self.con, self.cursor
        try:
            fresh = con._create()
        except Exception:  # noqa: BLE001  the program is told the first error
            return False, None
        failed: BaseException | None = None
        result: Any = None
        try:
            own = fresh.cursor(*cursor._args, **cursor._kwargs)
        except Exception:  # noqa: BLE001  as above
            part(con, fresh)
            return False, None
        try:
            result = attempt(cursor, own, *self.call)
        except kind:
            close_quietly(own)
            part(con, fresh)
            return False, None
        except Exception as other:  # noqa: BLE001  it is raised below, from where the new connection is in use
            failed = other
        cursor.close()
        con._close()
        con._store(fresh)
        cursor._renew(own)
        if failed is not None:
            con._usage += 1
            raise failed
        return True, result
