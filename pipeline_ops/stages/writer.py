"""The write stage: logits to labels, a unit's files to the output, and the commit that the driver puts."""

import time
from dataclasses import replace

import numpy as np
import pyarrow as pa

from pipeline_ops.models.config import JobModel, tokenization_ids
from pipeline_ops.schema.failures import Attempts
from pipeline_ops.stages.context import StageContext
from pipeline_ops.stages.rows import WRITTEN, Columns, UnitRow, guarded, rejects_of
from pipeline_ops.storage.store import Store
from pipeline_ops.writing.commit_record import ClassifySeconds
from pipeline_ops.writing.postprocessing import ModelOutputs, label_documents
from pipeline_ops.writing.unit_files import write_unit


def write_task(row: pa.Table, context: StageContext, attempts: Attempts) -> pa.Table:
    """Labels a classified unit and writes its files; returns a row of the WRITTEN schema."""
    return guarded(lambda good: label_and_write(good, context), row, "write", WRITTEN, attempts)


def label_and_write(row: UnitRow, context: StageContext) -> Columns:
    began = time.monotonic()
    models, output = context.models, context.output
    classified = [_model_outputs(row, *one) for one in zip(models, range(len(models)), tokenization_ids(models), strict=True)]
    finite = np.logical_and.reduce([one.finite_rows() for one in classified])
    labeled = row.documents
    if not finite.all():
        labeled, classified = labeled.filter(pa.array(finite)), [one.filter(finite) for one in classified]
    for model, one in zip(models, classified, strict=True):
        labeled = label_documents(labeled, one, head=model.facts.head, output=model.output, windows=model.facts.windows)
    finite[row.array("model_errors")] = True  # their logits are NaN, and the classifier has rejected them
    detail = "the model gave a logit that is not a number"
    not_finite = rejects_of(row.documents, dict.fromkeys(np.flatnonzero(~finite).tolist(), detail), "non_finite_logits", output)
    commit = write_unit(
        Store(output.path, context.storage),
        row.unit,
        labeled,
        row.rejects() + not_finite,
        output,
        metadata=context.file_metadata(),
        padded_tokens=sum(one["padded_tokens"] for one in row.json("passes")),
        classify_seconds=ClassifySeconds(**row.json("classify_seconds")),
        flops=row.value("flops"),
    )
    before = row.stage_seconds()
    seconds = {"read": before["read"], "tokenize": before["tokenize"], "write": time.monotonic() - began}
    commit = replace(commit, stage_seconds={stage: round(spent, 6) for stage, spent in seconds.items()})
    return {"commit": pa.array([commit.to_json()])}


def _model_outputs(row: UnitRow, model: JobModel, number: int, tokenization: int) -> ModelOutputs:
    logits = row.array(f"logits_{number}").reshape(-1, len(model.facts.head.labels))
    embedding = None
    if model.output.embedding is not None and len(logits):
        embedding = row.array(f"embedding_{number}").reshape(len(logits), -1)
    return ModelOutputs(
        logits,
        row.array(f"num_tokens_{tokenization}"),
        row.array(f"truncated_{tokenization}").astype(bool),
        None if model.facts.windows is None else row.array(f"windows_{tokenization}"),
        embedding,
    )
