"""Prometheus counters of units, kept by the driver: the death of a worker loses none of them."""

from collections.abc import Sequence
from typing import Any

from cluster.prometheus_metrics import (
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
from jobs.run.state import Event
from pipeline_ops.schema.failures import Failure
from pipeline_ops.writing.commit_record import Commit


def count_row(meter: Meter, row: dict[str, Any], models: Sequence[str]) -> None:
    """Counts what went through the models for a unit that has not failed.

    Args:
        row: of the last stage (decode_measured).
        models: their paths, in the job's order.
    """
    for model, passed in zip(models, row["passes"], strict=True):
        meter.count(TOKENS, passed["tokens"], model=model)
        meter.count(PADDING, passed["padded_tokens"] - passed["tokens"], model=model)
        if passed["batches"]:
            meter.observe(BATCH_SECONDS, passed["seconds"] / passed["batches"], model=model)


def count_outcome(meter: Meter, event: Event) -> None:
    """Counts a unit that has been committed or quarantined; an observer of RunState."""
    match event:
        case Commit():
            meter.count(UNITS)
            meter.count(DOCUMENTS, event.labeled, outcome="labeled")
            meter.count(DOCUMENTS, event.rejected, outcome="rejected")
            for reason, documents in event.reasons.items():
                meter.count(REJECTS, documents, reason=reason)
            for part, seconds in event.classify_seconds.to_dict().items():
                meter.count(CLASSIFIER_SECONDS, seconds, part=part)
        case Failure():
            meter.count(FAILED_UNITS, step=event.step)
