"""The tasks of an asynchronous pool: whose context they run in."""

from __future__ import annotations

import asyncio
import contextvars
import sys

import pytest

from millpond._aio_crew import TaskCrew

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
