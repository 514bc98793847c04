"""A statement longer than ``max_allowed_packet``: its sender is told so, and nobody else is suspected of anything.

The server closes the link as soon as it sees the length, and its error is lost where the client was still writing.
"""

from __future__ import annotations

import pytest

import millpond
from tests.live.asking import answer, ask

from .ways import TABLE, Way

LIMIT = 1 << 20


@pytest.mark.parametrize("length", [LIMIT + 2048, 8 * LIMIT], ids=["just", "by far"])
def test_a_statement_that_is_too_long_is_called_that(way: Way, length: int) -> None:
    """It is error 1153 however the link broke; its connection is replaced, and no other is asked whether it lives."""
    root = way.root()
    ((before,),) = ask(root, "SELECT @@global.max_allowed_packet")
    ask(root, f"SET GLOBAL max_allowed_packet = {LIMIT}")
    try:
        pool = way.pool(max_size=2)
        with pool.connection() as one, pool.connection() as two:
            first, other = one.thread_id(), two.thread_id()
            ask(two, "SELECT 1")
            two.close()
            assert 1153 == answer(one, f"INSERT INTO {TABLE} VALUES (2, LENGTH('{'x' * length}'))")
        way.proxy.reset_counts()
        with pool.connection() as one, pool.connection() as two:
            assert other in {one.thread_id(), two.thread_id()}
            assert first not in {one.thread_id(), two.thread_id()}
            assert [(1,)] == ask(one, f"SELECT COUNT(*) FROM {TABLE}")
        if not way.tls:
            assert "COM_PING" not in [command.name for command in way.proxy.commands]
    finally:
        ask(root, f"SET GLOBAL max_allowed_packet = {before}")


def test_the_helper_layer_calls_it_a_value_and_does_not_try_again(plain_way: Way) -> None:
    """A statement that no server of this kind takes is no lost link, after which a transaction would be run again."""
    root = plain_way.root()
    ((before,),) = ask(root, "SELECT @@global.max_allowed_packet")
    ask(root, f"SET GLOBAL max_allowed_packet = {LIMIT}")
    try:
        runs: list[int] = []

        def insert() -> None:
            runs.append(1)
            db.execute(f"INSERT INTO {TABLE} VALUES (%s, LENGTH(%s))", (2, "x" * 8 * LIMIT))

        db = millpond.Database(plain_way.pool())
        with pytest.raises(millpond.InvalidValue, match="max_allowed_packet"):
            db.run_transaction(insert)
        assert (1, 1) == (len(runs), db.select_value(f"SELECT COUNT(*) FROM {TABLE}"))
    finally:
        ask(root, f"SET GLOBAL max_allowed_packet = {before}")
