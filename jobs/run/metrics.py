"""What the driver tells Prometheus of units; what it has seen is lost with no worker's process."""

import json
from collections.abc import Sequence
from typing import Any

from cluster.metrics import (
    BATCH_SECONDS,
    CLASSIFIER_SECONDS,
    DOCUMENTS,
    FAILED_UNITS,
    PADDING,
    REJECTS,
    TOKENS,
    UNITS,
    Meter,
)
from pipeline_ops.schema.failures import Failure
from pipeline_ops.writing.commit_record import ClassifySeconds, Commit


def count_row(meter: Meter, row: dict[str, Any], models: Sequence[str]) -> None:
    """The last stage's row of a unit that has not failed.

    Args:
        models: their paths, in the job's order.
    """
    for model, passed in zip(models, json.loads(row["passes"]), strict=True):
        meter.count(TOKENS, passed["tokens"], model=model)
        meter.count(PADDING, passed["padded_tokens"] - passed["tokens"], model=model)
        if passed["batches"]:
            meter.observe(BATCH_SECONDS, passed["seconds"] / passed["batches"], model=model)


def count_commit(meter: Meter, commit: Commit) -> None:
    meter.count(UNITS)
    meter.count(DOCUMENTS, commit.labeled, outcome="labeled")
    meter.count(DOCUMENTS, commit.rejected, outcome="rejected")
    for reason, documents in (commit.reasons or {}).items():
        meter.count(REJECTS, documents, reason=reason)
    for part, seconds in (commit.classify_seconds or ClassifySeconds()).to_dict().items():
        meter.count(CLASSIFIER_SECONDS, seconds, part=part)


def count_failure(meter: Meter, failure: Failure) -> None:
    meter.count(FAILED_UNITS, step=failure.step)
