"""A program that forgets to close its pool ends all the same."""

from __future__ import annotations

import subprocess
import sys


def test_a_program_that_forgets_to_close_ends() -> None:
    """The threads of aiosqlite's connections keep nobody."""
    script = (
        "import asyncio, millpond\n"
        "pool = millpond.AsyncPool('sqlite://')\n"
        "async def main():\n"
        "    async with pool.connection() as conn:\n"
        "        await conn.execute('SELECT 1')\n"
        "asyncio.run(main())\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)
