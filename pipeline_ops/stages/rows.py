"""The stages as Ray Data calls them: one row, a unit, in and out (readers: several units out). Plain classes, no ray.

The row's columns: unit, rejects, documents and read_seconds from the reader; batch_*, num_tokens_*, truncated_* and
windows_*, numbered by tokenization (tokenization_ids), and tokenize_seconds from the tokenizer; logits_* and embedding_*,
numbered by model, model_errors, padded_tokens, passes (JSON: what went through each model), classify_seconds and flops from the
classifier; commit from the writer. A unit may be read, tokenized, classified or written more than once when a worker dies; only
its commit counts.

An exception in a stage becomes the row's `failure`, as JSON, and later stages pass such a row on: Ray would wrap it so that
only the text of a traceback reaches the driver, which could tell neither the unit from it nor who is at fault. A document that
makes the tokenizer or the model raise is rejected alone. What kills the process is known by `attempts`, which outlives it.
"""

from collections.abc import Callable

import pyarrow as pa

from pipeline_ops.reading.reader import Attempts
from pipeline_ops.schema.failures import MAX_TRIES, Failure, failure_of, worker_died
from pipeline_ops.schema.output_columns import OutputConfig
from pipeline_ops.schema.units import MAX_DETAIL_CHARACTERS, Reject, Unit


def failed_row(failure: Failure) -> pa.Table:
    """A row that carries a failure to the driver."""
    nothing = pa.nulls(1, pa.string())
    return pa.table({"failure": [failure.to_json()], "commit": nothing, "passes": nothing})


def has_failed(row: pa.Table) -> bool:
    return "failure" in row.column_names and row["failure"][0].is_valid


def guarded(stage: Callable[[pa.Table], pa.Table], row: pa.Table, step: str, attempts: Attempts) -> pa.Table:
    """`stage(row)`; a failed row, one that fails now, or one that has killed MAX_TRIES processes, comes out as a failed row."""
    if has_failed(row):
        return row
    unit = Unit.from_json(row["unit"][0].as_py())
    key = f"{step} {unit.id}"
    deaths = attempts.begin(key)
    if deaths >= MAX_TRIES:
        done = failed_row(worker_died(unit.pieces, step))
    else:
        try:
            done = stage(row)
        except Exception as error:
            done = failed_row(failure_of(error, unit.pieces, step))
    attempts.end(key)
    return done


def with_cell(row: pa.Table, name: str, cell: pa.Array) -> pa.Table:
    return row.set_column(row.schema.get_field_index(name), name, cell)


def rejects_of(documents: pa.Table, bad: dict[int, BaseException], reason: str, output: OutputConfig) -> list[Reject]:
    """A reject for each of the rows in `bad`, with what its exception says."""
    files, rows = documents.column(output.source_file_column), documents.column(output.source_row_column)
    return [
        Reject(files[row].as_py(), rows[row].as_py(), reason, f"{type(error).__name__}: {error}"[:MAX_DETAIL_CHARACTERS])
        for row, error in sorted(bad.items())
    ]
