"""`label-corpus plan --cluster`: what a run would take on a cluster that need not exist, from a sample of the input."""

import re
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import ceil, prod
from typing import Any

from cluster.resources import CORE_FLOPS, Machines, PoolSize
from jobs.config import JobConfig, ResolvedJob
from jobs.number_format import duration
from jobs.run.plan import flops_per_token, sample_of, summary_of, tokenize_seconds, tokens_per_core
from jobs.run.prepare import Prepared, prepare
from pipeline_ops.models.flops import GPU_NAMES, gpu_dtype, peak_flops
from pipeline_ops.models.resolve import FLOAT32_KINDS
from pipeline_ops.planning.forecast import (
    CORES_PER_GPU,
    DRIVER_SECONDS_PER_UNIT,
    DRIVER_SHARE,
    GPUS_PER_NODE,
    LINES_READ_BYTES,
    MFU,
    Forecast,
    Hardware,
    Workload,
    forecast,
)
from pipeline_ops.planning.sampler import Estimate, Sample
from pipeline_ops.reading.reader import SINGLE_REQUEST_BYTES
from pipeline_ops.reading.spans import Span
from pipeline_ops.schema.errors import UserError

CPU = "CPU"
CORES_PER_NODE = 16  # of a cluster of cores
MOST_DEVICES = 1_000_000
COUNTED = ("documents", "rejected", "characters", "text_bytes", "tokens")


@dataclass(frozen=True)
class Target:
    """The values of --cluster, --rate and --price."""

    devices: int
    name: str  # a key of GPU_NAMES, CPU, or any other name if a rate is given
    rate: float | None  # tokens per second of a device
    price: float | None  # per hour and device


def target_of(cluster: str | None, rate: float | None, price: float | None) -> Target | None:
    """The target of the command line's options; None without any.

    Raises:
        UserError: no such form, or a GPU that is not known and has no rate; a number that is not above 0; options for a cluster
            without one.
    """
    for option, value in (("--rate", rate), ("--price", price)):
        if value is not None and cluster is None:
            raise UserError(f"{option}: {value:g} is for --cluster; give that as well, such as --cluster 64xH100")
        if value is not None and not 0 < value < float("inf"):
            raise UserError(f"{option}: {value:g} is invalid; give a number above 0")
    if cluster is None:
        return None
    form = re.fullmatch(r"\s*(\d{1,7})\s*[x×*]\s*([A-Za-z][\w .+-]*?)\s*", cluster)
    if form is None or not 0 < int(form[1]) <= MOST_DEVICES:
        raise UserError(
            f"--cluster: {cluster!r} is not a number of GPUs and their name; give it as 64xH100, or 16xCPU for cores"
        )
    known = {name.lower(): name for name in (*GPU_NAMES, CPU)}
    wanted = form[2].lower().removeprefix("nvidia ").replace(" ", "-")
    if wanted not in known and rate is None:
        raise UserError(
            f"--cluster: the speed of {form[2]!r} is not known; give one of {', '.join(known.values())}, or --rate with what"
            f" a run has measured on it"
        )
    return Target(int(form[1]), known.get(wanted, form[2]), rate, price)


def plan_on(job: JobConfig, target: Target) -> dict[str, Any]:
    """plan.plan with the settings that the job would have on that cluster, and the key `estimate`, see estimate()."""
    prepared = prepare(job, leased=False)
    if target.name == CPU:
        machines = Machines(cpus=2 * target.devices + 2, cores=target.devices, gpus=0)
    else:
        cores = CORES_PER_GPU * target.devices
        machines = Machines(cpus=2 * cores, cores=cores, gpus=target.devices)
    return {**summary_of(prepared, machines), "estimate": estimate(prepared, target)}


def estimate(prepared: Prepared, target: Target) -> dict[str, Any]:
    """What labeling the input that is left would take on that cluster.

    Returns:
        sample: documents and files that were read, `exact` when these are all; documents, rejected, characters, text_bytes,
        tokens and truncated_share: value, standard error, low and high (two standard errors to each side); the fields of
        forecast.Forecast; units, unit_bytes, files_per_unit, tokens_per_second (of a device); sources: where each is from.

    Raises:
        UserError: nothing can be read, or the model's speed there is not known.
        StoreError: the object store fails.
    """
    job, work = prepared.job, prepared.plan
    sample = sample_of(prepared)
    workload = _workload(prepared, sample)
    rate, rate_source = _rate(prepared, target, sample)
    cores, cores_source = _cores_per_device(job, target)
    hardware = Hardware(
        devices=target.devices,
        tokens_per_second=rate,
        cores_per_device=cores,
        devices_per_node=CORES_PER_NODE if target.name == CPU else GPUS_PER_NODE,
        price=target.price,
    )
    found = forecast(workload, hardware, lease_seconds=job.output.lease_seconds, units_before=len(prepared.ledger.current))
    documents, truncated = sample.total("documents"), sample.total("truncated")
    sampled = "counted" if sample.exact else "sampled"
    return {
        "cluster": {"devices": target.devices, "name": target.name, "nodes": hardware.nodes},
        "sample": {
            "documents": sample.documents,
            "files": len(sample.files),
            "exact": sample.exact,
            "unreadable": sample.unreadable[:10],
            "seconds": round(sample.seconds, 2),
        },
        **{name: _interval(sample.total(name)) for name in COUNTED},
        "truncated_share": _interval(
            Estimate(truncated.value / (documents.value or 1), truncated.error / (documents.value or 1))
        ),
        "tokens_per_second": rate,
        **asdict(found),
        "shares": {name: round(share, 4) for name, share in found.shares.items()},
        "tokenizers": ceil(found.tokenizer_cores),
        "units": workload.units,
        "unit_bytes": work.unit_bytes,
        "files_per_unit": workload.files_per_unit,
        "split": _split(prepared, found, target),
        "sources": {
            **dict.fromkeys((*COUNTED, "truncated_share"), sampled),
            "tokens_per_second": rate_source,
            "units": "planned",
            "driver": f"measured: {DRIVER_SECONDS_PER_UNIT * 1000:.0f} ms per unit, and its loop",
            "tokenizers": _tokenizing_source(prepared),
            "cores_per_device": cores_source,
            "price": "yours" if target.price is not None else "not given",
        },
    }


def _interval(found: Estimate) -> dict[str, float]:
    low, high = found.interval
    values = {"value": found.value, "error": found.error, "low": low, "high": high}
    return {name: float(f"{value:.6g}") for name, value in values.items()} if found.error else values


def _workload(prepared: Prepared, sample: Sample) -> Workload:
    work = prepared.plan
    documents, rejected = sample.total("documents").value, sample.total("rejected").value
    per_unit = documents / max(work.num_units, 1)
    return Workload(
        text_bytes=sample.total("text_bytes").value,
        tokens=sample.total("tokens").value,
        tokenize_seconds=tokenize_seconds(prepared, sample),
        units=work.num_units,
        files=len(prepared.files),
        files_per_unit=round(
            min(_partitions(prepared, sample), max(per_unit, 1)) + min(rejected / max(work.num_units, 1), 1), 3
        ),
        reads=_reads([span for task in work.tasks for span in task], prepared),
    )


def _partitions(prepared: Prepared, sample: Sample) -> int:
    """Values of all partition columns together: labels, or what the sample has of an input column."""
    partitions = 1
    for column in prepared.job.output.partition_columns():
        heads = [model.facts.head for model in prepared.models if model.output.label_name == column]
        if heads:
            partitions *= prod(max(len(head.bin_labels) or len(head.labels), 1) + bool(head.fallback_label) for head in heads)
        else:
            partitions *= max(len(sample.partition_values.get(column, ())), 1)
    return partitions


def _reads(spans: Sequence[Span], prepared: Prepared) -> float:
    """Requests that read these spans from an object store.

    Objects up to SINGLE_REQUEST_BYTES are one, larger line files 8 MiB each; larger Parquet files, or parts of them, are the
    footer for planner and reader, and the row groups, about one per unit.
    """
    requests = 0.0
    for span in spans:
        size, ranges = span.file.stored.size, span.ranges
        whole = size <= SINGLE_REQUEST_BYTES and ranges[0].start_row == 0 and ranges[-1].stop_row is None
        if span.file.format == "parquet" and (not whole or prepared.job.output.input_columns() is not None):
            requests += 2 + len(ranges)
        else:
            requests += 1 if size <= SINGLE_REQUEST_BYTES else -(-size // LINES_READ_BYTES)
    return requests


def _rate(prepared: Prepared, target: Target, sample: Sample) -> tuple[float, str]:
    """(tokens per second of a device, where that is from)."""
    if target.rate is not None:
        return target.rate, "yours"
    token_flops = flops_per_token(prepared, sample)
    if token_flops is None:
        raise UserError(
            "--cluster: the model's FLOPs per token are not known; give --rate with what `label-corpus benchmark` or a run"
            " has measured"
        )
    each = f"{token_flops / 1e6:,.3g} MFLOP per token"
    if target.name == CPU:
        return CORE_FLOPS / token_flops, f"assumed: {CORE_FLOPS / 1e9:g} GFLOP/s of a core in float32; {each}"
    device = GPU_NAMES[target.name]
    model = prepared.models[0]
    is_float32_kind = model.facts.model_type in FLOAT32_KINDS
    dtype = model.config.dtype if model.config.dtype != "auto" else "float32" if is_float32_kind else gpu_dtype(device)
    peak = peak_flops(device, dtype)
    if peak is None:
        raise UserError(
            f"--cluster: the speed of {target.name} in {dtype} is not known;"
            f"{'' if is_float32_kind else ' set model.dtype to auto, or'} give --rate with what a run has measured on it"
        )
    return peak * MFU / token_flops, f"assumed: {MFU:.0%} of {peak / 1e12:g} TFLOP/s in {dtype}; {each}; measure it for --rate"


def _cores_per_device(job: ResolvedJob, target: Target) -> tuple[float, str]:
    """(cores beside each device, where that is from)."""
    given = job.compute.tokenizers
    if target.name == CPU:
        return 1.0, "the core itself"
    if given == "auto":
        return CORES_PER_GPU, f"assumed: {CORES_PER_GPU} cores beside each GPU"
    cores = given.max if isinstance(given, PoolSize) else given
    return max(cores / target.devices, 1e-9), f"compute.tokenizers: {given} for {target.devices} GPUs"


def _tokenizing_source(prepared: Prepared) -> str:
    """Where the speed of tokenizing is from: tokenizers without a fast version are measured."""
    measured = any(model.tokens_per_core for model in prepared.models)
    rate = float(f"{tokens_per_core(prepared):.2g}")
    return f"{'measured' if measured else 'assumed'}: {rate:,.0f} tokens/s of a core"


def _split(prepared: Prepared, found: Forecast, target: Target) -> str | None:
    """How to spread the corpus over several jobs, where one driver is not enough."""
    if found.jobs == 1:
        return None
    output = prepared.job.output.path
    return (
        f"{found.jobs} jobs with {target.devices // found.jobs} of the {target.devices} each: `label-corpus split JOB"
        f" {found.jobs}` writes them, and all that reads labels takes {output} for one output"
        f" ({output}/part-*/label=*/*.parquet). Larger units (compute.unit_bytes) ask for fewer jobs"
    )


def print_estimate(found: dict[str, Any]) -> None:
    """Prints an estimate for people, on stderr."""
    from rich.console import Console
    from rich.table import Table

    console = Console(file=sys.stderr, highlight=False)
    cluster, sources, shares = found["cluster"], found["sources"], found["shares"]
    what = "cores" if cluster["name"] == CPU else cluster["name"]
    table = Table("left to label", f"on {cluster['devices']:,} {what}", "from", title="estimate", title_style="")
    for name in ("documents", "characters", "tokens"):
        table.add_row(name, _with_interval(found[name]), sources[name])
    table.add_row("truncated", f"{found['truncated_share']['value']:.1%} of the documents", sources["truncated_share"])
    table.add_row("units", f"{found['units']:,} of {found['unit_bytes'] / 2**20:,.2g} MiB", sources["units"])
    table.add_section()
    table.add_row("tokens/s of one", _count(found["tokens_per_second"]), sources["tokens_per_second"])
    table.add_row("time", duration(found["seconds"]), f"start {duration(found['startup_seconds'])}, tail included")
    hours = "core hours" if cluster["name"] == CPU else "GPU hours"
    table.add_row(hours, f"{found['device_hours']:,.1f}", f"all {cluster['devices']:,} for all of the time")
    if found["cost"] is not None:
        table.add_row("cost", f"{found['cost']:,.2f}", "at your price")
    table.add_section()
    cores = f"{found['tokenizers']:,}; with reading and writing {found['cores_per_node']:,} cores per node"
    table.add_row("tokenizers that keep it busy", cores, sources["tokenizers"])
    driver = f"{found['driver_cpu_seconds'] / found['jobs']:,.0f} s of CPU, {found['driver_bytes'] / 2**20:,.0f} MiB"
    table.add_row("driver" + " of each job" * (found["jobs"] > 1), driver, sources["driver"])
    requests = ", ".join(f"{kind} {_count(count)}" for kind, count in found["requests"].items())
    table.add_row("requests", requests, "protocol, were all on an object store")
    busy = ", ".join(f"{name} {f'{share:.0%}' if share < 10 else f'{share:,.0f}-fold'}" for name, share in shares.items())
    table.add_row("busy", busy, sources["cores_per_device"])
    table.add_row("bottleneck", found["bottleneck"], f"jobs: {found['jobs']} (driver up to {DRIVER_SHARE:.0%} of a core)")
    console.print(table)
    if found["split"]:
        console.print(f"- {found['split']}; as one job: {duration(found['one_job_seconds'])}", soft_wrap=True, markup=False)
    for why in found["sample"]["unreadable"]:
        console.print(f"- could not be read: {why}", soft_wrap=True, markup=False)


def _with_interval(found: dict[str, float]) -> str:
    if not found["error"]:
        return _count(found["value"])
    return f"{_count(found['value'])} ({_count(found['low'])} to {_count(found['high'])})"


def _count(value: float) -> str:
    for size, name in ((1e12, "T"), (1e9, "G"), (1e6, "M")):
        if value >= size:
            return f"{value / size:,.4g} {name}"
    return f"{value:,.0f}"
