"""The read stage: a task's spans of input files in, a row per unit out."""

import hashlib
from collections.abc import Iterator

import pyarrow as pa

from pipeline_ops.reading.reader import read_units
from pipeline_ops.reading.spans import spans_from_json
from pipeline_ops.schema.arrow_cells import binary_cell, pack_table
from pipeline_ops.schema.failures import MAX_TRIES, Attempts, Failure, worker_died
from pipeline_ops.schema.time_spans import Stopwatch
from pipeline_ops.schema.units import pack_rejects
from pipeline_ops.stages.context import StageContext
from pipeline_ops.stages.rows import READ, failed_row, good_row, json_cell, rejects_cell, spans_of_stage


def read_task(task: pa.Table, context: StageContext, attempts: Attempts) -> Iterator[pa.Table]:
    """Yields a row of the READ schema per unit, as soon as it is read.

    Args:
        task: a row whose column `task` has the spans to read (reader.spans_to_json).
    """
    spans = task["task"][0].as_py()
    key = f"task {hashlib.sha256(spans.encode()).hexdigest()[:24]}"
    deaths = attempts.begin(key)
    stopwatch = Stopwatch()
    # attempts are counted per file only after a process has died: each costs a call to another process
    for done in read_units(spans_from_json(spans), context, attempts if deaths else None):
        if isinstance(done, Failure):
            yield failed_row(READ, done)
            continue
        unit, documents, rejects = done
        packing = f"pack {unit.id}"
        if deaths and attempts.begin(packing) >= MAX_TRIES:  # its files can be read, but the unit is too large to pack
            yield failed_row(READ, worker_died(unit.pieces, "read"))
            continue
        columns = {
            "unit": [unit.to_json()],
            "rejects": rejects_cell(pack_rejects(rejects)),
            "documents": binary_cell(pack_table(documents)),
            "spans": json_cell(spans_of_stage("read", stopwatch)),
        }
        del done, documents  # packed now; what this frame holds it holds until the next unit has been read
        yield good_row(READ, columns)
        del columns
        stopwatch = Stopwatch()
        if deaths:
            attempts.end(packing)
    attempts.end(key)
