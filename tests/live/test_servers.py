"""ScratchServer starts, stops, dies and comes back as it says, on MariaDB and on MySQL."""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pymysql
import pytest

from millpond.testing.servers import Kind, ScratchServer, ServerFailed, ServerMissing, main

StartServer = Callable[..., ScratchServer]
BOTH = pytest.mark.parametrize("kind", ["mariadb", "mysql"])


def connect(to: ScratchServer, **changes: Any) -> pymysql.Connection[Any]:
    """Connect as the server says, but for some changes."""
    arguments = to.connect_args(user=changes.pop("user", None), tls=changes.pop("tls", None)) | changes
    return pymysql.connect(**arguments)


def rows(connection: pymysql.Connection[Any], statement: str) -> tuple[Any, ...]:
    """Return all rows of one statement."""
    with connection.cursor() as cursor:
        cursor.execute(statement)
        return tuple(cursor.fetchall())


def wait_for_end(pid: int) -> None:
    """Wait until a process has ended; fail after ten seconds."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        ended, _, _ = select.select([descriptor], [], [], 10)
        assert ended == [descriptor]
    finally:
        os.close(descriptor)


def test_says_truly_what_it_is(server: ScratchServer) -> None:
    """Kind and version are those that the server itself reports."""
    with connect(server) as connection:
        ((version,),) = rows(connection, "SELECT version()")
    assert server.version == version.split("-")[0]
    assert (server.kind == "mariadb") == ("mariadb" in version.lower())


def test_ordinary_user_is_ordinary(server: ScratchServer) -> None:
    """The app user may use its schemas and nothing that needs an administrator."""
    with connect(server, autocommit=True) as connection:
        rows(connection, f"CREATE DATABASE {server.database}_of_its_own")
        rows(connection, f"DROP DATABASE {server.database}_of_its_own")
        with pytest.raises(pymysql.err.OperationalError) as denied:
            rows(connection, "CREATE DATABASE elsewhere")
        assert 1044 == denied.value.args[0]


def test_wrong_password_is_refused_for_root_too(server: ScratchServer) -> None:
    """No user gets in without its password, from any address the server listens on."""
    for user in (server.user, "root"):
        with pytest.raises(pymysql.err.OperationalError) as denied:
            connect(server, user=user, password="")
        assert 1045 == denied.value.args[0]


def test_tls_is_used_and_verified(server: ScratchServer) -> None:
    """A connection by default is encrypted, its certificate checked against the authority and the address."""
    with connect(server) as connection:
        ((_, cipher),) = rows(connection, "SHOW SESSION STATUS LIKE 'Ssl_cipher'")
    assert cipher != ""


def test_plain_connection_to_a_server_with_tls(server: ScratchServer) -> None:
    """A server that offers TLS takes connections without."""
    with connect(server, tls=False) as connection:
        assert (("Ssl_cipher", ""),) == rows(connection, "SHOW SESSION STATUS LIKE 'Ssl_cipher'")


@BOTH
def test_without_tls_the_server_has_none(start_server: StartServer, kind: Kind) -> None:
    """A server made without TLS does not offer it."""
    server = start_server(kind)
    with pytest.raises(pymysql.err.OperationalError) as refused:
        connect(server, ssl_disabled=False, ssl_verify_cert=True)
    assert 2026 == refused.value.args[0]
    with pytest.raises(ValueError, match=r"ScratchServer\(tls=True\)"):
        server.connect_args(tls=True)


@BOTH
def test_options_reach_the_server(start_server: StartServer, kind: Kind) -> None:
    """Options given by name, and changed before a restart, are the server's."""
    server = start_server(kind, options={"max-connections": 20, "performance_schema": True})
    with connect(server) as connection:
        assert ((20, 1),) == rows(connection, "SELECT @@max_connections, @@performance_schema")
    server.options["max-connections"] = 30
    server.restart()
    with connect(server) as connection:
        assert ((30,),) == rows(connection, "SELECT @@max_connections")


@BOTH
def test_kill_keeps_what_was_committed(start_server: StartServer, kind: Kind) -> None:
    """After SIGKILL and a start the port is the same and committed rows are there."""
    server = start_server(kind)
    port = server.port
    with connect(server, autocommit=True) as connection:
        rows(connection, "CREATE TABLE kept (id INT PRIMARY KEY)")
        rows(connection, "INSERT INTO kept VALUES (7)")
        server.kill()
    assert not server.is_running
    with pytest.raises(pymysql.err.OperationalError):
        connect(server)
    server.start()
    assert port == server.port
    with connect(server) as connection:
        assert ((7,),) == rows(connection, "SELECT id FROM kept")


@BOTH
def test_stop_is_clean(start_server: StartServer, kind: Kind) -> None:
    """A stopped server says in its log that it shut down, and starting again finds nothing to recover."""
    server = start_server(kind)
    server.stop()
    assert "shutdown complete" in server.log().lower()
    before = len(server.log())
    server.start()
    assert "recovery" not in server.log()[before:].lower()
    server.stop()
    server.stop()


@BOTH
def test_paused_server_answers_nothing_until_resumed(start_server: StartServer, kind: Kind) -> None:
    """A paused server takes the connection and stays silent; resumed, it greets."""
    server = start_server(kind)
    server.pause()
    with socket.create_connection((server.host, server.port)) as client:
        silent, _, _ = select.select([client], [], [], 0.2)
        assert [] == silent
        server.resume()
        speaking, _, _ = select.select([client], [], [], 10)
        assert [client] == speaking
        assert b"\x0a" == client.recv(64)[4:5]  # a greeting of protocol 10
    server.pause()
    server.stop()
    assert not server.is_running


def test_close_leaves_nothing(start_server: StartServer) -> None:
    """After close() there is no process and no folder, and closing again is harmless."""
    server = start_server("mariadb")
    pid, folder = server.pid, server.folder
    assert pid is not None
    server.close()
    server.close()
    assert not folder.exists()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    with pytest.raises(ServerFailed, match="has no folder"):
        server.url(tls=False, socket=True)


def test_passwords_are_in_no_repr_and_on_no_command_line(start_server: StartServer) -> None:
    """Passwords show neither in repr nor in the process list nor, after the start, in a file."""
    server = start_server("mariadb", password="open sesame'\\")
    with connect(server) as connection:
        assert ((1,),) == rows(connection, "SELECT 1")
    command_line = Path(f"/proc/{server.pid}/cmdline").read_bytes().decode()
    for secret in (server.password, server.root_password):
        assert secret not in repr(server)
        assert secret not in command_line
        assert secret not in server.log()
    assert not (server.folder / "init.sql").exists()


def test_failed_start_shows_the_log() -> None:
    """A server that cannot start says so with the end of its log, and leaves no process."""
    server = ScratchServer("mariadb", options={"no_such_option_at_all": True})
    with pytest.raises(ServerFailed, match="no-such-option-at-all"):
        server.start()
    assert not server.is_running
    server.close()


def test_given_port_that_is_taken_fails_the_start(start_server: StartServer) -> None:
    """A port that the caller named is never swapped for another."""
    first = start_server("mariadb")
    second = ScratchServer("mariadb", port=first.port)
    with pytest.raises(ServerFailed, match="while starting"):
        second.start()
    second.close()


def test_server_dies_with_its_parent() -> None:
    """A server does not outlive SIGKILL of its process, and does outlive the thread that started it."""
    program = """
import os, sys, threading
from millpond.testing.servers import ScratchServer
servers = [ScratchServer("mariadb"), ScratchServer("mariadb")]
servers[0].start()
thread = threading.Thread(target=servers[1].start)
thread.start()
thread.join()
print(servers[0].pid, servers[1].pid, servers[0].folder, servers[1].folder, flush=True)
sys.stdin.readline()
print(servers[0].is_running, servers[1].is_running, flush=True)
sys.stdin.readline()
"""
    command = [sys.executable, "-c", program]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        assert parent.stdin is not None
        first, second, *folders = parent.stdout.readline().split()
        print(file=parent.stdin, flush=True)
        assert "True True\n" == parent.stdout.readline()
        parent.send_signal(signal.SIGKILL)
        wait_for_end(int(first))
        wait_for_end(int(second))
    for folder in folders:
        subprocess.run(["rm", "-r", folder], check=True)


def test_server_ends_with_its_process_and_its_object() -> None:
    """A program that forgets to close leaves neither a server nor a folder behind."""
    program = """
from millpond.testing.servers import ScratchServer
dropped = ScratchServer("mariadb").start()
print(dropped.pid, dropped.folder)
del dropped
kept = ScratchServer("mariadb").start()
print(kept.pid, kept.folder)
"""
    done = subprocess.run([sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, check=True)
    assert "" == done.stderr
    for line in done.stdout.splitlines():
        pid, folder = line.split()
        wait_for_end(int(pid))
        assert not Path(folder).exists()


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")  # the child only leaves
def test_forked_child_does_not_end_the_server(start_server: StartServer) -> None:
    """The exit of a forked child leaves its parent's server alone."""
    server = start_server("mariadb")
    child = os.fork()
    if child == 0:
        server.close()
        os._exit(0)
    os.waitpid(child, 0)
    assert server.is_running
    assert server.folder.exists()


def test_available_and_find_agree(pytestconfig: pytest.Config) -> None:
    """Every kind that was not left out is available, and found as what it is."""
    left_out: list[str] = pytestconfig.getoption("--without") or []
    kinds: tuple[Kind, ...] = ("mariadb", "mysql")
    for kind in kinds:
        if kind not in left_out:
            assert kind in ScratchServer.available()
            assert kind == ScratchServer.find(kind).kind


def test_missing_server_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A program of the wrong kind, or none, is reported with the command that helps."""
    mariadb = ScratchServer.find("mariadb").path
    monkeypatch.setenv("MILLPOND_MYSQLD", str(mariadb))
    with pytest.raises(ServerMissing, match="install mysql"):
        ScratchServer("mysql")
    monkeypatch.setenv("MILLPOND_MARIADBD", str(tmp_path / "nothing"))
    with pytest.raises(ServerMissing, match="mariadb-server-core"):
        ScratchServer("mariadb")


def test_install_is_done_when_all_is_there(capsys: pytest.CaptureFixture[str], pytestconfig: pytest.Config) -> None:
    """The command is content, and tells versions and paths, when nothing is missing."""
    both: tuple[Kind, ...] = ("mariadb", "mysql")
    left_out: list[str] = pytestconfig.getoption("--without") or []
    kinds: list[Kind] = [kind for kind in both if kind not in left_out]
    assert 0 == main(["install", *kinds])
    shown = capsys.readouterr().out
    for kind in kinds:
        assert f"{kind} {ScratchServer.find(kind).version}: {ScratchServer.find(kind).path}" in shown


def test_fresh_schema_is_empty_and_writable(server: ScratchServer, schema: str) -> None:
    """The fixture's schema belongs to the ordinary user."""
    with connect(server, tls=False, database=schema) as connection:
        assert () == rows(connection, "SHOW TABLES")
        rows(connection, "CREATE TABLE mine (id INT)")


def test_two_servers_of_a_kind_are_apart(start_server: StartServer) -> None:
    """Two servers have their own ports, data and identity."""
    first, second = start_server("mysql"), start_server("mysql")
    assert first.port != second.port
    identities: set[Any] = set()
    for server in (first, second):
        with connect(server) as connection:
            identities |= set(rows(connection, "SELECT @@server_uuid"))
    assert 2 == len(identities)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"kind": "postgres"}, "kind"),
        ({"port": 70000}, "port"),
        ({"start_timeout": 0}, "start_timeout"),
        ({"database": "a b"}, "database"),
        ({"user": "root"}, "user"),
    ],
)
def test_bad_arguments_are_named(arguments: dict[str, Any], named: str) -> None:
    """A bad argument is refused at once, by its name and with what is allowed."""
    with pytest.raises(ValueError, match=f"{named} is .* (allowed|'root')"):
        ScratchServer(**arguments)


def test_url_says_everything(start_server: StartServer) -> None:
    """The URL carries driver, user, escaped password, port, schema and TLS settings."""
    server = start_server("mariadb", password="a/b@c", tls=True)
    assert f"mysql://app:a%2Fb%40c@127.0.0.1:{server.port}/scratch?ssl_disabled=true" == server.url("", tls=False)
    verified = server.url()
    assert verified.startswith(f"mysql+pymysql://app:a%2Fb%40c@127.0.0.1:{server.port}/scratch?ssl_ca=")
    assert verified.endswith("&ssl_verify_cert=true&ssl_verify_identity=true")
    assert ":4407/" in server.url(port=4407)
    assert "@localhost/" in server.url(user="root", socket=True)
