"""The columns that a job names, against those that the files have and those that labeling adds."""

import shlex
from contextlib import suppress

import pyarrow as pa

from jobs.config import ResolvedJob
from pipeline_ops.inputs.input_files import InputFile, UnreadableInput, unreadable_notes
from pipeline_ops.inputs.passed_over import PassedOver
from pipeline_ops.planning.stray_files import glob_of_columns
from pipeline_ops.reading.column_types import is_text_type
from pipeline_ops.reading.documents import check_columns, taken_names
from pipeline_ops.reading.input_schema import files_by_format, sample_columns
from pipeline_ops.reading.text_columns import MissingColumn, missing_column, text_column_mistake
from pipeline_ops.schema.errors import UserError, names_shown
from pipeline_ops.schema.output_columns import OutputConfig
from pipeline_ops.storage.paths import is_local, shown, some_shown
from pipeline_ops.writing.hive_partitions import can_partition, hive_folder

MAX_FOLDER_NAME = 255  # bytes, on all usual file systems


def _aliases(job: ResolvedJob) -> set[str]:
    """Other names of added columns: `label` is the label column of a job's only model, whatever its name."""
    return set() if job.has_named_models else {"label"}


def check_partitions(job: ResolvedJob) -> None:
    kept = job.output.input_columns()
    known = set(job.output.added_columns().values()) | set(kept or ()) | _aliases(job)
    for name in job.output.partition_by:
        if name in job.output.list_columns():
            raise UserError(f"output.partition_by: {name!r} holds lists; name a column of single values, such as label")
        if kept is not None and name not in known:
            raise UserError(f"output.partition_by: {name!r} is not among the output's columns: {', '.join(sorted(known))}")


def check_partition_types(job: ResolvedJob, types: pa.Schema) -> None:
    """Raises UserError for an input's column whose values the names of folders cannot give back, such as bytes.

    Args:
        types: of the input's columns, as they are settled.
    """
    added = job.output.added_columns().values()
    for name in job.output.partition_by:
        if name in types.names and name not in added and not can_partition(types.field(name).type):
            raise UserError(
                f"output.partition_by: the column {name!r} is {types.field(name).type}, which the name of a folder cannot hold;"
                f" name another column, or label its values as texts: input.column_types={{{name}: string}}"
            )


def check_label_folders(job: ResolvedJob) -> None:
    """Raises UserError for a label too long for a folder's name on local disk; object stores take longer ones."""
    for model in job.models:
        column, head = model.output.label_name, model.facts.head
        if column not in job.output.partition_columns() or not is_local(job.output.path):
            continue
        for label in (*head.labels, *head.bin_labels, *filter(None, [head.fallback_label])):
            if len(hive_folder((column,), (label,))) > MAX_FOLDER_NAME:
                raise UserError(
                    f"output.partition_by: the label {label[:40]!r}... is too long for a folder's name; give it a shorter one"
                    f" by model.id2label, or set output.partition_by: []"
                )


def other_formats(missing: MissingColumn, job: ResolvedJob, files: list[InputFile], passed_over: list[PassedOver]) -> str:
    """The end of an error about a missing column: how to read only the formats that have it; "" if none has."""
    having = []
    for file_format in {file.format for file in files} - {missing.file_format}:
        alike = [file for file in files if file.format == file_format]
        with suppress(UserError):  # of files that would be refused as well
            _, schema = sample_columns(alike, job.input, job.input_store)[0]
            if missing.column in schema.names and is_text_type(schema.field(missing.column).type):
                having.append(file_format)
    return read_only(glob_of_columns(files, passed_over, having, job.input))


def read_only(glob: str | None) -> str:
    """The end of an error about a column: the setting that reads only the files that have it; "" without a glob."""
    return "" if glob is None else f"; to read only files that have it: input.path={shlex.quote(shown(glob))}"


def check_input_columns(
    job: ResolvedJob, files: list[InputFile], *, checked: bool
) -> tuple[dict[str, list[pa.Schema]], list[str]]:
    """Checks the columns of some readable files of each format.

    Unreadable files, and files without the text columns, are no mistake of the job's as long as one file of the format can be
    read and has them: the run quarantines the others, or rejects their rows.

    Args:
        checked: an earlier run has checked the columns, and the job is still the same: whatever is wrong with the files, it is
            no mistake of the job's.

    Returns:
        ({format: columns of its sampled files, without those that cannot be labeled}, sentences about these).

    Raises:
        UserError: no file of any format can be read, or a column that the job names is missing or of the wrong type.
    """
    found: dict[str, list[pa.Schema]] = {}
    notes: list[str] = []
    unreadable: list[UnreadableInput] = []
    broken: dict[str, str] = {}
    formats = files_by_format(files)
    for file_format, alike in formats.items():
        try:
            sampled = sample_columns(alike, job.input, job.input_store, broken)
        except UnreadableInput as error:
            unreadable.append(error)
            continue
        filled = [(file, schema) for file, schema in sampled if schema.names]
        mistakes = [(file, text_column_mistake(job.input, file, schema)) for file, schema in filled]
        wrong = [(file, mistake) for file, mistake in mistakes if mistake is not None]
        if wrong and len(wrong) == len(filled) and not checked:
            raise wrong[0][1]
        if file_format == "jsonl":
            wrong = []  # one sample of several files, whose rows are rejected one by one
        for column in dict.fromkeys(mistake.column for _, mistake in wrong):
            paths = [file.path for file, mistake in wrong if mistake.column == column]
            notes.append(f"not labeled, for want of a text column {column!r}: {some_shown(paths)}")
        unfit = {file.path for file, _ in wrong}
        usable = [(file, schema) for file, schema in sampled if file.path not in unfit]
        if usable:
            found[file_format] = [_without_taken(schema, job.output) for _, schema in usable]
        if filled and not checked:
            _check_other_columns(job, file_format, [(file, schema) for file, schema in usable if schema.names])
    if unreadable and len(unreadable) == len(formats) and not checked:
        raise unreadable[0]
    return found, [*unreadable_notes(broken), *notes]


def _without_taken(schema: pa.Schema, output: OutputConfig) -> pa.Schema:
    """The columns that other files may be given: without names of added ones, for which the run quarantines a file."""
    taken = taken_names(schema.names, output).values()
    return pa.schema([field for field in schema if field.name not in taken])


def _check_other_columns(job: ResolvedJob, file_format: str, sampled: list[tuple[InputFile, pa.Schema]]) -> None:
    """Checks the columns besides the texts that a job names: one of the files has to have each, in the others it is null.

    Raises:
        UserError: none has; or the first file has a column that labeling adds.
    """
    seen, schema = sampled[0]
    columns = list(dict.fromkeys(name for _, other in sampled for name in other.names))
    for name in job.output.input_columns() or ():
        if name not in columns and file_format != "jsonl":
            raise missing_column("output.columns", name, seen, columns)
    check_columns(schema.names, seen.path, job.output)
    known = {*columns, *job.output.added_columns().values(), *_aliases(job)}
    for name in job.output.partition_by:
        if name not in known:
            raise UserError(
                f"output.partition_by: there is no column {name!r} in {seen.path}, nor among the labels'; there are"
                f" {names_shown(sorted(known))}"
            )
