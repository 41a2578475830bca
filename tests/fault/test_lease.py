"""Two runs on one output: one of them works, the other says why it does not; nothing is committed by who has lost."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from subprocess import Popen

import pytest

from jobs.maintenance.verify import verify
from pipeline_ops.output.commit_log import read_ledger
from pipeline_ops.output.lease import acquire
from pipeline_ops.storage.store import Store
from tests.conftest import Bucket
from tests.servers.s3_proxy import Rule
from tests.support.corpora import real_documents, write_parquet
from tests.support.invariant import check_exactly_once
from tests.support.running import command, job_settings, keys, make_job, snapshot, start_command, wait_for, write_job_file
from tests.support.serial_chain import run_serially

TIMEOUT_S = 180
LEASE_S = 20  # in which the second run has to be refused, on a busy machine as well


@contextmanager
def stopped(process: Popen[str]) -> Iterator[None]:
    """The process does nothing while the block runs, as on a machine that hangs."""
    process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        process.send_signal(signal.SIGCONT)


def test_run_beside_another_exits_3_names_the_holder_and_writes_nothing(model: Path, tmp_path: Path):
    source, output = write_parquet(tmp_path / "in.parquet", [{"text": "one"}]), tmp_path / "out"
    job_file = write_job_file(tmp_path / "job.yaml", job_settings(source, model, output))
    held = acquire(Store(str(output)), LEASE_S, None)
    before = snapshot(output)
    refused = command("run", job_file, "--quiet")
    assert (refused.code, refused.stdout, len(refused.error_lines)) == (3, "", 1), refused.stderr
    assert f"process {os.getpid()}" in refused.stderr
    assert snapshot(output) == before
    held.release()


@pytest.mark.parametrize(
    "where", [pytest.param("local", marks=pytest.mark.campaign), pytest.param("s3", marks=pytest.mark.slow)]
)
def test_second_run_exits_3_and_names_the_holder_and_a_stalled_holder_commits_nothing_more(
    ray_address: str, model: Path, tmp_path: Path, s3: Bucket, where: str
):
    source = write_parquet(
        tmp_path / "in.parquet", [{"text": text[:300]} for text in real_documents(80, seed=6)], row_group_size=2
    )
    target = f"{s3.url}/out" if where == "s3" else str(tmp_path / "out")
    filesystem, output = (s3.filesystem, f"{s3.name}/out") if where == "s3" else (None, target)
    storage = f"storage.endpoint_url={s3.endpoint_url}"
    settings = job_settings(source, model, target, "compute.unit_bytes=1", f"output.lease_seconds={LEASE_S}", storage)
    job_file = write_job_file(tmp_path / "job.yaml", settings)

    job = make_job(source, model, target, storage)

    def committed() -> set[str]:
        return {commit.name for commit in read_ledger(Store(target, job.storage)).current.values()}

    # a run of some length, also where nothing slows it down
    with s3.proxy.faults(Rule("delay", "PutObject", "out/_commits/.*", times=None, seconds=0.3)):
        first = start_command("run", job_file, "--quiet", ray_address=ray_address)
        try:
            wait_for(lambda: len(committed()) > 1 or first.poll() is not None, "two commits", TIMEOUT_S)
            assert first.poll() is None, first.communicate()[1]
            with stopped(first):
                second = command("run", job_file, "--quiet")
                assert (second.code, second.stdout, len(second.error_lines)) == (3, "", 1), second.stderr
                assert f"process {first.pid}" in second.stderr
                assert "since 20" in second.stderr
                wait_for(lambda: command("sweep", job_file).code == 0, "the lease to expire", TIMEOUT_S)
                between = committed()
            stderr = first.communicate(timeout=TIMEOUT_S)[1]
        finally:
            first.kill()
    assert first.returncode == 3, stderr
    assert "lost" in stderr
    assert committed() == between, "nothing that was committed after the lease was lost counts"

    assert run_serially(job, quiet=True).complete
    check_exactly_once(output, keys(source, 80), filesystem)
    assert verify(job)["ok"]


@pytest.mark.slow
def test_run_after_a_killed_one_on_the_same_machine_does_not_wait_for_the_expiry(ray_address: str, model: Path, tmp_path: Path):
    source = write_parquet(tmp_path / "in.parquet", [{"text": "one"}, {"text": "two"}], row_group_size=1)
    job_file = write_job_file(tmp_path / "job.yaml", job_settings(source, model, tmp_path / "out", "output.lease_seconds=3600"))
    first = start_command("run", job_file, "--quiet", ray_address=ray_address)
    try:
        wait_for(lambda: bool(list((tmp_path / "out").glob("_lease/*.json"))), "the lease", TIMEOUT_S)
    finally:
        os.kill(first.pid, signal.SIGKILL)
        first.communicate()
    second = command("run", job_file, "--quiet")
    assert second.code == 0, second.stderr
    check_exactly_once(tmp_path / "out", keys(source, 2))
