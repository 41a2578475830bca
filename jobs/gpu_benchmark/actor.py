"""The job's classifier (ClassifyActor, without Ray) on units of 32 MiB of text, already tokenized: what is lost between units.

The rows are there before the first call, so that nothing is waited for: in a job, Ray's hand-over comes on top.
"""

import json
import statistics
import tempfile
import time
from typing import Any

import numpy as np
import pyarrow as pa

from jobs.gpu_benchmark.correctness import job_model
from jobs.gpu_benchmark.eager import Workload, attention_switch_kept
from jobs.gpu_benchmark.phases import Bench
from pipeline_ops.inputs.config import InputConfig
from pipeline_ops.models.config import JobModel
from pipeline_ops.models.flops import document_flops
from pipeline_ops.reading.unit_sizes import UnitSizes
from pipeline_ops.schema.arrow_cells import binary_cell, list_cell, pack_table
from pipeline_ops.schema.output_columns import OutputConfig
from pipeline_ops.schema.units import Piece, Unit
from pipeline_ops.stages.classifier import ClassifyActor
from pipeline_ops.stages.context import StageContext
from pipeline_ops.stages.rows import good_row, json_cell, rejects_cell, tokenized_schema
from pipeline_ops.storage.config import StorageConfig
from pipeline_ops.synthetic import random_models
from pipeline_ops.tokenizing.batching import TokenBatches, batches_to_columns

UNIT_BYTES, TINY_UNIT_BYTES = 32 * 2**20, 2**14
UNITS = 6  # and one before them, which counts for nothing
CHARACTERS_PER_TOKEN = 4.2
BATCH_TOKENS = 65_536
LONGEST = 512
SMALL_MEDIAN_TOKENS = 100  # of the documents that the 22M model gets


class NoAttempts:
    """Attempts that count nothing: no process dies here."""

    def begin(self, key: str) -> int:
        return 0

    def end(self, key: str) -> None:
        pass

    def progress(self, key: str, share: float, documents: float, tokens: float) -> None:
        pass


def measure(bench: Bench) -> None:
    """BERT-base, then a 22M model, whose units take a fraction of the time."""
    import torch

    threads = torch.get_num_threads()
    with attention_switch_kept():
        for name, config, median in (
            ("BERT-base", random_models.bert_base(bench.tiny), random_models.MEDIAN_TOKENS),
            ("22M", random_models.small_bert(bench.tiny), SMALL_MEDIAN_TOKENS),
        ):
            if bench.has_time(8):
                _units(bench, name, config, median)
            else:
                bench.row({"model": name, "left_out": "no time"})
    torch.set_num_threads(threads)  # on a CPU a classifier takes one


def _units(bench: Bench, name: str, config: Any, median: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        random_models.make_classifier(config, bench.device, LONGEST // 4).save_pretrained(folder)
        model = job_model(folder, "bfloat16")
        begin = time.monotonic()
        actor = ClassifyActor(_context(model, bench.on_gpu), NoAttempts())
        bench.row({"model": name, "stage": "load", "seconds": time.monotonic() - begin})
    rows = Rows(model, config, TINY_UNIT_BYTES if bench.tiny else UNIT_BYTES, median)
    units = [rows.make(number) for number in range(2)] * (UNITS // 2)
    _call(actor, units[-1])
    walls, parts = [], []
    returned = time.monotonic()
    for number, unit in enumerate(units):
        if walls and not bench.has_time(3 * walls[-1]):
            bench.row({"model": name, "unit": number, "left_out": "no time"})
            break
        result = _call(actor, unit)
        now = time.monotonic()
        walls.append(now - returned)
        parts.append(json.loads(result["classify_seconds"][0].as_py()))
        returned = now
        bench.row(
            {
                "model": name,
                "unit": number,
                "wall_seconds": walls[-1],
                "bubble_seconds": walls[-1] - parts[-1]["computing"],
                **parts[-1],
            }
        )
    work = Workload(bench, actor.passes[0].model, document_flops(actor.passes[0].model, LONGEST))
    wall = statistics.median(walls)
    mean = {part: statistics.median(one[part] for one in parts) for part in parts[0]}
    begin = time.monotonic()
    serialized = pack_table(result)
    arrow_seconds = time.monotonic() - begin
    bare = work.bare(rows.batches, cudnn=False, repeat=1)
    found = work.speed(rows.batches.lengths, wall)
    bench.row(
        {
            "model": name,
            "unit": "all",
            **found,
            "units": len(walls),
            "documents": len(rows.batches.lengths),
            "wall_seconds": wall,
            "bubble_seconds": wall - mean["computing"],
            "bubble_percent": 100 * (1 - mean["computing"] / wall),
            **mean,
            "arrow_seconds": arrow_seconds,
            "arrow_mib": serialized.size / 2**20,
            "bare_documents_per_second": bare["documents_per_second"],
            "bare_mfu": bare["mfu"],
            "of_bare": found["documents_per_second"] / bare["documents_per_second"],
        }
    )


def _call(actor: ClassifyActor, row: pa.Table) -> pa.Table:
    """The actor's row.

    Raises:
        RuntimeError: the unit has failed.
    """
    result = actor(row)
    if result["failure"][0].is_valid:
        raise RuntimeError(result["failure"][0].as_py())
    return result


def _context(model: JobModel, use_gpu: bool) -> StageContext:
    output = OutputConfig(path="out")
    read = (InputConfig(path="in"), StorageConfig(), output, pa.schema([]), UnitSizes(UNIT_BYTES), "")
    return StageContext(*read, (model,), BATCH_TOKENS, use_gpu=use_gpu)


class Rows:
    """Rows as the tokenize stage returns them, of documents of random ids and random letters; lengths are log-normal.

    Attributes:
        batches: of each row; rows differ in their unit only.
    """

    batches: TokenBatches

    def __init__(self, model: JobModel, config: Any, unit_bytes: int, median: int):
        self.model = model
        rng = np.random.default_rng(0)
        count = int(unit_bytes / CHARACTERS_PER_TOKEN / (median * np.exp(random_models.LENGTH_SIGMA**2 / 2)))
        tokens = rng.lognormal(np.log(median), random_models.LENGTH_SIGMA, max(count, 2)).clip(4)
        self.lengths = tokens.clip(max=LONGEST).astype(np.int32)
        self.truncated = (tokens > LONGEST).astype(np.uint8)
        self.batches = random_models.batches_of(self.lengths, config, BATCH_TOKENS)
        ends = np.cumsum((tokens * CHARACTERS_PER_TOKEN).astype(np.int32), dtype=np.int32)
        letters = rng.integers(ord("a"), ord("z") + 1, int(ends[-1]), np.uint8)
        offsets = np.concatenate([np.zeros(1, np.int32), ends])
        texts = pa.Array.from_buffers(pa.string(), len(ends), [None, pa.py_buffer(offsets), pa.py_buffer(letters)])
        output = model.output
        self.documents = pa.table(
            {
                "text": texts,
                output.source_file_column: pa.array(["corpus.parquet"] * len(ends)),
                output.source_row_column: pa.array(np.arange(len(ends))),
            }
        )

    def make(self, number: int) -> pa.Table:
        unit = Unit(f"unit-{number}", (Piece("corpus.parquet", "", 0, len(self.lengths), last=True),))
        columns = {
            "unit": pa.array([unit.to_json()]),
            "rejects": rejects_cell(b""),
            "documents": binary_cell(pack_table(self.documents)),
            "spans": json_cell([]),
            **batches_to_columns(self.batches),
            "num_tokens_0": list_cell(self.lengths),
            "truncated_0": list_cell(self.truncated),
        }
        return good_row(tokenized_schema([self.model]), columns)
