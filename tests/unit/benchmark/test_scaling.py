"""The benchmark's classifier that only takes its time, between the job's own stages."""

from pathlib import Path

from cluster.attempts import AttemptCounts
from jobs.benchmark.scaling import sleep_seconds, sleeping_classifier
from pipeline_ops.schema.output_columns import OutputConfig
from pipeline_ops.stages.writer import write_task
from pipeline_ops.writing.commit_record import Commit
from tests.support.corpora import write_jsonl
from tests.unit.stages.test_stages import context_of, models_of, rows_of, tokenizer_of

SECONDS = 0.01


def test_sleeping_classifier_labels_every_document_between_the_jobs_own_stages(tmp_path: Path, model: Path) -> None:
    (row,) = rows_of(write_jsonl(tmp_path / "in" / "a.jsonl", [{"text": f"text {number}"} for number in range(5)]))
    output, attempts = OutputConfig(path=str(tmp_path / "out")), AttemptCounts()
    context = context_of(models_of(model, output), output)
    tokenized = tokenizer_of(context, attempts)(row)
    classified = sleeping_classifier(SECONDS)(context, attempts)(tokenized)
    written = write_task(classified, context, attempts).to_pylist()[0]
    assert written["failure"] is None
    commit = Commit.from_json(written["commit"])
    assert (commit.labels, commit.rejected) == ({"NEGATIVE": 3, "POSITIVE": 2}, 0)
    assert commit.classify_seconds.computing == SECONDS
    assert commit.padded_tokens > 0


def test_more_classifiers_on_the_same_cores_sleep_longer() -> None:
    assert [sleep_seconds(actors, 64) for actors in (1, 16)] == [1.0, 1.0]
    assert 1.0 < sleep_seconds(16, 2) < sleep_seconds(64, 2)
