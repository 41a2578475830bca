"""The stages as Ray calls them, one row in and out, called here directly: from files to a commit."""

import json
import shutil
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
import torch

from cluster.attempts import AttemptCounts
from pipeline_ops.models.config import JobModel, ModelConfig
from pipeline_ops.models.resolve import resolve_model
from pipeline_ops.reading.inputs import InputConfig, InputFile
from pipeline_ops.reading.reader import Attempts, ReadSettings, spans_to_json
from pipeline_ops.schema.arrow_cells import unpack_table
from pipeline_ops.schema.errors import UserError
from pipeline_ops.schema.failures import MAX_TRIES, WORKER_DIED, Failure, fatal_error_of, worker_died
from pipeline_ops.schema.output_columns import OutputConfig
from pipeline_ops.schema.units import Unit, pack_rejects
from pipeline_ops.stages.classifier import ClassifyActor
from pipeline_ops.stages.context import StageContext
from pipeline_ops.stages.reader import read_task
from pipeline_ops.stages.rows import READ, failed_row, has_failed
from pipeline_ops.stages.tokenizer import TokenizeActor
from pipeline_ops.stages.writer import write_task
from pipeline_ops.storage.config import StorageConfig
from pipeline_ops.tokenizing.encoding import truncating_backend
from pipeline_ops.writing.commit_record import ClassifySeconds, Commit
from tests.models.harmful import KNOWN_WORDS, UNEMBEDDED_WORD, UNKNOWN_WORD, with_unembedded_word, with_word_tokenizer
from tests.support.corpora import real_documents, write_bytes, write_jsonl
from tests.support.reading_path import prepare, spans_of

STORAGE = StorageConfig()


def models_of(model: Path, output: OutputConfig, **settings: Any) -> list[JobModel]:
    """The resolved model of a job that has only one."""
    config = ModelConfig(path=str(model), **settings)
    facts, tokenizer, _ = resolve_model(config, STORAGE)
    return [JobModel("", config, facts, truncating_backend(tokenizer, facts.max_length).to_str(), output, dtype="float32")]


def context_of(models: list[JobModel], output: OutputConfig, batch_tokens: int = 512) -> StageContext:
    """What the tokenize, classify and write stages of a job get."""
    config = InputConfig(path="in")
    return StageContext(
        config, STORAGE, output, pa.schema([]), 2**20, "fingerprint", tuple(models), batch_tokens, use_gpu=False
    )


def read_context(settings: ReadSettings) -> StageContext:
    """What the read stage of a job gets."""
    return StageContext(**vars(settings), models=(), batch_tokens=512, use_gpu=False)


def tokenizer_of(context: StageContext, attempts: Attempts) -> TokenizeActor:
    return TokenizeActor(context, attempts, [model.tokenizer_json for model in context.models])


def rows_of(path: Path, unit_bytes: int = 2**20, **options: Any) -> list[pa.Table]:
    """What the read task of `path` yields."""
    return read(*prepare(path, unit_bytes=unit_bytes, **options))


def read(files: list[InputFile], settings: ReadSettings, attempts: Attempts | None = None) -> list[pa.Table]:
    task = pa.table({"task": [spans_to_json(spans_of(files))]})
    return list(read_task(task, read_context(settings), attempts or AttemptCounts()))


def label(
    row: pa.Table,
    model: Path,
    output: OutputConfig,
    batch_tokens: int = 512,
    attempts: Attempts | None = None,
    **settings: Any,
) -> pa.Table:
    context = context_of(models_of(model, output, **settings), output, batch_tokens)
    attempts = attempts or AttemptCounts()
    classified = ClassifyActor(context, attempts)(tokenizer_of(context, attempts)(row))
    return write_task(classified, context, attempts)


def commit_of(row: pa.Table) -> Commit:
    assert row["failure"][0].as_py() is None
    return Commit.from_json(row["commit"][0].as_py())


def failure_of(row: pa.Table) -> Failure:
    assert [name for name in row.column_names if row[name].null_count == 0] == ["failure"]
    return Failure.from_json(row["failure"][0].as_py())


def rejects_in(folder: Path, commit: Commit) -> list[tuple[int, str, str]]:
    """(row, reason, detail) of each reject of a commit, by row."""
    assert commit.rejects_file is not None
    rejects = [json.loads(line) for line in (folder / commit.rejects_file.path).read_text().splitlines()]
    return sorted((reject["source_row"], reject["reason"], reject["detail"]) for reject in rejects)


def labeled(folder: Path) -> list[dict[str, Any]]:
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
    bad = set(tokenizer.encoders[0].backend.encode("bad").ids) - set(
        tokenizer.encoders[0].backend.encode("good text another a").ids
    )
    with torch.no_grad():
        actor.passes[0].model.get_input_embeddings().weight[sorted(bad)] = float("nan")
    commit = commit_of(write_task(actor(tokenizer(row)), context, attempts))
    assert (commit.labeled, commit.rejected) == (2, 1)
    assert [reject[:2] for reject in rejects_in(tmp_path / "out", commit)] == [(1, "non_finite_logits")]
    assert [document["text"] for document in labeled(tmp_path / "out")] == [texts[0], texts[2]]


def test_read_failure_is_a_row_that_names_the_file_and_goes_through_the_later_stages(tmp_path: Path, model: Path) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", [{"text": "a"}])
    files, settings = prepare(path)
    write_jsonl(path, [{"text": "a"}, {"text": "another version"}])
    (row,) = read(files, settings)
    failure = failure_of(label(row, model, OutputConfig(path=str(tmp_path / "out"))))
    assert (failure.where, failure.step, failure.store) == (str(path), "read", False)
    assert str(path) in failure.message
    assert not (tmp_path / "out").exists()


def test_read_failure_between_files_names_that_file_and_leaves_the_others(tmp_path: Path, model: Path) -> None:
    for name in ("a", "b", "c"):
        write_jsonl(tmp_path / "in" / f"{name}.jsonl", [{"text": name}])
    files, settings = prepare(tmp_path / "in")
    (tmp_path / "in" / "b.jsonl").unlink()
    output = OutputConfig(path=str(tmp_path / "out"))
    first, failed, last = [label(row, model, output) for row in read(files, settings)]
    assert str(tmp_path / "in" / "b.jsonl") in failure_of(failed).message
    assert commit_of(first).labeled == commit_of(last).labeled == 1
    assert [row["text"] for row in labeled(tmp_path / "out")] == ["a", "c"]


def test_users_mistake_in_a_stage_is_told_from_other_failures(tmp_path: Path) -> None:
    pq.write_table(pa.table({"body": ["a"]}), tmp_path / "a.parquet")
    (row,) = rows_of(tmp_path / "a.parquet")
    failure = failure_of(row)
    assert failure.error == "UserError"
    assert "body" in failure.message


def test_write_failure_is_a_row_that_names_the_units_first_file(tmp_path: Path, model: Path) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", [{"text": "a"}])
    (tmp_path / "file").write_text("in the way")
    (row,) = rows_of(path)
    failure = failure_of(label(row, model, OutputConfig(path=str(tmp_path / "file" / "out"))))
    assert (failure.where, failure.step, failure.store) == (str(path), "write", False)
    assert failure.pieces == Unit.from_json(row["unit"][0].as_py()).pieces


@pytest.mark.parametrize("columns", ["all", "none"])
def test_documents_that_make_the_tokenizer_raise_are_rejected_alone(tmp_path: Path, model: Path, columns: Any) -> None:
    texts = [" ".join(KNOWN_WORDS[: row % 5 + 1]) for row in range(30)]
    bad = [0, 7, 8, 29]
    for row in bad:
        texts[row] = UNKNOWN_WORD
    lines = [json.dumps({"text": text}) for text in texts]
    lines[3] = "broken"
    path = write_bytes(tmp_path / "in" / "a.jsonl", "\n".join(lines).encode())
    output = OutputConfig(path=str(tmp_path / "out"), columns=columns)
    (row,) = rows_of(path, columns=columns)
    commit = commit_of(label(row, with_word_tokenizer(model, tmp_path / "model"), output))
    rejects = rejects_in(tmp_path / "out", commit)
    assert [reject[:2] for reject in rejects] == sorted([*((row, "tokenizer_error") for row in bad), (3, "broken_json")])
    assert all("UNK" in detail for _, reason, detail in rejects if reason == "tokenizer_error")
    assert [document["source_row"] for document in labeled(tmp_path / "out")] == sorted({*range(30)} - {*bad, 3})
    assert (commit.labeled, commit.rejected) == (25, 5)


@pytest.mark.parametrize("batch_tokens", [1, 10**6])
def test_documents_that_make_the_model_raise_are_rejected_alone(tmp_path: Path, model: Path, batch_tokens: int) -> None:
    texts = [text[:300] for text in real_documents(40)]
    bad = [0, 7, 8, 39]
    for row in bad:
        texts[row] += f" {UNEMBEDDED_WORD}"
        texts[row] = texts[row][-100:]
    (row,) = rows_of(write_jsonl(tmp_path / "in" / "a.jsonl", [{"text": text} for text in texts]))
    output = OutputConfig(path=str(tmp_path / "out"), logits=True)
    commit = commit_of(label(row, with_unembedded_word(model, tmp_path / "model"), output, batch_tokens))
    rejects = rejects_in(tmp_path / "out", commit)
    assert [reject[:2] for reject in rejects] == [(row, "model_error") for row in bad]
    assert all("IndexError: token id" in detail for _, _, detail in rejects)
    found = labeled(tmp_path / "out")
    assert [document["source_row"] for document in found] == sorted({*range(40)} - {*bad})
    assert (commit.labeled, commit.rejected) == (36, 4)
    commit_of(label(row, model, OutputConfig(path=str(tmp_path / "healthy"), logits=True), batch_tokens))
    healthy = {document["source_row"]: document["logits"] for document in labeled(tmp_path / "healthy")}
    assert all(document["logits"] == pytest.approx(healthy[document["source_row"]], abs=1e-5) for document in found)


def test_unit_of_few_documents_that_all_do_harm_commits_their_rejects(tmp_path: Path, model: Path) -> None:
    path = write_jsonl(tmp_path / "in" / "a.jsonl", [{"text": f"{UNKNOWN_WORD} {UNEMBEDDED_WORD}"}] * 3)
    for name, harmful in (("tokenizer", with_word_tokenizer), ("model", with_unembedded_word)):
        (row,) = rows_of(path)
        commit = commit_of(label(row, harmful(model, tmp_path / name), OutputConfig(path=str(tmp_path / f"out-{name}"))))
        assert (commit.labeled, commit.rejected, commit.files) == (0, 3, ())
        assert {reject[1] for reject in rejects_in(tmp_path / f"out-{name}", commit)} == {f"{name}_error"}


def test_unit_of_many_documents_that_all_do_harm_fails_in_that_step(tmp_path: Path, model: Path) -> None:
    """Then it is the tokenizer or the model that is broken, and nothing is committed."""
    path = write_jsonl(tmp_path / "in" / "a.jsonl", [{"text": f"{UNKNOWN_WORD} {UNEMBEDDED_WORD}"}] * 100)
    for step, harmful in (("tokenize", with_word_tokenizer), ("classify", with_unembedded_word)):
        (row,) = rows_of(path)
        failure = failure_of(label(row, harmful(model, tmp_path / step), OutputConfig(path=str(tmp_path / "out"))))
        assert (failure.step, failure.where) == (step, str(path))
        assert failure.pieces == Unit.from_json(row["unit"][0].as_py()).pieces
    assert not (tmp_path / "out").exists()


class Dying(AttemptCounts):
    """Attempts of processes that die each time that they are at work on one step of a unit."""

    def __init__(self, step: str):
        super().__init__()
        self.step = step

    def end(self, key: str) -> None:
        if not key.startswith(self.step):
            super().end(key)


@pytest.mark.parametrize("step", ["tokenize", "classify", "write"])
def test_unit_that_has_killed_its_workers_is_given_up_in_that_step(tmp_path: Path, model: Path, step: str) -> None:
    texts = [{"text": text} for text in ("one", "two", "three")]
    rows = rows_of(write_jsonl(tmp_path / "in" / "a.jsonl", texts), unit_bytes=1)
    output, attempts = OutputConfig(path=str(tmp_path / "out")), Dying(step)
    for _ in range(MAX_TRIES):
        commit_of(label(rows[1], model, output, attempts=attempts))
    written = sorted((tmp_path / "out").rglob("*.parquet"))
    failure = failure_of(label(rows[1], model, output, attempts=attempts))
    assert (failure.error, failure.step, failure.store) == (WORKER_DIED, step, False)
    assert failure.pieces == Unit.from_json(rows[1]["unit"][0].as_py()).pieces
    assert sorted((tmp_path / "out").rglob("*.parquet")) == written, "the stage was not called"
    assert commit_of(label(rows[0], model, output, attempts=attempts)).labeled == 1, "other units are"


def test_unit_that_is_labeled_often_is_never_given_up(tmp_path: Path, model: Path) -> None:
    (row,) = rows_of(write_jsonl(tmp_path / "in" / "a.jsonl", [{"text": "one"}]))
    attempts = AttemptCounts()
    for _ in range(MAX_TRIES + 2):
        commit_of(label(row, model, OutputConfig(path=str(tmp_path / "out")), attempts=attempts))


class Killed(BaseException):
    """Stands for the end of a process."""


def read_until_killed(files: list[InputFile], settings: ReadSettings, attempts: Attempts, deadly: str) -> list[pa.Table]:
    """What a read task gives until the row with the text `deadly`, which ends its process while it is handed over."""
    rows: list[pa.Table] = []
    task = pa.table({"task": [spans_to_json(spans_of(files))]})
    for row in read_task(task, read_context(settings), attempts):
        if not has_failed(row) and deadly in str(unpack_table(row["documents"][0]).to_pylist()):
            raise Killed
        rows.append(row)
    return rows


def test_read_unit_that_is_too_much_to_hand_over_is_given_up_and_later_ones_are_read(tmp_path: Path) -> None:
    """It can be read, so it is no file's reading that dies; without an end to this a job would not end."""
    for name in ("a", "b", "c", "d"):
        write_jsonl(tmp_path / f"{name}.jsonl", [{"text": name * 100}])
    files, settings = prepare(tmp_path, unit_bytes=1)
    attempts, deaths = AttemptCounts(), 0
    rows: list[pa.Table] = []
    while not rows and deaths < 20:
        try:
            rows = read_until_killed(files, settings, attempts, "b" * 100)
        except Killed:
            deaths += 1
    assert deaths <= MAX_TRIES + 1
    failures = [failure_of(row) for row in rows if has_failed(row)]
    assert [(failure.where, failure.error) for failure in failures] == [(str(tmp_path / "b.jsonl"), WORKER_DIED)]
    units = [Unit.from_json(row["unit"][0].as_py()) for row in rows if not has_failed(row)]
    assert [piece.path[-7:] for unit in units for piece in unit.pieces] == ["a.jsonl", "c.jsonl", "d.jsonl"]
    assert len(rows) == 4


def test_rejects_in_transport_keep_what_the_reader_said(tmp_path: Path) -> None:
    (row,) = rows_of(write_bytes(tmp_path / "a.jsonl", b'{"text": "a"}\nbroken\n'))
    (reject,) = [json.loads(line) for line in row["rejects"][0].as_py().splitlines()]
    assert (reject["source_row"], reject["reason"]) == (1, "broken_json")
    assert pack_rejects([]) == b""


def test_model_that_cannot_be_loaded_ends_the_run_and_says_why(tmp_path: Path, model: Path, model_without_head: Path) -> None:
    (row,) = rows_of(write_bytes(tmp_path / "a.jsonl", b'{"text": "a"}\n'))
    output = OutputConfig(path="out")
    (sound,) = models_of(model, output)
    headless = replace(sound, config=ModelConfig(path=str(model_without_head)))
    actor = ClassifyActor(context_of([headless], output), AttemptCounts())
    error = fatal_error_of(failure_of(actor(row)))
    assert isinstance(error, UserError)
    assert "head" in str(error)
    failed = worker_died((), "read")
    assert failure_of(actor(failed_row(READ, failed))) == failed, "what has failed before is that unit's own failure"
    assert fatal_error_of(failed) is None


def test_rows_of_good_and_failed_units_have_one_schema_after_each_stage(tmp_path: Path, model: Path) -> None:
    """Ray may put them into one block, of which a stage is then given slices."""
    models = [
        replace(model, output=OutputConfig(path="out", embedding="mean"))
        for model in models_of(model, OutputConfig(path="out"), long_documents="windows", max_length=16, stride=4)
    ]
    output, attempts = OutputConfig(path=str(tmp_path / "out")), AttemptCounts()
    write_jsonl(tmp_path / "in" / "a.jsonl", [{"text": "a text " * 30}, {"text": "another one"}])
    write_bytes(tmp_path / "in" / "b.jsonl", b'{"text": "a"}\n')
    (tmp_path / "in" / "c.jsonl.gz").write_bytes(b"<html>404</html>")
    read = rows_of(tmp_path / "in", unit_bytes=1)
    context = context_of(models, output)
    tokenize, classify = tokenizer_of(context, attempts), ClassifyActor(context, attempts)
    stages = [tokenize, classify, lambda row: write_task(row, context, attempts)]
    for stage in [lambda row: row, *stages]:
        done = [stage(row) for row in read]
        assert len({str(row.schema) for row in done}) == 1
        assert [has_failed(row) for row in done] == [False, False, False, True]
        block = pa.concat_tables(done).combine_chunks()
        read = [block.slice(number, 1) for number in range(block.num_rows)]
    assert sum(commit_of(row).labeled for row in read[:3]) == 3
    assert "c.jsonl.gz" in failure_of(read[3]).where
