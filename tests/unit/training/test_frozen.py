"""Frozen layers keep their weights, the head is trained on what the encoder gave once, and heads share the encoder."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from transformers import AutoModelForSequenceClassification, AutoTokenizer, CanineConfig, CanineTokenizer

from jobs.config import check_config
from jobs.start.train import TrainConfig, report_of
from pipeline_ops.models.head_weights import HEAD_MODULES
from pipeline_ops.schema.errors import UserError
from pipeline_ops.training.config import TrainingConfig
from pipeline_ops.training.training import train_classifier
from tests.models.architectures import ARCHITECTURES, make_classifier
from tests.models.tiny import make_model

torch.set_num_threads(1)

WORDS = {"fruit": ["apple", "pear", "plum"], "metal": ["iron", "copper", "tin"], "beast": ["wolf", "bear", "lynx"]}
TEXTS, LABELS = zip(
    *((" ".join((words * 3)[row % 3 : row % 3 + 1 + row % 4]), label) for label, words in WORDS.items() for row in range(20)),
    strict=True,
)
CONFIG = TrainingConfig(epochs=20, batch_size=8, max_length=16, held_out_share=0.2, freeze="encoder", learning_rate=2e-2)


def train(start: Path, folder: Path, **changes: Any) -> tuple[dict[str, Any], list[str], dict[str, np.ndarray]]:
    """The report, what was said, and the weights."""
    said: list[str] = []
    settings: dict[str, Any] = {"labels": LABELS, "config": CONFIG, **changes}
    result = train_classifier(TEXTS, start=str(start), architecture=None, folder=str(folder), say=said.append, **settings)
    return report_of(result), said, load_file(folder / "model.safetensors")


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("start"), "bert", max_length=16, texts=[*TEXTS] * 3)


def same(first: dict[str, np.ndarray], second: dict[str, np.ndarray]) -> set[str]:
    """Tensors of both, in which not a bit differs."""
    return {name for name in first.keys() & second.keys() if first[name].tobytes() == second[name].tobytes()}


def test_head_alone_is_trained_and_learns(start: Path, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    report, said, weights = train(start, tmp_path / "model", on_encoded=lambda *count: seen.append(count))
    assert report["accuracy"] >= 0.6  # of a random encoder; chance is a third
    assert seen[-1] == (60, 60)
    assert said == []
    before = load_file(start / "model.safetensors")
    assert {name for name in before if "pooler" not in name and "classifier" not in name} == same(before, weights)
    assert report["trained_parameters"] == sum(
        value.size for name, value in weights.items() if "pooler" in name or "classifier" in name
    )
    # what was measured on the kept vectors is what the saved folder answers
    model, tokenizer = (
        kind.from_pretrained(tmp_path / "model") for kind in (AutoModelForSequenceClassification, AutoTokenizer)
    )
    with torch.inference_mode():
        best = model(**tokenizer(list(TEXTS), padding=True, return_tensors="pt")).logits.argmax(1).tolist()
    assert np.mean([model.config.id2label[number] == label for number, label in zip(best, LABELS, strict=True)]) >= 0.6


def test_lowest_layers_are_frozen_with_the_embeddings(start: Path, tmp_path: Path) -> None:
    short = CONFIG.model_copy(update={"freeze": 1, "max_steps": 3, "learning_rate": 1e-3})
    _, said, weights = train(start, tmp_path / "model", config=short)
    kept = same(load_file(start / "model.safetensors"), weights)
    assert said == []
    assert {name for name in weights if re.search("embeddings|layer.0", name)} == kept
    all_layers = short.model_copy(update={"freeze": 2})
    assert (
        same(
            train(start, tmp_path / "all", config=all_layers)[2],
            train(start, tmp_path / "encoder", config=all_layers.model_copy(update={"freeze": "encoder"}))[2],
        )
        == weights.keys()
    )


def test_learning_rate_is_the_heads(start: Path, tmp_path: Path) -> None:
    short = {"learning_rate": "auto", "max_steps": 1}
    assert train(start, tmp_path / "head", config=CONFIG.model_copy(update=short))[0]["learning_rate"] == 3e-3
    lower = CONFIG.model_copy(update={**short, "freeze": 1})
    assert train(start, tmp_path / "lower", config=lower)[0]["learning_rate"] == 5e-5


def test_layers_that_there_are_not_are_refused(start: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"training\.freeze: 99: the model has 2 layers; give encoder") as raised:
        train(start, tmp_path / "model", config=CONFIG.model_copy(update={"freeze": 99}))
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize(
    ("model", "freeze", "message"),
    [
        ({"architecture": {"model_type": "bert"}}, "encoder", "training.freeze would keep the random weights of model.arch"),
        ("start", "head", "training.freeze: .*encoder"),
        ("start", 0, "training.freeze: invalid value 0"),
        ("start", True, "training.freeze: invalid value True"),
    ],
)
def test_wrong_values_are_refused_in_one_line(model: Any, freeze: Any, message: str) -> None:
    settings = {"input": "in", "output": "out", "model": model, "training": {"freeze": freeze}}
    with pytest.raises(UserError, match=message) as raised:
        check_config(TrainConfig, settings)
    assert "\n" not in str(raised.value)


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_heads_of_every_architecture_share_all_that_is_no_head(tmp_path: Path, architecture: str) -> None:
    start = make_classifier(tmp_path / "start", architecture, ["a", "b"])
    short = CONFIG.model_copy(update={"max_steps": 4})
    first = train(start, tmp_path / "first", config=short)
    second = train(start, tmp_path / "second", labels=["x", "y"] * 30, config=short)
    assert first[1] == second[1] == []  # the encoder runs once
    changed = first[2].keys() - same(first[2], second[2])
    head = "^(classifier|classification_head|score|pre_classifier|head)|pooler"
    assert [name for name in changed if not re.search(head, name)] == []
    assert any(HEAD_MODULES.intersection(name.split(".")) for name in changed)


@pytest.mark.slow
def test_head_that_reads_more_than_one_vector_is_trained_with_the_encoder(tmp_path: Path) -> None:
    config = CanineConfig(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=64,
        num_hash_buckets=64,
        local_transformer_stride=16,
        pad_token_id=0,
    )  # its head reads a pooled sequence of downsampled characters
    config.num_labels = 3
    torch.manual_seed(0)
    AutoModelForSequenceClassification.from_config(config).save_pretrained(tmp_path / "start")
    CanineTokenizer(model_max_length=16).save_pretrained(tmp_path / "start")
    _, said, weights = train(tmp_path / "start", tmp_path / "model", config=CONFIG.model_copy(update={"max_steps": 2}))
    assert said == ["the frozen encoder runs in every epoch, not once: its head reads something else than one token's vector"]
    changed = weights.keys() - same(load_file(tmp_path / "start" / "model.safetensors"), weights)
    assert changed == {"canine.pooler.dense.bias", "canine.pooler.dense.weight", "classifier.bias", "classifier.weight"}


@pytest.mark.slow
@pytest.mark.parametrize("stop_after", [4, 6])  # in the middle of an epoch of 6 steps, and at its end
def test_interrupted_training_of_a_head_continues_to_the_same_weights(start: Path, tmp_path: Path, stop_after: int) -> None:
    config = CONFIG.model_copy(update={"max_steps": 14})
    seen: list[int] = []

    @contextmanager
    def interrupted() -> Iterator[Callable[[], bool]]:
        yield lambda: len(seen) == stop_after
        raise KeyboardInterrupt

    settings: dict[str, Any] = {
        "config": config,
        "checkpoints": str(tmp_path / "kept"),
        "on_step": lambda at: seen.append(at.step),
    }
    with pytest.raises(KeyboardInterrupt):
        train(start, tmp_path / "model", interruptible=interrupted, **settings)
    continued = train(start, tmp_path / "model", **settings)[2]
    assert seen == [*range(1, 15)]
    assert same(continued, train(start, tmp_path / "whole", config=config)[2]) == continued.keys()
