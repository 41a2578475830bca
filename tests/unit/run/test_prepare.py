"""Everything that can be known before a run: mistakes are found, nothing is written."""

import json
import shutil
import socket
from pathlib import Path
from typing import Any

import pytest

from cluster.resources import Machines
from jobs.config import JobConfig, check_config, override
from jobs.console.plan_table import plan_lines
from jobs.run.fingerprint import check_same_job, fingerprint, result_settings
from jobs.run.job_record import job_record
from jobs.run.plan import plan
from jobs.run.prepare import Prepared, prepare
from pipeline_ops.models.config import with_dtypes
from pipeline_ops.output.commit_log import commit_unit, write_job
from pipeline_ops.output.failed_units import quarantine
from pipeline_ops.output.labeled_output import open_labeled
from pipeline_ops.output.run_records import RunRecord, write_run
from pipeline_ops.schema.errors import UserError
from pipeline_ops.schema.failures import failure_of
from pipeline_ops.schema.units import END_OF_FILE, Piece
from pipeline_ops.storage.store import Store
from pipeline_ops.writing.commit_record import Commit
from tests.support.corpora import write_bytes, write_csv, write_jsonl, write_parquet

ROWS = [{"id": row, "text": f"text {row}", "year": 2000 + row % 3} for row in range(30)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Holds a small corpus in `in`; `out` does not exist."""
    write_jsonl(tmp_path / "in" / "a.jsonl", ROWS)
    return tmp_path


def job_of(folder: Path, model: Path, *settings: str) -> JobConfig:
    config: dict[str, Any] = {
        "input": {"path": str(folder / "in")},
        "model": {"path": str(model)},
        "output": {"path": str(folder / "out")},
    }
    for setting in settings:
        override(config, setting)
    return check_config(JobConfig, config)


def test_output_that_a_link_puts_inside_the_input_is_refused(folder: Path, model: Path) -> None:
    (folder / "link").symlink_to(folder / "in")
    with pytest.raises(UserError, match=r"output\.path: .*link/out' is inside the input .*: labels would become input"):
        prepare(job_of(folder, model, f"output.path={folder}/link/out"))


def record(prepared: Prepared, dtype: str = "float32") -> None:
    """Leaves the output as a run that committed nothing yet would."""
    write_job(Store(prepared.job.output.path), job_record(prepared, [dtype], "run"))


def commit_all(prepared: Prepared) -> None:
    for index, file in enumerate(prepared.files):
        piece = Piece(file.path, file.stored.identity, 0, 30, True, 0, file.stored.size)
        commit = Commit(f"{index:024}", "0" * 12, (piece,), (), None, 30, 0, 90, 99, 0, {"POSITIVE": 30})
        assert commit_unit(Store(prepared.job.output.path), prepared.ledger, commit)


def mistake(job: JobConfig) -> str:
    with pytest.raises(UserError) as caught:
        prepare(job)
    assert "\n" not in str(caught.value)
    assert not Path(job.output.path).exists()
    return str(caught.value)


def test_plan_of_a_new_job_says_what_would_run_and_writes_nothing(folder: Path, model: Path) -> None:
    summary = plan(job_of(folder, model), Machines(cpus=8, cores=4, gpus=0))
    assert (summary["files"], summary["files_done"], summary["files_to_run"]) == (1, 0, 1)
    assert summary["bytes"] == summary["bytes_to_run"] == (folder / "in" / "a.jsonl").stat().st_size
    assert (summary["units_to_run"], summary["documents_done"]) == (1, 0)
    assert summary["output"] == str(folder / "out")
    assert summary["settings"]["model.max_length"] == {"value": 128, "from": "the model's limit"}
    assert summary["settings"]["compute.tokenizers"]["value"] == "1 to 4", "a unit, and a model that computes next to nothing"
    assert summary["settings"]["compute.classifiers"]["value"] == "1 to 3"
    assert not (folder / "out").exists()


def test_plan_says_how_many_documents_which_labels_and_how_long(folder: Path, model: Path) -> None:
    summary = plan(job_of(folder, model), Machines(cpus=8, cores=4, gpus=0))
    work = summary["work"]
    assert (work["documents"], work["counted"], work["sampled"]) == (30, True, 30)
    assert work["tokens"] == pytest.approx(30 * 5, abs=60)
    assert 0 < work["startup_seconds"] <= work["seconds"] < 60
    shown = "\n".join(plan_lines(summary))
    assert "to label: 30 documents of " in shown
    assert "labels: NEGATIVE, POSITIVE" in shown
    assert "time: about 25 s on this machine, start-up of 25 s included; by the model's FLOPs" in shown
    assert "1 file, " in shown
    assert "about 1 unit ->" in shown


@pytest.mark.parametrize(("limit", "what"), [(None, "run"), (10, "trial")])
def test_plan_takes_the_speed_of_an_earlier_run_or_a_trial(folder: Path, model: Path, limit: int | None, what: str) -> None:
    prepared = prepare(job_of(folder, model), limit=limit)
    record(prepared)
    result = {"tokens_run": 10, "startup_seconds": 40.0, "finish_seconds": 2.0, "classify_seconds": {"computing": 10.0}}
    run = RunRecord("run", 1, "2026-11-28T10:00:00Z", "", socket.gethostname(), 1, 0, 0, result=result)
    write_run(prepared.job.output_store, run)
    machines = Machines(cpus=8, cores=4, gpus=0)
    summary = plan(job_of(folder, model), machines)
    assert summary["work"]["seconds"] == pytest.approx(42 + summary["work"]["tokens"], abs=0.1), "one unit, one token a second"
    assert f"at the speed of the {what} of 2026-11-28" in "\n".join(plan_lines(summary))
    if limit is not None:
        other = plan(job_of(folder, model, "model.max_length=20"), machines)
        assert "FLOPs" in other["work"]["source"], "the trial was of other settings of the model"


@pytest.mark.parametrize(("setting", "gpus"), [("model.dtype=float16", 0), ("compute.classifiers=auto", 1)])
def test_plan_says_why_it_does_not_know_how_long(folder: Path, model: Path, setting: str, gpus: int) -> None:
    summary = plan(job_of(folder, model, setting), Machines(cpus=16, cores=16, gpus=gpus))
    assert summary["work"]["seconds"] is None
    assert "time: not known: the speed " in "\n".join(plan_lines(summary))


def test_plan_for_gpus_leaves_to_them_what_they_decide(folder: Path, model: Path) -> None:
    machines = Machines(cpus=16, cores=16, gpus=1)
    settings = plan(job_of(folder, model, "model.dtype=auto"), machines)["settings"]
    for key in ("compute.batch_tokens", "model.dtype"):
        assert settings[key]["value"] == "decided by the GPU"
    given = plan(job_of(folder, model, "compute.batch_tokens=77"), machines)["settings"]
    assert given["compute.batch_tokens"] == {"value": 77, "from": "job file"}


def test_plan_of_a_finished_job_has_nothing_to_run(folder: Path, model: Path) -> None:
    prepared = prepare(job_of(folder, model))
    record(prepared)
    commit_all(prepared)
    summary = plan(job_of(folder, model))
    assert (summary["files_done"], summary["files_to_run"], summary["units_to_run"], summary["bytes_to_run"]) == (1, 0, 0, 0)
    assert summary["documents_done"] == 30


def test_plan_says_which_settings_are_the_job_files(folder: Path, model: Path) -> None:
    settings = plan(job_of(folder, model, "model.max_length=64", "compute.batch_tokens=77", "model.dtype=float32"))["settings"]
    assert settings["model.max_length"] == {"value": 64, "from": "job file"}
    assert settings["compute.batch_tokens"] == {"value": 77, "from": "job file"}
    assert settings["model.dtype"] == {"value": "float32", "from": "job file"}


def test_plan_names_files_that_changed_went_or_are_passed_over(folder: Path, model: Path) -> None:
    for name in ("b", "c"):
        write_jsonl(folder / "in" / f"{name}.jsonl", ROWS)
    prepared = prepare(job_of(folder, model))
    record(prepared)
    commit_all(prepared)
    write_jsonl(folder / "in" / "a.jsonl", ROWS[:5])
    (folder / "in" / "b.jsonl").unlink()
    write_bytes(folder / "in" / "notes.md", b"x")
    summary = plan(job_of(folder, model))
    assert (summary["files_changed"], summary["files_removed"], summary["files_passed_over"]) == (1, 1, 1)
    assert summary["files_to_run"] == 1
    assert summary["removed"] == [str(folder / "in" / "b.jsonl")]
    (line,) = [line for line in plan_lines(summary) if "removed" in line]
    assert line.startswith("removed from the input: ")
    assert "b.jsonl, whose labels stay in the output" in line


def test_plan_of_a_job_with_failed_files_leaves_them_alone_until_they_change_or_are_retried(folder: Path, model: Path) -> None:
    for name in ("b", "c"):
        write_jsonl(folder / "in" / f"{name}.jsonl", ROWS)
    job = job_of(folder, model)
    prepared = prepare(job)
    record(prepared)
    for file in prepared.files:
        piece = Piece(file.path, file.stored.identity, 0, END_OF_FILE, True, 0, END_OF_FILE)
        quarantine(Store(str(folder / "out")), failure_of(OSError("broken"), (piece,), "read"), "run")
    summary = plan(job)
    assert (summary["units_failed"], summary["units_to_run"], summary["files_done"]) == (3, 0, 0)
    assert any(line.startswith("to run: nothing") for line in plan_lines(summary))

    write_jsonl(folder / "in" / "a.jsonl", ROWS[:5])
    (folder / "in" / "b.jsonl").unlink()
    changed = prepare(job)
    assert [span.file.path for task in changed.plan.tasks for span in task] == [str(folder / "in" / "a.jsonl")]
    assert [failure.where for failure in changed.failures] == [str(folder / "in" / "c.jsonl")]
    assert len(changed.outdated_failures) == 2

    retried = prepare(job, retry_failed=True)
    assert [span.file.path[-7:] for task in retried.plan.tasks for span in task] == ["a.jsonl", "c.jsonl"]
    assert (retried.failures, len(retried.outdated_failures)) == ([], 3)


def test_plan_with_removed_files_that_are_to_be_dropped_says_so(folder: Path, model: Path) -> None:
    write_jsonl(folder / "in" / "b.jsonl", ROWS)
    prepared = prepare(job_of(folder, model))
    record(prepared)
    commit_all(prepared)
    (folder / "in" / "b.jsonl").unlink()
    kept, dropped = prepare(job_of(folder, model)), prepare(job_of(folder, model, "output.drop_removed=true"))
    assert (kept.plan.stale, kept.plan.units_done) == ({}, 2)
    assert (list(dropped.plan.stale.values()), dropped.plan.units_done) == ([(str(folder / "in" / "b.jsonl"),)], 1)
    assert plan(job_of(folder, model, "output.drop_removed=true"))["drop_removed"]


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        (["input.path=/nowhere/at/all"], ["input.path", "/nowhere/at/all"]),
        (["input.text_column=body"], ["input.text_column", "body", "'id'", "'text'", "'year'"]),
        (["output.score_column=year"], ["output.score_column", "year"]),
        (["model.max_length=4096"], ["model.max_length", "4096"]),
        (["model.path=/nowhere/model"], ["model.path", "/nowhere/model"]),
        (["output.columns=[id]", "output.partition_by=[label, yaer]"], ["output.partition_by", "yaer"]),
        (["compute.classifiers=1000"], ["compute", "1000"]),
    ],
)
def test_mistake_is_found_before_anything_is_written(folder: Path, model: Path, settings: list[str], named: list[str]) -> None:
    with pytest.raises(UserError) as caught:
        plan(job_of(folder, model, *settings), Machines(cpus=8, cores=4, gpus=0))
    assert all(word in str(caught.value) for word in named)
    assert "\n" not in str(caught.value)
    assert not (folder / "out").exists()


def test_partition_column_that_no_input_has_is_a_users_mistake(folder: Path, model: Path) -> None:
    assert "yaer" in mistake(job_of(folder, model, "output.partition_by=[label, yaer]"))


@pytest.mark.parametrize("write", [write_csv, write_parquet])
def test_missing_columns_of_csv_and_parquet_are_named(folder: Path, model: Path, write) -> None:
    name = "a.csv" if write is write_csv else "a.parquet"
    write(folder / "other" / name, ROWS)
    job = job_of(folder, model, f"input.path={folder / 'other'}", "input.text_column=body")
    assert "body" in mistake(job)
    job = job_of(folder, model, f"input.path={folder / 'other'}", "output.columns=[id, nothing]")
    assert "nothing" in mistake(job)


def test_input_column_that_labeling_adds_is_named_with_its_key(folder: Path, model: Path) -> None:
    write_jsonl(folder / "in" / "a.jsonl", [{"text": "a", "label": "x"}])
    assert "output.label_name" in mistake(job_of(folder, model))
    assert prepare(job_of(folder, model, "output.label_name=class")).files
    assert prepare(job_of(folder, model, "output.columns=none")).files


def test_parquet_text_that_is_no_text_is_a_users_mistake(folder: Path, model: Path) -> None:
    write_parquet(folder / "other" / "a.parquet", ROWS)
    text = mistake(job_of(folder, model, f"input.path={folder / 'other'}", "input.text_column=year"))
    assert "input.text_column" in text
    assert "int64" in text


@pytest.mark.parametrize(
    ("source", "target"),
    [("in", "in"), ("in", "in/out"), ("in/*.jsonl", "in/out"), ("out/in", "out"), ("in/a.jsonl", "in/a.jsonl")],
)
def test_output_and_input_inside_each_other_are_a_users_mistake(folder: Path, model: Path, source: str, target: str) -> None:
    write_jsonl(folder / "out" / "in" / "a.jsonl", ROWS)
    with pytest.raises(UserError, match=r"inside|same"):
        prepare(job_of(folder, model, f"input.path={folder / source}", f"output.path={folder / target}"))


def test_labels_into_a_models_folder_are_refused(folder: Path, model: Path) -> None:
    target = shutil.copytree(model, folder / "other-model")
    with pytest.raises(UserError, match=r"output.path: .*other-model' holds a model \(config.json, model.safetensors\)"):
        prepare(job_of(folder, model, f"output.path={target}"))


def test_output_beside_the_input_with_a_longer_name_is_fine(folder: Path, model: Path) -> None:
    assert prepare(job_of(folder, model, f"output.path={folder}/in-labels")).files


@pytest.mark.parametrize("data", [b"", b"\n\n"])
def test_input_without_any_document_can_be_planned(folder: Path, model: Path, data: bytes) -> None:
    write_bytes(folder / "in" / "a.jsonl", data)
    assert len(prepare(job_of(folder, model)).plan.tasks) == 1


@pytest.mark.parametrize(
    ("setting", "key"),
    [
        ("model.max_length=64", "model.max_length"),
        ("model.dtype=bfloat16", "model.dtype"),
        ("input.text_column=other", "input.text_column"),
        ("input.min_characters=3", "input.min_characters"),
        ("output.scores=true", "output.scores"),
        ("output.partition_by=[]", "output.partition_by"),
    ],
)
def test_other_settings_into_the_same_output_are_refused_by_key(folder: Path, model: Path, setting: str, key: str) -> None:
    write_jsonl(folder / "in" / "a.jsonl", [{**row, "other": "x"} for row in ROWS])
    record(prepare(job_of(folder, model)))
    with pytest.raises(UserError, match=r"output\.path") as caught:
        prepare(job_of(folder, model, setting))
    assert key in str(caught.value)


@pytest.mark.parametrize(
    "setting", ["compute.batch_tokens=99", "compute.unit_bytes=1000", "model.max_length=128", "model.dtype=float32"]
)
def test_settings_that_change_no_result_go_on_in_the_same_output(folder: Path, model: Path, setting: str) -> None:
    record(prepare(job_of(folder, model, "model.dtype=float32")))
    assert prepare(job_of(folder, model, "model.dtype=float32", setting)).record is not None


def test_same_settings_are_the_same_job_and_fingerprint(folder: Path, model: Path) -> None:
    prepared = prepare(job_of(folder, model))
    settings = result_settings(prepared.job, with_dtypes(prepared.models, ["float32"]))
    check_same_job({"settings": settings}, dict(reversed(settings.items())))
    assert fingerprint(settings) == fingerprint(dict(reversed(settings.items())))
    assert fingerprint(settings) != fingerprint({**settings, "model.max_length": 64})


@pytest.mark.parametrize("asked", ["bfloat16", "auto"])
def test_labels_of_heads_in_bfloat16_are_not_continued_by_those_of_heads_in_float32(
    folder: Path, model: Path, asked: str
) -> None:
    prepared = prepare(job_of(folder, model, f"model.dtype={asked}"))
    settings = result_settings(prepared.job, with_dtypes(prepared.models, ["bfloat16"]))
    check_same_job({"settings": settings}, settings)
    said = r"model\.dtype \(was 'bfloat16', is 'bfloat16, head float32'\); an earlier version.*; give another output\.path"
    with pytest.raises(UserError, match=said):
        check_same_job({"settings": {**settings, "model.dtype": "bfloat16"}}, settings)


def test_settings_of_csv_that_came_later_leave_the_fingerprint_of_a_job_without_them(folder: Path, model: Path) -> None:
    def settings(*overrides: str) -> dict[str, Any]:
        prepared = prepare(job_of(folder, model, *overrides))
        return result_settings(prepared.job, with_dtypes(prepared.models, ["float32"]))

    assert not {"input.header", "input.escape"} & settings().keys()
    assert settings("input.header=true") == settings()
    with pytest.raises(UserError, match=r"input\.escape \(was None"):
        check_same_job({"settings": settings()}, settings("input.escape=\\"))


def test_job_record_can_be_told_apart_from_a_job_with_other_weights(folder: Path, model: Path, tmp_path: Path) -> None:
    prepared = prepare(job_of(folder, model))
    record(prepared)
    weights = result_settings(prepared.job, with_dtypes(prepared.models, ["float32"]))
    with pytest.raises(UserError, match=r"model\.weights"):
        check_same_job({"settings": weights}, {**weights, "model.weights": "sha256:other"})


def test_new_json_columns_in_a_later_run_keep_the_recorded_types(folder: Path, model: Path) -> None:
    """A column's type must not depend on which files a run happens to sample."""
    write_jsonl(folder / "in" / "a.jsonl", [{"text": "a", "value": 1.5}])
    record(prepare(job_of(folder, model)))
    write_jsonl(folder / "in" / "a.jsonl", [{"text": "a", "value": 1, "new": "x"}])
    types = prepare(job_of(folder, model)).column_types
    assert str(types.field("value").type) == "double"
    assert str(types.field("new").type) == "string"


def test_output_of_a_job_with_the_earlier_key_of_the_labels_name_is_continued(folder: Path, model: Path) -> None:
    prepared = prepare(job_of(folder, model, "output.label_column=class"))
    record(prepared)
    commit_all(prepared)
    written = json.loads((folder / "out" / "_job.json").read_text())
    assert written["settings"]["output.label_column"] == "class", "as it was: units have ids by the settings"
    written["config"]["output"]["label_column"] = written["config"]["output"].pop("label_name")
    written["models"][""]["output"]["label_column"] = written["models"][""]["output"].pop("label_name")
    (folder / "out" / "_job.json").write_text(json.dumps(written))
    assert plan(job_of(folder, model, "output.label_name=class"))["files_to_run"] == 0
    assert open_labeled(prepared.job.output_store).columns.label_name == "class"
    with pytest.raises(UserError, match=r"output\.label_name \(was 'class', is 'label'\)"):
        prepare(job_of(folder, model))
