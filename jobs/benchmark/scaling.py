"""How many GPUs one job can feed: the job's own chain, with classifiers that sleep for the time a GPU would compute.

Ray is told of GPUs that are not there. Units are a few documents, so that reading and tokenizing them costs these cores next to
nothing, and each classifier sleeps for a second per unit: what is measured is what Ray, the driver, the stages' processes and
the commits cost per unit, which does not depend on its size.
"""

import os
import sys
import time
from contextlib import closing
from typing import Any

from cluster.metrics import Meter
from cluster.resources import Machines, resolve_pools
from cluster.session import connected
from jobs.benchmark.course import SIZES, Options, own_model, own_texts
from jobs.benchmark.report import steady_rate, steady_start
from jobs.chain import label_units
from jobs.committing import Writer, writing
from jobs.config import JobConfig, check_config
from jobs.plan import prepare
from pipeline_ops.actors import ClassifyActor
from pipeline_ops.failures import Failure
from pipeline_ops.planning import LARGEST_UNIT
from pipeline_ops.synthesizing import ModelShape, real_passages, write_corpus

ACTORS = (1, 2, 4, 8, 16)
SLEEP_SECONDS = 1.0  # per unit
UNITS = 16  # per actor
DOCUMENTS_PER_UNIT = 4
DOCUMENT_CHARACTERS = 200
MODEL = ModelShape(1, 16, 1, 16, vocabulary=2000, max_length=128)  # computes next to nothing: it sleeps
TOKENIZERS = 2
BATCH_TOKENS = 2048
OTHER_SLOTS = 2  # logical CPUs, for four tasks that read or write: with more of them Ray would start more processes for these
# one H200 at half its peak, with BERT-base: documents/s of 512 tokens, which are about 2 kB of text
GPU_DOCUMENTS_PER_SECOND = 5100
DOCUMENT_BYTES = 2048


def scaling_task(options: Options, folder: str, actors: list[int]) -> dict[str, Any]:
    """What the measuring process is told: a corpus per number of actors, and a model that computes next to nothing."""
    size = SIZES[options.size]
    passages = real_passages(size.passages)
    model = own_model(MODEL, passages)
    texts = (text[:DOCUMENT_CHARACTERS].ljust(DOCUMENT_CHARACTERS) for text in own_texts(passages, model))
    corpora = []
    for count in actors:
        units = count * (size.units or UNITS)
        corpora.append({"actors": count, "path": os.path.join(folder, f"corpus-{count}"), "units": units})
        write_corpus(texts, units * DOCUMENTS_PER_UNIT, corpora[-1]["path"], units)
    return {"model": model, "corpora": corpora, "folder": folder, "sleep_seconds": SLEEP_SECONDS}


def sleeping_classifier(seconds: float) -> type[ClassifyActor]:
    """The job's classifier, on the CPU whatever it is told, that sleeps so long for each unit before it computes."""

    class SleepingClassifyActor(ClassifyActor):
        def __init__(self, **told: Any):
            super().__init__(**{**told, "use_gpu": False})

        def classify(self, row: Any) -> Any:
            time.sleep(seconds)
            return super().classify(row)

    return SleepingClassifyActor


def measure(task: dict[str, Any]) -> dict[str, Any]:
    """Runs the chain once per number of actors, each time on a Ray of its own.

    Returns:
        sleep_seconds, and actors: per number of actors its units/s (steady), that as a share of actors / sleep_seconds, and CPU
        seconds per unit of the driver's process and of all processes here, over the same window.
    """
    rows = []
    for corpus in task["corpora"]:
        slots = corpus["actors"] + TOKENIZERS + OTHER_SLOTS
        with connected(Machines(cpus=slots, cores=slots, gpus=corpus["actors"])) as machines:
            rows.append(_measure_actors(task, corpus, machines))
    return {"sleep_seconds": task["sleep_seconds"], "actors": rows}


def _measure_actors(task: dict[str, Any], corpus: dict[str, Any], machines: Machines) -> dict[str, Any]:
    actors = corpus["actors"]
    job = check_config(
        JobConfig,
        {
            "input": {"path": corpus["path"]},
            "model": {"path": task["model"], "dtype": "float32"},
            "output": {"path": os.path.join(task["folder"], f"labelled-{actors}")},
            "compute": {
                "classifiers": actors,
                "gpus_per_classifier": 1,
                "tokenizers": TOKENIZERS,
                "batch_tokens": BATCH_TOKENS,
                "unit_bytes": DOCUMENTS_PER_UNIT * DOCUMENT_CHARACTERS,  # a row group each
            },
        },
    )
    prepared = prepare(job)
    pools = resolve_pools(job.compute, machines, prepared.token_flops)
    probed = {"dtypes": ["float32"], "device": None, "batch_tokens": None}
    stamps: list[tuple[float, float, float]] = []
    meter, sleeping = Meter("benchmark", prepared.job.output.path), sleeping_classifier(task["sleep_seconds"])
    with writing(prepared) as lease:
        writer = Writer(prepared, lease, meter.run)
        with closing(label_units(prepared, pools, probed, meter, sleeping)) as finished:
            for done in finished:
                if isinstance(done, Failure):
                    raise RuntimeError(f"{done.where}: {done.message}")
                writer.put(done)
                stamps.append((time.monotonic(), time.process_time(), _machine_cpu_seconds()))
    times = [stamp[0] for stamp in stamps]
    start = steady_start(len(stamps), actors)
    counted = len(stamps) - 1 - start
    rate = steady_rate(len(stamps), times, actors) or 0.0
    print(f"benchmark: {actors} actors: {rate:.2f} units/s", file=sys.stderr, flush=True)
    return {
        "actors": actors,
        "units": len(stamps),
        "units_per_second": rate,
        "efficiency": rate * task["sleep_seconds"] / actors,
        "driver_cpu_seconds_per_unit": (stamps[-1][1] - stamps[start][1]) / counted,
        "machine_cpu_seconds_per_unit": (stamps[-1][2] - stamps[start][2]) / counted,
    }


def _machine_cpu_seconds() -> float:
    """CPU seconds that all processes of this container (cgroup v2), or of this machine, have used."""
    if os.path.exists("/sys/fs/cgroup/cpu.stat"):
        with open("/sys/fs/cgroup/cpu.stat", encoding="utf-8") as file:
            return int(dict(line.split() for line in file)["usage_usec"]) / 1e6
    with open("/proc/stat", encoding="utf-8") as file:
        user, nice, system, _, _, *interrupts = map(int, file.readline().split()[1:8])
    return (user + nice + system + sum(interrupts)) / os.sysconf("SC_CLK_TCK")


def conclude(measured: dict[str, Any]) -> list[str]:
    """What the numbers mean for GPUs, in sentences."""
    last = measured["actors"][-1]
    unit = LARGEST_UNIT
    units_per_gpu = GPU_DOCUMENTS_PER_SECOND * DOCUMENT_BYTES / unit
    driver = 1 / last["driver_cpu_seconds_per_unit"]
    gpus, gpus_of_driver = last["units_per_second"] / units_per_gpu, driver / units_per_gpu
    return [
        f"each classifier sleeps {measured['sleep_seconds']:g} s per unit of {DOCUMENTS_PER_UNIT} documents; all processes of"
        " the job share this machine's cores, so these bound it too",
        f"an H200 that labels {GPU_DOCUMENTS_PER_SECOND:,} documents/s of 512 tokens ({DOCUMENT_BYTES:,} bytes) takes"
        f" {units_per_gpu:.2f} units/s of {unit / 2**20:.0f} MiB",
        f"reached here, with {last['actors']} actors: {last['units_per_second']:.1f} units/s, what {gpus:.0f} such GPUs take",
        f"the driver fills one core at {driver:.0f} units/s ({1000 / driver:.0f} ms of CPU each), what {gpus_of_driver:.0f}"
        " such GPUs take: that bounds one job where tokenizing has cores of its own, 4 to 6 per GPU",
    ]
