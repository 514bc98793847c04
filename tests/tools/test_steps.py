"""The runner of checks tells a failure from a success, whatever a step does."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tools.steps import Runner, Step, summary, totals

REPORT = """<testsuites><testsuite>
<testcase name="a"/><testcase name="b"/>
<testcase name="c"><skipped message="left out"/></testcase>
{more}</testsuite></testsuites>"""


@pytest.fixture
def runner(tmp_path: Path) -> Runner:
    """Return a runner of its own."""
    return Runner(tmp_path, tmp_path / "logs", at_once=2)


def python(code: str) -> list[str]:
    """Return the command that runs a line of Python."""
    return [sys.executable, "-c", code]


def report_step(folder: Path, *, more: str = "", code: int = 0) -> Step:
    """Return a step that leaves a report of two passed tests, a skipped one and *more*."""
    report = folder / "report.xml"
    script = (
        f"import pathlib, sys; pathlib.Path({str(report)!r}).write_text({REPORT.format(more=more)!r}); sys.exit({code})"
    )
    return Step("tests", python(script), report=report)


def test_counts_what_the_test_runner_reports(runner: Runner, tmp_path: Path) -> None:
    """Passed and skipped tests are counted, and each skip's reason is told."""
    assert runner.run([report_step(tmp_path)])
    assert (2, 0, 1) == totals(runner.outcomes)
    assert "not run: left out" in summary(runner.outcomes, [])


def test_failed_tests_are_counted(runner: Runner, tmp_path: Path) -> None:
    """A run with a failed test has failed; the summary names it, and its last line counts it."""
    failed = '<testcase classname="tests.test_x" name="d"><failure message="no"/></testcase>'
    assert not runner.run([report_step(tmp_path, more=failed, code=1)])
    last = summary(runner.outcomes, []).splitlines()[-3:]
    assert ["FAILED tests: tests.test_x::d", "", "2 passed, 1 failed, 1 skipped"] == last


def test_an_exit_code_outweighs_a_report(runner: Runner, tmp_path: Path) -> None:
    """A test runner that reports no failure and still exits badly has failed."""
    assert not runner.run([report_step(tmp_path, code=1)])
    assert (2, 1, 1) == totals(runner.outcomes)


def test_a_run_of_no_test_is_a_failure(runner: Runner, tmp_path: Path) -> None:
    """A report without a test in it proves nothing, and nor does a missing one."""
    empty = tmp_path / "empty.xml"
    writes = python(f"import pathlib; pathlib.Path({str(empty)!r}).write_text('<testsuites/>')")
    assert not runner.run([Step("empty", writes, report=empty)])
    assert not runner.run([Step("missing", python("pass"), report=tmp_path / "missing.xml")])
    assert (0, 2, 0) == totals(runner.outcomes)


def test_a_failed_step_says_all_it_said(runner: Runner, capsys: pytest.CaptureFixture[str]) -> None:
    """The output of a step that failed is printed, but for its progress; that of one that passed is not."""
    bad = python("print('..F.s [ 40%]'); print('told'); raise SystemExit(3)")
    runner.run([Step("good", python("print('hushed')")), Step("bad", bad)])
    output = capsys.readouterr().out
    assert "\ntold" in output
    assert "\n..F.s" not in output
    assert "\nhushed" not in output


def test_a_hanging_step_is_ended(runner: Runner) -> None:
    """A step that outlives its limit has failed, and shows where it hung."""
    hangs = Step("hangs", python("import threading; threading.Event().wait()"), limit_s=1.0)
    assert not runner.run([hangs])
    log = runner.outcomes[0].log
    assert log is not None
    assert "still running after 1 s" in log.read_text()
    assert "threading.py" in log.read_text()


def test_a_step_has_an_environment_of_its_own(runner: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    """A command has the variables that its step names, none of its starter's that would change it, and all others."""
    for name, value in {"MILLPOND_COMPILED": "no", "PYTHONPATH": "elsewhere", "KEPT": "kept"}.items():
        monkeypatch.setenv(name, value)
    tell = "import os; print([os.environ.get(name) for name in ('MILLPOND_COMPILED', 'PYTHONPATH', 'KEPT')])"
    own = {"MILLPOND_COMPILED": "require"}
    runner.run(
        [Step("named", python(tell), last_words=r"^\[", environment=own), Step("not", python(tell), last_words=r"^\[")]
    )
    assert ["['require', None, 'kept']", "[None, None, 'kept']"] == [outcome.said for outcome in runner.outcomes]
    log = runner.outcomes[0].log
    assert log is not None
    assert log.read_text().startswith("$ MILLPOND_COMPILED=require ")


def test_a_call_that_raises_is_a_failure(runner: Runner, capsys: pytest.CaptureFixture[str]) -> None:
    """A step may be a function; what it raises is its failure, in words."""

    def fails() -> None:
        raise RuntimeError("not today")

    assert not runner.run([Step("call", call=fails)])
    assert "RuntimeError: not today" in capsys.readouterr().out
