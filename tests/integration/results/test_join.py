"""`label-corpus join` on real labels: of two models labeled apart, what one job with both gives; and mistakes, in one line."""

import json
from pathlib import Path

import duckdb
import pytest

from jobs.maintenance.verify import verify
from jobs.results.open_output import job_at
from tests.integration.labels.test_several_models import job_of
from tests.models.architectures import make_classifier
from tests.support.corpora import real_documents, write_bytes, write_jsonl
from tests.support.invariant import check_exactly_once
from tests.support.joined_outputs import LabeledOnce, expected_rows, join_here, joined_rows, piece_of
from tests.support.running import Finished, by_key, command, job_settings, keys, make_job, write_job_file
from tests.support.serial_chain import run_serially

TEXTS = [text[:400] for text in real_documents(24, seed=3)]
COLUMNS = (
    "text",
    "year",
    *(f"{name}_{column}" for name in ("quality", "topic") for column in ("label", "num_tokens", "scores")),
)


@pytest.mark.slow
def test_joined_labels_are_those_of_one_job_with_both_models(tmp_path: Path) -> None:
    models = {
        "quality": make_classifier(tmp_path / "models" / "quality", "RoBERTa", ("good", "bad"), 64),
        "topic": make_classifier(tmp_path / "models" / "topic", "BERT", ("art", "law", "maths"), 64, seed=1),
    }
    source = write_jsonl(tmp_path / "in" / "a.jsonl", [{"text": text, "year": row} for row, text in enumerate(TEXTS)])
    broken = write_bytes(
        tmp_path / "in" / "b.jsonl", b'{"text": null}\n{"text": "a", "year": "no year"}\n' + b'{"text": "b"}\n' * 10
    )
    settings = ("output.scores=true", "compute.unit_bytes=3000", "input.column_types={year: int64}")
    for name, path in models.items():
        run_serially(make_job(source.parent, path, tmp_path / name, *settings), quiet=True)
    finished = command("join", tmp_path / "quality", tmp_path / "topic", "--output", tmp_path / "joined")
    assert (finished.code, finished.result["rejected"], finished.result["complete"]) == (0, 1, True)

    run_serially(job_of(source.parent, models, tmp_path / "both", *settings, "output.partition_by=[quality_label]"), quiet=True)
    expected = [*keys(source, len(TEXTS)), *keys(broken, 12)]
    joined, rejects = check_exactly_once(tmp_path / "joined", expected)
    both, _ = check_exactly_once(tmp_path / "both", expected)
    assert by_key(joined, COLUMNS) == by_key(both, COLUMNS)
    assert set(joined.column_names) == set(both.column_names)
    assert [(reject["source_file"], reject["source_row"]) for reject in rejects] == keys(broken, [0])
    report = verify(job_at(str(tmp_path / "joined")), deep=True)
    assert report["ok"], report
    misfit = [*(tmp_path / "joined" / "_misfits").iterdir()]
    assert json.loads(misfit[0].read_text())["value"] == '"no year"'
    query = f"select count(*) from '{tmp_path}/joined/**/*.parquet' where topic_score > 0"
    assert duckdb.connect().execute(query).fetchall() == [(joined.num_rows,)]
    for name in models:
        compared = command("compare", tmp_path / name, tmp_path / "joined", "--model-b", name)
        assert (compared.result["documents"], compared.result["agreed"]) == (joined.num_rows, joined.num_rows)
    assert command("report", tmp_path / "joined").code == 0
    assert command("status", tmp_path / "joined").result["state"] == "complete"
    refused = command(
        "run", write_job_file(tmp_path / "job.yaml", job_settings(source.parent, models["topic"], tmp_path / "joined"))
    )
    assert mistake(refused) == (
        "label-corpus: output.path: holds rows that `label-corpus join` has joined, and continues; give another output.path"
    )


def mistake(finished: Finished) -> str:
    assert (finished.code, len(finished.error_lines)) == (2, 1), finished.stderr
    return finished.error_lines[0]


def test_mistakes_end_with_one_line(tmp_path: Path) -> None:
    a = LabeledOnce(tmp_path / "a", "models/mine", ("good", "bad"))
    b = LabeledOnce(tmp_path / "b", "models/mine", ("x", "y"))
    other = LabeledOnce(tmp_path / "other", "models/other", ("x", "y"))
    x = piece_of("x", 0, 4)
    a.add(x)
    b.add(x)
    other.add(piece_of("y", 0, 4))
    target = ("--output", tmp_path / "c")
    both = (tmp_path / "a", tmp_path / "b")
    assert "give two outputs or more" in mistake(command("join", tmp_path / "a", *target))
    assert "is given twice" in mistake(command("join", tmp_path / "a", tmp_path / "a", *target))
    assert "'nowhere' is neither a job file (.yaml) nor a folder" in mistake(
        command("join", tmp_path / "a", "nowhere", *target)
    )
    assert "two models are named 'mine'; give each a different name, such as --names quality,topic" in mistake(
        command("join", *both, *target)
    )
    assert "--names: 1 given, for 2 models: models/mine of" in mistake(command("join", *both, *target, "--names", "q"))
    assert "--names: 'a b' is no name of a model" in mistake(command("join", *both, *target, "--names", "a b,c"))
    assert "are one inside the other" in mistake(command("join", *both, "--output", tmp_path / "a" / "c", "--names", "q,t"))
    assert "have no input file in common" in mistake(command("join", tmp_path / "a", tmp_path / "other", *target))
    assert not (tmp_path / "c").exists()
    assert "holds labels that a run has written" in mistake(
        command("join", tmp_path / "a", tmp_path / "b", "--output", tmp_path / "other", "--names", "q,t")
    )
    assert command("join", *both, *target, "--names", "q,t").code == 0
    assert command("join", *both, *target).result["documents_joined"] == 0
    assert "with --names q,t; give these" in mistake(command("join", *both, *target, "--names", "q,s"))
    c = LabeledOnce(tmp_path / "b", "models/mine", ("x", "y", "z"))
    assert c.opened().record["fingerprint"] != b.record["fingerprint"]
    assert "holds labels of other settings than" in mistake(command("join", *both, *target))


def test_output_that_is_not_finished_ends_with_exit_1_and_what_it_lacks(tmp_path: Path) -> None:
    a = LabeledOnce(tmp_path / "a", "models/quality", ("good", "bad"))
    b = LabeledOnce(tmp_path / "b", "models/topic", ("x", "y"))
    a.add(piece_of("x", 0, 4), piece_of("y", 0, 3))
    b.add(piece_of("x", 0, 4))
    finished = command("join", tmp_path / "a", tmp_path / "b", "--output", tmp_path / "c")
    assert (finished.code, finished.result["documents"]) == (1, 4)
    assert finished.result["waiting"][str(tmp_path / "b")] == {"files": 1, "rows": 3}
    b.add(piece_of("y", 0, 3))
    finished = command("join", tmp_path / "a", tmp_path / "b", "--output", tmp_path / "c")
    assert (finished.code, finished.result["documents"], finished.result["documents_joined"]) == (0, 7, 3)


@pytest.mark.slow
def test_join_of_much_is_done_on_ray(ray_address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jobs.maintenance.join.IN_PROCESS_BYTES", 0)
    monkeypatch.setattr("pipeline_ops.joining.join_plan.UNIT_ROWS", 7)
    outputs = [
        LabeledOnce(tmp_path / "a", "models/quality", ("good", "bad")),
        LabeledOnce(tmp_path / "b", "models/topic", ("x", "y", "z")),
    ]
    x = piece_of("x", 0, 40)
    for one in outputs:
        one.add(x, reject=[3])
    assert join_here(tmp_path / "c", *outputs)["units"] == 6
    expected = expected_rows([x], [3], labels=(("good", "bad"), ("x", "y", "z")))
    assert joined_rows(tmp_path / "c", "text", "quality_label", "topic_label") == expected
