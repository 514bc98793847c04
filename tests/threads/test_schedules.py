"""Schedules stepped through the real thread shell, and proof that they would find its typical faults.

The mutants are copies of the package with one line replaced, explored in a process of their own; the real shell must
hold under every schedule that is tried here, each mutant must be found.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import millpond

from .schedules import SCENARIOS, Scenario, Schedule, World, explore, play, return_and_checkout

LIMIT = 200  # schedules a scenario: those with one event, and a sample of those with two
ROOT = Path(__file__).parents[2]
PACKAGE = Path(millpond.__file__).parent

MUTANTS = {
    "no second look": (
        "lease.py",
        "if tickets or now >= slot.expires_at:\n                    pool._look_again(slot)",
        "if False:\n                    pool._look_again(slot)",
        ("return_and_checkout", "return_and_close", "drain_and_return"),
    ),
    "the second look does not see a drain": (
        "lease.py",
        "if tickets or now >= slot.expires_at:",
        "if tickets:",
        ("return_and_close", "drain_and_return"),
    ),
    "the second look does not see a caller": (
        "lease.py",
        "if tickets or now >= slot.expires_at:",
        "if now >= slot.expires_at:",
        ("return_and_checkout",),
    ),
    "a lease is claimed in two steps": (
        "lease.py",
        "del self._slot\n        except (AttributeError, ConnectionReturned):",
        "del self._slot\n        except AttributeError:\n            pass\n        except ConnectionReturned:",
        ("double_close",),
    ),
    "a checkout does not look at the end of life": (
        "threads.py",
        "and now < slot.expires_at\n",
        "and True\n",
        ("drain_and_return",),
    ),
    "a connection is closed by whoever sees the notice": (
        "threads.py",
        "if claim(self._outbox, notice):\n                self._notify(*notice)",
        "self._notify(*notice)\n            claim(self._outbox, notice)",
        ("drain_and_return", "drain_and_checkout", "return_and_close"),
    ),
    "a notice is removed before it is performed, and lost on the way": (
        "threads.py",
        "notice[1].waiter.wake()\n                claim(outbox, notice)",
        "claim(outbox, notice)",
        ("return_and_checkout",),
    ),
    "nobody looks at what was shelved before a ticket was seen": (
        "_core/ledger.py",
        "self.match(now)  # a shell may have shelved a slot before it could see this ticket\n",
        "pass\n",
        ("return_and_checkout",),
    ),
    "finalizers take the lock": (
        "threads.py",
        "nudge=self._alarm.nudge,",
        "nudge=lambda: [self._lock.acquire(), self._lock.release()],",
        ("finalizer",),
    ),
}

EXPLORE = """
import os, sys, millpond
from tests.threads import schedules
print(os.path.dirname(millpond.__file__), flush=True)
schedules.World.patience_s = 2.0  # some mutants hang
if any(schedules.main(["2500", scenario]) for scenario in sys.argv[1:]):
    print("found", flush=True)
os._exit(0)  # threads of a mutant may hang for ever
"""


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.__name__)
def test_the_shell_holds_under_every_schedule(scenario: Scenario) -> None:
    """No schedule with at most two preemptions strands a caller, leaks, or lends a connection twice."""
    found = explore(scenario, LIMIT)
    assert "" == found.violation
    assert found.points > 50, "the tracer sees nothing: the scenario would hold whatever the shell did"


def test_schedules_can_be_replayed() -> None:
    """A schedule passes the same points each time, so that a violation that is printed can be seen again."""
    schedule = Schedule({10: 0, 30: 0})
    (first, _), (second, _) = play(return_and_checkout, schedule), play(return_and_checkout, schedule)
    assert first.point == second.point


def test_a_caller_who_waits_for_ever_is_a_violation() -> None:
    """The explorer itself notices what it is there for."""

    def stranded(world: World) -> None:
        lock = world.runtime().new_lock()
        lock.acquire()
        world.play(lock.acquire)

    _, violation = play(stranded, Schedule())
    assert violation.startswith("Lost: 1 of 1 threads wait for ever")


@pytest.mark.parametrize("name", MUTANTS)
def test_a_fault_of_the_shell_is_found(name: str, tmp_path: Path) -> None:
    """Each mutant of the shell violates some schedule of the scenarios that are about it."""
    file, right, wrong, scenarios = MUTANTS[name]
    mutated = tmp_path / "millpond"
    shutil.copytree(PACKAGE, mutated, ignore=shutil.ignore_patterns("__pycache__", "testing", "cli"))
    source = (mutated / file).read_text(encoding="utf-8")
    assert 1 == source.count(right), f"{file} has changed: the mutant {name!r} must be told anew"
    (mutated / file).write_text(source.replace(right, wrong), encoding="utf-8")
    path = {"PYTHONPATH": f"{tmp_path}:{ROOT}", "PYTHONDONTWRITEBYTECODE": "1"}
    run = subprocess.run(
        [sys.executable, "-c", EXPLORE, *scenarios],
        env=path,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert f"{mutated}\n" in run.stdout, f"the mutant does not even run: {run.stderr[-2000:]}"
    assert run.stdout.endswith("found\n"), f"not found: {run.stdout}"
