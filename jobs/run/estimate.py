"""`label-corpus plan --cluster`: what a run would take on a cluster that need not be there, from a sample of the input."""

import re
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from math import prod
from typing import Any

import pyarrow.compute as pc

from cluster.resources import CORE_FLOPS, TOKENS_PER_CORE, Machines, PoolSize, tokenizers_for, tokens_per_pass
from jobs.config import JobConfig
from jobs.run.plan import summary_of
from jobs.run.prepare import Prepared, prepare
from pipeline_ops.models.config import distinct_tokenizations, tokenization_ids
from pipeline_ops.models.flops import GPU_NAMES, gpu_dtype, peak_flops
from pipeline_ops.planning.estimators import Estimate, Sample, compressed_bytes, padding_share
from pipeline_ops.planning.forecast import (
    CORES_PER_GPU,
    DRIVER_SECONDS_PER_UNIT,
    DRIVER_SHARE,
    GPUS_PER_NODE,
    LABEL_BYTES,
    LINES_READ_BYTES,
    MFU,
    NODE_BYTES_PER_SECOND,
    Cluster,
    Forecast,
    Work,
    forecast,
)
from pipeline_ops.planning.sampler import draw_sample
from pipeline_ops.reading.reader import SINGLE_REQUEST_BYTES, ReadSettings
from pipeline_ops.schema.errors import UserError, as_user_error, is_store_failing, store_errors

CPU = "CPU"
CORES_PER_NODE = 16  # of a cluster of cores
GPU_BATCH_TOKENS = 65_536  # of a forward pass, for what padding there will be
MOST_DEVICES = 1_000_000
COUNTED = ("documents", "rejected", "characters", "text_bytes", "tokens")


@dataclass(frozen=True)
class Target:
    """What --cluster, --rate and --price say."""

    devices: int
    name: str  # as PEAK_FLOPS knows it, or CPU, or whatever the user calls it
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
            raise UserError(f"{option}: {value:g} does not do; give a number above 0")
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
            f" `label-corpus benchmark` has measured on it"
        )
    return Target(int(form[1]), known.get(wanted, form[2]), rate, price)


def plan_on(job: JobConfig, target: Target) -> dict[str, Any]:
    """As plan.plan, with settings as they would be on that cluster, and `estimate`: see estimate()."""
    prepared = prepare(job, leased=False)
    if target.name == CPU:
        machines = Machines(cpus=2 * target.devices + 2, cores=target.devices, gpus=0)
    else:
        cores = CORES_PER_GPU * target.devices
        machines = Machines(cpus=2 * cores, cores=cores, gpus=target.devices)
    return {**summary_of(prepared, machines), "estimate": estimate(prepared, target)}


def estimate(prepared: Prepared, target: Target) -> dict[str, Any]:
    """What labeling what is left would take there.

    Returns:
        sample: documents and files that were read, `exact` when these are all; documents, rejected, characters, text_bytes,
        tokens and truncated_share: value, error (standard), low and high (95 %); the fields of forecasting.Forecast; units,
        unit_bytes, files_per_unit, output_bytes, padding_share, tokens_per_second (of a device); sources: where each is from.

    Raises:
        UserError: nothing can be read, or nobody knows how fast the model is there.
        StoreError: the object store is at fault.
    """
    job = prepared.job
    settings = ReadSettings(
        job.input, job.storage, job.output, prepared.line_types, prepared.plan.unit_bytes, fingerprint="of a sample"
    )
    try:
        sample = draw_sample(prepared.plan.tasks, prepared.models, settings)
    except store_errors() as error:
        raise error if is_store_failing(error) else as_user_error("input.path", job.input.path, "read", error) from error
    work = _work(prepared, sample)
    rate, from_where = _rate(prepared, target, sample)
    on_cores = target.name == CPU
    cluster = Cluster(
        devices=target.devices,
        tokens_per_second=rate,
        tokens_per_core=TOKENS_PER_CORE,
        cores_per_device=_cores_per_device(job, target),
        devices_per_node=CORES_PER_NODE if on_cores else GPUS_PER_NODE,
        price=target.price,
    )
    found = forecast(
        work,
        cluster,
        lease_seconds=job.output.lease_seconds,
        units_before=len(prepared.ledger.current),
    )
    pace = found.device_seconds / target.devices
    read = "counted" if sample.exact else "sampled"
    return {
        "cluster": {"devices": target.devices, "name": target.name, "nodes": cluster.nodes},
        "sample": {
            "documents": sample.documents,
            "files": sample.files,
            "exact": sample.exact,
            "unreadable": list(sample.unreadable[:10]),
            "seconds": round(sample.seconds, 2),
        },
        **{name: _interval(sample.total(name)) for name in COUNTED},
        "truncated_share": _interval(sample.share("truncated", "documents")),
        "padding_share": round(_padding(prepared, sample, work, on_cores), 4),
        "tokens_per_second": rate,
        **{name: value for name, value in asdict(found).items() if name != "shares"},
        "shares": {name: round(share, 4) for name, share in found.shares.items()},
        "tokenizers": tokenizers_for(work.tokenized / pace, 1.0) if pace else 0,
        "units": work.units,
        "unit_bytes": prepared.plan.unit_bytes,
        "files_per_unit": work.files_per_unit,
        "output_bytes": round(work.output_bytes),
        "split": _split(prepared, found, target),
        "sources": {
            **dict.fromkeys((*COUNTED, "truncated_share", "output_bytes"), read),
            "padding_share": f"batches of {_batch_tokens(prepared, on_cores):,} tokens of the {read} lengths",
            "tokens_per_second": from_where,
            "units": "planned",
            "driver": f"measured: {DRIVER_SECONDS_PER_UNIT * 1000:.0f} ms per unit, and its loop",
            "tokenizers": f"measured: {TOKENS_PER_CORE:,} tokens/s of a core",
            "cores_per_device": "the core itself" if on_cores else _cores_source(job, target),
            "network": f"assumed: {NODE_BYTES_PER_SECOND * 8e-9:g} Gbit/s of each of {cluster.nodes} nodes",
            "price": "yours" if target.price is not None else "not given",
        },
    }


def _interval(found: Estimate) -> dict[str, float]:
    low, high = found.interval
    return {
        name: float(f"{value:.6g}") if found.error else value for name, value in _named(found.value, found.error, low, high)
    }


def _named(*values: float) -> Iterator[tuple[str, float]]:
    yield from zip(("value", "error", "low", "high"), values, strict=True)


def _work(prepared: Prepared, sample: Sample) -> Work:
    job, work = prepared.job, prepared.plan
    documents, text_bytes = sample.total("documents").value, sample.total("text_bytes").value
    sampled_bytes = max(sum(_text_bytes(sample)), 1)
    kept = compressed_bytes(sample.tables) / sampled_bytes * (text_bytes or 1)
    spans = [span for task in work.tasks for span in task]
    stored = sum(stratum.size for stratum in sample.strata)
    labels = 1
    in_sample = {name for table in sample.tables[:1] for name in table.column_names}
    for column in job.output.partition_columns():
        heads = [model.facts.head for model in prepared.models if model.output.label_column == column]
        if heads:
            labels *= prod(max(len(head.bin_labels) or len(head.labels), 1) + bool(head.fallback_label) for head in heads)
        elif column in in_sample:
            labels *= max(len({value for t in sample.tables for value in pc.unique(t.column(column)).to_pylist()}), 1)
    units = work.num_units
    rejects = min(sample.total("rejected").value / max(units, 1), 1.0)
    numbers = sum(_added_numbers(prepared))
    return Work(
        documents=documents,
        text_bytes=text_bytes,
        tokens=sample.total("tokens").value,
        tokenized=sum(sample.total(f"tokens_{reading}").value for reading in set(tokenization_ids(prepared.models))),
        stored_bytes=stored,
        output_bytes=kept + documents * (LABEL_BYTES + 4 * numbers),
        units=units,
        files=len(prepared.files),
        files_per_unit=round(min(labels, max(documents / max(units, 1), 1)) + rejects, 3),
        reads=_reads(spans, sample.row_groups_per_byte, some_columns=job.output.input_columns() is not None),
    )


def _text_bytes(sample: Sample) -> Iterator[float]:
    for stratum in sample.strata:
        for measures in [stratum.counted] if stratum.counted is not None else [found for found, _, _ in stratum.draws]:
            yield measures.get("text_bytes", 0.0)


def _added_numbers(prepared: Prepared) -> Iterator[int]:
    """Numbers of four bytes per document that each model adds beside label and score."""
    for model in prepared.models:
        labels, output = len(model.facts.head.labels), model.output
        yield labels * (output.scores + output.logits + (output.labels is True)) + 2 * (output.top_k or 0)


def _reads(spans: list[Any], row_groups_per_byte: float, *, some_columns: bool) -> float:
    """Requests that read these spans from an object store: whole objects up to 32 MiB, line files 8 MiB after 8 MiB, of Parquet
    a footer per unit and each row group."""
    requests, parquet = 0.0, {}
    for span in spans:
        size = span.file.stored.size
        if span.file.format == "parquet" and (size > SINGLE_REQUEST_BYTES or some_columns or _is_part(span)):
            requests += 2  # by its planner, and by its reader
            parquet[span.file.path] = size
        elif size > SINGLE_REQUEST_BYTES:
            requests += -(-size // LINES_READ_BYTES)
        else:
            requests += 1
    return requests + sum(parquet.values()) * row_groups_per_byte


def _is_part(span: Any) -> bool:
    return span.ranges[0].start_row > 0 or span.ranges[-1].stop_row is not None


def _rate(prepared: Prepared, target: Target, sample: Sample) -> tuple[float, str]:
    """(tokens per second of a device, where that is from)."""
    if target.rate is not None:
        return target.rate, "yours"
    flops = tokens = 0.0
    for model, reading in zip(prepared.models, tokenization_ids(prepared.models), strict=True):
        if model.token_flops is None:
            raise UserError(
                "--cluster: the model's FLOPs per token are not known; give --rate with what `label-corpus benchmark` or a run"
                " has measured"
            )
        count = sample.total(f"tokens_{reading}").value or 1.0
        flops, tokens = flops + count * model.token_flops, tokens + count
    token_flops = flops / tokens
    each = f"{token_flops / 1e6:,.3g} MFLOP per token"
    if target.name == CPU:
        return CORE_FLOPS / token_flops, f"assumed: {CORE_FLOPS / 1e9:g} GFLOP/s of a core in float32; {each}"
    device = GPU_NAMES[target.name]
    config = prepared.models[0].config
    dtype = gpu_dtype(device) if config.dtype == "auto" else config.dtype
    peak = peak_flops(device, dtype)
    if peak is None:
        raise UserError(
            f"--cluster: the speed of {target.name} in {dtype} is not known; set model.dtype to auto, or give --rate with what"
            f" `label-corpus benchmark` has measured on it"
        )
    return peak * MFU / token_flops, f"assumed: {MFU:.0%} of {peak / 1e12:g} TFLOP/s in {dtype}; {each}; measure it for --rate"


def _cores_per_device(job: JobConfig, target: Target) -> float:
    if target.name == CPU:
        return 1.0
    given = job.compute.tokenizers
    if given == "auto":
        return CORES_PER_GPU
    return max((given.max if isinstance(given, PoolSize) else given) / target.devices, 1e-9)


def _cores_source(job: JobConfig, target: Target) -> str:
    if job.compute.tokenizers == "auto":
        return f"assumed: {CORES_PER_GPU} cores beside each GPU"
    return f"compute.tokenizers: {job.compute.tokenizers} for {target.devices} GPUs"


def _batch_tokens(prepared: Prepared, on_cores: bool) -> int:
    given = prepared.job.compute.batch_tokens
    if given != "auto":
        return given
    return tokens_per_pass(prepared.token_flops or 1e9) if on_cores else GPU_BATCH_TOKENS


def _padding(prepared: Prepared, sample: Sample, work: Work, on_cores: bool) -> float:
    """The largest of what the models read."""
    unit_documents = round(work.documents / max(work.units, 1))
    return max(
        padding_share(lengths, unit_documents, batch_tokens=_batch_tokens(prepared, on_cores), max_width=model.facts.max_length)
        for lengths, model in zip(sample.lengths, distinct_tokenizations(prepared.models), strict=True)
    )


def _split(prepared: Prepared, found: Forecast, target: Target) -> str | None:
    """How the corpus is spread over several jobs, where one driver is not enough."""
    if found.jobs == 1:
        return None
    output = prepared.job.output.path
    return (
        f"{found.jobs} jobs with {target.devices // found.jobs} of the {target.devices} each: give each a part of the input"
        f" that no other has, by folder or glob (input.path), and an output of its own ({output}/part-00/, part-01/, ...);"
        f" read them as one, as {output}/part-*/label=*/*.parquet. Larger units (compute.unit_bytes) ask for fewer jobs"
    )


def show_estimate(found: dict[str, Any]) -> None:
    """Prints an estimate for people, on stderr."""
    from rich.console import Console
    from rich.table import Table

    console = Console(file=sys.stderr, highlight=False)
    cluster, sources, shares = found["cluster"], found["sources"], found["shares"]
    what = "cores" if cluster["name"] == CPU else cluster["name"]
    table = Table("what is left to label", f"on {cluster['devices']:,} {what}", "from", title="estimate", title_style="")
    for name in ("documents", "characters", "tokens"):
        table.add_row(name, _said(found[name]), sources[name])
    table.add_row("truncated", _percent(found["truncated_share"]), sources["truncated_share"])
    table.add_row("padding", f"{found['padding_share']:.1%} of the tokens of a pass", sources["padding_share"])
    table.add_row("units", f"{found['units']:,} of {found['unit_bytes'] / 2**20:,.2g} MiB", sources["units"])
    table.add_section()
    table.add_row("tokens/s of one", _count(found["tokens_per_second"]), sources["tokens_per_second"])
    table.add_row("time", _duration(found["seconds"]), f"start {_duration(found['startup_seconds'])}, tail included")
    hours = "core hours" if cluster["name"] == CPU else "GPU hours"
    table.add_row(hours, f"{found['device_hours']:,.1f}", f"all {cluster['devices']:,} for all of the time")
    if found["cost"] is not None:
        table.add_row("cost", f"{found['cost']:,.2f}", "at your price")
    table.add_section()
    cores = f"{found['tokenizers']:,}; with reading and writing {found['cores_per_node']:,} cores per node"
    table.add_row("tokenizers that keep it busy", cores, sources["tokenizers"])
    driver = f"{found['driver_cpu_seconds'] / found['jobs']:,.0f} s of CPU, {found['driver_bytes'] / 2**20:,.0f} MiB"
    table.add_row("driver" + " of each job" * (found["jobs"] > 1), driver, sources["driver"])
    table.add_row("output", f"{found['output_bytes'] / 1e9:,.4g} GB in {found['files_per_unit']:g} files per unit", "sampled")
    requests = ", ".join(f"{kind} {_count(count)}" for kind, count in found["requests"].items())
    table.add_row("requests", requests, "protocol, were all on an object store")
    busy = ", ".join(f"{name} {f'{share:.0%}' if share < 10 else f'{share:,.0f}-fold'}" for name, share in shares.items())
    table.add_row("busy", busy, f"{sources['cores_per_device']}; network {sources['network']}")
    table.add_row("bottleneck", found["bottleneck"], f"jobs: {found['jobs']} (driver up to {DRIVER_SHARE:.0%} of a core)")
    console.print(table)
    if found["split"]:
        console.print(f"- {found['split']}; as one job: {_duration(found['one_job_seconds'])}", soft_wrap=True, markup=False)
    for why in found["sample"]["unreadable"]:
        console.print(f"- could not be read: {why}", soft_wrap=True, markup=False)


def _said(found: dict[str, float]) -> str:
    if not found["error"]:
        return _count(found["value"])
    return f"{_count(found['value'])} ({_count(found['low'])} to {_count(found['high'])})"


def _percent(found: dict[str, float]) -> str:
    spread = f" ({found['low']:.1%} to {found['high']:.1%})" if found["error"] else ""
    return f"{found['value']:.1%} of the documents{spread}"


def _count(value: float) -> str:
    for size, name in ((1e12, "T"), (1e9, "G"), (1e6, "M")):
        if value >= size:
            return f"{value / size:,.4g} {name}"
    return f"{value:,.0f}"


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:,.1f} h"
