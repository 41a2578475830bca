"""Fine-tune a sequence classifier on labeled texts; its folder can be the labeling job's `model.path`.

Starts from a checkpoint, or from scratch with a WordPiece vocabulary learned from the same texts. A share of each label's
documents is held out and predicted at the end. All texts are held in memory. The same texts, settings, versions and number of
threads on the same machine give the same weights.
"""

import json
import math
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

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

Interruptible = Callable[[], AbstractContextManager[Callable[[], bool]]]
LOGGED_LOSSES = 50  # per training; reading a loss synchronizes the GPU


class TrainingConfig(BaseModel):
    """How the classifier is trained."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    epochs: float = Field(default=3, gt=0, description="passes over the training documents; 3 is usual for fine-tuning")
    max_steps: int | None = Field(
        default=None, ge=1, description="stop after this many batches, to bound the time; null: by epochs"
    )
    learning_rate: Annotated[float, Field(gt=0)] | Literal["auto"] = Field(
        default="auto",
        description="peak; auto: 5e-5 for a checkpoint; for new weights 1e-3, less for models wider than 256",
    )
    batch_size: int = Field(
        default=32, ge=1, description="documents per step and device; a larger batch needs a larger learning_rate"
    )
    max_length: int | None = Field(
        default=None,
        ge=8,
        description="tokens per document, the rest is cut; stored as the model's max_length; null: 256, or the model's limit if"
        " that is less",
    )
    warmup_share: float = Field(
        default=0.1,
        ge=0,
        lt=1,
        description="share of the steps in which the learning rate rises from 0, as a new head's first gradients are large",
    )
    weight_decay: float = Field(default=0.01, ge=0, description="AdamW's; 0.01 as in BERT")
    class_weights: Literal["balanced"] | None = Field(
        default=None,
        description="balanced: a label's documents count in inverse proportion to their number, so that rare labels are not"
        " given up; null: each document counts the same",
    )
    held_out_share: float = Field(
        default=0.1, gt=0, lt=1, description="share of each label's documents that only measures accuracy"
    )
    max_documents: int = Field(
        default=200_000, ge=2, description="only the first ones are used: texts and ids are held in memory"
    )
    seed: int = Field(default=0, ge=0, description="seed of the split, the new weights and the order of the documents")
    save_minutes: float | None = Field(
        default=10,
        ge=0,
        description="minutes between checkpoints, from which the same command continues; 0 or null: never",
    )


@dataclass(frozen=True)
class TrainingStep:
    """Progress of a training."""

    step: int
    steps: int
    epoch: float
    loss: float | None  # mean over the last logging interval; None before the first one
    examples: int  # nominal batch size


@dataclass(frozen=True)
class TrainingPlan:
    """What a training is about to do; everything that `auto` and null leave open is decided."""

    documents: int
    train_documents: int
    held_out_documents: int
    labels: list[str]  # in id2label order
    parameters: int
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
        max_length=tokenizer.model_max_length,
        learning_rate=(
            usual_learning_rate(model, is_new=architecture is not None)
            if config.learning_rate == "auto"
            else config.learning_rate
        ),
        steps=steps,
        epochs=steps / steps_per_epoch,
        done_steps=found.step if found else 0,
    )
    if on_start is not None:
        on_start(plan)
    with interruptible() if checkpoints is not None else nullcontext(lambda: False) as stopping:
        trainer = _make_trainer(model, tokenizer, [documents[row] for row in train_rows], config, plan, checkpoints or folder)
        if on_step is not None:
            trainer.add_callback(_callback(on_step_end=partial(_report_step, on_step)))
        if checkpoints is not None:
            trainer.add_callback(_callback(on_step_end=_saving(config.save_minutes, stopping)))
        trainer.train(resume_from_checkpoint=found.path if found else None)
    held_out = trainer.predict(sorted((documents[row] for row in held_out_rows), key=lambda row: len(row["input_ids"])))
    save_model(model, tokenizer, folder)
    predicted, truth = np.asarray(held_out.predictions).argmax(axis=1), np.asarray(held_out.label_ids)
    return TrainingResult(
        plan=plan,
        held_out=Counter((names[label], names[best]) for label, best in zip(truth, predicted, strict=True)),
        seconds=round(time.monotonic() - started, 2),
    )


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


def _make_trainer(
    model: Any,
    tokenizer: Any,
    documents: list[dict[str, Any]],
    config: TrainingConfig,
    plan: TrainingPlan,
    folder: str,
) -> Any:
    import torch
    from transformers import DataCollatorWithPadding, PrinterCallback, Trainer, TrainingArguments

    arguments = TrainingArguments(
        output_dir=folder,  # required; save_strategy="no" leaves it to a callback to write there
        max_steps=plan.steps,
        learning_rate=plan.learning_rate,
        per_device_train_batch_size=config.batch_size,
        per_device_eval_batch_size=4 * config.batch_size,
        warmup_steps=round(config.warmup_share * plan.steps),
        weight_decay=config.weight_decay,
        seed=config.seed,
        bf16=torch.cuda.is_available() and torch.cuda.is_bf16_supported(),
        dataloader_pin_memory=torch.cuda.is_available(),
        disable_tqdm=True,
        logging_steps=math.ceil(plan.steps / LOGGED_LOSSES),
        save_strategy="no",
        save_total_limit=1,
        report_to="none",
    )
    collator = DataCollatorWithPadding(tokenizer, pad_to_multiple_of=8)
    trainer = Trainer(
        model=model,
        args=arguments,
        data_collator=collator,
        compute_loss_func=balanced_loss(documents) if config.class_weights == "balanced" else None,
        train_dataset=documents,  # pyright: ignore[reportArgumentType] a list is a valid map-style dataset
    )
    trainer._get_train_sampler = lambda *_: EpochSampler([len(row["input_ids"]) for row in documents], config)
    trainer.remove_callback(PrinterCallback)  # it prints on stdout, which is for the JSON result
    return trainer


def balanced_loss(documents: list[dict[str, Any]]) -> Callable[..., Any]:
    """Cross-entropy in which a label with n_c of n documents has the weight n / (k n_c), k labels; for the Trainer.

    Source: scikit-learn's compute_class_weight("balanced"), after King & Zeng 2001. The mean is weighted too, as torch's.
    """
    import torch

    counts = np.bincount([document["labels"] for document in documents])
    weights = torch.tensor(len(documents) / (len(counts) * counts), dtype=torch.float32)

    def loss(outputs: Any, labels: Any, num_items_in_batch: Any = None) -> Any:
        logits = outputs.logits
        return torch.nn.functional.cross_entropy(logits.float(), labels, weight=weights.to(logits.device))

    return loss


class EpochSampler:
    """Row numbers of one epoch, rows of about the same length together; the order depends on the seed and the epoch alone.

    With transformers' own sampler it depends on all random numbers that were drawn before, so that a training that continues
    in the middle of an epoch would see some documents twice and others not at all.
    """

    def __init__(self, lengths: list[int], config: TrainingConfig):
        self._lengths, self._config, self._epoch = lengths, config, 0

    def set_epoch(self, epoch: int) -> None:
        """Called by the Trainer before each epoch."""
        self._epoch = epoch

    def __len__(self) -> int:
        return len(self._lengths)

    def __iter__(self) -> Iterator[int]:
        import torch
        from transformers.trainer_pt_utils import get_length_grouped_indices

        seed = int(np.random.SeedSequence([self._config.seed, self._epoch]).generate_state(1)[0])
        generator = torch.Generator().manual_seed(seed)
        return iter(get_length_grouped_indices(self._lengths, self._config.batch_size, generator=generator))


class Checkpoint(NamedTuple):
    """A checkpoint that transformers' Trainer has written."""

    path: str
    step: int


def newest_checkpoint(folder: str) -> Checkpoint | None:
    """The last checkpoint in the folder that was written to its end: its trainer_state.json, which comes last, can be read."""
    steps = [int(path.name.removeprefix("checkpoint-")) for path in Path(folder).glob("checkpoint-*")]
    for step in sorted(steps, reverse=True):
        path = Path(folder, f"checkpoint-{step}")
        try:
            json.loads((path / "trainer_state.json").read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            continue
        return Checkpoint(str(path), step)
    return None


def _callback(**events: Callable[..., None]) -> Any:
    """A TrainerCallback with these methods."""
    from transformers import TrainerCallback

    callback = TrainerCallback()
    for name, method in events.items():
        setattr(callback, name, method)
    return callback


def _saving(minutes: float | None, stopping: Callable[[], bool]) -> Callable[..., None]:
    """Has the Trainer save a checkpoint every so many minutes, and before it stops."""
    saved = time.monotonic()

    def on_step_end(arguments: Any, state: Any, control: Any, **_: Any) -> None:
        nonlocal saved
        if state.global_step >= state.max_steps:
            return  # the Trainer would do one step more from here
        stop = stopping()
        if stop or (minutes and time.monotonic() - saved >= 60 * minutes):
            control.should_save, control.should_training_stop, saved = True, stop, time.monotonic()

    return on_step_end


def _report_step(on_step: Callable[[TrainingStep], None], arguments: Any, state: Any, control: Any, **_: Any) -> None:
    loss = next((logs["loss"] for logs in reversed(state.log_history) if "loss" in logs), None)
    on_step(TrainingStep(state.global_step, state.max_steps, state.epoch or 0.0, loss, arguments.train_batch_size))
