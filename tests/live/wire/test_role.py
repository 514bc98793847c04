"""After a failover: a server that has become read-only is left, and no application's mistake drains a pool."""

from __future__ import annotations

from typing import Any

import pytest

import millpond
from millpond.testing import ScratchServer
from tests.live.asking import answer, ask

from .ways import TABLE, Way

WRITE = f"UPDATE {TABLE} SET b = b + 1"


class ReadOnly:
    """Make a server read-only for a while."""

    def __init__(self, way: Way) -> None:
        self.root = way.root()

    def __enter__(self) -> None:
        ask(self.root, "SET GLOBAL read_only = 1")

    def __exit__(self, *_: object) -> None:
        ask(self.root, "SET GLOBAL read_only = 0")


def warmed(way: Way, **settings: Any) -> millpond.Pool[Any]:
    """Return a pool with three idle connections."""
    pool = way.pool(max_size=3, **settings)
    with pool.connection() as one, pool.connection() as two, pool.connection() as three:
        assert [[(1,)]] * 3 == [ask(conn, "SELECT 1") for conn in (one, two, three)]
    return pool


def test_a_server_that_became_read_only_is_left(plain_way: Way) -> None:
    """The first write that is refused for it retires every connection dialled before; the next dial asks anew."""
    pool = warmed(plain_way)
    with ReadOnly(plain_way):
        with pool.connection() as conn:
            assert 1290 == answer(conn, WRITE)
        assert {"role": 3} == pool.stats().retired
        for _ in range(5):  # the new ones lead to the same server: not again within seconds
            with pool.connection() as conn:
                assert 1290 == answer(conn, WRITE)
        assert {"role": 3} == pool.stats().retired
    with pool.connection() as conn:
        assert [] == ask(conn, WRITE)


def test_a_replica_is_not_left_for_being_one(plain_way: Way) -> None:
    """A pool that has only ever seen a read-only server is not drained by an application that writes to it."""
    with ReadOnly(plain_way):
        pool = warmed(plain_way)
        with pool.connection() as conn:
            assert 1290 == answer(conn, WRITE)
        assert {} == pool.stats().retired


MISTAKES = {
    "a file where none may be written": ("SELECT 1 INTO OUTFILE '/nowhere/at/all'", {1290, 1}),
    "a write in a transaction of its own that is read-only": ("START TRANSACTION READ ONLY; " + WRITE, {1792}),
}


@pytest.mark.parametrize("what", MISTAKES)
def test_an_applications_mistake_drains_nothing(plain_way: Way, what: str) -> None:
    """Errors 1290 of another option, and 1792, say nothing about the server."""
    statements, numbers = MISTAKES[what]
    pool = warmed(plain_way, connect_args=dict(plain_way.server.connect_args(user="root", tls=False)))
    for _ in range(3):
        with pool.connection() as conn:
            ask(conn, f"USE {plain_way.server.database}")
            seen = [answer(conn, statement) for statement in statements.split("; ")]
        assert seen[-1] in numbers
    assert {} == pool.stats().retired


def test_stats_show_the_way_of_the_reset(server: ScratchServer) -> None:
    """What is done at return shows: the setting, and what it comes to here."""
    with millpond.Pool(server.url(tls=False), max_size=1) as pool:
        with pool.connection():
            pass
        assert "auto: COM_RESET_CONNECTION" == pool.stats().reset
