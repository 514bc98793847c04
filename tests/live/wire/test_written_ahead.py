"""A borrower's first command is written behind its predecessor's ROLLBACK: ten thousand times, with errors."""

from __future__ import annotations

import contextlib
import random
import threading
from typing import Any

import pymysql

import millpond
from tests.live.asking import answer, ask

from .ways import Way

CYCLES = 10_000
THREADS = 3
KILL_EVERY = 200  # cycles


COUNT_OF_ROLLBACKS = "SHOW GLOBAL STATUS LIKE 'Com_rollback'"


class Crowd:
    """Threads that each count up and write down, and take note of what was acknowledged.

    Attributes:
        highest: of the numbers whose commit was acknowledged: whoever comes later sees it, or more.
        sure: identities whose INSERT was acknowledged; ``unsure``: those whose answer was lost.
        stale: reads that saw less than they had to: their transaction was not their own.
    """

    def __init__(self, pool: millpond.Pool[Any], cycles: int) -> None:
        self.pool = pool
        self.left = cycles
        self.lock = threading.Lock()
        self.highest = 0
        self.sure: list[int] = []
        self.unsure: list[int] = []
        self.stale: list[tuple[int, int]] = []
        self.failed: list[BaseException] = []
        self.due = threading.Semaphore(0)  # released each KILL_EVERY cycles, and at the end

    def next_identity(self) -> int:
        """Return a number that nobody else has; 0 when it is over."""
        with self.lock:
            self.left -= 1
            if self.left % KILL_EVERY == 0 or self.left < 0:
                self.due.release()
            return max(0, self.left + 1)

    def work(self) -> None:
        """Cycle until it is over."""
        try:
            chance = random.Random(threading.get_ident())
            while identity := self.next_identity():
                self.cycle(identity, chance)
        except BaseException as error:  # noqa: BLE001  shown by the test
            self.failed.append(error)
            self.due.release()

    def cycle(self, identity: int, chance: random.Random) -> None:
        """Read first, write now and then, fail now and then, and leave a transaction open."""
        with self.lock:
            known = self.highest
        wrote = False
        try:
            with self.pool.connection(timeout=60) as conn:
                ((seen,),) = ask(conn, "SELECT MAX(n) FROM counted")  # the one that is written behind
                if seen < known:
                    self.stale.append((known, seen))
                if identity % 3 == 0:
                    wrote = True
                    ask(conn, f"INSERT INTO counted (n, identity) VALUES ({identity}, {identity})")
                    conn.commit()
                    with self.lock:
                        self.sure.append(identity)
                        self.highest = max(self.highest, identity)
                elif identity % 50 == 1:
                    assert answer(conn, "SELEKT 1") in {1064, 2013, 1927, 1317}  # or it was killed
                elif identity % 50 == 2:
                    ask(conn, "SET @a = 1")
                if chance.random() < 0.5:
                    ask(conn, "SELECT COUNT(*) FROM counted WHERE n = 1")
        except pymysql.err.MySQLError:
            if wrote and identity not in self.sure:
                self.unsure.append(identity)


def disturb(way: Way, crowd: Crowd) -> int:
    """Kill sessions and statements while the crowd works; return how many."""
    root = way.root()
    killed = 0
    while crowd.left > 0 and not crowd.failed:
        assert crowd.due.acquire(timeout=60)
        sessions = ask(root, f"SELECT ID FROM information_schema.PROCESSLIST WHERE USER = '{way.server.user}'")
        for (number,) in sessions[: 1 + killed % 2]:
            with contextlib.suppress(pymysql.err.MySQLError):  # it has just gone
                ask(root, f"KILL {'QUERY' if killed % 3 == 2 else ''} {number}")
            killed += 1
    return killed


def test_nothing_is_lost_doubled_or_seen_from_a_stale_transaction(plain_way: Way) -> None:
    """Through kills, resets and failing statements, each write is there once, and each read is of its own time."""
    conn = plain_way.root()
    ask(conn, f"USE {plain_way.server.database}")
    ask(conn, "DROP TABLE IF EXISTS counted")
    ask(conn, "CREATE TABLE counted (n INT, identity INT, KEY (n)) ENGINE=InnoDB")
    ask(conn, "INSERT INTO counted VALUES (0, 0)")
    pool = plain_way.pool(max_size=2, connect_args={"autocommit": False, "port": plain_way.server.port})
    rolled_back = ask(conn, COUNT_OF_ROLLBACKS)[0][1]
    crowd = Crowd(pool, CYCLES)
    threads = [threading.Thread(target=crowd.work) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    killed = disturb(plain_way, crowd)
    for thread in threads:
        thread.join(60)
    assert ([], []) == (crowd.failed, crowd.stale)
    assert killed > 20
    written = [identity for (identity,) in ask(conn, "SELECT identity FROM counted WHERE identity > 0")]
    assert len(written) == len(set(written))
    assert set(crowd.sure) <= set(written) <= set(crowd.sure) | set(crowd.unsure)
    assert int(ask(conn, COUNT_OF_ROLLBACKS)[0][1]) - int(rolled_back) > CYCLES / 2
