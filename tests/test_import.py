"""What ``import millpond`` costs and brings along, in a process of its own."""

from __future__ import annotations

import subprocess
import sys

# Calls of Python functions, which are counted as time would be: the same on every run. What is left is the standard
# library's own modules, for the most part; before the tokens' patterns were made on demand it was 70,000.
CALLS_MAX = 36_000

BROUGHT_ALONG = """
import sys
before = set(sys.modules)
import millpond
tops = {name.partition(".")[0] for name in set(sys.modules) - before}
print(sorted(tops - set(sys.stdlib_module_names)), "asyncio" in sys.modules)
"""

CALLS = """
import sys
calls = 0
def count(frame, event, argument):
    global calls
    calls += event == "call"
sys.setprofile(count)
import millpond
sys.setprofile(None)
print(calls)
"""


def run(code: str) -> str:
    """Run a piece of Python, warnings being errors; return what it printed."""
    answer = subprocess.run([sys.executable, "-W", "error", "-c", code], check=False, capture_output=True, text=True)
    assert (0, "") == (answer.returncode, answer.stderr)
    return answer.stdout


def test_the_standard_library_is_all_that_it_takes() -> None:
    """Without a warning, and without asyncio, drivers or anything else that has to be installed."""
    assert "['millpond'] False\n" == run(BROUGHT_ALONG)


def test_an_import_is_cheap() -> None:
    """Nothing is computed that a program may never need."""
    assert int(run(CALLS)) < CALLS_MAX
