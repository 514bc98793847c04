"""What ``./run test`` runs leaves nothing out."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from tools import system
from tools.dev import (
    LIVE_GROUPS,
    OLDEST_SUITES,
    ON_ONE,
    SUITES,
    TOUCHES_COMPILED,
    live_suites,
    oldest_drivers,
    oldest_suite,
    only_on_one,
    pure_suite,
    servers_named,
    servers_of,
    suite_step,
)
from tools.system import ROOT, SetupFailed, install


def live_files() -> Sequence[Path]:
    """Return the files of tests on real servers."""
    return sorted(ROOT.glob("tests/live/**/test_*.py"))


def test_every_live_file_is_in_one_suite() -> None:
    """The suites of tests on real servers share out the files, each to one of them."""
    named = [what for suite in live_suites(live_files()) for what in suite.what]
    assert [str(file.relative_to(ROOT)) for file in live_files()] == sorted(named)


def test_a_file_that_no_group_names_is_in_the_last_one() -> None:
    """A new file of live tests is run without being listed anywhere."""
    (suite,) = live_suites([ROOT / "tests/live/test_something_new.py"])
    assert (list(LIVE_GROUPS)[-1], ("tests/live/test_something_new.py",)) == (suite.name, suite.what)


def test_a_folder_of_live_tests_is_a_suite() -> None:
    """A folder of live tests is run by itself, also without being listed anywhere."""
    (suite,) = live_suites([ROOT / "tests/live/proxysql/test_a.py", ROOT / "tests/live/proxysql/test_b.py"])
    assert ("live proxysql", 2) == (suite.name, len(suite.what))


@pytest.mark.parametrize(
    ("name", "needed"), [("live postgresql", ("postgresql",)), ("live wire", ("mariadb", "mysql"))]
)
def test_a_suite_is_left_out_with_the_last_of_its_servers(name: str, needed: tuple[str, ...]) -> None:
    """A suite of which nothing could run but skips is not begun: it would be taken for one that found no test."""
    (suite,) = (suite for suite in live_suites(live_files()) if suite.name == name)
    assert needed == servers_of(suite)


def test_every_folder_of_tests_is_in_a_suite() -> None:
    """All tests are below a folder that some suite runs, and what one suite leaves out another runs."""
    ignored = {option.partition("=")[2] for suite in SUITES for option in suite.what if option.startswith("--ignore=")}
    run = {what for suite in SUITES for what in suite.what if not what.startswith("--")}
    assert "tests" in run
    assert ignored - run == {"tests/live"}


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--server", "mysql", "--seconds", "2"], ["mysql"]),
        (["--server=mariadb"], ["mariadb"]),
        (["--server", "oracle"], []),  # the demo itself says what is wrong with that
        (["--url", "mysql://u@h/d?a=b"], []),
        ([], []),
    ],
)
def test_the_server_of_the_demo_is_fetched(options: list[str], named: list[str]) -> None:
    """Who asks for the demo on a server needs nothing but that command."""
    assert named == servers_named(options)


@pytest.mark.parametrize("what", ON_ONE)
def test_what_runs_on_one_interpreter_is_there(what: str) -> None:
    """What is left out on all interpreters but one is a file of tests, a folder of them or a test."""
    path, _, function = what.partition("::")
    assert (ROOT / path).exists()
    assert not function or f"def {function}(" in (ROOT / path).read_text(encoding="utf-8")


def test_what_runs_on_one_interpreter_is_left_out_on_the_others() -> None:
    """Only suites that run on each interpreter leave something out, and all of what is named."""
    by_name = {suite.name: only_on_one(suite) for suite in SUITES}
    assert ["unit", "pure"] == [suite.name for suite in SUITES if suite.on_each]
    assert [*ON_ONE] == [option.partition("=")[2] for option in by_name["unit"]]
    assert [] == by_name["pure"]


def test_the_compiled_part_is_expected_or_left_out() -> None:
    """Every step of tests says whether it runs with the compiled part, so that none is without it by accident."""
    (aio,) = (suite for suite in live_suites(live_files()) if suite.name == TOUCHES_COMPILED)
    pure = pure_suite(aio)
    assert ("live aio pure", aio.what) == (pure.name, pure.what)
    expected = [suite_step(suite, "3.12", ()).environment for suite in (*SUITES, aio, pure)]
    without = [suite.name for suite in SUITES if not suite.compiled]
    assert ["pure"] == without
    assert [{"MILLPOND_COMPILED": "no" if each.name in without else "require"} for each in SUITES] == expected[:-2]
    assert [{"MILLPOND_COMPILED": wish} for wish in ("require", "no")] == expected[-2:]


def test_what_cannot_be_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a package manager that is known, the message says what is missing and what to install."""
    monkeypatch.setattr(shutil, "which", lambda _: None)
    with pytest.raises(SetupFailed, match=r"no headers\. Install with .* libthis libthat"):
        install(["libthis", "libthat"], why="no headers", mended=lambda: False)


def test_what_is_there_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nothing is wrong any more, nothing is called."""
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: pytest.fail("a command was run"))
    install(["libthis"], why="no headers", mended=lambda: True)


def test_a_failing_command_is_shown() -> None:
    """What a command said before it failed is in the error, and so is a command that is not there."""
    with pytest.raises(SetupFailed, match="exit code 3:\nno such luck"):
        system.call(["sh", "-c", "echo no such luck; exit 3"])
    with pytest.raises(SetupFailed, match="millpond-no-such-command is needed"):
        system.call(["millpond-no-such-command", "--now"])
    assert not system.succeeds(["millpond-no-such-command"])


def test_the_oldest_drivers_are_those_that_the_project_names() -> None:
    """What runs with the oldest drivers has the lowest version of each that pyproject.toml allows."""
    pins = oldest_drivers((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert ["PyMySQL", "mysqlclient", "mysql-connector-python"] == [pin.partition("==")[0] for pin in pins]
    assert all(pin.partition("==")[2][0].isdigit() for pin in pins)


def test_what_runs_with_the_oldest_drivers_is_there() -> None:
    """The suites that run once more are suites of this project, and so are the files that are left out of them."""
    suites = {suite.name: suite for suite in live_suites(live_files())}
    for name, without in OLDEST_SUITES.items():
        once_more = oldest_suite(suites[name]).what
        assert len(without) == len(suites[name].what) - len(once_more)
        assert once_more
