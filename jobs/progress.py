"""What a run shows on stderr while it goes: a bar on a terminal, a line every ten seconds elsewhere.

It is told about events, one call each; events.JsonLines, for machines, has the same calls.
"""

import sys
import time
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar

from pipeline_ops.failures import Failure
from pipeline_ops.planning import Plan
from pipeline_ops.writing import Commit

LINE_SECONDS = 10


class Progress:
    """Counts commits. Totals are estimates: line formats are cut into units while they are read."""

    def __init__(self, plan: Plan, *, quiet: bool):
        self.units = self.documents = 0
        self.total = plan.num_units
        self.started = self.last_line = time.monotonic()
        self.console = Console(file=sys.stderr, quiet=quiet)
        self.bar = Bar(TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), console=self.console, transient=True)
        self.task = self.bar.add_task("starting", total=self.total)

    def __enter__(self) -> "Progress":
        if self.console.is_terminal and not self.console.quiet:
            self.bar.start()
        return self

    def __exit__(self, *exception: object) -> None:
        if self.bar.live.is_started:
            self.bar.stop()

    def begin(self, **facts: Any) -> None:
        """The run has begun: nothing that a person would have to be told."""

    def set_aside(self, failure: Failure) -> None:
        self.say(f"set aside: {failure.where}: {failure.error}: {failure.message}")

    def end(self, summary: dict[str, Any]) -> None:
        """The run has ended: its JSON line follows."""

    def say(self, text: str) -> None:
        self.console.print(text, highlight=False, markup=False, soft_wrap=True)

    def add(self, commit: Commit) -> None:
        self.units += 1
        self.documents += commit.documents
        now = time.monotonic()
        rate = self.documents / (now - self.started)
        total = max(self.units, self.total)
        text = f"{self.documents:,} documents, {self.units:,} of about {total:,} units, {rate:,.0f} documents/s"
        if self.bar.live.is_started:
            self.bar.update(self.task, description=text, completed=self.units, total=total)
        elif now - self.last_line >= LINE_SECONDS:
            self.last_line = now
            self.say(text)
