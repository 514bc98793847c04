"""A program that gevent has patched: fifty greenlets over five connections; prints what it saw, as JSON.

python gevent_child.py '{"before": true, "arguments": {...}}'
"""

from __future__ import annotations

import importlib
import json
import sys
from typing import Any

GREENLETS, STATEMENTS, CONNECTIONS = 50, 6, 5


def main(told: dict[str, Any]) -> None:
    """Patch before millpond is imported, or after it; then use a pool."""
    modules = ["gevent.monkey", "millpond"] if told["before"] else ["millpond", "gevent.monkey"]
    for name in modules:
        module = importlib.import_module(name)
        if name == "gevent.monkey":
            module.patch_all()
    sys.stdout.write(json.dumps(use(importlib.import_module("millpond"), told["arguments"])))


def use(millpond: Any, arguments: dict[str, Any]) -> dict[str, Any]:
    """Have greenlets share a pool; return what was seen."""
    gevent: Any = importlib.import_module("gevent")
    seen = {"right": 0, "inside": 0, "most inside": 0, "ticks": 0, "clean": 0}

    def tick() -> None:
        while True:
            seen["ticks"] += seen["inside"] > 0
            gevent.sleep(0.001)

    def work(number: int) -> None:
        for turn in range(STATEMENTS):
            with pool.connection() as conn:
                seen["inside"] += 1
                seen["most inside"] = max(seen["most inside"], seen["inside"])
                cursor = conn.cursor()
                cursor.execute("SELECT %s + SLEEP(0.01), @a", (number,))
                ((answer, left),) = cursor.fetchall()
                seen["right"] += answer == number
                seen["clean"] += left is None
                if turn % 2:
                    cursor.execute("SET @a = 1")
                seen["inside"] -= 1

    ticking = gevent.spawn(tick)
    with millpond.Pool(importlib.import_module("pymysql"), connect_args=arguments, max_size=CONNECTIONS) as pool:
        gevent.joinall([gevent.spawn(work, number) for number in range(GREENLETS)], timeout=60, raise_error=True)
        seen["opened"] = pool.stats().opened
    ticking.kill()
    return seen


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
