"""Checkout and return without contention, beside DBUtils and SQLAlchemy, by hand and by ``with``.

Budgets: bare (``track_use=False``) at most 1/2.5 of DBUtils and 1/6 of SQLAlchemy; with everything on at most 1/1.5 and
1/4.
"""

from __future__ import annotations

import functools

from _peers import SQLAlchemyPool, build, by_hand, by_with, dbutils_pool, in_turns, millpond_pool

ROUNDS, PAIRS = 21, 3000
BUDGETS = {"millpond, bare": (2.5, 6.0), "millpond": (1.5, 4.0)}


def main() -> None:
    """Print times and ratios, and whether the budgets are met."""
    pools = {
        "millpond, bare": millpond_pool(5, track_use=False),
        "millpond": millpond_pool(5),
        "DBUtils": dbutils_pool(5),
        "SQLAlchemy": SQLAlchemyPool(5),
    }
    print(f"{build()}; medians of {ROUNDS} turns of {PAIRS} pairs")
    print(f"{'':16}{'':8}{'us a pair':>10}{'DBUtils / it':>14}{'SQLAlchemy / it':>17}  budgets")
    for how, measure in (("by hand", by_hand), ("with", by_with)):
        times = in_turns({name: functools.partial(measure, pool, PAIRS) for name, pool in pools.items()}, ROUNDS)
        for name, seconds in times.items():
            against = times["DBUtils"] / seconds, times["SQLAlchemy"] / seconds
            budget = BUDGETS.get(name)
            verdict = (
                ""
                if budget is None
                else "met"
                if all(a >= b for a, b in zip(against, budget, strict=True))
                else "MISSED"
            )
            print(f"{name:16}{how:8}{seconds * 1e6:10.2f}{against[0]:14.2f}{against[1]:17.2f}  {verdict}")


if __name__ == "__main__":
    main()
