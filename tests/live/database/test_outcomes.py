"""When the link is lost: what was certainly not done, what may have been, and what is run again."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

import millpond
from millpond.database import Database
from millpond.testing import FaultProxy, ScratchServer


@pytest.fixture
def proxy(server: ScratchServer) -> Iterator[FaultProxy]:
    """Return a proxy that can break links."""
    with FaultProxy(server.port, counting="mysql") as standing:
        yield standing


@pytest.fixture
def far(db: Database, proxy: FaultProxy, open_database: Callable[..., Database]) -> Database:
    """Return the database of one account as it is seen through the proxy."""
    db.insert("accounts", {"id": 1, "owner": "one", "balance": 10})
    database = open_database(port=proxy.port)
    database.select_value("SELECT 1")
    return database


def add_one(db: Database) -> None:
    """Add to the account."""
    db.execute("UPDATE accounts SET balance = balance + 1")


def balance(db: Database) -> int:
    """Return what is in the account."""
    value: int = db.select_value("SELECT balance FROM accounts")
    return value


def test_a_lost_answer_to_a_write_is_of_unknown_outcome(far: Database, db: Database, proxy: FaultProxy) -> None:
    """A write outside a transaction whose answer was lost may have been done, and here it was."""
    proxy.to_client.cut_after = 0
    with pytest.raises(millpond.OutcomeUnknown) as caught:
        add_one(far)
    assert "UPDATE accounts SET balance = balance + 1" == caught.value.statement
    assert isinstance(caught.value, type(caught.value.__cause__)), "it is of the driver's own class as well"
    assert 11 == balance(db)


def test_a_lost_answer_to_a_read_is_just_a_lost_link(far: Database, proxy: FaultProxy) -> None:
    """Nothing can have been done by a read."""
    proxy.to_client.cut_after = 0
    with pytest.raises(millpond.ServerGone):
        balance(far)
    proxy.heal()
    assert 10 == balance(far)


def test_a_lost_answer_to_commit_is_of_unknown_outcome_and_is_not_run_again(
    far: Database, db: Database, proxy: FaultProxy
) -> None:
    """COMMIT was sent, its answer was lost: whoever called is told, and nothing is done twice."""
    runs: list[int] = []

    def work() -> None:
        runs.append(1)
        add_one(far)
        proxy.to_client.cut_after = 0

    with pytest.raises(millpond.OutcomeUnknown):
        far.run_transaction(work)
    assert [1] == runs
    assert 11 == balance(db)


def test_a_link_that_breaks_inside_a_transaction_is_run_again(far: Database, db: Database, proxy: FaultProxy) -> None:
    """A transaction whose link was lost before COMMIT is run once more, whole, and done once."""
    runs: list[int] = []

    def work() -> None:
        runs.append(1)
        add_one(far)
        if len(runs) == 1:
            proxy.reset()
        add_one(far)

    far.run_transaction(work)
    assert [1, 1] == runs
    assert 12 == balance(db)


def test_a_link_that_is_dead_before_commit_is_sent_has_a_known_outcome(
    far: Database, db: Database, proxy: FaultProxy
) -> None:
    """A link that the server has closed before COMMIT is sent is no unknown outcome, and is run again."""
    runs: list[int] = []

    def work() -> None:
        runs.append(1)
        with far.transaction() as transaction:
            add_one(far)
            number = far.select_value("SELECT CONNECTION_ID()")
        if len(runs) == 1:
            db.execute("KILL %s", (number,))
            wait_until_closed(far, transaction)

    far.run_transaction(work)
    assert [1, 1] == runs
    assert 11 == balance(db)


def wait_until_closed(db: Database, transaction: millpond.Transaction) -> None:
    """Wait until the connection has heard that it was closed."""
    import select

    fd = db.pool.driver.fileno(transaction.connection.driver_connection)
    assert fd is not None
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    assert poll.poll(20_000)


def test_a_stream_that_is_left_on_a_lost_link_raises_nothing_there(
    far: Database, db: Database, proxy: FaultProxy
) -> None:
    """It may have been dropped, with nobody to raise to; what comes next is refused, and the whole is run again."""
    seen: list[str] = []

    def work() -> None:
        add_one(far)
        with far.stream("SELECT id FROM accounts") as found:
            next(found)
            if not seen:
                proxy.reset()
        seen.append("left")
        add_one(far)
        seen.append("added")

    far.run_transaction(work)
    assert ["left", "left", "added"] == seen
    assert 12 == balance(db)


def test_attempts_are_bounded(far: Database, proxy: FaultProxy) -> None:
    """A link that breaks each time is given up after as many attempts as were allowed."""
    runs: list[int] = []

    def work() -> None:
        runs.append(1)
        proxy.reset()
        add_one(far)

    with pytest.raises(millpond.ServerGone):
        far.run_transaction(work, attempts=3)
    assert [1, 1, 1] == runs


def test_going_on_after_a_lost_link_is_refused(far: Database, db: Database, proxy: FaultProxy) -> None:
    """What comes after the link was lost is not done on another connection: the block is lost, and says why."""
    with pytest.raises(millpond.TransactionLost, match="link to the server was lost"), far.transaction():
        add_one(far)
        proxy.reset()
        with pytest.raises(millpond.ServerGone):
            add_one(far)
        add_one(far)
    assert 10 == balance(db)
    assert 0 == far.pool.stats().leased
