"""The benchmark's stages that only take their time."""

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pytest

from cluster.attempts import AttemptCounts
from jobs.benchmark.many_classifiers import jobs_for, many_in_one
from jobs.benchmark.scaling import sleep_seconds
from jobs.benchmark.sleeping_stages import SleepingStages
from pipeline_ops.reading.spans import spans_to_json
from pipeline_ops.schema.output_columns import OutputConfig
from pipeline_ops.stages.writer import write_task
from pipeline_ops.writing.commit_record import Commit
from tests.support.corpora import write_jsonl
from tests.support.reading_path import prepare, spans_of
from tests.support.stage_rows import context_of, models_of, read_context, rows_of, tokenizer_of

SECONDS = 0.01


def write_five(folder: Path) -> Path:
    return write_jsonl(folder / "a.jsonl", [{"text": f"text {number}"} for number in range(5)])


def test_sleeping_classifier_labels_every_document_between_the_jobs_own_stages(tmp_path: Path, model: Path) -> None:
    (row,) = rows_of(write_five(tmp_path / "in"))
    output, attempts = OutputConfig(path=str(tmp_path / "out")), AttemptCounts()
    context = context_of(models_of(model, output), output)
    tokenized = tokenizer_of(context, attempts)(row)
    classified = SleepingStages(SECONDS, unit_documents=5).classify_actor()(context, attempts)(tokenized)
    written = write_task(classified, context, attempts).to_pylist()[0]
    assert written["failure"] is None
    commit = Commit.from_json(written["commit"])
    assert (commit.labels, commit.rejected) == ({"NEGATIVE": 3, "POSITIVE": 2}, 0)
    assert commit.classify_seconds.computing == SECONDS
    assert commit.padded_tokens > 0


def test_sleeping_stages_move_the_bytes_of_a_full_unit(tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    files, settings = prepare(write_five(tmp_path / "in"))
    output, attempts = OutputConfig(path=str(tmp_path / "out")), AttemptCounts()
    models, stages = models_of(model, output), SleepingStages(SECONDS, moved_bytes=10_000, unit_documents=5)
    context = context_of(models, output)
    task = pa.table({"task": [spans_to_json(spans_of(files))]})
    (read,) = stages.read()(task, context=read_context(settings), attempts=attempts)
    tokenized = stages.tokenize_actor()(context, attempts, [one.tokenizer for one in models])(read)
    classified = stages.classify_actor()(context, attempts)(tokenized)
    sizes = [row["documents"][0].as_buffer().size for row in (read, tokenized, classified)]
    assert sizes == [sizes[0], sizes[0] + 12_000, sizes[0]]
    assert sizes[0] > 10_000
    written = stages.write()(classified, context=context, attempts=attempts).to_pylist()[0]
    assert Commit.from_json(written["commit"]).labels == {"NEGATIVE": 3, "POSITIVE": 2}


def test_more_classifiers_on_the_same_cores_sleep_longer() -> None:
    assert [sleep_seconds(actors, 64) for actors in (1, 16)] == [1.0, 1.0]
    assert 1.0 < sleep_seconds(16, 2) < sleep_seconds(64, 2)


def test_one_process_answers_for_several_classifiers_at_a_time(tmp_path: Path, model: Path) -> None:
    """No more than two of three calls sleep at a time; each gives the labels of its documents."""
    paths = [write_jsonl(tmp_path / name / "a.jsonl", [{"text": "a"}, {"text": "b"}]) for name in ("x", "y", "z")]
    units = [row for path in paths for row in rows_of(path)]
    output, attempts = OutputConfig(path=str(tmp_path / "out")), AttemptCounts()
    context = context_of(models_of(model, output), output)
    tokenize = tokenizer_of(context, attempts)
    tokenized = [tokenize(row) for row in units]
    executor = many_in_one(SleepingStages(0.2, unit_documents=2).executor(), 2)
    actor = executor.classify_actor(context=context, attempts=attempts)
    began = time.monotonic()
    with ThreadPoolExecutor(3) as threads:
        rows = [one.to_pylist()[0] for one in threads.map(actor, tokenized)]
    assert time.monotonic() - began >= 0.4
    assert executor.classifiers_per_process == 2
    assert [row["logits_0"] for row in rows] == [rows[0]["logits_0"]] * 3


def test_number_of_jobs_for_many_gpus_grows_with_the_units() -> None:
    assert [jobs_for(gpus, 0.31) for gpus in (8, 100, 1024)] == [1, 1, 10]
    assert jobs_for(1024, 1.24) > 2 * jobs_for(1024, 0.31)
