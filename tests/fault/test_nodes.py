"""A node of a Ray cluster is lost, or taken away with notice, while a job runs on it."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.corpora import real_documents, write_parquet
from tests.fault.conftest import worker_processes
from tests.invariant import check_exactly_once
from tests.running import command, commit_paths, job_settings, keys, start_command, wait_for, write_job_file

TIMEOUT_S = 240


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[tuple[str, psutil.Process]]:
    """The address of a cluster, and the process that all of its processes descend from."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.fault.cluster_of_nodes"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=(tmp_path / "cluster.log").open("w"),
        text=True,
        start_new_session=True,
    )
    assert process.stdout
    address = process.stdout.readline().strip()
    assert address, (tmp_path / "cluster.log").read_text()
    root = psutil.Process(process.pid)
    started = root.children(recursive=True)
    yield address, root
    for child in {*started, *root.children(recursive=True), root}:
        if child.is_running():
            child.kill()
    process.wait()


@pytest.mark.parametrize(
    "number", [signal.SIGKILL, pytest.param(signal.SIGTERM, marks=pytest.mark.campaign)], ids=["lost", "preempted"]
)
def test_node_that_holds_the_model_goes_away_and_the_run_completes_elsewhere(
    nodes: tuple[str, psutil.Process], model: Path, tmp_path: Path, number: signal.Signals
):
    address, root = nodes
    texts = [{"text": text[:300]} for text in real_documents(200, seed=7)]
    source = write_parquet(tmp_path / "in.parquet", texts, row_group_size=4)
    job_file = write_job_file(
        tmp_path / "job.yaml", job_settings(source, model, tmp_path / "out", "compute.unit_bytes=1", "compute.batch_tokens=64")
    )
    process = start_command("run", job_file, "--quiet", ray_address=address)
    try:
        wait_for(lambda: len(commit_paths(tmp_path / "out")) > 1 or process.poll() is not None, "commits", TIMEOUT_S)
        assert process.poll() is None, process.communicate()[1]
        (classifier,) = worker_processes("ClassifyActor", root)
        raylet = classifier.parent()
        assert raylet is not None
        assert raylet.name() == "raylet"
        raylet.send_signal(number)
        stdout, stderr = process.communicate(timeout=TIMEOUT_S)
    finally:
        process.kill()
    assert process.returncode == 0, stderr
    assert '"units_failed": 0' in stdout
    check_exactly_once(tmp_path / "out", keys(source, 200))
    assert command("verify", job_file).code == 0
