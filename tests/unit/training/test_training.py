"""Training a tiny classifier: what it writes, what it reports, and what it refuses."""

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer

from jobs.start.train import baseline_line, report_of
from pipeline_ops.schema.errors import UserError
from pipeline_ops.training.base_model import ArchitectureConfig, load_checkpoint, save_model, train_wordpiece
from pipeline_ops.training.config import TrainingConfig
from pipeline_ops.training.trainer import balanced_loss, newest_checkpoint
from pipeline_ops.training.training import split_held_out, train_classifier
from tests.models.python_tokenizers import make_classifier as make_python_classifier

torch.set_num_threads(1)  # threads only get in each other's way in a model this small

WORDS = {
    "fruit": ["apple", "pear", "plum", "cherry", "quince"],
    "metal": ["iron", "copper", "tin", "zinc", "nickel"],
    "beast": ["wolf", "bear", "lynx", "otter", "badger"],
}
OPTIONS = {"dim": 32, "n_heads": 2, "n_layers": 1, "hidden_dim": 64, "max_position_embeddings": 16}
ARCHITECTURE = ArchitectureConfig(model_type="distilbert", vocab_size=200, options=OPTIONS)
CONFIG = TrainingConfig(epochs=12, learning_rate=5e-3, batch_size=8, max_length=16, held_out_share=0.2)


def corpus() -> tuple[list[str], list[str]]:
    texts, labels = [], []
    for label, words in WORDS.items():
        for index in range(20):
            texts.append(" ".join(words[(index + step) % 5] for step in range(1 + index % 4)))
            labels.append(label)
    return texts, labels


def train(folder: Path, **changes: Any) -> dict[str, Any]:
    texts, labels = corpus()
    settings: dict[str, Any] = {"start": None, "architecture": ARCHITECTURE, "config": CONFIG, "folder": str(folder)}
    return report_of(train_classifier(texts, labels, **{**settings, **changes}))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("model")
    return folder, train(folder)


def test_train_from_scratch_learns_and_reports(trained: tuple[Path, dict[str, Any]]):
    report = trained[1]
    assert report["labels"] == ["beast", "fruit", "metal"]
    assert (report["documents"], report["train_documents"], report["held_out_documents"]) == (60, 48, 12)
    assert report["accuracy"] >= 0.9
    assert report["macro_f1"] >= 0.9
    assert report["steps"] == 72
    assert report["parameters"] > 0
    assert report["seconds"] > 0
    json.dumps(report)


def test_train_from_scratch_folder_loads_offline_as_it_was_trained(trained: tuple[Path, dict[str, Any]]):
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    folder = trained[0]
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder)
    assert (folder / "model.safetensors").is_file()
    assert tokenizer.model_max_length == 16
    assert model.config.id2label == {0: "beast", 1: "fruit", 2: "metal"}
    assert model.config.label2id == {"beast": 0, "fruit": 1, "metal": 2}
    assert model.config.pad_token_id == tokenizer.pad_token_id == 0
    texts = ["iron copper zinc", "wolf", "plum quince"]
    with torch.inference_mode():
        best = model(**tokenizer(texts, padding=True, truncation=True, return_tensors="pt")).logits.argmax(1)
    assert [model.config.id2label[int(number)] for number in best] == ["metal", "beast", "fruit"]


def test_train_same_settings_give_same_weights_and_silence_on_stdout(tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    short = CONFIG.model_copy(update={"max_steps": 3})
    reports = [train(tmp_path / name, config=short) for name in ("first", "second")]
    assert reports[0]["accuracy"] == reports[1]["accuracy"]
    for file in ("model.safetensors", "tokenizer.json"):
        assert (tmp_path / "first" / file).read_bytes() == (tmp_path / "second" / file).read_bytes()
    assert capfd.readouterr().out == ""


@pytest.mark.parametrize("stop_after", [4, 6])  # in the middle of an epoch of 6 steps, and at its end
def test_train_continues_from_its_checkpoint_to_the_same_weights(tmp_path: Path, stop_after: int):
    config = CONFIG.model_copy(update={"max_steps": 14, "learning_rate": 1e-2})
    train(tmp_path / "whole", config=config)
    seen: list[int] = []

    @contextmanager
    def interrupted() -> Iterator[Callable[[], bool]]:
        yield lambda: len(seen) == stop_after
        raise KeyboardInterrupt

    folder, checkpoints = tmp_path / "continued", str(tmp_path / "checkpoints")
    settings: dict[str, Any] = {"config": config, "checkpoints": checkpoints, "on_step": lambda at: seen.append(at.step)}
    with pytest.raises(KeyboardInterrupt):
        train(folder, interruptible=interrupted, **settings)
    found = newest_checkpoint(checkpoints)
    assert found is not None
    assert found.step == stop_after
    cut = Path(checkpoints, "checkpoint-9")  # as of a process that was killed while it saved
    shutil.copytree(found.path, cut)
    (cut / "trainer_state.json").write_text("{")
    train(folder, **settings)
    assert seen == [*range(1, 15)]
    assert (folder / "model.safetensors").read_bytes() == (tmp_path / "whole" / "model.safetensors").read_bytes()


def test_train_from_checkpoint_gets_new_head(trained: tuple[Path, dict[str, Any]], tmp_path: Path):
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    texts, labels = corpus()
    labels = ["alive" if label != "metal" else "dead" for label in labels]
    short = CONFIG.model_copy(update={"max_length": 8, "epochs": 2})
    result = train_classifier(
        texts, labels, start=str(trained[0]), architecture=None, config=short, folder=str(tmp_path / "tuned")
    )
    assert result.plan.labels == ["alive", "dead"]
    assert AutoModelForSequenceClassification.from_pretrained(tmp_path / "tuned").config.id2label == {0: "alive", 1: "dead"}
    assert AutoTokenizer.from_pretrained(tmp_path / "tuned").model_max_length == 8


def test_train_without_max_length_goes_by_the_models_limit(trained: tuple[Path, dict[str, Any]], tmp_path: Path):
    from transformers import AutoTokenizer

    short = CONFIG.model_copy(update={"max_length": None, "max_steps": 1})
    report = train(tmp_path / "tuned", start=str(trained[0]), architecture=None, config=short)
    assert report["max_length"] == 16
    assert AutoTokenizer.from_pretrained(tmp_path / "tuned").model_max_length == 16
    roberta = ArchitectureConfig(
        model_type="roberta",
        vocab_size=200,
        options={
            "hidden_size": 32,
            "num_attention_heads": 2,
            "num_hidden_layers": 1,
            "intermediate_size": 64,
            "max_position_embeddings": 34,
        },
    )
    texts, labels = corpus()
    long = [" ".join([text] * 40) for text in texts]  # more tokens than positions
    result = train_classifier(long, labels, start=None, architecture=roberta, config=short, folder=str(tmp_path / "roberta"))
    assert result.plan.max_length == 33  # positions begin behind the padding id, 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"architecture": ArchitectureConfig(model_type="distilbret")}, "model_type: 'distilbret'.*did you mean 'distilbert'"),
        ({"architecture": ArchitectureConfig(model_type="blip")}, "model_type: 'blip'"),
        ({"architecture": ArchitectureConfig(model_type="distilbert", options={"n_layer": 2})}, "did you mean 'n_layers'"),
        ({"architecture": ArchitectureConfig(model_type="distilbert", options={**OPTIONS, "n_heads": 5})}, "options"),
        ({"config": CONFIG.model_copy(update={"max_length": 17})}, "max_length: 17 is more than the model's 16"),
        ({"architecture": None, "start": "/no/such/folder"}, "model.path: '/no/such/folder'"),
    ],
)
def test_train_wrong_settings_are_refused(tmp_path: Path, changes: dict[str, Any], message: str):
    with pytest.raises(UserError, match=message) as raised:
        train(tmp_path / "model", **changes)
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize(("labels", "message"), [(["a"] * 6, "1 label"), (["a", "a", "b", "c", "d", "e"], "6 documents for 5")])
def test_train_too_few_labels_or_documents_are_refused(tmp_path: Path, labels: list[str], message: str):
    with pytest.raises(UserError, match=f"input.label_column: {message}"):
        train_classifier(
            ["text"] * 6, labels, start=None, architecture=ARCHITECTURE, config=CONFIG, folder=str(tmp_path / "model")
        )


def test_learning_rate_is_chosen_by_what_training_starts_from(trained: tuple[Path, dict[str, Any]], tmp_path: Path):
    short = CONFIG.model_copy(update={"learning_rate": "auto", "max_steps": 1})
    assert train(tmp_path / "new", config=short)["learning_rate"] == 1e-3
    assert train(tmp_path / "tuned", config=short, start=str(trained[0]), architecture=None)["learning_rate"] == 5e-5
    wide = ARCHITECTURE.model_copy(update={"options": {**OPTIONS, "dim": 512}})
    assert train(tmp_path / "wide", config=short, architecture=wide)["learning_rate"] == 5e-4


def test_balanced_class_weights_are_scikit_learns_and_keep_a_rare_label(tmp_path: Path):
    from sklearn.utils.class_weight import compute_class_weight

    counts = [90, 6, 24]
    ids = np.repeat(np.arange(3), counts)
    weights = torch.tensor(compute_class_weight("balanced", classes=np.arange(3), y=ids), dtype=torch.float32)
    logits, truth = torch.randn(5, 3, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1, 2, 2, 0])
    expected = torch.nn.CrossEntropyLoss(weight=weights)(logits, truth)
    found = balanced_loss([{"labels": int(label)} for label in ids])(SimpleNamespace(logits=logits), truth)
    assert found.item() == pytest.approx(expected.item())
    # the words say nothing: only the weights decide whether the rare label is ever given
    texts, labels = ["iron"] * 120, ["rare" if row < 12 else "usual" for row in range(120)]
    config = CONFIG.model_copy(update={"max_steps": 40, "learning_rate": 5e-3, "class_weights": "balanced"})
    folders = {}
    for name, settings in {"balanced": config, "plain": config.model_copy(update={"class_weights": None})}.items():
        folders[name] = str(tmp_path / name)
        train_classifier(texts, labels, start=None, architecture=ARCHITECTURE, config=settings, folder=folders[name])
    assert score_of("rare", folders["balanced"]) == pytest.approx(0.5, abs=0.15)
    assert score_of("rare", folders["plain"]) < 0.25


def score_of(label: str, folder: str) -> float:
    """Of the text `iron`."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    model = AutoModelForSequenceClassification.from_pretrained(folder)
    with torch.inference_mode():
        scores = model(**AutoTokenizer.from_pretrained(folder)("iron", return_tensors="pt")).logits.softmax(1)[0]
    return scores[model.config.label2id[label]].item()


def test_model_that_is_no_better_than_one_label_is_said_with_remedies(tmp_path: Path):
    report = train(tmp_path / "model", config=CONFIG.model_copy(update={"max_steps": 1, "learning_rate": 1e-9}))
    assert report["baseline"]["accuracy"] == pytest.approx(1 / 3, abs=1e-4)
    line = baseline_line({**report, "accuracy": 0.3333}, CONFIG)
    assert line is not None
    assert "majority baseline 0.3333; try more training.epochs than 0.17, another training.learning_rate than 1e-09" in line
    assert line.endswith("training.class_weights=balanced")
    assert baseline_line({**report, "accuracy": 0.5}, CONFIG) is None


def test_wordpiece_special_tokens_and_template():
    tokenizer = train_wordpiece(corpus()[0], 200, lowercase=True)
    assert [tokenizer.convert_tokens_to_ids(token) for token in ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")] == list(
        range(5)
    )
    assert len(tokenizer) <= 200
    assert tokenizer.convert_ids_to_tokens(tokenizer("Iron ☃").input_ids) == ["[CLS]", "iron", "[UNK]", "[SEP]"]
    assert tokenizer("iron", "tin").input_ids.count(3) == 2


def test_split_held_out_is_stratified_and_repeatable():
    labels = np.array([0] * 100 + [1] * 10 + [2])
    kept, held_out = split_held_out(labels, 0.2, seed=1)
    assert sorted([*kept, *held_out]) == list(range(111))
    assert np.bincount(labels[held_out], minlength=3).tolist() == [20, 2, 0]
    assert split_held_out(labels, 0.2, seed=1)[1].tolist() == held_out.tolist()
    assert split_held_out(labels, 0.2, seed=2)[1].tolist() != held_out.tolist()


@pytest.mark.slow
def test_trained_model_tokenizes_as_what_it_was_trained_from_did(tmp_path: Path) -> None:
    """BERTweet's tokenizer: saved by transformers, it loses its merges."""
    start = make_python_classifier(tmp_path / "start", "BERTweet", ("A", "B"), 64)
    model, tokenizer = load_checkpoint(str(start), None, ["A", "B"])
    save_model(model, tokenizer, str(tmp_path / "trained"))
    text = "the end and the beginning @user"
    assert AutoTokenizer.from_pretrained(tmp_path / "trained").tokenize(text) == tokenizer.tokenize(text)
    assert "the" in tokenizer.tokenize(text)
