"""The stages as Ray Data calls them: one row, a unit, in and out (readers: several units out). Plain classes, no ray.

The row's columns: unit, rejects, documents and read_seconds from the reader; batch_*, num_tokens_*, truncated_* and
windows_*, numbered by tokenization (tokenization_ids), and tokenize_seconds from the tokenizer; logits_* and embedding_*,
numbered by model, model_errors, padded_tokens, passes (JSON: what went through each model), classify_seconds and flops from the
classifier; commit from the writer. A unit may be read, tokenized, classified or written more than once when a worker dies; only
its commit counts.

An exception in a stage becomes the row's `failure`, as JSON, and later stages pass such a row on: Ray would wrap it so that
only the text of a traceback reaches the driver, which could tell neither the unit from it nor who is at fault. A document that
makes the tokenizer or the model raise is rejected alone. What kills the process is known by `attempts`, which outlives it.

Ray puts several rows into one block, and gives rows that differ each other's columns. So all rows that a stage gives have one
schema, whatever has become of the unit: a failed row has the columns of a good one, all null but `failure`. A stage takes over
columns by their names, and gives those of its own schema only.
"""

from collections.abc import Callable, Mapping, Sequence

import pyarrow as pa

from pipeline_ops.models.config import JobModel, distinct_tokenizations
from pipeline_ops.reading.reader import Attempts
from pipeline_ops.schema.failures import MAX_TRIES, failure_of, worker_died
from pipeline_ops.schema.output_columns import OutputConfig
from pipeline_ops.schema.units import MAX_DETAIL_CHARACTERS, Reason, Reject, Unit
from pipeline_ops.tokenizing.batching import batch_types
from pipeline_ops.writing.commit_record import ClassifySeconds

Columns = dict[str, pa.Array]  # what a stage gives of a unit, each of one value

READ = pa.schema(
    {
        "failure": pa.string(),
        "unit": pa.string(),
        "rejects": pa.large_binary(),
        "documents": pa.large_binary(),
        "read_seconds": pa.float64(),
    }
)
WRITTEN = pa.schema({"failure": pa.string(), "commit": pa.string(), "passes": pa.string()})


def tokenized_schema(models: Sequence[JobModel]) -> pa.Schema:
    """What the tokenizer gives."""
    batches = [batch_types(reading) for reading in range(len(distinct_tokenizations(models)))]
    return _schema(READ, *batches, _counts(models))


def classified_schema(models: Sequence[JobModel]) -> pa.Schema:
    """What the classifier gives."""
    values: dict[str, pa.DataType] = {}
    for number, model in enumerate(models):
        values[f"logits_{number}"] = pa.large_list(pa.float32())
        if model.output.embedding is not None:
            values[f"embedding_{number}"] = pa.large_list(pa.float32())
    of_unit = {
        "model_errors": pa.large_list(pa.int64()),
        "padded_tokens": pa.int64(),
        "passes": pa.string(),
        "flops": pa.float64(),
        "classify_seconds": pa.struct(dict.fromkeys(ClassifySeconds().to_dict(), pa.float64())),
    }
    return _schema(READ, _counts(models), values, of_unit)


def _counts(models: Sequence[JobModel]) -> dict[str, pa.DataType]:
    """What is known from tokenizing on: of each reading, and of the unit."""
    types: dict[str, pa.DataType] = {}
    for reading, model in enumerate(distinct_tokenizations(models)):
        types[f"num_tokens_{reading}"] = pa.large_list(pa.int32())
        types[f"truncated_{reading}"] = pa.large_list(pa.uint8())
        if model.facts.windows is not None:
            types[f"windows_{reading}"] = pa.large_list(pa.int32())
    return {**types, "tokenize_seconds": pa.float64()}


def _schema(*parts: pa.Schema | Mapping[str, pa.DataType]) -> pa.Schema:
    return pa.schema([field for part in parts for field in (part if isinstance(part, pa.Schema) else pa.schema(part))])


def good_row(schema: pa.Schema, columns: Mapping[str, pa.Array], before: pa.Table | None = None) -> pa.Table:
    """The row of a unit that has not failed.

    Args:
        columns: those that the stage gives or changes, each of one value.
        before: the row that the stage was given; it has the others.
    """
    held = {} if before is None else dict(zip(before.column_names, before.itercolumns(), strict=True))
    held = {"failure": pa.nulls(1, pa.string()), **held, **columns}
    return pa.table({name: held[name] for name in schema.names}, schema=schema)


def failed_row(schema: pa.Schema, failure: str) -> pa.Table:
    """The row of a unit that has failed, with its Failure as JSON."""
    return pa.table({field.name: pa.nulls(1, field.type) for field in schema} | {"failure": [failure]}, schema=schema)


def has_failed(row: pa.Table) -> bool:
    return row["failure"][0].is_valid


def guarded(stage: Callable[[pa.Table], Columns], row: pa.Table, step: str, attempts: Attempts, schema: pa.Schema) -> pa.Table:
    """A row of `schema`: `row` with the columns of `stage(row)`.

    A failed row, one that fails now, or one that has killed MAX_TRIES processes, comes out as a failed row.
    """
    if has_failed(row):
        return failed_row(schema, row["failure"][0].as_py())
    unit = Unit.from_json(row["unit"][0].as_py())
    key = f"{step} {unit.id}"
    deaths = attempts.begin(key)
    if deaths >= MAX_TRIES:
        done = failed_row(schema, worker_died(unit.pieces, step).to_json())
    else:
        try:
            done = good_row(schema, stage(row), row)
        except Exception as error:
            done = failed_row(schema, failure_of(error, unit.pieces, step).to_json())
    attempts.end(key)
    return done


def rejects_of(documents: pa.Table, bad: dict[int, BaseException], reason: Reason, output: OutputConfig) -> list[Reject]:
    """A reject for each of the rows in `bad`, with what its exception says."""
    files, rows = documents.column(output.source_file_column), documents.column(output.source_row_column)
    return [
        Reject(files[row].as_py(), rows[row].as_py(), reason, f"{type(error).__name__}: {error}"[:MAX_DETAIL_CHARACTERS])
        for row, error in sorted(bad.items())
    ]
