"""Connecting to Ray; the only reader of the process's environment."""

import ctypes
import gc
import glob
import json
import logging
import os
import secrets
import shutil
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, redirect_stdout
from dataclasses import replace
from functools import cache

from cluster.resources import Machines, Node, object_store_bytes
from cluster.streaming import wait_for_executors

# Ray's workers take these from the driver. Tokenizers are spread over actors, not threads.
WORKER_ENVIRONMENT = {
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TORCHINDUCTOR_COMPILE_THREADS": "4",  # processes of each classifier; torch's default is one per core
    "MIMALLOC_PURGE_DELAY": "0",  # ms until Arrow's allocator gives freed pages back; by its default it keeps a unit or two
}
# environment variables that may hold credentials which have no recognizable shape
SECRETS = (
    *("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AZURE_STORAGE_KEY", "AZURE_STORAGE_SAS_TOKEN"),
    *("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "RAY_AUTH_TOKEN"),
)
SHORTEST_SECRET = 12  # shorter ones stand in texts by chance
LOCAL_STARTS = 2
HELPER_ACTORS = 12  # more than Ray Data and a job have beside the pools
NO_DEVICES = ("", "-1", "NoDevFiles")  # in CUDA_VISIBLE_DEVICES, as Ray reads it
ACCELERATOR = "accelerator_type:"  # the resource by which Ray knows a node's kind of GPU
SHARED_MEMORY = "/dev/shm"
MEMORY_LIMIT = "/sys/fs/cgroup/memory.max"


def quiet_environment() -> None:
    """Settings that libraries read from the environment when they are imported. Existing values win."""
    for name, value in {
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
        "TRANSFORMERS_NO_ADVISORY_WARNINGS": "1",
        **WORKER_ENVIRONMENT,
    }.items():
        os.environ.setdefault(name, value)


def usable_cores() -> int:
    """Cores this process may use: by its affinity, and by its container's CPU quota (cgroup v2)."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if os.path.exists("/sys/fs/cgroup/cpu.max"):
        with open("/sys/fs/cgroup/cpu.max") as quota:
            limit, period = quota.read().split()
        if limit != "max":
            cores = min(cores, max(1, int(limit) // int(period)))
    return cores


def sleeping_threads() -> bool:
    """Let OpenMP's threads sleep while they wait, as a spinning one takes its core from others; an existing setting wins.

    OpenMP reads it when it is loaded, which is with torch.

    Returns:
        Whether OMP_NUM_THREADS fixes their number.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    return bool(os.environ.get("OMP_NUM_THREADS"))


def child_environment(changes: dict[str, str | None]) -> dict[str, str]:
    """This process's environment with `changes`, for a process that it starts; None takes a name out."""
    environment = {name: value for name, value in os.environ.items() if name not in changes}
    return environment | {name: value for name, value in changes.items() if value is not None}


def jobs_address() -> str | None:
    """The Jobs API's address from the environment, as Ray's own client finds it."""
    return os.environ.get("RAY_API_SERVER_ADDRESS") or os.environ.get("RAY_ADDRESS") or None


@contextmanager
def jobs_address_is(address: str) -> Iterator[None]:
    """Makes Ray's client of the Jobs API, made within the block, take `address`: it prefers the environment to its argument."""
    before = os.environ.get("RAY_API_SERVER_ADDRESS")
    os.environ["RAY_API_SERVER_ADDRESS"] = address
    try:
        yield
    finally:
        if before is None:
            os.environ.pop("RAY_API_SERVER_ADDRESS", None)
        else:
            os.environ["RAY_API_SERVER_ADDRESS"] = before


def secret_values() -> list[str]:
    """Credentials that this process has in its environment, to be kept out of what it shows."""
    return [value for name in SECRETS if len(value := os.environ.get(name, "")) >= SHORTEST_SECRET]


def environment_values(names: Iterable[str]) -> dict[str, str]:
    """{name: value} of environment variables that shall travel.

    Raises:
        ValueError: one is not set.
    """
    values = {name: os.environ.get(name) for name in names}
    missing = [name for name, value in values.items() if value is None]
    if missing:
        raise ValueError(f"{', '.join(missing)}: not set here; export it, or leave it out if the cluster's nodes have it")
    return {name: value for name, value in values.items() if value is not None}


def worker_environment() -> dict[str, str]:
    """What ray.init shall give the workers; for a submitted job without what its runtime environment has: Ray refuses both."""
    submitted = json.loads(os.environ.get("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}"))
    given = (submitted.get("runtime_env") or {}).get("env_vars") or {}
    return {name: value for name, value in WORKER_ENVIRONMENT.items() if name not in given}


def usable_memory() -> int:
    """Bytes of memory this process may use: of the machine, or of its container (cgroup v2)."""
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if os.path.exists(MEMORY_LIMIT):
        with open(MEMORY_LIMIT) as limit:
            given = limit.read().strip()
        if given != "max":
            memory = min(memory, int(given))
    return memory


def installed_gpus() -> int:
    """NVIDIA GPUs of this machine or container, whatever CUDA_VISIBLE_DEVICES says: as Ray counts them, by NVML, else by their
    devices, else by CUDA's driver.

    Containers that are given no `utility` of NVIDIA's driver lack NVML, gVisor and WSL2 /proc/driver/nvidia, WSL2 the devices.
    """
    return (
        gpus_of_driver("libnvidia-ml.so.1", "nvmlInit_v2", (), "nvmlDeviceGetCount_v2")
        or len(glob.glob("/dev/nvidia[0-9]*"))
        or gpus_of_driver("libcuda.so.1", "cuInit", (0,), "cuDeviceGetCount")
    )


@cache
def gpus_of_driver(library: str, initialize: str, arguments: tuple[int, ...], count: str) -> int:
    """GPUs by a library of NVIDIA's driver; 0 without it, or where it finds no driver."""
    try:
        driver = ctypes.CDLL(library)
    except OSError:
        return 0
    found = ctypes.c_int(0)
    failed = getattr(driver, initialize)(*arguments) or getattr(driver, count)(ctypes.byref(found))
    return 0 if failed else found.value


def this_machine() -> Machines:
    """What a Ray started here would have, found without starting one or importing torch."""
    cores, gpus = usable_cores(), installed_gpus()
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        gpus = min(gpus, len([device for device in visible.split(",") if device.strip() not in NO_DEVICES]))
    # logical CPUs are slots: readers and writers wait for storage, so cores are offered twice
    return Machines(cpus=max(4, 2 * cores), cores=cores, gpus=gpus, here=True)


def has_ray() -> bool:
    """Whether this process is connected to Ray, or has the address of a cluster to connect to."""
    ray = sys.modules.get("ray")
    return bool(os.environ.get("RAY_ADDRESS")) or (ray is not None and ray.is_initialized())


def _start_local(machine: Machines, unit_bytes: int) -> None:
    import ray

    shared_memory = shutil.disk_usage(SHARED_MEMORY).free if os.path.isdir(SHARED_MEMORY) else 0
    store = object_store_bytes(machine, unit_bytes, memory=usable_memory(), shared_memory=shared_memory)

    for attempt in range(LOCAL_STARTS):
        try:
            ray.init(
                "local",  # else Ray takes the cluster that was last started on this machine, if a file still names one
                num_cpus=int(machine.cpus),
                num_gpus=int(machine.gpus),
                include_dashboard=False,
                object_store_memory=store,
                logging_level=logging.ERROR,
                log_to_driver=False,
                # Ray counts actors too, the helpers of Ray Data among them, and ends a worker beyond its limit that waits for
                # a second: a write then waited for a new process, seconds of CPU
                _system_config={"num_workers_soft_limit": int(machine.cpus) + HELPER_ACTORS},
            )
            return
        except Exception as error:
            # Ray gives its processes 30 s, a constant (ray/_private/node.py), which a busy machine can need twice
            if "timed out during startup" not in str(error) or attempt + 1 == LOCAL_STARTS:
                raise
            print("Ray did not start within 30 s, is the machine busy? Starting it once more", file=sys.stderr)
            ray.shutdown()


def cluster_machines() -> Machines:
    """The nodes of the cluster that this process is connected to, as they are now."""
    import ray
    from ray.autoscaler.v2.utils import is_autoscaler_v2

    nodes = []
    for found in ray.nodes():
        if found["Alive"]:
            resources = found["Resources"]
            kinds = [name.removeprefix(ACCELERATOR) for name in resources if name.startswith(ACCELERATOR)]
            nodes.append(Node(resources.get("CPU", 0), resources.get("GPU", 0), kinds[0] if kinds else None))
    # the autoscaler that KubeRay has; of version 1 Ray gives no sign
    return Machines.of_nodes(nodes, grows=is_autoscaler_v2())


def object_store_use() -> dict[str, int]:
    """Of the object stores of the cluster: capacity, used and spilled bytes.

    Ray has no public API for it but its dashboard's; Ray Data takes its own statistics from here.
    """
    import ray
    from ray._private.internal_api import get_memory_info_reply, get_state_from_address

    stats = get_memory_info_reply(get_state_from_address(ray.get_runtime_context().gcs_address)).store_stats
    return {
        "capacity": stats.object_store_bytes_avail,
        "used": stats.object_store_bytes_used,
        "spilled": stats.spilled_bytes_total,
    }


class _OwnRay:
    """A Ray on this machine for one job, started by a thread that mostly waits, so that others go on.

    Ray's processes end with the thread that has started them, whatever ends it (PR_SET_PDEATHSIG, ray/_private/utils.py): it
    lives until they are to end.
    """

    def __init__(self, machine: Machines, unit_bytes: int) -> None:
        self._started: Future[None] = Future()
        self._unwanted = threading.Event()
        self._thread = threading.Thread(target=self._live, args=(machine, unit_bytes), name="own-ray")
        self._thread.start()

    def _live(self, machine: Machines, unit_bytes: int) -> None:
        try:
            _start_local(machine, unit_bytes)
        except BaseException as error:
            self._started.set_exception(error)
            return
        self._started.set_result(None)
        self._unwanted.wait()
        _shut_down()

    def wait_until_started(self) -> None:
        self._started.result()

    def abandon(self) -> None:
        """Lets it end as soon as it has started; what has begun to start cannot be stopped."""
        self._unwanted.set()

    @property
    def is_abandoned(self) -> bool:
        return self._unwanted.is_set()

    def end(self) -> None:
        self._unwanted.set()
        self._thread.join()


_begun: list[_OwnRay] = []  # at most one: connected() has not taken it yet, or it was abandoned and ends by itself


def _begin_own_ray(machine: Machines, unit_bytes: int) -> _OwnRay | None:
    """The local Ray that has begun to start, or begins now; None where a cluster is used, or this process is connected."""
    if os.environ.get("RAY_ADDRESS"):
        return None
    quiet_environment()
    if "ray" not in sys.modules and "RAY_AUTH_MODE" not in os.environ:
        # Ray listens on the host's address: a token of this run's own keeps others out, without a file in the home folder.
        # Ray reads it when it is imported.
        os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    # not in the thread: two threads that import the same modules can find half of one
    import ray

    if _begun and _begun[0].is_abandoned:
        _begun.pop().end()
    if not _begun and not ray.is_initialized():
        _begun.append(_OwnRay(machine, unit_bytes))
    return _begun[0] if _begun else None


@contextmanager
def starting() -> Iterator[Callable[[int], None]]:
    """Lets a local Ray start while other work is done: connected(), within the block, takes it.

    One that connected() has not taken when the block is left, as by a mistake in the job, ends as soon as it has started. The
    block does not wait for that; the next start does, and so does an orderly end of the process. os._exit() ends it at once.

    Yields:
        A function that begins to start Ray for units of at most so many bytes; for the main thread. It does nothing where a
        cluster is used, or this process is connected already.
    """

    def start(unit_bytes: int) -> None:
        _begin_own_ray(this_machine(), unit_bytes)

    try:
        yield start
    finally:
        if _begun:
            _begun[0].abandon()


@contextmanager
def connected(machine: Machines | None = None, unit_bytes: int = 0) -> Iterator[Machines]:
    """A connection to Ray: the one there is, the cluster that RAY_ADDRESS names, or a local one for the time of the job.

    Args:
        machine: what a local Ray takes itself to have; default: what this machine has.
        unit_bytes: of the units that travel, about; a local Ray's object store is for these. Both are ignored for one that has
            begun to start, see starting().
    """
    own = _begin_own_ray(machine or this_machine(), unit_bytes)
    import ray

    here = ray.is_initialized() and own is None
    if own is not None:
        try:
            own.wait_until_started()
        except BaseException:
            own.abandon()
            raise
        _begun.remove(own)
    elif not here:
        _connect_to_cluster()
    with redirect_stdout(sys.stderr):  # Ray prints there that a worker has died, until it is shut down
        try:
            machines = cluster_machines()
            if own is not None:
                machines = replace(machines, cores=this_machine().cores, here=True)
            yield machines
        finally:
            if not here:
                _shut_down() if own is None else own.end()


def _connect_to_cluster() -> None:
    quiet_environment()
    import ray

    on_sigterm = signal.getsignal(signal.SIGTERM)
    ray.init(runtime_env={"env_vars": worker_environment()}, logging_level=logging.ERROR, log_to_driver=False)
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, on_sigterm)  # ray.init puts its own there, which exits with 15


def _shut_down() -> None:
    """Shuts Ray down in this process when no other thread calls it any more: a call after that would end the process.

    Besides the threads of Ray Data that is Python's garbage collector, which runs in any thread: a Dataset leaves ObjectRefs in
    reference cycles, and each reports to the core worker that it is gone.
    """
    import ray

    wait_for_executors()
    collects = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        ray.shutdown()
    finally:
        if collects:
            gc.enable()
