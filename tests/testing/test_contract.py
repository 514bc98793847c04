"""The driver contract finds an adapter that breaks a promise: one planted fault for each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest

from millpond._core.states import Fault
from millpond.drivers.base import Driver
from millpond.drivers.dbapi import DbapiDriver
from millpond.testing import DriverContract, FakeDriver


class Contract(DriverContract):
    """The contract over a fake driver, one of whose methods is replaced."""

    __test__ = False  # the faults below are looked for one by one

    def __init__(self, wrong: Mapping[str, Any]) -> None:
        self.wrong = wrong
        self.tables: dict[str, list[Any]] = {}

    def make_driver(self, **settings: Any) -> Driver[Any]:
        """Return an adapter with the fault."""
        fake = FakeDriver(tells_clean=True, tells_readable=True)
        fake.tables = self.tables
        driver: Driver[Any] = DbapiDriver(fake.module, **settings) if settings else fake
        for name, value in self.wrong.items():
            setattr(driver, name, value)
        return driver

    def break_connection(self, conn: Any) -> None:
        """End the link as a server would."""
        conn.alive = False

    def driver_with_password(self, password: str) -> Driver[Any] | None:
        """Return an adapter that knows a password, and shows it if that is the fault."""
        return DbapiDriver(lambda: None, connect_args={"password": password}, described=self.wrong.get("shown", ""))


def ignore(*_: Any) -> None:
    """Do nothing."""


def fail(*_: Any) -> Any:
    """Raise what a C driver raises for a connection that is gone."""
    raise OSError("bad file descriptor")


FAULTS: dict[str, tuple[dict[str, Any], Callable[[Contract], object]]] = {
    "a check that always says yes": (
        {"is_alive": lambda *_: True},
        DriverContract.test_a_broken_connection_is_dead_and_stays_dead,
    ),
    "a check that raises": ({"is_alive": fail}, DriverContract.test_a_broken_connection_is_dead_and_stays_dead),
    "a reset that rolls nothing back": ({"reset": lambda *_: True}, DriverContract.test_reset_rolls_back),
    "a session that is always clean": ({"is_clean": lambda _: True}, DriverContract.test_what_was_written_is_not_clean),
    "a session that is never clean": ({"is_clean": lambda _: False}, DriverContract.test_a_reset_connection_is_clean),
    "a poll that sees nothing": (
        {"is_readable": lambda _: True},
        DriverContract.test_a_broken_connection_is_readable,
    ),
    "a question that raises": ({"is_clean": fail}, DriverContract.test_what_is_asked_without_io_never_raises),
    "every error is the link's": (
        {"classify": lambda _: Fault.GONE},
        DriverContract.test_a_wrong_statement_is_the_statements_fault,
    ),
    "every error is the statement's": (
        {"classify": lambda _: Fault.STATEMENT},
        DriverContract.test_a_broken_link_is_gone,
    ),
    "a family that nobody knows": ({"family": ignore}, DriverContract.test_the_family_is_known),
    "raw cursors": ({"cursor": lambda conn, *_: conn.cursor()}, DriverContract.test_cursors_are_cut_off),
    "a password in the repr": (
        {"shown": "mysql://u:s3cr3t-0f-the-contract@h"},
        DriverContract.test_passwords_are_shown_nowhere,
    ),
    "a capability that is not told": (
        {"capabilities": {"deadline": "yes"}},
        DriverContract.test_capabilities_are_told_in_a_line_each,
    ),
    "a close that raises": ({"close": fail}, DriverContract.test_close_never_raises_and_is_quick),
    "a cut that cuts nothing": ({"cut": lambda _: True}, DriverContract.test_cutting_breaks_the_link),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_broken_promise_is_found(fault: str) -> None:
    """Each fault fails the test of the contract that is about it."""
    wrong, test = FAULTS[fault]
    with pytest.raises((AssertionError, OSError)):
        test(Contract(wrong))


@pytest.mark.parametrize("fault", FAULTS)
def test_a_kept_promise_passes(fault: str) -> None:
    """The same test passes without the fault."""
    FAULTS[fault][1](Contract({}))


def test_the_contract_has_to_be_told_what_it_is_about() -> None:
    """A subclass that makes no driver is told what it lacks."""
    with pytest.raises(AssertionError, match="make_driver"):
        DriverContract().make_driver()
