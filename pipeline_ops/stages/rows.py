"""The stages as Ray Data calls them: one row, a unit, in and out (readers: several units out). Plain classes, no ray.

The row's columns: unit, rejects, documents and read_seconds from the reader; batch_*, num_tokens_*, truncated_* and
windows_*, numbered by what models read (models.readings_of), and tokenize_seconds from the tokenizer; logits_* and embedding_*,
numbered by model, model_errors, padded_tokens, passes (JSON: what went through each model), classify_seconds and flops from the
classifier; commit from the writer. A unit may be read, tokenized, classified or written more than once when a worker dies; only
its commit counts.

An exception in a stage becomes the row's `failure`, as JSON, and later stages pass such a row on: Ray would wrap it so that
only the text of a traceback reaches the driver, which could tell neither the unit from it nor who is at fault. A document that
makes the tokenizer or the model raise is rejected alone. What kills the process is known by `attempts`, which outlives it.
"""

import hashlib
import json
import os
import time
import traceback
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline_ops.classifying.classify import UnitLogits, classify_good, is_device_lost
from pipeline_ops.models.flops import DocumentFlops, document_flops
from pipeline_ops.schema.failures import LOADING, MAX_TRIES, Failure, failure_of, worker_died
from pipeline_ops.classifying.forward_pass import ForwardPasses, check_compiler
from pipeline_ops.reading.inputs import decode
from pipeline_ops.models.resolve import JobModel, first_readers, load_classifier, readings_of
from pipeline_ops.writing.postprocessing import Classified, label_documents
from pipeline_ops.reading.reader import Attempts, ReadSettings, read_units, spans_from_json
from pipeline_ops.schema.units import (
    MAX_DETAIL_CHARACTERS,
    OutputConfig,
    Reject,
    Unit,
    binary_cell,
    flat_values,
    list_cell,
    pack_rejects,
    pack_table,
    unpack_rejects,
    unpack_table,
)
from pipeline_ops.tokenizing.sequences import TextEncoder, documents_of
from pipeline_ops.storage.files import StorageConfig
from pipeline_ops.tokenizing.encoding import Encodings, TokenBatches, batches_from_columns, batches_to_columns, encode_good, make_batches
from pipeline_ops.writing.unit_files import ClassifySeconds, write_unit


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


def read_task(task: pa.Table, settings: ReadSettings, attempts: Attempts) -> Iterator[pa.Table]:
    """A task's spans -> a row per unit, each as soon as it is read."""
    text = task["task"][0].as_py()
    key = f"task {hashlib.sha256(text.encode()).hexdigest()[:24]}"
    deaths = attempts.begin(key)
    began = time.monotonic()
    # which file it is that kills is only asked once something has
    for unit in read_units(spans_from_json(text), settings, attempts if deaths else None):
        if isinstance(unit, Failure):
            yield failed_row(unit)
            continue
        unit, documents, rejects = unit
        packing = f"pack {unit.id}"
        if deaths and attempts.begin(packing) >= MAX_TRIES:  # it can be read, but is too much for this process
            yield failed_row(worker_died(unit.pieces, "read"))
            continue
        yield pa.table(
            {
                "unit": [unit.to_json()],
                "rejects": binary_cell(pa.py_buffer(pack_rejects(rejects))),
                "documents": binary_cell(pack_table(documents)),
                "read_seconds": [time.monotonic() - began],
            }
        )
        began = time.monotonic()
        if deaths:
            attempts.end(packing)
    attempts.end(key)


class TokenizeActor:
    """Holds the tokenizers. One process uses one core: parallel tokenizing is more actors."""

    def __init__(
        self,
        models: Sequence[JobModel],
        text_columns: tuple[str, ...],
        output: OutputConfig,
        batch_tokens: int,
        attempts: Attempts,
    ):
        # each text is tokenized once for all models that read the same
        self.readers = first_readers(models)
        self.encoders = [
            TextEncoder(
                model.tokenizer,
                with_type_ids=model.facts.has_type_ids,
                pairs=model.facts.pairs,
                windows=model.facts.windows,
            )
            for model in self.readers
        ]
        self.text_columns, self.output, self.batch_tokens = text_columns, output, batch_tokens
        self.attempts = attempts

    def __call__(self, row: pa.Table) -> pa.Table:
        return guarded(self.tokenize, row, "tokenize", self.attempts)

    def tokenize(self, row: pa.Table) -> pa.Table:
        began = time.monotonic()
        documents = unpack_table(row["documents"][0])
        texts = [decode(documents.column(name))[0].to_pylist() for name in self.text_columns]
        encodings, bad, empty = self.encode(texts)
        if bad or empty:
            rejects = row["rejects"][0].as_py()
            for failed, reason in ((bad, "tokenizer_error"), (empty, "too_short")):
                rejects += pack_rejects(rejects_of(documents, failed, reason, self.output))
            good = np.ones(documents.num_rows, bool)
            good[[*bad, *empty]] = False
            documents = documents.filter(pa.array(good))
            row = with_cell(row, "rejects", binary_cell(pa.py_buffer(rejects)))
            row = with_cell(row, "documents", binary_cell(pack_table(documents)))
        kept = self.output.input_columns()
        if kept is not None and (unwanted := [name for name in self.text_columns if name not in kept]):
            documents = documents.drop_columns(unwanted)
            row = with_cell(row, "documents", binary_cell(pack_table(documents)))
        for reading, (model, read) in enumerate(zip(self.readers, encodings, strict=True)):
            batches = make_batches(
                read,
                batch_tokens=self.batch_tokens,
                pad_id=model.facts.pad_id,
                pad_type_id=model.facts.pad_type_id,
                pad_left=model.facts.pad_left,
                max_width=model.facts.max_length,
            )
            for name, column in {
                **batches_to_columns(batches, reading),
                f"num_tokens_{reading}": list_cell(read.num_tokens),
                f"truncated_{reading}": list_cell(read.truncated.astype(np.uint8)),
                **({} if read.windows is None else {f"windows_{reading}": list_cell(read.windows)}),
            }.items():
                row = row.append_column(name, column)
        return row.append_column("tokenize_seconds", pa.array([time.monotonic() - began]))

    def encode(self, texts: list[list[str]]) -> tuple[list[Encodings], dict[int, BaseException], dict[int, BaseException]]:
        """(what each tokenizer makes of the good documents; by row, what those that make one raise do; the same of empty ones).

        Args:
            texts: a list per text column.
        """
        found, bad = list[Encodings](), dict[int, BaseException]()
        for encoder in self.encoders:
            read, failed = encode_good(partial(_encode_rows, encoder, texts), len(texts[0]))
            found.append(read)
            bad = failed | bad
        if bad and len(found) > 1:  # each has left out its own only
            found = self.encode_but(bad, texts)
        if all(read.lengths.all() for read in found):
            return found, bad, {}
        rows = np.array([row for row in range(len(texts[0])) if row not in bad])
        without = {int(row) for read in found for row in rows[read.num_tokens == 0]}
        empty: dict[int, BaseException] = {row: ValueError("the tokenizer gives it no token") for row in without}
        return self.encode_but(bad | empty, texts), bad, empty

    def encode_but(self, left_out: Collection[int], texts: list[list[str]]) -> list[Encodings]:
        good = [[text for row, text in enumerate(column) if row not in left_out] for column in texts]
        return [encoder.encode(good) for encoder in self.encoders]


def _encode_rows(encoder: TextEncoder, texts: list[list[str]], rows: slice) -> Encodings:
    return encoder.encode([column[rows] for column in texts])


class ClassifyActor:
    """Loads the models once, on the GPU that Ray gave this actor, or on the CPU with a single thread."""

    def __init__(
        self, models: Sequence[JobModel], storage: StorageConfig, output: OutputConfig, use_gpu: bool, attempts: Attempts
    ):
        import torch

        if not use_gpu:
            torch.set_num_threads(1)  # one single-thread replica per core beats one replica with many threads
        self.models, self.readings, self.output, self.attempts = models, readings_of(models), output, attempts
        # counted behind the first unit, whose labels are waited for
        self.flops: list[DocumentFlops | None] | None = None
        self.refusal: Exception | None = None
        try:
            self.passes = [_load(model, storage, "cuda" if use_gpu else "cpu") for model in models]
        except Exception as error:  # told by the first unit: of an actor that does not start, Ray says no more than a traceback
            self.refusal = error
        self.called = self.left = time.monotonic()  # the last call's beginning and end

    def __call__(self, row: pa.Table) -> pa.Table:
        self.called = time.monotonic()
        if self.refusal is not None and not has_failed(row):
            done = failed_row(failure_of(self.refusal, Unit.from_json(row["unit"][0].as_py()).pieces, LOADING))
        else:
            done = guarded(self.classify, row, "classify", self.attempts)
        self.left = time.monotonic()
        return done

    def classify(self, row: pa.Table) -> pa.Table:
        began = time.monotonic()
        batches = [batches_from_columns(row, reading) for reading in self.readings]
        found, computed = self.forward(batches)
        computing = sum(computed)
        copying = time.monotonic() - began - computing
        if self.flops is None:
            self.flops = self.count_flops()
        columns: dict[str, pa.Array] = {}
        bad: dict[int, BaseException] = {}
        flops: list[float | None] = []
        for number, (model, read, (values, failed)) in enumerate(zip(self.models, batches, found, strict=True)):
            counted = self.flops[number]
            flops.append(counted and counted.of(read.lengths[~np.isin(read.order, list(failed))]))
            if model.facts.windows is not None:
                documents = documents_of(failed, flat_values(row, f"windows_{self.readings[number]}"))
                failed = dict(zip(documents, failed.values(), strict=True))
            bad = failed | bad
            num_labels = len(model.facts.head.labels)
            columns[f"logits_{number}"] = list_cell(values[:, :num_labels].reshape(-1))
            if model.output.embedding is not None:
                columns[f"embedding_{number}"] = list_cell(values[:, num_labels:].reshape(-1))
        kept = row.drop_columns([name for name in row.column_names if name.startswith("batch_")])
        if bad:
            rejects = rejects_of(unpack_table(row["documents"][0]), bad, "model_error", self.output)
            kept = with_cell(kept, "rejects", binary_cell(pa.py_buffer(row["rejects"][0].as_py() + pack_rejects(rejects))))
        columns["model_errors"] = list_cell(np.array(sorted(bad), np.int64))
        columns["padded_tokens"] = pa.array([sum(len(read.ids) for read in batches)])
        columns["passes"] = pa.array([json.dumps([_passes(*passed) for passed in zip(batches, computed, strict=True)])])
        known = [count for count in flops if count is not None]
        columns["flops"] = pa.array([sum(known) if len(known) == len(flops) else None], pa.float64())
        for name, column in columns.items():
            kept = kept.append_column(name, column)
        writing = time.monotonic() - self.called - copying - computing
        seconds = ClassifySeconds(*(round(part, 6) for part in (self.called - self.left, copying, computing, writing)))
        return kept.append_column("classify_seconds", pa.array([seconds.to_dict()]))

    def forward(self, batches: Sequence[TokenBatches]) -> tuple[list[UnitLogits], list[float]]:
        """(what each model says of its batches, the seconds that it computed)."""
        try:
            found = [
                classify_good(read, passes, num_labels=len(model.facts.head.labels))
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


def with_cell(row: pa.Table, name: str, cell: pa.Array) -> pa.Table:
    return row.set_column(row.schema.get_field_index(name), name, cell)


def rejects_of(documents: pa.Table, bad: dict[int, BaseException], reason: str, output: OutputConfig) -> list[Reject]:
    """A reject for each of the rows in `bad`, with what its exception says."""
    files, rows = documents.column(output.source_file_column), documents.column(output.source_row_column)
    return [
        Reject(files[row].as_py(), rows[row].as_py(), reason, f"{type(error).__name__}: {error}"[:MAX_DETAIL_CHARACTERS])
        for row, error in sorted(bad.items())
    ]


def write_row(
    row: pa.Table,
    models: Sequence[JobModel],
    output: OutputConfig,
    storage: StorageConfig,
    metadata: dict[str, Any],
    attempts: Attempts,
) -> pa.Table:
    """Labels a classified unit and writes its files; gives one row with what the commit has to say, as JSON."""
    return guarded(lambda good: write_good_row(good, models, output, storage, metadata), row, "write", attempts)


def write_good_row(
    row: pa.Table, models: Sequence[JobModel], output: OutputConfig, storage: StorageConfig, metadata: dict[str, Any]
) -> pa.Table:
    """As write_row, for a row that has not failed."""
    began = time.monotonic()
    unit = Unit.from_json(row["unit"][0].as_py())
    documents = unpack_table(row["documents"][0])
    found = [_classified(row, number, reading, models) for number, reading in enumerate(readings_of(models))]
    finite = np.logical_and.reduce([classified.finite() for classified in found])
    labelled = documents.filter(pa.array(finite))
    for model, classified in zip(models, found, strict=True):
        labelled = label_documents(
            labelled, classified.of(finite), head=model.facts.head, output=model.output, windows=model.facts.windows
        )
    rejects = unpack_rejects(row["rejects"][0].as_py())
    finite[flat_values(row, "model_errors")] = True  # these have been rejected where they failed
    bad = documents.filter(pa.array(~finite))
    for path, number in zip(
        bad.column(output.source_file_column).to_pylist(), bad.column(output.source_row_column).to_pylist(), strict=True
    ):
        rejects.append(Reject(path, number, "non_finite_logits", "the model gave a logit that is not a number"))
    commit = write_unit(
        unit,
        labelled,
        rejects,
        output,
        storage,
        metadata=metadata,
        padded_tokens=row["padded_tokens"][0].as_py(),
        classify_seconds=ClassifySeconds(**row["classify_seconds"][0].as_py()),
        flops=row["flops"][0].as_py(),
    )
    seconds = {stage: row[f"{stage}_seconds"][0].as_py() for stage in ("read", "tokenize")}
    seconds["write"] = time.monotonic() - began
    commit = replace(commit, stage_seconds={stage: round(spent, 6) for stage, spent in seconds.items()})
    return pa.table({"failure": pa.nulls(1, pa.string()), "commit": [commit.to_json()], "passes": row["passes"]})


def _classified(row: pa.Table, number: int, reading: int, models: Sequence[JobModel]) -> Classified:
    """What the model of that number says, by what it has read."""
    model = models[number]
    logits = flat_values(row, f"logits_{number}").reshape(-1, len(model.facts.head.labels))
    embedding = None
    if model.output.embedding is not None and len(logits):
        embedding = flat_values(row, f"embedding_{number}").reshape(len(logits), -1)
    return Classified(
        logits,
        flat_values(row, f"num_tokens_{reading}"),
        flat_values(row, f"truncated_{reading}").astype(bool),
        None if model.facts.windows is None else flat_values(row, f"windows_{reading}"),
        embedding,
    )
