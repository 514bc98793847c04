"""Explore the core with seeds, for so many seconds; say what was seen, and how to play a failure again."""

from __future__ import annotations

import argparse
import secrets
import sys
import time
from collections.abc import Iterator, Sequence

from .coverage import Seen
from .planting import REAL, Core
from .seeds import Failure, explore

LAST = 40  # steps of a failing history that are shown
ENOUGH_S = 30.0  # an exploration that was to be shorter need not have been everywhere
SPREAD = 0x9E3779B97F4A7C15  # seeds are so far apart that explorations which begin near each other do not overlap


def main(arguments: Sequence[str] | None = None, core: Core = REAL) -> int:
    """Explore, and return the exit code.

    Args:
        arguments: the command line's; those of this process by default.
        core: what to explore; the real core by default.
    """
    parser = argparse.ArgumentParser(prog="python -m millpond.testing.exploration", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="how long; 60 by default")
    parser.add_argument("--seed", type=int, help="the first seed; a fresh one by default")
    chosen = parser.parse_args(arguments)
    first: int = secrets.randbits(32) if chosen.seed is None else chosen.seed
    print(f"Exploring the core from seed {first} for {chosen.seconds:g} s.", flush=True)
    seen = Seen()
    began_at = time.monotonic()
    for seed in seeds_from(first):
        failure = explore(seed, seen, core)
        if failure is not None:
            print(report(failure), flush=True)
            return 1
        if time.monotonic() - began_at >= chosen.seconds:
            break
    print(seen.table())
    a_second = seen.steps / max(time.monotonic() - began_at, 1e-9)
    told, code = verdict(seen, must_be_complete=chosen.seconds >= ENOUGH_S)
    print(told)
    count = f"{seen.seeds:,}, with {seen.steps:,} steps, {a_second:,.0f} a second"
    print(f"Seeds from {first}: {count}.  No promise was broken.")
    return code


def seeds_from(first: int) -> Iterator[int]:
    """Yield seeds without end; each of them is the first of its own row, so that one number plays a failure again."""
    seed = first
    while True:
        yield seed
        seed = (seed + SPREAD) % 2**63


def verdict(seen: Seen, *, must_be_complete: bool) -> tuple[str, int]:
    """Say what was never seen, and return the exit code that follows."""
    missing = seen.missing()
    if not missing:
        return "Everything that can happen was seen.", 0
    told = "\n  ".join(["Never seen, so nothing is known about it:", *missing])
    if must_be_complete:
        return told, 1
    return f"{told}\nThat is no failure of an exploration as short as this.", 0


def report(failure: Failure) -> str:
    """Return all that there is to say about a failure."""
    story = "\n".join(failure.story[-LAST:])
    return (
        f"{failure.where}\nThe last steps of its history:\n{story}\n\n"
        f"Seed {failure.seed} failed: {failure.error}\nPlay it again: ./run sim --seed {failure.seed}"
    )


if __name__ == "__main__":
    sys.exit(main())
