"""Progress of commands that work in steps: phase, steps done, elapsed and remaining time."""

import time

from rich.console import Console, ConsoleOptions, Group, RenderResult
from rich.text import Text

from jobs.console.live_view import LiveView
from jobs.console.widgets import bar
from jobs.number_format import clock, counted

WIDEST_BAR = 60


class Steps:
    """Live view of consecutive phases, each with a known or unknown number of steps; a context manager."""

    def __init__(self, command: str, *, quiet: bool):
        """
        Args:
            command: its name, with which each line begins.
        """
        self.command = command
        self.live = LiveView(lambda: self, self.line, quiet=quiet)
        self.begin("")

    def __enter__(self) -> "Steps":
        self.live.__enter__()
        return self

    def __exit__(self, *exception: object) -> None:
        self.live.__exit__(*exception)

    def begin(
        self, phase: str, total: float = 0, *, item: str = "", is_bytes: bool = False, min_steps: float = 0, done: float = 0
    ) -> None:
        """Begin the next phase.

        Args:
            total: number of its steps; 0: unknown.
            item: what a step is, in the singular.
            is_bytes: steps are bytes, shown as megabytes.
            min_steps: steps to be done before the remaining time is shown.
            done: steps that were done before.
        """
        self.phase, self.total, self.item, self.is_bytes, self.min_steps = phase, total, item, is_bytes, min_steps
        self.done, self.note, self.started, self._done_before = float(done), "", time.monotonic(), done

    def add(self, steps: float = 1, note: str = "") -> None:
        """Count steps as done; `note` is shown after the count until the next one."""
        self.done += steps
        self.note = note or self.note

    def say(self, text: str) -> None:
        """Print a line above the view."""
        self.live.say(text)

    def seconds_left(self) -> float | None:
        """Remaining seconds at the mean rate of the phase; None: not enough steps done, or all."""
        done = self.done - self._done_before
        if done <= 0 or done < self.min_steps or self.done >= self.total:
            return None
        return (time.monotonic() - self.started) * (self.total - self.done) / done

    def counts(self) -> str:
        """Steps done and in total, and the note."""
        if not self.total:
            return self.note
        scale = 1e6 if self.is_bytes else 1
        digits = 1 if self.is_bytes and self.total < 1e8 else 0
        done, total = min(self.done, self.total) / scale, self.total / scale
        if self.is_bytes or not self.item:
            text = f"{done:,.{digits}f} of {total:,.{digits}f}" + " MB" * self.is_bytes
        else:
            text = f"{done:,.0f} of {counted(round(total), self.item)}"
        return ", ".join(filter(None, [text, self.note]))

    def line(self) -> str:
        """The line that is printed where stderr is no terminal."""
        left = self.seconds_left()
        text = f"{self.command}: {': '.join(filter(None, [self.phase, self.counts()])) or 'starting'}"
        return f"{text}, {clock(time.monotonic() - self.started)}" + (f", about {clock(left)} left" if left else "")

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        left, width = self.seconds_left(), options.max_width
        head = Text.assemble((f" {self.command}", "bold"), f"  {self.phase}")
        if self.total:
            share = min(self.done / self.total, 1)
            times = f"  {share:4.0%}  {clock(time.monotonic() - self.started)}" + (f", {clock(left)} left" if left else "")
            below = [
                Text.assemble(" ", bar(share, max(min(width - len(times) - 2, WIDEST_BAR), 0), "green"), times),
                Text(f" {self.counts()}"),
            ]
        else:
            head.append(f"  {self.note}  {clock(time.monotonic() - self.started)}")
            below = []
        for line in (head, *below):
            line.truncate(width - 1, overflow="ellipsis")
        yield Group(head, *below)
