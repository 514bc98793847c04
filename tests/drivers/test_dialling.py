"""How PyMySQL is made to connect, without a server."""

from __future__ import annotations

import socket
import time
from types import SimpleNamespace
from typing import Any

import pytest

from millpond.drivers._pymysql_dialling import open_socket


def test_an_address_that_does_not_answer_leaves_time_for_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a host with several addresses each gets its share of the time that is left, not the first one all of it."""
    allowed_s: list[float] = []

    class Network(socket.socket):
        """One on which the first two addresses are silent."""

        def connect(self, address: Any) -> None:
            allowed_s.append(self.gettimeout() or float("inf"))
            if len(allowed_s) < 3:
                raise TimeoutError("timed out")

    places = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (f"127.0.0.{number}", 3306)) for number in (1, 2, 3)]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_: places)
    monkeypatch.setattr(socket, "socket", Network)
    host = SimpleNamespace(unix_socket=None, bind_address=None, host="three.test", port=3306)
    open_socket(host, time.monotonic() + 60.0).close()
    first_s, second_s, third_s = allowed_s
    assert first_s <= 20.0
    assert second_s <= 30.0
    assert 30.0 < third_s <= 60.0
