"""`init --train`: a training file from a labeled corpus, which `train` accepts."""

from pathlib import Path

import pytest

from jobs.config import load_config
from jobs.start.train import TrainConfig
from tests.support.corpora import write_csv, write_jsonl
from tests.support.running import command

TEXTS = ["good and great, a film to see again", "bad and poor, an evening lost"]
ROWS = [
    {"id": f"r{row:04}", "review": f"{TEXTS[row % 2]} number {row}", "stars": "bad" if row % 2 else "good"} for row in range(60)
]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_labeled_corpus_becomes_a_classifier_in_two_commands(folder: Path) -> None:
    write_jsonl(folder / "reviews" / "a.jsonl.gz", ROWS)
    small = "{model_type: distilbert, vocab_size: 150, options: {dim: 16, n_heads: 2, n_layers: 1, hidden_dim: 32}}"
    written = command("init", "--train", "reviews", f"model.architecture={small}", "training.max_steps=2")
    assert written.code == 0, written.stderr
    assert written.result["training"] == "train.yaml"
    assert (written.result["text_column"], written.result["label_column"]) == ("review", "stars")
    assert "label-corpus train train.yaml" in written.stderr
    assert "label-corpus init reviews --model reviews-classifier" in written.stderr
    trained = command("train", "train.yaml", "--quiet")
    assert trained.code == 0, trained.stderr
    assert trained.result["labels"] == ["bad", "good"]
    assert (folder / "reviews-classifier" / "model.safetensors").is_file()


def test_file_names_every_choice_and_starts_from_a_checkpoint(folder: Path) -> None:
    write_csv(folder / "reviews.csv", [{**row, "topic": "film"} for row in ROWS])
    written = command("init", "--train", "reviews.csv", "--model", "my-checkpoint", "--job", "t.yaml", "--output", "mine")
    assert written.code == 0, written.stderr
    config = load_config(TrainConfig, "t.yaml", [])
    assert (config.model.path, config.output.path) == ("my-checkpoint", "mine")
    text = (folder / "t.yaml").read_text()
    assert "other columns that may hold labels: " in text
    assert "# learning_rate: auto" in text
    assert "architecture: {model_type: distilbert" in text
    again = command("init", "--train", "reviews.csv", "--job", "t.yaml")
    assert again.code == 2
    assert "--job: 't.yaml' exists" in again.stderr


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        ([], "input.label_column: no column of 'plain.jsonl' looks like labels; beside 'review' it has 'id'"),
        (["input.label_column=grade"], "input.label_column: there is no column 'grade'"),
        (["training.epoch=2"], "training.epoch: unknown key; did you mean training.epochs?"),
    ],
)
def test_corpus_without_labels_and_mistakes_are_named(folder: Path, overrides: list[str], said: str) -> None:
    write_jsonl(folder / "plain.jsonl", [{"id": row["id"], "review": row["review"]} for row in ROWS])
    finished = command("init", "--train", "plain.jsonl", *overrides)
    assert finished.code == 2
    assert said in finished.stderr
    assert [path.name for path in folder.iterdir()] == ["plain.jsonl"]
