"""The stages as Ray calls them, one row in and out: from files to a commit."""

import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cluster.attempts import AttemptCounts, UnitProgress
from pipeline_ops.schema.output_columns import OutputConfig
from pipeline_ops.stages.classifier import ClassifyActor
from pipeline_ops.stages.writer import write_task
from pipeline_ops.writing.commit_record import ClassifySeconds
from tests.models.harmful import UNEMBEDDED_WORD, with_unembedded_word
from tests.support.corpora import real_documents, write_bytes, write_jsonl
from tests.support.stage_rows import (
    commit_of,
    context_of,
    failure_of,
    label,
    labeled,
    models_of,
    rejects_in,
    rows_of,
    tokenizer_of,
)


def test_chain_labels_every_document_once_whatever_the_units_and_batches_are(tmp_path: Path, model: Path) -> None:
    texts = [text[:3000] for text in real_documents(40)]
    path = write_jsonl(tmp_path / "in" / "a.jsonl", [{"id": row, "text": text} for row, text in enumerate(texts)])
    found = []
    for unit_bytes, batch_tokens in ((2**20, 10**6), (5000, 128)):
        output = OutputConfig(path=str(tmp_path / f"out-{unit_bytes}"), logits=True)
        rows = rows_of(path, unit_bytes)
        assert all(row.num_rows == 1 for row in rows)
        commits = [commit_of(label(row, model, output, batch_tokens)) for row in rows]
        assert sum(commit.labeled for commit in commits) == 40
        assert all(commit.tokens <= commit.padded_tokens for commit in commits)
        found.append(labeled(tmp_path / f"out-{unit_bytes}"))
    first, second = found
    assert [row["text"] for row in first] == texts
    assert [row["source_row"] for row in first] == list(range(40))
    for left, right in zip(first, second, strict=True):
        assert left.pop("logits") == pytest.approx(right.pop("logits"), abs=1e-5)
        assert left.pop("score") == pytest.approx(right.pop("score"), abs=1e-5)
        assert left == right


@pytest.mark.campaign
@pytest.mark.skipif(not (shutil.which("g++") or shutil.which("clang++")), reason="needs a C++ compiler")
def test_chain_with_a_compiled_model_gives_the_same_labels_and_logits(tmp_path: Path, model: Path) -> None:
    texts = [text[:3000] for text in real_documents(40)]
    (row,) = rows_of(write_jsonl(tmp_path / "in" / "a.jsonl", [{"text": text} for text in texts]))
    torch.compiler.reset()
    found = []
    for compiled in (False, True):
        folder = tmp_path / f"compiled-{compiled}"
        commit_of(label(row, model, OutputConfig(path=str(folder), logits=True), 10**6, compile=compiled))
        found.append(labeled(folder))
    assert [row["label"] for row in found[0]] == [row["label"] for row in found[1]]
    eager, compiled = ([row["logits"] for row in rows] for rows in found)
    np.testing.assert_allclose(compiled, eager, atol=1e-5)


def test_classify_seconds_of_units_cover_the_time_that_the_actor_lived(tmp_path: Path, model: Path) -> None:
    """Waiting is from the end of one call to the start of the next; what is left out is the end of a call."""
    texts = [text[:3000] for text in real_documents(40)]
    output, attempts = OutputConfig(path=str(tmp_path / "out")), AttemptCounts()
    context = context_of(models_of(model, output), output)
    tokenizer = tokenizer_of(context, attempts)
    rows = rows_of(write_jsonl(tmp_path / "in" / "a.jsonl", [{"text": text} for text in texts]), 5000)
    assert len(rows) > 1
    actor = ClassifyActor(context, attempts)
    ready = time.monotonic()
    classified = [actor(tokenizer(row)) for row in rows]
    lived = time.monotonic() - ready
    commits = [commit_of(write_task(row, context, attempts)) for row in classified]
    total = ClassifySeconds.sum_of(commit.classify_seconds for commit in commits)
    assert 0 < total.total <= lived + 0.001
    assert min(total.to_dict().values()) >= 0
    assert total.computing > 0
    lengths = np.array([row["num_tokens"] for row in labeled(tmp_path / "out")])
    assert sum(commit.flops or 0 for commit in commits) == pytest.approx(flops_of(lengths), rel=1e-9)


def test_classify_seconds_of_a_unit_leave_out_those_of_a_failed_one_before_it(tmp_path: Path, model: Path) -> None:
    output, attempts = OutputConfig(path=str(tmp_path / "out")), AttemptCounts()
    context = context_of(models_of(model, output), output, 1)
    (row,) = rows_of(write_jsonl(tmp_path / "in" / "a.jsonl", [{"text": "a"}, {"text": "a longer text"}]))
    actor, tokenized, passed = ClassifyActor(context, attempts), tokenizer_of(context, attempts)(row), []

    def compute_then_exhaust(module: Any, inputs: Any) -> None:
        if passed:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        time.sleep(0.3)
        passed.append(module)

    hook = actor.passes[0].model.register_forward_pre_hook(compute_then_exhaust)
    assert "too much for a classifier's memory" in failure_of(actor(tokenized)).message
    hook.remove()
    seconds = commit_of(write_task(actor(tokenized), context, attempts)).classify_seconds
    assert (seconds.copying >= 0, seconds.computing < 0.3) == (True, True)


class Watched(AttemptCounts):
    """What a run's view would see after each report of a classifier's."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[dict[str, UnitProgress]] = []

    def progress(self, key: str, share: float, documents: float, tokens: float) -> None:
        super().progress(key, share, documents, tokens)
        self.seen.append(self.activity().units)


def test_classifier_reports_how_far_it_is_with_a_unit(tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    output, attempts = OutputConfig(path=str(tmp_path / "out")), Watched()
    context = context_of(models_of(model, output), output, 512)
    (row,) = rows_of(write_jsonl(tmp_path / "in" / "a.jsonl", [{"text": text[:500]} for text in real_documents(40)]))
    actor, tokenized = ClassifyActor(context, attempts), tokenizer_of(context, attempts)(row)
    monkeypatch.setattr("pipeline_ops.stages.classifier.PROGRESS_SECONDS", 3600)
    actor(tokenized)
    assert attempts.seen == [], "it took less than that"
    monkeypatch.setattr("pipeline_ops.stages.classifier.PROGRESS_SECONDS", 0)
    commit = commit_of(write_task(actor(tokenized), context, attempts))
    assert all(list(units) == [commit.unit] for units in attempts.seen)
    reports = [units[commit.unit] for units in attempts.seen]
    assert len(reports) > 3
    assert [report.share for report in reports] == sorted({report.share for report in reports}), "it grows"
    assert (reports[-1].share, reports[-1].documents, reports[-1].tokens) == (1, commit.documents, commit.tokens)
    assert attempts.activity().units == {}, "what is classified is soon committed"


def flops_of(lengths: np.ndarray) -> float:
    """Of the tests' BERT: two layers of 32, 64 inside, two labels; see estimating.document_flops."""
    return float(sum(2 * (n * (8 * 32**2 + 4 * 32 * 64) + n**2 * 4 * 32) + 2 * 32**2 + 2 * 32 * 2 for n in lengths.tolist()))


def test_flops_leave_out_documents_that_made_the_model_raise(tmp_path: Path, model: Path) -> None:
    texts = ["one", "two", UNEMBEDDED_WORD, "three"]
    (row,) = rows_of(write_jsonl(tmp_path / "in" / "a.jsonl", [{"text": text} for text in texts]))
    folder, output = with_unembedded_word(model, tmp_path / "model"), OutputConfig(path=str(tmp_path / "out"))
    commit = commit_of(label(row, folder, output))
    lengths = np.array([row["num_tokens"] for row in labeled(tmp_path / "out")])
    assert (commit.rejected, len(lengths)) == (1, 3)
    assert commit.flops == pytest.approx(flops_of(lengths), rel=1e-9)


def test_chain_of_rejects_only_commits_them(tmp_path: Path, model: Path) -> None:
    (row,) = rows_of(write_bytes(tmp_path / "in" / "a.jsonl", b"broken\n{}\n"))
    commit = commit_of(label(row, model, OutputConfig(path=str(tmp_path / "out"))))
    assert (commit.labeled, commit.rejected, commit.files) == (0, 2, ())


def test_chain_of_an_empty_file_commits_it(tmp_path: Path, model: Path) -> None:
    (row,) = rows_of(write_bytes(tmp_path / "in" / "a.jsonl", b""))
    commit = commit_of(label(row, model, OutputConfig(path=str(tmp_path / "out"))))
    assert (commit.documents, commit.files, commit.rejects_file) == (0, (), None)
    assert commit.pieces[0].last


@pytest.mark.parametrize(("columns", "kept"), [("none", set()), (("id",), {"id"}), (("id", "text"), {"id", "text"})])
def test_chain_with_chosen_columns_writes_those(tmp_path: Path, model: Path, columns: Any, kept: set[str]) -> None:
    path = write_jsonl(tmp_path / "in" / "a.jsonl", [{"id": "x", "text": "a text", "other": 1}])
    output = OutputConfig(path=str(tmp_path / "out"), columns=columns)
    (row,) = rows_of(path, columns=columns)
    commit_of(label(row, model, output))
    (document,) = labeled(tmp_path / "out")
    assert document.keys() - set(output.added_columns().values()) == kept


def test_chain_with_chosen_columns_of_csv_writes_those(tmp_path: Path, model: Path) -> None:
    path = write_bytes(tmp_path / "in" / "a.csv", b"id,other,text\n1,2,a text\n")
    output = OutputConfig(path=str(tmp_path / "out"), columns=("id",))
    (row,) = rows_of(path, columns=("id",))
    commit_of(label(row, model, output))
    (document,) = labeled(tmp_path / "out")
    assert document.keys() - set(output.added_columns().values()) == {"id"}


def test_chain_with_a_model_that_gives_nan_rejects_what_it_touches(tmp_path: Path, model: Path) -> None:
    texts = ["a good text", "a bad text", "another good text"]
    output = OutputConfig(path=str(tmp_path / "out"))
    (row,) = rows_of(write_jsonl(tmp_path / "in" / "a.jsonl", [{"text": text} for text in texts]))
    context, attempts = context_of(models_of(model, output), output), AttemptCounts()
    tokenizer = tokenizer_of(context, attempts)
    actor = ClassifyActor(context, attempts)
    ids = [tokenizer.encoders[0].encode([[text]]).ids.tolist() for text in ("bad", "good text another a")]
    bad = set(ids[0]) - set(ids[1])
    with torch.no_grad():
        actor.passes[0].model.get_input_embeddings().weight[sorted(bad)] = float("nan")
    commit = commit_of(write_task(actor(tokenizer(row)), context, attempts))
    assert (commit.labeled, commit.rejected) == (2, 1)
    assert [reject[:2] for reject in rejects_in(tmp_path / "out", commit)] == [(1, "non_finite_logits")]
    assert [document["text"] for document in labeled(tmp_path / "out")] == [texts[0], texts[2]]
