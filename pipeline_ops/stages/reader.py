"""Read task: spans to rows."""

import hashlib
import time
from collections.abc import Iterator

import pyarrow as pa

from pipeline_ops.reading.reader import Attempts, ReadSettings, read_units, spans_from_json
from pipeline_ops.schema.arrow_cells import binary_cell, pack_table
from pipeline_ops.schema.failures import MAX_TRIES, Failure, worker_died
from pipeline_ops.schema.units import pack_rejects
from pipeline_ops.stages.rows import READ, failed_row, good_row


def read_task(task: pa.Table, settings: ReadSettings, attempts: Attempts) -> Iterator[pa.Table]:
    """A task's spans -> a row per unit, each as soon as it is read."""
    text = task["task"][0].as_py()
    key = f"task {hashlib.sha256(text.encode()).hexdigest()[:24]}"
    deaths = attempts.begin(key)
    began = time.monotonic()
    # which file it is that kills is only asked once something has
    for unit in read_units(spans_from_json(text), settings, attempts if deaths else None):
        if isinstance(unit, Failure):
            yield failed_row(READ, unit.to_json())
            continue
        unit, documents, rejects = unit
        packing = f"pack {unit.id}"
        if deaths and attempts.begin(packing) >= MAX_TRIES:  # it can be read, but is too much for this process
            yield failed_row(READ, worker_died(unit.pieces, "read").to_json())
            continue
        columns = {
            "unit": pa.array([unit.to_json()]),
            "rejects": binary_cell(pa.py_buffer(pack_rejects(rejects))),
            "documents": binary_cell(pack_table(documents)),
            "read_seconds": pa.array([time.monotonic() - began]),
        }
        yield good_row(READ, columns)
        began = time.monotonic()
        if deaths:
            attempts.end(packing)
    attempts.end(key)
