"""The contract of asyncio adapters finds one that breaks a promise: one planted fault for each."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from millpond._core.states import Fault
from millpond.drivers.aio import AsyncDriver, resolve
from millpond.testing import AsyncDriverContract


class Dialling(AsyncDriver[Any]):
    """As much of an adapter with a network as a dial takes.

    Args:
        port: where it leads.
        hangs_up: whether a dial that is called off closes what it has opened.
    """

    def __init__(self, port: int, *, hangs_up: bool) -> None:
        self.port = port
        self.hangs_up = hangs_up
        self.sock = socket.socket()
        self.sock.setblocking(False)

    async def open(self, until: float) -> Any:
        """Connect, and wait for a greeting."""
        loop = asyncio.get_running_loop()
        try:
            await loop.sock_connect(self.sock, ("127.0.0.1", self.port))
            return await loop.sock_recv(self.sock, 1)
        finally:
            if self.hangs_up:
                self.sock.close()

    async def is_alive(self, conn: Any, until: float) -> bool:
        """Say no."""
        return False

    async def reset(self, conn: Any, until: float) -> bool:
        """Say no."""
        return False

    def close(self, conn: Any) -> None:
        """Do nothing: it is never open."""


class Contract(AsyncDriverContract):
    """The contract over aiosqlite, one of whose methods is replaced."""

    __test__ = False  # the faults below are looked for one by one
    slack_s = 0.2

    def __init__(self, wrong: Mapping[str, Any], file: Path) -> None:
        self.wrong = wrong
        self.file = file
        self.dialling: list[Dialling] = []

    def make_driver(self, **settings: Any) -> AsyncDriver[Any]:
        """Return an adapter with the fault."""
        driver = resolve(f"sqlite:///{self.file}", **settings)
        for name, value in self.wrong.items():
            setattr(driver, name, value)
        if "close raises" in self.wrong:
            driver.close = raising_after(driver.close)  # type: ignore[method-assign,assignment]  # of this one
        return driver

    def driver_with_password(self, password: str) -> AsyncDriver[Any]:
        """Return an adapter that shows a password, if that is the fault."""
        driver = self.make_driver()
        driver.capabilities = {"shown": self.wrong.get("shows", "").format(password)}  # type: ignore[misc]  # of this one
        return driver

    def driver_to_port(self, port: int) -> AsyncDriver[Any]:
        """Return an adapter with a network."""
        self.dialling.append(Dialling(port, hangs_up="stays" not in self.wrong))
        return self.dialling[0]

    def driver_asking(self, asked: Callable[[], object]) -> AsyncDriver[Any]:
        """Return an adapter that asks at each dial, or only at the first if that is the fault."""
        driver = self.make_driver()
        dial, left = driver.open, [1] if "asks once" in self.wrong else [1, 1]

        async def open_and_ask(until: float) -> Any:
            if left:
                left.pop()
                asked()
            return await dial(until)

        driver.open = open_and_ask  # type: ignore[method-assign]  # of this one
        return driver


async def say_yes(*_: Any) -> bool:
    """Say that all is well."""
    return True


def fail(*_: Any) -> Any:
    """Raise what a driver raises for a connection that is gone."""
    raise OSError("bad file descriptor")


def raising_after(close: Callable[[Any], object]) -> Callable[[Any], Any]:
    """Return a way of closing that closes, and then raises."""

    def close_and_fail(conn: Any) -> Any:
        close(conn)
        fail()

    return close_and_fail


FAULTS: dict[str, tuple[dict[str, Any], Callable[[Contract], object]]] = {
    "a check that always says yes": ({"is_alive": say_yes}, Contract.test_a_broken_connection_is_dead_and_stays_dead),
    "a check that raises": ({"is_alive": fail}, Contract.test_opens_connections_that_work),
    "a failed dial that stays open": ({"is_alive": say_yes}, Contract.test_a_failing_on_connect_fails_the_dial),
    "a reset that rolls nothing back": ({"reset": say_yes}, Contract.test_reset_rolls_back),
    "a session that is always clean": ({"is_clean": lambda _: True}, Contract.test_reset_rolls_back),
    "writes that nobody tells of": ({"uncommitted": lambda _: False}, Contract.test_reset_rolls_back),
    "a reset that is not the caller's": ({"reset": say_yes}, Contract.test_a_reset_of_the_callers_own),
    "a deferred reset without an answer": (
        {"send_reset": lambda _: False},
        Contract.test_a_deferred_reset_makes_as_good_as_new,
    ),
    "a transaction left by a check": ({"uncommitted": lambda _: True}, Contract.test_a_check_leaves_nothing_open),
    "a poll that sees something": ({"is_readable": lambda _: True}, Contract.test_a_broken_connection_is_readable),
    "a question that raises": ({"is_clean": fail}, Contract.test_what_is_asked_without_io_never_raises),
    "a dial that stays when it is called off": ({"stays": True}, Contract.test_a_dial_can_be_called_off),
    "every error is the link's": (
        {"classify": lambda _: Fault.GONE},
        Contract.test_a_wrong_statement_is_the_statements_fault,
    ),
    "a family that nobody knows": ({"family": lambda _: None}, Contract.test_the_family_is_known),
    "a password that is asked for once": ({"asks once": True}, Contract.test_a_password_is_asked_for_at_each_connect),
    "a password in what is told": ({"shows": "{}"}, Contract.test_passwords_are_shown_nowhere),
    "a capability that is not told": (
        {"capabilities": {"deadline": "yes"}},
        Contract.test_capabilities_are_told_in_a_line_each,
    ),
    "a close that raises": ({"close raises": True}, Contract.test_close_never_raises),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_broken_promise_is_found(fault: str, tmp_path: Path) -> None:
    """Each fault fails the test of the contract that is about it."""
    wrong, test = FAULTS[fault]
    contract = Contract(wrong, tmp_path / "faulty.db")
    with pytest.raises((AssertionError, OSError, asyncio.TimeoutError)):
        test(contract)
    for dialling in contract.dialling:
        dialling.sock.close()


@pytest.mark.parametrize("fault", FAULTS)
def test_a_kept_promise_passes(fault: str, tmp_path: Path) -> None:
    """The same test passes without the fault."""
    FAULTS[fault][1](Contract({}, tmp_path / "kept.db"))
