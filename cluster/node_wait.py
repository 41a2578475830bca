"""Waiting for nodes that have not joined yet or are in use, with a line now and then, and a limit."""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace

from cluster.periodic import called_every
from cluster.resources import READER_CPUS, WRITER_CPUS, ComputeConfig, Machines, Pools, resolve_pools
from cluster.session import cluster_machines

NODES_JOIN_S = 30  # a cluster that has just been started has its head first
LINE_EVERY_S = 30
POLL_S = 1

Say = Callable[[str], None]


def wait_for_pools(
    compute: ComputeConfig, machines: Machines, token_flops: float | None, tokens_per_core: float, units: int, say: Say
) -> Pools:
    """resolve_pools, once the cluster has the nodes for it.

    On a cluster with an autoscaler it returns at once: what the pools ask for is what makes nodes come.

    Args:
        machines: the cluster as it was found.

    Raises:
        ValueError: the cluster does not have, and within compute.wait_for_nodes does not get, what is asked for.
    """
    patience = _patience(compute, machines)
    if machines.here or patience is None:
        return resolve_pools(compute, replace(machines, grows=not machines.here), token_flops, tokens_per_core, units)
    ends = time.monotonic() + patience
    next_line = time.monotonic()
    while True:
        try:
            return resolve_pools(compute, replace(machines, grows=False), token_flops, tokens_per_core, units)
        except ValueError as error:
            if time.monotonic() >= ends:
                raise ValueError(
                    f"{error} (waited {patience:g} s for nodes; compute.wait_for_nodes: null waits for an autoscaler's)"
                ) from error
            if time.monotonic() >= next_line:
                say(f"waiting up to {patience:g} s for nodes: {error}")
                next_line += LINE_EVERY_S
        time.sleep(POLL_S)
        machines = cluster_machines()


def _patience(compute: ComputeConfig, machines: Machines) -> float | None:
    if compute.wait_for_nodes == "auto":
        return None if machines.grows else NODES_JOIN_S
    return compute.wait_for_nodes


def missing(pools: Pools) -> str | None:
    """What the cluster lacks now for the smallest pools; None: nothing."""
    there = cluster_machines()
    if pools.use_gpu:
        room = there.room(pools.gpus_per_classifier, pools.accelerator_type)
        if room < pools.min_classifiers:
            kind = f"{pools.accelerator_type} " if pools.accelerator_type else ""
            return (
                f"{pools.min_classifiers} classifiers with {pools.gpus_per_classifier:g} {kind}GPUs each,"
                f" the cluster has {there.gpus:g} GPUs now, room for {room}"
            )
    needed = pools.min_classifiers + pools.min_tokenizers + READER_CPUS + WRITER_CPUS
    if there.cpus < needed:
        return f"{needed:g} CPUs for the smallest pools, the cluster has {there.cpus:g} now"
    return None


def why_waiting(pools: Pools) -> str:
    """The reason why no unit has started, in a line."""
    import ray

    lacking = missing(pools)
    if lacking is not None:
        return f"waiting for nodes: {lacking}{_autoscaler_news()}"
    free = ray.available_resources()
    return f"waiting: the cluster has {free.get('CPU', 0):g} CPUs and {free.get('GPU', 0):g} GPUs free at the moment"


def _autoscaler_news() -> str:
    """Nodes that Ray's autoscaler, version 2, is starting; empty where there is none, or no news."""
    import ray
    from ray.autoscaler.v2.sdk import get_cluster_status

    status = get_cluster_status(ray.get_runtime_context().gcs_address)
    news = [f"asked for {launch.count} of {launch.ray_node_type_name}" for launch in status.pending_launches]
    news += [f"{node.ray_node_type_name} is starting" for node in status.pending_nodes]
    news += [
        f"{launch.ray_node_type_name} could not be had: {launch.details or 'no reason given'}"
        for launch in status.failed_launches
    ]
    return f" (autoscaler: {'; '.join(news)})" if news else ""


def warn_about_missing_nodes(pools: Pools, say: Say) -> AbstractContextManager[None]:
    """While the block runs, says every LINE_EVERY_S seconds which nodes the cluster lacks."""

    def warn() -> None:
        lacking = missing(pools)
        if lacking is not None:
            say(f"waiting for nodes: {lacking}{_autoscaler_news()}")

    return called_every(LINE_EVERY_S, warn, "missing-nodes")
