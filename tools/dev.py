"""Everything that a developer, or CI, does with this project: ``./run COMMAND``.

Standard library only, since it runs before anything is installed. What it installs goes below ``.venvs``
(environments) and millpond's cache folder (servers); what it writes goes below ``.run`` (logs and test reports).
Nothing is left out of a run but by name: an interpreter or a server that is missing and cannot be fetched is a failure.
"""

from __future__ import annotations

import argparse
import os
import secrets
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tools import environments, interpreters
from tools.environments import ROOT, SetupFailed
from tools.interpreters import Interpreter
from tools.steps import Runner, Step, summary

SERVERS = ("mariadb", "mysql")
LOGS = ROOT / ".run"
SIMULATION_S = 60
# The checkers run on the first of these that is there: import-linter needs 3.11.
CHECKERS_RUN_ON = ("3.12", "3.13", "3.11", "3.10")
REMEDY = "Install it (with pyenv, for example), or leave it out by name: ./run test --without {0}"


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
            return demo(rest)
        if chosen.command == "sim":
            return simulate(chosen.seed, chosen.seconds)
        return test(chosen.without, chosen.only, chosen.seed)
    except SetupFailed as failure:
        print(f"./run: {failure}", file=sys.stderr)
        return 1


def demo(options: Sequence[str]) -> int:
    """Install the package and its command line beside it, and run ``millpond demo`` with *options*."""
    if not (environments.FOLDER / "demo").exists():
        print("Installing millpond and its command line into .venvs/demo ...", flush=True)
    python = environments.make("demo", environments.current(), "--editable", ".[cli,pymysql]")
    return subprocess.run([python, "-m", "millpond", "demo", *options], check=False).returncode


def simulate(seed: int | None, seconds: float) -> int:
    """Run the simulation here and now, fresh seeds or one that is to be replayed."""
    python = environments.make("sim", environments.current(), "--editable", ".[test]")
    return subprocess.run(simulation(python, seed, seconds), check=False, cwd=ROOT).returncode


def simulation(python: Path, seed: int | None, seconds: float) -> list[str]:
    """Return the command that simulates."""
    command = [str(python), "-m", "millpond.testing.simulator", "--seconds", str(seconds)]
    return command if seed is None else [*command, "--seed", str(seed)]


def test(without: Sequence[str], only: Sequence[str], seed: int | None) -> int:
    """Install what is needed, run every step that was not left out, and print how it went."""
    runner = Runner(ROOT, LOGS, at_once=max(2, min(4, os.cpu_count() or 2)))
    wanted = [version for version in interpreters.VERSIONS if version not in without]
    servers = [kind for kind in SERVERS if kind not in without]
    if not wanted:
        raise SetupFailed("every interpreter was left out: nothing to run on")
    found, missing = _find_interpreters(wanted)
    _print_machine(found)
    runner.run(missing)
    if found:
        checkers = next(version for version in CHECKERS_RUN_ON if version in found)
        steps = _check_steps(found, checkers, without, secrets.randbits(32) if seed is None else seed)
        steps = [step for step in steps if not only or step.name.startswith(tuple(only))]
        if not steps:
            raise SetupFailed(f"no step's name starts with {' or '.join(only)}")
        if runner.run(_setup_steps(found, checkers)):
            if servers and any(step.name == "live" for step in steps):
                runner.run([_server_step(checkers, servers)])
            runner.run(steps)
    left_out = [*without, *(f"all but {', '.join(only)}" for _ in range(1) if only)]
    print(summary(runner.outcomes, left_out), flush=True)
    return 0 if all(outcome.ok for outcome in runner.outcomes) else 1


def _find_interpreters(wanted: Sequence[str]) -> tuple[dict[str, Interpreter], list[Step]]:
    """Return the interpreters that are here or could be fetched, and a failing step for each of the others."""
    found: dict[str, Interpreter] = {}
    missing: list[Step] = []
    for version in wanted:
        interpreter = interpreters.find(version) or _fetch(version)
        if interpreter is None:
            missing.append(Step(f"python {version}", call=_Missing(f"Python {version}", version)))
        else:
            found[version] = interpreter
    return found, missing


class _Missing:
    """A step's call that fails because something is not here."""

    def __init__(self, what: str, name: str) -> None:
        self.what = what
        self.name = name

    def __call__(self) -> None:
        raise SetupFailed(f"{self.what} is not on this machine. {REMEDY.format(self.name)}")


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
        extra = "dev" if version == checkers else "test"
        requirements = ("--editable", f".[{extra}]")

        def call() -> str:
            environments.make(_environment_name(version), found[version], *requirements)
            return f"with {extra}"

        return Step(f"install {version}", call=call)

    return [install(version) for version in sorted(found, key=lambda version: version != checkers)]


def _server_step(checkers: str, servers: Sequence[str]) -> Step:
    command = [_python(checkers), "-m", "millpond.testing.servers", "install", *servers]
    return Step("install servers", command, limit_s=900, last_words=r"\S")


def _check_steps(found: dict[str, Interpreter], checkers: str, without: Sequence[str], seed: int) -> list[Step]:
    """Return the steps, the long ones first, so that they do not stand alone at the end."""
    python = _python(checkers)
    tool = Path(python).with_name
    skipped_servers = [word for kind in SERVERS if kind in without for word in ("--without", kind)]
    not_unit = ["--ignore=tests/live", "--ignore=tests/sim"]
    return [
        _tests("live", checkers, "tests/live", *skipped_servers, limit_s=900),
        Step("simulation", simulation(tool("python"), seed, SIMULATION_S), limit_s=300, last_words=r"\S"),
        _tests("sim", checkers, "tests/sim"),
        *(_tests(f"unit {version}", version, "tests", *not_unit) for version in found),
        Step("mypy", [str(tool("mypy"))], last_words=r"\S"),
        Step("pyright", [str(tool("pyright")), "--pythonpath", python], last_words=r"\d+ errors"),
        Step("lint", [str(tool("ruff")), "check", "."], last_words=r"\S"),
        Step("format", [str(tool("ruff")), "format", "--check", "."], last_words=r"\S"),
        Step("imports", [str(tool("lint-imports"))], last_words=r"Contracts:"),
    ]


def _tests(name: str, version: str, *what: str, limit_s: float = 420.0) -> Step:
    report = LOGS / f"{name.replace(' ', '-')}.xml"
    command = [_python(version), "-m", "pytest", "-q", f"--junitxml={report}", "-o", "cache_dir=.run/pytest", *what]
    return Step(name, command, limit_s=limit_s, report=report)


if __name__ == "__main__":
    sys.exit(main())
