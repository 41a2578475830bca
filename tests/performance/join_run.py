"""Memory and speed of `label-corpus join`: two outputs of one input file, made up here, joined by the command.

    python -m tests.performance.join_run FOLDER [ROWS]

Prints the peak memory of the command's process in MiB and its seconds, for outputs as runs write them and for compacted ones.
"""

import os
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa

from jobs.maintenance.compact import compact
from jobs.results.open_output import job_at
from pipeline_ops.schema.units import Piece, Unit, short_id
from pipeline_ops.writing.postprocessing import ModelOutputs, label_documents
from pipeline_ops.writing.unit_files import write_unit
from tests.support.joined_outputs import SOURCE, LabeledOnce

UNIT = 50_000
CHARACTERS = 150  # 2,000,000 rows are then less than jobs.maintenance.join.IN_PROCESS_BYTES, so that Ray is not started


def fill(output: LabeledOnce, rows: int, texts: bool) -> None:
    """Labels a file of that many rows, with random texts or none."""
    for start in range(0, rows, UNIT):
        numbers = np.arange(start, min(start + UNIT, rows))
        rng = np.random.default_rng(start)
        words = rng.integers(97, 123, (len(numbers), CHARACTERS), np.uint8)
        table = {"text": pa.array([word.tobytes().decode() for word in words])} if texts else {}
        columns = {"source_file": pa.array([f"{SOURCE}/x"] * len(numbers)), "source_row": pa.array(numbers)}
        logits = rng.normal(size=(len(numbers), len(output.labels))).astype(np.float32)
        outputs = ModelOutputs(logits, np.ones(len(numbers), np.int32), np.zeros(len(numbers), bool))
        labeled = label_documents(pa.table({**table, **columns}), outputs, head=output.head, output=output.output)
        piece = Piece(f"{SOURCE}/x", "v1", start, start + len(numbers), start + len(numbers) == rows)
        unit = Unit(short_id([output.record["fingerprint"], start]), (piece,))
        output.put(write_unit(output.store, unit, labeled, [], output.output, metadata={}, padded_tokens=1))


def measure(*arguments: str) -> str:
    """Runs the command in a process of its own."""
    started = time.monotonic()
    process = os.posix_spawn(sys.executable, [sys.executable, "-m", "jobs.cli", *arguments], os.environ)
    _, status, usage = os.wait4(process, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    cpu = usage.ru_utime + usage.ru_stime
    return f"{usage.ru_maxrss / 1024:,.0f} MiB, {cpu:.0f} s of CPU, {time.monotonic() - started:.0f} s"


def main(folder: Path, rows: int) -> None:
    a = LabeledOnce(folder / "a", "models/quality", ("good", "bad"))
    b = LabeledOnce(folder / "b", "models/topic", tuple(f"topic-{number}" for number in range(4)), scores=True)
    fill(a, rows, texts=True)
    fill(b, rows, texts=False)
    joined = ["join", a.store.path, b.store.path, "--quiet", "--output"]
    print("as runs write them:", measure(*joined, str(folder / "c")), flush=True)
    print("nothing new:", measure(*joined, str(folder / "c")), flush=True)
    for one in (a, b):
        compact(job_at(one.store.path), 256 * 2**20, quiet=True)
    print("compacted:", measure(*joined, str(folder / "d")), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 2_000_000)
