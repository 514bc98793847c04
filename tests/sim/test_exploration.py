"""The exploration of the core: it holds, it has been everywhere, and it finds what is planted."""

from __future__ import annotations

import pytest

from millpond.testing.exploration import REAL, Plant, Seen, explore, planted
from millpond.testing.exploration.__main__ import main, report, verdict
from millpond.testing.exploration.seeds import play

from .plants import PLANTS

SEEDS = 4_000  # a planted fault must be found by one of the first so many
HISTORIES = 6_000  # and these, of the real core, must have been everywhere


def test_the_core_keeps_its_promises_in_every_history_and_everything_is_seen() -> None:
    """Each answer to each verb, each legal change of state and each named situation is among the histories."""
    seen = Seen()
    failures = [failure for seed in range(HISTORIES) if (failure := explore(seed, seen)) is not None]
    assert [] == [report(failure) for failure in failures[:1]]
    assert [] == seen.missing()


@pytest.mark.parametrize("seed", [8484163072296525363])
def test_histories_that_once_broke_a_promise(seed: int) -> None:
    """Fresh seeds found them; they are kept.  The first: cut between being dropped and being taken in, never closed."""
    assert explore(seed, Seen()) is None


@pytest.mark.parametrize("plant", PLANTS, ids=lambda plant: plant.name)
def test_a_planted_fault_is_found(plant: Plant) -> None:
    """The search that finds nothing in the real core finds what is known to be there."""
    core = planted(plant)
    found = next((seed for seed in range(1, SEEDS + 1) if play(seed, Seen(), core, None) is not None), None)
    assert found is not None, f"{plant.name}: not found by {SEEDS} seeds"
    print(f"seed {found:>5}: {plant.name}")  # noqa: T201  for who reads the report


def test_a_plant_leaves_the_real_core_alone() -> None:
    """What is planted is in modules of its own."""
    core = planted(PLANTS[0])
    assert core.ledger is not REAL.ledger
    assert core.states.State.IDLE is not REAL.states.State.IDLE
    found = next(seed for seed in range(SEEDS) if play(seed, Seen(), core, None) is not None)
    assert play(found, Seen(), REAL, None) is None


def test_a_plant_that_no_longer_fits_is_an_error() -> None:
    """A piece of source that is not there once is not silently left as it is."""
    with pytest.raises(LookupError, match="is there 0 times"):
        planted(Plant("nothing", "ledger", "no such line in there", ""))


def test_a_seed_is_a_whole_history() -> None:
    """The same seed makes the same history, step by step."""
    stories: list[list[str]] = [[], []]
    for story in stories:
        for seed in (3, 5, 8, 13):
            assert play(seed, Seen(), REAL, story) is None
    assert stories[0] == stories[1]
    assert len(stories[0]) > 100


def test_the_command_prints_its_seed_and_what_it_saw(capsys: pytest.CaptureFixture[str]) -> None:
    """Whoever reads the log of a run can play it again."""
    assert 0 == main(["--seconds", "0.2", "--seed", "7"])
    told = capsys.readouterr().out
    assert told.startswith("Exploring the core from seed 7 for 0.2 s.")
    assert "checkout: park" in told
    assert "No promise was broken." in told


def test_a_failure_says_how_to_play_it_again(capsys: pytest.CaptureFixture[str]) -> None:
    """The seed that failed is printed as the command that shows the failure at once."""
    core = planted(PLANTS[0])
    assert 1 == main(["--seconds", "30", "--seed", "1"], core)
    told = capsys.readouterr().out
    last = told.strip().splitlines()[-1]
    assert last.startswith("Play it again: ./run sim --seed ")
    assert 1 == main(["--seconds", "30", "--seed", last.split()[-1]], core)
    again = capsys.readouterr().out
    assert told.splitlines()[-3:] == again.splitlines()[-3:]


def test_an_exploration_that_has_not_been_everywhere_fails() -> None:
    """One answer that was never seen is a failure of its own, and named."""
    seen = Seen()
    for seed in range(200):
        explore(seed, seen)
    seen.answers["dial", "open", "late"] = 0
    told, code = verdict(seen, must_be_complete=True)
    assert 1 == code
    assert "dial: open answered 'late'" in told
    assert 0 == verdict(seen, must_be_complete=False)[1]
