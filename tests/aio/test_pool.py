"""The asynchronous pool: what a caller sees, the loop it belongs to, and what is left when it is over."""

from __future__ import annotations

import asyncio
import pickle
import sqlite3
import subprocess
import sys
import threading
import tracemalloc
import warnings
from collections import Counter
from collections.abc import AsyncGenerator, Callable
from typing import Any

import pytest

import millpond
from millpond import (
    AsyncPool,
    ConnectionReturned,
    InvalidSetting,
    LeaseDropped,
    PoolClosed,
    PoolTimeout,
    TooManyWaiting,
    UncommittedWork,
    WrongEventLoop,
)
from millpond.observer import Event
from tests.garbage import collect

from .doubles import BadPassword, Connection, ServerGone, ToldDriver, pool_of, run


def test_importing_millpond_pulls_in_no_asyncio() -> None:
    """Only who asks for an asynchronous name imports asyncio, and no driver."""
    script = (
        "import sys, millpond; assert 'asyncio' not in sys.modules; millpond.AsyncPool, millpond.AsyncLease; "
        "assert 'asyncio' in sys.modules; assert not {'asyncmy', 'aiomysql', 'aiosqlite'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)
    assert {"AsyncPool", "AsyncLease"} <= set(dir(millpond))
    with pytest.raises(AttributeError, match="has no attribute 'AsyncPond'"):
        _ = millpond.AsyncPond


def test_a_first_dial_that_takes_too_long_says_so() -> None:
    """No address that answers, as far as anybody knows: the error names the setting that was not enough."""

    async def main() -> None:
        driver = ToldDriver()
        driver.open_s = 3600.0
        async with pool_of(driver, connect_timeout=3.0, timeout=60.0) as pool:
            with pytest.raises(TimeoutError, match=r"^not connected within 3 s \(connect_timeout\)$"):
                _ = await pool.connection()

    run(main)


def test_a_connection_is_lent_and_lent_again() -> None:
    """A block and a pair by hand use the same connection, one after the other."""

    async def main() -> None:
        driver = ToldDriver()
        async with pool_of(driver) as pool:
            async with pool.connection() as conn:
                assert 1 == await conn.work()
                assert conn.driver_connection is driver.opened[0]
            by_hand = await pool.connection()
            assert 1 == by_hand.number
            by_hand.label = "set through the lease"  # type: ignore[attr-defined]  # forwarded
            await by_hand.close()
            await by_hand.close()
            async with await pool.connection() as conn:
                assert "set through the lease" == conn.label
                await pool.release(conn)
            stats = pool.stats()
            assert (3, 1, 0, 1) == (stats.uses, stats.opened, stats.leased, stats.idle)
        assert not driver.left_open

    run(main)


def test_a_lease_says_how_it_is_used() -> None:
    """Used before it was awaited, or after it was given back, it says what to do, and where."""

    async def main() -> None:
        async with pool_of(ToldDriver()) as pool:
            early = pool.connection()
            assert "<millpond lease, not awaited yet>" == repr(early)
            with pytest.raises(ConnectionReturned, match="has not been taken yet: write `async with"):
                _ = early.number
            await early.close()
            conn = await pool.connection()
            assert "<millpond lease of <connection 1>>" == repr(conn)
            await conn.close()
            with pytest.raises(ConnectionReturned, match=r"no longer yours; it was given back at .*test_pool\.py"):
                _ = conn.number
            assert "<millpond lease, given back>" == repr(conn)
            assert 0 == pool.stats().leased

    run(main)


def test_a_lease_that_is_never_awaited_is_reported() -> None:
    """Nothing was taken; it is said in Python's words for a coroutine that was forgotten."""

    async def main() -> None:
        async with pool_of(ToldDriver()) as pool:
            with pytest.warns(RuntimeWarning, match=r"'AsyncPool\.connection' was never awaited"):
                drop([pool.connection()])
            assert (0, 0) == (pool.stats().size, pool.stats().waiting)

    run(main)


@pytest.mark.filterwarnings("error")
def test_a_lease_is_taken_once() -> None:
    """Two tasks cannot await the same one; closed before that, it takes nothing and nobody is warned."""

    async def main() -> None:
        async with pool_of(ToldDriver()) as pool:
            shared = pool.connection()
            taking = asyncio.ensure_future(shared)
            await asyncio.sleep(0)
            with pytest.raises(RuntimeError, match="was awaited already"):
                _ = await shared
            with pytest.raises(RuntimeError, match="was awaited already"):
                async with shared:
                    pass
            assert shared is await taking
            assert shared is await shared
            await shared.close()
            unused = pool.connection()
            await unused.close()
            drop([unused])
            del unused
            assert (1, 0) == (pool.stats().size, pool.stats().leased)

    run(main)


def test_deadlines_hold_in_whatever_order_they_come() -> None:
    """Callers behind others with longer or shorter patience are told in their own time, also when some leave early."""

    async def main() -> None:
        async with pool_of(ToldDriver(), max_size=1) as pool:
            loop = asyncio.get_running_loop()
            ended: dict[float, float] = {}

            async def wait(seconds: float) -> None:
                with pytest.raises(PoolTimeout):
                    _ = await pool.connection(timeout=seconds)
                ended[seconds] = loop.time() - began

            async with pool.connection():
                began = loop.time()
                tasks = [asyncio.ensure_future(wait(seconds)) for seconds in (5.0, 3.0, 9.0, 8.0, 1.0, 7.0)]
                impatient = [asyncio.ensure_future(wait(seconds)) for seconds in (2.0, 6.0, 10.0)]
                await asyncio.sleep(0.5)
                for task in impatient:
                    task.cancel()
                await asyncio.wait([*tasks, *impatient])
            assert [1.0, 3.0, 5.0, 7.0, 8.0, 9.0] == list(ended)
            assert ended == {seconds: pytest.approx(seconds, abs=0.01) for seconds in ended}
            assert 0 == pool.stats().waiting

    run(main)


def test_no_timer_outlives_the_pool() -> None:
    """Whoever waited has set one, which is let be when the pool is closed."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        async with pool_of(ToldDriver(), max_size=1, timeout=3600.0) as pool:
            first = await pool.connection()
            second = asyncio.ensure_future(pool.connection())
            await asyncio.sleep(0)
            await first.close()
            await (await second).close()
        assert [] == [timer for timer in loop._scheduled if not timer.cancelled()]  # type: ignore[attr-defined]

    run(main)


def test_a_pool_has_no_more_attributes_than_are_read_fast() -> None:
    """From the 30th on CPython 3.12 looks each of them up in a dict."""
    assert 29 >= len(vars(AsyncPool(ToldDriver())))


def test_who_waits_too_long_is_told_who_holds_what() -> None:
    """The message names the task that holds a connection, and where it took it."""

    async def main() -> list[Event]:
        events: list[Event] = []
        async with pool_of(ToldDriver(), max_size=1, observer=events.append) as pool:
            task = asyncio.current_task()
            assert task is not None
            task.set_name("the hoarder")
            async with pool.connection():
                with pytest.raises(PoolTimeout, match=r"after 2 s: pool exhausted .*the hoarder for 2\.0 s, taken at"):
                    _ = await pool.connection(timeout=2.0)
                with pytest.raises(PoolTimeout) as caught:
                    _ = await pool.connection(timeout=0)
                assert "the hoarder" == caught.value.holders[0].thread
                assert isinstance(caught.value, sqlite3.OperationalError)
                assert PoolTimeout is type(pickle.loads(pickle.dumps(caught.value)))
            assert (2, 0) == (pool.stats().timeouts, pool.stats().waiting)
        return events

    assert ["Opened", "TimedOut", "TimedOut", "Retired"] == [type(event).__name__ for event in run(main)]


@pytest.mark.parametrize("timeout", [-1, "5", float("nan")])
def test_a_wrong_timeout_is_refused_and_costs_nothing(timeout: Any) -> None:
    """Also while a connection is idle."""

    async def main() -> None:
        async with pool_of(ToldDriver()) as pool:
            async with pool.connection():
                pass
            with pytest.raises(InvalidSetting, match="timeout="):
                _ = await pool.connection(timeout=timeout)
            assert (1, 0) == (pool.stats().idle, pool.stats().lost)

    run(main)


def test_a_full_queue_turns_callers_away() -> None:
    """``max_waiting`` is kept, and nobody waits in vain for it."""

    async def main() -> None:
        async with pool_of(ToldDriver(), max_size=1, max_waiting=0) as pool:
            async with pool.connection():  # there is room for it: nobody's return is waited for
                with pytest.raises(TooManyWaiting):
                    _ = await pool.connection()

    run(main)


@pytest.mark.parametrize(("error", "seen"), [(ServerGone("refused"), ServerGone), (BadPassword("no"), BadPassword)])
def test_until_a_dial_has_succeeded_the_driver_speaks_for_itself(
    error: sqlite3.OperationalError, seen: type[BaseException]
) -> None:
    """What waiting cannot mend rises at once, unchanged."""

    async def main() -> None:
        driver = ToldDriver()
        driver.failing = error
        async with pool_of(driver) as pool:
            with pytest.raises(seen):
                _ = await pool.connection()

    run(main)


def test_an_outage_is_waited_out() -> None:
    """After the first success callers wait inside their deadlines until the server is back."""

    async def main() -> None:
        driver = ToldDriver()
        async with pool_of(driver, max_size=1) as pool:
            async with pool.connection():
                pool.drain()
            driver.failing = ServerGone("refused")
            asyncio.get_running_loop().call_later(5.0, setattr, driver, "failing", None)
            async with pool.connection(timeout=30.0) as conn:
                assert 2 == conn.number
            with pytest.raises(PoolTimeout):
                async with pool.connection():
                    _ = await pool.connection(timeout=0.5)

    run(main)


def test_drain_resize_and_wait() -> None:
    """The sizes are obeyed, and a drained pool serves new connections."""

    async def main() -> None:
        driver = ToldDriver()
        async with pool_of(driver, max_size=3, min_idle=2) as pool:
            await pool.wait()
            assert 2 == pool.stats().idle
            pool.drain()
            await asyncio.sleep(1.0)
            assert (4, 2) == (len(driver.opened), len(driver.closed))
            pool.resize(1, 0)
            await asyncio.sleep(1.0)
            assert 1 == pool.stats().size
            with pytest.raises(InvalidSetting):
                pool.resize(0)
        with pytest.raises(PoolClosed):
            await pool.wait()
        with pytest.raises(PoolClosed):
            _ = await pool.connection()

    run(main)


def test_idle_connections_age() -> None:
    """They are checked after a while, retired after a longer one, and replaced at the end of their life."""

    async def main() -> None:
        driver = ToldDriver()
        async with pool_of(driver, check_after=10.0, idle_timeout=60.0, max_lifetime=100.0) as pool:
            async with pool.connection():
                pass
            await asyncio.sleep(35.0)
            assert 3 == driver.checks
            await asyncio.sleep(60.0)
            assert (1, 0) == (len(driver.closed), pool.stats().size)

    run(main)


def test_an_unreadable_check_costs_the_connection_alone() -> None:
    """A check that fails is followed by another connection, within the caller's deadline."""

    async def main() -> None:
        driver = ToldDriver()
        async with pool_of(driver, check_after=1.0, idle_timeout=60.0, check_timeout=1.0) as pool:
            async with pool.connection():
                pass
            driver.step_s = 100.0  # the check is not answered
            await asyncio.sleep(1.5)
            async with pool.connection() as conn:
                assert 2 == conn.number
            driver.step_s = 0.0

    run(main)


def test_tasks_share_connections_evenly() -> None:
    """Twenty tasks on two connections, each asking again at once, get equal shares."""

    async def main() -> Counter[int]:
        shares: Counter[int] = Counter()
        async with pool_of(ToldDriver(), max_size=2, timeout=None) as pool:
            loop = asyncio.get_running_loop()
            until = loop.time() + 1000.0

            async def work(number: int) -> None:
                while loop.time() < until:
                    async with pool.connection() as conn:
                        await conn.work(seconds=0.1)
                        shares[number] += 1

            await asyncio.gather(*(work(number) for number in range(20)))
        return shares

    shares = run(main)
    assert 20 == len(shares)
    assert max(shares.values()) <= 1.02 * min(shares.values())


# -- what a return needs ---------------------------------------------------------------------------------------------
@pytest.mark.parametrize("defers", [False, True])
def test_a_dirty_session_is_cleaned_awaited_or_not(defers: bool) -> None:
    """``close()`` does its work when it is called."""

    async def main() -> None:
        driver = ToldDriver(defers=defers)
        async with pool_of(driver, max_size=1) as pool:
            conn = await pool.connection()
            await conn.work(dirties=True)
            conn.close()  # type: ignore[unused-awaitable]  # that is the test
            async with pool.connection() as conn:
                assert not conn.dirty
            assert (1, 1) == (driver.resets, len(driver.opened))

    run(main)


def test_a_reset_that_fails_costs_the_connection() -> None:
    """And nothing else; nobody is told but the statistics."""

    async def main() -> None:
        driver = ToldDriver()
        async with pool_of(driver, max_size=1) as pool:
            async with pool.connection() as conn:
                await conn.work(dirties=True)
                driver.unresettable.update(driver.opened)
            assert {"unclean": 1} == pool.stats().retired
            async with pool.connection() as conn:
                assert 2 == conn.number

    run(main)


def test_uncommitted_work_is_told_once_per_place() -> None:
    """The pool never commits, and says so."""

    class Forgetful(ToldDriver):
        def uncommitted(self, conn: Any) -> bool:
            return True

    async def main() -> None:
        async with pool_of(Forgetful(tells=False)) as pool:
            with pytest.warns(UncommittedWork, match=r"taken at .*test_pool\.py") as seen:
                for _ in range(3):
                    async with pool.connection():
                        pass
            assert (1, 3) == (len(seen), pool.stats().uncommitted)

    run(main)


def test_a_server_that_became_read_only_is_left() -> None:
    """An error makes it suspect, the server is asked, and every connection to it is replaced."""

    class Demoted(ToldDriver):
        suspect = False

        def role_suspect(self, conn: Any) -> bool:
            return self.suspect

        async def has_lost_role(self, conn: Any, until: float) -> bool:
            await asyncio.sleep(self.step_s)
            return True

    async def main() -> None:
        driver = Demoted()
        async with pool_of(driver) as pool:
            first, second = await pool.connection(), await pool.connection()
            await second.close()
            await first.work(dirties=True)  # an error always leaves dirt
            driver.suspect = True
            await first.close()
            driver.suspect = False
            assert {"role": 2} == pool.stats().retired
            async with pool.connection() as conn:
                assert 3 == conn.number

    run(main)


# -- dropped ---------------------------------------------------------------------------------------------------------
def test_a_dropped_lease_is_recovered_and_reported() -> None:
    """The connection is closed, its room is free at once, and the place it was taken at is named."""

    async def main() -> None:
        driver = ToldDriver()
        async with pool_of(driver, max_size=1) as pool:
            conn = await pool.connection()
            with pytest.warns(LeaseDropped, match=r"taken at .*test_pool\.py.* was dropped"):
                del conn
                collect()
                async with pool.connection(timeout=1.0) as conn:
                    assert 2 == conn.number
            assert (1, 1) == (pool.stats().dropped, len(driver.closed))

    run(main)


def drop(what: list[Any]) -> None:
    """Forget something; cycles are collected."""
    what.clear()
    collect()


def test_a_task_that_is_collected_is_recovered_and_reported() -> None:
    """The loop forgets a task that nothing can wake; the connection that it held is closed, and its room is free."""

    async def main() -> None:
        driver = ToldDriver()
        loop = asyncio.get_running_loop()
        complaints: list[Any] = []
        loop.set_exception_handler(lambda _, context: complaints.append(context["message"]))
        async with pool_of(driver, max_size=1) as pool:
            reached = asyncio.Event()

            async def hold() -> None:
                async with pool.connection() as conn:
                    await conn.work(dirties=True)
                    reached.set()
                    await loop.create_future()  # nobody else knows it

            tasks = [loop.create_task(hold())]
            await reached.wait()
            tasks.clear()
            with pytest.warns(LeaseDropped, match=r"taken at .*test_pool\.py"):
                collect()
                async with pool.connection(timeout=5.0) as conn:
                    assert (2, False) == (conn.number, conn.dirty)
            assert complaints == ["Task was destroyed but it is pending!"]
            assert 1 == pool.stats().dropped

    run(main)


@pytest.mark.parametrize("busy", [False, True], ids=["between statements", "in a statement"])
def test_a_coroutine_that_is_closed_gives_its_connection_back(busy: bool) -> None:
    """One that is used by nobody is cleaned and lent again; one in the middle of a statement is closed."""

    async def main() -> None:
        driver = ToldDriver()
        async with pool_of(driver, max_size=1) as pool:
            async with pool.connection():
                pass

            async def hold() -> AsyncGenerator[None, None]:
                async with pool.connection() as conn:
                    await conn.work(dirties=True)
                    conn.busy = busy  # type: ignore[attr-defined]  # forwarded
                    yield

            holder = hold()
            await anext(holder)
            await holder.aclose()
            async with pool.connection(timeout=5.0) as conn:
                assert (2 if busy else 1, False) == (conn.number, conn.dirty)
            assert 0 == pool.stats().lost

    run(main)


def test_a_coroutine_that_is_collected_in_the_middle_of_a_step_is_taken_in_later() -> None:
    """The collector closes it wherever it runs; its connection is recovered, and the step is not disturbed."""

    async def main() -> None:
        driver = ToldDriver()
        async with pool_of(driver, max_size=1) as pool:
            async with pool.connection():
                pass

            async def hold() -> None:
                async with pool.connection() as conn:
                    await conn.work(seconds=1000.0)

            holder = hold()
            holder.send(None)
            cycle: list[object] = [holder]
            cycle.append(cycle)
            del holder, cycle
            with pytest.warns(LeaseDropped):
                pool._decide(collect)
                async with pool.connection(timeout=5.0) as conn:
                    assert 2 == conn.number
            assert 1 == pool.stats().dropped

    run(main)


def test_a_coroutine_that_is_dropped_in_the_queue_leaves_it() -> None:
    """Its place goes to the next, and no connection to it."""

    async def main() -> None:
        driver = ToldDriver()
        async with pool_of(driver, max_size=1) as pool:
            async with pool.connection():

                async def wait() -> None:
                    async with pool.connection():
                        pass

                waiting = wait()
                waiting.send(None)
                assert 1 == pool.stats().waiting
                waiting.close()
                await asyncio.sleep(0.01)
                assert 0 == pool.stats().waiting
            async with pool.connection(timeout=5.0) as conn:
                assert 1 == conn.number
            assert 0 == pool.stats().lost

    run(main)


def test_a_lease_dropped_in_another_thread_reaches_the_loop() -> None:
    """A finalizer runs anywhere: it only leaves a note and nudges the loop, which is asleep."""

    async def main() -> None:
        driver = ToldDriver()
        pool = AsyncPool(driver, max_size=1, timeout=20.0)
        async with pool:
            box = [await pool.connection()]
            thread = threading.Thread(target=box.clear)
            with pytest.warns(LeaseDropped):
                asyncio.get_running_loop().call_later(0.05, thread.start)
                async with pool.connection() as conn:
                    assert 2 == conn.number
            thread.join()

    asyncio.run(main())


# -- loops and threads -----------------------------------------------------------------------------------------------
def test_a_pool_made_at_import_time_belongs_to_the_first_loop() -> None:
    """The second loop is told so at once, also when the first is closed; nothing hangs."""
    driver = ToldDriver()
    pool = AsyncPool(driver, max_size=1)

    async def use() -> None:
        async with pool.connection() as conn:
            await conn.work(seconds=0.0)

    loop = asyncio.new_event_loop()
    loop.run_until_complete(use())
    with pytest.raises(WrongEventLoop, match="belongs to the event loop that first used it, not to this one"):
        asyncio.run(use())
    loop.run_until_complete(use())
    loop.run_until_complete(awaited(pool.close()))
    loop.close()
    assert not driver.left_open
    with pytest.raises(WrongEventLoop, match="which is closed"):
        asyncio.run(use())
    assert issubclass(WrongEventLoop, millpond.Error)


def test_a_pool_that_is_awaited_where_no_loop_runs_says_so() -> None:
    """As in a forked child: nothing was begun by that, and a loop finds all the room there."""
    driver = ToldDriver()
    pool = AsyncPool(driver, max_size=1)
    for _ in range(2):
        with pytest.raises(RuntimeError, match="no running event loop"):
            next(pool.connection().__await__())
    assert 0 == pool.stats().size

    async def main() -> None:
        async with pool, pool.connection() as conn:
            assert 1 == conn.driver_connection.number

    run(main)
    assert not driver.left_open


@pytest.mark.filterwarnings("error")
def test_a_loop_whose_generators_were_ended_may_go_on() -> None:
    """Its pool closes what it has, and goes on as well, unless it was closed; a pool that comes later says nothing."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        driver, closed = ToldDriver(), AsyncPool(ToldDriver())
        async with pool_of(driver, min_idle=2) as pool, closed:
            await pool.wait()
            await loop.shutdown_asyncgens()
            assert not driver.left_open
            await pool.wait()
            assert 2 == pool.stats().idle
            async with pool.connection() as conn:
                await conn.work()
            assert 1 == pool.stats().uses
            await closed.close()
            with pytest.raises(PoolClosed):
                _ = await closed.connection()
            async with AsyncPool(driver) as late, late.connection() as conn:
                await conn.work()
        with pytest.raises(PoolClosed):
            _ = await pool.connection()
        assert not driver.left_open

    run(main)


async def awaited(left: Any) -> None:
    """Await what can only be awaited."""
    await left


def test_another_thread_is_told_that_it_is_one() -> None:
    """Every call from a thread that does not run the loop is a clear error, and changes nothing."""

    async def main() -> None:
        driver = ToldDriver()
        async with AsyncPool(driver, max_size=2) as pool:
            conn = await pool.connection()
            calls: list[Callable[[], object]] = [
                pool.drain,
                pool.stats,
                pool.close,
                conn.close,
                conn.discard,
                lambda: pool.resize(5),
                lambda: pool.release(conn),
            ]
            answers: list[BaseException | None] = []

            def call_all() -> None:
                for call in calls:
                    try:
                        call()
                    except WrongEventLoop as error:
                        answers.append(error)

            async def enter() -> None:
                async with pool.connection():
                    pass

            def run_other_loop() -> None:
                try:
                    asyncio.run(enter())
                except WrongEventLoop as error:
                    answers.append(error)

            for target in (call_all, run_other_loop):
                thread = threading.Thread(target=target)
                thread.start()
                await asyncio.get_running_loop().run_in_executor(None, thread.join)
            assert len(calls) + 1 == len(answers)
            assert "call_soon_threadsafe" in str(answers[0])
            assert isinstance(answers[0], sqlite3.InterfaceError)
            await conn.close()
            assert 1 == pool.stats().idle

    asyncio.run(main())


def test_close_is_done_awaited_or_not() -> None:
    """It begins when it is called, and ends by itself."""

    async def main() -> None:
        driver = ToldDriver()
        pool = pool_of(driver)
        conn = await pool.connection()
        pool.close()  # type: ignore[unused-awaitable]  # that is the test
        with pytest.raises(PoolClosed):
            _ = await pool.connection()
        await conn.close()
        await asyncio.sleep(1.0)
        assert len(driver.opened) == driver.farewells == 1

    run(main)


def test_two_who_close_do_not_wait_for_each_other() -> None:
    """Both are done when the last connection is given back and its goodbye is said."""

    async def main() -> None:
        driver = ToldDriver()
        pool = pool_of(driver)
        loop = asyncio.get_running_loop()
        conn = await pool.connection()
        first, second = pool.close(), pool.close()
        began_at = loop.time()
        await conn.close()
        await first
        await second
        assert driver.farewells == 1
        assert loop.time() - began_at < 1.0

    run(main)


def test_close_without_a_running_loop_does_what_can_be_done() -> None:
    """Idle connections are closed, with a warning; those that are out are cut, and closed where nobody has them now."""
    for loop_is_closed, expected in ((False, (1, 1)), (True, (0, 2))):
        driver = ToldDriver()
        pool = AsyncPool(driver, max_size=2)
        loop = asyncio.new_event_loop()

        async def use(pool: AsyncPool[Connection] = pool) -> Any:
            first, second = await pool.connection(), await pool.connection()
            await first.close()
            return second

        kept = loop.run_until_complete(use())
        if loop_is_closed:
            loop.close()
        with pytest.warns(ResourceWarning, match="closed while no event loop runs, and 1 of its connections are out"):
            pool.close()  # type: ignore[unused-awaitable]  # that is the test
        assert expected == (len(driver.cuts), len(driver.closed))
        assert "<millpond lease" in repr(kept)
        if not loop_is_closed:
            loop.run_until_complete(kept.close())
            loop.run_until_complete(asyncio.sleep(0))
            assert not driver.left_open
            loop.close()


def test_a_pool_that_is_forgotten_says_so() -> None:
    """Its idle connections are closed when it is collected."""
    driver = ToldDriver()

    async def use() -> None:
        pool = pool_of(driver)
        async with pool.connection():
            pass

    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        run(use)
        collect()
    assert ["was never closed" in str(warning.message) for warning in seen].count(True) == 1
    assert not driver.left_open


def test_what_is_out_for_too_long_is_cut_at_close() -> None:
    """Its holder finds the connection broken, and closing it afterwards is harmless."""

    async def main() -> None:
        driver = ToldDriver()
        pool = pool_of(driver)
        conn = await pool.connection()
        await pool.close(timeout=1.0)
        assert driver.cuts == driver.opened
        await conn.close()
        await asyncio.sleep(1.0)
        assert not driver.left_open

    run(main)


def test_a_close_without_a_time_out_waits_as_long_as_it_takes() -> None:
    """For an hour, if that is how long a connection is out; and what is no time-out leaves the pool open."""

    async def main() -> None:
        driver = ToldDriver()
        pool = pool_of(driver)
        conn = await pool.connection()
        with pytest.raises(millpond.InvalidSetting, match="timeout"):
            await pool.close(timeout="soon")  # type: ignore[arg-type]  # that is what is tried
        closing = asyncio.ensure_future(pool.close(timeout=None))
        await asyncio.sleep(3600.0)
        assert ([], False) == (driver.cuts, closing.done())
        await conn.close()
        await closing
        assert not driver.left_open

    run(main)


def test_dials_run_in_a_copy_of_the_asker_s_context() -> None:
    """A creator that reads context variables sees those of the task that asked."""
    import contextvars

    request: contextvars.ContextVar[str] = contextvars.ContextVar("request")
    seen: list[str] = []

    class Curious(ToldDriver):
        async def open(self, until: float) -> Any:
            seen.append(request.get("none"))
            return await super().open(until)

    async def main() -> None:
        async with pool_of(Curious()) as pool:
            request.set("mine")
            async with pool.connection():
                pass

    run(main)
    assert ["mine"] == seen


@pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks are new in Python 3.12")
def test_eager_tasks_change_nothing() -> None:
    """A loop whose tasks begin at once, inside the call that makes them, runs the same pool."""

    async def main() -> None:
        asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)  # type: ignore[attr-defined]  # 3.12
        driver = ToldDriver()
        async with pool_of(driver, max_size=2) as pool:

            async def work() -> None:
                async with pool.connection() as conn:
                    await conn.work(dirties=True)

            await asyncio.gather(*(work() for _ in range(10)))
            assert 2 == len(driver.opened)
        assert not driver.left_open

    run(main)


# -- many ------------------------------------------------------------------------------------------------------------
def cost_of_waiting(count: int) -> tuple[int, int, int]:
    """Return bytes, calls to queue up and calls to cancel, for so many tasks that wait for one connection."""

    async def main() -> tuple[int, int, int]:
        calls = 0

        def count_call(frame: Any, event: str, arg: Any) -> None:
            nonlocal calls
            calls += event in ("call", "c_call")

        async with pool_of(ToldDriver(), max_size=1, timeout=3600.0) as pool:
            async with pool.connection():

                async def wait() -> None:
                    async with pool.connection():
                        pass

                tracemalloc.start()
                sys.setprofile(count_call)
                loop = asyncio.get_running_loop()
                tasks = [loop.create_task(wait()) for _ in range(count)]
                await asyncio.sleep(0)
                assert count == pool.stats().waiting
                queued, calls = calls, 0
                sys.setprofile(None)
                taken, _ = tracemalloc.get_traced_memory()
                tracemalloc.stop()
                sys.setprofile(count_call)
                for task in tasks:
                    task.cancel()
                await asyncio.wait(tasks)
                sys.setprofile(None)
                assert all(task.cancelled() for task in tasks)
                assert 0 == pool.stats().waiting
        return taken, queued, calls

    return run(main)


def test_waiting_tasks_cost_the_same_each() -> None:
    """Ten times as many tasks in the queue cost ten times the memory and the calls, and so does cancelling them."""
    few, many = cost_of_waiting(200), cost_of_waiting(2000)
    ratios = [large / small for small, large in zip(few, many, strict=True)]
    assert all(ratio < 12 for ratio in ratios), ratios
