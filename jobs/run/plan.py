"""The plan command: what a run would do."""

import shlex
import socket
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from cluster.resources import TOKENS_PER_CORE, Machines, Pools, resolve_pools
from cluster.session import this_machine
from jobs.config import JobConfig
from jobs.executors.auto_executor import in_one_process
from jobs.executors.executor import Work
from jobs.executors.one_process import for_one_process
from jobs.number_format import byte_size, counted
from jobs.run.fingerprint import differing_settings, result_settings
from jobs.run.prepare import Prepared, prepare, trial_store
from pipeline_ops.classifying.padding_check import reason_against_padding
from pipeline_ops.inputs import passed_over
from pipeline_ops.inputs.file_formats import format_suffix
from pipeline_ops.inputs.input_files import InputFile
from pipeline_ops.loading.device import resolve_dtype
from pipeline_ops.loading.load import load_classifier
from pipeline_ops.models.adapters import adapted_settings
from pipeline_ops.models.config import JobModel, distinct_tokenizations, tokenization_ids
from pipeline_ops.models.padding_side import known_reason, padding_line
from pipeline_ops.models.resolve import FLOAT32_KINDS
from pipeline_ops.output.commit_log import read_job
from pipeline_ops.output.run_records import RunRecord, read_runs
from pipeline_ops.planning.local_time import Speed, dtype_speed, estimated_speed, recorded_speed
from pipeline_ops.planning.sampler import Sample, draw_sample
from pipeline_ops.planning.stray_files import StrayFiles, Strays
from pipeline_ops.reading.spans import ReadSettings
from pipeline_ops.reading.unit_sizes import UnitSizes
from pipeline_ops.schema.errors import UserError, store_access
from pipeline_ops.storage.paths import MOST_NAMES, shown, some_shown
from pipeline_ops.tokenizing.windows import window_settings

BY_GPU = "decided by the GPU"
GENERIC_LABELS = "generic names; set model.id2label"
ACTIVATION_SOURCES = {
    "head": "the model's head",
    "CrossEncoder": "saved by sentence-transformers; model.activation overrides it",
    "job": "job file",
}
RECORDS = 5  # of runs, the newest


def plan(job: JobConfig, machines: Machines | None = None, *, check_model: bool = False) -> dict[str, Any]:
    """Summarize a job before it runs: files, bytes and units committed and to run; the resolved settings with their sources.

    Args:
        job: the job; nothing is written and no lease is taken.
        machines: where the job would run; None: this machine.
        check_model: load each model here, on a CPU, as a classifier does, and try whether its answers depend on padding.

    Raises:
        UserError: as prepare() and summary_of(), and with check_model as load_classifier() and reason_against_padding().
    """
    prepared, one_process = prepare(job, leased=False), False
    if machines is None:
        machines = this_machine()
        if one_process := in_one_process(work_of(prepared), prepared.job.compute, machines):
            machines = for_one_process(machines)
    checked = {"without_padding": _checked(prepared), "models_checked": True} if check_model else {}
    summary = summary_of(prepared, machines, "one process" if one_process else "Ray")
    return {**summary, **checked, "work": work_left(prepared, machines, one_process)}


def _checked(prepared: Prepared) -> list[str]:
    """padding_lines of the models, each of which is loaded."""
    reasons = []
    for model in prepared.models:
        dtype = resolve_dtype(model.config.dtype, False, model.facts.model_type)
        loaded = load_classifier(model.config, prepared.job.storage, revision=model.facts.revision, dtype=dtype, device="cpu")
        reasons.append(reason_against_padding(loaded, model.facts))
    return padding_lines(prepared.models, reasons)


def sample_of(prepared: Prepared, *, quick: bool = False) -> Sample:
    """A sample of what is left to label; arguments and errors as draw_sample."""
    job, work = prepared.job, prepared.plan
    settings = ReadSettings(
        job.input, job.storage, job.output, prepared.column_types, UnitSizes(work.unit_bytes), fingerprint="of a sample"
    )
    with store_access("input.path", job.input.path, "read"):
        return draw_sample(work.tasks, prepared.models, settings, quick=quick)


def work_of(prepared: Prepared) -> Work:
    """What is left to label, for an executor."""
    plan = prepared.plan
    return Work(plan.unit_bytes, sum(plan.task_bytes), prepared.token_flops, tokens_per_core(prepared))


def work_left(prepared: Prepared, machines: Machines, one_process: bool) -> dict[str, Any] | None:
    """What is left to label, and how long it takes on these machines; None if nothing is left, or none of it can be read.

    Args:
        one_process: the run is not on Ray.

    Returns:
        documents, tokens: counted if `counted`, else estimated from `sampled` documents; seconds: about, of these
        startup_seconds until the first unit and after the last; None if they are not known; source: what the seconds are from,
        or why there are none.
    """
    units = prepared.plan.num_units
    if not units:
        return None
    try:
        sample = sample_of(prepared, quick=True)
    except UserError:  # the run quarantines what it cannot read
        return None
    tokens, pools = sample.total("tokens").value, _pools(prepared, machines)
    speed, source = _speed(prepared, pools, machines, sample, one_process)
    return {
        "documents": round(sample.total("documents").value),
        "tokens": round(tokens),
        "counted": sample.exact,
        "sampled": sample.documents,
        "seconds": None if speed is None else round(speed.seconds(tokens, units, pools.classifiers), 1),
        "startup_seconds": None if speed is None else round(speed.startup_seconds, 1),
        "source": source,
    }


def _speed(prepared: Prepared, pools: Pools, machines: Machines, sample: Sample, one_process: bool) -> tuple[Speed | None, str]:
    """(the speed of a run, or None; where it is from, or why it is not known)."""
    for record, what in _earlier_runs(prepared):
        speed = recorded_speed(record)
        if speed is not None:
            where = "" if record.host == socket.gethostname() else f", on {record.host}"
            return speed, f"at the speed of the {what} of {record.started[:10]}{where}"
    if pools.use_gpu:
        return None, "the speed of a GPU is measured by the first run; plan --cluster 1xNAME estimates it"
    dtypes = {resolve_dtype(model.config.dtype, False, model.facts.model_type) for model in prepared.models}
    speeds = [speed for speed in map(dtype_speed, dtypes) if speed is not None]
    if len(speeds) < len(dtypes):
        return None, f"the speed in {' and '.join(sorted(dtypes))} on this CPU is measured by the first run"
    tokens, token_flops = sample.total("tokens").value, flops_per_token(prepared, sample)
    if token_flops is None or not tokens:
        return None, "the model's FLOPs are not known; the first run measures its speed"
    speed = estimated_speed(
        token_flops,
        tokens / tokenize_seconds(prepared, sample),
        classifiers=pools.classifiers,
        tokenizers=pools.tokenizers,
        cores=machines.cores,
        bytes_per_token=sample.total("text_bytes").value / tokens,
        tokens_per_unit=tokens / prepared.plan.num_units,
        dtype_speed=min(speeds),
        one_process=one_process,
    )
    counted_as = f" in float32; bfloat16 counted as {min(speeds)} times as fast" if min(speeds) > 1 else ""
    return speed, f"by the model's FLOPs and a short measurement{counted_as}"


def tokens_per_core(prepared: Prepared) -> float:
    """Tokens of text that a core tokenizes in a second for all models, once for all that read the same."""
    return 1 / sum(1 / (model.tokens_per_core or TOKENS_PER_CORE) for model in distinct_tokenizations(prepared.models))


def tokenize_seconds(prepared: Prepared, sample: Sample) -> float:
    """Core seconds that tokenizing what is left takes, each text once for all models that read the same."""
    models = enumerate(distinct_tokenizations(prepared.models))
    return sum(sample.total(f"tokens_{number}").value / (model.tokens_per_core or TOKENS_PER_CORE) for number, model in models)


def flops_per_token(prepared: Prepared, sample: Sample) -> float | None:
    """Estimated FLOPs for each of the sample's `tokens`, which count once for each model; None where they are not known."""
    flops = tokens = 0.0
    for model, reading in zip(prepared.models, tokenization_ids(prepared.models), strict=True):
        if model.own_token_flops is None:
            return None
        count = sample.total(f"tokens_{reading}").value or 1.0
        flops, tokens = flops + count * model.own_token_flops, tokens + count
    return flops / tokens


def _earlier_runs(prepared: Prepared) -> Iterator[tuple[RunRecord, str]]:
    """(record, "run" or "trial") of the output's newest runs, then of its trials of the same models, the newest first."""
    output = prepared.job.output_store
    with store_access("output.path", output.path, "read"):
        records = read_runs(output, newest=RECORDS)
    yield from ((record, "run") for record in reversed(records))
    trials = trial_store(output)
    if trials is None:
        return
    with store_access("output.path", trials.path, "read"):
        job = read_job(trials)
        records = read_runs(trials, newest=RECORDS) if job is not None else []
    differing = differing_settings(job["settings"], result_settings(prepared.job, prepared.models)) if job is not None else []
    if not any(key.startswith("model") for key in differing):
        yield from ((record, "trial") for record in reversed(records))


def summary_of(prepared: Prepared, machines: Machines, runs_on: str = "Ray") -> dict[str, Any]:
    """Summary of a prepared job; see plan().

    Args:
        runs_on: the executor's name, see RunResult.ran_on.

    Raises:
        UserError: the machines are too small for the actor pools.
    """
    job, work = prepared.job, prepared.plan
    pools = _pools(prepared, machines)
    to_run = {span.file.path: span.file.stored.size for task in work.tasks for span in task}  # without what is quarantined
    resolved: dict[str, tuple[Any, str]] = {}
    for model in prepared.models:
        settings = _model_settings(model, pools.use_gpu)
        prefix = f"{model.name}: " if model.name else ""
        resolved |= {f"{prefix}{key}": setting for key, setting in settings.items()}
    resolved |= {
        **{f"compute.{key}": (_pool_size(pools, key), source) for key, source in pools.sources.items()},
        **({f"compute.{key}": (1, "one process for all") for key in ("tokenizers", "classifiers")} if runs_on != "Ray" else {}),
        **({"compute.batch_tokens": (BY_GPU, pools.sources["batch_tokens"])} if pools.batch_tokens is None else {}),
        "compute.unit_bytes": (work.unit_bytes, "input left to label" if job.compute.unit_bytes == "auto" else "job file"),
    }
    return {
        "files": work.files,
        "bytes": work.bytes,
        "input_table": prepared.table.to_dict() if prepared.table is not None else None,
        "folder_columns": [name for name, _ in prepared.files[0].columns if name not in job.input.text_columns],
        "files_done": work.files_done,
        "bytes_done": work.bytes_done,
        "files_to_run": len(to_run),
        "bytes_to_run": sum(to_run.values()),
        "units_done": work.units_done,
        "units_to_run": work.num_units,
        "documents_done": sum(commit.documents for commit in prepared.ledger.current.values()),
        "files_changed": len(work.changed),
        "files_removed": len(work.removed),
        "removed": list(work.removed[:MOST_NAMES]),
        "units_failed": len(prepared.failures),
        "files_passed_over": len(prepared.passed_over),
        "passed_over": passed_over.summary_of(prepared.passed_over),
        "remarks": [*stray_lines(prepared.strays), *prepared.notes, *passes_lines(prepared.models)],
        "without_padding": padding_lines(prepared.models, [known_reason(model.facts.model_type) for model in prepared.models]),
        "labels": {model.name: _labels_of(model) for model in prepared.models},
        "shared_layers": {model.name: asdict(model.shared) for model in prepared.models if model.shared is not None},
        "passes": num_passes(prepared.models),
        "drop_removed": job.output.drop_removed,
        "output": prepared.job.output.path,
        "runs_on": runs_on if work.tasks else None,
        "settings": {key: {"value": value, "from": source} for key, (value, source) in resolved.items()},
    }


def _labels_of(model: JobModel) -> list[str]:
    head = model.facts.head
    return [*(head.bin_labels or head.labels), *filter(None, [head.fallback_label])]


def _model_settings(model: JobModel, use_gpu: bool) -> dict[str, tuple[Any, str]]:
    """{setting: (resolved value, its source)} of a model."""
    config, facts = model.config, model.facts
    return {
        **({"model.revision": (facts.revision, "the hub")} if facts.revision else {}),
        **{key: (value, "the adapter's model") for key, value in adapted_settings(facts.adapted).items() if value is not None},
        "model.max_length": (facts.max_length, "job file" if config.max_length else "the model's limit"),
        "model.dtype": (
            _resolved_dtype(config.dtype, use_gpu, facts.model_type),
            _dtype_source(config.dtype, use_gpu, facts.model_type),
        ),
        **{
            key: (value, "default" if getattr(config, key.removeprefix("model.")) is None else "job file")
            for key, value in window_settings(facts.windows).items()
        },
        "activation": (facts.head.activation, ACTIVATION_SOURCES[facts.head.activation_from]),
        "head": (facts.head.kind, "the model's head" if config.problem_type == "auto" else "job file"),
        "labels": (len(facts.head.labels), "the model's id2label" + f" ({GENERIC_LABELS})" * facts.head.has_generic_labels),
    }


def _pool_size(pools: Pools, key: str) -> int | str:
    """The size of an actor pool, or the range of an autoscaling one."""
    size, min_size = getattr(pools, key), getattr(pools, f"min_{key}", None)
    return size if min_size in (None, size) else f"{min_size} to {size}"


def _pools(prepared: Prepared, machines: Machines) -> Pools:
    try:
        needs = prepared.token_flops, tokens_per_core(prepared), prepared.plan.num_units
        return resolve_pools(prepared.job.compute, machines, *needs)
    except ValueError as error:
        raise UserError(f"{error}; to plan for other machines, give them, e.g. plan --cluster 8xH100") from error


def _resolved_dtype(dtype: str, use_gpu: bool, kind: str) -> str:
    return BY_GPU if dtype == "auto" and use_gpu and kind not in FLOAT32_KINDS else resolve_dtype(dtype, use_gpu, kind)


def _dtype_source(dtype: str, use_gpu: bool, kind: str) -> str:
    if dtype != "auto":
        return "job file"
    if kind in FLOAT32_KINDS:
        return f"the model's kind, {kind}"
    return "bfloat16 if native, else float16" if use_gpu else "this machine"


def passes_lines(models: Sequence[JobModel]) -> list[str]:
    """What several models compute together: "quality and topic share 11 of 12 layers: about 1.1 passes in place of 2"."""
    if len(models) == 1:
        return []
    shared = [(model.name, model.shared) for model in models if model.shared is not None]
    if not shared:
        return [f"{len(models)} models, {len(models)} passes: as far as their files show, they have no layers in common"]
    parts = []
    for name, part in shared:
        what = f"{part.layers} of {part.num_layers} layers" if part.layers else "all but their heads"
        parts.append(f"{part.model} and {name} share {what}")
    return [f"{', '.join(parts)}: about {num_passes(models):.1f} passes in place of {len(models)}"]


def num_passes(models: Sequence[JobModel]) -> float:
    """Passes through the models of a job, in units of a whole one: what they share counts once."""
    return round(sum(model.share_of_pass for model in models), 2)


def padding_lines(models: Sequence[JobModel], reasons: Sequence[str | None]) -> list[str]:
    """A line for each model whose batches have to be without padding.

    Args:
        reasons: one per model; None: its batches may have padding.
    """
    return [
        f"{model.name}: " * bool(model.name) + padding_line(model.facts.model_type, reason)
        for model, reason in zip(models, reasons, strict=True)
        if reason is not None
    ]


def stray_lines(strays: Strays | None) -> list[str]:
    """What looks odd about the input files, a line per kind of file, and what leaves them out."""
    if strays is None:
        return []
    remedy = (
        f"to read only the others: input.path={shlex.quote(shown(strays.others))}"
        if strays.others
        else ("to leave them out, narrow input.path or move them")
    )
    return [*(f"perhaps no documents: {_some(kind.files)}: {_oddity(kind)}" for kind in strays.kinds), remedy]


def _oddity(kind: StrayFiles) -> str:
    if kind.line_characters is not None:
        return f"half of the lines have {counted(round(kind.line_characters), 'character')} or less"
    return f"{_kind_of(kind.files)} beside {_kind_of(kind.beside)}"


def _kind_of(files: Sequence[InputFile]) -> str:
    noun = f"{format_suffix(files[0].path).lstrip('.') or files[0].format} file"
    return f"{counted(len(files), noun)} of {byte_size(sum(file.stored.size for file in files))}"


def _some(files: Sequence[InputFile]) -> str:
    return some_shown([file.path for file in files])
