"""Write task: labels and files."""

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline_ops.models.config import JobModel, tokenization_ids
from pipeline_ops.reading.reader import Attempts
from pipeline_ops.schema.arrow_cells import flat_values, unpack_table
from pipeline_ops.schema.output_columns import OutputConfig
from pipeline_ops.schema.units import Reject, Unit, unpack_rejects
from pipeline_ops.stages.rows import WRITTEN, Columns, guarded
from pipeline_ops.storage.config import StorageConfig
from pipeline_ops.storage.store import Store
from pipeline_ops.writing.commit_record import ClassifySeconds
from pipeline_ops.writing.postprocessing import ModelOutputs, label_documents
from pipeline_ops.writing.unit_files import write_unit


def write_row(
    row: pa.Table,
    models: Sequence[JobModel],
    output: OutputConfig,
    storage: StorageConfig,
    metadata: dict[str, Any],
    attempts: Attempts,
) -> pa.Table:
    """Labels a classified unit and writes its files; gives one row with what the commit has to say, as JSON."""
    return guarded(lambda good: label_and_write(good, models, output, storage, metadata), row, "write", attempts, WRITTEN)


def label_and_write(
    row: pa.Table, models: Sequence[JobModel], output: OutputConfig, storage: StorageConfig, metadata: dict[str, Any]
) -> Columns:
    """As write_row, for a row that has not failed: the columns that it gives."""
    began = time.monotonic()
    unit = Unit.from_json(row["unit"][0].as_py())
    documents = unpack_table(row["documents"][0])
    found = [_classified(row, number, reading, models) for number, reading in enumerate(tokenization_ids(models))]
    finite = np.logical_and.reduce([classified.finite_rows() for classified in found])
    labeled = documents.filter(pa.array(finite))
    for model, classified in zip(models, found, strict=True):
        labeled = label_documents(
            labeled, classified.filter(finite), head=model.facts.head, output=model.output, windows=model.facts.windows
        )
    rejects = unpack_rejects(row["rejects"][0].as_py())
    finite[flat_values(row, "model_errors")] = True  # these have been rejected where they failed
    bad = documents.filter(pa.array(~finite))
    for path, number in zip(
        bad.column(output.source_file_column).to_pylist(), bad.column(output.source_row_column).to_pylist(), strict=True
    ):
        rejects.append(Reject(path, number, "non_finite_logits", "the model gave a logit that is not a number"))
    commit = write_unit(
        Store(output.path, storage),
        unit,
        labeled,
        rejects,
        output,
        metadata=metadata,
        padded_tokens=row["padded_tokens"][0].as_py(),
        classify_seconds=ClassifySeconds(**row["classify_seconds"][0].as_py()),
        flops=row["flops"][0].as_py(),
    )
    seconds = {stage: row[f"{stage}_seconds"][0].as_py() for stage in ("read", "tokenize")}
    seconds["write"] = time.monotonic() - began
    commit = replace(commit, stage_seconds={stage: round(spent, 6) for stage, spent in seconds.items()})
    return {"commit": pa.array([commit.to_json()])}


def _classified(row: pa.Table, number: int, reading: int, models: Sequence[JobModel]) -> ModelOutputs:
    """What the model of that number says, by what it has read."""
    model = models[number]
    logits = flat_values(row, f"logits_{number}").reshape(-1, len(model.facts.head.labels))
    embedding = None
    if model.output.embedding is not None and len(logits):
        embedding = flat_values(row, f"embedding_{number}").reshape(len(logits), -1)
    return ModelOutputs(
        logits,
        flat_values(row, f"num_tokens_{reading}"),
        flat_values(row, f"truncated_{reading}").astype(bool),
        None if model.facts.windows is None else flat_values(row, f"windows_{reading}"),
        embedding,
    )
