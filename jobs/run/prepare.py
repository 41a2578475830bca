"""`label-corpus plan`: what a run would do. Loads no model weights, starts no Ray, writes nothing."""

import base64
import difflib
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import pyarrow as pa

from cluster.resources import Machines, Pools, resolve_pools
from cluster.session import this_machine
from jobs.config import JobConfig
from jobs.run.fingerprint import check_same_job, fingerprint, result_settings
from pipeline_ops.models.model_card import card_of
from pipeline_ops.output.commit_log import Ledger, read_job, read_ledger
from pipeline_ops.schema.failures import Failure, outdated_failures, read_failures
from pipeline_ops.models.heads import check_output
from pipeline_ops.reading.inputs import InputFile, UnreadableInput, find_inputs, input_schema, is_text
from pipeline_ops.output.lease import LeaseRecord, check_free
from pipeline_ops.models.resolve import JobModel, ModelConfig, resolve_model, with_dtypes
from pipeline_ops.planning.work_plan import Plan, make_plan
from pipeline_ops.models.device import resolve_dtype
from pipeline_ops.reading.reader import check_columns
from pipeline_ops.schema.units import UserError
from pipeline_ops.tokenizing.sequences import describe_windows
from pipeline_ops.storage.files import full_path, is_local, join
from pipeline_ops.schema.errors import is_outage, store_errors
from pipeline_ops.tokenizing.encoding import truncating_backend
from pipeline_ops.writing.unit_files import hive_folder

BY_GPU = "decided by the GPU"
MAX_FOLDER_NAME = 255  # bytes, on all usual file systems
GENERIC = "without names: model.id2label gives them some"


@dataclass(frozen=True)
class Prepared:
    """A job checked against its input, its model and what its output holds already."""

    job: JobConfig  # with full paths
    files: list[InputFile]
    passed_over: list[str]  # files of no known format
    models: tuple[JobModel, ...]
    line_types: pa.Schema
    ledger: Ledger
    lease: LeaseRecord | None  # nobody's now
    failures: list[Failure]  # what is left alone
    outdated_failures: list[Failure]  # what is taken up again
    record: dict[str, Any] | None  # _job.json
    plan: Plan

    @property
    def token_flops(self) -> float | None:
        """Of all models, about, per token."""
        known = [model.token_flops for model in self.models if model.token_flops is not None]
        return sum(known) if len(known) == len(self.models) else None


def prepare(job: JobConfig, *, retry_failed: bool = False, leased: bool = True) -> Prepared:
    """Everything that can be known, and every mistake that can be found, before anything is started or written.

    Args:
        retry_failed: take up again what earlier runs have set aside.
        leased: the caller is about to write; a plan may be made while another run does.

    Raises:
        UserError: missing input, wrong columns, unknown model, output inside input, or an output of another job.
        LeaseError: another run writes to the output.
    """
    job = job.model_copy(
        update={
            "input": job.input.model_copy(update={"path": full_path(job.input.path)}),
            "output": job.output.model_copy(update={"path": full_path(job.output.path)}),
        }
    )
    _check_paths(job)
    try:
        lease = check_free(job.output.path, job.storage) if leased else None
    except store_errors() as error:
        raise refused("output.path", job.output.path, "read", error) from error
    try:
        files, passed_over = find_inputs(job.input, job.storage)
    except store_errors() as error:
        raise refused("input.path", job.input.path, "read", error) from error
    try:
        record = read_job(job.output.path, job.storage)
        ledger = read_ledger(job.output.path, job.storage)
        failures = read_failures(job.output.path, job.storage)
    except store_errors() as error:
        raise refused("output.path", job.output.path, "read", error) from error
    models = tuple(_resolve(name, config, job) for name, config in job.named_models().items())
    job = _with_models(job, models)
    _check_partitions(job)
    _check_label_folders(job, models)
    listed = {file.path: file.stored for file in files}
    outdated = failures if retry_failed else outdated_failures(failures, listed)
    taken_up = {failure.id for failure in outdated}
    failures = [failure for failure in failures if failure.id not in taken_up]
    try:
        plan = make_plan(
            files,
            ledger.commits,
            text_columns=job.input.text_columns,
            output=job.output,
            storage=job.storage,
            unit_bytes=None if job.compute.unit_bytes == "auto" else job.compute.unit_bytes,
            failures=failures,
        )
        # of what is left only: a file that is done is not opened again
        left = list({span.file.path: span.file for task in plan.tasks for span in task}.values())
        line_types = _check_columns(job, left, checked=record is not None)
    except (*store_errors(), pa.ArrowInvalid) as error:
        raise refused("input.path", job.input.path, "read", error) from error
    if record is None and ledger.commits:
        raise UserError(f"output.path: {job.output.path!r} holds labels but no _job.json to say which: give another folder")
    if record is not None:
        check_same_job(record, result_settings(job, models))
        recorded = pa.ipc.read_schema(pa.py_buffer(base64.b64decode(record["line_types"])))
        line_types = pa.schema([*recorded, *(field for field in line_types if field.name not in recorded.names)])
    return Prepared(job, files, passed_over, models, line_types, ledger, lease, failures, outdated, record, plan)


def _resolve(name: str, config: ModelConfig, job: JobConfig) -> JobModel:
    try:
        facts, tokenizer, token_flops = resolve_model(config, job.storage, pairs=job.input.text_pair_column is not None)
        output = check_output(facts.head, job.output.by_model()[name], windows=facts.windows is not None)
    except UserError as error:
        raise UserError(f"{name}: {error}" if name else str(error)) from error
    config = config.model_copy(update={"revision": facts.revision})  # workers load the very commit
    backend = truncating_backend(tokenizer, facts.max_length).to_str()
    return JobModel(name, config, facts, backend, output, token_flops)


def _with_models(job: JobConfig, models: tuple[JobModel, ...]) -> JobConfig:
    """The job with what is known of its models."""
    if job.models is None:
        return job.model_copy(update={"model": models[0].config, "output": models[0].output})
    output = job.output.model_copy(update={"parts": {model.name: model.output for model in models}})
    return job.model_copy(update={"models": tuple(model.config for model in models), "output": output})


def refused(key: str, path: str, what: str, error: BaseException) -> BaseException:
    """The user's mistake that it is when `path` cannot be read or written; the error itself when the store is failing."""
    if is_outage(error):
        return error
    notes = "".join(f" ({note})" for note in getattr(error, "__notes__", ()))
    reason = f"{type(error).__name__}: {' '.join(str(error).split()) or 'no reason given'}{notes}"
    if type(error).__name__ == "NoCredentialsError":
        reason += "; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE; public buckets: storage.anonymous=true"
    return UserError(f"{key}: {path!r} cannot be {what}: {reason}")


def _check_paths(job: JobConfig) -> None:
    source, target = job.input.path, job.output.path
    folder = source
    while any(character in folder for character in "*?["):
        folder = os.path.dirname(folder)
    if target == source or target.startswith(join(folder, "")):
        raise UserError(
            f"output.path: {target!r} is inside the input {source!r}: labels would become input; use another folder"
        )
    if source.startswith(join(target, "")):
        raise UserError(f"input.path: {source!r} is inside the output {target!r}; use another output folder")


def _aliases(job: JobConfig) -> set[str]:
    """`label` is the label column, whatever its name; but of which one of several models?"""
    return {"label"} if job.models is None else set()


def _check_partitions(job: JobConfig) -> None:
    kept = job.output.input_columns()
    known = set(job.output.added_columns().values()) | set(kept or ()) | _aliases(job)
    for name in job.output.partition_by:
        if name in job.output.list_columns():
            raise UserError(f"output.partition_by: {name!r} holds lists; name a column of single values, such as label")
        if kept is not None and name not in known:
            raise UserError(f"output.partition_by: {name!r} is not among the output's columns: {', '.join(sorted(known))}")


def _check_label_folders(job: JobConfig, models: Sequence[JobModel]) -> None:
    """Raises UserError for a label that no file system takes as a folder's name; object stores take longer ones."""
    for model in models:
        column, head = model.output.label_column, model.facts.head
        if column not in job.output.partition_columns() or not is_local(job.output.path):
            continue
        for label in (*head.labels, *head.bin_labels, *filter(None, [head.fallback_label])):
            if len(hive_folder((column,), (label,))) > MAX_FOLDER_NAME:
                raise UserError(
                    f"output.partition_by: the label {label[:40]!r}... is too long for a folder's name; give it a shorter one"
                    f" by model.id2label, or set output.partition_by: []"
                )


def _check_columns(job: JobConfig, files: list[InputFile], *, checked: bool) -> pa.Schema:
    """Looks at the first file of each format that can be read; returns the JSON Lines columns' types.

    Files that cannot be read are set aside when it is their turn, be they all of a format, unless nothing else is there.

    Args:
        checked: an earlier run has found columns that do; then nothing is refused because it cannot be read.

    Raises:
        UserError: no file of any format can be read, or a column that the job names is not there or does not do.
    """
    line_types = pa.schema([])
    unreadable: list[UnreadableInput] = []
    formats = list(dict.fromkeys(file.format for file in files))
    for file_format in formats:
        alike = [file for file in files if file.format == file_format and file.stored.size] or [
            file for file in files if file.format == file_format
        ]
        try:
            schema, seen = input_schema(alike, job.input, job.storage)
        except UnreadableInput as error:
            unreadable.append(error)
            continue
        columns = schema.names
        if file_format == "jsonl":
            line_types = schema
        if not columns:
            continue  # nothing but empty files
        texts = dict(zip(("input.text_column", "input.text_pair_column"), job.input.text_columns, strict=False))
        wanted = [*texts.items(), *(("output.columns", name) for name in job.output.input_columns() or ())]
        for key, name in wanted:
            if name not in columns and not (key == "output.columns" and file_format == "jsonl"):
                near = difflib.get_close_matches(name, columns, n=1, cutoff=0.5)
                meant = f"did you mean {near[0]!r}? " if near else ""
                raise UserError(
                    f"{key}: there is no column {name!r} in {seen.path}; {meant}it has {', '.join(map(repr, columns))}"
                )
        for key, name in texts.items():
            if columns.count(name) > 1:
                raise UserError(f"{key}: {seen.path} has more than one column {name!r}")
            data_type = schema.field(name).type
            if not is_text(data_type):
                raise UserError(f"{key}: {name!r} in {seen.path} is {data_type}, not text; name a column of texts")
        check_columns(columns, seen.path, job.output)
        known = {*columns, *job.output.added_columns().values(), *_aliases(job)}
        for name in job.output.partition_by:
            if name not in known:
                raise UserError(
                    f"output.partition_by: there is no column {name!r} in {seen.path}, nor among the labels'; there are"
                    f" {', '.join(map(repr, sorted(known)))}"
                )
    if unreadable and len(unreadable) == len(formats) and not checked:
        raise unreadable[0]
    return line_types


def job_record(prepared: Prepared, dtypes: Sequence[str], run: str) -> dict[str, Any]:
    """What `_job.json` says. The job file holds no secrets, so neither does this.

    Args:
        dtypes: of the models, as probing.probe_models gives them.
    """
    models = with_dtypes(prepared.models, dtypes)
    settings = result_settings(prepared.job, models)
    return {
        "fingerprint": fingerprint(settings),
        "settings": settings,
        "config": prepared.job.model_dump(mode="json"),
        "models": {
            model.name: {
                **model.facts.to_dict(),
                "dtype": model.dtype,
                "output": model.output.model_dump(mode="json"),
                "card": card_of(model.config, prepared.job.storage),
            }
            for model in models
        },
        "line_types": base64.b64encode(prepared.line_types.serialize().to_pybytes()).decode(),
        "versions": {name: version(name) for name in ("label-corpus", "ray", "torch", "transformers", "pyarrow")},
        "run": run,
    }


def plan(job: JobConfig, machines: Machines | None = None) -> dict[str, Any]:
    """Files, bytes, units, what is committed and what would run, and the resolved settings with their sources."""
    return summary_of(prepare(job, leased=False), machines or this_machine())


def summary_of(prepared: Prepared, machines: Machines) -> dict[str, Any]:
    """plan(), of a job that is prepared; raises UserError for pools that these machines can never hold."""
    job, work = prepared.job, prepared.plan
    pools = _pools(prepared, machines)
    resolved: dict[str, tuple[Any, str]] = {}
    for model in prepared.models:
        settings = _resolved(model, pools.use_gpu)
        prefix = f"{model.name}: " if model.name else ""
        resolved |= {f"{prefix}{key}": setting for key, setting in settings.items()}
    resolved |= {
        **{f"compute.{key}": (_shown(pools, key), source) for key, source in pools.sources.items()},
        **({"compute.batch_tokens": (BY_GPU, pools.sources["batch_tokens"])} if pools.batch_tokens is None else {}),
        "compute.unit_bytes": (work.unit_bytes, "what is left to label" if job.compute.unit_bytes == "auto" else "job file"),
    }
    return {
        "files": work.files,
        "bytes": work.bytes,
        "files_done": work.files_done,
        "bytes_done": work.bytes_done,
        "files_to_run": work.files - work.files_done,
        "bytes_to_run": work.bytes - work.bytes_done,
        "units_done": work.units_done,
        "units_to_run": work.num_units,
        "documents_done": sum(commit.documents for commit in prepared.ledger.current.values()),
        "files_changed": len(work.changed),
        "files_removed": len(work.removed),
        "units_failed": len(prepared.failures),
        "files_passed_over": len(prepared.passed_over),
        "drop_removed": job.output.drop_removed,
        "output": prepared.job.output.path,
        "settings": {key: {"value": value, "from": source} for key, (value, source) in resolved.items()},
    }


def _resolved(model: JobModel, use_gpu: bool) -> dict[str, tuple[Any, str]]:
    """{setting: (value, where it is from)} of a model."""
    config, facts = model.config, model.facts
    return {
        "model.revision": (facts.revision, "the hub" if facts.revision else "not a hub model"),
        "model.max_length": (facts.max_length, "job file" if config.max_length else "the model's limit"),
        "model.dtype": (_dtype_here(config.dtype, use_gpu), "job file" if config.dtype != "auto" else "this machine"),
        **{
            key: (value, "default" if getattr(config, key.removeprefix("model.")) is None else "job file")
            for key, value in describe_windows(facts.windows).items()
        },
        "activation": (facts.head.activation, "the model's head" if config.activation == "auto" else "job file"),
        "head": (facts.head.kind, "the model's head" if config.problem_type == "auto" else "job file"),
        "labels": (len(facts.head.labels), "the model's id2label" + f" ({GENERIC})" * facts.head.generic_labels),
    }


def _shown(pools: Pools, key: str) -> Any:
    """A pool's size, or the range of one that grows."""
    size, least = getattr(pools, key), getattr(pools, f"min_{key}", None)
    return size if least in (None, size) else f"{least} to {size}"


def _pools(prepared: Prepared, machines: Machines):
    try:
        return resolve_pools(prepared.job.compute, machines, prepared.token_flops)
    except ValueError as error:
        raise UserError(f"{error}; for another machine, plan --cluster 8xH100") from error


def _dtype_here(dtype: str, use_gpu: bool) -> str:
    return BY_GPU if dtype == "auto" and use_gpu else resolve_dtype(dtype, use_gpu)


def show(summary: dict[str, Any]) -> None:
    """Prints a plan for people, on stderr."""
    from rich.console import Console
    from rich.table import Table

    console = Console(file=sys.stderr)
    console.print(
        f"{summary['files']:,} files, {summary['bytes'] / 2**20:,.1f} MiB; {summary['files_done']:,} done"
        f" ({summary['documents_done']:,} documents in {summary['units_done']:,} units)"
    )
    console.print(
        f"to run: {summary['files_to_run']:,} files, {summary['bytes_to_run'] / 2**20:,.1f} MiB,"
        f" about {summary['units_to_run']:,} units -> {summary['output']}"
    )
    for key, what in {
        "files_changed": "have changed and are labelled again",
        "files_removed": "are gone; their labels are dropped" if summary["drop_removed"] else "are gone; their labels stay",
        "files_passed_over": "have no known suffix and are passed over",
    }.items():
        if summary[key]:
            console.print(f"{summary[key]:,} files {what}")
    if summary["units_failed"]:
        console.print(
            f"{summary['units_failed']:,} units have failed before and are left alone; run --retry-failed takes them up"
        )
    table = Table("setting", "value", "from")
    for key, setting in summary["settings"].items():
        table.add_row(key, str(setting["value"]), setting["from"])
    console.print(table)

