"""Every setting is checked at once, by its name, with the value that was given and what is allowed."""

from __future__ import annotations

import math
from typing import Any

import pytest

import millpond
from millpond.limits import Limits, timeout_of
from millpond.testing.fake_driver import FakeDriver

INF = math.inf

DEFAULTS: dict[str, Any] = {
    "max_size": 10,
    "min_idle": 0,
    "timeout_s": 30.0,
    "max_lifetime_s": 1800.0,
    "idle_timeout_s": 600.0,
    "check_after_s": 30.0,
    "check_timeout_s": 2.0,
    "connect_timeout_s": 10.0,
    "fail_after_s": INF,
    "max_uses": INF,
    "max_waiting": INF,
    "max_dialing": 64,
    "lifo": True,
    "eager": False,
    "callers_dial": False,
}
WRONG: dict[str, tuple[list[Any], str]] = {
    "max_size": ([0, -1, 1.5, "10", None, True], "a whole number, 1 or more"),
    "min_idle": ([-1, 0.5, "0", None, False], "a whole number, 0 or more"),
    "timeout": ([-0.1, "30", True, math.nan], "seconds, 0 or more, or None"),
    "max_lifetime": ([0, -1, "1800"], "seconds, more than 0, or None"),
    "idle_timeout": ([0, -1, "600"], "seconds, more than 0, or None"),
    "check_after": ([-1, "30"], "seconds, 0 or more, or None"),
    "check_timeout": ([0, -1, None, "2"], "seconds, more than 0"),
    "connect_timeout": ([0, -1, None, "10"], "seconds, more than 0"),
    "fail_after": ([-1, "5"], "seconds, 0 or more, or None"),
    "max_uses": ([0, -1, 1.5, "100"], "a whole number, 1 or more, or None"),
    "max_waiting": ([-1, 1.5, "10"], "a whole number, 0 or more, or None"),
    "max_dialing": ([0, -1, None], "a whole number, 1 or more"),
    "idle_order": (["LIFO", None, 1], "one of 'lifo', 'fifo'"),
    "growth": (["fast", None], "one of 'thrifty', 'eager'"),
    "dial": (["inline", None], "one of 'auto', 'threads', 'caller'"),
}


def test_the_defaults_are_those_of_the_contract() -> None:
    """What nobody sets is as the documentation says."""
    pool = millpond.Pool(FakeDriver())
    assert DEFAULTS == {name: getattr(pool._limits, name) for name in DEFAULTS}
    assert Limits() == pool._limits
    pool.close()


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, (values, _) in WRONG.items() for value in values])
def test_a_wrong_setting_is_refused_by_its_name(name: str, value: Any) -> None:
    """The error has the name, the value and what is allowed, is a ValueError too, and nothing was opened."""
    driver = FakeDriver()
    with pytest.raises(millpond.InvalidSetting) as caught:
        millpond.Pool(driver, **{name: value})
    error = caught.value
    assert isinstance(error, ValueError)
    assert name == error.name
    assert str(error).startswith(f"{name}={value!r}: ")
    assert WRONG[name][1] in str(error)
    assert 0 == driver.counts["open"]


@pytest.mark.parametrize(
    ("given", "field", "expected"),
    [
        ({"timeout": None}, "timeout_s", INF),
        ({"timeout": 0}, "timeout_s", 0.0),
        ({"max_lifetime": None}, "max_lifetime_s", INF),
        ({"idle_timeout": None}, "idle_timeout_s", INF),
        ({"check_after": None}, "check_after_s", INF),
        ({"check_after": 0}, "check_after_s", 0.0),
        ({"fail_after": 2}, "fail_after_s", 2.0),
        ({"max_uses": 5}, "max_uses", 5),
        ({"max_waiting": 0}, "max_waiting", 0),
        ({"idle_order": "fifo"}, "lifo", False),
        ({"growth": "eager"}, "eager", True),
        ({"dial": "caller"}, "callers_dial", True),
        ({"dial": "threads"}, "callers_dial", False),
    ],
)
def test_what_settings_mean(given: dict[str, Any], field: str, expected: Any) -> None:
    """None is no limit; words are yes or no inside."""
    assert expected == getattr(Limits.of(**given), field)


def test_settings_that_contradict_each_other_are_refused() -> None:
    """More cannot be kept open than may be open."""
    with pytest.raises(millpond.InvalidSetting, match=r"min_idle=11: .*at most max_size, which is 10"):
        Limits.of(min_idle=11)


def test_an_unknown_setting_is_refused_with_those_there_are() -> None:
    """A typing mistake is not a silent default."""
    with pytest.raises(millpond.InvalidSetting, match=r"there is no such setting.*max_size"):
        Limits.of(maxsize=5)


def test_changed_limits_are_checked_as_a_whole() -> None:
    """A change that contradicts what was set before is refused; what was not named stays."""
    limits = Limits.of(max_size=5, min_idle=3)
    with pytest.raises(millpond.InvalidSetting, match="min_idle=3"):
        limits.changed(max_size=2)
    assert (7, 3) == (limits.changed(max_size=7).max_size, limits.changed(max_size=7).min_idle)


def test_limits_show_what_is_not_the_default() -> None:
    """A repr of fifteen defaults would hide the one that matters."""
    assert "Limits(max_size=3)" == repr(Limits.of(max_size=3))


@pytest.mark.parametrize(("value", "expected"), [(None, 7.0), (0, 0.0), (2, 2.0), (1.5, 1.5)])
def test_a_call_s_own_timeout_wins_over_the_pool_s(value: Any, expected: float) -> None:
    """None means: as the pool has it."""
    assert expected == timeout_of(value, 7.0)


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"observer": "print"}, "observer"),
        ({"driver": 5}, "driver"),
        ({"connect_args": 5}, "connect_args"),
    ],
)
def test_settings_that_are_not_numbers_are_checked_as_well(settings: dict[str, Any], name: str) -> None:
    """A hook that cannot be called is told at once, not when it would be called."""
    driver: Any = FakeDriver().module
    with pytest.raises(millpond.InvalidSetting, match=f"^{name}="):
        millpond.Pool(driver.connect, **settings)


@pytest.mark.parametrize("source", [None, 5, [], object()])
def test_what_is_no_source_of_connections_is_refused(source: Any) -> None:
    """The error says what a source may be."""
    with pytest.raises(millpond.InvalidSetting, match="a URL, a DB-API module, a callable"):
        millpond.Pool(source)
