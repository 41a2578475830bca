"""`label-corpus train`: fine-tune a sequence classifier on a labeled corpus; its folder then serves as `model.path`.

Read with the job's readers, train on this machine without Ray, publish.
"""

import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from importlib.metadata import version
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from jobs.config import PathAlone, allow_path_alone
from jobs.console import signals
from jobs.console.step_progress import Steps
from jobs.number_format import counted, number
from jobs.start.labeled_input import LabeledInputConfig, check_skipped, list_inputs, read_labeled, skipped_line
from jobs.start.model_folder import check_target, publish, write_facts
from jobs.start.training_checkpoints import checkpoint_folder, fingerprint_of, kept_checkpoints
from jobs.start.training_corrections import corrected_documents, correction_facts, correction_lines
from jobs.start.training_threads import Threads
from pipeline_ops.analysis.metrics import single_label_metrics
from pipeline_ops.models.config import ModelConfig
from pipeline_ops.models.fetch import HubUnreachable, hub_commit, is_hub_id, local_copy, weights_identity
from pipeline_ops.models.model_card import REVIEWED_SAMPLES, card_of
from pipeline_ops.reviewing.corrections import read_corrections
from pipeline_ops.schema.errors import UserError
from pipeline_ops.storage.config import StorageConfig
from pipeline_ops.storage.paths import full_path
from pipeline_ops.storage.store import Store
from pipeline_ops.training.base_model import USUAL_MAX_LENGTH, ArchitectureConfig
from pipeline_ops.training.config import TrainingConfig
from pipeline_ops.training.trainer import TrainingStep, newest_checkpoint
from pipeline_ops.training.training import TrainingPlan, TrainingResult, train_classifier

LONGEST_STEP_S = 10.0  # that an interruption waits for, to save a checkpoint


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

    model_config = ConfigDict(
        frozen=True, extra="forbid", protected_namespaces=(), title="label-corpus training", json_schema_extra=allow_path_alone
    )

    input: Annotated[LabeledInputConfig, PathAlone] = Field(description="the labeled corpus, and how it is read")
    model: Annotated[StartConfig, PathAlone] = Field(description="what training starts from")
    training: TrainingConfig = Field(default=TrainingConfig(), description="how the classifier is trained")
    output: Annotated[TargetConfig, PathAlone] = Field(description="where the model goes")
    storage: StorageConfig = Field(default=StorageConfig(), description="how object storage is reached")

    @model_validator(mode="after")
    def _only_trained_layers_are_frozen(self) -> "TrainConfig":
        if self.training.freeze is not None and self.model.architecture is not None:
            raise ValueError(
                "training.freeze would keep the random weights of model.architecture; give model.path, or leave it out"
            )
        return self


def train(config: TrainConfig, *, quiet: bool = False, command: str = "the same command") -> dict[str, Any]:
    """Read the corpus, train, and publish the model.

    Args:
        command: to be given again after an interruption.

    Returns:
        The fields of report_of(), `corrections`, `skipped` rows, `skipped_by_reason` and `output`.

    Raises:
        UserError: invalid config, unusable input, or an output that cannot be written; nothing has been written.
        LeaseError: another training on this machine writes to the output.
        Interrupted: by Ctrl-C or SIGTERM; the message says from which step the same command continues.
    """
    target = full_path(config.output.path)
    with Steps("train", quiet=quiet) as steps:
        try:
            return _train(config, target, steps)
        except (KeyboardInterrupt, SystemExit) as stop:
            at = f", {steps.item or 'step'} {steps.done:,.0f} of {steps.total:,.0f}" if steps.total else ""
            stop.add_note(f"{steps.phase}{at}")
            kept = newest_checkpoint(checkpoint_folder(target, config.storage)) if config.training.save_minutes else None
            then = f"continues from step {kept.step:,}" if kept else "starts over"
            raise signals.interrupted_run(stop, command, then) from stop


def _train(config: TrainConfig, target: str, steps: Steps) -> dict[str, Any]:
    threads = Threads(steps.say)
    steps.begin("listing the input")
    files = list_inputs(config.input, config.storage)
    check_target(
        target,
        config.storage,
        source=config.input.path or None,
        files=(*(file.path for file in files), *config.input.correction_paths),
        start=config.model.path,
        overwrite=config.output.overwrite,
    )
    paths = config.input.correction_paths
    corrections = read_corrections(paths, config.storage, "input.corrections") if paths else []
    steps.begin("looking for the model")
    revision = _revision(config.model)
    steps.begin("reading the documents")
    found = read_labeled(files, config.input, config.storage, config.training.max_documents)
    skipped = found.skipped
    if files:
        steps.say(f"{counted(len(found.texts), 'document')}, {counted(len(set(found.labels)), 'label')}")
    if skipped:
        steps.say(skipped_line(skipped, len(found.texts)))
    check_skipped(skipped, len(found.texts), config.input)
    texts, labels, corrected = found.texts, found.labels, None
    if corrections:
        corrected = corrected_documents(found, corrections, config.training.max_documents)
        for line in correction_lines(corrected):
            steps.say(line)
        texts, labels = corrected.texts, corrected.labels
    steps.begin("loading the model, tokenizing")
    start, weights = None, None
    if config.model.path is not None:
        start = local_copy(ModelConfig(path=config.model.path), config.storage, weights=True)
        weights = revision or weights_identity(config.model.path, config.storage)
    versions = {name: version(name) for name in ("torch", "transformers", "tokenizers")}
    settings = config.model_dump(mode="json", exclude={"storage", "output"})
    decisive = [config.model.model_dump(mode="json"), weights, config.training.model_dump(exclude={"save_minutes"}), versions]
    with ExitStack() as stack:
        checkpoints = None
        if config.training.save_minutes:
            fingerprint = fingerprint_of(decisive, texts, labels)
            checkpoints = stack.enter_context(
                kept_checkpoints(checkpoint_folder(target, config.storage), fingerprint, steps.say)
            )
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="label-corpus-"))
        result = train_classifier(
            texts,
            labels,
            start=start,
            revision=revision,
            architecture=config.model.architecture,
            config=config.training,
            folder=folder,
            checkpoints=checkpoints,
            interruptible=lambda: signals.held(LONGEST_STEP_S),
            on_start=lambda plan: steps.say(f"{plan_line(plan, config.training)}; on {threads.choose()}"),
            on_encoded=_encoding_progress(steps, threads),
            on_step=_progress(steps, threads),
            say=steps.say,
        )
        report = {**report_of(result), "corrections": correction_facts(corrected)}
        worse = baseline_line(report, config.training)
        if worse is not None:
            steps.say(worse)
        reviewed = {*(corrected.samples if corrected else ()), *samples_of(config.model, config.storage)}
        write_facts(folder, settings, versions, report, sorted(reviewed))
        steps.begin("publishing the model")
        publish(folder, Store(target, config.storage))
    return {**report, "skipped": skipped.total(), "skipped_by_reason": dict(skipped), "output": target}


def _revision(model: StartConfig) -> str | None:
    """The commit of a model on the hub, which all of the training reads; None for a folder and for new weights.

    Raises:
        UserError: there is no such model; said before the documents are read.
    """
    if model.path is None or not is_hub_id(model.path):
        return None
    try:
        return hub_commit(ModelConfig(path=model.path, revision=model.revision))
    except HubUnreachable as error:
        raise UserError(f"{error}; give a folder, or model.architecture in place of model.path to train new weights") from error


def samples_of(model: StartConfig, storage: StorageConfig) -> list[str]:
    """Ids of the review samples that a checkpoint has learned from already."""
    if model.path is None:
        return []
    return card_of(ModelConfig(path=model.path, revision=model.revision), storage).get(REVIEWED_SAMPLES, [])


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
        "baseline": {**metrics["baseline"], "accuracy": round(metrics["baseline"]["accuracy"], 4)},
        "steps": plan.steps,
        "epochs": round(plan.epochs, 2),
        "parameters": plan.parameters,
        "trained_parameters": plan.trained_parameters,
        "max_length": plan.max_length,
        "learning_rate": plan.learning_rate,
        "seconds": result.seconds,
    }


def baseline_line(report: Mapping[str, Any], config: TrainingConfig) -> str | None:
    """What to change if the model is no better on the held-out documents than one label for all; None if it is better."""
    accuracy, baseline = report["accuracy"], report["baseline"]
    if accuracy > baseline["accuracy"]:
        return None
    weights = ", training.class_weights=balanced" if config.class_weights is None else ""
    return (
        f"no better than always {baseline['label']!r}: accuracy {accuracy:.4f} on the held-out documents, majority baseline"
        f" {baseline['accuracy']:.4f}; try more training.epochs than {report['epochs']:g}, another training.learning_rate than"
        f" {report['learning_rate']:g}{weights}"
    )


def plan_line(plan: TrainingPlan, config: TrainingConfig) -> str:
    """What is trained, and the settings that the training file leaves open, in one line."""
    by_default = (
        ""
        if config.max_length is not None
        else (" (the default)" if plan.max_length == USUAL_MAX_LENGTH else " (the model's limit)")
    )
    chosen = " (auto)" if config.learning_rate == "auto" else ""
    frozen = "" if plan.trained_parameters == plan.parameters else f", of which {plan.trained_parameters:,} are trained"
    left = f", of which {plan.done_steps:,} are done" if plan.done_steps else ""
    return (
        f"{counted(plan.parameters, 'parameter')}{frozen},"
        f" {counted(plan.steps, 'step')} of {counted(config.batch_size, 'document')}{left},"
        f" max_length {plan.max_length:,}{by_default}, learning rate {plan.learning_rate:g}{chosen}"
    )


def _encoding_progress(steps: Steps, threads: Threads) -> Callable[[int, int], None]:
    """Show how far a frozen encoder is, as _progress() does for the steps."""

    def on_encoded(done: int, total: int) -> None:
        signals.raise_pending()
        threads.check()
        if steps.item != "document":
            steps.begin("running the frozen encoder", total, item="document")
        steps.add(done - steps.done)

    return on_encoded


def _progress(steps: Steps, threads: Threads) -> Callable[[TrainingStep], None]:
    """Show a training's steps as progress, and fit the number of threads to what other programs leave."""

    first = 0

    def on_step(at: TrainingStep) -> None:
        nonlocal first
        signals.raise_pending()
        threads.check()
        if not first:  # includes warm-up, which would distort the rate
            first = at.step
            steps.begin("training", at.steps, item="step", done=at.step)
            return
        seconds = max(time.monotonic() - steps.started, 1e-9)
        loss = "" if at.loss is None else f", loss {at.loss:.3f}"
        steps.add(1, f"epoch {at.epoch:.2f}{loss}, {number((at.step - first) * at.examples / seconds)} documents/s")
        if at.step == at.steps:
            steps.begin("evaluating on the held-out documents")

    return on_step
