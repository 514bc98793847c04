"""What the pages promise is so: their Python runs, their links lead somewhere, the files that they name are there.

The pages about ``millpond.testing`` are run in ``tests/testing``, those that need a server in ``tests/live``.
"""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import millpond
from millpond.drivers.sqlite import SQLiteDriver
from millpond.url import MYSQL_OPTIONS

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "src" / "millpond"
PAGES = [*ROOT.glob("*.md"), *ROOT.glob("bench/*.md"), *ROOT.glob("docs/**/*.md")]
# Pages whose every path is checked, and the folders below which one may be meant.
GUIDES = {
    "README.md": [ROOT],
    "bench/README.md": [ROOT, ROOT / "bench"],
    "CONTRIBUTING.md": [ROOT],
    "docs/ARCHITECTURE.md": [
        ROOT,
        PACKAGE,
        *(PACKAGE / folder for folder in ("_database", "cli/demo", "dbutils", "drivers")),
    ],
}
DEADLINE_S = 60.0


def text(page: str | Path) -> str:
    """Return what a page says."""
    return (ROOT / page).read_text(encoding="utf-8")


def python_of(page: str) -> list[str]:
    """Return the pieces of Python on a page."""
    return re.findall(r"```python\n(.*?)```", text(page), flags=re.DOTALL)


def run(code: str, folder: Path) -> str:
    """Run a piece of Python in a folder, warnings being errors; return what it printed."""
    command = [sys.executable, "-W", "error", "-c", code]
    answer = subprocess.run(command, check=False, capture_output=True, text=True, cwd=folder, timeout=DEADLINE_S)
    assert (0, "") == (answer.returncode, answer.stderr)
    return answer.stdout


def test_the_first_lines_run(tmp_path: Path) -> None:
    """The Python of the README runs as it stands, one piece after another, and prints what it says."""
    printed = [run(code, tmp_path) for code in python_of("README.md")]
    assert ["1 kept", "2 kept as well", "2 liked"] == printed[0].splitlines()
    assert "uses=1" in printed[1]


def test_the_page_of_the_pool_begins_with_a_program(tmp_path: Path) -> None:
    """It runs, and so would those for other people's packages, as far as one sees without these."""
    first, *others = python_of("docs/pool.md")
    assert "(0,)\n" == run(first, tmp_path)
    assert 4 == len([compile(other, "docs/pool.md", "exec") for other in others])


@pytest.mark.parametrize("kind", [millpond.Pool, millpond.AsyncPool])
def test_every_setting_is_on_the_page(kind: type[Any]) -> None:
    """The table of settings has them all, with their defaults, and none that is not there."""
    told = dict(re.findall(r"^\| `(\w+)` \| `(.*?)` \|", text("docs/pool.md"), flags=re.MULTILINE))
    given = [parameter for parameter in inspect.signature(kind).parameters.values() if parameter.name != "source"]
    settings = {parameter.name: repr(parameter.default).replace("'", '"') for parameter in given}
    for_tests = {"runtime", "clockwork"} & set(settings)
    not_for_tasks = set() if "dial" in settings else {"dial"}
    assert {name: told[name] for name in set(told) - not_for_tasks} == {
        name: default for name, default in settings.items() if name not in for_tests
    }


def test_every_option_of_a_url_is_on_the_page() -> None:
    """Those of MySQL's drivers and those of SQLite's are listed as the adapters read them."""
    page = text("docs/pool.md")
    mysql = page.partition("between them: ")[2].partition(". `ssl` is")[0]
    sqlite = page.partition("Those of SQLite are ")[2].partition(".")[0]
    assert sorted(MYSQL_OPTIONS) == re.findall(r"`(\w+)`", mysql)
    assert sorted(SQLiteDriver.options) == re.findall(r"`(\w+)`", sqlite)


def test_the_change_of_an_import_is_one(tmp_path: Path) -> None:
    """What the page for users of DBUtils has them write runs, and finds what DBUtils' own import would."""
    changed, installed = python_of("docs/migrate-from-dbutils.md")
    assert "PooledDB\n" == run(f"{changed}print(PooledDB.__name__)", tmp_path)
    looked_at = "from dbutils.pooled_db import PooledDB\nprint(PooledDB.__module__)"
    assert "millpond.dbutils.pooled_db\n" == run(f"{installed}{looked_at}", tmp_path)


def test_there_is_one_logger(tmp_path: Path) -> None:
    """What the page sets is the logger that the pool writes to."""
    (code,) = python_of("docs/reports.md")
    heard = "import millpond._shell\nprint(millpond._shell.logger.level == logging.DEBUG)"
    assert "True\n" == run(code + heard, tmp_path)


def test_the_played_server_plays(tmp_path: Path) -> None:
    """The page's example of a server that cannot reset shows what the pool does instead."""
    (code,) = (code for code in python_of("docs/testing-servers.md") if "FakeServer" in code)
    assert "ROLLBACK, or a new connection" in run(code, tmp_path)


def anchors(page: Path) -> list[str]:
    """Return the names by which the headings of a page are linked to."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return [re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings]


def leads_somewhere(page: Path, target: str) -> bool:
    """Say whether a link on a page finds its file, and its heading."""
    file, _, anchor = target.partition("#")
    found = (page.parent / file).resolve() if file else page
    return found.exists() and (not anchor or anchor in anchors(found))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    """Every link within the project finds its file and its heading."""
    named = [target for target in re.findall(r"\]\(([^)\s]+)\)", text(page)) if "://" not in target]
    assert [] == [target for target in named if not leads_somewhere(page, target)]


@pytest.mark.parametrize("page", GUIDES)
def test_named_files_are_there(page: str) -> None:
    """Every file and folder that a guide names exists; one that was moved is found out here."""
    words = re.findall(r"(?<![\w./])[\w-][\w./-]*", re.sub(r"\]\(\S+\)", "", text(page)))
    paths = {word.rstrip(".") for word in words if "NAME" not in word}
    meant = [path for path in paths if path.endswith((".py", "/")) or is_there(page, path.partition("/")[0])]
    assert [] == sorted(path for path in meant if not is_there(page, path))


def is_there(page: str, path: str) -> bool:
    """Say whether a path that a guide names is one of the project's, or of the package's."""
    return any((folder / path).exists() for folder in GUIDES[page])


def test_the_architecture_names_every_module() -> None:
    """A newcomer finds each public module of the package on the page, and each folder."""
    page = text("docs/ARCHITECTURE.md")
    modules = [path.name for path in PACKAGE.glob("*.py") if not path.name.startswith("_")]
    folders = [f"{path.parent.name}/" for path in PACKAGE.glob("*/__init__.py")]
    assert [] == sorted(name for name in [*modules, *folders] if name not in page)
