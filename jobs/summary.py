"""The JSON line of `run`: what the output holds, what this run did, and how well it used its machines."""

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from pipeline_ops.commits import current_commits
from pipeline_ops.estimating import peak_flops, utilisation
from pipeline_ops.writing import ClassifySeconds, Commit


@dataclass
class Timeline:
    """What a run has done, when, and on what; filled in while it goes. Times are of time.monotonic."""

    started: float = field(default_factory=time.monotonic)
    labelling: float | None = None  # when the first unit could have been read: Ray, model and plan were ready
    first_commit: float | None = None
    last_commit: float | None = None
    labelled: list[Commit] = field(default_factory=list)
    classifiers: int = 0
    peak_flops: float | None = None  # per second, of the part of a GPU that a classifier has; None: not known

    def starts_labelling(self, classifiers: int, device: str | None, dtypes: Sequence[str], gpus_per_classifier: float) -> None:
        """To be called when the chain starts."""
        self.labelling, self.classifiers = time.monotonic(), classifiers
        peak = peak_flops(device, dtypes[0]) if len(set(dtypes)) == 1 else None
        self.peak_flops = peak and peak * gpus_per_classifier

    def add(self, commit: Commit) -> None:
        self.last_commit = time.monotonic()
        if self.first_commit is None:
            self.first_commit = self.last_commit
        self.labelled.append(commit)


def summarize(commits: dict[str, Commit], timeline: Timeline, *, skipped: int, output: str) -> dict[str, Any]:
    """The JSON line: counts over all current commits, then of this run (`*_run`, seconds, rates).

    - seconds: all of this run; startup_seconds: of these until the first unit was committed, Ray's start and loading models
      included; labelling_seconds: from when plan, Ray and the model's check were done to the last commit, the actors' start
      included; finish_seconds: from the last commit to the end. Null where no unit was committed.
    - documents_per_second, tokens_per_second: of `seconds`; tokens without padding.
    - padding_share: of the tokens that went through the model.
    - classifiers: how many actors held the model; classify_seconds: where the time of all of them went (ClassifySeconds).
    - model_flops_per_second: of all classifiers together, on tokens without padding, in labelling_seconds.
    - mfu: model FLOPs utilisation: FLOP/s of a classifier, waiting included, over its GPU's peak (estimating).

    The last two are null where the model's FLOPs or, for `mfu`, the device's peak are not known.
    """
    ended = time.monotonic()
    labelled, seconds = timeline.labelled, ended - timeline.started
    current = [commit for commit in current_commits(commits).values() if commit.pieces]
    documents_run = sum(commit.documents for commit in labelled)
    tokens_run, padded_run = sum(c.tokens for c in labelled), sum(c.padded_tokens for c in labelled)
    classify = ClassifySeconds.total(commit.classify_seconds for commit in labelled)
    known_flops = [commit.flops for commit in labelled if commit.flops is not None]
    flops = sum(known_flops) if labelled and len(known_flops) == len(labelled) else None
    labelling = _between(timeline.labelling, timeline.last_commit)
    mfu = utilisation(flops, classify.whole, timeline.peak_flops)
    labels: Counter[str] = Counter()
    for commit in current:
        labels.update(commit.labels)
    return {
        "documents": sum(commit.documents for commit in current),
        "labeled": sum(commit.labeled for commit in current),
        "rejected": sum(commit.rejected for commit in current),
        "units": len(current),
        "units_skipped": skipped,
        "documents_run": documents_run,
        "tokens": sum(commit.tokens for commit in current),
        "tokens_run": tokens_run,
        "padding_share": round(1 - tokens_run / padded_run, 4) if padded_run else 0.0,
        "truncated": sum(commit.truncated for commit in current),
        "labels": dict(sorted(labels.items())),
        "seconds": round(seconds, 2),
        "startup_seconds": _rounded(_between(timeline.started, timeline.first_commit)),
        "labelling_seconds": _rounded(labelling),
        "finish_seconds": _rounded(_between(timeline.last_commit, ended)),
        "documents_per_second": round(documents_run / seconds, 1),
        "tokens_per_second": round(tokens_run / seconds, 1),
        "classifiers": timeline.classifiers,
        "classify_seconds": {name: round(value, 2) for name, value in classify.to_dict().items()},
        "model_flops_per_second": round(flops / labelling) if flops is not None and labelling else None,
        "mfu": None if mfu is None else round(mfu, 4),
        "output": output,
    }


def _between(begin: float | None, end: float | None) -> float | None:
    return None if begin is None or end is None else end - begin


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 2)
