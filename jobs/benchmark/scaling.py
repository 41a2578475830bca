"""How many GPUs one job can feed: the job's own chain, with classifiers that sleep for the time a GPU would compute.

Ray is given GPUs that do not exist. Units are a few documents, fewer at the end as in any run, so that reading and tokenizing
them costs these cores next to nothing, and each classifier, which loads no model, sleeps for its time: what is measured is what
Ray, the driver, the stages' processes and the commits cost per unit, which does not depend on its size. Beside it stands the
forecast of `plan --cluster` for as many units.

With `cores`, a machine with so many cores and GPUs is pretended, with the tokenizers and the object store that `auto` gives
there. All stages sleep, each as long as for a unit of full size, and as many bytes go through the object store, or fewer where
this machine has less memory, of a store that is smaller by as much.
"""

import os
import sys
import time
from contextlib import closing
from typing import Any

from cluster.attempts import StageActivity
from cluster.prometheus_metrics import Meter
from cluster.resources import BYTES_PER_TOKEN, GPU_FLOPS, ComputeConfig, Machines, resolve_pools
from cluster.session import connected, object_store_use, this_machine
from jobs.benchmark.many_classifiers import many_in_one, note_on_many_gpus, note_on_processes
from jobs.benchmark.report import steady_start
from jobs.benchmark.setup import SIZES, Options, own_model, own_texts
from jobs.benchmark.sleeping_stages import CLASSIFY_SECONDS, UNIT_TOKENS, SleepingStages
from jobs.config import JobConfig, check_config
from jobs.run.chain import label_units
from jobs.run.commit_writer import CommitWriter, finalize, output_lease
from jobs.run.prepare import prepare
from pipeline_ops.planning.forecast import (
    UNIT_CPU_SECONDS,
    driver_bytes,
    driver_cores,
    makespan,
    ray_cores,
    run_requests,
)
from pipeline_ops.planning.work_plan import LARGEST_UNIT
from pipeline_ops.publishing.publisher import Publisher
from pipeline_ops.schema.errors import UserError
from pipeline_ops.schema.failures import Failure
from pipeline_ops.synthetic.benchmark_corpus import ModelShape, real_passages, write_corpus

ACTORS = (1, 2, 4, 8, 16)
LEAST_SLEEP_SECONDS = 1.0  # per unit
BUSY_CORES = 0.6  # of the cores, at the most: with more, what works beside the classifiers waits for them
LEAST_CORES = 0.1  # for the units, where what waits leaves nothing
UNITS = 16  # per actor
UNITS_PER_FILE = 16  # what a footer costs grows with its row groups
DOCUMENTS_PER_UNIT = 32  # of full size
DOCUMENT_CHARACTERS = 200
MODEL = ModelShape(1, 16, 1, 16, vocabulary=2000, max_length=128)  # for its tokenizer; nothing is computed
TOKENIZERS = 2
BATCH_TOKENS = 2048
OTHER_SLOTS = 2  # logical CPUs, for four tasks that read or write: with more of them Ray would start more processes for these
# one H200 at half its peak, with BERT-base: documents/s of 512 tokens, which are about 2 kB of text
GPU_DOCUMENTS_PER_SECOND = 5100
DOCUMENT_BYTES = 2048


def sleep_seconds(actors: int, cores: int) -> float:
    """Per unit, so long that this machine's cores are not what bounds so many actors: each unit costs them UNIT_CPU_SECONDS."""
    left = max(LEAST_CORES, BUSY_CORES * cores - ray_cores(0, actors))
    return max(LEAST_SLEEP_SECONDS, round(actors * UNIT_CPU_SECONDS / left, 1))


def scaling_task(
    options: Options,
    folder: str,
    actors: list[int],
    units: int | None = None,
    unit_seconds: float | None = None,
    cores: int | None = None,
    moved_bytes: int | None = None,
    per_process: int = 1,
) -> dict[str, Any]:
    """Input of measure(): a corpus per number of actors, and a model for its tokenizer.

    Args:
        units: of each corpus; None: UNITS per actor.
        unit_seconds: for which a classifier sleeps; None: see sleep_seconds, or with `cores` those of BERT-base.
        cores: of the machine that is pretended; None: only GPUs are.
        moved_bytes: with `cores`, of text per unit; None: all.
        per_process: classifiers that one process answers for (many_classifiers.py).
    """
    for count in actors:
        if count % per_process:
            raise UserError(f"--per-process: {count} classifiers are not a multiple of {per_process}; change one of the two")
    size = SIZES[options.size]
    passages = real_passages(size.passages)
    model = own_model(MODEL, passages)
    texts = (text[:DOCUMENT_CHARACTERS].ljust(DOCUMENT_CHARACTERS) for text in own_texts(passages, model))
    corpora = []
    for count in actors:
        path, number = os.path.join(folder, f"corpus-{len(corpora)}"), units or count * (size.units or UNITS)
        sleeping = unit_seconds or (CLASSIFY_SECONDS if cores else sleep_seconds(count // per_process, this_machine().cores))
        corpora.append({"actors": count, "path": path, "units": number, "sleep_seconds": sleeping})
        write_corpus(texts, number * DOCUMENTS_PER_UNIT, path, number, files=-(-number // UNITS_PER_FILE))
    moved = (moved_bytes or LARGEST_UNIT) if cores else 0
    given = {"cores": cores, "moved_bytes": moved, "per_process": per_process}
    return {"model": model, "corpora": corpora, "folder": folder, **given}


def measure(task: dict[str, Any]) -> dict[str, Any]:
    """Runs the chain once per number of actors, each time on a Ray of its own.

    Returns:
        actors: per number of actors its units/s of full size (steady), that as a share of what the actors could do if nothing
        else took time (efficiency), CPU seconds per unit of the driver's process and of all processes here over the same
        window, the driver's CPU per second (driver_cores), the share of the cores that all are (cores_busy), the driver's
        memory, the seconds that a classifier waits for its next unit (waiting_seconds), the seconds from Ray's start to the
        last commit (seconds) and to the first one (startup_seconds), and from when the first classifier had nothing left to
        the last commit, by samples a second apart, at the most (classifiers_ended_within_seconds), and forecast: the figures
        of `plan --cluster`. With cores also what Flow.result() returns.
    """
    rows = []
    for corpus in task["corpora"]:
        tokenizers, gpus = _tokenizers(task["cores"], corpus), corpus["actors"]
        slots = gpus // task["per_process"] + tokenizers + OTHER_SLOTS
        began = time.monotonic()
        machine = Machines(cpus=slots, cores=task["cores"] or slots, gpus=gpus)
        with connected(machine, task["moved_bytes"]) as machines:
            rows.append(_measure_actors(task, corpus, machines, tokenizers, began))
    pretended = {"cores": task["cores"], "moved_bytes": task["moved_bytes"]} if task["cores"] else None
    return {"actors": rows, "pretended": pretended, "per_process": task["per_process"]}


def _tokenizers(cores: int | None, corpus: dict[str, Any]) -> int:
    """Those of `auto` on a machine with so many cores, for a model that takes a GPU as long as the classifiers sleep."""
    if cores is None:
        return TOKENIZERS
    machine = Machines(cpus=2 * cores, cores=cores, gpus=corpus["actors"], here=True)
    return resolve_pools(ComputeConfig(), machine, GPU_FLOPS * corpus["sleep_seconds"] / UNIT_TOKENS).tokenizers


class Flow:
    """Samples of where the units are, taken every second."""

    def __init__(self, actors: int, tokenizers: int):
        self.actors, self.tokenizers = actors, tokenizers
        self.samples: list[tuple[float, StageActivity, dict[str, int]]] = []

    def add(self, activity: StageActivity) -> None:
        self.samples.append((time.monotonic(), activity, object_store_use()))

    def ended_within(self, end: float) -> float | None:
        """Seconds from the last sample in which all classifiers were busy to the end; None without one."""
        return next((end - at for at, one, _ in reversed(self.samples) if one.busy["classify"] >= self.actors), None)

    def result(self, start: float, end: float) -> dict[str, Any]:
        """Means over a time, but for the store's use.

        Returns:
            tokenizers; classifiers_busy, tokenizers_busy: shares of them; queued_classify, queued_write: units that wait for a
            classifier, and for a writer; store_bytes, of these most_store_bytes used at a time, spilled_bytes.
        """
        within = [(activity, store) for at, activity, store in self.samples if start <= at <= end]
        count = max(len(within), 1)

        def busy(stage: str) -> float:
            return sum(activity.busy[stage] for activity, _ in within) / count

        def queued(stage: str, before: str) -> float:
            done = (one.ended[before] - one.ended[stage] - one.busy[stage] for one, _ in within)
            return sum(done) / count

        return {
            "tokenizers": self.tokenizers,
            "classifiers_busy": busy("classify") / self.actors,
            "tokenizers_busy": busy("tokenize") / self.tokenizers,
            "queued_classify": queued("classify", "tokenize"),
            "queued_write": queued("write", "classify"),
            "store_bytes": max(store["capacity"] for _, _, store in self.samples),
            "most_store_bytes": max(store["used"] for _, _, store in self.samples),
            "spilled_bytes": max(store["spilled"] for _, _, store in self.samples),
        }


def _measure_actors(
    task: dict[str, Any], corpus: dict[str, Any], machines: Machines, tokenizers: int, began: float
) -> dict[str, Any]:
    actors, sleeping, per_process = corpus["actors"], corpus["sleep_seconds"], task["per_process"]
    flow = Flow(actors, tokenizers)
    job = check_config(
        JobConfig,
        {
            "input": {"path": corpus["path"]},
            "model": {"path": task["model"], "dtype": "float32"},
            "output": {"path": f"{corpus['path']}-labeled"},
            "compute": {
                "classifiers": actors // per_process,
                "gpus_per_classifier": per_process,
                "tokenizers": tokenizers,
                "batch_tokens": BATCH_TOKENS,
                "unit_bytes": DOCUMENTS_PER_UNIT * DOCUMENT_CHARACTERS,  # a row group each
            },
        },
    )
    prepared = prepare(job)
    # of a model that takes a GPU as long as the classifiers sleep
    token_flops = GPU_FLOPS * sleeping / (DOCUMENTS_PER_UNIT * DOCUMENT_CHARACTERS / BYTES_PER_TOKEN)
    pools = resolve_pools(job.compute, machines, token_flops)
    probed = {"dtypes": ["float32"], "device": None, "batch_tokens": None}
    stamps: list[tuple[float, float, float, int]] = []
    documents: list[int] = []
    waiting: list[float] = []
    meter = Meter("benchmark", prepared.job.output.path)
    publisher = Publisher(prepared.job.output_store, prepared.job.output, prepared.ledger, meter.run)
    with output_lease(prepared, publisher) as lease:
        writer = CommitWriter(prepared.job.output_store, prepared.job.output, prepared.ledger, prepared.plan, lease, meter.run)
        executor = SleepingStages(sleeping, task["moved_bytes"], DOCUMENTS_PER_UNIT).executor()
        executor = many_in_one(executor, per_process) if per_process > 1 else executor
        with closing(label_units(prepared, pools, probed, meter, executor, flow.add)) as finished:
            for done in finished:
                if isinstance(done, Failure):
                    raise RuntimeError(f"{done.where}: {done.message}")
                writer.put(done)
                documents.append(done.documents)
                waiting.append(done.classify_seconds.waiting)
                stamps.append((time.monotonic(), time.process_time(), _machine_cpu_seconds(), _own_bytes()))
                if len(stamps) % max(1, prepared.plan.num_units // 10) == 0:
                    print(f"benchmark: {actors} actors: {len(stamps)} units", file=sys.stderr, flush=True)
        puts = sum(len(commit.all_files()) + 1 for commit in prepared.ledger.commits.values())
        finalize(lease, publisher)
        puts += lease.record.generation
    times = [stamp[0] for stamp in stamps]
    start = steady_start(len(stamps), actors)
    counted = len(stamps) - 1 - start
    window = times[-1] - times[start]
    machine = stamps[-1][2] - stamps[start][2]
    cpu = stamps[-1][1] - stamps[start][1]
    # as report.steady_rate, of units of full size; the last ones are smaller
    rate = max(sum(documents[start + 1 :]) / DOCUMENTS_PER_UNIT - (actors - 1), 0.0) / window
    full_units = sum(documents) / DOCUMENTS_PER_UNIT
    paced = rate or actors / sleeping
    print(f"benchmark: {actors} actors: {rate:.2f} units/s", file=sys.stderr, flush=True)
    files_per_unit = sum(len(commit.all_files()) for commit in prepared.ledger.commits.values()) / len(stamps)
    return {
        "actors": actors,
        "units": len(stamps),
        "full_units": full_units,
        "sleep_seconds": sleeping,
        "units_per_second": rate,
        "efficiency": rate * sleeping / actors,
        "driver_cpu_seconds_per_unit": cpu / counted,
        "driver_cores": cpu / window,
        "machine_cpu_seconds_per_unit": machine / counted,
        "cores_busy": machine / window / this_machine().cores,
        "driver_bytes": max(stamp[3] for stamp in stamps),
        "driver_bytes_first": stamps[0][3],
        "puts_per_unit": puts / len(stamps),
        "seconds": times[-1] - began,
        "startup_seconds": times[0] - began - sleeping,
        "classifiers_ended_within_seconds": flow.ended_within(times[-1]),
        # of a classifier, for its next unit; not known of one of several in a process
        "waiting_seconds": sum(waiting[start:]) / len(waiting[start:]) if per_process == 1 else None,
        **(flow.result(times[start], times[-1]) if task["cores"] else {}),
        "forecast": {
            "driver_cpu_seconds_per_unit": driver_cores(paced, actors) / paced,
            "machine_cpu_seconds_per_unit": ray_cores(paced, actors) / paced,
            "driver_bytes": driver_bytes(len(stamps), actors),
            "puts_per_unit": run_requests(
                units=len(stamps), files=len(prepared.files), seconds=times[-1] - began, files_per_unit=files_per_unit
            )["put"]
            / len(stamps),
            # Ray's and the actors' start are this machine's, from the measurement
            "seconds": times[0] - began - sleeping + makespan(full_units, actors, sleeping),
        },
    }


def _own_bytes() -> int:
    """Memory of this process that is its own: without Ray's object store and mapped files; 0 where /proc is missing."""
    if not os.path.exists("/proc/self/status"):
        return 0
    with open("/proc/self/status", encoding="ascii") as file:
        return next((int(line.split()[1]) * 1024 for line in file if line.startswith("RssAnon:")), 0)


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
    notes = [
        f"each classifier sleeps for its time per unit of {DOCUMENTS_PER_UNIT} documents; units/s are of these, the last are"
        " smaller; of linear: units/s over what actors that do nothing but sleep could do. All processes of the job share this"
        " machine's cores: where these are busy, they bound it, and the share is not about the job",
        f"an H200 that labels {GPU_DOCUMENTS_PER_SECOND:,} documents/s of 512 tokens ({DOCUMENT_BYTES:,} bytes) takes"
        f" {units_per_gpu:.2f} units/s of {unit / 2**20:.0f} MiB",
        f"reached here, with {last['actors']} actors: {last['units_per_second']:.1f} units/s, what {gpus:.0f} such GPUs take",
        f"the driver took {last['units_per_second'] / driver:.0%} of a core, {1000 / driver:.0f} ms of CPU per unit, with its"
        f" loop, which costs much the same however many units come: it fills one core at {driver:.0f} units/s at the least,"
        f" what {gpus_of_driver:.0f} such GPUs take: that bounds one job where tokenizing has cores of its own, 9 per GPU",
    ]
    notes.append(note_on_many_gpus(GPU_DOCUMENTS_PER_SECOND * DOCUMENT_BYTES))
    if measured["per_process"] > 1:
        notes.insert(0, note_on_processes(measured["per_process"]))
    if pretended := measured["pretended"]:
        notes.insert(
            0,
            f"pretended: {pretended['cores']} cores beside the GPUs, with the tokenizers and the object store of these;"
            f" reading, tokenizing and writing take as long as units of {unit / 2**20:.0f} MiB do, of which"
            f" {pretended['moved_bytes'] / 2**20:.3g} MiB of text move",
        )
    return notes
