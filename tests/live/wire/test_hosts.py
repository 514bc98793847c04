"""Where a program lives and how it gets to its server: greenlets, unix sockets, IPv6."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import millpond
from millpond.testing import ScratchServer
from tests.live.asking import ask

from .gevent_child import CONNECTIONS, GREENLETS, STATEMENTS
from .test_alive import wait_out_the_quiet
from .ways import Way

CHILD = Path(__file__).with_name("gevent_child.py")


@pytest.mark.parametrize(("before", "tls"), [(True, False), (False, True)], ids=["patched before", "patched after"])
def test_greenlets_share_a_pool(server: ScratchServer, before: bool, tls: bool) -> None:
    """None holds up the others: statements run side by side, time goes by meanwhile, and the program ends."""
    told = {"before": before, "arguments": server.connect_args(tls=tls)}
    done = subprocess.run(
        [sys.executable, CHILD, json.dumps(told)], capture_output=True, text=True, timeout=120, check=False
    )
    assert 0 == done.returncode, done.stderr
    seen = json.loads(done.stdout)
    all_of_them = GREENLETS * STATEMENTS
    assert (all_of_them, all_of_them) == (seen["right"], seen["clean"])
    assert (CONNECTIONS, CONNECTIONS) == (seen["most inside"], seen["opened"])
    assert seen["ticks"] > 0


@pytest.mark.parametrize("driver", ["pymysql", "mysqlclient", "mysqlconnector"])
def test_a_pool_over_a_unix_socket(server: ScratchServer, driver: str, plain_way: Way) -> None:
    """It is reset and polled as over TCP."""
    given = server.connect_args(socket=True)
    url = (
        f"mysql+{driver}://{given['user']}:{given['password']}@localhost/{given['database']}"
        f"?unix_socket={given['unix_socket']}&autocommit=true"
    )
    with millpond.Pool(url, max_size=1) as pool:
        with pool.connection() as conn:
            ((user, first),) = ask(conn, "SELECT USER(), CONNECTION_ID()")
            ask(conn, "SET @a = 1")
        with pool.connection() as conn:
            assert [(None, first)] == ask(conn, "SELECT @a, CONNECTION_ID()")
        assert str(user).endswith("@localhost")
        plain_way.kill(first)
        wait_out_the_quiet()
        with pool.connection() as conn:
            ((again,),) = ask(conn, "SELECT CONNECTION_ID()")
        assert again != first


def test_a_pool_over_ipv6(start_server: Callable[..., ScratchServer]) -> None:
    """An address in brackets, in the clear and under TLS, with each driver; which server it is has no part in it."""
    server = start_server("mariadb", tls=True, options={"bind_address": "::"})
    given: dict[str, Any] = server.connect_args()
    where = f"{given['user']}:{given['password']}@[::1]:{server.port}/{given['database']}"
    for driver in ("pymysql", "mysqlclient", "mysqlconnector"):
        for mode in ("required", "disabled"):
            with millpond.Pool(f"mysql+{driver}://{where}?ssl={mode}", max_size=1) as pool:
                with pool.connection() as conn:
                    assert [(f"{given['user']}@::1",)] == ask(conn, "SELECT USER()")
                assert "[::1]" in repr(pool)
