"""The stages as Ray calls them, one row in and out, called here directly: from files to a commit."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
import torch

from pipeline_ops.actors import ClassifyActor, Failure, TokenizeActor, probe_model, read_task, resolve_dtype, write_row
from pipeline_ops.models import ModelConfig, ModelFacts, resolve_model
from pipeline_ops.reading import Span, spans_to_json
from pipeline_ops.schema import OutputConfig, Range, UserError, pack_rejects
from pipeline_ops.storage import StorageConfig
from pipeline_ops.writing import Commit
from tests.corpora import real_documents, write_bytes, write_jsonl
from tests.unit.reading_path import prepare

STORAGE = StorageConfig()


def facts_of(model: Path) -> ModelFacts:
    return resolve_model(ModelConfig(path=str(model)), STORAGE)[0]


def rows_of(path: Path, unit_bytes: int = 2**20, **options: Any) -> list[pa.Table]:
    """What the read task of `path` yields."""
    files, settings = prepare(path, unit_bytes=unit_bytes, **options)
    task = pa.table({"task": [spans_to_json([Span(file, (Range(0, None),)) for file in files])]})
    return list(read_task(task, settings))


def label(row: pa.Table, model: Path, output: OutputConfig, batch_tokens: int = 512) -> pa.Table:
    config, facts = ModelConfig(path=str(model)), facts_of(model)
    tokenized = TokenizeActor(config, facts, STORAGE, "text", output, batch_tokens)(row)
    classified = ClassifyActor(config, facts, STORAGE, "float32", False)(tokenized)
    return write_row(classified, facts, output, STORAGE, {})


def commit_of(row: pa.Table) -> Commit:
    assert row["failure"][0].as_py() is None
    return Commit.from_json(row["commit"][0].as_py())


def failure_of(row: pa.Table) -> Failure:
    assert row["commit"][0].as_py() is None
    return Failure(**json.loads(row["failure"][0].as_py()))


def labelled(folder: Path) -> list[dict[str, Any]]:
    """The rows of a written output, in input order."""
    table = ds.dataset(folder, partitioning="hive", format="parquet").to_table()
    return sorted(table.to_pylist(), key=lambda row: (row["source_file"], row["source_row"]))


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
        found.append(labelled(tmp_path / f"out-{unit_bytes}"))
    first, second = found
    assert [row["text"] for row in first] == texts
    assert [row["source_row"] for row in first] == list(range(40))
    for left, right in zip(first, second, strict=True):
        assert left.pop("logits") == pytest.approx(right.pop("logits"), abs=1e-5)
        assert left.pop("score") == pytest.approx(right.pop("score"), abs=1e-5)
        assert left == right


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
    (document,) = labelled(tmp_path / "out")
    assert document.keys() - set(output.added_columns().values()) == kept


def test_chain_with_chosen_columns_of_csv_writes_those(tmp_path: Path, model: Path) -> None:
    path = write_bytes(tmp_path / "in" / "a.csv", b"id,other,text\n1,2,a text\n")
    output = OutputConfig(path=str(tmp_path / "out"), columns=("id",))
    (row,) = rows_of(path, columns=("id",))
    commit_of(label(row, model, output))
    (document,) = labelled(tmp_path / "out")
    assert document.keys() - set(output.added_columns().values()) == {"id"}


def test_chain_with_a_model_that_gives_nan_rejects_what_it_touches(tmp_path: Path, model: Path) -> None:
    texts = ["a good text", "a bad text", "another good text"]
    output = OutputConfig(path=str(tmp_path / "out"))
    (row,) = rows_of(write_jsonl(tmp_path / "in" / "a.jsonl", [{"text": text} for text in texts]))
    config, facts = ModelConfig(path=str(model)), facts_of(model)
    tokenizer = TokenizeActor(config, facts, STORAGE, "text", output, 512)
    actor = ClassifyActor(config, facts, STORAGE, "float32", False)
    bad = set(tokenizer.tokenizer("bad")["input_ids"]) - set(tokenizer.tokenizer("good text another a")["input_ids"])
    with torch.no_grad():
        actor.model.get_input_embeddings().weight[sorted(bad)] = float("nan")
    commit = commit_of(write_row(actor(tokenizer(row)), facts, output, STORAGE, {}))
    assert (commit.labeled, commit.rejected) == (2, 1)
    assert commit.rejects_file is not None
    reject = json.loads((tmp_path / "out" / commit.rejects_file.path).read_text())
    assert (reject["source_row"], reject["reason"]) == (1, "non_finite_logits")
    assert [document["text"] for document in labelled(tmp_path / "out")] == [texts[0], texts[2]]


def test_read_failure_is_a_row_that_names_the_file_and_goes_through_the_later_stages(tmp_path: Path, model: Path) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", [{"text": "a"}])
    files, settings = prepare(path)
    write_jsonl(path, [{"text": "a"}, {"text": "another version"}])
    task = pa.table({"task": [spans_to_json([Span(files[0], (Range(0, None),))])]})
    row = list(read_task(task, settings))[-1]
    failure = failure_of(label(row, model, OutputConfig(path=str(tmp_path / "out"))))
    assert (failure.where, failure.by_user) == (str(path), False)
    assert str(path) in failure.message
    assert not (tmp_path / "out").exists()


def test_read_failure_in_a_later_file_names_that_file(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_jsonl(tmp_path / f"{name}.jsonl", [{"text": name}])
    files, settings = prepare(tmp_path)
    (tmp_path / "b.jsonl").unlink()
    task = pa.table({"task": [spans_to_json([Span(file, (Range(0, None),)) for file in files])]})
    failure = failure_of(list(read_task(task, settings))[-1])
    assert str(tmp_path / "b.jsonl") in failure.message


def test_users_mistake_in_a_stage_is_told_from_other_failures(tmp_path: Path) -> None:
    pq.write_table(pa.table({"body": ["a"]}), tmp_path / "a.parquet")
    (row,) = rows_of(tmp_path / "a.parquet")
    failure = failure_of(row)
    assert failure.by_user
    assert "body" in failure.message


def test_write_failure_is_a_row_that_names_the_units_first_file(tmp_path: Path, model: Path) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", [{"text": "a"}])
    (tmp_path / "file").write_text("in the way")
    (row,) = rows_of(path)
    failure = failure_of(label(row, model, OutputConfig(path=str(tmp_path / "file" / "out"))))
    assert (failure.where, failure.by_user) == (str(path), False)


def test_rejects_in_transport_keep_what_the_reader_said(tmp_path: Path) -> None:
    (row,) = rows_of(write_bytes(tmp_path / "a.jsonl", b'{"text": "a"}\nbroken\n'))
    (reject,) = [json.loads(line) for line in row["rejects"][0].as_py().splitlines()]
    assert (reject["source_row"], reject["reason"]) == (1, "broken_json")
    assert pack_rejects([]) == b""


def test_probe_of_a_model_says_the_dtype_and_of_a_bad_one_why(model: Path, model_without_head: Path) -> None:
    config = ModelConfig(path=str(model))
    assert probe_model(config, facts_of(model), STORAGE, "float32", False) == {"dtype": "float32"}
    with pytest.raises(UserError, match="head"):
        probe_model(ModelConfig(path=str(model_without_head)), facts_of(model_without_head), STORAGE, "auto", False)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_dtype_that_is_given_is_taken(dtype: str) -> None:
    assert resolve_dtype(dtype, False) == dtype


def test_dtype_auto_on_cpus_is_bfloat16_or_float32() -> None:
    assert resolve_dtype("auto", False) in ("bfloat16", "float32")
