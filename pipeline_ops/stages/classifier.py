"""ClassifyActor."""

import json
import os
import time
import traceback
from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from pipeline_ops.classifying.classify import UnitLogits, classify_isolating_failures, is_device_lost
from pipeline_ops.classifying.forward_pass import ForwardPasses, check_compiler
from pipeline_ops.models.config import JobModel, tokenization_ids
from pipeline_ops.models.flops import DocumentFlops, document_flops
from pipeline_ops.models.load import load_classifier
from pipeline_ops.reading.reader import Attempts
from pipeline_ops.schema.arrow_cells import binary_cell, flat_values, list_cell, unpack_table
from pipeline_ops.schema.failures import MODEL_LOAD_STEP, failure_of
from pipeline_ops.schema.output_columns import OutputConfig
from pipeline_ops.schema.units import Unit, pack_rejects
from pipeline_ops.stages.rows import Columns, classified_schema, failed_row, guarded, has_failed, rejects_of
from pipeline_ops.storage.files import StorageConfig
from pipeline_ops.tokenizing.batching import TokenBatches, batches_from_columns
from pipeline_ops.tokenizing.windows import documents_of_windows
from pipeline_ops.writing.commit_record import ClassifySeconds


class ClassifyActor:
    """Loads the models once, on the GPU that Ray gave this actor, or on the CPU with a single thread."""

    def __init__(
        self, models: Sequence[JobModel], storage: StorageConfig, output: OutputConfig, use_gpu: bool, attempts: Attempts
    ):
        import torch

        if not use_gpu:
            torch.set_num_threads(1)  # one single-thread replica per core beats one replica with many threads
        self.models, self.readings, self.output, self.attempts = models, tokenization_ids(models), output, attempts
        # counted behind the first unit, whose labels are waited for
        self.flops: list[DocumentFlops | None] | None = None
        self.load_error: Exception | None = None
        try:
            self.passes = [_load(model, storage, "cuda" if use_gpu else "cpu") for model in models]
        except Exception as error:  # told by the first unit: of an actor that does not start, Ray says no more than a traceback
            self.load_error = error
        self.called = self.left = time.monotonic()  # the last call's beginning and end

    def __call__(self, row: pa.Table) -> pa.Table:
        self.called = time.monotonic()
        schema = classified_schema(self.models)
        if self.load_error is not None and not has_failed(row):
            failure = failure_of(self.load_error, Unit.from_json(row["unit"][0].as_py()).pieces, MODEL_LOAD_STEP)
            done = failed_row(schema, failure.to_json())
        else:
            done = guarded(self.classify, row, "classify", self.attempts, schema)
        self.left = time.monotonic()
        return done

    def classify(self, row: pa.Table) -> Columns:
        began = time.monotonic()
        batches = [batches_from_columns(row, reading) for reading in self.readings]
        found, computed = self.forward(batches)
        computing = sum(computed)
        copying = time.monotonic() - began - computing
        if self.flops is None:
            self.flops = self.count_flops()
        columns: Columns = {}
        bad: dict[int, BaseException] = {}
        flops: list[float | None] = []
        for number, (model, read, (values, failed)) in enumerate(zip(self.models, batches, found, strict=True)):
            counted = self.flops[number]
            flops.append(counted and counted.total(read.lengths[~np.isin(read.order, list(failed))]))
            if model.facts.windows is not None:
                documents = documents_of_windows(failed, flat_values(row, f"windows_{self.readings[number]}"))
                failed = dict(zip(documents, failed.values(), strict=True))
            bad = failed | bad
            num_labels = len(model.facts.head.labels)
            columns[f"logits_{number}"] = list_cell(values[:, :num_labels].reshape(-1))
            if model.output.embedding is not None:
                columns[f"embedding_{number}"] = list_cell(values[:, num_labels:].reshape(-1))
        if bad:
            rejects = rejects_of(unpack_table(row["documents"][0]), bad, "model_error", self.output)
            columns["rejects"] = binary_cell(pa.py_buffer(row["rejects"][0].as_py() + pack_rejects(rejects)))
        columns["model_errors"] = list_cell(np.array(sorted(bad), np.int64))
        columns["padded_tokens"] = pa.array([sum(len(read.ids) for read in batches)])
        columns["passes"] = pa.array([json.dumps([_passes(*passed) for passed in zip(batches, computed, strict=True)])])
        known = [count for count in flops if count is not None]
        columns["flops"] = pa.array([sum(known) if len(known) == len(flops) else None], pa.float64())
        writing = time.monotonic() - self.called - copying - computing
        seconds = ClassifySeconds(*(round(part, 6) for part in (self.called - self.left, copying, computing, writing)))
        columns["classify_seconds"] = pa.array([seconds.to_dict()])
        return columns

    def forward(self, batches: Sequence[TokenBatches]) -> tuple[list[UnitLogits], list[float]]:
        """(what each model says of its batches, the seconds that it computed)."""
        try:
            found = [
                classify_isolating_failures(read, passes, num_labels=len(model.facts.head.labels))
                for model, passes, read in zip(self.models, self.passes, batches, strict=True)
            ]
        except Exception as error:
            if is_device_lost(error):  # only another process can use the GPU again; Ray starts one, and `attempts` counts
                traceback.print_exc()
                os._exit(1)
            raise
        return found, [passes.take_seconds() for passes in self.passes]

    def count_flops(self) -> list[DocumentFlops | None]:
        pairs = zip(self.passes, self.models, strict=True)
        return [document_flops(passes.model, model.facts.max_length) for passes, model in pairs]


def _passes(read: TokenBatches, seconds: float) -> dict[str, float]:
    """What went through a model for a unit, and the seconds that it computed."""
    tokens = int(read.lengths.sum())
    return {"batches": len(read.rows), "tokens": tokens, "padded_tokens": len(read.ids), "seconds": seconds}


def _load(model: JobModel, storage: StorageConfig, device: str) -> ForwardPasses:
    config, facts = model.config, model.facts
    if config.compile:
        check_compiler(device)
    classifier = load_classifier(config, storage, revision=facts.revision, dtype=model.dtype, device=device)
    return ForwardPasses(classifier, pad_left=facts.pad_left, compiled=config.compile, embedding=model.output.embedding)
