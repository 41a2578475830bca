"""What a run shows on stderr while it goes: on a terminal all that a person may ask of it, a line every ten seconds elsewhere.

It is told about events, one call each; events.JsonLines, for machines, has the same calls.
"""

import sys
import time
from collections import Counter
from heapq import nlargest
from typing import Any

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, Group, RenderResult
from rich.text import Text

from cluster.attempts import StageActivity
from cluster.resources import Pools
from jobs.console.live_view import Live
from jobs.console.widgets import Recent, bar, block, columns, duration, fitted, rate
from pipeline_ops.planning.work_plan import Plan
from pipeline_ops.schema.failures import Failure
from pipeline_ops.writing.commit_record import Commit

BASIS = 4  # units: from fewer nobody can tell how long the others will take
MOST_LABELS = 8
WIDEST = 110  # cells: a bar across a wide window says no more
DOTS = 4  # actors of a pool that are shown one by one
SPINNER = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"


class Progress:
    """Counts commits. Totals are estimates: line formats are cut into units while they are read."""

    def __init__(self, plan: Plan, *, quiet: bool):
        self.units = self.documents = self.tokens = self.rejected = self.failed = 0
        self.total = plan.num_units
        self.labels: Counter[str] = Counter()
        self.at_work = StageActivity()
        self.pools: Pools | None = None
        self.doing_now = "starting"
        self.summary: dict[str, Any] | None = None
        self.started = self.since = time.monotonic()
        self.recent = Recent(self.started, kinds=3)
        self.live = Live(lambda: self, self.line, quiet=quiet)

    def __enter__(self) -> "Progress":
        self.live.__enter__()
        return self

    def __exit__(self, *exception: object) -> None:
        self.live.__exit__(*exception)
        if self.live.is_drawn and self.summary is not None and exception[0] is None:
            Console(file=sys.stderr, highlight=False).print(ending(self.summary), soft_wrap=True)

    @property
    def watches(self) -> bool:
        """Whether what stages are at work on is shown."""
        return self.live.is_drawn

    def begin(self, **facts: Any) -> None:
        """The run has begun: nothing that a person would have to be told."""

    def doing(self, what: str, pools: Pools | None = None) -> None:
        """What it does from now on; shown until a unit is done, and again when all are.

        Args:
            pools: the actors, as soon as they are known.
        """
        self.doing_now, self.pools = what, pools or self.pools
        self.since = time.monotonic()
        if not self.units:
            self.recent = Recent(self.since, kinds=3)

    def works(self, at_work: StageActivity) -> None:
        """What the stages are at work on."""
        self.at_work = at_work

    def quarantine(self, failure: Failure) -> None:
        self.failed += 1
        self.say(f"quarantined: {failure.where}: {failure.error}: {failure.message}")

    def end(self, summary: dict[str, Any]) -> None:
        """The run has ended: its JSON line follows."""
        self.summary = summary

    def say(self, text: str) -> None:
        self.live.say(text)

    def add(self, commit: Commit) -> None:
        self.recent.add(time.monotonic(), commit.documents, commit.tokens, 1)
        self.units += 1
        self.documents += commit.documents
        self.tokens += commit.tokens
        self.rejected += commit.rejected
        self.labels.update(commit.labels)

    @property
    def expected(self) -> int:
        """Units of this run, about."""
        return max(self.units + self.failed, self.total)

    def seconds_left(self) -> float | None:
        """By the recent rate of units; None: there is nothing to go by, or the estimate of their number was too low."""
        left = self.total - self.units - self.failed
        if self.units < BASIS or left <= 0:
            return None
        *_, units = self.recent.rates(time.monotonic())
        return left / units if units else None

    def line(self) -> str:
        """All that matters, in a line."""
        now = time.monotonic()
        if not self.units:  # a command that ends with a mistake of the user's, before Ray runs, says that alone
            return "" if self.pools is None else f"{self.doing_now}, {duration(now - self.since)}"
        documents, tokens, _ = self.recent.rates(now)
        parts = [
            f"{self.documents:,} documents",
            f"{self.units:,} of about {self.expected:,} units",
            f"{rate(documents)} documents/s",
            f"{rate(tokens)} tokens/s",
        ]
        left = self.seconds_left()
        if left is not None:
            parts.append(f"about {duration(left)} left")
        if self.rejected:
            parts.append(f"{self.rejected:,} rejected")
        if self.failed:
            parts.append(f"{self.failed:,} units failed")
        return ", ".join(parts)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        width, height = min(options.max_width - 1, WIDEST), console.size.height - 1  # one for the line below it
        now = time.monotonic()
        lines = [self._waiting(now, width)] if not self.units else [self._how_far(width), *self._numbers(now, width)]
        if self.pools is not None:
            lines.append(self._stages(self.pools))
        if self.labels and height - len(lines) >= 3:
            labels = self.labels.copy()  # another thread adds to it meanwhile
            lines += [Text(""), *label_bars(labels, width, min(MOST_LABELS + 1, height - len(lines) - 1))]
        for line in lines:
            line.truncate(width, overflow="ellipsis")
        yield Group(*lines[:height])

    def _waiting(self, now: float, width: int) -> Text:
        turn = SPINNER[int(2 * now) % len(SPINNER)]
        return Text.assemble((f" {turn} ", "green"), self.doing_now, (f"  {duration(now - self.since)}", "dim"))

    def _how_far(self, width: int) -> Text:
        share = min((self.units + self.failed) / self.expected, 1)
        left = self.seconds_left()
        then = f"about {duration(left)} left" if left is not None else self.doing_now if share == 1 else ""
        after = f"  {share:4.0%}  {then}"
        return Text.assemble(" ", bar(share, max(width - cell_len(after) - 1, 0), "green"), after)

    def _numbers(self, now: float, width: int) -> list[Text]:
        documents, tokens, _ = self.recent.rates(now)
        elapsed = max(now - self.started, 1e-9)
        return columns(
            [
                [
                    ("documents", f"{self.documents:,}"),
                    ("units", f"{self.units:,} of about {self.expected:,}"),
                    ("rejects", f"{self.rejected:,}"),
                ],
                [
                    ("documents/s", rate(documents)),
                    ("tokens/s", rate(tokens)),
                    ("failed units", f"{self.failed:,}"),
                ],
                [
                    ("whole run", rate(self.documents / elapsed)),
                    ("whole run", rate(self.tokens / elapsed)),
                    ("elapsed", duration(elapsed)),
                ],
            ],
            width,
        )

    def _stages(self, pools: Pools) -> Text:
        """How many actors of each stage are at work; reading and writing have no pools, but tasks."""
        line = Text(" ")
        line.append("at work      ", "dim")
        sizes = {"tokenize": (pools.min_tokenizers, pools.tokenizers), "classify": (pools.min_classifiers, pools.classifiers)}
        for stage in ("read", "tokenize", "classify", "write"):
            busy = self.at_work.busy.get(stage, 0)
            line.append(f"{stage} ", "dim")
            if stage not in sizes:
                line.append(f"{busy}  ")
                continue
            least, most = sizes[stage]
            busy = min(busy, most)
            if least < most:  # how many there are at the moment Ray Data does not tell (cluster.attempts)
                line.append(f"{busy} of {least}-{most}  ")
                continue
            line.append(f"{busy} of {most} ")
            if most <= DOTS:
                line.append("●" * busy, "green")
                line.append("○" * (most - busy), "bright_black")
            line.append("  ")
        if self.at_work.retries:
            line.append(f"{self.at_work.retries} died", "yellow")
        line.rstrip()
        return line


def label_bars(labels: Counter[str], width: int, lines: int) -> list[Text]:
    """The most frequent labels, a line each, and the rest of them in the last one; counts and shares of all labels given."""
    total = sum(labels.values())
    most = nlargest(lines if len(labels) <= lines else lines - 1, labels.items(), key=lambda item: item[1])
    rest = len(labels) - len(most)
    shown = [*most, *([(f"{rest:,} others", total - sum(count for _, count in most))] if rest else [])]
    longest = max(cell_len(label) for label, _ in shown)
    names, counts = min(longest, max(width // 3, 8)), max(len(f"{count:,}") for _, count in shown)
    largest = max(count for _, count in most) if most else 1
    room = max(width - names - counts - 14, 0)
    texts = []
    for number, (label, count) in enumerate(shown):
        is_rest = rest > 0 and number == len(most)
        line = Text(" ")
        line.append(fitted(label, names), "dim" if is_rest else "")
        line.append("  ")
        line.append(" " * room if is_rest else block(count / largest, room), "cyan")
        line.append(f"  {count:>{counts},}")
        line.append(f"  {count / total:6.1%}", "dim")
        texts.append(line)
    return texts


def ending(summary: dict[str, Any]) -> Text:
    """What came of a run, in three lines."""
    incomplete = summary["units_failed"] or summary["files_incomplete"]
    rejected = f", {summary['rejected']:,} rejected" if summary["rejected"] else ""
    failed = f", {summary['units_failed']:,} units failed" if summary["units_failed"] else ""
    seconds, per_second = duration(summary["seconds"]), rate(summary["documents_per_second"])
    return Text.assemble(
        ("incomplete: " if incomplete else "done: ", "bold red" if incomplete else "bold green"),
        f"{summary['documents']:,} documents, {summary['labeled']:,} labeled{rejected}{failed}\n"
        f"this run: {summary['documents_run']:,} documents in {seconds}, {per_second} documents/s\n"
        f"{summary['output']}",
    )
