"""What DBUtils does with psycopg when links, servers and threads end, and the drop-in does not; on PostgreSQL."""

from __future__ import annotations

import contextlib
import importlib
import io
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from millpond import UncommittedWork
from millpond.dbutils.pooled_db import InvalidConnectionError, PooledDB, TooManyConnectionsError
from millpond.dbutils.steady_db import connect
from millpond.testing import FaultProxy, ScratchPostgreSQL
from tests.dbutils.waiting import DEADLINE_S, in_threads, joined, let_rest
from tests.live.outages import ask_while_down

from .scenes import Scene, number_of, run

PoolOf = Callable[..., Any]
SHOWN_S = 0.5  # a hang is shown by waiting so long


@pytest.fixture
def proxy(scene: Scene) -> Iterator[FaultProxy]:
    """Return a proxy in front of the server; it counts bytes and waits, whatever the protocol."""
    with FaultProxy(scene.server.port) as running:
        yield running


@pytest.fixture
def counted(scene: Scene) -> Any:
    """Return a function that connects, and notes in ``attempts`` that it was asked to."""

    def connect_counted(**given: Any) -> Any:
        connect_counted.attempts += 1  # type: ignore[attr-defined]  # set below
        return scene.driver.connect(**given)

    connect_counted.attempts = 0  # type: ignore[attr-defined]  # a function has what it is given
    return connect_counted


def test_a_silent_server_holds_nobody_up(pool_of: PoolOf, proxy: FaultProxy, scene: Scene, is_ours: bool) -> None:
    """While one caller connects to a server that does not answer, DBUtils lets nobody return a connection."""
    pool = pool_of(port=proxy.port, connect_timeout=2)  # libpq's least
    mine = pool.connection()
    proxy.silent = True
    failed: list[BaseException] = []

    def work() -> None:
        try:
            pool.connection()
        except scene.driver.OperationalError as error:
            failed.append(error)

    (connecting,) = in_threads(1, work)
    proxy.wait_for(lambda: proxy.accepted == 2)
    (returning,) = in_threads(1, mine.close)
    returning.join(DEADLINE_S if is_ours else SHOWN_S)
    assert is_ours == (not returning.is_alive())
    if is_ours:
        assert joined([connecting])  # by its time-out
    proxy.heal()
    proxy.refusing = True
    proxy.reset()
    assert joined([connecting, returning])
    assert 1 == len(failed)


def test_a_connect_is_bounded_without_a_word_of_the_program_s(scene: Scene, proxy: FaultProxy) -> None:
    """DBUtils gives libpq no time-out, which then has none; the drop-in gives it ten seconds."""

    def timeout_of(*given: Any, **named: Any) -> Any:
        pool = PooledDB(*given, **named)
        with pool.connection() as db:
            info = db.dbapi_connection.info
            found = info.dsn_parameters if hasattr(info, "dsn_parameters") else info.get_parameters()
        pool.close()
        return found.get("connect_timeout")

    def connects(**given: Any) -> Any:
        return scene.driver.connect(**given)

    assert timeout_of(connects, **scene.args) is None  # a function's own arguments are its own
    assert 5 <= int(timeout_of(scene.driver, **{**scene.args, "port": proxy.port})) <= 10
    words = " ".join(f"{name}='{value}'" for name, value in scene.args.items())
    before = (0, 0, 0, 0, False, None, None, True, None, 1)
    assert "33" == timeout_of(scene.driver, *before, f"{words} connect_timeout=33")


def test_a_return_into_a_black_hole_ends(pool_of: PoolOf, proxy: FaultProxy, is_ours: bool) -> None:
    """Nothing answers the rollback: DBUtils waits as long as TCP does, and everybody waits with it."""
    pool = pool_of(port=proxy.port, connect_timeout=2)
    db = pool.connection()
    run(db, "SELECT 1")
    proxy.black_hole = True
    (returning,) = in_threads(1, db.close)
    returning.join(DEADLINE_S if is_ours else SHOWN_S)
    assert is_ours == (not returning.is_alive())
    proxy.heal()
    proxy.reset()
    assert joined([returning])
    assert (1,) == run(pool.connection(), "SELECT 1")


@pytest.mark.parametrize("driver", ["psycopg"], indirect=True)  # the time-out costs two seconds
def test_a_thread_s_connection_is_left_in_time(scene: Scene, proxy: FaultProxy) -> None:
    """PersistentDB ends a transaction at close(): where nothing answers, its link is given up after a while."""
    settings = {**scene.args, "port": proxy.port, "connect_timeout": 2}
    db = importlib.import_module("millpond.dbutils.persistent_db").PersistentDB(scene.driver, **settings).connection()
    run(db, "SELECT 1")
    proxy.black_hole = True
    assert joined(in_threads(1, db.close))
    proxy.heal()
    assert (1,) == run(db, "SELECT 1")
    db._close()


@pytest.mark.parametrize("driver", ["psycopg2"], indirect=True)  # as above
def test_an_idle_connection_in_a_black_hole_is_replaced(scene: Scene, proxy: FaultProxy) -> None:
    """The check before it is handed out has a deadline; what the cut connection says then is nobody's business."""
    pool = PooledDB(scene.driver, check_after=0, **{**scene.args, "port": proxy.port})
    pool.connection().close()
    let_rest()
    proxy.reset_counts()
    proxy.to_client.black_hole = True
    taken: list[Any] = []
    (taking,) = in_threads(1, lambda: taken.append(pool.connection()))
    proxy.wait_for(lambda: proxy.bytes_to_client > 0, timeout=DEADLINE_S)  # the answer to the check, which is swallowed
    proxy.heal()
    assert joined([taking])
    assert 2 == proxy.accepted
    assert (1,) == run(taken[0], "SELECT 1")
    taken[0].close()
    pool.close()


def test_a_server_that_is_down_is_tried_once_a_caller(
    pool_of: PoolOf, proxy: FaultProxy, scene: Scene, counted: Any, is_ours: bool
) -> None:
    """DBUtils hands out dead connections, and tries to connect twice for each (I)."""
    pool = pool_of(counted, mincached=3, port=proxy.port)
    counted.attempts = 0
    handed_out, refused = ask_while_down(pool, proxy, scene.driver.Error)
    assert (0 if is_ours else 3) == handed_out
    assert all(isinstance(error, scene.driver.OperationalError) for error in refused)
    assert is_ours == (counted.attempts == 3)


def test_a_server_restarts(scene: Scene, driver: Any) -> None:
    """Idle connections are replaced before anything is sent, a transaction is told, an attempt meanwhile fails."""
    assert scene.server.is_running
    with ScratchPostgreSQL() as server:
        pool = PooledDB(driver, mincached=3, setsession=["SET application_name = 'ours'"], **server.connect_args())
        busy = pool.connection()
        run(busy, "CREATE TABLE y (id INT)")
        server.stop()
        with pytest.raises(driver.OperationalError):
            pool.connection()
        server.start()
        held = [pool.connection() for _ in range(3)]
        assert 3 * [("ours",)] == [run(db, "SELECT current_setting('application_name')") for db in held]
        with pytest.raises(driver.OperationalError):
            run(busy, "INSERT INTO y VALUES (1)")
        with pytest.raises(driver.OperationalError, match="nothing of it was kept"):
            busy.commit()
        assert (None,) == run(busy, "SELECT to_regclass('y')")
        server.kill()
        server.start()
        for db in [*held, busy]:
            with pytest.raises(driver.OperationalError):
                db.rollback()
            db.close()
        assert (1,) == run(pool.connection(), "SELECT 1")
        pool.close()


def test_a_dead_link_between_two_uses_is_replaced_before_anything_is_sent(scene: Scene) -> None:
    """A backend that was ended while its connection was idle is not noticed by the program."""
    pool = PooledDB(scene.driver, setsession=["SET application_name = 'ours'"], **scene.args)
    db = pool.connection()
    scene.kill(number_of(db))
    assert ("ours",) == run(db, "SELECT current_setting('application_name')")
    db.commit()
    scene.kill(number_of(db))
    run(db, "INSERT INTO x VALUES (1, 0)")
    db.commit()
    db.close()
    db = pool.connection()
    session = number_of(db)
    db.close()
    scene.kill(session)
    db = pool.connection()
    assert session != number_of(db)
    db.close()
    steady = connect(scene.driver, **scene.args)
    scene.kill(steady._con.info.backend_pid)
    assert (1,) == run(steady, "SELECT 1")
    steady.close()
    pool.close()
    assert [1] == scene.ids()


def test_what_a_session_had_is_not_lost_in_silence(scene: Scene) -> None:
    """A link that is lost with a setting, a lock or a temporary table is an error, once, outside of transactions."""
    pool = PooledDB(scene.driver, maxconnections=1, **scene.args)
    for leave in ("SET application_name = 'mine'", "SELECT pg_advisory_lock(8)", "CREATE TEMP TABLE mine (id INT)"):
        with pool.connection() as db:
            run(db, leave)
            db.commit()
            scene.kill(number_of(db))
            with pytest.raises(scene.driver.OperationalError, match="what the program had left in its session"):
                run(db, "SELECT 1")
            assert (1,) == run(db, "SELECT 1")
    pool.close()


def test_a_connection_that_was_closed_under_it_is_opened_anew(scene: Scene) -> None:
    """By the program, past the pool: outside of a transaction without a word, inside of one as any lost link."""
    pool = PooledDB(scene.driver, maxconnections=1, **scene.args)
    db: Any = pool.connection()
    db._con._con.close()
    assert (1,) == run(db, "SELECT 1")
    db.commit()
    db._con._con.close()
    assert (2,) == run(db, "SELECT 2")
    run(db, "INSERT INTO x VALUES (1, 0)")
    db._con._con.close()
    with pytest.raises(scene.driver.Error):
        run(db, "INSERT INTO x VALUES (2, 0)")
    with pytest.raises(scene.driver.OperationalError, match="nothing of it was kept"):
        db.commit()
    db._con._con.close()
    db.close()
    assert (3,) == run(pool.connection(), "SELECT 3")
    assert ([], 1) == (scene.ids(), pool.stats().size)
    pool.close()


def test_a_notification_is_no_end(scene: Scene) -> None:
    """What is to be read from an idle connection may be news: it is used on, and the news are the listener's."""
    pool = PooledDB(scene.driver, maxconnections=1, **scene.args)
    with pool.connection() as db:
        run(db, "LISTEN news")
        db.commit()
        session = number_of(db)
        scene.q("NOTIFY news")
        let_rest()
        assert (1,) == run(db, "SELECT 1")
        assert session == number_of(db)
        db.commit()
    with pool.connection() as db:
        assert session == number_of(db)
    pool.close()


def test_a_session_that_idled_in_a_transaction_is_lost(pool_of: PoolOf, scene: Scene, is_ours: bool) -> None:
    """PostgreSQL ends it with a state that is no error of a link; DBUtils goes on alone, and commits that."""
    db = pool_of().connection()
    run(db, "INSERT INTO x VALUES (1, 0)")
    run(db, "SET idle_in_transaction_session_timeout = '50ms'")
    scene.until(lambda: not scene.sessions())
    let_rest()
    if is_ours:
        with pytest.raises(scene.driver.Error):
            run(db, "INSERT INTO x VALUES (2, 0)")
        with pytest.raises(scene.driver.OperationalError, match="nothing of it was kept"):
            db.commit()
    else:
        run(db, "INSERT INTO x VALUES (2, 0)")
        db.commit()
    assert ([] if is_ours else [2]) == scene.ids()


def test_an_error_of_the_driver_s_own_costs_no_connection(scene: Scene) -> None:
    """Errors without a state that are not about the link, such as the use of a cursor that is closed."""
    pool = PooledDB(scene.driver, **scene.args)
    db = pool.connection()
    run(db, "INSERT INTO x VALUES (1, 0)")
    session = number_of(db)
    with pytest.raises(scene.driver.Error):
        run(db, "SELECT %s, %s", (1,)) if scene.driver.__name__ == "psycopg" else db.cursor("odd").executemany("", [])
    cursor = db.cursor()
    raw = cursor._cursor
    raw.close()
    with pytest.raises(scene.driver.InterfaceError):
        cursor.execute("SELECT 1")
    assert session == number_of(db)
    db.commit()
    db.close()
    assert [1] == scene.ids()
    pool.close()


def test_a_return_opens_nothing(pool_of: PoolOf, scene: Scene, counted: Any, is_ours: bool) -> None:
    """N8: DBUtils opens a connection for one that died while it was out."""
    pool = pool_of(counted)
    db = pool.connection()
    run(db, "SELECT 1")
    scene.kill(number_of(db))
    counted.attempts = 0
    db.close()
    assert (0 if is_ours else 1) == counted.attempts


def test_a_worn_connection_that_cannot_be_replaced_goes_on(
    pool_of: PoolOf, scene: Scene, is_ours: bool, proxy: FaultProxy
) -> None:
    """H2: at maxusage, when no other can be had, DBUtils raises a bare OperationalError for a healthy connection."""
    pool = pool_of(maxusage=2, port=proxy.port)
    db = pool.connection()
    for _ in range(2):
        run(db, "SELECT 1")
    db.commit()
    proxy.refusing = True
    if is_ours:
        assert (1,) == run(db, "SELECT 1")
        db.close()
        assert (1,) == run(pool.connection(), "SELECT 1")
    else:
        with pytest.raises(scene.driver.OperationalError) as caught:
            run(db, "SELECT 1")
        assert () == caught.value.args


def test_a_server_without_room_is_waited_for(pool_of: PoolOf, scene: Scene, is_ours: bool) -> None:
    """N5: DBUtils raises "too many connections" also where callers wait, and one of its own is about to come back."""
    scene.q(f"ALTER ROLE {scene.role} CONNECTION LIMIT 1")
    pool = pool_of(blocking=True)
    held = pool.connection()
    session = number_of(held)
    got: list[Any] = []

    def take() -> None:
        try:
            got.append(pool.connection())
        except scene.driver.OperationalError as error:
            got.append(error)

    (thread,) = in_threads(1, take)
    thread.join(SHOWN_S if is_ours else DEADLINE_S)
    assert is_ours == thread.is_alive()
    held.close()
    assert joined([thread])
    if is_ours:
        assert session == number_of(got[0])
    else:
        assert "too many connections" in str(got[0])


def test_connections_of_a_burst_are_closed_when_nobody_uses_them(pool_of: PoolOf, scene: Scene, is_ours: bool) -> None:
    """N: DBUtils keeps all connections of a burst for ever; here idle_timeout closes them, down to mincached."""
    pool = pool_of(mincached=1, **({"idle_timeout": 0.3} if is_ours else {}))
    held = [pool.connection() for _ in range(6)]
    for db in held:
        db.close()
    if is_ours:
        scene.until(lambda: 1 == len(scene.sessions()))
    assert (1 if is_ours else 6) == len(pool._idle_cache) == len(scene.sessions())


def test_a_closed_pool_is_closed(pool_of: PoolOf, scene: Scene, is_ours: bool) -> None:
    """D1: DBUtils hands out connections after close(), and keeps what comes back."""
    pool = pool_of()
    idle, out = pool.connection(), pool.connection()
    idle.close()
    pool.close()
    scene.until(lambda: 1 == len(scene.sessions()))
    assert (1,) == run(out, "SELECT 1")
    out.close()
    if is_ours:
        scene.until(lambda: not scene.sessions())
        with pytest.raises(InvalidConnectionError, match="closed"):
            pool.connection()
    else:
        assert (1, 1) == (len(pool._idle_cache), len(scene.sessions()))
        pool.connection().close()


def test_a_thread_s_connection_ends_with_it(package: str, scene: Scene, is_ours: bool) -> None:
    """N4: DBUtils' PersistentDB keeps it until the Thread object is collected."""
    persist = importlib.import_module(f"{package}.persistent_db").PersistentDB(scene.driver, **scene.args)
    threads = in_threads(3, persist.connection)
    assert joined(threads)
    if is_ours:
        scene.until(lambda: not scene.sessions())
    else:
        assert 3 == len(scene.sessions())


@pytest.mark.parametrize("driver", ["psycopg"], indirect=True)  # psycopg 2 reads all rows at once
def test_rows_that_are_left_behind_hold_nobody_up(pool_of: PoolOf, scene: Scene, is_ours: bool) -> None:
    """M10: DBUtils' close() waits for ever for the end of a psycopg 3 stream; here it costs its connection."""
    pool = pool_of(maxconnections=1)
    db = pool.connection()
    session = number_of(db)
    cursor = db.cursor()
    rows = cursor.stream("SELECT generate_series(1, 1000000)")
    assert (1,) == next(rows)
    (returning,) = in_threads(1, db.close)
    returning.join(DEADLINE_S if is_ours else SHOWN_S)
    assert is_ours == (not returning.is_alive())
    with contextlib.suppress(scene.driver.Error):
        rows.close()
    assert joined([returning])
    db = pool.connection()
    assert (1,) == run(db, "SELECT 1")
    assert not is_ours or session != number_of(db)


def test_a_copy_is_rolled_back_like_any_write(pool_of: PoolOf, scene: Scene, package: str) -> None:
    """COPY goes past execute(); the next borrower must not commit it."""
    pool = pool_of(maxconnections=1)
    for how in ("left", "committed"):
        db = pool.connection()
        cursor = db.cursor()
        number = 1 if how == "left" else 2
        if scene.driver.__name__ == "psycopg2":
            cursor.copy_expert("COPY x FROM STDIN", io.StringIO(f"{number}\t0\n"))
        else:
            with cursor.copy("COPY x FROM STDIN") as copy:
                copy.write(f"{number}\t0\n")
        if how == "committed":
            db.commit()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UncommittedWork)
            db.close()
    pool.connection().commit()
    assert [2] == scene.ids()
    assert package


def test_transactions_share_no_connection(pool_of: PoolOf, scene: Scene, is_ours: bool) -> None:
    """With maxshared, DBUtils puts a second caller into the open transaction of a first who did not say begin()."""
    pool = pool_of(maxshared=1, blocking=True)
    mine = pool.connection()
    run(mine, "INSERT INTO x VALUES (1, 0)")
    taken: list[Any] = []
    (taking,) = in_threads(1, lambda: taken.append(pool.connection()))
    taking.join(DEADLINE_S if not is_ours else SHOWN_S)
    assert is_ours == taking.is_alive()
    if not is_ours:
        taken[0].rollback()  # of the other's work
    mine.commit()  # which wakes who waits
    assert joined([taking])
    assert mine._con is taken[0]._con
    assert ([1] if is_ours else []) == scene.ids()


def test_threads_share_a_connection(scene: Scene) -> None:
    """Shares are handed out, used and given back side by side; a notification on the way is asked about by nobody."""
    pool = PooledDB(scene.driver, maxshared=2, blocking=True, ping=7, **scene.args)
    errors: list[BaseException] = []
    keeper = [pool.connection(), pool.connection()]

    def work() -> None:
        try:
            for number in range(40):
                db = pool.connection()
                assert (number,) == run(db, "SELECT %s::int", (number,))
                db.commit()
                db.close()
        except BaseException as error:  # noqa: BLE001  it is told below, in the test's own thread
            errors.append(error)

    assert joined(in_threads(6, work))
    assert [] == errors
    assert [1, 1] == [shared.shared for shared in pool._shared_cache]
    assert 2 == pool._connections == len(scene.sessions())
    for db in keeper:
        db.close()
    assert 0 == pool._connections
    pool.close()


def test_waiting_ends(scene: Scene) -> None:
    """C1: blocking takes a number of seconds; the error names who holds what, and is one of the driver's."""
    pool = PooledDB(scene.driver, maxconnections=1, blocking=0.1, **scene.args)
    held = pool.connection()
    with pytest.raises(TooManyConnectionsError, match=r"test_liveness.py:\d+ in test_waiting_ends") as caught:
        pool.connection()
    assert isinstance(caught.value, scene.driver.OperationalError)
    held.close()
    pool.close()


def test_what_a_cycle_waits_for(scene: Scene, proxy: FaultProxy) -> None:
    """The statement, ROLLBACK and one message that renews the session; without a transaction the last is enough."""
    for reset, autocommit, waits in ((True, False, 4), (True, True, 2), (False, True, 1)):
        pool = PooledDB(scene.driver, maxconnections=1, reset=reset, ping=7, **{**scene.args, "port": proxy.port})
        for number in range(3):
            with pool.connection() as db:
                if number == 2:
                    proxy.reset_counts()
                db.autocommit = autocommit
                run(db, "SELECT 1")
        # psycopg sends BEGIN before the first statement of a transaction, and waits for its answer.
        assert waits == proxy.waits
        pool.close()
