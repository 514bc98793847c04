"""What an adapter is made with: checked at once, and the same for threads and for tasks.

Why: a wrong setting is told when a pool is made, by its name and with what is allowed, and not by a driver at the first
connection.  What comes by a URL and what comes as arguments means the same.

Rules: no value is quoted that may be a password, or have one in it.  An old name of a driver's argument is told of.

It must not know a driver, nor use what it has checked.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias, TypeVar

from millpond._core.states import Fault
from millpond.errors import InvalidSetting
from millpond.url import URL, Parser

from . import faults
from .base import Adapter

if TYPE_CHECKING:
    from typing_extensions import Self

C = TypeVar("C")
Reset: TypeAlias = "str | Callable[[Any], Any] | None"
OnConnect: TypeAlias = "str | Sequence[str] | Callable[[Any], Any] | None"

RESETS = ("auto", "always", "rollback", "none")
RENAMED = {"db": "database", "passwd": "password"}


class Configured(Adapter[C]):
    """An adapter with the settings that all of ours have.

    Args:
        given: the driver's module, or a callable that connects.
        connect_args: keyword arguments for each connect.
        reset: "auto" (what is needed), "always" (the same, never left out), "rollback" (nothing else), "none" or
            None, or a callable that gets the connection.
        on_connect: a statement, several, or a callable that gets the connection, for each new one.
        described: what the repr shows of where connections lead; no password.

    Raises:
        InvalidSetting: one of these is not what it can be.
    """

    #: Options of a URL, and what reads each.
    options: ClassVar[Mapping[str, Parser]] = {}

    def __init__(
        self,
        given: Any,
        *,
        connect_args: Mapping[str, Any] | None,
        reset: Reset,
        on_connect: OnConnect,
        described: str,
    ) -> None:
        self._given: Any = given
        self._connect_args = renamed(connect_args or {})
        self._reset = valid_reset(reset)
        self._on_connect = valid_on_connect(on_connect)
        self._described = described

    @classmethod
    def from_url(
        cls, url: URL, *, connect_args: Mapping[str, Any], reset: Reset = "auto", on_connect: OnConnect = None
    ) -> Self:
        """Make the adapter for a URL; *connect_args* win over what the URL says."""
        arguments = {**cls.arguments_of(url), **renamed(connect_args)}
        return cls(None, connect_args=arguments, reset=reset, on_connect=on_connect, described=str(url))

    @classmethod
    def arguments_of(cls, url: URL) -> dict[str, Any]:
        """Return the keyword arguments of ``connect`` that a URL stands for."""
        parts = {"user": url.user, "password": url.password, "host": url.host, "port": url.port}
        known = {name: value for name, value in parts.items() if value is not None}
        return {**known, **({"database": url.database} if url.database else {}), **url.typed(cls.options)}

    def classify(self, error: BaseException) -> Fault:
        """Sort an exception by number, state or class."""
        return faults.classify(error)

    def __repr__(self) -> str:
        shown = self._described or getattr(self._given, "__name__", type(self._given).__name__)
        return f"<{self.name} adapter of {shown}>"


def valid_reset(reset: Reset) -> str | Callable[[Any], Any]:
    """Return a ``reset`` that can be used."""
    if reset is None:
        return "none"
    if callable(reset) or reset in RESETS:
        return reset
    raise InvalidSetting(
        "reset", reset, '"auto", "always", "rollback", "none", None, or a callable that gets the connection'
    )


def valid_on_connect(on_connect: OnConnect) -> tuple[str, ...] | Callable[[Any], Any] | None:
    """Return an ``on_connect`` that can be run."""
    if on_connect is None or callable(on_connect):
        return on_connect
    given: Any = [on_connect] if isinstance(on_connect, str) else on_connect
    statements: list[Any] = [*given] if isinstance(given, (list, tuple)) else [None]
    if not all(isinstance(statement, str) and statement.strip() for statement in statements):
        allowed = "a statement, a list of statements, or a callable that gets the connection"
        # A statement may have a password in it, so none is shown.
        raise InvalidSetting("on_connect", type(on_connect).__name__, allowed, "there is something else in it")
    return tuple(statements)


def renamed(connect_args: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments under the names that all drivers know; old names are told of, values never."""
    arguments = dict(connect_args)
    for old, new in RENAMED.items():
        if old not in arguments:
            continue
        if new in arguments:
            raise InvalidSetting("connect_args", sorted(arguments), f"{new} alone", f"it has both {old} and {new}")
        tell(f"connect_args: {old!r} is deprecated by the drivers; call it {new!r}")
        arguments[new] = arguments.pop(old)
    charset = arguments.get("charset")
    if isinstance(charset, str) and charset.lower() in ("utf8", "utf8mb3"):
        tell("charset=utf8 is MySQL's three-byte form, which refuses emoji and rare Han: use charset=utf8mb4")
    return arguments


def tell(text: str) -> None:
    """Warn at the line of the program that made the pool."""
    depth, frame = 2, sys._getframe(1)  # noqa: SLF001  documented, and the only way
    while frame.f_back is not None and str(frame.f_globals.get("__name__", "")).startswith("millpond."):
        depth, frame = depth + 1, frame.f_back
    warnings.warn(text, UserWarning, stacklevel=depth)
