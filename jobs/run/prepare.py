"""`label-corpus plan`: what a run would do. Loads no model weights, starts no Ray, writes nothing."""

import base64
import difflib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from jobs.config import JobConfig
from jobs.run.fingerprint import check_same_job, result_settings
from pipeline_ops.models.config import JobModel, ModelConfig
from pipeline_ops.models.heads import check_output
from pipeline_ops.models.resolve import resolve_model
from pipeline_ops.output.commit_log import Ledger, read_job, read_ledger
from pipeline_ops.output.failed_units import outdated_failures, read_failures
from pipeline_ops.output.lease import LeaseRecord, check_free
from pipeline_ops.planning.work_plan import Plan, make_plan
from pipeline_ops.reading.documents import check_columns
from pipeline_ops.reading.input_schema import input_schema
from pipeline_ops.reading.inputs import InputFile, UnreadableInput, find_inputs
from pipeline_ops.reading.text_columns import is_text_type
from pipeline_ops.schema.errors import UserError, as_user_error, store_errors
from pipeline_ops.schema.failures import Failure
from pipeline_ops.storage.paths import full_path, is_local, join
from pipeline_ops.tokenizing.encoding import truncating_backend
from pipeline_ops.writing.unit_files import hive_folder

MAX_FOLDER_NAME = 255  # bytes, on all usual file systems


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
        retry_failed: take up again what earlier runs have quarantined.
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
        lease = check_free(job.output_store) if leased else None
    except store_errors() as error:
        raise as_user_error("output.path", job.output.path, "read", error) from error
    try:
        files, passed_over = find_inputs(job.input, job.input_store)
    except store_errors() as error:
        raise as_user_error("input.path", job.input.path, "read", error) from error
    try:
        record = read_job(job.output_store)
        ledger = read_ledger(job.output_store)
        failures = read_failures(job.output_store)
    except store_errors() as error:
        raise as_user_error("output.path", job.output.path, "read", error) from error
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
            store=job.input_store,
            unit_bytes=None if job.compute.unit_bytes == "auto" else job.compute.unit_bytes,
            failures=failures,
        )
        # of what is left only: a file that is done is not opened again
        left = list({span.file.path: span.file for task in plan.tasks for span in task}.values())
        line_types = _check_columns(job, left, checked=record is not None)
    except (*store_errors(), pa.ArrowInvalid) as error:
        raise as_user_error("input.path", job.input.path, "read", error) from error
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

    Files that cannot be read are quarantined when it is their turn, be they all of a format, unless nothing else is there.

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
            schema, seen = input_schema(alike, job.input, job.input_store)
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
            if not is_text_type(data_type):
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
