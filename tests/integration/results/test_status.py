"""How a job is seen from elsewhere: by its output alone."""

import json
import signal
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from jobs.label_corpus import run
from jobs.maintenance.verify import verify
from jobs.results.status import status
from jobs.results.status_view import status_lines, watch
from pipeline_ops.output.commit_log import read_ledger
from pipeline_ops.output.lease import check_free, hold_lease
from pipeline_ops.schema.errors import UserError
from pipeline_ops.storage.store import Store
from tests.support.corpora import real_documents, write_jsonl
from tests.support.invariant import check_exactly_once
from tests.support.running import (
    COMMAND_TIMEOUT_S,
    command,
    job_settings,
    keys,
    make_job,
    running_command,
    wait_for,
    write_job_file,
)
from tests.support.serial_chain import SerialExecutor, run_serially


def test_status_of_a_finished_job_counts_its_output_and_tells_its_last_run(model: Path, tmp_path: Path) -> None:
    write_jsonl(tmp_path / "in" / "a.jsonl", [{"text": text} for text in real_documents(20)])
    job = make_job(tmp_path / "in", model, tmp_path / "out")
    run_serially(job, quiet=True)
    write_jsonl(tmp_path / "in" / "b.jsonl", [{"text": "one more"}, {"text": None}])
    result = run_serially(job, quiet=True)
    found = command("status", tmp_path / "out").result
    assert (found["state"], found["documents"], found["rejected"], found["labels"]) == ("complete", 22, 1, result.labels)
    assert (found["run"]["documents"], found["run"]["rejected"], found["holder"]) == (2, 1, None)
    write_jsonl(tmp_path / "in" / "c.jsonl", [{"text": "and another"}])
    (tmp_path / "in" / "d.parquet").write_bytes(b"no Parquet")
    run_serially(job, quiet=True)
    found = status(Store(str(tmp_path / "out")))
    assert (found["state"], found["units_failed"], found["documents"]) == ("incomplete", 1, 23)
    said = command("status", tmp_path / "out").stderr
    (line,) = [line for line in said.splitlines() if line.startswith("quarantined: ")]
    assert line.count("d.parquet") == 1
    assert "OSError" not in line
    assert "`run --retry-failed`" in said
    said = command("report", tmp_path / "out").stderr
    assert "report written (all 22 labeled documents; not all of the input is labeled)" in said


def test_status_is_complete_once_the_file_that_failed_is_gone(model: Path, tmp_path: Path) -> None:
    write_jsonl(tmp_path / "in" / "a.jsonl", [{"text": text} for text in real_documents(20)])
    bad = tmp_path / "in" / "d.parquet"
    bad.write_bytes(b"no Parquet")
    job = make_job(tmp_path / "in", model, tmp_path / "out")
    assert not run_serially(job, quiet=True).complete
    bad.unlink()
    report = verify(job, quiet=True)
    assert (report["ok"], report["failed"]) == (True, [])
    assert run_serially(job, quiet=True).complete
    found = status(Store(str(tmp_path / "out")))
    assert (found["state"], found["failed"], found["documents"]) == ("complete", [], 20)


def test_status_is_complete_once_a_share_of_rejects_is_accepted(model: Path, tmp_path: Path) -> None:
    write_jsonl(tmp_path / "in" / "a.jsonl", [*({"text": text} for text in real_documents(20)), *[{"text": None}] * 30])
    states = []
    for share in (0.5, 0.5, 0.9, 0.9):
        result = run_serially(make_job(tmp_path / "in", model, tmp_path / "out", f"input.max_reject_share={share}"), quiet=True)
        found = status(Store(str(tmp_path / "out")))
        states.append((found["state"], result.complete, len([*(tmp_path / "out" / "_runs").iterdir()])))
    assert states == [("incomplete", False, 1), ("incomplete", False, 1), ("complete", True, 2), ("complete", True, 2)]


def test_status_while_another_run_starts_calls_the_numbers_of_the_last_one_so(model: Path, tmp_path: Path) -> None:
    write_jsonl(tmp_path / "in" / "a.jsonl", [{"text": text} for text in real_documents(20)])
    job = make_job(tmp_path / "in", model, tmp_path / "out")
    run_serially(job, quiet=True)
    store = Store(str(tmp_path / "out"))
    finished = command("status", tmp_path / "out")
    assert "last run: 20 documents" in finished.stderr
    assert "20 documents: 20 labeled, 0 rejected; 1 unit" in finished.stderr
    with hold_lease(store, 60, check_free(store), read_ledger(store)):
        starting = command("status", tmp_path / "out")
    assert (starting.result["state"], starting.result["run"]) == ("starting", None)
    assert starting.result["previous_run"]["documents"] == 20
    assert "previous run: 20 documents" in starting.stderr
    assert "last run" not in starting.stderr


def test_status_of_a_running_job_has_one_set_of_numbers(model: Path, tmp_path: Path) -> None:
    """Its record is 20 seconds old at times; what is counted are the commits."""
    write_jsonl(tmp_path / "in" / "a.jsonl", [{"text": text} for text in real_documents(5)])
    job = make_job(tmp_path / "in", model, tmp_path / "out")
    run_serially(job, quiet=True)
    write_jsonl(tmp_path / "in" / "b.jsonl", [{"text": text} for text in real_documents(30)])
    job = make_job(tmp_path / "in", model, tmp_path / "out", "compute.unit_bytes=1000")
    looks: list[dict[str, Any]] = []

    class Watched(SerialExecutor):
        """Looks after each unit, before the next is read."""

        def stream_units(self, *arguments: Any, **options: Any) -> Generator[dict[str, Any], None, None]:
            for row in super().stream_units(*arguments, **options):
                yield row
                looks.append(status(Store(str(tmp_path / "out"))))

    result = run(job, quiet=True, report=False, executor=Watched())
    assert len(looks) == result.units - 1 > 3
    assert {look["state"] for look in looks} == {"running"}
    assert [look["run"]["units"] for look in looks] == list(range(1, result.units))
    assert all(look["documents"] == 5 + look["run"]["documents"] for look in looks)
    assert f"{looks[-1]['documents']} of about" in status_lines(looks[-1])[1]


@pytest.mark.parametrize("last", ["complete", KeyboardInterrupt])
def test_status_is_watched_until_the_run_ends_or_a_person_leaves(monkeypatch: pytest.MonkeyPatch, last: object) -> None:
    run = {
        "state": "starting",
        "documents": 0,
        "labeled": 0,
        "rejected": 0,
        "units": 0,
        "units_failed": 0,
        "failed": [],
        "labels": {},
    }
    found = {**run, "run": None, "previous_run": None, "parts": {}, "holder": "host", "output": "out"}
    states = ["starting", "running", last, "running"]
    monkeypatch.setattr("jobs.results.status_view.WATCH_SECONDS", 0)

    def look() -> dict[str, Any]:
        state = states.pop(0)
        if state is KeyboardInterrupt:
            raise KeyboardInterrupt
        return {**found, "state": state}

    assert watch(look, quiet=True)["state"] == ("running" if last is KeyboardInterrupt else "complete")
    assert states == ["running"]


def test_status_of_what_nobody_has_labeled_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no labels"):
        status(Store(str(tmp_path)))


@pytest.mark.fault
@pytest.mark.slow
def test_status_of_a_job_follows_it_while_it_runs_and_when_it_is_killed(model: Path, tmp_path: Path) -> None:
    """A run in another process: it starts, it runs, it is gone without a word; the next one completes it."""
    source = write_jsonl(tmp_path / "in.jsonl", [{"text": text} for text in real_documents(800)])
    output = tmp_path / "out"
    settings = job_settings(source, model, output, "compute.unit_bytes=8000", "compute.batch_tokens=128")
    job_file = write_job_file(tmp_path / "job.yaml", settings)
    seen: list[str] = []

    def state() -> str:
        try:
            seen.append(status(Store(str(output)))["state"])
        except UserError:  # nothing there yet
            return ""
        return seen[-1]

    with running_command("run", job_file, "--quiet") as process:
        wait_for(lambda: state() == "running", "the run is seen to run", COMMAND_TIMEOUT_S)
        found = command("status", output).result
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert set(seen) <= {"starting", "running"}
    assert found["run"]["units_planned"] > 0
    assert found["holder"]
    assert state() == "killed"
    finished = command("run", job_file, "--quiet")
    assert finished.code == 0, finished.stderr
    assert state() == "complete"
    check_exactly_once(output, keys(source, 800))
    outcomes = [json.loads(path.read_text())["outcome"] for path in sorted((output / "_runs").iterdir())]
    assert outcomes == ["running", "complete"], "the killed run's record stays as it left it"
