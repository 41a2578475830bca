"""prepare(): every check of a job before a run or a plan. Loads no model weights, starts no Ray, writes nothing."""

import base64
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from jobs.checking.columns import (
    check_input_columns,
    check_label_folders,
    check_partition_types,
    check_partitions,
    other_formats,
)
from jobs.checking.table import check_table
from jobs.config import JobConfig, ResolvedJob
from jobs.run.fingerprint import check_same_job, check_same_part, check_trial, differing_settings, result_settings
from pipeline_ops.inputs.input_files import MAX_OPENED_FILES, InputFile
from pipeline_ops.inputs.listing import find_inputs, in_part
from pipeline_ops.inputs.passed_over import PassedOver
from pipeline_ops.joining.parts import check_labeled_once
from pipeline_ops.line_formats.json_types import text_for_null
from pipeline_ops.models.adapters import pinned
from pipeline_ops.models.config import JobModel, ModelConfig, model_notes
from pipeline_ops.models.fetch import WEIGHT_SUFFIXES
from pipeline_ops.models.heads import check_output
from pipeline_ops.models.resolve import resolve_model
from pipeline_ops.models.shared_layers import with_shared_layers
from pipeline_ops.output.commit_log import Ledger, read_job, read_ledger
from pipeline_ops.output.committed_files import example_files, schemas_of_files
from pipeline_ops.output.failed_units import outdated_failures, read_failures
from pipeline_ops.output.lease import LeaseRecord, check_free
from pipeline_ops.planning.first_documents import first_documents
from pipeline_ops.planning.stray_files import Strays, find_strays
from pipeline_ops.planning.work_plan import Plan, make_plan
from pipeline_ops.reading.column_types import common_type, settle_types
from pipeline_ops.reading.csv_guess import csv_remarks
from pipeline_ops.reading.encoding_guess import encoding_notes
from pipeline_ops.reading.text_columns import MissingColumn
from pipeline_ops.schema.errors import UserError, store_access
from pipeline_ops.schema.failures import Failure
from pipeline_ops.schema.output_columns import NO_TABLE, OutputConfig, columns_of_models, combined_output
from pipeline_ops.storage.paths import check_apart, full_path
from pipeline_ops.storage.store import Store
from pipeline_ops.tables.input_table import InputTable
from pipeline_ops.tokenizing.sequences import definition_of

OnListed = Callable[[int], None] | None
FOLDER_COLUMNS = "folder_columns"  # key of _job.json
TRIAL_SUFFIX = "-trial"  # of a trial's output, behind the path of the job's


@dataclass(frozen=True)
class Prepared:
    """A job that has been checked against its input, its models and its output, and the plan of what is left."""

    job: ResolvedJob
    files: list[InputFile]  # of a trial the first ones
    passed_over: list[PassedOver]  # files below the input that are not read
    column_types: pa.Schema  # of the input's columns, in the whole output
    notes: list[str]  # sentences on models, files without the text column, columns of several types, encodings and CSV
    ledger: Ledger
    lease: LeaseRecord | None  # the newest; not held
    failures: list[Failure]  # quarantined, not to be retried
    outdated_failures: list[Failure]  # of units to be labeled again
    record: dict[str, Any] | None  # _job.json
    plan: Plan
    strays: Strays | None = None  # among all files; not looked for where nothing is left to label
    limit: int | None = None  # of a trial: how many documents it labels at the most
    replaces_trial: bool = False  # the output holds another trial; nothing of it is in what is above
    folder_columns: bool = True  # False: the output was begun by a version that had no columns of folders and partitions

    @property
    def models(self) -> tuple[JobModel, ...]:
        return self.job.models

    @property
    def table(self) -> InputTable | None:
        """The version of a table that the input is; None for files."""
        return self.files[0].table

    @property
    def token_flops(self) -> float | None:
        """Estimated FLOPs per token of all models together, shared layers once; None where one's are not known."""
        known = [model.own_token_flops for model in self.models if model.own_token_flops is not None]
        return sum(known) if len(known) == len(self.models) else None


def prepare(
    config: JobConfig, *, retry_failed: bool = False, leased: bool = True, limit: int | None = None, on_listed: OnListed = None
) -> Prepared:
    """Checks a job against its input, its models and its output, before anything is started or written.

    Args:
        retry_failed: plan the units again that earlier runs have quarantined.
        leased: the caller is about to write, so nobody else may be writing.
        limit: for a trial: at most the first `limit` documents of the input, into an output of their own.
        on_listed: called with the bytes of the input files that have no commit, as soon as they are listed.

    Raises:
        UserError: missing input, wrong columns, unknown model, output inside input, or an output of another job, or of this
            job's parts, or of the job that this is a part of.
        LeaseError: another run writes to the output.
    """
    config = config.model_copy(
        update={
            "input": config.input.model_copy(update={"path": full_path(config.input.path)}),
            "output": config.output.model_copy(update={"path": full_path(config.output.path)}),
        }
    )
    check_apart(config.input.path, config.output.path, "labels")
    if limit is not None:
        config = _trial_of(config, limit)
        check_apart(config.input.path, config.output.path, "labels")
    with store_access("output.path", config.output.path, "read"):
        lease = check_free(config.output_store) if leased else None
    with store_access("output.path", config.output.path, "read"):
        record = read_job(config.output_store)
        if record is None:
            _check_no_model(config.output_store)
        check_labeled_once(config.output_store, leased=leased)
        ledger = read_ledger(config.output_store)
        failures = read_failures(config.output_store)
    with store_access("input.path", config.input.path, "read"):
        every_file = config.input.model_copy(update={"part": None})
        listed_files, passed_over = find_inputs(every_file, config.input_store, ledger.input_paths)
        files = in_part(listed_files, config.input, config.input_store)
    if on_listed is not None:
        on_listed(sum(file.stored.size for file in files if file.path not in ledger.input_paths))
    job = _resolve(config)
    check_partitions(job)
    check_label_folders(job)
    check_trial(record, limit, job)
    first = None
    if limit is not None:
        with store_access("input.path", job.input.path, "read"):
            first = first_documents(files, limit, job.input, job.input_store)
        files = first.files
    replaces_trial = (
        first is not None
        and record is not None
        and not (
            first.holds(ledger.current.values())
            and not differing_settings(record["settings"], result_settings(job, job.models))
        )
    )
    if replaces_trial:
        record, ledger, retry_failed = None, Ledger(pack_term=ledger.pack_term), True
    folder_columns = record is None or FOLDER_COLUMNS in record
    if not folder_columns:  # columns that its files lack would not be in what is labeled from now on only
        files = [file.without_columns(kept=job.input.text_columns) for file in files]
        listed_files = [file.without_columns(kept=job.input.text_columns) for file in listed_files]
    listed = {file.path: file.stored for file in files}
    outdated = failures if retry_failed else outdated_failures(failures, listed)
    retried = {failure.id for failure in outdated}
    failures = [failure for failure in failures if failure.id not in retried]
    unit_bytes = None if job.compute.unit_bytes == "auto" else job.compute.unit_bytes
    with store_access("input.path", job.input.path, "read", pa.ArrowInvalid):
        plan = make_plan(
            files,
            ledger.commits,
            text_columns=job.input.text_columns,
            output=job.output,
            store=job.input_store,
            unit_bytes=unit_bytes if first is None else first.unit_bytes(unit_bytes),
            failures=failures,
        )
        # only files with work left are opened
        left = list({span.file.path: span.file for task in plan.tasks for span in task}.values())
        if left and (first is not None or job.input.part is not None):
            left = listed_files  # of a trial, and of a part, columns have the types that they have in a whole run
        try:
            sampled, columns_missing = check_input_columns(job, left, checked=record is not None)
        except MissingColumn as error:
            raise UserError(f"{error}{other_formats(error, job, listed_files, passed_over)}") from None
        strays = find_strays(listed_files, passed_over, job.input, job.input_store) if plan.tasks else None
    if record is None and ledger.commits:
        raise UserError(f"output.path: {job.output.path!r} holds labels but no _job.json; give another folder")
    known = None
    if record is not None:
        check_same_job(record, result_settings(job, job.models))
        check_same_part(record, job.input, job.output.path)
        with store_access("output.path", job.output.path, "read"):
            known = _known_types(record, ledger, job, sampled)
    types, notes = settle_types(sampled, job.input, known)
    if record is None:
        check_partition_types(job, types)
    check_table(job, types, published=record is not None)
    if plan.tasks:
        with store_access("input.path", job.input.path, "read"):
            notes += csv_remarks(left, job.input, job.input_store)
            notes += encoding_notes(left, job.input, job.input_store)
    return Prepared(
        job,
        files,
        passed_over,
        types,
        [*model_notes(job.models), *columns_missing, *notes],
        ledger,
        lease,
        failures,
        outdated,
        record,
        plan,
        strays,
        limit,
        replaces_trial,
        folder_columns,
    )


def _known_types(
    record: dict[str, Any], ledger: Ledger, job: ResolvedJob, sampled: Mapping[str, Sequence[pa.Schema]]
) -> pa.Schema:
    """The types of the input's columns in the output so far: as recorded, of further columns as its files have them.

    Such are columns that no sample had, and those that are not of JSON Lines in an output of a version that recorded
    `line_types` only.
    """
    settled = "column_types" in record
    recorded = pa.ipc.read_schema(pa.py_buffer(base64.b64decode(record["column_types" if settled else "line_types"])))
    if all(name in recorded.names for schemas in sampled.values() for schema in schemas for name in schema.names) and settled:
        return recorded
    added = job.output.added_columns().values()
    found: dict[str, list[pa.DataType]] = {field.name: [field.type] for field in recorded}
    for schema in schemas_of_files(job.output_store, example_files(ledger.current.values())[:MAX_OPENED_FILES]):
        for field in schema:
            if field.name not in added and not (settled and field.name in recorded.names):
                found.setdefault(field.name, []).append(field.type)
    return pa.schema([(name, text_for_null(common_type(types))) for name, types in found.items()])


def trial_store(output: Store) -> Store | None:
    """Where the trials of a job with that output go; None for a whole bucket, which has none."""
    if not output.is_local and "/" not in output.path.split("://", 1)[1]:
        return None
    return Store(output.path + TRIAL_SUFFIX, output.config)


def _trial_of(config: JobConfig, limit: int) -> JobConfig:
    """The job with the output of its trials, which are for their author alone: no table."""
    if limit < 1:
        raise UserError(f"limit: {limit} documents; give 1 or more")
    trial = trial_store(config.output_store)
    if trial is None:
        raise UserError(
            f"output.path: {config.output.path!r} is a whole bucket, and a trial would be another one; give a folder in it"
        )
    return config.model_copy(update={"output": config.output.model_copy(update={"path": trial.path} | NO_TABLE)})


def _resolve(config: JobConfig) -> ResolvedJob:
    """Identifies the models, and decides the columns that each of them adds."""
    configs = config.named_models()
    columns = columns_of_models(config.output, list(configs))
    models = tuple(_resolve_model(name, model, columns[name], config) for name, model in configs.items())
    try:
        output = combined_output(config.output, {model.name: model.output for model in models})
    except ValueError as error:  # which columns a model adds depends on its head
        raise UserError(f"models: {error}") from error
    return ResolvedJob(config.input, with_shared_layers(models), output, config.storage, config.compute)


def _resolve_model(name: str, config: ModelConfig, columns: OutputConfig, job: JobConfig) -> JobModel:
    try:
        pairs = job.input.text_pair_column is not None
        found = resolve_model(config, job.storage, pairs=pairs)
        facts = found.facts
        output = check_output(facts.head, columns, windows=facts.windows is not None, model_type=facts.model_type)
    except UserError as error:
        if not name:
            raise
        raise type(error)(f"{name}: {error}") from error
    config, definition = pinned(config, facts), definition_of(found.tokenizer, facts.max_length)
    return JobModel(name, config, facts, definition, output, found.token_flops, found.remarks, found.tokens_per_core)


def _check_no_model(output: Store) -> None:
    """Raises UserError for a folder with a model in it: labels among its files, and a training that replaces them all."""
    try:
        output.stat("config.json")
    except FileNotFoundError:
        return
    weights = [output.relative(file.path) for file in output.list_all() if file.path.endswith(WEIGHT_SUFFIXES)]
    if weights:
        raise UserError(
            f"output.path: {output.path!r} holds a model (config.json, {weights[0]}), not labels; give another folder"
        )
