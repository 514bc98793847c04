"""Errors are ours and the driver's at once, and can be sent to another process."""

from __future__ import annotations

import copy
import pickle
import sqlite3
from typing import Any

import pytest

import millpond
from millpond.errors import Error, joined, plain

OURS: tuple[Error, ...] = (
    millpond.PoolTimeout("late", reason="pool exhausted", waited=1.5, holders=("somebody",)),
    millpond.TooManyWaiting("full"),
    millpond.PoolClosed("closed"),
    millpond.ConnectionReturned("returned"),
    millpond.ConcurrentUse("two threads"),
    millpond.InvalidSetting("max_size", 0, "1 or more"),
    millpond.DriverMissing("no such driver"),
    millpond.DriverUnsuitable("of no use"),
)


@pytest.mark.parametrize("error", OURS, ids=lambda error: type(error).__name__)
def test_every_error_is_ours_and_looks_like_a_driver_s(error: Error) -> None:
    """One base catches all; ``args`` starts with a number, as handlers of MySQL's errors expect."""
    assert isinstance(error, millpond.Error)
    assert (0, error.text) == error.args
    assert error.text == str(error)


@pytest.mark.parametrize("error", OURS, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("travel", [lambda error: pickle.loads(pickle.dumps(error)), copy.copy, copy.deepcopy])
def test_errors_travel_with_all_they_carry(error: Error, travel: Any) -> None:
    """Pickled or copied, an error keeps its class, text and attributes."""
    arrived = travel(error)
    assert type(error) is type(arrived)
    assert (error.args, vars(error)) == (arrived.args, vars(arrived))


@pytest.mark.parametrize("error", OURS, ids=lambda error: type(error).__name__)
def test_a_double_class_is_both_and_becomes_the_plain_one_on_the_way(error: Error) -> None:
    """It is caught as ours and as the driver's; another process, without that driver, gets ours alone."""
    kind = joined(type(error), sqlite3.OperationalError)
    twin = kind.__new__(kind)
    twin.args = error.args
    twin.__dict__.update(vars(error))
    assert isinstance(twin, sqlite3.OperationalError)
    assert isinstance(twin, type(error))
    assert type(error) is plain(kind)
    assert type(error) is type(pickle.loads(pickle.dumps(twin)))


def test_double_classes_are_made_once() -> None:
    """The same pair is the same class, with the name and module of ours."""
    kind = joined(millpond.PoolTimeout, sqlite3.OperationalError)
    assert kind is joined(millpond.PoolTimeout, sqlite3.OperationalError)
    assert ("PoolTimeout", "millpond.errors") == (kind.__name__, kind.__module__)


def test_where_there_is_no_family_the_class_is_ours() -> None:
    """Without a driver, or with one that has no such class, nothing is made."""
    assert millpond.PoolTimeout is joined(millpond.PoolTimeout, None)


def test_classes_that_do_not_go_together_leave_ours_alone() -> None:
    """A driver may have exceptions of a layout that cannot be joined: ours is raised all the same."""
    assert millpond.DriverMissing is joined(millpond.DriverMissing, UnicodeDecodeError)


class Picky(Exception):
    """A driver's exception that insists on its own arguments."""

    def __init__(self, errno: int, message: str, sqlstate: str) -> None:
        super().__init__(errno, message, sqlstate)


def test_a_driver_s_own_constructor_has_no_say() -> None:
    """Drivers rewrite ``args``, or demand others; a double class is made as ours is."""
    error = joined(millpond.PoolTimeout, Picky)("late", reason="server full")
    assert isinstance(error, Picky)
    assert ((0, "late"), "server full") == (error.args, error.reason)


def test_warnings_have_the_categories_that_filters_expect() -> None:
    """Resource warnings are off by default, the others are shown."""
    assert issubclass(millpond.LeaseDropped, ResourceWarning)
    assert issubclass(millpond.UncommittedWork, UserWarning)
    assert issubclass(millpond.EventLoopBlocked, RuntimeWarning)
