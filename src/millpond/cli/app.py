"""The commands. Each parses its options, does its work elsewhere, and turns errors into a line and an exit code."""

from __future__ import annotations

import contextlib
import signal
import sys
import tempfile
from collections.abc import Generator
from pathlib import Path
from types import FrameType
from typing import get_args

import click

import millpond as package
from millpond.testing.servers import Kind, ScratchServer, ServerFailed, ServerMissing

from .demo.acts import WrongRow
from .demo.play import Casting, play
from .demo.screen import screen_for
from .demo.stores import ServerStore, SqliteStore, Store

KINDS: tuple[Kind, ...] = get_args(Kind)


@click.group()
@click.version_option(package.__version__, prog_name="millpond")
def millpond() -> None:
    """Keep database connections: who holds which, and that each is alive, clean and affordable."""


@millpond.command(short_help="See the pool at work.")
@click.option("--url", metavar="URL", help="A MySQL or MariaDB to use, as in mysql://user:password@host/database.")
@click.option("--server", type=click.Choice(KINDS), help="Use a scratch server, started for this and removed after it.")
@click.option("--threads", type=click.IntRange(2, 1000), default=Casting.threads, show_default=True, help="How many.")
@click.option(
    "--connections",
    type=click.IntRange(1, 1000),
    default=Casting.connections,
    show_default=True,
    help="For all of them.",
)
@click.option("--seconds", type=click.FloatRange(1, 600), default=Casting.seconds, show_default=True, help="How long.")
def demo(url: str | None, server: Kind | None, threads: int, connections: int, seconds: float) -> None:
    """See the pool at work: many threads on few connections, fair shares, connections killed, nothing lost.

    Without options it needs nothing: the tables are in a temporary SQLite file. On a server, it makes tables of its
    own and drops them at the end. The exit code is 1 if anything that must hold did not.
    """
    if url and server:
        raise click.UsageError("--url and --server are two ways to say where; choose one.")
    casting = Casting(threads, connections, seconds)
    try:
        with _ended_in_order(), _store(url, server) as store, store.errors_in_words(), screen_for(sys.stdout) as screen:
            faults = play(store, casting, screen)
    except (package.Error, WrongRow, ServerMissing, ServerFailed) as error:
        raise click.ClickException(str(error)) from error
    sys.exit(1 if faults else 0)


@contextlib.contextmanager
def _ended_in_order() -> Generator[None, None, None]:
    """Make who ends this program, or closes its terminal, leave no table and no folder behind, as Ctrl-C does."""

    def end(number: int, frame: FrameType | None) -> None:
        del frame
        raise SystemExit(128 + number)  # what a shell says of a program that a signal has ended

    numbers = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]  # Windows has one
    before = {number: signal.signal(number, end) for number in numbers if signal.getsignal(number) == signal.SIG_DFL}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _store(url: str | None, server: Kind | None) -> Generator[Store, None, None]:
    with contextlib.ExitStack() as cleaning:
        if server:
            url = cleaning.enter_context(ScratchServer(server)).url()
        if url is None:
            folder = cleaning.enter_context(tempfile.TemporaryDirectory(prefix="millpond-demo-"))
            yield SqliteStore(Path(folder))
            return
        store = ServerStore(url)
        cleaning.callback(store.end)
        cleaning.callback(_tell_what_is_left, store)
        yield store


def _tell_what_is_left(store: Store) -> None:
    """Name what the demo could not clear away, whatever else it has to say."""
    error = store.undropped
    if error is not None:
        click.echo(f"Tables {store.prefix}* are left on {store.where}: {type(error).__name__}: {error}", err=True)
