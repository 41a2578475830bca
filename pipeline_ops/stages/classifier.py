"""The classify stage: token batches in, logits and embeddings out."""

import os
import time
import traceback
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

from pipeline_ops.classifying.classify import UnitLogits, classify_isolating_failures
from pipeline_ops.classifying.compiled import wants_compiling
from pipeline_ops.classifying.compiled_passes import compile_if_wanted
from pipeline_ops.classifying.forward_pass import ForwardPasses
from pipeline_ops.classifying.padding_check import reason_against_padding
from pipeline_ops.classifying.shared_passes import Shareable, share_trunk
from pipeline_ops.classifying.side_by_side import may_run_side_by_side
from pipeline_ops.loading.device_errors import is_device_lost, usable_device
from pipeline_ops.loading.fused_layers import fuse_layers
from pipeline_ops.loading.libraries import import_uncollected
from pipeline_ops.loading.load import load_classifier
from pipeline_ops.loading.shared_trunk import release_duplicates
from pipeline_ops.models.config import tokenization_ids
from pipeline_ops.models.flops import DocumentFlops, document_flops
from pipeline_ops.models.shared_layers import sharing_key
from pipeline_ops.schema.arrow_cells import list_cell
from pipeline_ops.schema.failures import MODEL_LOAD_STEP, Attempts
from pipeline_ops.schema.time_spans import Stopwatch, start_of_process
from pipeline_ops.stages.context import StageContext
from pipeline_ops.stages.rows import Columns, UnitRow, classified_schema, detail_of, guarded, json_cell, rejects_of
from pipeline_ops.tokenizing.batching import TokenBatches, batches_from_columns
from pipeline_ops.tokenizing.windows import documents_of_windows
from pipeline_ops.writing.commit_record import ClassifySeconds

STEP = "classify"
PROGRESS_SECONDS = 1  # between two reports of a classifier's


class ProgressAttempts(Attempts, Protocol):
    """Attempts that can also be given how far one is."""

    def progress(self, key: str, share: float, documents: float, tokens: float) -> None:
        """Record how far work on `key` is: its share from 0 to 1, documents and tokens so far. Does not wait."""
        ...


class UnitReporter:
    """Reports how far a unit is, by its padded tokens, at most once in PROGRESS_SECONDS."""

    def __init__(self, attempts: ProgressAttempts, key: str, documents: int, batches: Sequence[TokenBatches]):
        """
        Args:
            batches: of each model.
        """
        self.attempts, self.key, self.documents = attempts, key, documents
        self.tokens = sum(int(one.lengths.sum()) for one in batches)
        self.padded_tokens = sum(len(one.ids) for one in batches)
        self.done = 0
        self.reported = time.monotonic()

    def add(self, padded_tokens: int) -> None:
        """Counts a batch that has been passed to a model."""
        self.done += padded_tokens
        now = time.monotonic()
        if now - self.reported >= PROGRESS_SECONDS:
            self.reported, share = now, self.done / self.padded_tokens
            self.attempts.progress(self.key, share, share * self.documents, share * self.tokens)


class ClassifyActor:
    """Loads the models once, on the GPU that Ray assigned or for one core; a document that a model fails on is rejected.

    Args:
        like: one of the same context in this process, with which weights are held once.
    """

    def __init__(self, context: StageContext, attempts: ProgressAttempts, like: "ClassifyActor | None" = None):
        start_of_process()
        stopwatch = Stopwatch()
        self.context, self.attempts = context, attempts
        self.tokenizations, self.schema = tokenization_ids(context.models), classified_schema(context.models)
        self.load_error: Exception | None = None
        try:
            with usable_device():
                self.passes = self.load()
            if like is not None:
                for passes, others in zip(self.passes, like.passes, strict=True):
                    release_duplicates(passes.model, others.model)
            # now: the counter's hooks are in all modules of the process, those of another thread's pass among them
            self.flops = self.count_flops() if like is None else like.flops
        except Exception as error:  # raised for the first unit: Ray reports a failed constructor as a traceback only
            self.load_error = error
        self.loading = stopwatch.span("loading")
        self.called = self.returned = time.monotonic()  # when the last call began and ended

    def load(self) -> list[ForwardPasses]:
        import_uncollected("torch", "transformers.modeling_utils")
        import torch

        context, device = self.context, "cuda" if self.context.use_gpu else "cpu"
        if context.use_gpu:
            # torch computes them in TF32, which rounds by up to 5e-4: a model with convolutions would seem to depend on padding
            torch.backends.cudnn.allow_tf32 = False
        else:
            torch.set_num_threads(1)  # one single-thread replica per core is faster than one replica with many threads
        loaded: list[Shareable] = []
        for model in context.models:
            config, facts = model.config, model.facts
            module = load_classifier(config, context.storage, revision=facts.revision, dtype=model.dtype, device=device)
            embedding = model.output.embedding
            reason = reason_against_padding(module, facts)
            # layers that are compiled are fused by the compiler; fused before, each would be a graph of its own
            if context.use_gpu and not wants_compiling(config.compile, module):
                fuse_layers(module, compiled=config.compile == "auto")
            passes = ForwardPasses(module, pad_left=facts.pad_left, against_padding=reason, embedding=embedding)
            key = sharing_key(model)
            one = Shareable(model.name, passes, None if key is None else (key, reason), facts)
            share_trunk(one, loaded)  # before the next one takes memory
            loaded.append(one)
        for model, one in zip(context.models, loaded, strict=True):
            compile_if_wanted(one.passes, model.config.compile, model.facts)
        return [one.passes for one in loaded]

    def may_run_beside_others(self) -> bool:
        """Whether its passes may run while those of another one do, in another thread of this process."""
        return self.load_error is None and all(may_run_side_by_side(passes.model) for passes in self.passes)

    def __call__(self, row: pa.Table) -> pa.Table:
        self.called = time.monotonic()
        step = STEP if self.load_error is None else MODEL_LOAD_STEP
        result = guarded(self.classify, row, step, self.schema, self.attempts, [self.loading])
        self.returned = time.monotonic()
        return result

    def classify(self, row: UnitRow) -> Columns:
        if self.load_error is not None:
            raise self.load_error
        began = time.monotonic()
        batches = [
            passes.arrange(batches_from_columns(row.table, number))
            for passes, number in zip(self.passes, self.tokenizations, strict=True)
        ]
        num_documents = len(row.array("num_tokens_0"))
        self.reporter = UnitReporter(self.attempts, f"{STEP} {row.unit.id}", num_documents, batches)
        outputs, seconds = self.forward(batches)
        computing = sum(seconds)
        copying = time.monotonic() - began - computing
        columns: Columns = {}
        errors: dict[int, str] = {}
        flops: list[float | None] = []
        for number, (model, inputs, (values, failed)) in enumerate(zip(self.context.models, batches, outputs, strict=True)):
            counter = self.flops[number]
            flops.append(counter and counter.total(inputs.lengths[~np.isin(inputs.order, list(failed))]))
            if model.facts.windows is not None:
                documents = documents_of_windows(failed, row.array(f"windows_{self.tokenizations[number]}"))
                failed = dict(zip(documents, failed.values(), strict=True))
            errors = {row: detail_of(error, model.name) for row, error in failed.items()} | errors
            num_labels = len(model.facts.head.labels)
            columns[f"logits_{number}"] = list_cell(values[:, :num_labels].reshape(-1))
            if model.output.embedding is not None:
                columns[f"embedding_{number}"] = list_cell(values[:, num_labels:].reshape(-1))
        if errors:
            columns["rejects"] = row.rejects_and(rejects_of(row.documents, errors, "model_error", self.context.output))
        columns["model_errors"] = list_cell(np.array(sorted(errors), np.int64))
        passes = [_pass_counts(*one) for one in zip(self.passes, batches, seconds, strict=True)]
        columns["passes"] = json_cell(passes)
        columns["flops"] = pa.array([None if None in flops else sum(count or 0 for count in flops)], pa.float64())
        writing = time.monotonic() - self.called - copying - computing
        spent = ClassifySeconds(*(round(part, 6) for part in (self.called - self.returned, copying, computing, writing)))
        columns["classify_seconds"] = json_cell(spent.to_dict())
        return columns

    def forward(self, batches: Sequence[TokenBatches]) -> tuple[list[UnitLogits], list[float]]:
        """(each model's output for its batches, the seconds that each has computed).

        A document that fails in what models share, or in one of them, has no output of any of them.
        """
        outputs: dict[int, UnitLogits] = {}
        for passes in self.passes:
            passes.discard_seconds()  # of a unit that has failed
        try:
            for number, passes in enumerate(self.passes):
                if passes.trunk is None:
                    together = [number, *map(self.passes.index, passes.followers)]
                    outputs |= self.forward_together(together, batches[number])
            return [outputs[number] for number in range(len(self.passes))], [passes.take_seconds() for passes in self.passes]
        except Exception as error:
            if is_device_lost(error):  # only a new process can use the GPU again: Ray starts one, and `attempts` counts
                traceback.print_exc()
                os._exit(1)
            raise

    def forward_together(self, numbers: Sequence[int], batches: TokenBatches) -> dict[int, UnitLogits]:
        """{number: output} of models that share a pass, the one that leads it first; or of one that has its own."""
        labels = [len(self.context.models[number].facts.head.labels) for number in numbers]
        values, failed = classify_isolating_failures(
            batches,
            self.passes[numbers[0]],
            num_labels=sum(labels),
            on_batch=lambda padded_tokens: self.reporter.add(len(numbers) * padded_tokens),
        )
        ends = np.cumsum([count + self.passes[number].embedding_size for number, count in zip(numbers, labels, strict=True)])
        parts = np.split(values, ends[:-1], axis=1)
        return {number: (part, failed) for number, part in zip(numbers, parts, strict=True)}

    def count_flops(self) -> list[DocumentFlops | None]:
        return [
            document_flops(passes.model, model.facts.max_length, without=passes.trunk.names if passes.trunk is not None else ())
            for passes, model in zip(self.passes, self.context.models, strict=True)
        ]


def _pass_counts(passes: ForwardPasses, batches: TokenBatches, seconds: float) -> dict[str, Any]:
    """A value of the row's `passes`, see stages.rows."""
    return {
        "batches": len(batches.rows),
        "tokens": int(batches.lengths.sum()),
        "padded_tokens": len(batches.ids),
        "seconds": seconds,
        "against_padding": passes.against_padding,
        "against_sharing": passes.against_sharing,
        "against_compiling": passes.against_compiling,
    }
