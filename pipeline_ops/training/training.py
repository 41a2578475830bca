"""Fine-tune a sequence classifier on labeled texts; its folder can be the labeling job's `model.path`.

Starts from a checkpoint, of which layers can be frozen, or from scratch with a WordPiece vocabulary learned from the same
texts. A share of each label's documents is held out and predicted at the end. All texts are held in memory. The same texts,
settings, versions and number of threads on the same machine give the same weights.
"""

import math
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from pipeline_ops.schema.errors import UserError
from pipeline_ops.training.base_model import (
    ArchitectureConfig,
    choose_max_length,
    load_checkpoint,
    new_model,
    save_model,
    train_wordpiece,
    usual_learning_rate,
)
from pipeline_ops.training.config import TrainingConfig
from pipeline_ops.training.frozen import CannotKeepVectors, freeze, keep_vectors, kept_vectors
from pipeline_ops.training.trainer import TrainingStep, callback, make_trainer, newest_checkpoint, reporting, saving

Interruptible = Callable[[], AbstractContextManager[Callable[[], bool]]]


@dataclass(frozen=True)
class TrainingPlan:
    """What a training is about to do; everything that `auto` and null leave open is decided."""

    documents: int
    train_documents: int
    held_out_documents: int
    labels: list[str]  # in id2label order
    parameters: int
    trained_parameters: int  # of them; the others are frozen
    max_length: int  # tokens
    learning_rate: float
    steps: int
    epochs: float  # passes over the training documents
    done_steps: int  # of them, in the checkpoint that the training continues from; 0: from the start


@dataclass(frozen=True)
class TrainingResult:
    """A finished training."""

    plan: TrainingPlan
    held_out: Counter[tuple[str, str]]  # held-out documents by (true label, predicted label)
    seconds: float


def train_classifier(
    texts: Sequence[str],
    labels: Sequence[str],
    *,
    start: str | None,
    architecture: ArchitectureConfig | None,
    config: TrainingConfig,
    folder: str,
    revision: str | None = None,
    checkpoints: str | None = None,
    interruptible: Interruptible = lambda: nullcontext(lambda: False),
    on_start: Callable[[TrainingPlan], None] | None = None,
    on_step: Callable[[TrainingStep], None] | None = None,
    on_encoded: Callable[[int, int], None] | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> TrainingResult:
    """Train on `texts` and write model (safetensors) and tokenizer into `folder`, which is created if need be.

    Args:
        labels: one label name per text.
        start: folder or hub id of a checkpoint, which gets a new head; None: train `architecture` from scratch.
        revision: hub revision of `start`.
        checkpoints: folder of checkpoints of this same training; it continues from the newest, with the weights that it would
            have had without the interruption, and saves one every `config.save_minutes`. None: none are read or written.
        interruptible: a context in which the steps are done; it gives a function that says whether to stop, which is asked
            after each step. Then a checkpoint is saved, and the context shall raise an exception at its end. Not entered
            without `checkpoints`: an interruption then ends the training at once.
        on_start: called before the first step.
        on_step: called after each step.
        on_encoded: called with the number of documents that a frozen encoder has run over, and of all.
        say: called with a line for the user.

    Raises:
        UserError: too few labels or documents, or an unusable checkpoint or architecture.
    """
    import torch
    from transformers.utils import logging

    assert (start is None) != (architecture is None), "exactly one of start and architecture"
    started = time.monotonic()
    texts, labels = list(texts)[: config.max_documents], list(labels)[: config.max_documents]
    names = _label_names(labels)
    label_ids = np.array([names.index(label) for label in labels], np.int64)
    train_rows, held_out_rows = split_held_out(label_ids, config.held_out_share, config.seed)
    logging.set_verbosity_error()  # else it reports a new head as newly initialized
    logging.disable_progress_bar()
    torch.manual_seed(config.seed)
    if architecture is not None:
        tokenizer = train_wordpiece([texts[row] for row in train_rows], architecture.vocab_size, architecture.lowercase)
        model = new_model(architecture, tokenizer, names)
    else:
        assert start is not None
        model, tokenizer = load_checkpoint(start, revision, names)
    tokenizer.model_max_length = choose_max_length(config.max_length, model, tokenizer)
    all_frozen = config.freeze is not None and freeze(model, config.freeze)
    documents = _tokenize(texts, label_ids, tokenizer)
    found = newest_checkpoint(checkpoints) if checkpoints is not None else None
    steps_per_epoch = math.ceil(len(train_rows) / config.batch_size)
    steps = config.max_steps or math.ceil(steps_per_epoch * config.epochs)
    plan = TrainingPlan(
        documents=len(texts),
        train_documents=len(train_rows),
        held_out_documents=len(held_out_rows),
        labels=names,
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        trained_parameters=sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad),
        max_length=tokenizer.model_max_length,
        learning_rate=(
            usual_learning_rate(model, is_new=architecture is not None, head_alone=all_frozen)
            if config.learning_rate == "auto"
            else config.learning_rate
        ),
        steps=steps,
        epochs=steps / steps_per_epoch,
        done_steps=found.step if found else 0,
    )
    if on_start is not None:
        on_start(plan)
    kept = _keep(model, documents, config, on_encoded, say) if all_frozen else None
    documents = kept or documents
    with kept_vectors(model) if kept else nullcontext():
        with interruptible() if checkpoints is not None else nullcontext(lambda: False) as stopping:
            trainer = make_trainer(
                model,
                tokenizer,
                [documents[row] for row in train_rows],
                config,
                padded=not kept,
                steps=plan.steps,
                learning_rate=plan.learning_rate,
                folder=checkpoints or folder,
            )
            if on_step is not None:
                trainer.add_callback(callback(on_step_end=partial(reporting, on_step)))
            if checkpoints is not None:
                trainer.add_callback(callback(on_step_end=saving(config.save_minutes, stopping)))
            trainer.train(resume_from_checkpoint=found.path if found else None)
        held_out = trainer.predict(sorted((documents[row] for row in held_out_rows), key=lambda row: len(row["input_ids"])))
    save_model(model, tokenizer, folder)
    logits = held_out.predictions[0] if isinstance(held_out.predictions, tuple) else held_out.predictions
    predicted, truth = np.asarray(logits).argmax(axis=1), np.asarray(held_out.label_ids)
    return TrainingResult(
        plan=plan,
        held_out=Counter((names[label], names[best]) for label, best in zip(truth, predicted, strict=True)),
        seconds=round(time.monotonic() - started, 2),
    )


def _keep(
    model: Any,
    documents: list[dict[str, Any]],
    config: TrainingConfig,
    on_encoded: Callable[[int, int], None] | None,
    say: Callable[[str], None],
) -> list[dict[str, Any]] | None:
    """keep_vectors(), or None if the frozen encoder has to run in every epoch, which is said."""
    import torch

    model.to("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return keep_vectors(model, documents, 4 * config.batch_size, on_encoded)
    except CannotKeepVectors as reason:
        say(f"the frozen encoder runs in every epoch, not once: {reason}")
        return None


def split_held_out(labels: np.ndarray, share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Row numbers to train on and to hold out, int64, ascending.

    Of each label `share` is held out, but at least one row and never all; a label with one row is only trained on.
    """
    generator = np.random.default_rng(seed)
    held_out = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        count = min(max(1, round(share * len(rows))), len(rows) - 1)
        held_out[generator.permutation(rows)[:count]] = True
    return np.flatnonzero(~held_out), np.flatnonzero(held_out)


def _label_names(labels: Sequence[str]) -> list[str]:
    names = sorted(set(labels))
    if len(names) < 2:
        raise UserError(f"input.label_column: {len(names)} label {names} in {len(labels)} documents; a classifier needs two")
    if len(labels) < 2 * len(names):
        raise UserError(
            f"input.label_column: {len(labels)} documents for {len(names)} labels; each label needs one to train on and"
            " one to hold out"
        )
    return names


def _tokenize(texts: list[str], label_ids: np.ndarray, tokenizer: Any) -> list[dict[str, Any]]:
    """One dict per document for the Trainer: the tokenizer's outputs (int32 arrays) and `labels`."""
    documents: list[dict[str, Any]] = []
    for first in range(0, len(texts), 1000):
        encoded = tokenizer(texts[first : first + 1000], truncation=True)
        for row, label in enumerate(label_ids[first : first + 1000]):
            arrays = {name: np.array(encoded[name][row], np.int32) for name in encoded}
            documents.append({**arrays, "labels": int(label)})
    return documents
