"""The stages as Ray Data calls them: one row, a unit, in and out (readers: several units out). Plain classes, no ray.

The row's columns: unit, rejects and documents from the reader; batch_* and truncated from the tokenizer; logits, tokens and
padded_tokens from the classifier; commit from the writer. A unit may be read, tokenized, classified or written more than once
when a worker dies; only its commit counts.

An exception in a stage becomes the row's `failure`, as JSON, and later stages pass such a row on: Ray would wrap it so that
only the text of a traceback reaches the driver, which could tell neither a user's mistake nor the unit from it.
"""

import json
import os
import traceback
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline_ops.classifying import classify
from pipeline_ops.models import ModelConfig, ModelFacts, load_classifier, load_tokenizer
from pipeline_ops.postprocessing import label_documents
from pipeline_ops.reading import ReadSettings, decode, read_units, spans_from_json
from pipeline_ops.schema import (
    OutputConfig,
    Reject,
    Unit,
    UserError,
    binary_cell,
    flat_values,
    list_cell,
    pack_rejects,
    pack_table,
    unpack_rejects,
    unpack_table,
)
from pipeline_ops.storage import StorageConfig
from pipeline_ops.tokenizing import batches_from_columns, batches_to_columns, encode, make_batches
from pipeline_ops.writing import write_unit


@dataclass(frozen=True)
class Failure:
    """Why a unit could not be finished."""

    where: str  # the unit's first file
    error: str  # the exception's class
    message: str
    by_user: bool  # a UserError: the remedy is in the message
    traceback: str


def failed_row(error: Exception, where: str) -> pa.Table:
    """A row that carries an exception to the driver."""
    notes = "".join(f" ({note})" for note in getattr(error, "__notes__", ()))
    failure = Failure(
        where,
        type(error).__name__,
        f"{error}{notes}",
        isinstance(error, UserError),
        "".join(traceback.format_exception(error)),
    )
    return pa.table({"failure": [json.dumps(asdict(failure))], "commit": pa.nulls(1, pa.string())})


def has_failed(row: pa.Table) -> bool:
    return "failure" in row.column_names and row["failure"][0].is_valid


def guarded(stage: Callable[[pa.Table], pa.Table], row: pa.Table) -> pa.Table:
    """`stage(row)`; a failed row, or one that fails now, comes out as a failed row."""
    if has_failed(row):
        return row
    try:
        return stage(row)
    except Exception as error:
        return failed_row(error, Unit.from_json(row["unit"][0].as_py()).pieces[0].path)


def read_task(task: pa.Table, settings: ReadSettings) -> Iterator[pa.Table]:
    """A task's spans -> a row per unit, each as soon as it is read."""
    spans = spans_from_json(task["task"][0].as_py())
    try:
        for unit, documents, rejects in read_units(spans, settings):
            yield pa.table(
                {
                    "unit": [unit.to_json()],
                    "rejects": binary_cell(pa.py_buffer(pack_rejects(rejects))),
                    "documents": binary_cell(pack_table(documents)),
                }
            )
    except Exception as error:
        yield failed_row(error, spans[0].file.path)


class TokenizeActor:
    """Loads the tokenizer once. One process uses one core: parallel tokenizing is more actors."""

    def __init__(
        self,
        model: ModelConfig,
        facts: ModelFacts,
        storage: StorageConfig,
        text_column: str,
        output: OutputConfig,
        batch_tokens: int,
    ):
        self.tokenizer = load_tokenizer(model, storage)
        self.facts, self.text_column, self.output, self.batch_tokens = facts, text_column, output, batch_tokens

    def __call__(self, row: pa.Table) -> pa.Table:
        return guarded(self.tokenize, row)

    def tokenize(self, row: pa.Table) -> pa.Table:
        documents = unpack_table(row["documents"][0])
        texts = decode(documents.column(self.text_column))[0].to_pylist()
        encodings = encode(texts, self.tokenizer, self.facts.max_length, with_type_ids=self.facts.has_type_ids)
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
            row = row.drop_columns(["documents"]).append_column("documents", binary_cell(pack_table(documents)))
        for name, column in {
            **batches_to_columns(batches),
            "num_tokens": list_cell(encodings.lengths),
            "truncated": list_cell(encodings.truncated.astype(np.uint8)),
        }.items():
            row = row.append_column(name, column)
        return row


class ClassifyActor:
    """Loads the model once, on the GPU that Ray gave this actor, or on the CPU with a single thread."""

    def __init__(self, model: ModelConfig, facts: ModelFacts, storage: StorageConfig, dtype: str, use_gpu: bool):
        import torch

        if not use_gpu:
            torch.set_num_threads(1)  # one single-thread replica per core beats one replica with many threads
        self.facts = facts
        self.model = load_classifier(model, storage, revision=facts.revision, dtype=dtype, device="cuda" if use_gpu else "cpu")

    def __call__(self, row: pa.Table) -> pa.Table:
        return guarded(self.classify, row)

    def classify(self, row: pa.Table) -> pa.Table:
        batches = batches_from_columns(row)
        logits = classify(batches, self.model, num_labels=len(self.facts.labels), pad_left=self.facts.pad_left)
        kept = row.drop_columns([name for name in row.column_names if name.startswith("batch_")])
        return kept.append_column("padded_tokens", pa.array([len(batches.ids)])).append_column(
            "logits", list_cell(logits.reshape(-1))
        )


def write_row(
    row: pa.Table, facts: ModelFacts, output: OutputConfig, storage: StorageConfig, metadata: dict[str, Any]
) -> pa.Table:
    """Labels a classified unit and writes its files; gives one row with what the commit has to say, as JSON."""
    return guarded(lambda good: write_good_row(good, facts, output, storage, metadata), row)


def write_good_row(
    row: pa.Table, facts: ModelFacts, output: OutputConfig, storage: StorageConfig, metadata: dict[str, Any]
) -> pa.Table:
    """As write_row, for a row that has not failed."""
    unit = Unit.from_json(row["unit"][0].as_py())
    documents = unpack_table(row["documents"][0])
    logits = flat_values(row, "logits").reshape(documents.num_rows, len(facts.labels))
    labelled, finite = label_documents(
        documents,
        logits,
        labels=facts.labels,
        activation=facts.activation,
        num_tokens=flat_values(row, "num_tokens"),
        truncated=flat_values(row, "truncated").astype(bool),
        output=output,
    )
    rejects = unpack_rejects(row["rejects"][0].as_py())
    bad = documents.filter(pa.array(~finite))
    for path, number in zip(
        bad.column(output.source_file_column).to_pylist(), bad.column(output.source_row_column).to_pylist(), strict=True
    ):
        rejects.append(Reject(path, number, "non_finite_logits", "the model gave a logit that is not a number"))
    commit = write_unit(
        unit, labelled, rejects, output, storage, metadata=metadata, padded_tokens=row["padded_tokens"][0].as_py()
    )
    return pa.table({"failure": pa.nulls(1, pa.string()), "commit": [commit.to_json()]})


def probe_model(model: ModelConfig, facts: ModelFacts, storage: StorageConfig, dtype: str, use_gpu: bool) -> dict[str, Any]:
    """Checks, where the classifiers will run, that the model can be loaded; says what `dtype: auto` means there.

    Raises:
        UserError: as load_classifier.
    """
    resolved = resolve_dtype(dtype, use_gpu)
    load_classifier(model, storage, revision=facts.revision, dtype=resolved, device="meta")
    return {"dtype": resolved}


def resolve_dtype(dtype: str, use_gpu: bool) -> str:
    """bfloat16 where the hardware has it, else float16 on a GPU and float32 on a CPU.

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
