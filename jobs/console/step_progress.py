"""What commands that do N things show while they do them: how far they are, what at, and how long it will take (live.py)."""

import time

from rich.console import Console, ConsoleOptions, Group, RenderResult
from rich.text import Text

from jobs.console.live_view import Live
from jobs.console.widgets import bar, duration

WIDEST_BAR = 60


class Steps:
    """One phase after the other, each of so many steps, or of nobody knows how many; a with block."""

    def __init__(self, what: str, *, quiet: bool):
        """
        Args:
            what: the command, with which its lines begin.
        """
        self.what = what
        self.live = Live(lambda: self, self.line, quiet=quiet)
        self.begin("")

    def __enter__(self) -> "Steps":
        self.live.__enter__()
        return self

    def __exit__(self, *exception: object) -> None:
        self.live.__exit__(*exception)

    def begin(self, phase: str, total: float = 0, *, things: str = "", is_bytes: bool = False, basis: float = 0) -> None:
        """The next phase.

        Args:
            total: of its steps; 0: not known.
            things: what the steps are.
            is_bytes: they are bytes, and shown as megabytes.
            basis: steps that have to be done before they say how long the others will take.
        """
        self.phase, self.total, self.things, self.is_bytes, self.basis = phase, total, things, is_bytes, basis
        self.done, self.note, self.began = 0.0, "", time.monotonic()

    def add(self, steps: float = 1, note: str = "") -> None:
        """So many more are done; `note` stands beside the count until there is another."""
        self.done += steps
        self.note = note or self.note

    def say(self, text: str) -> None:
        """A line that stays."""
        self.live.say(text)

    def seconds_left(self) -> float | None:
        """By the phase's mean rate; None: there is nothing to go by."""
        if self.done <= 0 or self.done < self.basis or self.done >= self.total:
            return None
        return (time.monotonic() - self.began) * (self.total - self.done) / self.done

    def counts(self) -> str:
        """How far it is, in numbers."""
        if not self.total:
            return self.note
        scale = 1e6 if self.is_bytes else 1
        digits = 1 if self.is_bytes and self.total < 1e8 else 0
        done, total = min(self.done, self.total) / scale, self.total / scale
        things = "MB" if self.is_bytes else self.things
        return ", ".join(filter(None, [f"{done:,.{digits}f} of {total:,.{digits}f} {things}".rstrip(), self.note]))

    def line(self) -> str:
        left = self.seconds_left()
        text = f"{self.what}: {': '.join(filter(None, [self.phase, self.counts()])) or 'starting'}"
        return f"{text}, {duration(time.monotonic() - self.began)}" + (f", about {duration(left)} left" if left else "")

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        left, width = self.seconds_left(), options.max_width
        head = Text.assemble((f" {self.what}", "bold"), f"  {self.phase}")
        if self.total:
            share = min(self.done / self.total, 1)
            times = f"  {share:4.0%}  {duration(time.monotonic() - self.began)}" + (f", {duration(left)} left" if left else "")
            below = [
                Text.assemble(" ", bar(share, max(min(width - len(times) - 2, WIDEST_BAR), 0), "green"), times),
                Text(f" {self.counts()}"),
            ]
        else:
            head.append(f"  {self.note}  {duration(time.monotonic() - self.began)}")
            below = []
        for line in (head, *below):
            line.truncate(width - 1, overflow="ellipsis")
        yield Group(head, *below)
