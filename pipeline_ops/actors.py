"""The stages as Ray Data calls them: one row, a unit, in and out (readers: several units out). Plain classes, no ray.

The row's columns: unit, rejects and documents from the reader; batch_* and truncated from the tokenizer; logits, tokens,
padded_tokens, classify_seconds and flops from the classifier; commit from the writer. A unit may be read, tokenized, classified
or written more than once when a worker dies; only its commit counts.

An exception in a stage becomes the row's `failure`, as JSON, and later stages pass such a row on: Ray would wrap it so that
only the text of a traceback reaches the driver, which could tell neither the unit from it nor who is at fault. A document that
makes the tokenizer or the model raise is rejected alone. What kills the process is known by `attempts`, which outlives it.
"""

import hashlib
import os
import time
import traceback
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa
from tokenizers import Tokenizer

from pipeline_ops.classifying import classify_good, is_device_lost
from pipeline_ops.cutting import cuts_of
from pipeline_ops.estimating import DocumentFlops, document_flops, token_budget_of
from pipeline_ops.failures import LOADING, MAX_TRIES, Failure, failure_of, worker_died
from pipeline_ops.inferring import ForwardPasses, check_compiler
from pipeline_ops.models import ModelConfig, ModelFacts, load_classifier
from pipeline_ops.postprocessing import label_documents
from pipeline_ops.reading import Attempts, ReadSettings, decode, read_units, spans_from_json
from pipeline_ops.schema import (
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
from pipeline_ops.storage import StorageConfig
from pipeline_ops.tokenizing import batches_from_columns, batches_to_columns, encode_good, make_batches
from pipeline_ops.writing import ClassifySeconds, write_unit


def failed_row(failure: Failure) -> pa.Table:
    """A row that carries a failure to the driver."""
    return pa.table({"failure": [failure.to_json()], "commit": pa.nulls(1, pa.string())})


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
            }
        )
        if deaths:
            attempts.end(packing)
    attempts.end(key)


class TokenizeActor:
    """Holds the tokenizer. One process uses one core: parallel tokenizing is more actors.

    Args:
        tokenizer: JSON of what tokenizing.truncating_backend gives: the very one that the driver has identified.
    """

    def __init__(
        self,
        tokenizer: str,
        facts: ModelFacts,
        text_column: str,
        output: OutputConfig,
        batch_tokens: int,
        attempts: Attempts,
    ):
        self.tokenizer = Tokenizer.from_str(tokenizer)
        self.cuts = cuts_of(tokenizer, self.tokenizer)
        self.facts, self.text_column, self.output, self.batch_tokens = facts, text_column, output, batch_tokens
        self.attempts = attempts

    def __call__(self, row: pa.Table) -> pa.Table:
        return guarded(self.tokenize, row, "tokenize", self.attempts)

    def tokenize(self, row: pa.Table) -> pa.Table:
        documents = unpack_table(row["documents"][0])
        texts = decode(documents.column(self.text_column))[0].to_pylist()
        encodings, bad = encode_good(texts, self.tokenizer, with_type_ids=self.facts.has_type_ids, cuts=self.cuts)
        if bad:
            rejects = row["rejects"][0].as_py() + pack_rejects(rejects_of(documents, bad, "tokenizer_error", self.output))
            good = np.ones(len(texts), bool)
            good[list(bad)] = False
            documents = documents.filter(pa.array(good))
            row = with_cell(row, "rejects", binary_cell(pa.py_buffer(rejects)))
            row = with_cell(row, "documents", binary_cell(pack_table(documents)))
        batches = make_batches(
            encodings,
            batch_tokens=self.batch_tokens,
            pad_id=self.facts.pad_id,
            pad_type_id=self.facts.pad_type_id,
            pad_left=self.facts.pad_left,
            max_width=self.facts.max_length,
        )
        kept = self.output.input_columns()
        if kept is not None and self.text_column not in kept:
            documents = documents.drop_columns([self.text_column])
            row = with_cell(row, "documents", binary_cell(pack_table(documents)))
        for name, column in {
            **batches_to_columns(batches),
            "num_tokens": list_cell(encodings.lengths),
            "truncated": list_cell(encodings.truncated.astype(np.uint8)),
        }.items():
            row = row.append_column(name, column)
        return row


class ClassifyActor:
    """Loads the model once, on the GPU that Ray gave this actor, or on the CPU with a single thread."""

    def __init__(
        self,
        model: ModelConfig,
        facts: ModelFacts,
        storage: StorageConfig,
        output: OutputConfig,
        dtype: str,
        use_gpu: bool,
        attempts: Attempts,
    ):
        import torch

        if not use_gpu:
            torch.set_num_threads(1)  # one single-thread replica per core beats one replica with many threads
        self.facts, self.output, self.attempts = facts, output, attempts
        device = "cuda" if use_gpu else "cpu"
        self.refusal: Exception | None = None
        try:
            if model.compile:
                check_compiler(device)
            classifier = load_classifier(model, storage, revision=facts.revision, dtype=dtype, device=device)
            self.passes = ForwardPasses(classifier, pad_left=facts.pad_left, compiled=model.compile)
            self.flops: DocumentFlops | None = None  # counted behind the first unit, whose labels are waited for
            self.counted = False
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
        batches = batches_from_columns(row)
        try:
            logits, bad = classify_good(batches, self.passes, num_labels=len(self.facts.head.labels))
        except Exception as error:
            if is_device_lost(error):  # only another process can use the GPU again; Ray starts one, and `attempts` counts
                traceback.print_exc()
                os._exit(1)
            raise
        computing = self.passes.take_seconds()
        copying = time.monotonic() - began - computing
        if not self.counted:
            self.flops, self.counted = document_flops(self.passes.model, self.facts.max_length), True
        kept = row.drop_columns([name for name in row.column_names if name.startswith("batch_")])
        if bad:
            rejects = rejects_of(unpack_table(row["documents"][0]), bad, "model_error", self.output)
            kept = with_cell(kept, "rejects", binary_cell(pa.py_buffer(row["rejects"][0].as_py() + pack_rejects(rejects))))
        kept = kept.append_column("model_errors", list_cell(np.array(sorted(bad), np.int64)))
        good = batches.lengths[~np.isin(batches.order, list(bad))]
        kept = kept.append_column("padded_tokens", pa.array([len(batches.ids)]))
        kept = kept.append_column("flops", pa.array([self.flops and self.flops.of(good)], pa.float64()))
        kept = kept.append_column("logits", list_cell(logits.reshape(-1)))
        writing = time.monotonic() - self.called - copying - computing
        seconds = ClassifySeconds(*(round(part, 6) for part in (self.called - self.left, copying, computing, writing)))
        return kept.append_column("classify_seconds", pa.array([seconds.to_dict()]))


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
    facts: ModelFacts,
    output: OutputConfig,
    storage: StorageConfig,
    metadata: dict[str, Any],
    attempts: Attempts,
) -> pa.Table:
    """Labels a classified unit and writes its files; gives one row with what the commit has to say, as JSON."""
    return guarded(lambda good: write_good_row(good, facts, output, storage, metadata), row, "write", attempts)


def write_good_row(
    row: pa.Table, facts: ModelFacts, output: OutputConfig, storage: StorageConfig, metadata: dict[str, Any]
) -> pa.Table:
    """As write_row, for a row that has not failed."""
    unit = Unit.from_json(row["unit"][0].as_py())
    documents = unpack_table(row["documents"][0])
    logits = flat_values(row, "logits").reshape(documents.num_rows, len(facts.head.labels))
    labelled, finite = label_documents(
        documents,
        logits,
        head=facts.head,
        num_tokens=flat_values(row, "num_tokens"),
        truncated=flat_values(row, "truncated").astype(bool),
        output=output,
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
    return pa.table({"failure": pa.nulls(1, pa.string()), "commit": [commit.to_json()]})


def probe_model(
    model: ModelConfig, facts: ModelFacts, storage: StorageConfig, dtype: str, gpus_per_classifier: float
) -> dict[str, Any]:
    """Says what is known only where the classifiers will run.

    Args:
        gpus_per_classifier: 0 for CPUs; the share of its memory is taken to be a classifier's.

    Returns:
        dtype: what `dtype: auto` means; device: the GPU's name; batch_tokens: what `batch_tokens: auto` means on this GPU. The
        latter two are None for a CPU.

    Raises:
        UserError: as load_classifier.
    """
    resolved = resolve_dtype(dtype, gpus_per_classifier > 0)
    if not gpus_per_classifier:  # without torch: seconds before the first label
        return {"dtype": resolved, "device": None, "batch_tokens": None}
    import torch

    traced = load_classifier(model, storage, revision=facts.revision, dtype=resolved, device="meta")
    free_bytes = torch.cuda.mem_get_info()[0] * min(gpus_per_classifier, 1)
    return {
        "dtype": resolved,
        "device": torch.cuda.get_device_name(),
        "batch_tokens": token_budget_of(traced, free_bytes, facts.max_length),
    }


def resolve_dtype(dtype: str, use_gpu: bool) -> str:
    """What `model.dtype` means on this machine. auto: bfloat16 where it has that, else float16 on a GPU and float32 on a CPU.

    Without native support bfloat16 is emulated: up to 100 times slower than float32 on CPUs.
    """
    if dtype != "auto":
        return dtype
    if use_gpu:
        import torch

        return "bfloat16" if torch.cuda.get_device_capability()[0] >= 8 else "float16"
    if not os.path.exists("/proc/cpuinfo"):  # not Linux
        return "float32"
    with open("/proc/cpuinfo") as cpuinfo:
        flags = set(cpuinfo.read().split())
    return "bfloat16" if flags & {"amx_bf16", "avx512_bf16", "bf16"} else "float32"
