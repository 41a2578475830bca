"""Ray clusters of several nodes on this machine: each node is a `ray start --block` process, as on machines of their own."""

import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import psutil

from tests.support import REPOSITORY
from tests.support.running import wait_for

START_TIMEOUT_S = 120
STARTS = 3  # Ray gives a node 30 s, which a busy machine can need twice
PORTS = range(20_000, 32_000)  # Linux chooses above them, where a port of 0 is asked for: each Ray worker does
STORE_BYTES = 100 * 2**20


@dataclass
class Node:
    """A node's `ray start` process; the raylet and what it starts are below it."""

    process: subprocess.Popen[bytes]
    descendants: set[psutil.Process] = field(default_factory=set)

    def raylet(self) -> psutil.Process:
        (raylet,) = [child for child in self.processes() if child.name() == "raylet"]
        return raylet

    def processes(self) -> list[psutil.Process]:
        if self.process.poll() is not None:
            return []
        return psutil.Process(self.process.pid).children(recursive=True)

    def kill(self) -> None:
        """The machine is gone: all of its processes at once."""
        self.end(signal.SIGKILL)

    def preempt(self) -> None:
        """The notice that a spot machine gets: the raylet drains, and ends."""
        self.raylet().send_signal(signal.SIGTERM)

    def end(self, number: signal.Signals) -> None:
        everything = [*self.processes(), *self.descendants]
        if self.process.poll() is None:
            everything.append(psutil.Process(self.process.pid))
        for process in everything:
            if process.is_running():
                process.send_signal(number)
        self.process.wait(START_TIMEOUT_S)


class Nodes:
    """A cluster; `ray_nodes` makes one.

    Attributes:
        address: for RAY_ADDRESS.
        dashboard: the Jobs API's address, http://…
        environment: that a driver needs to be let in.
        metrics_ports: where each node's agent exports metrics, in the order of the nodes.
    """

    def __init__(self, folder: Path, token: str | None, host: str | None = None):
        self.folder, self.nodes = folder, list[Node]()
        # Unix sockets have short paths, pytest's folders are long
        self.session = tempfile.TemporaryDirectory(prefix="nodes-", dir="/tmp", ignore_cleanup_errors=True)
        self.environment = {
            "RAY_AUTH_MODE": "token" if token else "disabled",
            **({"RAY_AUTH_TOKEN": token} if token else {}),
            "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0",
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_raylet_start_wait_time_s": "120",  # of 30, which a busy machine can need for one
            "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
            "PYTHONPATH": os.pathsep.join(filter(None, (str(REPOSITORY), os.environ.get("PYTHONPATH")))),
        }
        port, dashboard, self.client_port = free_ports(3)
        self.port, self.dashboard_port = port, dashboard
        self.host = host
        self.address = f"{host or _host()}:{port}"
        self.dashboard = f"http://127.0.0.1:{dashboard}"
        self.metrics_ports = list[int]()

    def start_head(self, *, num_cpus: int, with_dashboard: bool, store_bytes: int) -> Node:
        return self._start(
            *("--head", f"--port={self.port}", f"--num-cpus={num_cpus}", f"--include-dashboard={str(with_dashboard).lower()}"),
            *(
                f"--dashboard-port={self.dashboard_port}",
                f"--ray-client-server-port={self.client_port}",
                f"--temp-dir={self.session.name}",
            ),
            *([f"--node-ip-address={self.host}"] if self.host else []),
            store_bytes=store_bytes,
        )

    def add_node(
        self,
        *,
        num_cpus: int,
        num_gpus: int = 0,
        labels: str = "",
        resources: str = "{}",
        store_bytes: int = STORE_BYTES,
        machine: tuple[str, str] | None = None,
    ) -> Node:
        """A worker node.

        Args:
            num_gpus: pretended ones.
            labels: of the node, such as `ray.io/accelerator-type=H100`.
            resources: of its own, as JSON.
            machine: the network namespace that it runs in, and its address there.
        """
        return self._start(
            *(f"--address={self.address}", f"--num-cpus={num_cpus}", f"--num-gpus={num_gpus}", f"--resources={resources}"),
            *([f"--labels={labels}"] if labels else []),
            *([f"--node-ip-address={machine[1]}"] if machine else []),
            store_bytes=store_bytes,
            enter=["nsenter", f"--net=/var/run/netns/{machine[0]}"] if machine else [],
        )

    def _start(self, *options: str, store_bytes: int, enter: Sequence[str] = (), starts: int = STARTS) -> Node:
        (metrics, agent) = free_ports(2)
        log = self.folder / f"node-{len(self.nodes)}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [
                    *enter,
                    *(sys.executable, "-m", "ray.scripts.scripts", "start", "--block", *options),
                    *(f"--object-store-memory={store_bytes}", "--min-worker-port=0", "--max-worker-port=0"),
                    *(f"--metrics-export-port={metrics}", f"--dashboard-agent-listen-port={agent}"),
                    "--disable-usage-stats",
                ],
                env=os.environ | self.environment,
                stdout=output,
                stderr=output,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        node = Node(process)
        self.nodes.append(node)
        # `ray start` says this when the node has joined
        wait_for(lambda: "Ray runtime started" in log.read_text() or process.poll() is not None, "a Ray node", START_TIMEOUT_S)
        if process.poll() is not None and starts > 1 and "timed out during startup" in log.read_text():
            return self._start(*options, store_bytes=store_bytes, enter=enter, starts=starts - 1)
        assert process.poll() is None, log.read_text()
        self.metrics_ports.append(metrics)
        node.descendants.update(node.processes())
        return node

    def close(self) -> None:
        for node in reversed(self.nodes):
            node.descendants.update(node.processes())
            node.end(signal.SIGKILL)
        self.session.cleanup()


@contextmanager
def ray_nodes(
    folder: Path,
    *,
    head_cpus: int = 0,
    token: str | None = None,
    with_dashboard: bool = False,
    store_bytes: int = STORE_BYTES,
    host: str | None = None,
) -> Iterator[Nodes]:
    """A cluster with a head and no other node yet, ended with all of its processes when the block is left.

    Args:
        folder: for the nodes' logs.
        token: that Ray asks everybody for; None: Ray lets everybody in.
        with_dashboard: the Jobs API is part of it.
        host: the address of this machine at which other nodes reach the head; None: the one that Ray finds.
    """
    nodes = Nodes(folder, token, host)
    try:
        nodes.start_head(num_cpus=head_cpus, with_dashboard=with_dashboard, store_bytes=store_bytes)
        yield nodes
    finally:
        nodes.close()


def free_ports(count: int) -> list[int]:
    """Ports that nobody listened on a moment ago, of those that systems give to nobody by themselves (`PORTS`)."""
    free = (port for port in random.SystemRandom().sample(PORTS, len(PORTS)) if is_free(port))
    return list(islice(free, count))


def is_free(port: int) -> bool:
    with socket.socket() as one, suppress(OSError):
        one.bind(("", port))
        return True
    return False


def _host() -> str:
    from ray.util import get_node_ip_address

    return get_node_ip_address()
