"""Nodes of a Ray cluster come, are lost, or are taken away with notice while a job runs on them; GPUs are pretended."""

import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from tests.fault.conftest import worker_processes
from tests.support.corpora import real_documents, write_parquet
from tests.support.invariant import check_exactly_once
from tests.support.ray_nodes import Node, Nodes, ray_nodes
from tests.support.running import commit_paths, job_settings, keys, kill_group, start_command, wait_for, write_job_file

TIMEOUT_S = 240
DOCUMENTS = 400
ON_GPUS = ("compute.gpus_per_classifier=1", "compute.batch_tokens=64", "compute.unit_bytes=2000", "compute.wait_for_nodes=null")


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[Nodes]:
    """A head without CPUs, as clusters should have it."""
    with ray_nodes(tmp_path) as cluster:
        yield cluster


@contextmanager
def run_on(nodes: Nodes, job_file: Path) -> Iterator[subprocess.Popen[str]]:
    """The job, run on pretended GPUs by a driver on the head's machine."""
    process = start_command(
        "run", job_file, ray_address=nodes.address, environment=nodes.environment, module="tests.support.pretended_gpus"
    )
    try:
        yield process
    finally:
        kill_group(process)


def ends_well(process: subprocess.Popen[str]) -> str:
    """What it said on stderr."""
    stdout, stderr = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 0, stderr
    assert '"units_failed": 0' in stdout
    return stderr


def classifiers_on(node: Node) -> list[psutil.Process]:
    return worker_processes("ClassifyActor", psutil.Process(node.process.pid))


def gpu_job(model: Path, folder: Path, *settings: str) -> Path:
    texts = [{"text": text[:600]} for text in real_documents(DOCUMENTS, seed=7)]
    source = write_parquet(folder / "in.parquet", texts, row_group_size=4)
    return write_job_file(folder / "job.yaml", job_settings(source, model, folder / "out", *ON_GPUS, *settings))


def has_commits(process: subprocess.Popen[str], output: Path, count: int) -> None:
    wait_for(lambda: len(commit_paths(output)) >= count or process.poll() is not None, "commits", TIMEOUT_S)
    assert process.poll() is None, process.communicate()[1]


@pytest.mark.campaign
def test_pool_waits_for_its_first_node_grows_to_the_next_and_outlives_the_first(nodes: Nodes, model: Path, tmp_path: Path):
    job_file = gpu_job(model, tmp_path, "compute.classifiers={min: 1, max: 2}", "compute.tokenizers={min: 1, max: 2}")
    with run_on(nodes, job_file) as process:
        time.sleep(20)  # for the run to find nothing, and to say so
        first = nodes.add_node(num_cpus=4, num_gpus=1)
        has_commits(process, tmp_path / "out", 2)
        second = nodes.add_node(num_cpus=4, num_gpus=1)
        wait_for(lambda: bool(classifiers_on(second)) or process.poll() is not None, "a second classifier", TIMEOUT_S)
        assert process.poll() is None, process.communicate()[1]
        assert classifiers_on(first)
        first.kill()
        stderr = ends_well(process)
    assert "the cluster has 0 GPUs now" in stderr, "it says what it waits for"
    check_exactly_once(tmp_path / "out", keys(tmp_path / "in.parquet", DOCUMENTS))


@pytest.mark.parametrize("replaced", [False, True], ids=["not-replaced", "replaced"])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=["lost", "preempted"])
@pytest.mark.campaign
def test_node_that_holds_a_model_goes_away_and_the_run_completes(
    nodes: Nodes, model: Path, tmp_path: Path, number: signal.Signals, replaced: bool
):
    going = nodes.add_node(num_cpus=4, num_gpus=1)
    if not replaced:
        nodes.add_node(num_cpus=4, num_gpus=1)
    job_file = gpu_job(model, tmp_path, f"compute.classifiers={1 if replaced else 2}")
    with run_on(nodes, job_file) as process:
        has_commits(process, tmp_path / "out", 2)
        wait_for(lambda: bool(classifiers_on(going)) or process.poll() is not None, "its classifier", TIMEOUT_S)
        assert process.poll() is None, process.communicate()[1]
        if number == signal.SIGKILL:
            going.kill()
        else:
            going.preempt()
        if replaced:
            nodes.add_node(num_cpus=4, num_gpus=1)
        ends_well(process)
    check_exactly_once(tmp_path / "out", keys(tmp_path / "in.parquet", DOCUMENTS))


@pytest.mark.slow
def test_request_for_more_gpus_than_there_are_ends_in_a_line(nodes: Nodes, model: Path, tmp_path: Path):
    nodes.add_node(num_cpus=4, num_gpus=1)
    job_file = gpu_job(model, tmp_path, "compute.classifiers=3", "compute.wait_for_nodes=5")
    with run_on(nodes, job_file) as process:
        _, stderr = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 2, stderr
    assert "compute.classifiers: 3 of 1 GPUs each, the cluster has 1 GPUs" in stderr.splitlines()[-1]
    assert not (tmp_path / "out").exists()


@pytest.mark.campaign
def test_object_stores_smaller_than_the_input_hold_back_the_readers(nodes: Nodes, model: Path, tmp_path: Path):
    """240 MB of documents on two nodes whose stores hold 75 MB each, less than can be read ahead of the classifiers."""
    texts = [
        {"text": text[:300], "ballast": bytes([row % 256]) * 2**20} for row, text in enumerate(real_documents(240, seed=8))
    ]
    source = write_parquet(tmp_path / "in.parquet", texts, row_group_size=8)
    for _ in range(2):
        nodes.add_node(num_cpus=4, num_gpus=1, store_bytes=75 * 2**20)
    settings = job_settings(source, model, tmp_path / "out", *ON_GPUS, "compute.classifiers=2")
    with run_on(nodes, write_job_file(tmp_path / "job.yaml", settings)) as process:
        ends_well(process)
    check_exactly_once(tmp_path / "out", keys(source, 240))
