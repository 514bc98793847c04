"""How the demo looks: live on a terminal, plain lines anywhere else.

Both are told the same; neither computes or judges anything.
"""

from __future__ import annotations

import abc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, SpinnerColumn, Task, TaskID, TextColumn
from rich.table import Table
from rich.text import Text

from .crowd import Watch

_BARS = "▁▂▃▄▅▆▇█"
_ASCII_BARS = "01234567"
_NARROW = 100  # columns; below, bars give their room to the figures


class Line(abc.ABC):
    """One line of the demo: something that goes on for a while and ends in figures."""

    @abc.abstractmethod
    def watch(self, progress: float, turns: int) -> None:
        """Show how far it is (0 to 1), and how many turns were taken so far."""

    @abc.abstractmethod
    def done(self, figures: str, *, ok: bool = True) -> None:
        """Show what came of it."""


class Screen(abc.ABC):
    """Where the demo is shown."""

    def __init__(self, console: Console) -> None:
        self.console = console

    @abc.abstractmethod
    def opening(self, title: str, subtitle: str) -> None:
        """Say what is about to be shown."""

    @abc.abstractmethod
    def heading(self, text: str) -> None:
        """Begin a new act."""

    @abc.abstractmethod
    def line(self, label: str) -> Line:
        """Begin a new line of the act."""

    @abc.abstractmethod
    def table(self, title: str, rows: Sequence[tuple[str, str, str]]) -> None:
        """Show names, values and what they mean."""

    @abc.abstractmethod
    def verdict(self, faults: Sequence[str]) -> None:
        """Say that all was well, or what was not."""

    def bars(self, numbers: Sequence[int]) -> str:
        """Draw one bar a number, from 0 up to the largest."""
        signs = _BARS if self.console.encoding.lower().startswith("utf") else _ASCII_BARS
        most = max(numbers) or 1
        return "".join(signs[round(number / most * (len(signs) - 1))] for number in numbers)


@contextmanager
def screen_for(stream: TextIO) -> Iterator[Screen]:
    """Yield the screen that suits *stream*: a live one for a terminal, plain lines for a pipe or a file."""
    console = Console(file=stream, highlight=False)
    if not console.is_terminal or console.is_dumb_terminal:
        yield PlainScreen(console)
        return
    with Progress(*_columns(console.width), console=console, refresh_per_second=12) as progress:
        yield LiveScreen(console, progress)


class PlainScreen(Screen):
    """One line of text for each thing that has come to its end."""

    def opening(self, title: str, subtitle: str) -> None:
        """Print both."""
        self._print(title)
        self._print(subtitle)

    def heading(self, text: str) -> None:
        """Print it after an empty line."""
        self._print(f"\n{text}")

    def line(self, label: str) -> Line:
        """Return a line that is printed when it is done."""
        return _PlainLine(self, label)

    def table(self, title: str, rows: Sequence[tuple[str, str, str]]) -> None:
        """Print a row a line."""
        self._print(f"\n{title}")
        for name, value, meaning in rows:
            self._print(f"  {name:<16} {value:>12}  {meaning}")

    def verdict(self, faults: Sequence[str]) -> None:
        """Print a line, or one a fault."""
        self._print("")
        for fault in faults:
            self._print(f"WRONG: {fault}")
        if not faults:
            self._print(_ALL_WELL)

    def _print(self, text: str) -> None:
        # Not rich's print: it would wrap lines at the width of a terminal that is not there.
        self.console.file.write(text + "\n")
        self.console.file.flush()


class _PlainLine(Line):
    def __init__(self, screen: PlainScreen, label: str) -> None:
        self._print = screen._print  # noqa: SLF001  one class in two
        self._label = label

    def watch(self, progress: float, turns: int) -> None:
        pass  # only what has come to its end is printed

    def done(self, figures: str, *, ok: bool = True) -> None:
        self._print(f"  {'ok   ' if ok else 'WRONG'} {self._label:<24} {figures}")


class LiveScreen(Screen):
    """Lines with a bar that fills, and figures that change while one looks."""

    def __init__(self, console: Console, progress: Progress) -> None:
        super().__init__(console)
        self._progress = progress

    def opening(self, title: str, subtitle: str) -> None:
        """Print both above everything that moves."""
        self.console.print(Text(title, style="bold"))
        self.console.print(Text(subtitle, style="dim"))

    def heading(self, text: str) -> None:
        """Put it between the lines, so that it stays where it belongs."""
        self._progress.add_task("", total=None, heading=text, figures="", state="heading")

    def line(self, label: str) -> Line:
        """Add a line that moves."""
        return _LiveLine(self._progress, label)

    def table(self, title: str, rows: Sequence[tuple[str, str, str]]) -> None:
        """Draw a table without frames."""
        self._progress.stop()
        table = Table(
            title=title, title_justify="left", title_style="bold", box=None, show_header=False, pad_edge=False
        )
        table.add_column(style="cyan", no_wrap=True)
        table.add_column(justify="right", no_wrap=True)
        table.add_column(style="dim")
        for row in rows:
            table.add_row(*row)
        self.console.print()
        self.console.print(table)

    def verdict(self, faults: Sequence[str]) -> None:
        """Print a green line, or a red one a fault."""
        self.console.print()
        for fault in faults:
            self.console.print(Text(f"✗ {fault}", style="bold red"))
        if not faults:
            self.console.print(Text(f"✓ {_ALL_WELL}", style="bold green"))


class _LiveLine(Line):
    def __init__(self, progress: Progress, label: str) -> None:
        self._progress = progress
        self._task: TaskID = progress.add_task(label, total=1.0, heading="", figures="", state="running")
        self._label = label

    def watch(self, progress: float, turns: int) -> None:
        self._progress.update(self._task, completed=progress, figures=f"{turns:,}")

    def done(self, figures: str, *, ok: bool = True) -> None:
        state = "ok" if ok else "wrong"
        self._progress.update(self._task, completed=1.0, figures=figures, state=state)


class _Mark(ProgressColumn):
    """A spinner while a line runs, then how it ended."""

    def __init__(self) -> None:
        super().__init__()
        self._spinner = SpinnerColumn("dots", style="cyan")

    def render(self, task: Task) -> Text:
        state: str = task.fields["state"]
        if state == "ok":
            return Text("✓", style="green")
        if state == "wrong":
            return Text("✗", style="bold red")
        if state == "heading":
            return Text("")
        frame = self._spinner.render(task)
        return frame if isinstance(frame, Text) else Text(str(frame))


class _Label(ProgressColumn):
    """What a line is about; a heading stands out by an empty line above it."""

    def render(self, task: Task) -> Text:
        if task.fields["state"] == "heading":
            return Text(f"\n{task.fields['heading']}", style="bold")
        return Text(task.description)


class _Bar(BarColumn):
    """A bar, but not for a heading."""

    def render(self, task: Task) -> Text:  # type: ignore[override]  # nothing, where there is no bar
        return Text("") if task.fields["state"] == "heading" else super().render(task)  # type: ignore[return-value]


def _columns(width: int) -> list[ProgressColumn]:
    figures = TextColumn("{task.fields[figures]}")
    bar = [_Bar(bar_width=18, complete_style="cyan", finished_style="green")] if width >= _NARROW else []
    return [_Mark(), _Label(), *bar, figures]


_ALL_WELL = "Every row was right, no thread was starved, and nothing that was acknowledged was lost."
__all__ = ["Line", "Screen", "Watch", "screen_for"]
