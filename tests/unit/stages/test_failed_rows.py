"""Failures of files, documents and units on their way through the stages."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cluster.attempts import AttemptCounts
from pipeline_ops.inputs.input_files import InputFile
from pipeline_ops.models.config import ModelConfig
from pipeline_ops.reading.spans import ReadSettings, spans_to_json
from pipeline_ops.schema.arrow_cells import unpack_table
from pipeline_ops.schema.errors import UserError
from pipeline_ops.schema.failures import MAX_TRIES, WORKER_DIED, Attempts, fatal_error_of, worker_died
from pipeline_ops.schema.output_columns import OutputConfig
from pipeline_ops.schema.units import Unit, pack_rejects
from pipeline_ops.stages.classifier import ClassifyActor
from pipeline_ops.stages.reader import read_task
from pipeline_ops.stages.rows import READ, failed_row, has_failed
from pipeline_ops.stages.writer import write_task
from tests.models.harmful import KNOWN_WORDS, UNEMBEDDED_WORD, UNKNOWN_WORD, with_unembedded_word, with_word_tokenizer
from tests.support.corpora import real_documents, write_bytes, write_jsonl
from tests.support.reading_path import prepare, spans_of
from tests.support.stage_rows import (
    commit_of,
    context_of,
    failure_of,
    label,
    labeled,
    models_of,
    read,
    read_context,
    rejects_in,
    rows_of,
    tokenizer_of,
)


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
