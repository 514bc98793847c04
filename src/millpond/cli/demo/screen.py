"""How the demo looks: live on a terminal, plain lines anywhere else.

Both are told the same; neither computes or judges anything.
"""

from __future__ import annotations

import abc
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import TextIO

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

_BARS = "▁▂▃▄▅▆▇█"
_ASCII_BARS = "01234567"


class Line(abc.ABC):
    """One line of the demo: something that goes on for a while and ends in figures."""

    @abc.abstractmethod
    def watch(self, progress: float, turns: int) -> None:
        """Show how far it is (0 to 1), and how many turns were taken so far."""

    @abc.abstractmethod
    def done(self, figures: str, *, bars: str = "", ok: bool | None = None) -> None:
        """Show what came of it, *bars* first; *ok* says whether it is as it must be, None that nothing had to be."""


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
    def verdict(self, faults: Sequence[str], hint: str = "") -> None:
        """Say that all was well, or what was not, and what else there is to see."""

    def bars(self, numbers: Sequence[int]) -> str:
        """Draw one bar a number, from 0 up to the largest; many are drawn as the sums of their neighbours."""
        signs = _BARS if self.console.encoding.lower().startswith("utf") else _ASCII_BARS
        shown = squeezed(numbers, _BARS_MAX)
        most = max(shown, default=0) or 1
        return "".join(signs[round(number / most * (len(signs) - 1))] for number in shown)


def squeezed(numbers: Sequence[int], most: int) -> list[int]:
    """Return no more than *most* numbers: those given, or the sums of as many neighbours each as it takes."""
    width = -(-len(numbers) // most) or 1
    # A last sum of fewer neighbours than the others would look like a dip.
    whole = len(numbers) - len(numbers) % width if len(numbers) > width else len(numbers)
    return [sum(numbers[start : start + width]) for start in range(0, whole, width)]


@contextmanager
def screen_for(stream: TextIO) -> Generator[Screen, None, None]:
    """Yield the screen that suits *stream*: a live one for a terminal, plain lines for a pipe or a file."""
    console = Console(file=stream, highlight=False)
    if not console.is_terminal or console.is_dumb_terminal:
        yield PlainScreen(console)
        return
    screen = LiveScreen(console)
    with Live(screen, console=console, refresh_per_second=_FRAMES, vertical_overflow="visible"):
        yield screen


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
            self._print(f"  {name:<10} {value:>10}  {meaning}")

    def verdict(self, faults: Sequence[str], hint: str = "") -> None:
        """Print a line, or one a fault."""
        self._print("")
        for fault in faults:
            self._print(f"WRONG: {fault}")
        if not faults:
            self._print(_ALL_WELL)
        if hint:
            self._print(hint)

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

    def done(self, figures: str, *, bars: str = "", ok: bool | None = None) -> None:
        mark = {True: "ok", False: "WRONG", None: ""}[ok]
        self._print(f"  {mark:<5} {self._label:<{_LABEL}}{bars}{'  ' if bars else ''}{figures}")


class LiveScreen(Screen):
    """Lines that fill while one looks; it draws itself anew whenever it is asked to."""

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        self._shown: list[RenderableType] = []

    def __rich__(self) -> Group:
        """Return what is to be seen now."""
        return Group(*self._shown)

    def opening(self, title: str, subtitle: str) -> None:
        """Print both above everything that moves."""
        self.console.print(Text(title, style="bold"))
        self.console.print(Text(subtitle, style="dim"))

    def heading(self, text: str) -> None:
        """Begin a group of lines."""
        self._shown.append(Text(f"\n{text}", style="bold"))

    def line(self, label: str) -> Line:
        """Add a line that moves."""
        line = _LiveLine(label)
        self._shown.append(line)
        return line

    def table(self, title: str, rows: Sequence[tuple[str, str, str]]) -> None:
        """Draw a table without frames."""
        table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
        table.add_column(style="cyan", no_wrap=True)
        table.add_column(justify="right", no_wrap=True)
        table.add_column(style="dim")
        for row in rows:
            table.add_row(*row)
        self._shown.append(Group(Text(f"\n{title}", style="bold"), Padding(table, (0, 0, 0, 2))))

    def verdict(self, faults: Sequence[str], hint: str = "") -> None:
        """Print a green line, or a red one a fault."""
        lines = [Text(f"✗ {fault}", style="bold red") for fault in faults] or [
            Text(f"✓ {_ALL_WELL}", style="bold green")
        ]
        hints = [Text(f"  {hint}", style="dim")] if hint else []
        self._shown.append(Group(Text(), *lines, *hints))


class _LiveLine(Line):
    def __init__(self, label: str) -> None:
        self._label = label
        self._progress = 0.0
        self._figures = ""
        self._bars = ""
        self._ok: bool | None = None
        self._is_done = False

    def watch(self, progress: float, turns: int) -> None:
        self._progress, self._figures = progress, f"{turns:,}"

    def done(self, figures: str, *, bars: str = "", ok: bool | None = None) -> None:
        self._figures, self._bars, self._ok, self._is_done = figures, bars, ok, True

    def __rich__(self) -> Text:
        """Return the line as it is now: a bar and a count while it runs, its figures when it is done."""
        # What moves must not change its height; figures that are final are shown whole.
        line = Text() if self._is_done else Text(no_wrap=True, overflow="ellipsis")
        if self._is_done:
            mark, style = _MARKS[self._ok]
            line.append(f" {mark} ", style).append(f"{self._label:<{_LABEL}}")
            if self._bars:
                line.append(self._bars, style.removeprefix("bold ")).append("  ")
            return line.append(self._figures)
        frame = _SPINNER[int(time.monotonic() * _FRAMES) % len(_SPINNER)]
        filled = round(self._progress * _BAR)
        line.append(f" {frame} ", "cyan").append(f"{self._label:<{_LABEL}}")
        line.append("━" * filled, "cyan").append("━" * (_BAR - filled), "bright_black")
        return line.append(f" {self._figures}", "dim")


_LABEL, _BAR, _FRAMES = 22, 20, 12  # columns, columns, pictures a second
_BARS_MAX = 28  # so that a line fits into 80 columns
_MARKS = {True: ("✓", "green"), False: ("✗", "bold red"), None: ("·", "yellow")}
_SPINNER = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
_ALL_WELL = "Every row was right, no thread starved, and no acknowledged write was lost."
