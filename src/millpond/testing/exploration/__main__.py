"""Explore the core with seeds, for so many seconds; say what was seen, and how to play a failure again."""

from __future__ import annotations

import argparse
import secrets
import sys
import time
from collections.abc import Sequence

from .coverage import Seen
from .seeds import Failure, explore

LAST = 40  # steps of a failing history that are shown
ENOUGH_S = 10.0  # an exploration shorter than this need not have been everywhere
SPREAD = 0x9E3779B97F4A7C15  # one seed after another, far apart, so that neighbours' explorations do not overlap


def main(arguments: Sequence[str] | None = None) -> int:
    """Explore, and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m millpond.testing.exploration", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="how long; 60 by default")
    parser.add_argument("--seed", type=int, help="the first seed; a fresh one by default")
    chosen = parser.parse_args(arguments)
    first: int = secrets.randbits(32) if chosen.seed is None else chosen.seed
    print(f"exploring the core from seed {first} for {chosen.seconds:g} s; again: ./run sim --seed {first}", flush=True)
    seen = Seen()
    began_at = time.monotonic()
    failure: Failure | None = None
    seed = first
    while failure is None and time.monotonic() - began_at < chosen.seconds:
        failure = explore(seed, seen)
        seed = (seed + SPREAD) % 2**63
    took_s = time.monotonic() - began_at
    if failure is not None:
        print(report(failure), flush=True)
        return 1
    print(seen.table())
    missing = seen.missing()
    if missing and took_s >= ENOUGH_S:
        print("\nnever seen, so nothing is known about it:", *missing, sep="\n  ")
        return 1
    print(
        f"{seen.seeds:,} seeds from {first}, {seen.steps:,} steps, {seen.steps / took_s:,.0f} a second: all that must hold holds"
    )
    return 0


def report(failure: Failure) -> str:
    """Return all that there is to say about a failure."""
    story = "\n".join(failure.story[-LAST:])
    return (
        f"{failure.where}\nthe last steps of its history:\n{story}\n\n"
        f"seed {failure.seed} failed: {failure.error}\nplay it again: ./run sim --seed {failure.seed}"
    )


if __name__ == "__main__":
    sys.exit(main())
