"""How a job is seen from elsewhere: by its output alone."""

import json
import signal
import time
from pathlib import Path

import pytest

from jobs.results.status import status
from pipeline_ops.schema.errors import UserError
from pipeline_ops.storage.store import Store
from tests.support.corpora import real_documents, write_jsonl
from tests.support.invariant import check_exactly_once
from tests.support.running import command, job_settings, keys, make_job, running_command, wait_for, write_job_file
from tests.support.serial_chain import run_serially


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


def test_status_of_what_nobody_has_labeled_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no labels"):
        status(Store(str(tmp_path)))


@pytest.mark.fault
@pytest.mark.slow
def test_status_of_a_job_follows_it_while_it_runs_and_when_it_is_killed(model: Path, tmp_path: Path) -> None:
    """A run in another process: it starts, it runs, it is gone without a word; the next one completes it."""
    source = write_jsonl(tmp_path / "in.jsonl", [{"text": text} for text in real_documents(2000)])
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
        wait_for(lambda: state() == "running", "the run is seen to run", 100)
        time.sleep(1)
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
    check_exactly_once(output, keys(source, 2000))
    outcomes = [json.loads(path.read_text())["outcome"] for path in sorted((output / "_runs").iterdir())]
    assert outcomes == ["running", "complete"], "the killed run's record stays as it left it"
