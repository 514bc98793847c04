"""The compiled part of the asyncio pool: where it is, it is in use; and what is awaited behaves as Python's generator.

The tests of this folder run with it and without; here is what the others cannot see.
"""

from __future__ import annotations

import asyncio
import gc
import inspect
import itertools
import os
import subprocess
import sys
import types
import warnings
from collections.abc import Callable, Coroutine, Generator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from millpond import AsyncLease, AsyncPool, ConnectionReturned, PoolTimeout, WrongEventLoop, _aio_compiled
from millpond.aio import COMPILED, Clockwork
from millpond.aio_lease import Asked
from tests.garbage import collect

from .doubles import Connection, ToldDriver, pool_of, run

ROUNDS = 200  # of whatever may leave something behind: that shows as so many of it
DAYS = 40  # lived through with and without
compiled_only = pytest.mark.skipif(not COMPILED, reason="the compiled part was left out of this run")


def lines_of(script: str, *words: str, wanted: str | None = None, option: str = "-B") -> list[str]:
    """Return what a script says; in a process of its own, with the compiled part if this one has it."""
    if wanted is None:
        wanted = "" if COMPILED else "no"
    environment = {name: value for name, value in os.environ.items() if name != "MILLPOND_COMPILED"}
    if wanted:
        environment["MILLPOND_COMPILED"] = wanted
    run_it = [sys.executable, option, "-c", script, *words]
    done = subprocess.run(
        run_it, check=False, capture_output=True, text=True, timeout=60, env=environment, cwd=Path(__file__).parents[2]
    )
    return (done.stdout + done.stderr).strip().splitlines()


def test_it_is_in_use_where_it_was_asked_for() -> None:
    """What the environment says of it holds: without it the methods are Python's own."""
    expected = types.FunctionType if _aio_compiled.WANTED == "no" else types.MethodDescriptorType
    if _aio_compiled.WANTED in ("no", "require"):
        methods = {AsyncPool: ["connection"], AsyncLease: ["close", "__aexit__"], Asked: ["__await__", "__aenter__"]}
        for kind, names in methods.items():
            for name in names:
                assert isinstance(vars(kind)[name], expected), name
    assert isinstance(vars(AsyncPool)["connection"], types.MethodDescriptorType) is COMPILED


@pytest.mark.parametrize(
    ("wanted", "hidden", "says"),
    [
        ("no", False, "False"),
        ("no", True, "False"),
        ("", True, "False"),
        ("require", True, "ImportError: hidden"),
        (
            "yes",
            False,
            "ImportError: MILLPOND_COMPILED is 'yes' in the environment; it may be 'no' or 'require', or not be set",
        ),
        pytest.param("require", False, "True", marks=compiled_only),
        pytest.param("", False, "True", marks=compiled_only),
    ],
)
def test_what_is_wanted_is_what_one_gets(wanted: str, hidden: bool, says: str) -> None:
    """It is used if it is there, left out where it is not wanted, and its lack is an error where it is required."""
    script = (
        "import sys, importlib.abc\n"
        "class Hiding(importlib.abc.MetaPathFinder):\n"
        "    def find_spec(self, name, path, target=None):\n"
        "        if name == 'millpond._compiled_pair': raise ImportError('hidden')\n"
        f"if {hidden}: sys.meta_path.insert(0, Hiding())\n"
        "import millpond.aio\n"
        "print(millpond.aio.COMPILED)\n"
    )
    assert says == lines_of(script, wanted=wanted)[-1]


@compiled_only
def test_it_says_what_python_says_of_itself() -> None:
    """help() and inspect find the words and the parameters that are written in Python."""
    assert str(inspect.signature(AsyncPool.connection)) == "(self, /, timeout=None)"
    assert "Raises:\n" in (AsyncPool.connection.__doc__ or "")
    assert (AsyncLease.close.__doc__ or "").startswith("Give the connection back, now")


def test_it_says_nothing_where_python_says_nothing() -> None:
    """Without docstrings there are none, and the word "None" is not in their place."""
    script = (
        "from millpond import AsyncLease, AsyncPool\nprint([AsyncPool.connection.__doc__, AsyncLease.close.__doc__])\n"
    )
    assert ["[None, None]"] == lines_of(script, option="-OO")


@compiled_only
def test_what_it_is_told_is_looked_at() -> None:
    """It does not begin to work with a class that has other fields than it knows."""
    pair: Any = sys.modules["millpond._compiled_pair"]
    with pytest.raises(TypeError, match="takes a dictionary of 18 names"):
        pair.learn({})
    names = (
        *("pool", "lease", "asked", "untaken", "slot", "ticket", "connection", "take", "close", "leased", "idle"),
        *("quiet_s", "nothing", "monotonic", "asyncio_loop", "task_in", "pop", "append"),
    )
    with pytest.raises(TypeError, match="pool is missing"):
        pair.learn(dict.fromkeys(("swimming pool", *names[1:]), object))
    with pytest.raises(AttributeError, match="no attribute '_loop'"):
        pair.learn(dict.fromkeys(names, object))
    with pytest.raises(TypeError, match="has no slot _loop"):
        pair.learn(dict.fromkeys(names, types.SimpleNamespace(_loop=None)))
    with pytest.raises(TypeError, match="cannot create"):
        pair.Checkout()


async def held(pool: AsyncPool[Connection]) -> list[AsyncLease[Connection]]:
    """Take all that a pool of two has."""
    return [await pool.connection(), await pool.connection()]


def begun(pool: AsyncPool[Connection]) -> tuple[Generator[Any, Any, AsyncLease[Connection]], asyncio.Future[None]]:
    """Begin a checkout that has to queue; return it, and what it waits for."""
    checkout = pool.connection().__await__()
    waits_for = next(checkout)
    assert 1 == pool.stats().waiting
    return checkout, waits_for


def queued(work: Callable[[AsyncPool[Connection]], Coroutine[Any, Any, None]]) -> None:
    """Run a test with a pool of two connections that are both out, and see that both can be had afterwards."""

    async def main() -> None:
        driver = ToldDriver()
        async with pool_of(driver) as pool:
            both = await held(pool)
            await work(pool)
            assert 0 == pool.stats().waiting
            for lease in both:
                await lease.close()
            for lease in await held(pool):
                await lease.close()
            assert 2 == pool.stats().idle
        assert not driver.left_open

    run(main)


def test_a_checkout_is_an_iterator() -> None:
    """By hand it goes as any that is awaited: it ends with the lease as its value, and stays ended."""

    async def main() -> None:
        async with pool_of(ToldDriver()) as pool:
            await (await pool.connection()).close()
            checkouts: list[Any] = [pool.connection().__await__(), pool.connection().__aenter__()]
            for checkout in checkouts:
                assert iter(checkout) is checkout
                with pytest.raises(StopIteration) as end:
                    next(checkout)
                taken = end.value.value
                assert isinstance(taken, AsyncLease)
                await taken.close()
                with pytest.raises(StopIteration) as end:
                    checkout.send(None)
                assert end.value.value is None
                checkout.close()

    run(main)


def test_a_checkout_that_queues_goes_on_when_it_is_woken() -> None:
    """What it waits for is a future; when that is done the connection is there."""

    async def work(pool: AsyncPool[Connection]) -> None:
        checkout, waits_for = begun(pool)
        assert not waits_for.done()
        pool.resize(3)
        await asyncio.wait([waits_for], timeout=60.0)
        with pytest.raises(StopIteration) as end:
            checkout.send(None)
        await end.value.value.close()
        pool.resize(2)

    queued(work)


def test_closing_a_checkout_leaves_the_queue() -> None:
    """As a coroutine does that is closed; once more is harmless."""

    async def work(pool: AsyncPool[Connection]) -> None:
        checkout, _ = begun(pool)
        checkout.close()
        await asyncio.sleep(0)  # what was dropped is looked for by the loop
        checkout.close()
        with pytest.raises(StopIteration):
            next(checkout)

    queued(work)


def test_a_checkout_that_is_dropped_leaves_the_queue() -> None:
    """Nobody will go on with it; whatever error is being handled is left alone."""

    async def work(pool: AsyncPool[Connection]) -> None:
        checkout, _ = begun(pool)
        with pytest.raises(KeyError, match="theirs"):
            try:
                raise KeyError("theirs")
            finally:
                del checkout
                collect()
        await asyncio.sleep(0)

    queued(work)


def test_an_error_thrown_into_a_checkout_comes_out_of_it() -> None:
    """While it waits; its place is free."""

    async def work(pool: AsyncPool[Connection]) -> None:
        checkout, _ = begun(pool)
        with pytest.raises(ZeroDivisionError, match="thrown"):
            checkout.throw(ZeroDivisionError("thrown"))

    queued(work)


def test_a_checkout_that_a_finalizer_keeps_has_ended() -> None:
    """The collector had ended it by then, wherever it was: begun and parked, in a conversation, or not begun."""

    class Keeper:
        """Keeps from the collector what it was found with."""

        def __init__(self, checkout: Any) -> None:
            self.checkout = checkout
            self.myself = self

        def __del__(self) -> None:
            kept.append(self.checkout)

    kept: list[Any] = []

    async def work(pool: AsyncPool[Connection]) -> None:
        for steps in ([], [None], [None, None]):  # the second of two is parked, the first one holds a conversation
            checkouts = [pool.connection().__await__() for _ in range(2)]
            for checkout, step in zip(checkouts, steps, strict=False):
                checkout.send(step)
            for checkout in checkouts:
                Keeper(checkout)
            del checkouts, checkout
            collect()
            await asyncio.sleep(0)  # what was dropped is looked for by the loop
            assert 2 == len(kept)
            while kept:
                with pytest.raises(StopIteration) as end:
                    kept.pop().send(None)
                assert end.value.value is None

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "'AsyncPool.connection' was never awaited", RuntimeWarning)
        queued(work)


def test_an_error_of_leaving_the_queue_tells_of_the_one_before() -> None:
    """Whoever reads it sees what called the task away, here in a thread with a loop of its own."""

    async def main() -> None:
        async with pool_of(ToldDriver(), max_size=1) as pool:
            lease = await pool.connection()
            first, _ = begun(pool)
            second = pool.connection().__await__()  # behind another one, so that it parks by itself
            next(second)

            async def elsewhere() -> None:
                with pytest.raises(WrongEventLoop) as failed:
                    second.throw(KeyError("called away"))
                assert "KeyError('called away')" == repr(failed.value.__context__)

            with ThreadPoolExecutor(1) as thread:
                thread.submit(asyncio.run, elsewhere()).result(timeout=60)
            first.close()
            await lease.close()

    run(main)


def test_a_connection_granted_to_a_dropped_checkout_goes_to_the_next() -> None:
    """It was woken, and nobody goes on with it: what it was granted is not lost."""

    async def main() -> None:
        driver = ToldDriver()
        async with pool_of(driver, max_size=1) as pool:
            lease = await pool.connection()
            checkout, waits_for = begun(pool)
            await lease.close()
            assert waits_for.done()
            del checkout
            collect()
            async with pool.connection() as conn:
                assert 1 == conn.driver_connection.number
        assert not driver.left_open

    run(main)


def test_a_checkout_that_has_failed_has_ended() -> None:
    """Whoever goes on with it all the same is told that it has ended: there is no connection, and no place to look."""

    async def main() -> None:
        driver = ToldDriver()
        async with pool_of(driver, max_size=1, timeout=1.0) as pool:
            lease = await pool.connection()
            first, _ = begun(pool)
            second = pool.connection().__await__()  # behind another one, so that it parks by itself
            await asyncio.wait([next(second)])
            with pytest.raises(PoolTimeout):
                next(second)
            for _ in range(2):
                with pytest.raises(StopIteration) as end:
                    next(second)
                assert end.value.value is None
            with pytest.raises(KeyError, match="thrown"):
                second.throw(KeyError("thrown"))
            second.close()
            first.close()
            await lease.close()
        assert not driver.left_open

    run(main)


@pytest.mark.parametrize(("how", "arguments"), [("send", [None]), ("throw", [KeyError()]), ("close", [])])
def test_a_checkout_that_is_executing_says_so(how: str, arguments: list[Any]) -> None:
    """Whoever is called by it and has it in hand cannot go on with it as well, nor end it: it is in the middle."""
    refused: list[str] = []

    async def main() -> None:
        driver = ToldDriver()
        checkouts: list[Any] = []

        def is_readable(_: Connection) -> bool:
            for checkout in checkouts:
                with pytest.raises(ValueError, match="already executing"):
                    getattr(checkout, how)(*arguments)
                refused.append(how)
            return False

        driver.is_readable = is_readable
        async with pool_of(driver) as pool:
            await (await pool.connection()).close()
            await asyncio.sleep(1.0)
            checkouts += [pool.connection().__await__()]
            with pytest.raises(StopIteration) as end:
                next(checkouts[0])
            assert 1 == end.value.value.driver_connection.number
            await end.value.value.close()
        assert not driver.left_open

    run(main)
    assert [how] == refused


def test_a_checkout_begins_with_nothing() -> None:
    """There is nobody yet to whom anything could be sent: it has not begun by that, and takes its connection later."""

    async def main() -> None:
        async with pool_of(ToldDriver()) as pool:
            await (await pool.connection()).close()
            checkout = pool.connection().__await__()
            with pytest.raises(TypeError, match="just-started"):
                checkout.send(5)
            assert 1 == pool.stats().idle
            with pytest.raises(StopIteration) as end:
                checkout.send(None)
            await end.value.value.close()

    run(main)


@pytest.mark.filterwarnings("ignore:the .type, exc, tb. signature:DeprecationWarning")
@pytest.mark.parametrize("thrown", [(KeyError("x"),), (KeyError, "x"), (KeyError, KeyError("x"), None)])
def test_an_error_thrown_into_an_ended_checkout_comes_back(thrown: tuple[Any, ...]) -> None:
    """In each of the ways in which one is thrown."""

    async def main() -> None:
        async with pool_of(ToldDriver()) as pool:
            await (await pool.connection()).close()
            checkout: Any = pool.connection().__await__()
            with pytest.raises(StopIteration) as end:
                next(checkout)
            await end.value.value.close()
            with pytest.raises(KeyError, match="x"):
                checkout.throw(*thrown)

    run(main)


@pytest.mark.parametrize("asked", ["is_readable", "is_clean"])
def test_a_driver_that_raises_costs_no_room(asked: str) -> None:
    """A question that fails is the driver's fault: who asked is told, and what it was about is closed in time."""

    async def main() -> None:
        driver = ToldDriver()
        failing = False

        def answer(_: Connection) -> bool:
            if failing:
                raise OSError("no such descriptor")
            return asked == "is_clean"  # it is clean, or not readable: all is well

        setattr(driver, asked, answer)
        async with pool_of(driver, max_size=1) as pool:
            lease = await pool.connection()
            failing = asked == "is_clean"
            if failing:
                with pytest.raises(OSError, match="no such descriptor"):
                    _ = lease.close()
                with pytest.raises(ConnectionReturned):
                    _ = lease.driver_connection
            else:
                await lease.close()
                await asyncio.sleep(1.0)
                failing = True
                with pytest.raises(OSError, match="no such descriptor"):
                    _ = await pool.connection()
            failing = False
            async with pool.connection() as conn:
                assert 2 == conn.driver_connection.number
            await asyncio.sleep(1.0)  # the first one's farewell is said
        assert not driver.left_open

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "'AsyncPool.connection' was never awaited", RuntimeWarning)
        run(main)


def test_a_clock_may_tell_whole_seconds() -> None:
    """Now and then, as one does that is a counter: what is added up stays a number, and nobody waits for nothing."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        told: Any = float
        clockwork = Clockwork(clock=lambda: told(loop.time()), jitter=lambda: 0.0)
        async with AsyncPool(ToldDriver(), max_size=1, clockwork=clockwork) as pool:
            for kinds in ((float, int), (int, float), (int, int)):
                told = kinds[0]
                lease = await pool.connection()
                await asyncio.sleep(2.0)
                told = kinds[1]
                await lease.close()
            assert 6.0 == pytest.approx(pool.stats().busy, abs=1.0)
            told = float
            lease = await pool.connection()
            checkouts = [begun(pool)[0], pool.connection().__await__()]
            waits_for = next(checkouts[1])
            told = int
            checkouts[0].close()
            await lease.close()
            await asyncio.wait([waits_for])
            with pytest.raises(StopIteration) as end:
                next(checkouts[1])
            await end.value.value.close()

    run(main)


IMPORTED_ANEW = """
import asyncio, importlib, sys
import millpond, millpond.aio
from tests.aio.doubles import ToldDriver, pool_of, run

async def use(pool):
    async with pool.connection() as conn:
        pass
    for lease in [await pool.connection(), await pool.connection(3.0)]:
        await lease.close()
    held = [await pool.connection(), await pool.connection()]
    waiting = [asyncio.ensure_future(take(pool)) for _ in range(3)]
    await asyncio.sleep(0)
    for lease in held:
        await lease.close()
    await asyncio.gather(*waiting)

async def take(pool):
    async with pool.connection():
        await asyncio.sleep(0.01)

async def main():
    driver = ToldDriver()
    async with pool_of(driver) as pool:
        await use(pool)
        if sys.argv[1] == "reload":
            importlib.reload(millpond.aio)
        else:
            for name in [name for name in sys.modules if name.split(".")[0] in ("millpond", "tests")]:
                del sys.modules[name]
        doubles = importlib.import_module("tests.aio.doubles")
        doubles.AsyncPool = importlib.import_module("millpond.aio").AsyncPool
        other_driver = doubles.ToldDriver()
        async with doubles.pool_of(other_driver) as other:
            assert type(other) is not type(pool)
            await use(pool)
            await use(other)
            await use(pool)
    assert not driver.left_open and not other_driver.left_open
    print("both work")

run(main)
"""


@pytest.mark.parametrize("how", ["reload", "forget"])
def test_a_pool_outlives_its_module(how: str) -> None:
    """Imported anew there are other classes: pools of these work, and so do pools of those that were there before."""
    assert "both work" == lines_of(IMPORTED_ANEW, how)[-1]


OTHER_INTERPRETER = """
import sys
work = f"import sys; sys.path[:] = {sys.path!r}; import millpond.aio; print(millpond.aio.COMPILED, flush=True)"
if sys.argv[1] == "afterwards":
    exec(work)
if sys.version_info >= (3, 13):
    import _interpreters as interpreters
    another = interpreters.create("legacy")
    failed = interpreters.exec(another, work)
else:
    import _xxsubinterpreters as interpreters
    another = interpreters.create(isolated=False)
    failed = interpreters.run_string(another, work)
assert failed is None, failed
interpreters.destroy(another)
exec(work)
"""


@compiled_only
@pytest.mark.parametrize("when", ["before", "afterwards"])
def test_another_interpreter_does_with_python(when: str) -> None:
    """The main one has the compiled part, whoever comes first; asyncio goes on when the other one has ended."""
    expected = {"before": ["False", "True"], "afterwards": ["True", "False", "True"]}
    assert expected[when] == lines_of(OTHER_INTERPRETER, when)


OTHER_SOURCES = """
import sys, types
pair = types.ModuleType("millpond._compiled_pair")
pair.learn = lambda names: len(names) + None  # as the C module says it: TypeError
sys.modules["millpond._compiled_pair"] = pair
import millpond.aio
print(millpond.aio.COMPILED)
"""


def test_what_was_made_of_other_sources_is_left_out() -> None:
    """An installation that was not made anew does with Python, unless the compiled part is required."""
    assert ["False"] == lines_of(OTHER_SOURCES, wanted="")
    expected = "ImportError: what is compiled was made of other sources than these: install millpond again"
    assert expected == lines_of(OTHER_SOURCES, wanted="require")[-1]


def test_nothing_is_left_behind() -> None:
    """Taken, queued, cancelled, dropped, thrown at: in the end no more is there than before, or is held."""

    async def use(pool: AsyncPool[Connection]) -> None:
        async with pool.connection():
            await asyncio.sleep(0)

    async def go_round(pool: AsyncPool[Connection]) -> None:
        await asyncio.sleep(1.0)  # not quiet any more: the driver is asked
        both = [await pool.connection(5.0), await pool.connection()]
        tasks = [asyncio.ensure_future(use(pool)) for _ in range(4)]
        await asyncio.sleep(0)
        tasks[1].cancel()
        dropped, closed, hit = (pool.connection().__await__() for _ in range(3))
        for checkout in (dropped, closed, hit):
            next(checkout)
        closed.close()
        with pytest.raises(ZeroDivisionError):
            hit.throw(ZeroDivisionError())
        del dropped
        for lease in both * 2:  # the second time does nothing
            await lease.close()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def count(pool: AsyncPool[Connection]) -> tuple[int, int]:
        for _ in range(ROUNDS):
            await go_round(pool)
        await asyncio.sleep(2.0)  # their time-outs are over
        collect()
        return sys.getallocatedblocks(), sum(map(sys.getrefcount, [*gc.get_objects(), None, False, True]))

    async def main() -> list[tuple[int, int]]:
        loop = asyncio.get_running_loop()
        clockwork = Clockwork(clock=lambda: loop.time() + 0.0, jitter=lambda: 0.0)  # another object each time
        driver = ToldDriver()
        driver.is_readable = driver.dead.__contains__
        async with AsyncPool(driver, max_size=2, timeout=1.0, clockwork=clockwork) as pool:
            return [await count(pool) for _ in range(4)]

    counts = run(main)
    more = [(blocks - before[0], references - before[1]) for before, (blocks, references) in itertools.pairwise(counts)]
    assert min(blocks for blocks, _ in more) < ROUNDS / 2, more  # caches grow now and then, and not each time
    assert min(references for _, references in more) < ROUNDS / 2, more  # to what lives as long as the pool, too


def days_of(wanted: str) -> subprocess.Popen[str]:
    """Begin a process that lives through some random days with the compiled part or without it."""
    environment = {**os.environ, "MILLPOND_COMPILED": wanted, "PYTHONHASHSEED": "0"}
    words = [sys.executable, "-m", "tests.aio.random_days", "0", str(DAYS)]
    return subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, cwd=Path(__file__).parents[2]
    )


@compiled_only
def test_random_days_are_the_same_without_it() -> None:
    """Who gets which connection, when, or is told what; numbers, holders, sites, warnings and events: line by line."""
    python, compiled = days_of("no"), days_of("require")
    try:
        (told_by_python, python_errors), (told, errors) = (
            python.communicate(timeout=120),
            compiled.communicate(timeout=120),
        )
    finally:
        python.kill()
        compiled.kill()
    assert (0, "", 0, "") == (python.returncode, python_errors, compiled.returncode, errors)
    for expected, line in zip(told_by_python.splitlines(), told.splitlines(), strict=True):
        assert expected == line
    assert DAYS == told.count("\nday ") + 1
    assert told.count(" has ") > DAYS
