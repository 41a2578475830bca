"""Hours, cost and bottleneck of a run on a cluster: arithmetic on the work, on measured costs and on assumptions.

Sampled: the work, by sampler.py. Measured, on two cores: what the driver, Ray and the stages cost per unit and per byte.
Assumed: the speed of a GPU where none is given, and the machines around it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil, log

MIB = 2**20

# measured, 2 cores of an AMD EPYC: `benchmark --scaling`, `benchmark --host-ceiling`, `run`, tests/performance/memory_run.py
# the driver takes loop + per unit, fitted to `benchmark --scaling` with 1 to 64 classifiers, 1 to 13 units/s; the
# loop is Ray Data's scheduling, which goes round the less often the more there is to do, and so should bound no rate by itself
DRIVER_CORES, DRIVER_CORES_PER_CLASSIFIER = 0.09, 0.0017
DRIVER_SECONDS_PER_UNIT = 0.013  # of CPU
# the same of all processes here, the driver's among them: handing a unit from stage to stage, whatever its size
RAY_CORES, RAY_CORES_PER_CLASSIFIER = 0.3, 0.017
UNIT_CPU_SECONDS = 0.085
READ_WRITE_SECONDS_PER_BYTE = 9e-8  # of CPU, per byte of text: 0.09 ms for a document of a kilobyte
STARTUP_SECONDS = 25.0  # from the command to the first unit at a classifier: Ray, imports, a small model
DRIVER_BYTES, DRIVER_BYTES_PER_CLASSIFIER = 280 * MIB, 1.5 * MIB
DRIVER_BYTES_PER_UNIT = 13_300  # 3,000 of the ledger, the rest Ray Data's own notes; over 10,000 units

# assumed
MFU = 0.4  # of a GPU's peak, on tokens without padding, attention's products not counted
CORES_PER_GPU = 12  # of a node, for tokenizing, reading and writing: 192 vCPUs beside 8 GPUs
GPUS_PER_NODE = 8
DRIVER_SHARE = 0.7  # of a core, up to which one driver is given work: the rest is for packs, listings and slower cores
DRIVER_MEMORY = 8 * 2**30  # that a driver may take
SPLIT_SECONDS = 600  # that a driver takes, or requests do: what is less is not worth several jobs

# Amazon S3 user guide, "Best practices design patterns": per prefix and second
WRITES_PER_SECOND = 3500
READS_PER_SECOND = 5500
LISTED_TOGETHER = 1000  # objects per listing, or per deletion
LINES_READ_BYTES = 8 * 2**20  # of a large line file, per request (s3.py)
LEASE_RENEWALS = 4  # per output.lease_seconds (lease.py)
LOOSE_RECORDS = 1000  # after so many commits, or a tenth of what is packed, all are packed (committing.Writer)


@dataclass(frozen=True)
class Workload:
    """What is left to label; estimated unless the input is small."""

    text_bytes: float  # UTF-8
    tokens: float  # that go through the models, special tokens included, padding not; of several models together
    tokenize_seconds: float  # of a core, each text once for all models that read the same
    units: int
    files: int
    files_per_unit: float  # that are written: one per label that occurs in a unit, and one of rejects
    reads: float  # requests that read units


@dataclass(frozen=True)
class Hardware:
    """The machines of a forecast."""

    devices: int  # GPUs, or cores where the model runs on these
    tokens_per_second: float  # of one device, without padding
    cores_per_device: float = CORES_PER_GPU  # beside it
    devices_per_node: int = GPUS_PER_NODE
    price: float | None = None  # per hour and device

    @property
    def nodes(self) -> int:
        return ceil(self.devices / self.devices_per_node)


@dataclass(frozen=True)
class Forecast:
    """What a workload takes on some hardware.

    Attributes:
        device_seconds: of all devices together, at work.
        shares: how busy each part is while the devices are never idle; one above 1 slows the devices down.
        seconds: wall-clock, with start, tail and what slows the devices down.
        jobs: into how many to split the input so that neither a driver nor the store's limits slow the classifiers down.
        driver_bytes, driver_cpu_seconds: of each of these jobs; of all together.
        one_job_seconds: without the split.
    """

    device_seconds: float
    unit_seconds: float  # a device works on a unit
    shares: Mapping[str, float]
    bottleneck: str
    seconds: float
    startup_seconds: float
    tail_seconds: float  # at the end, when some devices have nothing left
    device_hours: float
    cost: float | None
    tokenizer_cores: float
    read_write_cores: float
    cores_per_node: int
    driver_cpu_seconds: float
    driver_bytes: float
    requests: Mapping[str, int]
    jobs: int
    one_job_seconds: float


def makespan(units: float, workers: int, unit_seconds: float) -> float:
    """Seconds that workers take for units of one size; some are idle during the last round."""
    return ceil(units / workers) * unit_seconds


def driver_bytes(units: float, classifiers: float) -> float:
    """Memory of a driver with so many commits in its ledger."""
    return DRIVER_BYTES + classifiers * DRIVER_BYTES_PER_CLASSIFIER + units * DRIVER_BYTES_PER_UNIT


def driver_cores(units_per_second: float, classifiers: float) -> float:
    """Of CPU that a driver takes."""
    return DRIVER_CORES + classifiers * DRIVER_CORES_PER_CLASSIFIER + units_per_second * DRIVER_SECONDS_PER_UNIT


def ray_cores(units_per_second: float, classifiers: float) -> float:
    """Of CPU that all processes of a run on one machine take whose stages have nothing to compute."""
    return RAY_CORES + classifiers * RAY_CORES_PER_CLASSIFIER + units_per_second * UNIT_CPU_SECONDS


def packs(units: int) -> int:
    """How often a run packs its commit records: after LOOSE_RECORDS of them, later when they are a tenth of what is packed."""
    even = 10 * LOOSE_RECORDS
    if units <= even:
        return units // (LOOSE_RECORDS + 1)
    return even // LOOSE_RECORDS + int(log(units / even) / log(1.1))


def run_requests(
    *, units: int, files: int, seconds: float, files_per_unit: float, reads: float = 0, lease_seconds: float = 60
) -> dict[str, int]:
    """Requests to the object store of a run over a new output, by kind.

    Planning lists the input, and looks for a lease, commits, failures and a job. Each unit is read (`reads`), its files are
    put, then its commit record. Each renewal of the lease is a put, a listing and a deletion. Packing is a put; the run's end
    lists the output, and deletes the records that were packed.
    """
    renewals = int(seconds * LEASE_RENEWALS / lease_seconds) + packs(units) + 4
    loose = units if packs(units) else 0
    return {
        "list": ceil(files / LISTED_TOGETHER) + 6 + renewals + ceil(units * (files_per_unit + 1) / LISTED_TOGETHER),
        "get": ceil(reads) + 4,
        "put": ceil(units * files_per_unit) + units + packs(units) + renewals + 4,
        "delete": renewals + ceil(loose / LISTED_TOGETHER) + 2,
    }


def forecast(work: Workload, hardware: Hardware, *, lease_seconds: float = 60, units_before: int = 0) -> Forecast:
    """Forecast a run.

    Args:
        units_before: committed by earlier runs, whose records the driver holds as well.
    """
    device_seconds = work.tokens / hardware.tokens_per_second
    pace = max(device_seconds / hardware.devices, 1e-9)  # seconds of devices that are never idle
    unit_seconds = device_seconds / max(work.units, 1)
    reading = work.text_bytes * READ_WRITE_SECONDS_PER_BYTE + work.units * (UNIT_CPU_SECONDS - DRIVER_SECONDS_PER_UNIT)
    driver = work.units * DRIVER_SECONDS_PER_UNIT
    asking = max(work.units * (work.files_per_unit + 1) / WRITES_PER_SECOND, work.reads / READS_PER_SECOND)
    shares = {
        "classifiers": 1.0,
        "tokenizers": (work.tokenize_seconds + reading) / pace / (hardware.devices * hardware.cores_per_device),
        "driver": driver / pace,
        "requests": asking / pace,
    }
    most = max(shares.values())
    # a job more has a driver and folders of its own, but no more machines
    machines = max(shares["classifiers"], shares["tokenizers"])
    held = hardware.devices * DRIVER_BYTES_PER_CLASSIFIER + (work.units + units_before) * DRIVER_BYTES_PER_UNIT
    jobs = max(ceil(held / (DRIVER_MEMORY - DRIVER_BYTES)), 1)
    if driver > SPLIT_SECONDS:
        looping = hardware.devices * DRIVER_CORES_PER_CLASSIFIER
        jobs = max(jobs, ceil((looping + shares["driver"] / machines) / (DRIVER_SHARE - DRIVER_CORES)))
    if asking > SPLIT_SECONDS:
        jobs = max(jobs, ceil(shares["requests"] / machines))
    jobs = min(jobs, hardware.devices)
    startup = (STARTUP_SECONDS + work.tokenize_seconds / work.units) if work.units else 0.0
    held_back = max(machines, shares["driver"] / jobs, shares["requests"] / jobs)
    labeling = makespan(work.units / jobs, max(hardware.devices // jobs, 1), unit_seconds * held_back)
    seconds = startup + labeling
    hours = seconds * hardware.devices / 3600
    return Forecast(
        device_seconds=device_seconds,
        unit_seconds=unit_seconds,
        shares=shares,
        bottleneck=max(shares, key=lambda name: shares[name]),
        seconds=seconds,
        startup_seconds=startup,
        tail_seconds=labeling - pace * held_back if work.units else 0.0,
        device_hours=hours,
        cost=None if hardware.price is None else hours * hardware.price,
        tokenizer_cores=work.tokenize_seconds / pace,
        read_write_cores=reading / pace,
        cores_per_node=ceil((work.tokenize_seconds + reading) / pace / hardware.nodes),
        driver_cpu_seconds=jobs * seconds * driver_cores(work.units / jobs / seconds, hardware.devices / jobs)
        if seconds
        else 0.0,
        driver_bytes=driver_bytes((work.units + units_before) / jobs, hardware.devices / jobs),
        requests=run_requests(
            units=work.units,
            files=work.files,
            seconds=seconds,
            files_per_unit=work.files_per_unit,
            reads=work.reads,
            lease_seconds=lease_seconds,
        ),
        jobs=jobs,
        one_job_seconds=startup + makespan(work.units, hardware.devices, unit_seconds * most),
    )
