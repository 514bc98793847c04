"""A task is cancelled at each of its awaits, once and twice: nothing is lost or passed on, and it ends cancelled."""

from __future__ import annotations

import asyncio
import gc
import sys
import weakref
from typing import Any

import pytest

from millpond import AsyncPool, PoolTimeout
from millpond._core.audit import audit
from tests.garbage import collect

from .cancelling import Scenario, Stage, explore
from .doubles import Connection, ToldDriver, pool_of, run


async def use(stage: Stage) -> None:
    """Take a connection that has to be dialled, run a statement, give it back clean."""
    async with stage.pool.connection() as conn:
        await conn.work()


async def use_dirtily(stage: Stage) -> None:
    """Take a connection, leave dirt in its session, do something else, give it back: it has to be reset."""
    async with stage.pool.connection() as conn:
        await conn.work(dirties=True)
        await asyncio.sleep(0.1)


async def use_by_hand(stage: Stage) -> None:
    """Take a connection and give it back by hand."""
    conn = await stage.pool.connection()
    try:
        await conn.work(dirties=True)
        await asyncio.sleep(0.1)
    finally:
        await conn.close()


async def use_twice(stage: Stage) -> None:
    """Use a connection again that was left dirty: its reset is under way."""
    await use_dirtily(stage)
    await use_dirtily(stage)


async def wait_in_line(stage: Stage) -> None:
    """Wait for a connection that another task holds, which gives it back meanwhile; a third waits behind."""

    async def hold() -> None:
        async with stage.pool.connection() as conn:
            await conn.work(seconds=3.0, dirties=True)

    async def come_later() -> None:
        await asyncio.sleep(1.0)
        async with stage.pool.connection() as conn:
            await conn.work()

    stage.beside(hold())
    stage.beside(come_later())
    await asyncio.sleep(0.5)
    await use_dirtily(stage)


async def wait_behind(stage: Stage) -> None:
    """Wait behind another who waits, and be handed what that one gives back; nothing of it is left to be proved."""

    async def hold(seconds: float) -> None:
        async with stage.pool.connection() as conn:
            await conn.work(seconds=seconds)

    stage.beside(hold(2.0))
    stage.beside(hold(1.0))
    await asyncio.sleep(0.5)
    stage.beside(hold(0.5))
    async with stage.pool.connection() as conn:
        await conn.work()


async def be_checked(stage: Stage) -> None:
    """Take a connection that was idle for so long that it is checked first; it is dead."""
    async with stage.pool.connection():
        pass
    stage.driver.dead.update(stage.driver.opened)
    await asyncio.sleep(2.0)
    await use(stage)


async def be_checked_and_well(stage: Stage) -> None:
    """Take a connection that was idle for so long that it is checked first, while another waits behind."""
    async with stage.pool.connection():
        pass
    await asyncio.sleep(2.0)
    stage.beside(use(stage))
    await use(stage)


async def see_it_through(stage: Stage) -> None:
    """Wait for the pool to be filled, drain it, use it, close it while a connection is out."""
    await stage.pool.wait()
    stage.pool.drain()
    conn = await stage.pool.connection()
    stage.beside(give_back_later(conn))
    await stage.pool.close()


async def give_back_later(conn: Any) -> None:
    """Use a connection, and give it back."""
    await conn.work(dirties=True)
    await conn.close()


async def use_a_pool_of_its_own(stage: Stage) -> None:
    """Leave the block of a pool while a connection of it is out elsewhere."""
    async with stage.pool:
        conn = await stage.pool.connection()
        stage.beside(give_back_later(conn))
        await use_dirtily(stage)


async def close_over_a_holder(stage: Stage) -> None:
    """Close a pool whose connection is not given back in time: it is cut."""
    conn = await stage.pool.connection()
    stage.held.append(conn)
    await stage.pool.close(timeout=1.0)


async def time_out(stage: Stage) -> None:
    """Run into ``asyncio.wait_for`` in the middle of a statement, and go on with another connection."""
    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(use_dirtily(stage), 0.5)
    await use(stage)


SCENARIOS: dict[Scenario, dict[str, Any]] = {
    use: {},
    use_dirtily: {},
    use_by_hand: {},
    use_twice: {"max_size": 1},
    wait_in_line: {"max_size": 1},
    wait_behind: {"max_size": 1},
    be_checked: {"max_size": 1, "check_after": 1.0},
    be_checked_and_well: {"max_size": 1, "check_after": 1.0},
    see_it_through: {"min_idle": 1},
    use_a_pool_of_its_own: {},
    close_over_a_holder: {"max_size": 1},
    time_out: {"max_size": 1},
}


@pytest.mark.parametrize("defers", [False, True], ids=["resets at return", "resets sent ahead"])
@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.__name__)
def test_every_await_can_be_cancelled_twice(scenario: Scenario, defers: bool) -> None:
    """At every await, and a second time at every later one: nothing is lost, and the task ends cancelled."""
    if scenario is time_out and sys.version_info < (3, 12):
        pytest.skip("asyncio.wait_for itself swallows cancellations before Python 3.12")
    found = explore(scenario, told={"defers": defers}, **SCENARIOS[scenario])
    assert found.awaits >= 2
    assert found.plays > 10
    print(f"{scenario.__name__}: {found}")  # noqa: T201  the figures are the point


@pytest.mark.parametrize("scenario", [use, use_dirtily, wait_in_line], ids=lambda scenario: scenario.__name__)
def test_a_driver_that_cannot_tell_is_cancelled_as_safely(scenario: Scenario) -> None:
    """Where nothing is known of a connection, one that was cancelled is given up, and nothing else is lost."""
    found = explore(scenario, told={"tells": False}, **SCENARIOS[scenario])
    assert found.awaits >= 2


def test_pairs_are_really_reached() -> None:
    """The second cancellation meets a task that is giving its connection back."""
    assert 0 < explore(use_dirtily).pairs


def cancelled_in_block(work: Any, **told: Any) -> tuple[int, int, int]:
    """Cancel a task inside its block; return the connections opened before and after another use, and the resets."""

    async def main() -> tuple[int, int, int]:
        driver = ToldDriver(**told)
        async with pool_of(driver, max_size=1) as pool:
            reached = asyncio.Event()

            async def hold() -> None:
                async with pool.connection() as conn:
                    await conn.work(seconds=0.1)
                    reached.set()
                    await work(conn)

            task = asyncio.get_running_loop().create_task(hold())
            await reached.wait()
            task.cancel()
            await asyncio.wait((task,))
            assert task.cancelled()
            before = len(driver.opened)
            async with pool.connection() as conn:
                await conn.work()
            return before, len(driver.opened), driver.resets

    return run(main)


def test_an_unrelated_cancellation_costs_no_connection() -> None:
    """A connection with no command in flight is used again, after a reset at most."""
    assert (1, 1, 0) == cancelled_in_block(lambda _: asyncio.sleep(10.0))


def test_a_connection_in_the_middle_of_a_statement_is_never_used_again() -> None:
    """It is closed, and the next caller gets another one."""
    assert (1, 2, 0) == cancelled_in_block(lambda conn: conn.work(seconds=10.0))


@pytest.mark.parametrize("waiting", [False, True], ids=["then another comes", "another waits already"])
def test_a_cancelled_check_costs_no_connection(waiting: bool) -> None:
    """It goes on by itself, and whoever comes next has its answer: nothing is asked twice, nobody connects anew."""

    async def main() -> None:
        driver = ToldDriver()
        loop = asyncio.get_running_loop()
        async with pool_of(driver, max_size=1, check_after=1.0) as pool:
            stage = Stage(pool, driver)
            await use(stage)
            await asyncio.sleep(2.0)
            tasks = [loop.create_task(use(stage)) for _ in range(1 + waiting)]
            await asyncio.sleep(driver.step_s / 2)
            assert 1 == driver.checks
            tasks[0].cancel()
            await asyncio.wait(tasks[:1])
            assert tasks[0].cancelled()
            await asyncio.gather(*tasks[1:], use(stage))
            assert (1, 1) == (driver.checks, len(driver.opened))
            await asyncio.sleep(2.0)
            for _ in range(3):  # one after another is called away
                task = loop.create_task(use(stage))
                await asyncio.sleep(driver.step_s / 4)
                task.cancel()
                await asyncio.wait((task,))
            await asyncio.sleep(1.0)
            async with pool.connection():
                assert (2, 1, {}) == (driver.checks, len(driver.opened), pool.stats().retired)

    run(main)


def test_a_check_whose_own_task_is_cancelled_is_no_cancellation_of_its_caller() -> None:
    """Whoever cancels every task of the loop has cancelled checks and readings too: callers get another connection."""

    async def main(defers: bool) -> None:
        driver = ToldDriver(defers=defers)
        loop = asyncio.get_running_loop()
        async with pool_of(driver, max_size=1, check_after=1.0) as pool:
            async with pool.connection() as conn:
                await conn.work(dirties=defers)
            await asyncio.sleep(0.0 if defers else 2.0)
            task = loop.create_task(use(Stage(pool, driver)))
            await asyncio.sleep(driver.step_s / 2)
            assert 1 == driver.checks + driver.collects
            for other in asyncio.all_tasks() - {task, asyncio.current_task()}:
                other.cancel()
            await task
            assert 2 == len(driver.opened)

    run(lambda: main(defers=False))
    run(lambda: main(defers=True))


def test_a_reading_that_fails_is_no_error_of_its_caller() -> None:
    """The answer to a reset that cannot be read, or never comes, costs the connection; the caller gets another."""

    class Unreadable(ToldDriver):
        async def collect(self, conn: Connection, until: float) -> bool | None:
            if conn.number == 1:
                raise OSError("nothing can be read")
            await asyncio.sleep(1000.0)
            return True

    async def main() -> None:
        driver = Unreadable(defers=True)
        async with pool_of(driver, max_size=1) as pool:
            for number in (1, 2, 3):
                async with pool.connection() as conn:
                    assert number == await conn.work(dirties=True)

    run(main)


def test_a_return_that_is_cancelled_is_completed() -> None:
    """Whoever is cancelled while the pool cleans a connection has given it back, and it is cleaned all the same."""

    async def main() -> None:
        driver = ToldDriver()
        async with pool_of(driver, max_size=1) as pool:
            conn = await pool.connection()
            await conn.work(dirties=True)
            left = conn.close()

            async def await_it() -> None:
                await left

            task = asyncio.get_running_loop().create_task(await_it())
            await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait((task,))
            assert task.cancelled()
            async with pool.connection() as conn:
                assert not conn.dirty
            assert (1, 1) == (len(driver.opened), driver.resets)

    run(main)


def test_a_cancelled_wait_for_the_answer_to_a_reset_costs_no_connection() -> None:
    """It has read nothing of it, so that the next caller can."""

    async def main() -> None:
        driver = ToldDriver(defers=True)
        async with pool_of(driver, max_size=1) as pool:
            async with pool.connection() as conn:
                await conn.work(dirties=True)
            task = asyncio.get_running_loop().create_task(use_dirtily(Stage(pool, driver)))
            await asyncio.sleep(driver.step_s / 2)
            assert 1 == driver.collects
            task.cancel()
            await asyncio.wait((task,))
            assert task.cancelled()
            async with pool.connection() as conn:
                assert (1, False) == (conn.number, conn.dirty)
            assert (1, 1) == (len(driver.opened), driver.resets)

    run(main)


@pytest.mark.skipif(sys.version_info < (3, 11), reason="TaskGroup and asyncio.timeout are new in Python 3.11")
def test_a_task_group_that_fails_gives_everything_back() -> None:
    """The siblings of a task that fails are cancelled in all phases, and the pool is whole afterwards."""

    async def main() -> None:
        driver = ToldDriver()
        async with pool_of(driver, max_size=2) as pool:

            async def work(seconds: float) -> None:
                async with pool.connection() as conn:
                    await conn.work(seconds=seconds, dirties=True)

            async def fail() -> None:
                await asyncio.sleep(1.5)
                raise ValueError("one of them fails")

            with pytest.raises(ExceptionGroup) as caught:  # type: ignore[name-defined]  # noqa: F821  since 3.11
                async with asyncio.TaskGroup() as group:  # type: ignore[attr-defined]  # since 3.11
                    for seconds in (1.0, 5.0, 5.0, 5.0):
                        group.create_task(work(seconds))
                    group.create_task(fail())
            assert [ValueError] == [type(error) for error in caught.value.exceptions]
            await is_whole(pool, driver)

    run(main)


@pytest.mark.skipif(sys.version_info < (3, 11), reason="TaskGroup and asyncio.timeout are new in Python 3.11")
@pytest.mark.parametrize("after", [0.005, 0.015, 0.5, 1.015, 1.025])
def test_a_timeout_around_a_block_is_told_as_a_timeout(after: float) -> None:
    """``asyncio.timeout`` turns its own cancellation into TimeoutError, whatever the pool was doing."""

    async def main() -> None:
        driver = ToldDriver()
        async with pool_of(driver, max_size=2) as pool:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(after):  # type: ignore[attr-defined]  # since 3.11
                    async with pool.connection() as conn:
                        await conn.work(dirties=True)
            await asyncio.sleep(1.0)
            await is_whole(pool, driver)

    run(main)


async def is_whole(pool: AsyncPool[Connection], driver: ToldDriver) -> None:
    """Assert that the pool serves its full size, and that nothing was lost on the way."""
    leases = [await pool.connection(timeout=5.0) for _ in range(pool.stats().max_size)]
    assert len(leases) == len({lease.number for lease in leases})
    for lease in leases:
        await lease.work(seconds=0.01)
        assert not lease.dirty
        await lease.close()
    audit(pool._ledger)
    assert 0 == pool.stats().lost


def test_cancelling_one_dial_concerns_nobody_else() -> None:
    """A task that is cancelled while its dial is in flight leaves the dial to whoever is next in the queue."""

    async def main() -> None:
        driver = ToldDriver()
        driver.open_s = 1.0
        async with pool_of(driver, max_size=1) as pool:

            async def work() -> int:
                async with pool.connection() as conn:
                    number: int = await conn.work(seconds=0.1)
                    return number

            first, second = (asyncio.get_running_loop().create_task(work()) for _ in range(2))
            await asyncio.sleep(0.5)
            first.cancel()
            assert 1 == await second
            assert (1, 1) == (driver.attempts, len(driver.opened))

    run(main)


def test_a_dialer_that_is_cancelled_is_no_error_of_others() -> None:
    """Whoever cancels every task of the loop has cancelled dials too: callers who were not cancelled dial again."""

    async def main() -> None:
        driver = ToldDriver()
        driver.open_s = 1.0
        async with pool_of(driver, max_size=1) as pool:

            async def work() -> int:
                async with pool.connection() as conn:
                    number: int = await conn.work(seconds=0.1)
                    return number

            task = asyncio.get_running_loop().create_task(work())
            await asyncio.sleep(0.5)
            for other in asyncio.all_tasks() - {task, asyncio.current_task()}:
                other.cancel()
            assert 1 == await task
            assert 2 == driver.attempts

    run(main)


def test_a_connection_that_lands_after_its_dial_was_given_up_is_closed() -> None:
    """A driver that does not let itself be cancelled leaves no connection behind."""

    async def main() -> None:
        driver = ToldDriver()
        driver.open_s = 100.0
        driver.stubborn = True
        async with pool_of(driver, max_size=1, connect_timeout=1.0) as pool:
            with pytest.raises(Exception, match=r"not connected within|no connection after"):
                _ = await pool.connection(timeout=3.0)
        assert driver.opened
        assert not driver.left_open

    run(main)


@pytest.mark.parametrize("called_away", [True, False], ids=["cancelled", "too late"])
def test_whoever_waited_in_vain_leaves_nothing_to_the_collector(*, called_away: bool) -> None:
    """An error's traceback holds all that the wait was made of, and none of that may hold the error."""
    errors: list[weakref.ref[BaseException]] = []

    async def wait_in_vain(pool: AsyncPool[Connection]) -> None:
        try:
            async with pool.connection(timeout=10.0):
                pass
        except (asyncio.CancelledError, PoolTimeout) as error:
            errors.append(weakref.ref(error))

    async def main() -> None:
        async with pool_of(ToldDriver(), max_size=1) as pool, pool.connection():
            collect()
            gc.disable()
            try:
                # The first in the queue, and one behind.
                tasks = [asyncio.get_running_loop().create_task(wait_in_vain(pool)) for _ in range(2)]
                await asyncio.sleep(0.0)
                if called_away:
                    for task in tasks:
                        task.cancel()
                await asyncio.wait(tasks)
                assert [None, None] == [error() for error in errors]
            finally:
                gc.enable()

    run(main)
