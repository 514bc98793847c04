"""Hosts that are not what a pool would like: patched by gevent, without threads or GIL, with an event loop."""

from __future__ import annotations

import asyncio
import dataclasses
import warnings
from collections.abc import Callable
from typing import Any

import pytest

import millpond
from millpond.testing.fake_driver import FakeDriver

from .doubles import Host, NullDriver, in_threads, queue_up, run_program, runtime_with, until

# -- gevent ------------------------------------------------------------------------------------------------------------
CROWD = """
from tests.threads.doubles import NullDriver
import time
pool = millpond.Pool(NullDriver(), max_size=1, timeout=20, **settings)
def use(number):
    with pool.connection():
        gevent.sleep(0.01)
    return number
began = time.monotonic()
jobs = [gevent.spawn(use, number) for number in range(5)]
gevent.joinall(jobs, raise_error=True)
print([job.value for job in jobs], time.monotonic() - began < 10)
pool.close()
"""


@pytest.mark.parametrize(
    "order",
    [
        "import millpond\nfrom gevent import monkey\nmonkey.patch_all()\nimport gevent\n",
        "from gevent import monkey\nmonkey.patch_all()\nimport gevent\nimport millpond\n",
    ],
    ids=["millpond first", "gevent first"],
)
@pytest.mark.parametrize("settings", ["{}", "{'dial': 'caller'}"])
def test_gevent_may_patch_before_or_after_the_import(order: str, settings: str) -> None:
    """Greenlets wait for each other, and the hub goes on meanwhile, whatever was imported first."""
    assert "[0, 1, 2, 3, 4] True\n" == run_program(f"{order}settings = {settings}\n{CROWD}")


# -- threads that do not start, or do not run --------------------------------------------------------------------------
def never_runs(work: Callable[[], None]) -> None:
    """Start a thread that never runs, as uWSGI does without ``enable-threads``."""


def refuses(work: Callable[[], None]) -> None:
    """Refuse to start a thread, as a host does that has too many."""
    raise RuntimeError("can't start new thread")


@pytest.mark.parametrize("start", [never_runs, refuses])
def test_callers_dial_for_themselves_where_no_thread_does(start: Callable[..., None]) -> None:
    """A host without threads costs the first caller a moment, and nobody anything after that."""
    driver = NullDriver()
    pool = millpond.Pool(driver, max_size=2, timeout=60, runtime=runtime_with(start=start))
    first, second = pool.connection(), pool.connection()
    assert [1, 2] == [first.number, second.number]
    first.close()
    second.close()
    assert [2, 1] == sorted({pool.connection().number, pool.connection().number}, reverse=True)
    pool.close(timeout=0)


@pytest.mark.parametrize("start", [never_runs, refuses])
def test_connections_are_closed_where_no_thread_does_it(start: Callable[..., None]) -> None:
    """What a pool gives up is closed by whoever notices, and close() does not wait for threads that never run."""
    driver = NullDriver()
    pool = millpond.Pool(driver, max_size=2, timeout=60, reset="none", runtime=runtime_with(start=start))
    pool.connection().close()
    pool.drain()
    assert [1] == [conn.number for conn in driver.closed]
    pool.connection().close()
    pool.close()
    assert not driver.left_open


def test_a_host_that_refuses_for_a_while_is_asked_again() -> None:
    """A thread that could not be started costs one dial in the caller's own thread; the pool serves all."""
    refused: list[int] = []
    host = runtime_with()

    def start(work: Callable[[], None]) -> None:
        if len(refused) < 2:
            refused.append(1)
            raise RuntimeError("can't start new thread")
        host.start(work)

    driver = NullDriver()
    with millpond.Pool(driver, max_size=4, timeout=60, runtime=runtime_with(start=start)) as pool:
        leases = [pool.connection() for _ in range(4)]
        assert 4 == len({lease.number for lease in leases})
        for lease in leases:
            lease.close()
    assert not driver.left_open


def test_a_clock_that_could_not_be_started_is_asked_for_again() -> None:
    """A host that has no thread to spare once leaves a pool without a clock no longer than until the next dial."""
    host, driver = Host(), NullDriver()
    refusing = True

    def start(work: Callable[[], None]) -> None:
        if refusing:
            raise RuntimeError("can't start new thread")
        host.start(work)

    runtime = dataclasses.replace(host.runtime(), start=start)
    pool = millpond.Pool(driver, max_size=2, idle_timeout=60, runtime=runtime)

    def use_two() -> None:
        with pool.connection(), pool.connection():
            pass

    host.run(lambda: pool.connection().close())
    refusing = False
    host.run(use_two)
    host.advance(200.0, step=1.0)
    assert 0 == pool.stats().size
    host.run(pool.close)


# -- without the GIL ---------------------------------------------------------------------------------------------------
def test_without_the_gil_nothing_is_done_outside_the_lock() -> None:
    """An interpreter that says it runs without a GIL is believed when a pool is made: each pair takes the lock."""
    text = """
    import sys
    sys._is_gil_enabled = lambda: {0}
    import millpond, _thread, dataclasses
    from millpond._crew import Runtime
    from tests.threads.doubles import NullDriver
    taken = 0
    class Lock:
        def __init__(self):
            self.lock = _thread.allocate_lock()
            self.acquire, self.release, self.locked = self.lock.acquire, self.lock.release, self.lock.locked
        def __enter__(self):
            global taken
            taken += 1
            return self.lock.__enter__()
        def __exit__(self, *exc):
            self.lock.release()
    runtime = dataclasses.replace(Runtime.of_host(), new_lock=Lock)
    pool = millpond.Pool(NullDriver(), max_size=1, reset="none", runtime=runtime, dial="caller")
    pool.connection().close()
    before = taken
    for _ in range(10):
        pool.connection().close()
    print(taken - before >= 20, taken - before)
    """
    assert "False 0\n" == run_program(text.format(True))
    assert run_program(text.format(False)).startswith("True ")


# -- with an event loop ------------------------------------------------------------------------------------------------
def test_waiting_in_a_thread_that_runs_an_event_loop_is_warned_about_once(driver: FakeDriver) -> None:
    """The loop stands still meanwhile; the warning stands at the caller's line, says what to use, and comes once."""
    pool = millpond.Pool(driver, max_size=1)

    async def ask(timeout: float) -> None:
        pool.connection(timeout=timeout).close()

    async def ask_in_vain() -> None:
        for _ in range(2):
            with pytest.raises(millpond.PoolTimeout):
                await ask(0.001)

    pool.connection().close()
    asyncio.run(ask(60.0))  # nothing to wait for: nothing to warn of, which would have been the one time
    lease = pool.connection()
    with pytest.warns(millpond.EventLoopBlocked, match=r"AsyncPool.*to_thread") as told:
        asyncio.run(ask_in_vain())
    assert [__file__] == [warning.filename for warning in told]
    lease.close()
    pool.close()


def test_threads_beside_an_event_loop_are_not_warned_about(driver: FakeDriver) -> None:
    """A loop in another thread goes on while this one waits."""
    pool = millpond.Pool(driver, max_size=1, timeout=60)

    async def stand_by() -> list[Any]:
        lease = await asyncio.to_thread(pool.connection)
        waiting = asyncio.create_task(asyncio.to_thread(in_threads, lambda: pool.connection().close()))
        await asyncio.to_thread(until, lambda: pool.stats().waiting, "a caller in the queue")
        lease.close()
        return await waiting

    with warnings.catch_warnings(record=True) as told:  # made errors they would be logged
        warnings.simplefilter("always")
        assert [None] == asyncio.run(stand_by())
    assert [] == told
    pool.close()


# -- sizes -------------------------------------------------------------------------------------------------------------
def test_a_pool_at_rest_has_no_thread_but_its_clock(driver: FakeDriver) -> None:
    """Dialers are started when they are needed, and end."""
    started: list[Callable[[], None]] = []
    running: list[Callable[[], None]] = []
    host = runtime_with()

    def start(work: Callable[[], None]) -> None:
        def noted() -> None:
            running.append(work)
            try:
                work()
            finally:
                running.remove(work)

        started.append(work)
        host.start(noted)

    pool = millpond.Pool(driver, max_size=1, runtime=runtime_with(start=start))
    assert [] == started
    lease = pool.connection()
    (thread,) = queue_up(pool, [lambda: pool.connection().close()])
    lease.close()
    thread.join(10)
    until(lambda: len(running) <= 1, "a pool at rest")
    pool.close()
    until(lambda: not running, "the end of its clock")
