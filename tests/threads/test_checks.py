"""A thread that is called away while a connection is checked for it: that says nothing of the connection."""

from __future__ import annotations

import pytest

from millpond import Pool
from tests.garbage import collect

from .doubles import NullConnection, NullDriver, runtime_with


class Interrupted(BaseException):
    """What a signal handler raises."""


class StruckDriver(NullDriver):
    """A driver in whose checks a signal strikes, once: before the question was sent, or when its answer was out."""

    def __init__(self, *, asked: bool) -> None:
        super().__init__()
        self.asked = asked
        self.strikes = False
        self.struck = False

    def is_alive(self, conn: NullConnection, until: float) -> bool:
        """Ask, or be struck."""
        if self.strikes:
            self.strikes, self.struck = False, True
            raise Interrupted
        return super().is_alive(conn, until)

    def in_flight(self, conn: NullConnection) -> bool | None:
        """Say whether an answer is out."""
        return self.asked and self.struck and conn.number == 1


@pytest.mark.parametrize(("asked", "opened"), [(False, 1), (True, 2)], ids=["nothing was sent", "an answer is out"])
def test_a_check_that_a_signal_strikes_costs_the_connection_only_if_it_must(asked: bool, opened: int) -> None:
    """What was left as it was is checked again for whoever comes next."""
    driver = StruckDriver(asked=asked)
    with Pool(driver, max_size=1, check_after=0.0, reset="none") as pool:
        with pool.connection():
            pass
        driver.strikes = True
        with pytest.raises(Interrupted):
            pool.connection()
        with pool.connection() as conn:
            assert opened == conn.driver_connection.number
        assert opened == pool.stats().opened


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_one_that_is_still_to_be_checked_again_is_closed_with_its_pool() -> None:
    """Nobody has come to check it: it is idle for all that, and its server is told when the pool is dropped."""
    driver = StruckDriver(asked=False)
    runtime = runtime_with(start=lambda _: None)  # no thread of this pool's ever runs
    pool = Pool(driver, max_size=1, check_after=0.0, reset="none", dial="caller", runtime=runtime)
    with pool.connection():
        pass
    driver.strikes = True
    with pytest.raises(Interrupted):
        pool.connection()
    del pool
    collect()
    assert not driver.left_open
