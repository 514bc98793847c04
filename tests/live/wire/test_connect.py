"""Connects cost what they must: one TLS context, resumed sessions, one deadline for everything, no weaker TLS."""

from __future__ import annotations

import ssl
import time
from typing import Any

import pymysql
import pytest

from millpond.drivers.pymysql import PyMySQLDriver
from millpond.testing import FaultProxy
from tests.live.asking import ask

from .ways import Way

SLACK_S = 20.0  # that a machine may be slow; what is missed otherwise has no end


def test_one_tls_context_for_all(tls_way: Way) -> None:
    """Every connection of a pool shares one context, and every one after the first resumes a session if it may."""
    pool = tls_way.pool(max_size=3)
    with pool.connection() as one, pool.connection() as two, pool.connection() as three:
        socks: list[Any] = [conn._sock for conn in (one, two, three)]
        assert 1 == len({id(sock.context) for sock in socks})
        reused = [sock.session_reused for sock in socks]
        assert all(ask(conn, "SHOW STATUS LIKE 'Ssl_cipher'")[0][1] for conn in (one, two, three))
    assert [False, resumes(tls_way), resumes(tls_way)] == reused


def resumes(way: Way) -> bool:
    """Say whether a server resumes sessions at all, as seen without any pool."""
    context = ssl.create_default_context(cafile=way.server.ca_file)
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    arguments = way.server.connect_args(tls=False) | {"ssl_disabled": None, "ssl": context}
    first: Any = pymysql.connect(**arguments)
    ask(first, "SELECT 1")

    class Again:
        """A context that offers the first session."""

        def wrap_socket(self, sock: Any, **settings: Any) -> ssl.SSLSocket:
            return context.wrap_socket(sock, session=first._sock.session, **settings)

    second: Any = pymysql.connect(**arguments, defer_connect=True)
    second.ctx = Again()
    second.connect()
    reused: bool = second._sock.session_reused
    first.close()
    second.close()
    return reused


@pytest.mark.parametrize("attempt", ["silent from the start", "no answer to the handshake", "no answer to anything"])
def test_a_silent_server_costs_the_time_that_was_given(way: Way, attempt: str) -> None:
    """TCP, TLS, handshake and set-up together end at the deadline, wherever the silence begins."""
    driver = PyMySQLDriver(pymysql, connect_args=way.arguments())
    driver.close(driver.open(time.monotonic() + 10))
    way.proxy.silent = attempt == "silent from the start"
    way.proxy.to_server.black_hole = attempt == "no answer to the handshake"
    way.proxy.to_client.black_hole = attempt == "no answer to anything"
    began_at = time.monotonic()
    with pytest.raises(pymysql.err.OperationalError):
        driver.open(began_at + 0.5)
    assert 0.49 <= time.monotonic() - began_at < 0.5 + SLACK_S


def test_the_set_up_has_no_more_time_than_the_rest(way: Way) -> None:
    """A set-up that is not answered ends at the same deadline as all before it."""
    driver = PyMySQLDriver(pymysql, connect_args=way.arguments(), on_connect="SELECT SLEEP(30)")
    began_at = time.monotonic()
    with pytest.raises(pymysql.err.OperationalError):
        driver.open(began_at + 0.5)
    assert 0.49 <= time.monotonic() - began_at < 0.5 + SLACK_S


def with_mode(way: Way, mode: str, *, vouched: bool) -> dict[str, Any]:
    """Return what changes a pool's arguments to one of our modes of TLS."""
    unset = dict.fromkeys(("ssl_disabled", "ssl_verify_cert", "ssl_verify_identity", "ssl_ca"))
    return {**unset, "ssl": mode, **({"ssl_ca": way.server.ca_file} if vouched else {})}


@pytest.mark.parametrize("mode", ["disabled", "preferred", "required", "verify-ca", "verify-identity"])
def test_tls_is_what_was_asked_for(tls_way: Way, mode: str) -> None:
    """Each rung of the ladder holds on a server that has TLS."""
    pool = tls_way.pool(connect_args=with_mode(tls_way, mode, vouched=mode.startswith("verify")))
    with pool.connection() as conn:
        encrypted = bool(ask(conn, "SHOW STATUS LIKE 'Ssl_cipher'")[0][1])
    assert (mode != "disabled") == encrypted


def test_an_unknown_authority_is_refused_at_once(tls_way: Way) -> None:
    """A certificate that nobody vouches for ends the first dial, whatever was resumed elsewhere."""
    pool = tls_way.pool(connect_args=with_mode(tls_way, "verify-identity", vouched=False))
    with pytest.raises(pymysql.err.OperationalError) as refused:
        pool.connection()
    assert "certificate" in str(refused.value).lower()


def test_a_password_is_asked_for_at_every_dial(way: Way) -> None:
    """A callable gives each dial the password of the moment; a rotated one takes effect with the next dial."""
    words = iter([way.server.password] * 2)
    asked: list[int] = []

    def password() -> str:
        asked.append(1)
        return next(words)

    pool = way.pool(max_size=2, connect_args={"password": password})
    with pool.connection() as one, pool.connection() as two:
        assert [[(1,)]] * 2 == [ask(conn, "SELECT 1") for conn in (one, two)]
    assert 2 == len(asked)


def test_dials_through_a_dead_proxy_are_refused(plain_way: Way) -> None:
    """A refused connection is told as PyMySQL tells it."""
    with FaultProxy(plain_way.server.port) as closed:
        port = closed.port
    pool = plain_way.pool(connect_args={"port": port})
    with pytest.raises(pymysql.err.OperationalError) as refused:
        pool.connection()
    assert 2003 == refused.value.args[0]


def test_replies_are_read_without_detours(way: Way) -> None:
    """A connection's file asks its socket itself, in the clear and under TLS; its reply to a long read is all there."""
    with way.pool().connection() as conn:
        assert "readinto" in conn.driver_connection._rfile.raw.__dict__
        assert way.tls == isinstance(conn.driver_connection._sock, ssl.SSLSocket)
        assert [("x" * 100_000,)] == ask(conn, "SELECT REPEAT('x', 100000)")
