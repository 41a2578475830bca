"""The live view of a run on stderr: on a terminal counts, rates, stages and labels, elsewhere a line every ten seconds.

It reads RunState; json_events.py shows the same to machines.
"""

import time
from collections import Counter
from heapq import nlargest

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, Group, RenderResult
from rich.text import Text

from cluster.resources import Pools
from jobs.console.live_view import LiveView
from jobs.console.widgets import RecentRates, bar, block, columns, fitted
from jobs.number_format import clock, counted, number, of_about
from jobs.run.state import LABELING, LOADING, UNITS, Event, Notice, Progress, RunState
from pipeline_ops.schema.failures import Failure

MIN_SECONDS = 5  # of labeling, before the remaining time is estimated
MOST_LABELS = 8
WIDEST = 110  # cells
DOTS = 4  # actors; larger pools are shown as numbers only
SPINNER = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"


class RunProgress:
    """Shows the live view of a run during a with block, and its result at the end of it."""

    def __init__(self, state: RunState, *, quiet: bool):
        self.state = state
        self.recent: RecentRates | None = None  # of the share of the input, since labeling began
        self.share = 0.0  # when it was looked at last
        self.explained = False  # what units are
        self.live = LiveView(lambda: self, self.line, quiet=quiet)

    def __enter__(self) -> "RunProgress":
        self.state.observers.append(self.observe)
        self.live.__enter__()
        return self

    def __exit__(self, *exception: object) -> None:
        self.live.__exit__(*exception)

    @property
    def is_drawn(self) -> bool:
        """Whether stderr is a terminal, where other writers' lines appear above the view."""
        return self.live.is_drawn

    @property
    def shows_activity(self) -> bool:
        """Whether what the stages are working on is shown."""
        return not self.live.quiet

    def observe(self, event: Event) -> None:
        match event:
            case Notice():
                self.live.say(event.text)
            case Failure():
                self.live.say(f"quarantined: {event}")

    def _look(self, now: float) -> tuple[Progress, float | None]:
        """(how far the labeling is, remaining seconds at the speed of the last minute); None: not known.

        Start-up is no part of that speed.
        """
        progress, began = self.state.progress(), self.state.labeling_started
        if began is None:
            return progress, None
        if self.recent is None:
            self.recent = RecentRates(began, kinds=1)
            self.share = self.state.share_before
        self.recent.add(now, progress.share - self.share)
        self.share = progress.share
        (speed,) = self.recent.rates(now)
        is_known = speed > 0 and now - began >= MIN_SECONDS and self.state.step == LABELING
        return progress, (1 - progress.share) / speed if is_known and progress.share < 1 else None

    def _share_shown(self, progress: Progress) -> float:
        """Units are estimated, so their last one may not be it: all is done when something else is being done."""
        return min(progress.share, 0.99) if self.state.step == LABELING else progress.share

    def line(self) -> str:
        """The progress in one line; empty before labeling begins, so that an error in the job is printed alone."""
        state, now = self.state, time.monotonic()
        if state.labeling_started is None or state.step != LABELING:
            return "" if state.pools is None else f"{state.step}, {clock(now - state.started)} since the start"
        progress, left = self._look(now)
        documents, units = self._counts(progress)
        parts = [
            f"{documents} documents ({self._share_shown(progress):.0%})",
            f"{units} {self._units_noun()}",
        ]
        rates = state.rates()
        if rates is not None and rates[0]:
            parts += [f"{number(rates[0])} documents/s", f"{number(rates[1])} tokens/s"]
        if left is not None:
            parts.append(f"about {clock(left)} left")
        if state.rejected:
            parts.append(f"{state.rejected:,} rejected")
        if state.failed_units:
            parts.append(f"{counted(state.failed_units, 'unit')} failed")
        return ", ".join(parts)

    def _counts(self, progress: Progress) -> tuple[str, str]:
        """(documents, units) of how many, which is an estimate until the stages have no unit left."""
        state = self.state
        units, units_expected = state.units_before + state.units, state.units_before + state.units_expected
        if state.all_units_ended:
            return f"{progress.documents:,}", f"{units:,}"
        return of_about(progress.documents, progress.documents_expected), of_about(units, units_expected)

    def _units_noun(self) -> str:
        """Explains it the first time."""
        explained, self.explained = self.explained, True
        return "units" if explained else f"units ({UNITS})"

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        width, height = min(options.max_width - 1, WIDEST), console.size.height - 1  # one line is left for the cursor
        state, now = self.state, time.monotonic()
        progress, left = self._look(now)
        lines = [self._progress_line(progress, left, width, now)]
        if state.labeling_started is not None or state.documents_before:
            lines += self._numbers(progress, now, width)
        if state.pools is not None and state.step in (LOADING, LABELING):
            lines.append(self._stages(state.pools))
        if state.labels and height - len(lines) >= 3:
            labels = state.labels.copy()  # a copy, as another thread adds to it
            heading = Text("labels of this run" if state.documents_before else "", "dim")
            lines += [heading, *label_bars(labels, width, min(MOST_LABELS + 1, height - len(lines) - 1))]
        for line in lines:
            line.truncate(width, overflow="ellipsis")
        yield Group(*lines[:height])

    def _progress_line(self, progress: Progress, left: float | None, width: int, now: float) -> Text:
        """The bar, with what is being done while there is nothing to be said about the time; the step alone at first."""
        state = self.state
        step = f"{SPINNER[int(2 * now) % len(SPINNER)]} {state.step}"
        if state.labeling_started is None and not progress.share:
            return Text.assemble(" ", (step[:2], "green"), step[2:], (f"  {clock(now - state.started)}", "dim"))
        share = self._share_shown(progress)
        after = f"  {share:4.0%}  {step if left is None else f'about {clock(left)} left'}"
        return Text.assemble(" ", bar(share, max(width - cell_len(after) - 1, 0), "green"), after)

    def _numbers(self, progress: Progress, now: float, width: int) -> list[Text]:
        state = self.state
        documents, units = self._counts(progress)
        documents_rate, tokens_rate = (rate or None for rate in state.rates() or (None, None))
        began = state.labeling_started
        return [
            *columns(
                [
                    [
                        ("documents", documents),
                        ("units", units),
                        ("rejects", f"{state.rejected_before + state.rejected:,}"),
                    ],
                    [
                        ("documents/s", number(documents_rate)),
                        ("tokens/s", number(tokens_rate)),
                        ("failed units", f"{state.failed_units:,}"),
                    ],
                    [
                        ("start-up", clock((began or now) - state.started)),
                        ("labeling", clock(state.labeling_seconds or 0)),
                        ("elapsed", clock(now - state.started)),
                    ],
                ],
                width,
            ),
            Text(f" units: {UNITS}", "dim"),
        ]

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
