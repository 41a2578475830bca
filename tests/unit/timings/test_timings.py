"""Timings of a run: in its record always, in the JSON line and on stderr with --timings."""

import json
import re
import sys
import time
from collections.abc import Generator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from jobs.console.timings_table import shown_timings
from jobs.timings.timings import FIRST_UNIT, ONE_START, PLANNING, Timings, timings_of_command
from pipeline_ops.output.run_records import read_runs
from pipeline_ops.schema.errors import UserError
from pipeline_ops.schema.time_spans import TimeSpan
from pipeline_ops.storage.store import Store
from tests.support.corpora import write_jsonl
from tests.support.running import command, job_settings, make_job, write_job_file
from tests.support.serial_chain import SerialExecutor, run_serially

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="processes are measured on Linux only")
STAGES = ["read", "tokenize", "classify", "write", "commit"]


def check_phases(timings: dict[str, Any]) -> None:
    """The phases follow each other from the command's start to its end."""
    phases = timings["phases"]
    assert phases[0]["began"] == 0
    assert all(after["began"] == pytest.approx(one["began"] + one["seconds"], abs=0.002) for one, after in pairwise(phases))
    assert sum(phase["seconds"] for phase in phases) == pytest.approx(timings["seconds"], abs=0.01 * len(phases))
    assert sum(phase["driver_cpu_seconds"] for phase in phases) > 0
    if timings["first_commit"] is not None:
        assert timings["first_commit"] in [phase["began"] for phase in phases]


def test_record_of_any_run_says_where_its_time_went(model: Path, tmp_path: Path):
    source = write_jsonl(tmp_path / "in.jsonl", [{"text": f"text {number}"} for number in range(40)])
    result = run_serially(make_job(source, model, tmp_path / "out", "compute.unit_bytes=100"), quiet=True)
    assert (result.units > 1, result.timings) == (True, None), "the JSON line has them with --timings only"
    (record,) = read_runs(Store(str(tmp_path / "out")), newest=9)
    timings = record.timings
    assert timings is not None
    check_phases(timings)
    assert [phase["name"] for phase in timings["phases"]][:1] == [PLANNING]
    assert timings["processes"] is None
    unit = {span["name"]: span for span in timings["first_unit"]}
    assert [name for name in unit if name in STAGES] == STAGES, "in the order of their begin"
    assert {"tokenize: loading", "classify: loading"} <= unit.keys()
    assert [name for name in unit if "start of the process" in name] == [ONE_START], "all are in one"
    assert all(span["seconds"] >= 0 and span["cpu_seconds"] >= 0 for span in unit.values())
    (phase,) = [phase for phase in timings["phases"] if phase["name"] == FIRST_UNIT]
    assert phase["began"] <= unit["read"]["began"] + 0.01
    assert sum(unit[stage]["seconds"] for stage in STAGES) <= phase["seconds"] + 0.01
    assert unit["commit"]["began"] <= timings["first_commit"] <= timings["seconds"]


def test_seconds_of_stages_in_a_commit_are_those_of_the_stages(model: Path, tmp_path: Path):
    source = write_jsonl(tmp_path / "in.jsonl", [{"text": "a text"}])
    run_serially(make_job(source, model, tmp_path / "out"), quiet=True)
    (record,) = (tmp_path / "out" / "_commits").glob("*.json")
    seconds = json.loads(record.read_text())["stage_seconds"]
    assert seconds.keys() == {"read", "tokenize", "write"}
    assert all(0 < value < 60 for value in seconds.values())


class BrokenExecutor(SerialExecutor):
    def stream_units(self, *arguments: Any, **named: Any) -> Generator[dict[str, Any], None, None]:
        yield from super().stream_units(*arguments, **named)
        raise RuntimeError("the machine is gone")


@linux
def test_run_that_fails_shows_its_timings_and_records_them(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    source = write_jsonl(tmp_path / "in.jsonl", [{"text": "a text"}])
    job = make_job(source, model, tmp_path / "out")
    with (
        pytest.raises(RuntimeError, match="the machine is gone"),
        shown_timings(Timings(PLANNING, sampled=True), quiet=False) as timings,
    ):
        run_serially(job, quiet=True, timings=timings, executor=BrokenExecutor())
    shown = capsys.readouterr().err
    assert all(text in shown for text in (PLANNING, FIRST_UNIT, "classify: loading", "first commit", "driver"))
    (record,) = read_runs(Store(str(tmp_path / "out")), newest=9)
    assert record.outcome == "failed"
    assert record.timings is not None
    check_phases(record.timings)


def test_tables_fit_80_columns_and_say_whether_the_stages_are_in_one_process(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr("jobs.console.timings_table.WIDTH", 80)

    def shown(*starts: float) -> str:
        with shown_timings(Timings(PLANNING, sampled=True), quiet=False) as timings:
            timings.begin(FIRST_UNIT)
            stages = ("tokenize", "classify", "write")
            timings.unit_received(
                TimeSpan(f"{stage}: start of the process", timings.began + began, 1, 1).to_dict()
                for stage, began in zip(stages, starts, strict=True)
            )
            timings.unit_committed("labeling")
        return capsys.readouterr().err

    on_ray, alone = shown(1, 2, 3), shown(1, 1, 1)
    assert all(f"  {stage}: start of the process  " in on_ray for stage in ("tokenize", "classify", "write"))
    assert all(text in on_ray for text in ("CPU s, own", "CPU s, all", "in processes of their own"))
    assert "  start of the process that labels  " in alone
    assert not re.search("tokenize: start|in processes of their own|…", alone)
    assert "so do the stages below one of them, in one process" in alone
    assert "the run's own seconds begin with 'planning'" in alone


def test_mistake_of_the_user_keeps_its_one_line(tmp_path: Path):
    finished = command("run", tmp_path / "missing.yaml", "--timings")
    assert (finished.code, len(finished.error_lines)) == (2, 1)


@pytest.fixture
def labeled_job(model: Path, tmp_path: Path) -> Path:
    """The file of a job that is done."""
    settings = job_settings(write_jsonl(tmp_path / "in.jsonl", [{"text": "a text"}]), model, tmp_path / "out")
    run_serially(settings, quiet=True)
    return write_job_file(tmp_path / "job.yaml", settings)


@linux
def test_run_with_nothing_to_do_shows_its_phases(labeled_job: Path):
    finished = command("run", labeled_job, "--timings")
    assert finished.code == 0
    timings = finished.result["timings"]
    check_phases(timings)
    assert [phase["name"] for phase in timings["phases"]] == ["imports", "reading the job file", PLANNING]
    assert (timings["first_commit"], timings["first_unit"]) == (None, [])
    assert [process["cpu_seconds_to_first_commit"] for process in timings["processes"]][:1] == [None]
    assert PLANNING in finished.stderr
    assert "first commit" not in finished.stderr.partition("in all")[0]
    quiet = command("run", labeled_job, "--timings", "--quiet")
    assert (quiet.stderr, quiet.result["timings"]["phases"][0]["name"]) == ("", "imports")
    assert command("run", labeled_job, "--json").result["timings"] is None


def test_timings_among_json_lines_are_an_event(labeled_job: Path):
    finished = command("run", labeled_job, "--timings", "--log-format", "json")
    (event,) = [line for line in map(json.loads, finished.error_lines) if line["event"] == "timings"]
    assert event["phases"] == finished.result["timings"]["phases"]


def test_command_begins_with_its_process():
    timings = timings_of_command(sampled=False)
    assert time.process_time() * 0.1 < timings.elapsed(), "imports took time before this line"
    assert Timings(PLANNING).elapsed() < timings.elapsed()


def test_user_error_inside_is_passed_on_without_a_table(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(UserError), shown_timings(Timings(PLANNING, sampled=True), quiet=False):
        raise UserError("input.path: no files")
    assert capsys.readouterr().err == ""
