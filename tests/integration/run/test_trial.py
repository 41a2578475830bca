"""`run --limit N`: the first N documents into an output of their own."""

import json
import shutil
from pathlib import Path

import pyarrow as pa
import pytest

from jobs.config import JobConfig
from jobs.console.run_summary import run_lines
from jobs.maintenance.verify import print_report, verify
from jobs.results.open_output import find_labeled
from pipeline_ops.schema.errors import UserError
from tests.integration.conftest import FinishedJob
from tests.support.corpora import real_documents, write_jsonl, write_parquet
from tests.support.invariant import Key, check_exactly_once
from tests.support.running import command, keys, make_job, snapshot
from tests.support.serial_chain import run_serially

TEXTS = real_documents(60, seed=3)


@pytest.fixture
def job(model: Path, tmp_path: Path) -> JobConfig:
    write_parquet(tmp_path / "in" / "a.parquet", pa.table({"text": TEXTS[:20]}), row_group_size=6)
    write_jsonl(tmp_path / "in" / "b.jsonl.gz", [{"text": text} for text in TEXTS[20:40]])
    write_jsonl(tmp_path / "in" / "c.jsonl", [{"text": None}, *({"text": text} for text in TEXTS[40:])])
    return make_job(tmp_path / "in", model, tmp_path / "out", "compute.unit_bytes=2000")


def first(folder: Path, count: int) -> list[Key]:
    """The keys of the first documents of the corpus above."""
    source = folder / "in"
    return [*keys(source / "a.parquet", 20), *keys(source / "b.jsonl.gz", 20), *keys(source / "c.jsonl", 21)][:count]


def job_of_trial(job: JobConfig) -> JobConfig:
    output = job.output.model_copy(update={"path": f"{job.output.path}-trial"})
    return job.model_copy(update={"output": output})


@pytest.mark.parametrize("limit", [1, 15, 20, 33, 45, 61, 1000])
def test_trial_labels_exactly_the_first_documents_and_verify_finds_it_complete(job: JobConfig, tmp_path: Path, limit: int):
    result = run_serially(job, quiet=True, limit=limit)
    check_exactly_once(tmp_path / "out-trial", first(tmp_path, limit))
    assert result.complete
    assert (result.documents, result.limit, result.output) == (min(limit, 61), limit, str(tmp_path / "out-trial"))
    assert result.to_dict()["trial"] is True
    assert not (tmp_path / "out").exists()
    report = verify(job_of_trial(job), deep=True)
    assert report["ok"], report
    assert (report["limit"], report["documents"]) == (limit, min(limit, 61))


def test_trial_beside_an_output_leaves_it_as_it_is_and_gives_its_labels(job: JobConfig, tmp_path: Path):
    whole = run_serially(job, quiet=True)
    before = snapshot(tmp_path / "out")
    run_serially(job, quiet=True, limit=33)
    assert snapshot(tmp_path / "out") == before
    labels = rows_of(tmp_path / "out", first(tmp_path, 61))
    for key, (label, score) in rows_of(tmp_path / "out-trial", first(tmp_path, 33)).items():
        assert (label, score) == (labels[key][0], pytest.approx(labels[key][1], abs=1e-5)), "in other batches, by rounding"
    assert (whole.limit, whole.to_dict()["trial"]) == (None, False)


def test_repeated_trial_changes_nothing_and_a_larger_one_labels_the_rest_of_it(job: JobConfig, tmp_path: Path):
    run_serially(job, quiet=True, limit=33)
    before = snapshot(tmp_path / "out-trial")
    again = run_serially(job, quiet=True, limit=33)
    assert (again.documents, again.documents_run) == (33, 0)
    assert snapshot(tmp_path / "out-trial") == before
    larger = run_serially(job, quiet=True, limit=50)
    assert (larger.documents, larger.documents_run) == (50, 17)
    check_exactly_once(tmp_path / "out-trial", first(tmp_path, 50))
    assert verify(job_of_trial(job))["ok"]


@pytest.mark.parametrize("change", ["fewer documents", "other settings", "another first file", "a changed file"])
def test_trial_of_anything_else_replaces_the_one_before(job: JobConfig, model: Path, tmp_path: Path, change: str):
    run_serially(job, quiet=True, limit=45)
    (tmp_path / "out-trial" / "_report").mkdir()
    (tmp_path / "out-trial" / "_report" / "evaluation.json").write_text("{}")
    notes = tmp_path / "out-trial" / "_notes.txt"  # not the program's
    notes.write_text("keep me")
    expected, limit = first(tmp_path, 45), 45
    if change == "fewer documents":
        expected, limit = first(tmp_path, 33), 33
    elif change == "other settings":
        job = make_job(tmp_path / "in", model, tmp_path / "out", "model.max_length=16", "output.scores=true")
    elif change == "another first file":
        new = write_jsonl(tmp_path / "in" / "0.jsonl", [{"text": text} for text in TEXTS[:5]])
        expected = [*keys(new, 5), *first(tmp_path, 40)]
    else:
        write_jsonl(tmp_path / "in" / "b.jsonl.gz", [{"text": text} for text in TEXTS[20:30]])
        expected = [*first(tmp_path, 30), *keys(tmp_path / "in" / "c.jsonl", 15)]
    result = run_serially(job, quiet=True, limit=limit)
    check_exactly_once(tmp_path / "out-trial", expected)
    assert (result.complete, result.documents_run) == (True, len(expected))
    assert not (tmp_path / "out-trial" / "_report").exists() or not list((tmp_path / "out-trial" / "_report").iterdir())
    assert notes.read_text() == "keep me"
    report = verify(job_of_trial(job), deep=True)
    assert report["ok"], report


def test_trial_replaces_nothing_that_is_no_trial_and_a_run_continues_none(job: JobConfig, tmp_path: Path):
    run_serially(job, quiet=True)
    shutil.move(tmp_path / "out", tmp_path / "out-trial")
    before = snapshot(tmp_path / "out-trial")
    with pytest.raises(UserError, match="out-trial', where a trial would go, holds labels that are no trial's; rename"):
        run_serially(job, quiet=True, limit=5)
    assert snapshot(tmp_path / "out-trial") == before
    shutil.rmtree(tmp_path / "out-trial")
    run_serially(job, quiet=True, limit=5)
    before = snapshot(tmp_path / "out-trial")
    with pytest.raises(UserError, match="out-trial' holds a trial"):
        run_serially(job_of_trial(job), quiet=True)
    assert snapshot(tmp_path / "out-trial") == before


def test_trial_whose_lost_rows_verify_finds(job: JobConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    run_serially(job, quiet=True, limit=45)
    victim = next(path for path in (tmp_path / "out-trial" / "_commits").iterdir() if "c.jsonl" in path.read_text())
    (piece,) = json.loads(victim.read_text())["pieces"]
    assert (piece["start_row"], piece["stop_row"], piece["last"]) == (0, 5, False)
    victim.unlink()
    report = verify(job_of_trial(job))
    assert report["missing"] == [f"{tmp_path}/in/c.jsonl: not labeled yet (rows 0 to 4); `run` labels them"]
    print_report(report)
    assert capsys.readouterr().err.splitlines()[:2] == [
        "a trial: checked against the first 45 documents of the input",
        f"{tmp_path}/in/c.jsonl: not labeled yet (rows 0 to 4); `run` labels them",
    ]


def test_job_that_has_had_a_trial_only_says_where_its_labels_are(job: JobConfig, tmp_path: Path):
    (tmp_path / "out").mkdir()
    with pytest.raises(UserError, match=r"holds no labels.*give the folder of another output$"):
        find_labeled(str(tmp_path / "out"))
    run_serially(job, quiet=True, limit=5)
    with pytest.raises(UserError, match=r"holds no labels.*; a trial's labels are in '.*out-trial'$"):
        find_labeled(str(tmp_path / "out"))


def test_trial_needs_a_folder_in_a_bucket_and_a_document(job: JobConfig, tmp_path: Path):
    bucket = job.model_copy(update={"output": job.output.model_copy(update={"path": "s3://bucket/"})})
    with pytest.raises(UserError, match=r"output\.path: 's3://bucket' is a whole bucket"):
        run_serially(bucket, quiet=True, limit=5)
    with pytest.raises(UserError, match="limit: 0 documents; give 1 or more"):
        run_serially(job, quiet=True, limit=0)


def test_trial_ends_for_a_person_with_where_it_is_and_what_is_next(job: JobConfig, tmp_path: Path):
    lines = run_lines(run_serially(job, quiet=True, limit=33, report=True), "job.yaml model.max_length=64")
    assert lines[0] == f"trial: 33 documents, 33 labeled, in {tmp_path}/out-trial"
    page = f"{tmp_path}/out-trial/_report/report.html"
    assert lines[-1] == f"look at {page}; label the whole: label-corpus run job.yaml model.max_length=64"


@pytest.mark.slow
def test_trial_by_the_command_on_ray_labels_the_first_documents_once(finished_job: FinishedJob, tmp_path: Path):
    output = tmp_path / "out"
    finished = command("run", finished_job.job_file, "--limit", 75, f"output.path={output}")
    assert finished.code == 0, finished.stderr
    check_exactly_once(f"{output}-trial", finished_job.expected[:75])
    result = finished.result
    assert (result["trial"], result["limit"], result["documents"]) == (True, 75, 75)
    assert Path(result["report"]).read_text()
    assert not output.exists()
    again = command("run", finished_job.job_file, "--limit", 75, f"output.path={output}")
    assert (again.code, again.result["documents_run"]) == (0, 0)
    assert "nothing to do: the trial's documents are labeled" in again.stderr


def rows_of(output: Path, expected: list[Key]) -> dict[Key, tuple[str, float]]:
    """{(source file, row): (label, score)} of the labeled rows."""
    rows = check_exactly_once(output, expected)[0].to_pylist()
    return {(row["source_file"], row["source_row"]): (row["label"], row["score"]) for row in rows}
