"""The loop that makes labels better, by the commands alone: train, label, review, train with the corrections, label again."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.corpora import write_jsonl
from tests.support.running import command, make_job, write_job_file
from tests.support.serial_chain import run_serially

WORDS = {"art": "paint canvas color", "law": "court judge trial", "maths": "proof number sum"}
TRUTHS = [list(WORDS)[row * 7 % 3] for row in range(240)]
TEXTS = [f"{WORDS[truth].split()[row % 3]} and {WORDS[truth].split()[row % 2]} {row}" for row, truth in enumerate(TRUTHS)]


def answer(spreadsheet: Path) -> str:
    """Fill in the true labels, as a person would; returns the file's path."""
    with open(spreadsheet, encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    with open(spreadsheet, "w", encoding="utf-8-sig", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows({**row, "corrected": TRUTHS[int(row["source_row"])]} for row in rows)
    return str(spreadsheet)


@pytest.mark.slow
def test_labels_are_reviewed_corrected_learned_and_measured_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    corpus = write_jsonl(tmp_path / "corpus.jsonl", [{"text": text} for text in TEXTS])
    first = write_jsonl(
        tmp_path / "first.jsonl", [{"text": f"{WORDS[name]} {row}", "label": name} for name in WORDS for row in range(4)]
    )
    options = {"dim": 16, "n_heads": 2, "n_layers": 1, "hidden_dim": 32}
    settings: dict[str, Any] = {
        "input": {"path": str(first)},
        "model": {"architecture": {"model_type": "distilbert", "vocab_size": 150, "options": options}},
        "training": {"max_steps": 20, "save_minutes": 0},
        "output": {"path": "a"},
    }
    training = write_job_file(tmp_path / "train.yaml", settings)

    def label(model: str) -> str:
        run_serially(make_job(corpus, tmp_path / model, tmp_path / f"labeled-{model}"), quiet=True)
        return f"labeled-{model}"

    def review(output: str, page: str) -> str:
        made = command("review", output, "--uncertain", "20", "--random", "40", "--output", page)
        assert made.code == 0, made.stderr
        return answer(Path(page).with_suffix(".csv"))

    assert command("train", training).code == 0
    reviewed = review(label("a"), "1.html")
    before = command("evaluate", "labeled-a", "--corrections", reviewed)
    assert before.code == 0, before.stderr
    assert (before.result["estimate"]["documents"], before.result["estimate"]["reviewed"]) == (240, 60)
    trained = command("train", training, f"input.corrections={reviewed}", "output.path=b", "training.max_steps=200")
    assert trained.code == 0, trained.stderr
    assert (trained.result["documents"], trained.result["corrections"]["documents"]) == (72, 60)
    compared = command("compare", "labeled-a", label("b"), "--corrections", reviewed)
    assert compared.code == 0, compared.stderr
    assert compared.result["truth"]["accuracy_a"] == before.result["accuracy"]
    assert compared.result["truth"]["accuracy_b"] > compared.result["truth"]["accuracy_a"]
    same = command("evaluate", "labeled-b", "--corrections", reviewed)
    assert (same.result["estimate"], same.result["reviewed"]["trained_on"]) == (None, [before.result["estimate"]["sample"]])
    after = command("evaluate", "labeled-b", "--corrections", review("labeled-b", "2.html"))
    assert after.result["estimate"]["of_corpus"]
    assert after.result["estimate"]["accuracy"] > before.result["estimate"]["accuracy"]
    assert json.loads(Path("labeled-b/_report/evaluation.json").read_text())["estimate"] == after.result["estimate"]
