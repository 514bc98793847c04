"""A forked child keeps its hands off its parent's connections.

What a child inherits it must neither use nor end: drivers written in C, and some in Python, say goodbye to the server
in the destructor of a connection, and the parent's session would be over.
"""

from __future__ import annotations

import os

import pytest

from .doubles import run_program

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork on this system")

SOCKET_DRIVER = """
import gc, os, socket, sys, warnings, millpond
from millpond.drivers.base import Driver
warnings.simplefilter("ignore")

class Connection:
    # Says goodbye when it is destroyed, as drivers written in C do.
    def __init__(self):
        self.ours, self.theirs = socket.socketpair()
        self.fd = self.ours.fileno()
    def __del__(self):
        try:
            os.write(self.fd, b"QUIT")
        except OSError:
            pass
    def commit(self): pass
    rollback = commit

class SocketDriver(Driver):
    tracks_cursors = False
    is_clean = staticmethod(lambda conn: conn.fd > 0)
    def open(self, until): return Connection()
    def is_alive(self, conn, until): return True
    def reset(self, conn, until): return True
    def close(self, conn): os.write(conn.fd, b"QUIT")
    def fileno(self, conn): return conn.fd

def in_child(work):
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            work()
            gc.collect()
            status = 0
        finally:
            sys.stdout.flush()
            os._exit(status)
    assert os.waitpid(pid, 0)[1] == 0

def heard(theirs):
    theirs.setblocking(False)
    try:
        return theirs.recv(100)
    except BlockingIOError:
        return b""
"""


def test_a_child_says_nothing_to_its_parent_s_server() -> None:
    """Idle or leased, what was inherited is pointed at nothing before it is let go of."""
    text = """
    pool = millpond.Pool(SocketDriver(), max_size=3)
    idle, leased = pool.connection(), pool.connection()
    theirs = [idle.theirs, leased.theirs]
    idle.close()
    def child():
        global pool, leased
        del pool, leased
    in_child(child)
    print(*map(heard, theirs))
    leased.close()
    pool.close()
    print(*(heard(their)[:4] for their in theirs))
    """
    assert "b'' b''\nb'QUIT' b'QUIT'\n" == run_program(SOCKET_DRIVER + dedented(text))


def test_a_child_works_on_connections_of_its_own() -> None:
    """A pool made before the fork serves the child, without a connection of its parent's; the parent's goes on."""
    text = """
    pool = millpond.Pool(SocketDriver(), max_size=1)
    pool.connection().close()
    with pool.connection() as conn:
        inherited = conn.driver_connection
    def child():
        with pool.connection() as conn:
            print("child", pool.stats().opened, conn.driver_connection is inherited)
        pool.close()
    in_child(child)
    with pool.connection() as conn:
        print("parent", pool.stats().opened, conn.driver_connection is inherited)
    pool.close()
    """
    assert "child 1 False\nparent 1 True\n" == run_program(SOCKET_DRIVER + dedented(text))


def test_a_lease_that_was_held_across_a_fork_says_so_in_the_child() -> None:
    """Using it there is an error that names the fork; giving it back there is harmless."""
    text = """
    pool = millpond.Pool(SocketDriver(), max_size=1)
    lease = pool.connection()
    theirs = lease.theirs
    def child():
        try:
            lease.driver_connection
        except millpond.ConnectionReturned as error:
            print("forked" in str(error))
        lease.close()
        with pool.connection():
            print(pool.stats().leased)
    in_child(child)
    print(heard(theirs))
    lease.close()
    print(pool.stats().idle)
    """
    assert "True\n1\nb''\n1\n" == run_program(SOCKET_DRIVER + dedented(text))


def test_a_fork_while_another_thread_is_in_a_step_leaves_the_child_unlocked() -> None:
    """The child's locks are new: what the parent's other threads held at the fork is nobody's there."""
    text = """
    import threading
    pool = millpond.Pool(SocketDriver(), max_size=1)
    pool.connection().close()
    inside, over = threading.Event(), threading.Event()
    def hold():
        with pool._lock:
            inside.set()
            over.wait()
    thread = threading.Thread(target=hold)
    thread.start()
    inside.wait()
    def child():
        with pool.connection():
            print(pool.stats().leased)
    in_child(child)
    over.set()
    thread.join()
    """
    assert "1\n" == run_program(SOCKET_DRIVER + dedented(text))


def test_sqlite_connections_are_kept_from_closing_in_the_child(tmp_path: object) -> None:
    """They have no descriptor to point elsewhere: the child never closes them, and opens its own."""
    text = f"""
    path = {str(tmp_path)!r} + "/data.db"
    pool = millpond.Pool("sqlite:///" + path, max_size=2)
    with pool.connection() as conn:
        conn.execute("CREATE TABLE t (x)")
        conn.commit()
    def child():
        with pool.connection() as conn:
            conn.execute("INSERT INTO t VALUES (1)")
            conn.commit()
            print("child", pool.stats().opened)
    in_child(child)
    with pool.connection() as conn:
        print("parent", pool.stats().opened, conn.execute("SELECT COUNT(*) FROM t").fetchone())
    pool.close()
    """
    assert "child 1\nparent 1 (1,)\n" == run_program(SOCKET_DRIVER + dedented(text))


def dedented(text: str) -> str:
    """Return the text without its margin."""
    lines = text.strip("\n").split("\n")
    margin = len(lines[0]) - len(lines[0].lstrip())
    return "\n".join(line[margin:] for line in lines) + "\n"


def test_a_fork_while_a_dial_prepares_its_tls_leaves_the_child_able_to_dial() -> None:
    """What is prepared once for all connections is prepared again there, by whoever dials first."""
    text = """
    import ssl, threading
    preparing, over = threading.Event(), threading.Event()
    prepare = ssl.create_default_context
    def prepare_slowly(*args, **settings):
        preparing.set()
        over.wait(60)
        return prepare(*args, **settings)
    ssl.create_default_context = prepare_slowly
    pool = millpond.Pool("mysql://user:password@127.0.0.1:1/shop?ssl=required", min_idle=1)
    assert preparing.wait(60)
    def child():
        ssl.create_default_context = prepare
        try:
            pool.connection(20)
        except pool.driver.family("OperationalError") as error:
            print(millpond.PoolTimeout in type(error).__mro__, "refused" in str(error))
    in_child(child)
    over.set()
    pool.close()
    """
    assert "False True\n" == run_program(SOCKET_DRIVER + dedented(text))


def test_a_fork_while_a_callable_is_being_learned_leaves_the_child_able_to_dial() -> None:
    """What kind of connection it makes is found out again."""
    text = """
    import threading
    from millpond.drivers import found
    learning, over = threading.Event(), threading.Event()
    find = found.adapter_named
    def find_slowly(name):
        learning.set()
        over.wait(60)
        return find(name)
    found.adapter_named = find_slowly
    class Plain:
        def close(self): pass
        commit = rollback = cursor = close
    pool = millpond.Pool(Plain, min_idle=1)
    assert learning.wait(20)
    def child():
        found.adapter_named = find
        with pool.connection(20) as conn:
            print(type(conn.driver_connection).__name__)
    in_child(child)
    over.set()
    pool.close()
    """
    assert "Plain\n" == run_program(SOCKET_DRIVER + dedented(text))


def test_a_lock_that_another_thread_held_at_a_fork_is_open_in_the_child() -> None:
    """One that the forking thread holds itself it can still let go of there; in the parent nothing changes."""
    text = """
    import threading
    from millpond.forks import LockOfProcess
    lock, own = LockOfProcess(), LockOfProcess()
    def is_free(lock):
        found = []
        asking = threading.Thread(target=lambda: found.append(lock.acquire(False) and lock.release() is None))
        asking.start()
        asking.join()
        return found[0]
    inside, over = threading.Event(), threading.Event()
    def hold():
        with lock():
            inside.set()
            over.wait(60)
    holder = threading.Thread(target=hold)
    holder.start()
    assert inside.wait(60)
    def child():
        with lock():
            print("child", is_free(lock()), lock() is lock())
    with own():
        in_child(child)
        in_child(lambda: print("own", own().acquire(False)))
    print("parent", is_free(lock()), is_free(own()))
    over.set()
    holder.join()
    """
    assert "child False True\nown True\nparent False True\n" == run_program(SOCKET_DRIVER + dedented(text))
