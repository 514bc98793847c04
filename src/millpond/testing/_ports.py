"""Choose ports for servers and proxies of tests.

Why: a port that the kernel hands out by itself (bind to 0) lies in the range it also uses for outgoing connections.
While a server on such a port is down, any other connection of the machine may take it, and a client that keeps trying
a closed port of that range may even end up connected to itself. A server that must come back on the same port
therefore needs one from below that range.
"""

from __future__ import annotations

import random
import socket
from pathlib import Path

_LOWEST = 10240
_chooser = random.SystemRandom()


def _first_ephemeral_port() -> int:
    try:
        return int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    except (OSError, ValueError):
        return 32768  # Linux's default; macOS and Windows start at 49152


def choose_port(host: str = "127.0.0.1") -> int:
    """Return a port of ``host`` that is free now and that the kernel does not hand out by itself.

    Raises:
        OSError: two hundred random ports were all taken, or ``host`` is no address of this machine.
    """
    highest = _first_ephemeral_port() - 1
    lowest = _LOWEST if highest > _LOWEST + 1000 else 1024
    problem: OSError | None = None
    for _ in range(200):
        port = _chooser.randint(lowest, max(highest, lowest + 1000))
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except OSError as error:
                problem = error
                continue
            return port
    raise OSError(f"no free port on {host} between {lowest} and {highest}") from problem
