"""The live view of a run on stderr: on a terminal counts, rates, stages and labels, elsewhere a line every ten seconds.

It reads RunState; json_events.py shows the same to machines.
"""

import sys
import time
from collections import Counter
from heapq import nlargest

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, Group, RenderResult
from rich.text import Text

from cluster.resources import Pools
from jobs.console.live_view import LiveView
from jobs.console.widgets import RecentRates, bar, block, columns, fitted
from jobs.number_format import clock, number
from jobs.run.result import RunResult
from jobs.run.state import Event, Notice, RunState
from pipeline_ops.schema.failures import Failure
from pipeline_ops.writing.commit_record import Commit

MIN_UNITS = 4  # the remaining time is estimated from this many units on
MOST_LABELS = 8
WIDEST = 110  # cells
DOTS = 4  # actors; larger pools are shown as numbers only
SPINNER = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"


class RunProgress:
    """Shows the live view of a run during a with block, and its result at the end of it."""

    def __init__(self, state: RunState, *, quiet: bool):
        self.state = state
        self.recent: RecentRates | None = None  # from the first commit on
        self.live = LiveView(lambda: self, self.line, quiet=quiet)

    def __enter__(self) -> "RunProgress":
        self.state.observers.append(self.observe)
        self.live.__enter__()
        return self

    def __exit__(self, *exception: object) -> None:
        self.live.__exit__(*exception)
        if self.is_drawn and self.state.result is not None and exception[0] is None:
            Console(file=sys.stderr, highlight=False).print(ending(self.state.result), soft_wrap=True)

    @property
    def is_drawn(self) -> bool:
        """Whether stderr is a terminal, where the stages' activity is shown."""
        return self.live.is_drawn

    def observe(self, event: Event) -> None:
        match event:
            case Notice():
                self.live.say(event.text)
            case Failure():
                self.live.say(f"quarantined: {event.where}: {event.error}: {event.message}")
            case Commit():
                if self.recent is None:
                    self.recent = RecentRates(self.state.labeling_started or self.state.started, kinds=3)
                self.recent.add(time.monotonic(), event.documents, event.tokens, 1)

    def rates(self, now: float) -> tuple[float, ...]:
        """Recent documents, tokens and units per second."""
        return (0.0, 0.0, 0.0) if self.recent is None else self.recent.rates(now)

    def seconds_left(self) -> float | None:
        """Remaining seconds at the recent rate of units; None: too few units, or more units than estimated."""
        state = self.state
        left = state.units_planned - state.units - state.failed_units
        if state.units < MIN_UNITS or left <= 0:
            return None
        *_, units = self.rates(time.monotonic())
        return left / units if units else None

    def line(self) -> str:
        """The progress in one line; empty before labeling begins, so that an error in the job is printed alone."""
        state, now = self.state, time.monotonic()
        if not state.units:
            return "" if state.pools is None else f"{state.step}, {clock(now - state.step_started)}"
        documents, tokens, _ = self.rates(now)
        parts = [
            f"{state.documents:,} documents",
            f"{state.units:,} of about {state.units_expected:,} units",
            f"{number(documents)} documents/s",
            f"{number(tokens)} tokens/s",
        ]
        left = self.seconds_left()
        if left is not None:
            parts.append(f"about {clock(left)} left")
        if state.rejected:
            parts.append(f"{state.rejected:,} rejected")
        if state.failed_units:
            parts.append(f"{state.failed_units:,} units failed")
        return ", ".join(parts)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        width, height = min(options.max_width - 1, WIDEST), console.size.height - 1  # one line is left for the cursor
        state, now = self.state, time.monotonic()
        lines = [self._step_line(now)] if not state.units else [self._progress_bar(width), *self._numbers(now, width)]
        if state.pools is not None:
            lines.append(self._stages(state.pools))
        if state.labels and height - len(lines) >= 3:
            labels = state.labels.copy()  # a copy, as another thread adds to it
            lines += [Text(""), *label_bars(labels, width, min(MOST_LABELS + 1, height - len(lines) - 1))]
        for line in lines:
            line.truncate(width, overflow="ellipsis")
        yield Group(*lines[:height])

    def _step_line(self, now: float) -> Text:
        frame = SPINNER[int(2 * now) % len(SPINNER)]
        return Text.assemble((f" {frame} ", "green"), self.state.step, (f"  {clock(now - self.state.step_started)}", "dim"))

    def _progress_bar(self, width: int) -> Text:
        state = self.state
        share = min((state.units + state.failed_units) / state.units_expected, 1)
        left = self.seconds_left()
        then = f"about {clock(left)} left" if left is not None else state.step if share == 1 else ""
        after = f"  {share:4.0%}  {then}"
        return Text.assemble(" ", bar(share, max(width - cell_len(after) - 1, 0), "green"), after)

    def _numbers(self, now: float, width: int) -> list[Text]:
        documents, tokens, _ = self.rates(now)
        state = self.state
        elapsed = max(now - state.started, 1e-9)
        return columns(
            [
                [
                    ("documents", f"{state.documents:,}"),
                    ("units", f"{state.units:,} of about {state.units_expected:,}"),
                    ("rejects", f"{state.rejected:,}"),
                ],
                [
                    ("documents/s", number(documents)),
                    ("tokens/s", number(tokens)),
                    ("failed units", f"{state.failed_units:,}"),
                ],
                [
                    ("whole run", number(state.documents / elapsed)),
                    ("whole run", number(state.tokens / elapsed)),
                    ("elapsed", clock(elapsed)),
                ],
            ],
            width,
        )

    def _stages(self, pools: Pools) -> Text:
        """Busy actors of each stage; readers and writers are tasks, without a pool."""
        line = Text(" ")
        line.append("at work      ", "dim")
        sizes = {"tokenize": (pools.min_tokenizers, pools.tokenizers), "classify": (pools.min_classifiers, pools.classifiers)}
        for stage in ("read", "tokenize", "classify", "write"):
            busy = self.state.activity.busy.get(stage, 0)
            line.append(f"{stage} ", "dim")
            if stage not in sizes:
                line.append(f"{busy}  ")
                continue
            least, most = sizes[stage]
            busy = min(busy, most)
            if least < most:  # Ray Data has no public count of a pool's actors (cluster.attempts)
                line.append(f"{busy} of {least}-{most}  ")
                continue
            line.append(f"{busy} of {most} ")
            if most <= DOTS:
                line.append("●" * busy, "green")
                line.append("○" * (most - busy), "bright_black")
            line.append("  ")
        if self.state.activity.retries:
            line.append(f"{self.state.activity.retries} died", "yellow")
        line.rstrip()
        return line


def label_bars(labels: Counter[str], width: int, lines: int) -> list[Text]:
    """The most frequent labels, one per line, with counts and shares; the last line sums up the others."""
    total = sum(labels.values())
    most = nlargest(lines if len(labels) <= lines else lines - 1, labels.items(), key=lambda item: item[1])
    rest = len(labels) - len(most)
    shown = [*most, *([(f"{rest:,} others", total - sum(count for _, count in most))] if rest else [])]
    longest = max(cell_len(label) for label, _ in shown)
    names, counts = min(longest, max(width // 3, 8)), max(len(f"{count:,}") for _, count in shown)
    largest = max(count for _, count in most) if most else 1
    room = max(width - names - counts - 14, 0)
    texts = []
    for row, (label, count) in enumerate(shown):
        is_rest = rest > 0 and row == len(most)
        line = Text(" ")
        line.append(fitted(label, names), "dim" if is_rest else "")
        line.append("  ")
        line.append(" " * room if is_rest else block(count / largest, room), "cyan")
        line.append(f"  {count:>{counts},}")
        line.append(f"  {count / total:6.1%}", "dim")
        texts.append(line)
    return texts


def ending(result: RunResult) -> Text:
    """The result of a run in three lines."""
    rejected = f", {result.rejected:,} rejected" if result.rejected else ""
    failed = f", {result.units_failed:,} units failed" if result.units_failed else ""
    seconds, per_second = clock(result.seconds), number(result.documents_per_second)
    return Text.assemble(
        ("done: ", "bold green") if result.complete else ("incomplete: ", "bold red"),
        f"{result.documents:,} documents, {result.labeled:,} labeled{rejected}{failed}\n"
        f"this run: {result.documents_run:,} documents in {seconds}, {per_second} documents/s\n"
        f"{result.output}",
    )
