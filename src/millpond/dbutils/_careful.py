"""The ways of the drop-in with drivers that are known: nothing is sent twice, and no transaction is cut in two.

Why: these drivers tell enough to do better than to try again.  A dead link shows in its socket before anything is
sent; an error's number says whether the link is lost or only the statement is wrong; and the driver, or what was
sent, says whether a transaction may be open.

The rules, in the order in which they are asked before a statement, a cursor or ``begin()``:
1. A transaction was lost with its link: every statement is refused until the program gives it up by ``rollback()``.
2. The connection is closed, outside of a transaction: it is opened anew.
3. A transaction may be open: nothing is touched.
4. It has run its ``maxusage``: it is replaced, if another can be had and no other cursor may still read from it; the
   old one is healthy and goes on if not.
5. Its socket says that it is dead: it is replaced.  If something was left in its session that a new one would not have
   (a variable, a temporary table, a lock), that is an error instead, once: the program has to know.

After an error nothing is sent again.  If the link is lost it is closed; what follows is told by the rules above.
"""

from __future__ import annotations

import contextlib
import logging
import time
from typing import TYPE_CHECKING, Any, Final

from millpond.drivers.base import Driver
from millpond.drivers.dbapi import DbapiDriver, no_reconnect

from ._errors import told
from ._policy import answers_by
from ._witness import text_of

if TYPE_CHECKING:
    from .steady_db import SteadyDBConnection, SteadyDBCursor

logger = logging.getLogger("millpond")

QUIET_S: Final = 0.001  # a connection that answered so short a time ago is not looked at
CHECK_AFTER_S: Final = 30.0  # a ping that is asked for is sent after so long without an answer; else the socket tells
CHECK_S: Final = 2.0  # and may take so long

ON_CURSOR, ON_EXECUTE = 2, 4


# -- what is known -----------------------------------------------------------------------------------------------------
def adapter_of(con: SteadyDBConnection) -> Driver[Any]:
    adapter = con._source.adapter
    assert adapter is not None, "bug: the careful ways are for drivers that are known"
    return adapter


def in_transaction(con: SteadyDBConnection) -> bool:
    if con._transaction:
        return True
    if con._closed:
        return False
    outside = con._source.outside
    assert outside is not None, "bug: a known driver has no witness"
    try:
        return not outside(con._con, con._activity)
    except Exception as error:  # noqa: BLE001  it was closed under us, for one: what was begun on it may be open
        logger.debug("a driver could not be asked whether a transaction is open: %r", error)
        return con._activity.touched


def touch(con: SteadyDBConnection) -> None:
    activity = con._activity  # all but that something was written: nobody is to be warned of what is not known
    activity.touched = activity.opening = activity.used = activity.traces = True


def is_dead(con: SteadyDBConnection, bit: int) -> bool:
    """Say whether the link is lost, by the socket's state where that tells, else by asking where that is wanted."""
    asked = bool(con._ping & bit)
    if asked and con._pinger is not None:
        return not passes(con)
    silent_s = time.monotonic() - con._answered_at
    adapter = adapter_of(con)
    if adapter.is_readable is not None:
        if adapter.is_readable(con._con):
            return True
        con.__dict__["_looked_at"] = time.monotonic()
        suspect = asked and silent_s >= CHECK_AFTER_S
    else:
        suspect = bool(con._ping) and silent_s >= CHECK_AFTER_S
    if not suspect:
        return False
    return not is_alive(con)


def is_alive(con: SteadyDBConnection) -> bool:
    alive = adapter_of(con).is_alive(con._con, time.monotonic() + CHECK_S)
    if alive:
        con._answered_at = time.monotonic()
    return alive


def passes(con: SteadyDBConnection) -> bool:
    """Check by the statement or the function that the program has given for that."""
    try:
        return answers_by(con._pinger, con._con)
    except Exception as error:  # noqa: BLE001  whatever it is, the check has not passed
        logger.debug("a connection did not pass the check of the program: %r", error)
        return False


# -- before anything is sent -------------------------------------------------------------------------------------------
def prepare(con: SteadyDBConnection, bit: int, asking: SteadyDBCursor | None = None) -> None:
    """See to it that what is sent next has a live link to go over, if that can be had without cutting anything."""
    if con._closed or con._lost is not None:
        if con._lost is not None:
            raise lost(con, con._lost)
        open_anew(con)
        return
    worn = 0 < con._due <= con._usage and not con._pooled
    if not worn and is_fresh(con, bit):
        return  # whether a transaction is open makes no difference then
    if in_transaction(con):
        return
    if worn:
        if not is_read_from(con, asking):
            replace_worn(con)
    elif is_dead(con, bit):
        replace_dead(con)


def is_fresh(con: SteadyDBConnection, bit: int) -> bool:
    """Say whether a connection answered, or was looked at, so short a time ago that it need not be looked at again."""
    if con._pinger is not None and con._ping & bit:
        return False
    quiet_since = time.monotonic() - QUIET_S
    return con._looked_at > quiet_since or con._answered_at > quiet_since


def open_anew(con: SteadyDBConnection) -> None:
    con._store(con._create())


def is_read_from(con: SteadyDBConnection, asking: SteadyDBCursor | None) -> bool:
    """Say whether another cursor may have rows left that it would read from the connection."""
    if con._checkout is None:
        return False
    others = [cursor for cursor in con._checkout.noted() if cursor is not asking and cursor._of is con._con]
    return any(not cursor._closed and cursor._cursor.description is not None for cursor in others)


def replace_worn(con: SteadyDBConnection) -> None:
    """Replace a connection that has run its number of statements, if another can be had."""
    try:
        fresh = con._create()
    except Exception as error:  # noqa: BLE001  a worn connection works, and is better than none
        con._due = con._usage + con._maxusage
        logger.warning("a connection has run %d statements, and no other can be had: %s", con._usage, repr(error))
        return
    old = con._con
    con._store(fresh)
    part(con, old)


def replace_dead(con: SteadyDBConnection) -> None:
    """Replace a connection whose link is lost; if its session had something, that is an error."""
    had_traces = has_traces(con)
    part(con, con._con)
    con._closed = True
    if not had_traces:
        open_anew(con)
        return
    con._activity.renewed()
    text = "the connection was lost, and with it what the program had left in its session: run again what sets that up"
    raise told(con._lost_error, text, con._dbapi)


def has_traces(con: SteadyDBConnection) -> bool:
    """Say whether something may have been left in the session that a new one would not have."""
    is_clean = adapter_of(con).is_clean
    if is_clean is None or con._source.reads_words:
        return con._activity.traces
    return con._activity.used and not is_clean(con._con)


def lost(con: SteadyDBConnection, cause: BaseException) -> BaseException:
    """Return the error for who goes on with a transaction that is not there any more."""
    why = str(cause) or type(cause).__name__  # an interrupt has no text
    text = f"the link was lost in the middle of a transaction ({why}): nothing of it was kept. Call rollback() to go on"
    error: BaseException = told(con._lost_error, text, con._dbapi)
    error.__cause__ = cause
    return error


# -- statements --------------------------------------------------------------------------------------------------------
def run(cursor: SteadyDBCursor, name: str, *args: Any, **kwargs: Any) -> Any:
    checkout = cursor._checkout
    if checkout is not None and not checkout.open:
        cursor._check_held(name)
    con: SteadyDBConnection = cursor._con
    quiet_since = time.monotonic() - QUIET_S
    if (
        (con._looked_at < quiet_since and con._answered_at < quiet_since)
        or con._closed
        or con._lost is not None
        or con._pinger is not None
        or 0 < con._due <= con._usage
    ):
        prepare(con, ON_EXECUTE, cursor)
    own = cursor._cursor if cursor._of is con._con and not cursor._closed else remade(cursor)
    activity = con._activity
    was_in_transaction = in_transaction(con)
    activity.touched = activity.used = True
    wrote = activity.wrote
    if con._source.reads_words:
        activity.note(text_of(args[0], con._con) if args and name.startswith("execute") else "")
    if cursor._sizes is not None:
        cursor._setsizes(own)
        cursor._clearsizes()
    try:
        result = getattr(own, name)(*args, **kwargs)
    except BaseException as error:
        if name == "execute":
            activity.wrote = wrote  # a statement that has failed wrote nothing; of a batch some may have been right
        failed(con, error, was_in_transaction=was_in_transaction)
        raise
    activity.unsure = False
    values = con.__dict__
    values["_usage"] = con._usage + 1
    values["_answered_at"] = time.monotonic()
    # Drivers return their own cursor, for chains of calls; the program's is this one.
    return cursor if result is own else result


def remade(cursor: SteadyDBCursor) -> Any:
    """Make a new cursor of the driver's for one that was closed, or whose connection was replaced."""
    made = cursor._con._con.cursor(*cursor._args, **cursor._kwargs)
    cursor._renew(made, closed=False)
    return made


def cursor(con: SteadyDBConnection, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    if con._closed or con._lost is not None or con._ping & ON_CURSOR:
        prepare(con, ON_CURSOR)  # else execute() looks: a cursor by itself sends nothing
    try:
        return con._con.cursor(*args, **kwargs)
    except Exception as error:  # psycopg makes none for a connection that is closed, which others are told by execute()
        if not is_link_lost(con, error):
            raise
        if in_transaction(con):
            failed(con, error, was_in_transaction=True)
            raise
    replace_dead(con)
    return con._con.cursor(*args, **kwargs)


def failed(con: SteadyDBConnection, error: BaseException, *, was_in_transaction: bool) -> None:
    """Draw the conclusions from an error; it is raised to the program in any case."""
    con._activity.unsure = True
    if not is_link_lost(con, error):
        return
    if was_in_transaction:
        con._lost = error
    give_up(con)


def is_link_lost(con: SteadyDBConnection, error: BaseException) -> bool:
    """Say whether a connection is of no use any more after an error."""
    if not isinstance(error, Exception):
        return True  # interrupted in the middle of a reply
    if not con._source.is_lost(con._con, error):
        return False
    # It is lost for the driver; the program may have said that some of its errors do not mean that.
    return not (con._isfatal is not None and isinstance(error, con._failures) and not con._isfatal(error))


def give_up(con: SteadyDBConnection) -> None:
    """Close a connection that is lost; what comes next decides whether there is another."""
    part(con, con._con)
    con._closed = True
    con._transaction = False
    con._activity.ended()


def ping(con: SteadyDBConnection, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Call the driver's own ``ping``; where it would reconnect it is reconnected here, and not in a transaction."""
    reconnects = bool(args[0] if args else kwargs.get("reconnect"))
    if con._lost is not None or reconnects:
        prepare(con, 0)
    was_in_transaction = in_transaction(con)
    own = con._con.ping
    try:
        result = own(**no_reconnect(con._con.__class__))
    except Exception as error:
        failed(con, error, was_in_transaction=was_in_transaction)
        if not (reconnects and con._closed) or was_in_transaction:
            raise
        prepare(con, 0)
        return None
    con._answered_at = time.monotonic()
    return result


# -- transactions ------------------------------------------------------------------------------------------------------
def begin(con: SteadyDBConnection, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    con._lost = None  # whoever begins anew has given the old one up
    prepare(con, 0)
    own = getattr(con._con, "begin", None)
    if own is not None:
        try:
            own(*args, **kwargs)
        except BaseException as error:
            failed(con, error, was_in_transaction=False)
            raise
    con._transaction = True


def commit(con: SteadyDBConnection) -> None:
    if con._lost is not None:
        cause, con._lost = con._lost, None
        raise lost(con, cause)
    if con._closed:
        return
    if con._activity.wrote and con._source.is_aborted(con._con):
        end(con, "rollback")
        text = "a statement of this transaction has failed, and the server rolled it back: nothing of it was kept"
        raise told(con._lost_error, text, con._dbapi)
    end(con, "commit")


def rollback(con: SteadyDBConnection) -> None:
    con._lost = None
    if not con._closed:  # what was not committed on a link that is lost was rolled back with it
        end(con, "rollback")


def end(con: SteadyDBConnection, how: str) -> None:
    try:
        getattr(con._con, how)()
    except BaseException as error:
        con._transaction = False
        failed(con, error, was_in_transaction=False)
        raise
    con._transaction = False
    con._activity.ended()
    con._answered_at = time.monotonic()


def leave(con: SteadyDBConnection) -> None:
    """End what is open when a connection that stays is left: else its next user reads what is old, and locks stay."""
    con._lost = None
    if con._closed or not in_transaction(con):
        return
    try:
        with bounded(con, con._source.connect_s):
            end(con, "rollback")
    except Exception as error:  # noqa: BLE001  then the link is lost, and everything on it is rolled back
        logger.debug("a connection that was left could not be rolled back: %r", error)
        give_up(con)


def bounded(con: SteadyDBConnection, seconds: float) -> contextlib.AbstractContextManager[Any]:
    """Return a context in which the driver gets no answer after so long: nobody waits who is done with a connection."""
    adapter = adapter_of(con)
    if isinstance(adapter, DbapiDriver):
        return adapter.bounded(con._con, time.monotonic() + seconds)
    return contextlib.nullcontext()


def part(con: SteadyDBConnection, driver_connection: Any) -> None:
    with contextlib.suppress(Exception):
        adapter_of(con).close(driver_connection)


def ping_check(con: SteadyDBConnection, ping: int, reconnect: bool) -> bool | None:
    if not con._ping & ping:
        return None
    if con._lost is not None or in_transaction(con):
        return con._lost is None
    if not con._closed and not is_dead(con, ping):
        return True
    if not reconnect:
        return False
    try:
        open_anew_quietly(con)
    except Exception as error:  # noqa: BLE001  it is raised where the connection is used
        logger.debug("a dead connection could not be replaced: %r", error)
        return False
    return True


def open_anew_quietly(con: SteadyDBConnection) -> None:
    """Replace a dead connection between two uses, where nobody can have counted on what its session had."""
    if not con._closed:
        give_up(con)
    open_anew(con)
