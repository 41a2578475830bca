"""The steps of a training: transformers' Trainer, with an order of its own, and checkpoints from which it continues exactly."""

import json
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pipeline_ops.training.config import TrainingConfig

LOGGED_LOSSES = 50  # per training; reading a loss synchronizes the GPU


@dataclass(frozen=True)
class TrainingStep:
    """Progress of a training."""

    step: int
    steps: int
    epoch: float
    loss: float | None  # mean over the last logging interval; None before the first one
    examples: int  # nominal batch size


def make_trainer(
    model: Any,
    tokenizer: Any,
    documents: list[dict[str, Any]],
    config: TrainingConfig,
    *,
    padded: bool,
    steps: int,
    learning_rate: float,
    folder: str,
) -> Any:
    """A transformers Trainer that has no output of its own and saves nothing by itself.

    Args:
        documents: what the model takes and `labels`, one dict per document.
        padded: the documents are the tokenizer's outputs, of different lengths; else all are arrays of one shape.
        folder: for checkpoints, if a callback has it save one.
    """
    import torch
    from transformers import DataCollatorWithPadding, PrinterCallback, Trainer, TrainingArguments, default_data_collator

    arguments = TrainingArguments(
        output_dir=folder,  # required; save_strategy="no" leaves it to a callback to write there
        max_steps=steps,
        learning_rate=learning_rate,
        per_device_train_batch_size=config.batch_size,
        per_device_eval_batch_size=4 * config.batch_size,
        warmup_steps=round(config.warmup_share * steps),
        weight_decay=config.weight_decay,
        seed=config.seed,
        bf16=torch.cuda.is_available() and torch.cuda.is_bf16_supported(),
        dataloader_pin_memory=torch.cuda.is_available(),
        disable_tqdm=True,
        logging_steps=math.ceil(steps / LOGGED_LOSSES),
        save_strategy="no",
        save_total_limit=1,
        report_to="none",
    )
    trainer = Trainer(
        model=model,
        args=arguments,
        data_collator=DataCollatorWithPadding(tokenizer, pad_to_multiple_of=8) if padded else default_data_collator,
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


def callback(**events: Callable[..., None]) -> Any:
    """A TrainerCallback with these methods."""
    from transformers import TrainerCallback

    callback = TrainerCallback()
    for name, method in events.items():
        setattr(callback, name, method)
    return callback


def saving(minutes: float | None, stopping: Callable[[], bool]) -> Callable[..., None]:
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


def reporting(on_step: Callable[[TrainingStep], None], arguments: Any, state: Any, control: Any, **_: Any) -> None:
    loss = next((logs["loss"] for logs in reversed(state.log_history) if "loss" in logs), None)
    on_step(TrainingStep(state.global_step, state.max_steps, state.epoch or 0.0, loss, arguments.train_batch_size))
