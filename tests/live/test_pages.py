"""The pages' Python that needs a server runs as it stands, but for the address, on both servers."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from millpond.testing.servers import ScratchServer

DOCS = Path(__file__).parents[2] / "docs"
DEADLINE_S = 120.0
# What the pages' programs find: their tables, and what a program of its own would have defined.
SHOP = """
import dataclasses, millpond

def make(url):
    with millpond.Database(url) as shop:
        shop.execute("CREATE TABLE users (id INT AUTO_INCREMENT PRIMARY KEY, name VARCHAR(40))")
        shop.execute("CREATE TABLE accounts (id INT PRIMARY KEY, balance INT)")
        shop.execute("CREATE TABLE orders (id INT PRIMARY KEY, total INT)")
        shop.execute("CREATE TABLE customers (id INT PRIMARY KEY, name VARCHAR(40))")
        shop.insert_many("users", [{"id": 2, "name": "Alan"}, {"id": 7, "name": "Ada"}])
        shop.insert_many("accounts", [{"id": 1, "balance": 100}, {"id": 2, "balance": 0}])
        shop.insert_many("orders", [{"id": 1, "total": 5}, {"id": 2, "total": 6}])
        shop.insert("customers", {"id": 7, "name": "Ada"})

@dataclasses.dataclass
class Order:
    id: int
    total: int

def pay(order):
    db.execute("UPDATE accounts SET balance = balance - :total WHERE id = 1", {"total": order.total})

"""


def python_of(page: str) -> list[str]:
    """Return the pieces of Python on a page."""
    return re.findall(r"```python\n(.*?)```", (DOCS / page).read_text(encoding="utf-8"), flags=re.DOTALL)


def run(code: str, *arguments: str) -> Sequence[str]:
    """Run a program, warnings being errors; return the lines that it printed."""
    command = [sys.executable, "-W", "error", "-c", code, *arguments]
    answer = subprocess.run(command, check=False, capture_output=True, text=True, timeout=DEADLINE_S)
    assert (0, "") == (answer.returncode, answer.stderr)
    return answer.stdout.splitlines()


def on(server: ScratchServer, schema: str, code: str) -> str:
    """Return a page's program with the address of an empty schema in the place of the page's."""
    url = server.url("", tls=False).replace(f"/{server.database}?", f"/{schema}?").partition("?")[0]
    address = url.partition("://")[2]
    code, count = re.subn(r"(mysql\S*://)app:secret@[\w.]+/shop", rf"\1{address}", code)
    assert 1 == count
    return f"{SHOP}make({url!r})\n{code}"


def test_database(server: ScratchServer, schema: str) -> None:
    """What docs/database.md begins with, and its transaction in a transaction."""
    first, nested = python_of("database.md")
    looked_at = "print(user, names, new_id, db.select_column('SELECT balance FROM accounts ORDER BY id'))\n"
    code = on(server, schema, f"{first}{nested}{looked_at}db.close()")
    assert ["5", "6", "(7, 'Ada') ['Alan'] 8 [64, 30]"] == run(code)


def test_the_pool_under_sqlalchemy(server: ScratchServer, schema: str) -> None:
    """The engine of docs/pool.md takes its connections from the pool, and gives them back."""
    (code,) = (code for code in python_of("pool.md") if "create_engine" in code)
    looked_at = (
        "with engine.connect() as conn:\n"
        "    print(conn.execute(sqlalchemy.text('SELECT COUNT(*) FROM users')).scalar())\n"
        "print(pool.stats().opened, pool.stats().leased)\npool.close()"
    )
    assert ["3", "1 0"] == run(on(server, schema, code + looked_at))


def test_the_pool_for_tasks(server: ScratchServer, schema: str) -> None:
    """The first program of docs/asyncio.md."""
    assert ["('Ada',)"] == run(on(server, schema, python_of("asyncio.md")[0]))


def test_the_database_for_tasks(server: ScratchServer, schema: str) -> None:
    """The second program of docs/asyncio.md, which moves thirty in all."""
    code = on(server, schema, f"import asyncio\n{python_of('asyncio.md')[1]}\nasyncio.run(main())")
    assert ["(1, 70)", "(2, 30)"] == run(code)


def test_a_server_and_a_proxy(mysql: ScratchServer) -> None:
    """The first program of docs/testing-servers.md prints what it says that it prints."""
    code = python_of("testing-servers.md")[0]
    (said,) = re.findall(r"print\(proxy\..*\)  # (.*)", code)
    assert [said] == run(code)
    assert mysql.is_running  # what it starts is a server of its own
