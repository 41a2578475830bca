"""train with corrections: counts, new labels and the samples of the review in what it writes and says; wrong ones are named."""

import json
from pathlib import Path
from typing import Any

import pytest

from pipeline_ops.models.config import ModelConfig
from pipeline_ops.models.model_card import card_of
from pipeline_ops.storage.config import StorageConfig
from tests.support.corpora import write_bytes, write_jsonl
from tests.support.running import command, snapshot, write_job_file

WORDS = {"good": "good and great", "bad": "bad and poor"}
ROWS = [{"text": f"{words} {number}", "label": label} for number in range(20) for label, words in WORDS.items()]


@pytest.fixture
def training(tmp_path: Path):
    source = write_jsonl(tmp_path / "first.jsonl", ROWS)
    options = {"dim": 16, "n_heads": 2, "n_layers": 1, "hidden_dim": 32}
    settings: dict[str, Any] = {
        "input": {"path": str(source)},
        "model": {"architecture": {"model_type": "distilbert", "vocab_size": 120, "options": options}},
        "training": {"max_steps": 1, "save_minutes": 0},
        "output": {"path": str(tmp_path / "model")},
    }
    return write_job_file(tmp_path / "train.yaml", settings)


def review(source: Path, row: int, label: str, **changes: Any) -> dict[str, Any]:
    facts = {"sample": "review-1", "stratum": "random", "stratum_documents": 9, "stratum_sampled": 9, "documents": 9}
    return {"source_file": str(source), "source_row": row, "text": ROWS[row]["text"], "label": label, **facts, **changes}


@pytest.mark.slow
def test_training_takes_corrections_from_files_of_both_formats_and_a_second_one_remembers_the_first(
    training: Path, tmp_path: Path
) -> None:
    first = tmp_path / "first.jsonl"
    write_jsonl(tmp_path / "r" / "1.jsonl", [review(first, 0, "bad"), review(first, 1, "bad")])
    write_bytes(tmp_path / "r" / "2.csv", b"corrected;sample;text\nodd;;a new one\nodd;;another\n;;not reviewed\n")
    finished = command("train", training, f"input.corrections={tmp_path}/r")
    assert finished.code == 0, finished.stderr
    facts = {"documents": 4, "in_corpus": 2, "relabeled": 1, "without_text": 0, "new_labels": {"odd": 2}}
    assert (finished.result["corrections"], finished.result["documents"]) == (facts, 42)
    assert finished.result["labels"] == ["bad", "good", "odd"]
    assert "4 corrected documents: 2 new, 2 in place of the corpus's, 1 of these with another label" in finished.stderr
    assert "labels that only the corrections have: 'odd' (2 documents)" in finished.stderr
    record = json.loads((tmp_path / "model" / "training.json").read_text())
    assert record["report"]["corrections"] == facts
    assert card_of(ModelConfig(path=str(tmp_path / "model")), StorageConfig())["reviewed_samples"] == ["review-1"]
    alone = write_jsonl(tmp_path / "3.jsonl", [review(first, row, ROWS[row]["label"], sample="review-2") for row in range(8)])
    again = command(
        *("train", training, "input.path=", f"input.corrections=[{alone}]", f"output.path={tmp_path}/later"),
        *("model={path: " + f"{tmp_path}/model" + "}", "--quiet"),
    )
    assert again.code == 0, again.stderr
    assert (again.result["documents"], again.result["labels"]) == (8, ["bad", "good"])
    assert card_of(ModelConfig(path=f"{tmp_path}/later"), StorageConfig())["reviewed_samples"] == ["review-1", "review-2"]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["input.corrections=no.jsonl"], "input.corrections: there is no file 'no.jsonl'"),
        (["input.corrections=slips.csv"], "row 2 of slips.csv: there is no label 'GOOD'; did you mean 'good'?"),
        (["input.corrections=blank.csv"], "input.corrections: none of the 1 documents has a text; export them with"),
        (["input.corrections=more.csv", "training.max_documents=2"], "training.max_documents: 2, but there are 3 corrected"),
        (["input.path="], "give input.path, a labeled corpus, or input.corrections, or both"),
        (["input.corrections=model/fixes.csv", "output.overwrite=true"], "holds the input file 'model/fixes.csv', which no"),
    ],
)
def test_mistakes_in_corrections_are_named_before_a_model_is_written(
    training: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, overrides: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    write_bytes(tmp_path / "slips.csv", b"corrected,text\nGOOD,x\n")
    write_bytes(tmp_path / "blank.csv", b"corrected,text\ngood,\n")
    write_bytes(tmp_path / "more.csv", b"corrected,text\ngood,x\ngood,y\nbad,z\n")
    write_bytes(tmp_path / "model" / "fixes.csv", b"corrected,text\ngood,x\n")
    before = snapshot(tmp_path)
    finished = command(
        "train", training, f"output.path={tmp_path}/{'model' if 'overwrite' in str(overrides) else 'other'}", *overrides
    )
    assert finished.code == 2
    assert message in finished.stderr
    assert snapshot(tmp_path) == before
