"""A FaultProxy in a process of its own: beside what is measured it would wait for the interpreter, and be timed."""

from __future__ import annotations

import multiprocessing
from typing import TYPE_CHECKING, Any

from millpond.testing import FaultProxy

if TYPE_CHECKING:
    from typing_extensions import Self


class ProxyElsewhere:
    """A proxy in front of a port of this machine.

    Args:
        upstream: the port.
        latency: seconds that everything takes, one way.
        counting: it counts commands, which costs it some time, and not waits alone.
    """

    def __init__(self, upstream: int, latency: float = 0.0, *, counting: bool = True) -> None:
        spawning = multiprocessing.get_context("spawn")
        self.pipe, theirs = spawning.Pipe()
        self.process = spawning.Process(target=serve, args=(upstream, latency, counting, theirs), daemon=True)
        self.process.start()
        theirs.close()
        self.port: int = self.pipe.recv()

    def delay(self, latency: float) -> None:
        """Let everything take so many seconds, one way, from now on."""
        self._ask("delay", latency)

    def reset(self) -> None:
        """Begin to count anew."""
        self._ask("reset")

    def counts(self, *, encrypted: bool = False) -> tuple[int, int]:
        """Return commands and waits; commands cannot be read where they are encrypted, and are none then."""
        commands, waits = self._ask("counts", encrypted)
        return commands, waits

    def close(self) -> None:
        """End the process."""
        self.pipe.send(("end", None))
        self.process.join(10)

    def _ask(self, what: str, value: Any = None) -> Any:
        self.pipe.send((what, value))
        return self.pipe.recv()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def serve(upstream: int, latency: float, counting: bool, pipe: Any) -> None:
    """Run the proxy, and do what is asked, until the end."""
    with FaultProxy(upstream, counting="mysql" if counting else None, latency=latency) as proxy:
        pipe.send(proxy.port)
        while True:
            what, value = pipe.recv()
            answer: Any = None
            if what == "delay":
                proxy.latency = value
            elif what == "reset":
                proxy.reset_counts()
            elif what == "counts":
                answer = (0 if value else len(proxy.commands), proxy.waits)
            else:
                return
            pipe.send(answer)
