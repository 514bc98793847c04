"""Everything that a developer, or CI, does with this project: ``./run COMMAND``.

Standard library only, since it runs before anything is installed. What it installs goes below ``.venvs``
(environments) and millpond's cache folder (servers); what it writes goes below ``.run`` (logs and test reports).
Nothing is left out of a run but by name: an interpreter or a server that is missing and cannot be fetched is a failure.
"""

from __future__ import annotations

import argparse
import os
import re
import secrets
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise, zip_longest
from pathlib import Path
from typing import NoReturn

from tools import environments, interpreters, system
from tools.interpreters import Interpreter
from tools.steps import Runner, Step, summary
from tools.system import ROOT, SetupFailed

SERVERS = ("mariadb", "mysql", "postgresql")
LOGS = ROOT / ".run"
SIMULATION_S = 60
# The checkers run on the first of these that is there: import-linter needs 3.11.
CHECKERS_RUN_ON = ("3.12", "3.13", "3.11", "3.10")
WITHOUT_DBUTILS = "-without-dbutils"  # as the version of an environment
EXTRAS = {"unit": "test", "checkers": "dev,live"}  # of pyproject.toml, for each kind of environment
# Suites that run once more, with the oldest drivers that pyproject.toml names; of each, the files that are left out:
# thousands of random borrowers, of cycles with errors in between, and the hosts of programs say no more about a driver
# the second time.
OLDEST = "oldest"
OLDEST_SUITES = {"live other_drivers": (), "live wire": ("test_random.py", "test_written_ahead.py", "test_hosts.py")}
TOUCHES_COMPILED = "live aio"  # the suite of live tests that runs once more without the compiled part


@dataclass(frozen=True)
class Suite:
    """A run of pytest.

    Args:
        name: shown; a suite that runs on each interpreter has the version behind it.
        what: files, folders and options.
        on_each: run it on every interpreter, not only on the checkers'.
        live: it needs the servers.
        limit_s: seconds after which it counts as hung.
        compiled: whether it runs with millpond's compiled part, and fails where that is missing; else without.
        runner: the module that is run, with pytest's words.
    """

    name: str
    what: tuple[str, ...]
    on_each: bool = False
    live: bool = False
    limit_s: float = 800.0
    compiled: bool = True
    runner: str = "pytest"


# What is run beside the tests on servers, the long ones first, so that they do not stand alone at the end.
SUITES = (
    Suite("unit", ("tests", "--ignore=tests/live", "--ignore=tests/sim"), on_each=True),
    Suite("pure", ("tests/aio",), on_each=True, compiled=False),
    Suite("sanitizers", ("tests/aio",), runner="tools.sanitized"),
    Suite("sim", ("tests/sim",)),
    Suite("break out", ("tests/database/test_break_out.py", "--hypothesis-profile=break-out")),
)
# What says the same on every interpreter, so that a suite which runs on each has it on the checkers' alone: the runner
# itself, the pages, the demo, which is a program on the pool, figures that are computed in virtual time, and the proof
# that faults planted in a copy of the package are found.
ON_ONE = (
    "tests/tools",
    "tests/test_pages.py",
    "tests/testing/test_docs.py",
    "tests/testing/test_simulation_doc.py",
    "tests/cli/test_demo.py",
    "tests/core/test_dialrule.py",
    "tests/threads/test_schedules.py::test_a_fault_of_the_shell_is_found",
)
# Files of tests/live by what their names begin with, each group a suite, so that two run side by side; all others
# are the last group. A folder in tests/live is a suite of its own.
LIVE_GROUPS = {
    "live servers": ("test_servers", "test_proxy", "test_demo", "test_pages"),
    "live drivers": ("test_contract",),
    "live": ("",),
}
# Commands of the checkers' environment, and the pattern of the line that sums each up.
CHECKS = {
    "mypy": (("mypy",), r"\S"),
    "pyright": (("pyright", "--pythonpath", "{python}"), r"\d+ errors?"),
    "lint": (("ruff", "check", "."), r"\S"),
    "format": (("ruff", "format", "--check", "."), r"\S"),
    "imports": (("lint-imports",), r"Contracts:"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the command line says and return the exit code."""
    parser = argparse.ArgumentParser(prog="./run", description="Work on millpond.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser("demo", help="see the pool at work; options are millpond demo's own", add_help=False)
    testing = commands.add_parser("test", help="run every check; what CI runs")
    testing.add_argument(
        "--without",
        nargs="+",
        action="extend",
        default=[],
        choices=[*interpreters.VERSIONS, *SERVERS],
        metavar="NAME",
        help=f"leave out interpreters or servers: {', '.join([*interpreters.VERSIONS, *SERVERS])}",
    )
    testing.add_argument("--only", nargs="+", default=[], metavar="STEP", help="run only steps whose name starts so")
    testing.add_argument("--seed", type=int, help="the simulation's seed; a fresh one by default")
    simulating = commands.add_parser("sim", help="run the simulation of the core")
    simulating.add_argument("--seed", type=int, help="a seed to replay; fresh ones by default")
    simulating.add_argument("--seconds", type=float, default=SIMULATION_S, help=f"how long, {SIMULATION_S} by default")
    chosen, rest = parser.parse_known_args(arguments)
    if rest and chosen.command != "demo":
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    try:
        if chosen.command == "demo":
            demo(rest)
        if chosen.command == "sim":
            simulate(chosen.seed, chosen.seconds)
        return test(chosen.without, chosen.only, chosen.seed)
    except SetupFailed as failure:
        print(f"./run: {failure}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("./run: stopped", file=sys.stderr)
        return 130


def demo(options: Sequence[str]) -> NoReturn:
    """Install the package and its command line beside it, and become ``millpond demo`` with *options*."""
    if not (environments.FOLDER / "demo").exists():
        print("Installing millpond and its command line into .venvs/demo ...", flush=True)
    python = environments.make("demo", environments.current(), "--editable", ".[cli,pymysql]")
    for kind in servers_named(options):
        print(f"Looking for {kind}; where there is none it is fetched, which takes a moment ...", flush=True)
        system.call([str(python), "-m", "millpond.testing.servers", "install", kind])
    _become([str(python), "-m", "millpond", "demo", *options])


def servers_named(options: Sequence[str]) -> list[str]:
    """Return the server that the demo is to run on, if its options name one that can be fetched."""
    words = [word for option in options for word in option.split("=", 1)]
    return [kind for before, kind in pairwise(words) if before == "--server" and kind in ("mariadb", "mysql")]


def simulate(seed: int | None, seconds: float) -> NoReturn:
    """Become the simulation, of fresh seeds or of one that is to be replayed."""
    python = environments.make("sim", environments.current(), "--editable", ".")
    _become(simulation(python, seed, seconds))


def _become(command: list[str]) -> NoReturn:
    # Not run below this one: that would be killed a moment after Ctrl-C, in the middle of tidying up.
    sys.stdout.flush()
    os.execv(command[0], command)


def simulation(python: Path, seed: int | None, seconds: float) -> list[str]:
    """Return the command that simulates."""
    command = [str(python), "-m", "millpond.testing.exploration", "--seconds", str(seconds)]
    return command if seed is None else [*command, "--seed", str(seed)]


def test(without: Sequence[str], only: Sequence[str], seed: int | None) -> int:
    """Install what is needed, run every step that was not left out, and print how it went."""
    # One more than there are cores: tests on servers wait for more than half of their time.
    runner = Runner(ROOT, LOGS, at_once=min(4, os.cpu_count() or 2) + 1)
    wanted = [version for version in interpreters.VERSIONS if version not in without]
    servers = [kind for kind in SERVERS if kind not in without]
    if not wanted:
        raise SetupFailed("every interpreter was left out: nothing to run on")
    found, missing = _find_interpreters(wanted)
    _print_machine(found)
    runner.run(missing)
    if found:
        checkers = next(version for version in CHECKERS_RUN_ON if version in found)
        steps = _steps(found, checkers, without, secrets.randbits(32) if seed is None else seed)
        steps = [step for step in steps if not only or step.name.startswith(tuple(only))]
        if not steps:
            raise SetupFailed(f"no step's name starts with {' or '.join(only)}")
        live = any(step.name.startswith("live") for step in steps)
        serving = [_server_step(found[checkers], servers)] if live else []
        installing = _setup_steps(found, checkers)
        runner.run([*serving, *installing])
        lacking = {outcome.step.name for outcome in runner.outcomes if not outcome.ok}
        if lacking.isdisjoint(step.name for step in installing):
            if lacking.intersection(step.name for step in serving):
                steps = [_without_servers(step) if step.name.startswith("live") else step for step in steps]
            runner.run(steps)
    left_out = [*without, *([f"all but {', '.join(only)}"] if only else [])]
    print(summary(runner.outcomes, left_out), flush=True)
    return 0 if all(outcome.ok for outcome in runner.outcomes) else 1


def _find_interpreters(wanted: Sequence[str]) -> tuple[dict[str, Interpreter], list[Step]]:
    """Return the interpreters that are here or could be fetched, and a failing step for each of the others."""
    found: dict[str, Interpreter] = {}
    missing: list[str] = []
    for version in wanted:
        interpreter = interpreters.find(version) or _fetch(version)
        if interpreter is None:
            missing.append(version)
        else:
            found[version] = interpreter
    remedy = f"Install it (with pyenv, for example), or leave it out by name: ./run test --without {' '.join(missing)}"
    return found, [_missing(version, remedy) for version in missing]


def _missing(version: str, remedy: str) -> Step:
    def fail() -> None:
        raise SetupFailed(f"Python {version} is not on this machine. {remedy}")

    return Step(f"python {version}", call=fail)


def _without_servers(step: Step) -> Step:
    def fail() -> None:
        raise SetupFailed("not begun: a server could not be installed, see there")

    return Step(step.name, call=fail)


def _fetch(version: str) -> Interpreter | None:
    print(f"Python {version} is not on PATH, nor in pyenv's or uv's folder: asking uv for it", flush=True)
    uv = environments.make("uv", environments.current(), "uv").with_name("uv")
    return interpreters.fetch(version, str(uv))


def _print_machine(found: dict[str, Interpreter]) -> None:
    for interpreter in found.values():
        print(f"Python {interpreter.release:<8} {interpreter.path}")
    print(flush=True)


def _environment_name(version: str) -> str:
    return f"py{version}"


def _python(version: str) -> str:
    return str(environments.FOLDER / _environment_name(version) / "bin" / "python")


def _setup_steps(found: dict[str, Interpreter], checkers: str) -> list[Step]:
    def install(version: str) -> Step:
        extras = EXTRAS["checkers" if version == checkers else "unit"]

        def call() -> str:
            if "live" in extras:
                environments.ensure_compiles_mysqlclient(found[version])
            else:
                environments.ensure_compiles(found[version])
            environments.make(_environment_name(version), found[version], "--editable", f".[{extras}]", compiled=True)
            return f"with {extras}"

        return Step(f"install {version}", call=call, limit_s=900)

    steps = [install(version) for version in sorted(found, key=lambda version: version != checkers)]
    return [
        *steps,
        Step("install oldest drivers", call=lambda: _install_oldest(found[checkers]), limit_s=900),
        Step("install without DBUtils", call=lambda: _install_without_dbutils(found[checkers])),
    ]


def _install_without_dbutils(interpreter: Interpreter) -> None:
    """Make an environment in which DBUtils' tests can find nothing but what stands in for it."""
    environments.ensure_compiles(interpreter)
    name = _environment_name(WITHOUT_DBUTILS)
    environments.make(name, interpreter, "--editable", ".", "pytest>=9.0,<10", compiled=True)


def _install_oldest(interpreter: Interpreter) -> str:
    pins = oldest_drivers((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    environments.ensure_compiles_mysqlclient(interpreter)
    environments.make(_environment_name(OLDEST), interpreter, "--editable", ".[test,live]", *pins, compiled=True)
    return ", ".join(pins)


def oldest_drivers(project: str) -> list[str]:
    """Return the drivers for threads at the lowest version that *project*, a pyproject.toml, allows."""
    names = "pymysql|mysqlclient|mysqlconnector"
    found = re.findall(rf'^(?:{names}) = \["([\w-]+)(?:\[\w+\])?>=([\d.]+)"\]', project, re.MULTILINE)
    return [f"{package}=={version}" for package, version in found]


def _server_step(interpreter: Interpreter, servers: Sequence[str]) -> Step:
    # From its sources, which need nothing but Python: side by side with the environments.
    start = "import sys; sys.path.insert(0, 'src'); from millpond.testing.servers import main; sys.exit(main())"
    return Step("install servers", [interpreter.path, "-c", start, "install", *servers], limit_s=900, last_words=r"\S")


def _steps(found: dict[str, Interpreter], checkers: str, without: Sequence[str], seed: int) -> list[Step]:
    """Return everything that is checked, in the order of its start."""
    live = live_suites(sorted(ROOT.glob("tests/live/**/test_*.py")))
    live = [suite for suite in live if set(servers_of(suite)) - set(without)]
    left_out = [word for kind in SERVERS if kind in without for word in ("--without", kind)]
    waiting = [suite_step(suite, checkers, left_out) for suite in live]
    waiting[2:2] = [suite_step(oldest_suite(suite), OLDEST, left_out) for suite in live if suite.name in OLDEST_SUITES]
    waiting += [suite_step(pure_suite(suite), checkers, left_out) for suite in live if suite.name == TOUCHES_COMPILED]
    computing = [
        *(
            suite_step(suite, version, () if version == checkers else only_on_one(suite))
            for suite in SUITES
            for version in (found if suite.on_each else [checkers])
        ),
        Step("DBUtils' tests", [_python(WITHOUT_DBUTILS), "-m", "tools.dbutils_suite"], last_words=r"items passed"),
        Step("wheel", [_python(checkers), "-m", "tools.wheel"], last_words=r"\S"),
        *(_check(name, _python(checkers)) for name in CHECKS),
    ]
    simulating = simulation(Path(_python(checkers)), seed, SIMULATION_S)
    computing.insert(len(found), Step("simulation", simulating, limit_s=300, last_words=r"\S"))
    return [step for pair in zip_longest(computing, waiting) for step in pair if step is not None]


def only_on_one(suite: Suite) -> list[str]:
    """Return the options that leave out of *suite*, on each interpreter but one, what says the same on all of them."""
    below = [what for what in ON_ONE if any(what.startswith(f"{folder}/") for folder in suite.what)]
    return [f"--{'deselect' if '::' in what else 'ignore'}={what}" for what in below]


def live_suites(files: Sequence[Path]) -> list[Suite]:
    """Return the suites of the tests on real servers, those of most files first; every file is in exactly one."""
    grouped: dict[str, list[str]] = {name: [] for name in LIVE_GROUPS}
    for file in files:
        grouped.setdefault(_live_group(file), []).append(str(file.relative_to(ROOT)))
    suites = [Suite(name, tuple(members), live=True) for name, members in grouped.items() if members]
    return sorted(suites, key=lambda suite: -len(suite.what))


def oldest_suite(suite: Suite) -> Suite:
    """Return *suite* as it is run with the oldest drivers."""
    without = OLDEST_SUITES[suite.name]
    return replace(suite, on_each=True, what=tuple(file for file in suite.what if Path(file).name not in without))


def pure_suite(suite: Suite) -> Suite:
    """Return *suite* as it is run without the compiled part."""
    return replace(suite, name=f"{suite.name} pure", compiled=False)


def servers_of(suite: Suite) -> tuple[str, ...]:
    """Return the servers of which a suite needs one: a folder of that name its own, all others MariaDB or MySQL."""
    own = suite.name.removeprefix("live ")
    return (own,) if own in SERVERS else ("mariadb", "mysql")


def _live_group(file: Path) -> str:
    folder = file.relative_to(ROOT / "tests" / "live").parts[0]
    if folder != file.name:
        return f"live {folder}"
    return next(name for name, prefixes in LIVE_GROUPS.items() if file.name.startswith(prefixes))


def suite_step(suite: Suite, version: str, options: Sequence[str]) -> Step:
    """Return the step that runs *suite* in the environment of a version, with more *options* of pytest's."""
    name = f"{suite.name} {version}" if suite.on_each else suite.name
    report = LOGS / f"{name.replace(' ', '-')}.xml"
    cache = f"cache_dir=.run/pytest-{name.replace(' ', '-')}"
    command = [_python(version), "-m", suite.runner, "-q", f"--junitxml={report}", "-o", cache, *suite.what, *options]
    compiled = {environments.COMPILED: environments.REQUIRE if suite.compiled else environments.WITHOUT}
    return Step(name, command, limit_s=suite.limit_s, report=report, environment=compiled)


def _check(name: str, python: str) -> Step:
    (tool, *arguments), last_words = CHECKS[name]
    command = [str(Path(python).with_name(tool)), *(argument.format(python=python) for argument in arguments)]
    return Step(name, command, last_words=last_words)


if __name__ == "__main__":
    sys.exit(main())
