"""Every number that a pool obeys, validated once, at once, and by name.

Public settings are named as users know them (``timeout``, ``max_lifetime``, seconds as float); inside, quantities end
in their unit.  This module is the one place where the two meet, and the one place that knows defaults and bounds.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

from .errors import InvalidSetting

IdleOrder = Literal["lifo", "fifo"]
Dial = Literal["auto", "threads", "caller"]
Growth = Literal["thrifty", "eager"]


@dataclass(frozen=True)
class Limits:
    """The validated numbers; made by :meth:`of` from a pool's settings."""

    max_size: int = 10
    min_idle: int = 0
    max_idle: float = math.inf  # of the drop-in only: a limit on what is kept costs the fast path
    timeout_s: float = 30.0
    max_lifetime_s: float = 1800.0
    idle_timeout_s: float = 600.0
    check_after_s: float = 30.0
    check_timeout_s: float = 2.0
    connect_timeout_s: float = 10.0
    fail_after_s: float = math.inf
    max_uses: float = math.inf
    max_waiting: float = math.inf
    max_dialing: int = 64
    lifo: bool = True
    eager: bool = False
    callers_dial: bool = False

    @classmethod
    def of(cls, **settings: Any) -> Limits:
        """Return the limits for *settings*, those not given at their defaults.

        Raises:
            InvalidSetting: one of them is unknown or out of bounds; the message names it, the value and what is
            allowed.
        """
        numbers: dict[str, Any] = {}
        for name, value in settings.items():
            rule = _RULES.get(name)
            if rule is None:
                raise InvalidSetting(name, value, f"one of {', '.join(sorted(_RULES))}", "there is no such setting")
            field, check = rule
            numbers[field] = check(name, value)
        return cls(**numbers).consistent()

    def changed(self, **settings: Any) -> Limits:
        """Return these limits with some settings changed and everything validated again."""
        other = Limits.of(**settings)
        changes = {_RULES[name][0]: getattr(other, _RULES[name][0]) for name in settings}
        return replace(self, **changes).consistent()

    def consistent(self) -> Limits:
        """Return self, or say which two limits contradict each other."""
        if self.min_idle > self.max_size:
            raise InvalidSetting("min_idle", self.min_idle, f"at most max_size, which is {self.max_size}")
        if self.min_idle > self.max_idle:
            raise InvalidSetting("min_idle", self.min_idle, f"at most max_idle, which is {self.max_idle}")
        return self

    def __repr__(self) -> str:
        default = Limits.__dataclass_fields__
        told = (f for f in fields(self) if getattr(self, f.name) != default[f.name].default)
        return f"Limits({', '.join(f'{f.name}={getattr(self, f.name)!r}' for f in told)})"


def whole(least: int) -> Callable[[str, Any], int]:
    """Check a whole number."""

    def check(name: str, value: Any) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise InvalidSetting(name, value, f"a whole number, {least} or more")
        return value

    return check


def whole_or_none(least: int) -> Callable[[str, Any], float]:
    """Check a whole number; None is infinity."""

    def check(name: str, value: Any) -> float:
        if value is None:
            return math.inf
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise InvalidSetting(name, value, f"a whole number, {least} or more, or None for no limit")
        return value

    return check


def seconds(*, zero: bool, none: bool = True) -> Callable[[str, Any], float]:
    """Check a duration; None is infinity."""
    allowed = "seconds, " + ("0 or more" if zero else "more than 0") + (", or None for no limit" if none else "")

    def check(name: str, value: Any) -> float:
        if value is None and none:
            return math.inf
        if not isinstance(value, (int, float)) or isinstance(value, bool):
            raise InvalidSetting(name, value, allowed)
        if math.isnan(value) or value < 0 or (value == 0 and not zero):
            raise InvalidSetting(name, value, allowed)
        return float(value)

    return check


def choice(**meanings: bool) -> Callable[[str, Any], bool]:
    """Check a word, and say what it means."""

    def check(name: str, value: Any) -> bool:
        if not isinstance(value, str) or value not in meanings:
            raise InvalidSetting(name, value, "one of " + ", ".join(repr(word) for word in meanings))
        return meanings[value]

    return check


# Public setting -> (field, check).
_RULES: dict[str, tuple[str, Callable[[str, Any], Any]]] = {
    "max_size": ("max_size", whole(1)),
    "min_idle": ("min_idle", whole(0)),
    "max_idle": ("max_idle", whole_or_none(1)),
    "timeout": ("timeout_s", seconds(zero=True)),
    "max_lifetime": ("max_lifetime_s", seconds(zero=False)),
    "idle_timeout": ("idle_timeout_s", seconds(zero=False)),
    "check_after": ("check_after_s", seconds(zero=True)),
    "check_timeout": ("check_timeout_s", seconds(zero=False, none=False)),
    "connect_timeout": ("connect_timeout_s", seconds(zero=False, none=False)),
    "fail_after": ("fail_after_s", seconds(zero=True)),
    "max_uses": ("max_uses", whole_or_none(1)),
    "max_waiting": ("max_waiting", whole_or_none(0)),
    "max_dialing": ("max_dialing", whole(1)),
    "idle_order": ("lifo", choice(lifo=True, fifo=False)),
    "growth": ("eager", choice(thrifty=False, eager=True)),
    "dial": ("callers_dial", choice(auto=False, threads=False, caller=True)),
}


def timeout_of(value: float | None, default_s: float) -> float:
    """Return how many seconds a call may take: its own ``timeout``, or the pool's."""
    if value is None:
        return default_s
    return seconds(zero=True, none=False)("timeout", value)
