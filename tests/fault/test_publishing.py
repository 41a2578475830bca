"""A table on an object store that fails, and a publisher that stalls until another run has taken over."""

from pathlib import Path
from typing import Any

import deltalake
import pytest

from jobs.label_corpus import labels
from jobs.maintenance.verify import verify
from pipeline_ops.publishing.delta import VERSIONS_PER_CHECKPOINT
from tests.conftest import Bucket
from tests.fault.test_lease import stopped
from tests.servers.s3_proxy import Rule
from tests.support.corpora import real_documents, write_parquet
from tests.support.invariant import check_exactly_once
from tests.support.running import command, job_settings, keys, make_job, start_command, wait_for, write_job_file
from tests.support.serial_chain import run_serially

TIMEOUT_S = 240
LEASE_S = 5
STALL_S = 20  # longer than it takes another run to take over
DOCUMENTS = 24
LOG = r"out/_delta_log/\d+\.json"
CHECKPOINT = r"out/_delta_log/(_last_checkpoint|\d+\.checkpoint\.parquet)"
FAULTS = [
    Rule("status", "PutObject", LOG, times=2),
    Rule("after_status", "PutObject", LOG, skip=1, times=2),
    Rule("after_reset", "PutObject", LOG, skip=2, times=2),
    Rule("reset", "PutObject", LOG, skip=1),
    Rule("flip", "PutObject", LOG, skip=1),
    Rule("status", "GetObject", LOG, times=2, status=503, code="SlowDown"),
    Rule("flip", "GetObject", LOG),
    Rule("short", "GetObject", LOG),
    Rule("reset_mid", "GetObject", LOG),
    Rule("status", "HeadObject", LOG, times=2),
    Rule("reset", "HeadObject", LOG),
    Rule("after_reset", "PutObject", CHECKPOINT),
    Rule("flip", "PutObject", CHECKPOINT),
    Rule("status", "ListObjects", times=2),
]

pytestmark = pytest.mark.slow


def corpus(folder: Path) -> Path:
    return write_parquet(
        folder / "in.parquet", [{"text": text[:200]} for text in real_documents(DOCUMENTS, 6)], row_group_size=2
    )


def opened(s3: Bucket, folder: Path) -> deltalake.DeltaTable:
    """The table as it is now, in a copy."""
    s3.filesystem.get(f"{s3.name}/out", str(folder), recursive=True)
    return deltalake.DeltaTable(str(folder))


def rows(table: deltalake.DeltaTable) -> list[dict[str, Any]]:
    read = table.to_pyarrow_table(columns=["source_row", "label"])
    return read.sort_by("source_row").to_pylist()


def test_faults_of_the_store_leave_no_version_out_and_none_twice(s3: Bucket, model: Path, tmp_path: Path) -> None:
    storage, source = f"storage.endpoint_url={s3.endpoint_url}", corpus(tmp_path)
    often = ("compute.unit_bytes=1", "output.table=delta", "output.publish_seconds=0.000001")
    job = make_job(source, model, f"{s3.url}/out", storage, *often)
    with s3.proxy.faults(*FAULTS, in_a_row=3):
        first = run_serially(job, quiet=True)
        again = run_serially(job, quiet=True)
    assert {rule.kind for rule in FAULTS} <= {*s3.journal.faults()}, s3.journal.faults()
    assert first.complete
    assert first.table == again.table
    table = opened(s3, tmp_path / "copy")
    assert table.version() == first.units - 1 > VERSIONS_PER_CHECKPOINT, "a version for each unit"
    assert [one.name for one in (tmp_path / "copy/_delta_log").glob("*.parquet")] != []
    found = labels(f"{s3.url}/out", "arrow", columns=["source_row", "label"], storage={"endpoint_url": s3.endpoint_url})
    assert rows(table) == found.to_table().sort_by("source_row").to_pylist()
    assert verify(job, deep=True)["ok"]


def test_a_publisher_that_stalls_while_another_run_takes_over_publishes_nothing_more(
    s3: Bucket, model: Path, tmp_path: Path
) -> None:
    """Its version is on its way to the store when it is stopped, and arrives after that of the other run."""
    storage, source = f"storage.endpoint_url={s3.endpoint_url}", corpus(tmp_path)
    often = ("compute.unit_bytes=1", "output.table=delta", "output.publish_seconds=0.000001", f"output.lease_seconds={LEASE_S}")
    settings = job_settings(source, model, f"{s3.url}/out", storage, *often)
    for pool in ("tokenizers", "classifiers"):  # in one process
        del settings["compute"][pool]
    job_file, job = write_job_file(tmp_path / "job.yaml", settings), make_job(source, model, f"{s3.url}/out", storage, *often)
    held = Rule("delay", "PutObject", LOG, skip=2, seconds=STALL_S)
    with s3.proxy.faults(held):
        first = start_command("run", job_file, "--quiet", "--no-report")
        try:
            wait_for(lambda: bool(s3.journal.faults("PutObject", LOG)) or first.poll() is not None, "a version", TIMEOUT_S)
            assert first.poll() is None, first.communicate()[1]
            with stopped(first):
                wait_for(lambda: command("sweep", job_file).code == 0, "the lease to expire", TIMEOUT_S)
                second = run_serially(job, quiet=True)
                assert second.complete
                before = opened(s3, tmp_path / "before")
                assert second.table == {"format": "Delta", "version": before.version()}
            stderr = first.communicate(timeout=2 * TIMEOUT_S)[1]
        finally:
            first.kill()
    assert first.returncode == 3, stderr
    assert "lost" in stderr
    after = opened(s3, tmp_path / "after")
    assert (after.version(), rows(after)) == (before.version(), rows(before))
    assert [row["source_row"] for row in rows(after)] == [*range(DOCUMENTS)]
    assert run_serially(job, quiet=True).complete  # what the first one has written and not committed is deleted
    check_exactly_once(f"{s3.name}/out", keys(source, DOCUMENTS), s3.filesystem)
    assert verify(job)["ok"]
