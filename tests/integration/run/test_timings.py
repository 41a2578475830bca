"""`run --timings` on Ray: phases and processes of a Ray that the command starts, and of one that exists."""

from pathlib import Path
from typing import Any

import pytest

from pipeline_ops.output.run_records import read_runs
from pipeline_ops.storage.store import Store
from tests.support.corpora import write_jsonl
from tests.support.invariant import check_exactly_once
from tests.support.running import command_in_own_process, job_settings, keys, write_job_file

pytestmark = pytest.mark.slow
ACTORS = {"ray::TokenizeActor", "ray::ClassifyActor"}


def run_with_timings(model: Path, folder: Path, ray_address: str | None = None) -> tuple[dict[str, Any], str]:
    """The timings in the JSON line of a run, and its stderr."""
    source = write_jsonl(folder / "in.jsonl", [{"text": f"text {number}"} for number in range(30)])
    job = write_job_file(folder / "job.yaml", job_settings(source, model, folder / "out"))
    finished = command_in_own_process("run", job, "--timings", "--no-report", ray_address=ray_address, timeout_s=280)
    assert finished.code == 0, finished.stderr
    check_exactly_once(folder / "out", keys(source, 30))
    return finished.result["timings"], finished.stderr


def test_timings_name_the_processes_of_the_ray_that_a_run_starts(model: Path, tmp_path: Path):
    timings, shown = run_with_timings(model, tmp_path)
    processes = {process["name"]: process for process in timings["processes"]}
    expected = {"driver", "gcs_server", "raylet", *ACTORS}
    assert expected <= processes.keys()
    assert all(name in shown for name in expected)
    for process in processes.values():
        assert 0 <= process["began"] < timings["seconds"]
        assert 0 <= process["cpu_seconds_to_first_commit"] <= process["cpu_seconds"]
    phases = timings["phases"]
    assert [phase["name"] for phase in phases][:4] == ["imports", "reading the job file", "planning", "starting the workers"]
    assert sum(phase["seconds"] for phase in phases) <= timings["seconds"] + 0.05
    before = [phase for phase in phases if phase["began"] < timings["first_commit"]]
    assert sum(phase["cpu_seconds"] for phase in before) == pytest.approx(
        sum(process["cpu_seconds_to_first_commit"] for process in processes.values()), abs=1
    )
    unit = {span["name"]: span for span in timings["first_unit"]}
    in_order = ["tokenize: start of the process", "tokenize: loading", "tokenize", "classify", "write", "commit"]
    began = [unit[name]["began"] for name in in_order]
    assert began == sorted(began)
    assert 0 < began[0] < began[-1] < timings["first_commit"]
    assert unit["classify: start of the process"]["cpu_seconds"] > 0.2, "Ray and the stages are imported in that time"
    (record,) = read_runs(Store(str(tmp_path / "out")), newest=9)
    assert record.timings is not None
    assert record.timings["first_commit"] == timings["first_commit"]


def test_timings_on_a_ray_that_exists_say_what_is_not_counted(ray_address: str, model: Path, tmp_path: Path):
    timings, shown = run_with_timings(model, tmp_path, ray_address)
    assert "a Ray that this command has not started" in shown
    assert not ACTORS & {process["name"] for process in timings["processes"]}
    assert {"tokenize", "classify: loading", "classify"} <= {span["name"] for span in timings["first_unit"]}
