"""The tasks of an asynchronous pool: whose context they run in, and what becomes of them when they are cancelled."""

from __future__ import annotations

import asyncio
import contextvars
import sys

import pytest

from millpond._aio_crew import TaskCrew

from .doubles import Connection, ToldDriver, pool_of, run

NAME = contextvars.ContextVar("NAME", default="nobody")


@pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks are new in Python 3.12")
def test_whoever_dials_within_a_dial_does_so_in_the_same_context() -> None:
    """An eager task runs at once: the dial that it asks for is for the same caller, whose context is entered already.

    That dial was lost, and its room with it until it was overdue.
    """
    seen: list[str] = []

    async def inner() -> None:
        seen.append(f"inner for {NAME.get()}")
        NAME.set("inner")

    async def main() -> None:
        asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)  # type: ignore[attr-defined]  # 3.12
        crew = TaskCrew()
        crew.bind(asyncio.get_running_loop(), lambda: None)
        token = NAME.set("caller")
        asker = contextvars.copy_context()
        NAME.reset(token)

        async def outer() -> None:
            crew.spawn_dial(inner, asker)
            seen.append(f"outer for {NAME.get()}")

        crew.spawn_dial(outer, asker)
        seen.append(f"main for {NAME.get()}")
        crew.forget()

    asyncio.run(main())
    assert ["inner for caller", "outer for caller", "main for nobody"] == seen


@pytest.mark.parametrize("begun", [False, True])
@pytest.mark.parametrize("how", ["a reply that is read", "a role that is asked for", "a reset"])
def test_a_program_that_cancels_every_task_loses_nothing_that_was_given_back(how: str, *, begun: bool) -> None:
    """Whether the pool's task had begun or not: what it was to see to is given up, and no lease is called dropped."""

    class Asking(ToldDriver):
        def may_end_soon(self, conn: Connection) -> bool:
            return how == "a reply that is read"

        async def finish(self, conn: Connection) -> None:
            await asyncio.sleep(self.step_s)

        def role_suspect(self, conn: Connection) -> bool:
            return how == "a role that is asked for"

        async def has_lost_role(self, conn: Connection, until: float) -> bool:
            await asyncio.sleep(self.step_s)
            return False

    async def main() -> None:
        driver = Asking()
        async with pool_of(driver, max_size=2) as pool:
            for _ in range(3):
                conn = await pool.connection()
                await conn.work(dirties=True)
                _ = conn.close()
                if begun:
                    await asyncio.sleep(0)
                for task in asyncio.all_tasks() - {asyncio.current_task()}:
                    task.cancel()
                await asyncio.sleep(1.0)
            leases = [await pool.connection() for _ in range(2)]
            stats = pool.stats()
            assert (2, 0, 0, 0) == (stats.leased, stats.lost, stats.dropped, stats.abandoned)
            for lease in leases:
                _ = lease.close()
        assert not driver.left_open

    run(main)
