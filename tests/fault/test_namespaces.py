"""Nodes that share nothing but a network with the head: each in a network namespace; one is cut off while it works."""

import os
from pathlib import Path

import pytest

from tests.fault.conftest import worker_processes
from tests.fault.test_nodes import ON_GPUS, TIMEOUT_S, classifiers_on, ends_well, run_on
from tests.servers.network_namespaces import network_namespaces
from tests.servers.s3_proxy import FaultProxy
from tests.servers.s3_server import S3Server
from tests.support.corpora import real_documents, write_parquet
from tests.support.invariant import check_exactly_once
from tests.support.ray_nodes import ray_nodes
from tests.support.running import job_settings, keys, wait_for, write_job_file

DOCUMENTS = 400


@pytest.mark.campaign
@pytest.mark.timeout(2 * TIMEOUT_S)
def test_node_whose_network_is_cut_loses_nothing_and_doubles_nothing(s3_server: S3Server, model: Path, tmp_path: Path):
    """Its processes live on, and may have labeled files still to put: they do not reach the store, nor the driver them."""
    filesystem = s3_server.filesystem()
    with (
        network_namespaces(2) as network,
        FaultProxy(s3_server.endpoint_url, host=network.host) as store,
        ray_nodes(tmp_path, host=network.host, token="of-these-nodes") as nodes,
    ):
        nodes.environment["NO_PROXY"] = f"{os.environ['NO_PROXY']},{network.host}"
        bucket = "namespaces"
        filesystem.mkdir(bucket)
        texts = [{"text": text[:600]} for text in real_documents(DOCUMENTS, seed=9)]
        source = write_parquet(tmp_path / "in" / "in.parquet", texts, row_group_size=4)
        filesystem.put(str(source), f"{bucket}/in/in.parquet")
        filesystem.put(str(model), f"{bucket}/model", recursive=True)
        settings = job_settings(
            f"s3://{bucket}/in",
            f"s3://{bucket}/model",
            f"s3://{bucket}/out",
            *ON_GPUS,
            "compute.classifiers=2",
            f"storage.endpoint_url={store.endpoint_url}",
            f"storage.cache_folder={tmp_path / 'cache'}",
        )
        machines = [
            nodes.add_node(num_cpus=4, num_gpus=1, machine=(machine.namespace, machine.address)) for machine in network.machines
        ]
        with run_on(nodes, write_job_file(tmp_path / "job.yaml", settings)) as process:

            def works_on_both() -> bool:
                commits = filesystem.glob(f"{bucket}/out/_commits/*")
                return len(commits) >= 2 and all(classifiers_on(machine) for machine in machines)

            wait_for(lambda: works_on_both() or process.poll() is not None, "commits, and a classifier on each", TIMEOUT_S)
            assert process.poll() is None, process.communicate()[1]
            (cut, other), port = network.machines, nodes.port
            assert cut.reaches(network.host, port)
            cut.cut_off()
            assert [machine.reaches(network.host, port) for machine in (cut, other)] == [False, True]
            assert worker_processes("ClassifyActor", machines[0].raylet()), "they live on"
            ends_well(process)
        check_exactly_once(f"{bucket}/out", keys(f"s3://{bucket}/in/in.parquet", DOCUMENTS), filesystem)
