"""What a borrower leaves behind that is the same to see over each driver."""

from __future__ import annotations

from typing import Any

import pytest

import millpond

from .asking import answer, ask, wait_until

IN_PEACE_OR_NOT = pytest.mark.parametrize("end", ["", "SIGNAL SQLSTATE '45000';"], ids=["in peace", "with an error"])


def assert_no_prepared_transaction(pool: millpond.Pool[Any], root: Any, schema: str, table: str, end: str) -> None:
    """See that whoever comes after a procedure that prepares by XA and then ends so can write; the pool is closed.

    Args:
        pool: of one connection.
        root: an administrator's connection.
        schema: where the procedure is made and dropped.
        table: there; row 1 of it is written by who comes after, row 7 by the procedure.
        end: one of :data:`IN_PEACE_OR_NOT`.
    """
    name = f"{table}_prepared"
    prepare = f"XA START '{name}'; INSERT INTO {table} VALUES (7, 7); XA END '{name}'; XA PREPARE '{name}';"
    ask(root, f"CREATE PROCEDURE {schema}.{name}() BEGIN {prepare} {end} END")
    try:
        with pool.connection() as conn:
            answer(conn, f"CALL {name}()")
        with pool.connection() as conn:
            assert [] == ask(conn, f"UPDATE {table} SET b = 2 WHERE a = 1")
    finally:
        pool.close(0)
        ask(root, f"DROP PROCEDURE {schema}.{name}")
        wait_until(lambda: answer(root, f"XA ROLLBACK '{name}'") == [])  # the server lets go of it in its own time
