"""`label-corpus train`: fine-tune a sequence classifier on a labeled corpus; its folder then serves as `model.path`.

Read with the job's readers, train on this machine without Ray, publish. Publishing is atomic for readers: a local folder is
written under a temporary name and renamed; on object storage config.json, without which a folder is no model, is put last.
"""

import json
import os
import shutil
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from jobs.console.step_progress import Steps
from jobs.number_format import number
from pipeline_ops.analysis.metrics import single_label_metrics
from pipeline_ops.models.base_model import USUAL_MAX_LENGTH, ArchitectureConfig
from pipeline_ops.models.config import ModelConfig
from pipeline_ops.models.fetch import local_copy
from pipeline_ops.models.training import TrainingConfig, TrainingPlan, TrainingResult, TrainingStep, train_classifier
from pipeline_ops.output.commit_log import COMMITS_FOLDER, JOB_FILE
from pipeline_ops.output.lease import LEASE_FOLDER
from pipeline_ops.reading.documents import decode_texts
from pipeline_ops.reading.input_schema import column_names, infer_column_types
from pipeline_ops.reading.inputs import InputConfig, InputFile, find_inputs
from pipeline_ops.reading.reader import ReadSettings, Span, read_pieces
from pipeline_ops.schema.errors import UserError, store_access, store_errors
from pipeline_ops.schema.failures import Failure
from pipeline_ops.schema.output_columns import OutputConfig
from pipeline_ops.schema.units import Range
from pipeline_ops.storage.config import StorageConfig
from pipeline_ops.storage.paths import full_path, join
from pipeline_ops.storage.store import TEMPORARY_PREFIX, Store

TRAINING_UNIT_BYTES = 8 * 2**20  # small units: reading stops soon after max_documents
RECORD = "training.json"  # settings, versions and held-out accuracy, in the model's folder


class LabeledInputConfig(InputConfig):
    """The job's input section plus the label column."""

    label_column: str = Field(default="label", description="the column that holds each document's label")

    @field_validator("text_pair_column")
    @classmethod
    def _no_pairs(cls, column: str | None) -> str | None:
        if column is not None:
            raise ValueError("training reads one text per document; leave it out")
        return column


class StartConfig(BaseModel):
    """A checkpoint to fine-tune, or an architecture to train from scratch."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    path: str | None = Field(default=None, description="checkpoint: hub id, local folder, or folder on object storage")
    revision: str | None = Field(default=None, description="hub revision")
    architecture: ArchitectureConfig | None = Field(default=None, description="train this from scratch instead")

    @model_validator(mode="after")
    def _one_of_both(self) -> "StartConfig":
        if (self.path is None) == (self.architecture is None):
            raise ValueError("give one of model.path and model.architecture")
        return self


class TargetConfig(BaseModel):
    """Where the model is written."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: str = Field(description="the model's folder; local, s3:// or what fsspec knows")
    overwrite: bool = Field(default=False, description="replace what the folder holds")


class TrainConfig(BaseModel):
    """The training file."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=(), title="label-corpus training")

    input: LabeledInputConfig = Field(description="the labeled corpus, and how it is read")
    model: StartConfig = Field(description="what training starts from")
    training: TrainingConfig = Field(default=TrainingConfig(), description="how the classifier is trained")
    output: TargetConfig = Field(description="where the model goes")
    storage: StorageConfig = Field(default=StorageConfig(), description="how object storage is reached")


def train(config: TrainConfig, *, quiet: bool = False) -> dict[str, Any]:
    """Read the corpus, train, and publish the model.

    Returns:
        The fields of TrainingResult but `held_out`, accuracy and macro_f1 on the held-out documents, `skipped` (rows without
        text or label) and `output`.

    Raises:
        UserError: invalid config, unusable input, or an output that cannot be written; nothing has been written.
    """
    target = full_path(config.output.path)
    _check_target(target, config)
    with Steps("train", quiet=quiet) as steps:
        steps.begin("reading the documents")
        texts, labels, skipped = read_labeled(config.input, config.storage, config.training.max_documents)
        steps.say(f"{len(texts):,} documents, {len(set(labels)):,} labels")
        steps.begin("loading the model, tokenizing")
        start = None
        if config.model.path is not None:
            start = local_copy(ModelConfig(path=config.model.path), config.storage, weights=True)
        with tempfile.TemporaryDirectory(prefix="label-corpus-") as folder:
            result = train_classifier(
                texts,
                labels,
                start=start,
                revision=config.model.revision,
                architecture=config.model.architecture,
                config=config.training,
                folder=folder,
                on_start=lambda plan: steps.say(plan_line(plan, config.training)),
                on_step=_progress(steps),
            )
            report = report_of(result)
            record = {
                "settings": config.model_dump(exclude={"storage", "output"}),
                "versions": {name: version(name) for name in ("torch", "transformers", "tokenizers")},
                "report": report,
            }
            Path(folder, RECORD).write_text(json.dumps(record, indent=2), encoding="utf-8")
            steps.begin("publishing the model")
            publish(folder, Store(target, config.storage))
    return {**report, "skipped": skipped, "output": target}


def report_of(result: TrainingResult) -> dict[str, Any]:
    """The training's fields of the last JSON line."""
    plan = result.plan
    metrics = single_label_metrics(result.held_out, plan.labels)
    return {
        "documents": plan.documents,
        "train_documents": plan.train_documents,
        "held_out_documents": plan.held_out_documents,
        "labels": plan.labels,
        "accuracy": round(metrics["accuracy"], 4),
        "macro_f1": round(metrics["macro_f1"], 4),
        "steps": plan.steps,
        "parameters": plan.parameters,
        "max_length": plan.max_length,
        "seconds": result.seconds,
    }


def plan_line(plan: TrainingPlan, config: TrainingConfig) -> str:
    """What is trained, and the settings that the training file leaves open, in one line."""
    by_default = (
        ""
        if config.max_length is not None
        else (" (the default)" if plan.max_length == USUAL_MAX_LENGTH else " (the model's limit)")
    )
    return (
        f"{plan.parameters:,} parameters, {plan.steps:,} steps of {config.batch_size:,} documents,"
        f" max_length {plan.max_length:,}{by_default}"
    )


def _progress(steps: Steps) -> Callable[[TrainingStep], None]:
    """Show a training's steps as progress."""

    def on_step(at: TrainingStep) -> None:
        if at.step == 1:  # includes warm-up, which would distort the rate
            steps.begin("training", at.steps - 1, items="steps")
            return
        seconds = max(time.monotonic() - steps.started, 1e-9)
        loss = "" if at.loss is None else f", loss {at.loss:.3f}"
        steps.add(1, f"epoch {at.epoch:.2f}{loss}, {number((at.step - 1) * at.examples / seconds)} documents/s")
        if at.step == at.steps:
            steps.begin("evaluating on the held-out documents")

    return on_step


def _check_target(target: str, config: TrainConfig) -> None:
    """Fail before an hour of training if its result could not be written, or would replace a corpus or labels.

    Raises:
        UserError: the folder cannot be written, or holds what it must keep.
    """
    with store_access("output.path", target, "written"):
        store = Store(target, config.storage)
        if store.is_local and os.path.isfile(target):
            raise UserError(f"output.path: {target!r} is a file; give a folder")
        _check_replaceable(store)
        existing = store.list_all()
        if existing and not config.output.overwrite:
            raise UserError(
                f"output.path: {target!r} holds {os.path.basename(existing[0].path)!r}; use another folder or"
                " output.overwrite=true"
            )
        if existing and join(full_path(config.input.path), "").startswith(join(target, "")):
            raise UserError(f"output.path: {target!r} holds the input {config.input.path!r}; use another folder")
        store.check_writable()


def _check_replaceable(store: Store) -> None:
    """Raises UserError for a folder that holds labels of a job, itself or in a folder below it."""
    for file in store.list_all():
        if {JOB_FILE, COMMITS_FOLDER, LEASE_FOLDER} & {*store.relative(file.path).split("/")}:
            raise UserError(
                f"output.path: {store.path!r} holds the labels of a job ({store.relative(file.path)}), which no training"
                " replaces; use another folder"
            )


def read_labeled(config: LabeledInputConfig, storage: StorageConfig, max_documents: int) -> tuple[list[str], list[str], int]:
    """The first `max_documents` texts, their labels, and the number of rows read that had no usable text or label.

    Raises:
        UserError: no input, or a file without the text or label column.
    """
    texts: list[str] = []
    labels: list[str] = []
    skipped = 0
    try:
        for table, rejected in _tables(config, storage):
            skipped += rejected
            if not table.num_rows:
                continue
            for text, label in zip(
                decode_texts(table.column(config.text_column))[0].to_pylist(),
                table.column(config.label_column).to_pylist(),
                strict=True,
            ):
                if label is None or not text.strip():
                    skipped += 1
                    continue
                texts.append(text)
                labels.append(str(label))
                if len(texts) == max_documents:
                    return texts, labels, skipped
    except store_errors() as error:
        raise UserError(f"input.path: {config.path!r} cannot be read: {error}") from error
    return texts, labels, skipped


def _tables(config: LabeledInputConfig, storage: StorageConfig) -> Iterator[tuple[pa.Table, int]]:
    """Yield the input unit by unit: a table with the text and label columns, and the number of rejected rows."""
    store = Store(config.path, storage)
    files, _ = find_inputs(config, store)
    # the reader's added columns are not used; the prefix keeps them from colliding with the label column
    added = {name: f"__{name}" for name in OutputConfig(path="-", scores=True, logits=True).added_columns()}
    settings = ReadSettings(
        input=config,
        storage=storage,
        output=OutputConfig(path="-", columns=(config.label_column,), **added),  # pyright: ignore[reportArgumentType]
        line_types=_line_types(files, config, store),
        unit_bytes=TRAINING_UNIT_BYTES,
        fingerprint="",
    )
    for file in files:
        for part in read_pieces([Span(file, (Range(0, None),))], settings):
            if isinstance(part, Failure):
                raise UserError(f"input.path: {file.path!r} cannot be read: {part.message}")
            _, table, rejects = part
            if config.label_column not in table.column_names and table.num_rows:
                names = ", ".join(column_names(file, config, store))
                raise UserError(f"input.label_column: {file.path} has no column {config.label_column!r}; it has {names}")
            yield table, len(rejects)


def _line_types(files: list[InputFile], config: InputConfig, store: Store) -> pa.Schema:
    line_files = [file for file in files if file.format == "jsonl"]
    return infer_column_types(line_files, config, store) if line_files else pa.schema([])


def publish(folder: str, store: Store) -> None:
    """Copy the files of the local `folder` to the store, replacing its content.

    Raises:
        UserError: a job has written labels there meanwhile.
    """
    _check_replaceable(store)
    if store.is_local:
        target = store.path
        temporary = os.path.join(os.path.dirname(target), f"{TEMPORARY_PREFIX}{uuid.uuid4().hex}")
        shutil.copytree(folder, temporary)
        if os.path.isdir(target):
            outdated = f"{temporary}-outdated"
            os.rename(target, outdated)  # rename cannot replace a folder that is not empty
            os.rename(temporary, target)
            shutil.rmtree(outdated)
        else:
            os.rename(temporary, target)
        return
    contents = {name: Path(folder, name).read_bytes() for name in sorted(os.listdir(folder))}
    entry = "config.json"  # without it a folder is no model
    existing = [store.relative(file.path) for file in store.list_all()]
    store.delete(name for name in existing if name == entry)
    store.delete(name for name in existing if name not in contents)
    store.put_many({name: data for name, data in contents.items() if name != entry})
    store.put(entry, contents[entry])
