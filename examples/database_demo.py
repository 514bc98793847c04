"""The program of ``dbutils_demo.py`` on :class:`millpond.Database`: the same calls, and what changes by them.

    python examples/database_demo.py mysql+pymysql://USER:PASSWORD@HOST:3306/DATABASE

What changes, and why:

- The class is gone: taking, giving back, committing and rolling back is what ``Database`` does.
- Errors are raised, as the driver's own kinds.  There, a full pool, a dead server, a wrong statement, a duplicate key
  and "no such row" were all the same ``None``.
- Values are parameters everywhere, by place or by name; SQL is not put together by hand.
- A write says how many rows it changed, and several writes can be one transaction.
- A statement is one command to the server: no ping before it, no rollback after it.
- Connections are replaced by their age (``max_lifetime``), not every 20 statements, and never in a transaction.
- ``utf8mb4`` is the driver's default: emoji and rare characters are stored.
"""

from __future__ import annotations

import sys

import millpond


def main(url: str) -> None:
    """Read and write."""
    with millpond.Database(url, max_size=100) as db:
        db.execute("CREATE TABLE IF NOT EXISTS sell_test (name VARCHAR(64) PRIMARY KEY, price INT)")
        print(db.select_row("SELECT 1"))
        with db.transaction():  # both or none
            db.execute("REPLACE INTO sell_test (name, price) VALUES ('tea', 3)")
            db.execute("REPLACE INTO sell_test (name, price) VALUES (%s, %s)", ("rice", 5))
        print(db.select_row("SELECT name, price FROM sell_test WHERE name = :name", {"name": "rice"}))
        for row in db.select_rows("SELECT name, price FROM sell_test ORDER BY name"):
            print(row)


if __name__ == "__main__":
    main(sys.argv[1])
