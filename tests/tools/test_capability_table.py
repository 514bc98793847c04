"""The capability table of the docs says what the adapters say."""

from __future__ import annotations

from tools import capability_table
from tools.capability_table import PAGE, adapters, page_with, table


def test_the_page_is_up_to_date() -> None:
    """What is in docs/drivers.md is what would be written now."""
    text = PAGE.read_text(encoding="utf-8")
    assert page_with(text, table()) == text, "run: python -m tools.capability_table"


def test_every_adapter_is_found() -> None:
    """Those for threads, those for tasks, and variants."""
    names = {name for name, _ in adapters()}
    threads = {"pymysql", "mysqlclient", "mysqlconnector", "mysqlconnector, use_pure=False", "sqlite", "dbapi"}
    assert threads | {"asyncmy", "aiomysql", "aiosqlite"} <= names


def test_every_adapter_tells_of_the_same_things() -> None:
    """Each says something about each thing that there is to tell."""
    asked = {"deadline", "alive", "clean", "reset", "in flight", "cut", "errors"}
    assert {} == {name: asked - set(told) for name, told in adapters() if asked - set(told)}


def test_a_stale_page_is_noticed() -> None:
    """A page with another table is not what would be written, and only the table is replaced."""
    text = PAGE.read_text(encoding="utf-8")
    stale = page_with(text, "| nothing |")
    assert stale != text
    assert text == page_with(stale, table())
    assert 0 == capability_table.main(["--check"])
