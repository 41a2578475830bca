"""What planning costs by the number of inputs and commits: requests and memory. Seconds: tests/planning_run.py, by hand."""

import tracemalloc
from collections import Counter
from pathlib import Path

import pytest

from jobs.config import JobConfig
from jobs.run.commit_writer import needs_writing
from jobs.run.job_record import job_record
from jobs.run.prepare import prepare
from pipeline_ops.output.commit_log import COMMITS_FOLDER, Ledger, commit_unit, read_ledger, write_job, write_pack
from pipeline_ops.output.failed_units import FAILED_FOLDER
from pipeline_ops.output.lease import LEASE_FOLDER
from pipeline_ops.publishing.publisher import Publisher
from pipeline_ops.storage.paths import join
from tests.conftest import Bucket
from tests.performance.planning_run import commit_of, input_line, input_path
from tests.support.running import make_job

KEPT_BYTES = 2_500  # of memory per commit; measured: 1,600 to 1,750
PEAK_BYTES = 4_000  # measured: 1,850 with a pack; 2,800 else, for RECORDS_PER_READ of them are held before they are parsed


def make_finished(folder: str, model: Path, number_of_files: int, layout: str, *overrides: str) -> JobConfig:
    """A job of that many input files, each of which has a commit."""
    config = make_job(join(folder, "input"), model, join(folder, "output"), *overrides)
    config.input_store.put_many({input_path(number): input_line(number) for number in range(number_of_files)})
    prepared = prepare(config)
    job = prepared.job
    commits = {commit.unit: commit for commit in map(commit_of, prepared.files)}
    write_job(job.output_store, job_record(prepared, ["float32"], "run"))
    job.output_store.put_many({file.path: b"" for commit in commits.values() for file in commit.files})
    if layout == "packed":
        write_pack(job.output_store, Ledger(commits), 1)
    else:
        ledger = Ledger()
        assert all(commit_unit(job.output_store, ledger, commit) for commit in commits.values())
    return config


def requests_of_planning(s3: Bucket, model: Path, number_of_files: int, layout: str) -> Counter[str]:
    """Requests by operation, and the folder where an object is asked for."""
    job = make_finished(
        f"{s3.url}/{layout}-{number_of_files}", model, number_of_files, layout, f"storage.endpoint_url={s3.endpoint_url}"
    )
    s3.journal.clear()
    prepared = prepare(job)
    assert prepared.plan.files_done == prepared.plan.units_done == number_of_files
    return Counter(f"{request.operation} {'/'.join(request.key.split('/')[1:-1])}" for request in s3.journal.requests())


def test_planning_over_a_pack_makes_as_many_requests_for_few_commits_as_for_many(s3: Bucket, model: Path) -> None:
    few, many = (requests_of_planning(s3, model, number_of_files, "packed") for number_of_files in (3, 60))
    assert few == many
    assert many[f"GetObject output/{COMMITS_FOLDER}"] == 1
    # input, output (for parts of a split job), commits, and the folders of failures and of leases, which are not there: s3fs
    # looks twice
    assert sum(count for what, count in many.items() if what.startswith("ListObjects")) == 7
    assert {what for what in many if what.startswith("GetObject")} == {f"GetObject output/{COMMITS_FOLDER}", "GetObject output"}
    assert {what for what in many if what.startswith("HeadObject")} <= {
        "HeadObject output",  # _job.json, and the folders that are not there
        f"HeadObject output/{FAILED_FOLDER}",
        f"HeadObject output/{LEASE_FOLDER}",
    }


def test_planning_over_records_that_stand_alone_reads_each_once(s3: Bucket, model: Path) -> None:
    few, many = (requests_of_planning(s3, model, number_of_files, "loose") for number_of_files in (3, 60))
    assert many - few == {f"GetObject output/{COMMITS_FOLDER}": 57}


def test_run_of_a_finished_job_lists_its_output_once_more_and_reads_nothing(s3: Bucket, model: Path) -> None:
    job = make_finished(f"{s3.url}/finished", model, 60, "packed", f"storage.endpoint_url={s3.endpoint_url}")
    prepared = prepare(job)
    s3.journal.clear()
    assert not needs_writing(prepared, Publisher(job.output_store, job.output, prepared.ledger, "run"))
    # for garbage, and for the record of the last run, which these outputs have not
    assert {request.operation for request in s3.journal.requests()} <= {"ListObjects", "HeadObject"}


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["packed", "loose"])
def test_read_ledger_takes_a_few_kilobytes_per_commit(tmp_path: Path, model: Path, layout: str) -> None:
    number_of_files = 400
    job = make_finished(str(tmp_path), model, number_of_files, layout)
    read_ledger(job.output_store)  # what is imported or cached once is not counted
    tracemalloc.start()
    ledger = read_ledger(job.output_store)
    kept, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(ledger.commits) == number_of_files
    assert kept / number_of_files < KEPT_BYTES
    assert peak / number_of_files < PEAK_BYTES
