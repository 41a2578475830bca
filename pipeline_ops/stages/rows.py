"""Rows between the stages: a schema for what each stage returns, decoding, and what becomes of exceptions.

A row is a unit. Ray may put several rows into one block, and fills the columns that some of them lack with nulls. So all rows
that a stage returns have one schema: a failed unit's row has the columns of any other, null but for `failure`. A stage looks
columns up by name and returns those of its own schema only.

An exception in a stage becomes the row's `failure`, which later stages pass on: Ray would wrap the exception so that the driver
saw nothing but a traceback, which names neither the unit nor the cause. An `Attempts` counter, which outlives the process,
recognizes units that kill it.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline_ops.models.config import JobModel, distinct_tokenizations
from pipeline_ops.schema.arrow_cells import binary_cell, flat_values, unpack_table
from pipeline_ops.schema.failures import MAX_TRIES, Attempts, Failure, failure_of, worker_died
from pipeline_ops.schema.output_columns import OutputConfig
from pipeline_ops.schema.time_spans import Stopwatch, TimeSpan, start_of_process
from pipeline_ops.schema.units import MAX_DETAIL_CHARACTERS, Reason, Reject, Unit, pack_rejects, unpack_rejects
from pipeline_ops.tokenizing.batching import batch_types
from pipeline_ops.writing.commit_record import Commit

Columns = dict[str, pa.Array]  # those that a stage adds to a row, or replaces; arrays of one value

# failure, unit, commit, spans, passes, classify_seconds: JSON; rejects: JSON Lines; documents: Arrow IPC stream. What is small
# and nested is JSON, as Ray packs each array within a nested one for itself: a value of `passes` took it 0.5 ms as an array.
# spans: a list of TimeSpan.to_dict(), of the stages so far, each with the start of its process
READ = pa.schema(
    {
        "failure": pa.string(),
        "unit": pa.string(),
        "rejects": pa.large_binary(),
        "documents": pa.large_binary(),
        "spans": pa.string(),
    }
)
# passes: a list of what went through each model: batches, tokens, padded_tokens, seconds; if so, why its batches were without
# padding (against_padding), why it shares none of the layers in common (against_sharing), and why it is not compiled though
# that would pay (against_compiling)
WRITTEN = pa.schema(dict.fromkeys(("failure", "commit", "passes", "spans"), pa.string()))


def tokenized_schema(models: Sequence[JobModel]) -> pa.Schema:
    """READ; batch_*, num_tokens_*, truncated_* and windows_*, numbered by tokenization (tokenization_ids)."""
    batches = [batch_types(number) for number in range(len(distinct_tokenizations(models)))]
    return _schema(READ, *batches, _document_types(models))


def classified_schema(models: Sequence[JobModel]) -> pa.Schema:
    """The same without the batches; logits_* and embedding_*, numbered by model, and what else the classifier adds.

    model_errors holds the rows of the documents that the model failed on; flops: None if not known.
    """
    values: dict[str, pa.DataType] = {}
    for number, model in enumerate(models):
        values[f"logits_{number}"] = pa.large_list(pa.float32())
        if model.output.embedding is not None:
            values[f"embedding_{number}"] = pa.large_list(pa.float32())
    of_unit = {
        "model_errors": pa.large_list(pa.int64()),
        "passes": pa.string(),
        "flops": pa.float64(),
        "classify_seconds": pa.string(),
    }
    return _schema(READ, _document_types(models), values, of_unit)


def _document_types(models: Sequence[JobModel]) -> dict[str, pa.DataType]:
    types: dict[str, pa.DataType] = {}
    for number, model in enumerate(distinct_tokenizations(models)):
        types[f"num_tokens_{number}"] = pa.large_list(pa.int32())
        types[f"truncated_{number}"] = pa.large_list(pa.uint8())
        if model.facts.windows is not None:
            types[f"windows_{number}"] = pa.large_list(pa.int32())
    return types


def _schema(*parts: pa.Schema | Mapping[str, pa.DataType]) -> pa.Schema:
    return pa.schema([field for part in parts for field in (part if isinstance(part, pa.Schema) else pa.schema(part))])


@dataclass(frozen=True)
class UnitRow:
    """The row of a unit that has not failed, decoded at first use."""

    table: pa.Table

    @cached_property
    def unit(self) -> Unit:
        return Unit.from_json(self.value("unit"))

    @cached_property
    def documents(self) -> pa.Table:
        """Shares the row's memory."""
        return unpack_table(self.table["documents"][0])

    def rejects(self) -> list[Reject]:
        return unpack_rejects(self.value("rejects"))

    def rejects_and(self, more: list[Reject]) -> pa.Array:
        """The rejects column with `more` appended."""
        return rejects_cell(self.value("rejects") + pack_rejects(more))

    def array(self, column: str) -> np.ndarray:
        """A list column's values, flat and read-only; shares the row's memory."""
        return flat_values(self.table, column)

    def stage_seconds(self) -> dict[str, float]:
        """Wall-clock seconds of the stages so far, and of what went before them."""
        return {span["name"]: span["seconds"] for span in self.json("spans")}

    def json(self, column: str) -> Any:
        return json.loads(self.value(column))

    def value(self, column: str) -> Any:
        return self.table[column][0].as_py()


def spans_of_stage(stage: str, stopwatch: Stopwatch, loading: Sequence[TimeSpan] = ()) -> list[dict[str, Any]]:
    """The spans of a stage that ends now: of its process's start, `loading`, and its own.

    Args:
        loading: of what the process has done before its first unit.
    """
    spans = [start_of_process(), *loading]
    return [*(span.named(f"{stage}: {span.name}").to_dict() for span in spans), stopwatch.span(stage).to_dict()]


def json_cell(value: Any) -> pa.Array:
    return pa.array([json.dumps(value)], pa.string())


def rejects_cell(lines: bytes) -> pa.Array:
    return binary_cell(pa.py_buffer(lines))


def good_row(schema: pa.Schema, columns: Mapping[str, Any]) -> pa.Table:
    """The row of a unit that has not failed, of those `columns` that are in the schema."""
    columns = {"failure": pa.nulls(1, pa.string()), **columns}
    return pa.table({name: columns[name] for name in schema.names}, schema=schema)


def failed_row(schema: pa.Schema, failure: Failure) -> pa.Table:
    nulls = {field.name: pa.nulls(1, field.type) for field in schema}
    return pa.table({**nulls, "failure": [failure.to_json()]}, schema=schema)


def has_failed(row: pa.Table) -> bool:
    return row["failure"][0].is_valid


def decode_outcome(row: Mapping[str, Any]) -> Commit | Failure:
    """The outcome of a unit from its row of the WRITTEN schema."""
    return Commit.from_json(row["commit"]) if row["failure"] is None else Failure.from_json(row["failure"])


def decode_measured(row: Mapping[str, Any]) -> dict[str, Any]:
    """{passes, spans} of a unit that has not failed, decoded from its row of the WRITTEN schema."""
    return {column: json.loads(row[column]) for column in ("passes", "spans")}


def guarded(
    stage: Callable[[UnitRow], Columns],
    table: pa.Table,
    step: str,
    schema: pa.Schema,
    attempts: Attempts,
    loading: Sequence[TimeSpan] = (),
) -> pa.Table:
    """The row with the columns of `stage(row)` and the spans of this stage, in `schema`.

    It is a failed row for a unit that has failed before, fails now, or has killed MAX_TRIES processes in this step.

    Args:
        loading: see spans_of_stage.
    """
    if has_failed(table):
        return failed_row(schema, Failure.from_json(table["failure"][0].as_py()))
    row = UnitRow(table)
    key = f"{step} {row.unit.id}"
    if attempts.begin(key) >= MAX_TRIES:
        result = failed_row(schema, worker_died(row.unit.pieces, step))
    else:
        try:
            received = dict(zip(table.column_names, table.itercolumns(), strict=True))
            stopwatch = Stopwatch()
            columns = stage(row)
            spans = json_cell(row.json("spans") + spans_of_stage(step, stopwatch, loading))
            result = good_row(schema, {**received, **columns, "spans": spans})
        except Exception as error:
            result = failed_row(schema, failure_of(error, row.unit.pieces, step))
    attempts.end(key)
    return result


def rejects_of(documents: pa.Table, details: Mapping[int, str], reason: Reason, output: OutputConfig) -> list[Reject]:
    """A reject for each row in `details`."""
    files, rows = documents.column(output.source_file_column), documents.column(output.source_row_column)
    return [
        Reject(files[row].as_py(), rows[row].as_py(), reason, detail[:MAX_DETAIL_CHARACTERS])
        for row, detail in sorted(details.items())
    ]


def detail_of(error: BaseException, model: str = "") -> str:
    """An exception as a reject's detail; of a job with several models with the name of the one that raised it."""
    return f"{f'model {model}: ' if model else ''}{type(error).__name__}: {error}"
