"""The JSON line of `run`: what the output holds, what this run did, and how well it used its machines."""

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from pipeline_ops.models.flops import peak_flops, utilization
from pipeline_ops.output.commit_log import current_commits
from pipeline_ops.writing.commit_record import ClassifySeconds, Commit

MAX_LISTED = 100  # failures in the JSON line


@dataclass
class Timeline:
    """What a run has done, when, and on what; filled in while it goes. Times are of time.monotonic."""

    started: float = field(default_factory=time.monotonic)
    labeling: float | None = None  # when the first unit could have been read: Ray, model and plan were ready
    first_commit: float | None = None
    last_commit: float | None = None
    labeled: list[Commit] = field(default_factory=list)
    classifiers: int = 0
    peak_flops: float | None = None  # per second, of the part of a GPU that a classifier has; None: not known

    def starts_labeling(self, classifiers: int, device: str | None, dtypes: Sequence[str], gpus_per_classifier: float) -> None:
        """To be called when the chain starts."""
        self.labeling, self.classifiers = time.monotonic(), classifiers
        peak = peak_flops(device, dtypes[0]) if len(set(dtypes)) == 1 else None
        self.peak_flops = peak and peak * gpus_per_classifier

    def add(self, commit: Commit) -> None:
        self.last_commit = time.monotonic()
        if self.first_commit is None:
            self.first_commit = self.last_commit
        self.labeled.append(commit)


@dataclass(frozen=True)
class RunResult:
    """What came of a run; as JSON, the last line of `run`. None: not known, or there was nothing to measure.

    Counts are those of the whole output (documents to labels) and of the input (files to files_removed), then of this run.

    Attributes:
        labels: documents by label; of several models `name=label`.
        units_skipped: were there before this run; units_failed: quarantined, by this run or an earlier one.
        failed: where and why, of the first of these.
        seconds: all of this run but the report; startup_seconds: of these until the first unit was committed, Ray's start and
            loading models included; labeling_seconds: from when plan, Ray and the model's check were done to the last commit,
            the actors' start included; finish_seconds: from the last commit to the end.
        documents_per_second, tokens_per_second: of `seconds`; tokens without padding.
        padding_share: of the tokens that went through the model.
        classifiers: how many actors held the model; classify_seconds: where the time of all of them went (ClassifySeconds).
        model_flops_per_second: of all classifiers together, on tokens without padding, in labeling_seconds.
        mfu: model FLOPs utilization: FLOP/s of a classifier, waiting included, over its GPU's peak (estimating).
        report: the page about the output; report_error: why there is none, report_seconds: that it took.
    """

    documents: int
    labeled: int
    rejected: int
    units: int
    tokens: int
    truncated: int
    labels: dict[str, int]
    files: int
    files_incomplete: int
    files_changed: int
    files_removed: int
    units_skipped: int
    units_failed: int
    failed: list[str]
    documents_run: int
    tokens_run: int
    padding_share: float
    seconds: float
    startup_seconds: float | None
    labeling_seconds: float | None
    finish_seconds: float | None
    documents_per_second: float
    tokens_per_second: float
    classifiers: int
    classify_seconds: dict[str, float]
    model_flops_per_second: int | None
    mfu: float | None
    output: str
    report: str | None = None
    report_error: str | None = None
    report_seconds: float | None = None

    @property
    def complete(self) -> bool:
        """Whether every input document stands in the output, labeled or rejected."""
        return not self.files_incomplete and not self.units_failed

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def summarize(
    commits: dict[str, Commit],
    timeline: Timeline,
    *,
    skipped: int,
    output: str,
    failed: Sequence[str] = (),
    files: int = 0,
    incomplete: int = 0,
    changed: int = 0,
    removed: int = 0,
) -> RunResult:
    """The result of a run that ends now.

    Args:
        commits: of the whole output, by unit id; skipped: how many counted before the run.
        failed: where and why units are quarantined.
        files: of the input; incomplete: not labeled from the first row to the last; changed and removed: since they were.
    """
    ended = time.monotonic()
    labeled, seconds = timeline.labeled, ended - timeline.started
    current = [commit for commit in current_commits(commits).values() if commit.pieces]
    documents_run = sum(commit.documents for commit in labeled)
    tokens_run, padded_run = sum(c.tokens for c in labeled), sum(c.padded_tokens for c in labeled)
    classify = ClassifySeconds.sum_of(commit.classify_seconds for commit in labeled)
    known_flops = [commit.flops for commit in labeled if commit.flops is not None]
    flops = sum(known_flops) if labeled and len(known_flops) == len(labeled) else None
    labeling = _between(timeline.labeling, timeline.last_commit)
    mfu = utilization(flops, classify.total, timeline.peak_flops)
    labels: Counter[str] = Counter()
    for commit in current:
        labels.update(commit.labels)
    return RunResult(
        documents=sum(commit.documents for commit in current),
        labeled=sum(commit.labeled for commit in current),
        rejected=sum(commit.rejected for commit in current),
        units=len(current),
        tokens=sum(commit.tokens for commit in current),
        truncated=sum(commit.truncated for commit in current),
        labels=dict(sorted(labels.items())),
        files=files,
        files_incomplete=incomplete,
        files_changed=changed,
        files_removed=removed,
        units_skipped=skipped,
        units_failed=len(failed),
        failed=list(failed[:MAX_LISTED]),
        documents_run=documents_run,
        tokens_run=tokens_run,
        padding_share=round(1 - tokens_run / padded_run, 4) if padded_run else 0.0,
        seconds=round(seconds, 2),
        startup_seconds=_rounded(_between(timeline.started, timeline.first_commit)),
        labeling_seconds=_rounded(labeling),
        finish_seconds=_rounded(_between(timeline.last_commit, ended)),
        documents_per_second=round(documents_run / seconds, 1),
        tokens_per_second=round(tokens_run / seconds, 1),
        classifiers=timeline.classifiers,
        classify_seconds={name: round(value, 2) for name, value in classify.to_dict().items()},
        model_flops_per_second=round(flops / labeling) if flops is not None and labeling else None,
        mfu=None if mfu is None else round(mfu, 4),
        output=output,
    )


def _between(begin: float | None, end: float | None) -> float | None:
    return None if begin is None or end is None else end - begin


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 2)
