"""Run named steps a few at a time, keep what each says, and tell in the end how it went.

Rules: a step that fails says all it has to say; one that passes says one line. A step that hangs is ended, with the
stacks of its threads where it is Python, and has failed. Counts come from the test runner's own report.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree import ElementTree as ET

_PROGRESS = re.compile(r"^[.sxXFE]+ +\[ *\d+%\]\n", re.MULTILINE)  # of a test runner, which tells nobody anything later
_NOT_A_STEPS_OWN = ("PYTHONPATH", "PYTHONHOME", "PYTEST_ADDOPTS", "MILLPOND_COMPILED")
_GRACE_S = 10.0  # for a step that is being ended to show its stacks and stop its servers


@dataclass(frozen=True)
class Step:
    """One command to run, or one function to call.

    Args:
        name: shown, and the name of its log.
        command: run from the project's folder.
        limit_s: seconds after which it counts as hung.
        report: the JUnit file that a test runner leaves; None for a step that is one check by itself.
        call: called instead of *command*; an exception is its failure.
        last_words: a pattern; the last line of output that has it is shown beside the name.
        environment: variables for *command*, beside those of whoever started this.
    """

    name: str
    command: Sequence[str] = ()
    limit_s: float = 300.0
    report: Path | None = None
    call: Callable[[], object] | None = None
    last_words: str = ""
    environment: Mapping[str, str] = field(default_factory=dict[str, str])


@dataclass
class Outcome:
    """How a step went; ``skipped`` has the reason of each test that did not run, ``failures`` the names of tests."""

    step: Step
    ok: bool
    seconds: float
    log: Path | None = None
    said: str = ""
    passed: int = 0
    failed: int = 0
    skipped: list[str] = field(default_factory=list[str])
    failures: list[str] = field(default_factory=list[str])

    @property
    def remark(self) -> str:
        """Return what there is to say in a few words."""
        if self.step.report is None:
            return self.said
        skipped = f", {len(self.skipped)} skipped" if self.skipped else ""
        return f"{self.passed} passed, {self.failed} failed{skipped}"


class Runner:
    """Runs steps and collects their outcomes.

    Args:
        folder: where commands run.
        logs: where their output goes, a file a step.
        at_once: how many steps run at the same time, 1 or more.
    """

    def __init__(self, folder: Path, logs: Path, at_once: int) -> None:
        self.folder = folder
        self.logs = logs
        self.at_once = at_once
        self.outcomes: list[Outcome] = []
        self._printing = threading.Lock()
        self._running: set[subprocess.Popen[bytes]] = set()
        logs.mkdir(parents=True, exist_ok=True)

    def run(self, steps: Sequence[Step]) -> bool:
        """Run *steps*, started in their order; return whether all of them passed."""
        with ThreadPoolExecutor(self.at_once) as workers:
            try:
                outcomes = list(workers.map(self._run_one, steps))
            except BaseException:
                workers.shutdown(wait=False, cancel_futures=True)
                for process in list(self._running):
                    _signal(process, signal.SIGTERM)
                raise
        self.outcomes += outcomes
        return all(outcome.ok for outcome in outcomes)

    def _run_one(self, step: Step) -> Outcome:
        started_at = time.monotonic()
        outcome = self._called(step) if step.call else self._commanded(step)
        outcome.seconds = time.monotonic() - started_at
        if step.report is not None:
            _read_report(step.report, outcome)
        elif outcome.ok:
            outcome.passed = 1
        else:
            outcome.failed = 1
        with self._printing:
            if not outcome.ok and outcome.log is not None:
                print(f"\n---- {step.name} failed; all that it said:", flush=True)
                print(_PROGRESS.sub("", outcome.log.read_text(errors="replace")), flush=True)
            mark = "ok    " if outcome.ok else "FAILED"
            print(f"{mark} {step.name:<26} {outcome.seconds:6.1f} s  {outcome.remark}", flush=True)
        return outcome

    def _called(self, step: Step) -> Outcome:
        assert step.call is not None
        log = self.logs / f"{step.name.replace(' ', '-')}.log"
        try:
            answer = step.call()
        except Exception as error:  # noqa: BLE001  whatever it is, it is this step's failure, and is shown whole
            log.write_text(f"{type(error).__name__}: {error}\n")
            return Outcome(step, ok=False, seconds=0, log=log, said=str(error).partition("\n")[0])
        return Outcome(step, ok=True, seconds=0, said="" if answer is None else str(answer))

    def _commanded(self, step: Step) -> Outcome:
        log = self.logs / f"{step.name.replace(' ', '-')}.log"
        if step.report is not None:
            step.report.unlink(missing_ok=True)
        with log.open("wb") as output:
            settings = [f"{name}={value}" for name, value in step.environment.items()]
            output.write(f"$ {' '.join([*settings, *step.command])}\n".encode())
            output.flush()
            process = subprocess.Popen(
                step.command,
                cwd=self.folder,
                env={**_environment(os.environ), **step.environment},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            self._running.add(process)
            code = self._wait(process, step.limit_s)
            self._running.discard(process)
            if code is None:
                output.write(f"\nstill running after {step.limit_s:.0f} s: ended\n".encode())
        said = _last_line_with(step.last_words, log) if step.last_words else ""
        return Outcome(step, ok=code == 0, seconds=0, log=log, said=said)

    @staticmethod
    def _wait(process: subprocess.Popen[bytes], limit_s: float) -> int | None:
        try:
            return process.wait(limit_s)
        except subprocess.TimeoutExpired:
            pass
        # SIGABRT makes a Python with faulthandler print the stacks of all threads before it dies.
        for number in (signal.SIGABRT, signal.SIGKILL):
            _signal(process, number)
            try:
                process.wait(_GRACE_S)
            except subprocess.TimeoutExpired:
                continue
            break
        return None


def summary(outcomes: Sequence[Outcome], left_out: Sequence[str]) -> str:
    """Return a table of steps, what did not run or failed, and as the last line how many checks passed and failed."""
    lines = ["", f"{'step':<26} {'seconds':>8}  result"]
    for outcome in outcomes:
        mark = "ok" if outcome.ok else "FAILED"
        lines.append(f"{outcome.step.name:<26} {outcome.seconds:8.1f}  {mark:<6} {outcome.remark}".rstrip())
    reasons = sorted({reason for outcome in outcomes for reason in outcome.skipped})
    lines += [f"not run: {reason}" for reason in reasons]
    lines += [f"left out by name: {name}" for name in left_out]
    lines += [f"FAILED {outcome.step.name}: {name}" for outcome in outcomes for name in outcome.failures]
    passed, failed, skipped = totals(outcomes)
    lines += ["", f"{passed} passed, {failed} failed" + (f", {skipped} skipped" if skipped else "")]
    return "\n".join(lines)


def totals(outcomes: Sequence[Outcome]) -> tuple[int, int, int]:
    """Return how many checks passed, failed and were skipped; a step that failed counts at least once as failed."""
    passed = sum(outcome.passed for outcome in outcomes)
    failed = sum(outcome.failed if outcome.ok else max(outcome.failed, 1) for outcome in outcomes)
    return passed, failed, sum(len(outcome.skipped) for outcome in outcomes)


def _environment(own: Mapping[str, str]) -> dict[str, str]:
    # A step must not see packages or settings of whoever started this.
    kept = {name: value for name, value in own.items() if name not in _NOT_A_STEPS_OWN}
    return {**kept, "PYTHONFAULTHANDLER": "1", "PYTHONUNBUFFERED": "1", "NO_COLOR": "1"}


def _read_report(report: Path, outcome: Outcome) -> None:
    if not report.exists():
        outcome.ok = False
        return
    for case in ET.parse(report).iter("testcase"):  # noqa: S314  our own test runner wrote it
        kinds = {child.tag for child in case}
        if kinds & {"failure", "error"}:
            outcome.failed += 1
            outcome.failures.append(f"{case.get('classname')}::{case.get('name')}")
        elif "skipped" in kinds:
            outcome.skipped.append(_skip_reason(case))
        else:
            outcome.passed += 1
    if outcome.passed + outcome.failed == 0:
        outcome.ok = False  # a run of no test proves nothing


def _skip_reason(case: ET.Element) -> str:
    skipped = case.find("skipped")
    assert skipped is not None
    return skipped.get("message", "no reason given")


def _last_line_with(pattern: str, log: Path) -> str:
    lines = [line for line in log.read_text(errors="replace").splitlines() if re.search(pattern, line)]
    return lines[-1].strip() if lines else ""


def _signal(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    try:
        os.killpg(process.pid, number)
    except ProcessLookupError:
        print(f"process {process.pid} had ended by itself", file=sys.stderr)
