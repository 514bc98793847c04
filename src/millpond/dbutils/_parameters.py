"""The parameters of DBUtils, read once and at once, by name: what each may be, and what is commonly taken for it.

Why: DBUtils finds out about a wrong parameter when it is used, deep inside, or never.  Programs that were copied from
tutorials have ``failures=3`` ("number of reconnection attempts"), ``charset="utf8"`` and ``db=``; each is answered here
with its remedy.

Rules: what DBUtils accepts is accepted, in its meaning.  No I/O, and values of connect arguments are never shown.
"""

from __future__ import annotations

import difflib
import inspect
import math
import sys
import types
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, cast

from millpond.drivers.settings import tell
from millpond.errors import InvalidSetting

from ._errors import WrongKind, refuse_unless

UNSET: Final = object()  # for parameters of which None means something

#: Old names of connect arguments, by the drivers that call them otherwise today.
RENAMED: Final[dict[str, dict[str, str]]] = {
    "pymysql": {"db": "database", "passwd": "password"},
    "mysqlclient": {"db": "database", "passwd": "password"},
    "mysqlconnector": {"db": "database", "passwd": "password"},
}
#: Parameters of DBUtils' and of this pool, of which other spellings are no driver's.
OURS: Final = (
    *("mincached", "maxcached", "maxshared", "maxconnections", "blocking", "maxusage", "setsession", "failures"),
    *("isfatal", "idle_timeout", "max_lifetime", "check_after", "closeable", "threadlocal"),
)
#: Arguments that our adapters take beside the drivers'.
ADAPTERS: Final = ("time_zone",)
#: What drivers take by position, in their order.
POSITIONAL: Final[dict[str, tuple[str, ...]]] = {
    "mysqlclient": ("host", "user", "password", "database", "port"),
    "psycopg": ("conninfo",),
    "psycopg2": ("dsn",),
    "sqlite": ("database",),
}


def isfatal_and_args(
    isfatal: Any, args: tuple[Any, ...]
) -> tuple[Callable[[BaseException], bool] | None, tuple[Any, ...]]:
    """Tell ``isfatal`` and the driver's positional arguments apart.

    DBUtils 3.2 put ``isfatal`` in front of them; programs for 3.1 have their first driver argument there.

    Args:
        isfatal: as given by name, or UNSET.
        args: what was given by position after ``ping`` (or ``closeable``, or ``threadlocal``).

    Raises:
        WrongKind: ``isfatal`` is neither a callable nor None.
    """
    if isfatal is UNSET:
        if not args or isinstance(args[0], str):
            return None, args
        isfatal, args = args[0], args[1:]
    if isfatal is not None and not callable(isfatal):
        raise WrongKind(
            "isfatal", isfatal, "a callable that gets an exception and says whether its connection is lost, or None"
        )
    return cast("Callable[[BaseException], bool] | None", isfatal), args


def whole_or_zero(name: str, value: int | None) -> int:
    """Return a number that may be 0 or None for "no limit"."""
    if value is None:
        return 0
    given: Any = value
    refuse_unless(isinstance(given, int) and given >= 0, name, value, "a whole number, 0 or None for no limit")
    return int(given)


def maxusage_of(value: Any) -> int:
    """Return how many statements a connection may run before it is replaced; 0 for no limit."""
    if value is None:
        return 0
    allowed = "a whole number of statements; 0 or None for no limit"
    refuse_unless(isinstance(value, int), "maxusage", value, allowed)
    why = "it counts statements, and limits no time; for that there is max_lifetime (seconds)"
    refuse_unless(value >= 0, "maxusage", value, allowed, why)
    return int(value)


def failures_of(value: Any) -> tuple[type[BaseException], ...] | None:
    """Return the exceptions that mean a lost connection; None for the driver's own three."""
    if value is None:
        return None
    kinds: tuple[Any, ...] = (value,)
    if isinstance(value, tuple):
        kinds = cast("tuple[Any, ...]", value)  # type: ignore[redundant-cast]  # pyright knows less
    if kinds and all(isinstance(kind, type) and issubclass(kind, Exception) for kind in kinds):
        return kinds
    why = "it names exceptions"
    if isinstance(value, int):
        why = "it is no number of attempts to reconnect, though it is described so here and there: it names exceptions"
    raise WrongKind(
        "failures",
        value,
        "an exception class or a tuple of them; left out: OperationalError, InterfaceError, InternalError",
        why,
    )


def setsession_of(value: Any) -> tuple[Any, ...] | None:
    """Return the statements for each new session; a single one, given as a string, is taken as that."""
    if value is None:
        return None
    if isinstance(value, (str, bytes)):
        return (value,)
    refuse_unless(isinstance(value, Iterable), "setsession", value, "a list of statements")
    return tuple(value)


def wait_of(blocking: Any) -> float:
    """Return the seconds that a caller waits at the limit: 0 for not at all, infinity for as long as it takes.

    ``1`` is True here as it always was in DBUtils; one second is ``1.0``.
    """
    if isinstance(blocking, float):
        refuse_unless(blocking >= 0 and not math.isnan(blocking), "blocking", blocking, "True, False, or seconds")
        return blocking
    if isinstance(blocking, int) and not isinstance(blocking, bool) and blocking not in (0, 1):
        refuse_unless(blocking >= 0, "blocking", blocking, "True, False, or seconds")
        return float(blocking)
    return math.inf if blocking else 0.0


Pinger = Callable[[Any], Any]


def ping_of(value: Any) -> tuple[int, str | Pinger | None]:
    """Return when connections are checked (bits), and by what: a statement, a function, None for the driver's way."""
    allowed = (
        "a number (bits 1: when fetched, 2: at cursor(), 4: at execute()), a statement, a function, "
        "or (number, statement or function)"
    )
    if isinstance(value, tuple):
        parts = cast("tuple[Any, ...]", value)  # type: ignore[redundant-cast]  # not for pyright
        refuse_unless(len(parts) == 2, "ping", parts, allowed)
        bits, pinger = parts
        refuse_unless(isinstance(pinger, str) or callable(pinger), "ping", parts, allowed)
        return (int(bits) if isinstance(bits, int) else 0), pinger
    if isinstance(value, str):
        refuse_unless(not value.strip().isdigit(), "ping", value, allowed, f"as a number: ping={value.strip()}")
        return 1, value
    if callable(value):
        return 1, value
    return (int(value) if isinstance(value, int) else 0), None


def connect_args_of(name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return what a known driver is to be given, all by name and by its names of today; None if that cannot be done."""
    refuse_misspelt(kwargs)
    places = POSITIONAL.get(name, ())
    if len(args) > len(places):
        return None
    given = {**dict(zip(places, args, strict=False)), **kwargs}
    for old, new in RENAMED.get(name, {}).items():
        if old not in given:
            continue
        if new in given:
            raise InvalidSetting(old, "...", f"{new} alone", f"both {old} and {new} were given")
        tell(f"{old}= is deprecated by the driver and may vanish: call it {new}=")
        given[new] = given.pop(old)
    return given


def refuse_misspelt(given: Iterable[str]) -> None:
    """Say which argument for the driver was meant for us; the driver would not know it, at the first connect."""
    meant = {plain(parameter): parameter for parameter in OURS}
    for name in given:
        ours = meant.get(plain(name))
        allowed = f"it is called {ours}" if ours != name else "it is for another of the pools"
        refuse_unless(ours is None, name, "...", allowed, "the driver has no such argument")


def refuse_unknown(given: Iterable[str], function: Callable[..., Any]) -> None:
    """Say which argument a driver's function does not take, where that can be seen before the first connect."""
    try:
        known = inspect.signature(function).parameters
    except (TypeError, ValueError):  # C, without a signature
        return
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in known.values()):
        return
    for name in given:
        near = difflib.get_close_matches(name, (*OURS, *known), n=1)
        why = "neither the pool nor the driver has such an argument" + (f"; did you mean {near[0]}?" if near else "")
        refuse_unless(name in known or name in ADAPTERS, name, "...", "left out", why)


def plain(name: str) -> str:
    """Return a name without what people add to it or leave out."""
    return name.replace("_", "").lower()


def threadsafety_of(creator: Any) -> int | None:
    """Return the thread safety of what creates connections, or of its module; 1 for a plain function."""
    if hasattr(creator, "cursor") and not isinstance(creator, (type, types.ModuleType)):
        why = "this is a connection: give what makes one"
        raise WrongKind("creator", type(creator).__name__, "a DB-API 2 module, or a function that connects", why)
    sources: tuple[Any, ...] = (creator, getattr(creator, "dbapi", None), module_behind(creator))
    for source in sources:
        if hasattr(source, "threadsafety"):
            level: int | None = source.threadsafety
            return level
    is_class_of_connections = isinstance(creator, type) and hasattr(creator, "cursor")
    if callable(getattr(creator, "connect", None)) and not is_class_of_connections:
        return 0  # it is a module, or stands for one, and does not say
    if callable(creator):
        return 1
    raise WrongKind("creator", creator, "a DB-API 2 module, or a function that returns a connection")


def module_behind(creator: Any) -> types.ModuleType | None:
    """Return the DB-API module that a creator is, or whose ``connect`` it is; None if that cannot be seen."""
    if isinstance(creator, types.ModuleType):
        return creator
    module = sys.modules.get(getattr(creator, "__module__", "").partition(".")[0])
    if module is not None and hasattr(module, "apilevel"):
        own = (getattr(module, attribute, None) for attribute in ("connect", "Connect", "Connection"))
        if any(creator is function for function in own if function is not None):
            return module
    return None
