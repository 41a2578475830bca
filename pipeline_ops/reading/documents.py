"""Parsed records -> documents: their source added, rows without a usable text rejected.

Columns in: whatever the file holds. Columns out: the text columns and those that `output.columns` asks for, in the types of the
output (column_types.py), plus source_file (string), source_row (int64) and MISFITS_COLUMN. Each row is in the table, with a
text in each text column, or rejected.
"""

from collections.abc import Callable, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from pipeline_ops.inputs.config import InputConfig
from pipeline_ops.inputs.input_files import InputFile
from pipeline_ops.line_formats.fitted_values import as_json
from pipeline_ops.line_formats.parsing import BadRecord
from pipeline_ops.reading.column_types import fit_columns, is_text_type
from pipeline_ops.row_formats.plain_types import decoded, plain_type, union_texts, values_of
from pipeline_ops.schema.errors import UserError
from pipeline_ops.schema.misfits import MISFITS_COLUMN, check_not_reserved, misfits_array, misfits_of
from pipeline_ops.schema.output_columns import OutputConfig
from pipeline_ops.schema.units import MAX_DETAIL_CHARACTERS, Reason, Reject

CSV_NULLS = pyarrow.csv.ConvertOptions().null_values


def to_documents(
    file: InputFile,
    table: pa.Table,
    rows: np.ndarray,
    bad: Sequence[BadRecord],
    config: InputConfig,
    output: OutputConfig,
    types: pa.Schema,
) -> tuple[pa.Table, list[Reject]]:
    """The documents among a file's rows, and the rejects, in the order of their rows.

    Args:
        table: records of `file`; a missing text column is taken for nulls.
        rows: int64 (records,), each one's row in the file.
        bad: records that did not parse; they become rejects as well.
        types: of the input's columns (column_types.settle_types); one that does not fit is null, and JSON in MISFITS_COLUMN.

    Raises:
        UserError: as check_columns; or a column is named MISFITS_COLUMN.
    """
    if file.format in ("parquet", "csv", "text"):  # of others the column may be ours, and the file's are checked before
        check_not_reserved(table.column_names)
    asked = _asked_columns(file, table, types, config)
    table = with_constant_columns(table, file.columns)
    for column in config.text_columns:
        if column not in table.column_names:  # no record of this block has a value for it
            table = table.append_column(column, pa.nulls(table.num_rows, pa.string()))
    keep = np.ones(table.num_rows, bool)
    rejects = [Reject(file.path, record.row, record.reason, record.detail) for record in bad]
    for column in config.text_columns:
        rejects += _reject_unusable(table, column, keep, rows, file.path, config)
    kept = output.input_columns()
    if kept is not None:
        kept = (*kept, *config.text_columns, MISFITS_COLUMN)
        table = table.select([name for name in table.column_names if name in kept])
    check_columns(table.column_names, file.path, output)
    table = decoded(table)
    if not keep.all():
        table, rows = table.filter(pa.array(keep)), rows[keep]
    if file.format == "text":  # its bytes are the text; the bytes of a Parquet column stay bytes
        index = table.schema.get_field_index(config.text_column)
        table = table.set_column(index, config.text_column, decode_texts(table.column(index))[0].cast(pa.string()))
    misfits = dict[int, dict[str, str]]()
    if MISFITS_COLUMN in table.column_names:
        misfits = misfits_of(table.column(MISFITS_COLUMN))
        if kept is not None:
            misfits = {row: {name: value for name, value in of_row.items() if name in kept} for row, of_row in misfits.items()}
        table = table.drop_columns([MISFITS_COLUMN])
    if file.format == "csv":
        table = _csv_nulls(table, types)
    wanted = types if kept is None else pa.schema([field for field in types if field.name in kept])
    table, unfit = fit_columns(table, wanted, asked)
    for row, values in unfit.items():
        misfits[row] = misfits.get(row, {}) | values
    table = table.append_column(output.source_file_column, pa.repeat(pa.scalar(file.path), table.num_rows))
    table = table.append_column(output.source_row_column, pa.array(rows, pa.int64()))
    table = table.append_column(MISFITS_COLUMN, misfits_array(misfits, table.num_rows))
    return table.replace_schema_metadata(None), sorted(rejects, key=lambda reject: reject.source_row)


def _asked_columns(file: InputFile, table: pa.Table, types: pa.Schema, config: InputConfig) -> set[str]:
    """The columns whose values may change their kind; of JSON Lines all, whose values the parser has checked."""
    if file.format in ("csv", "jsonl", "text"):
        return {*types.names}
    declared = {*config.column_types} & {*types.names}
    asked = {name for name in declared if types.field(name).type == pa.type_for_alias(config.column_types[name])}
    return asked | {name for name, _ in file.columns if name not in table.column_names}


def with_constant_columns(table: pa.Table, columns: Sequence[tuple[str, str | None]]) -> pa.Table:
    """A file's rows with the columns of its folders or its table's partition (InputFile.columns).

    Where the file has a column of that name, its values stay, and the folder's takes the place of nulls; one that does not fit
    the column's type is in MISFITS_COLUMN for these rows.
    """
    for name, value in columns:
        if name not in table.column_names or pa.types.is_null(table.schema.field(name).type):
            filled = pa.repeat(pa.scalar(value, pa.string()), table.num_rows)
            index = table.schema.get_field_index(name)
            table = table.append_column(name, filled) if index < 0 else table.set_column(index, name, filled)
        elif value is not None and table.column(name).null_count:
            index, column = table.schema.get_field_index(name), table.column(name)
            column = column.cast(plain_type(column.type))
            try:
                table = table.set_column(index, name, pc.fill_null(column, pa.scalar(value).cast(column.type)))
            except pa.ArrowException:  # the folder's value is none of the column's type
                table = _with_misfits(table, name, value, pc.indices_nonzero(column.is_null()).to_pylist())
    return table


def _with_misfits(table: pa.Table, name: str, value: str, rows: Sequence[int]) -> pa.Table:
    """A table with a misfit of column `name` added to `rows` that have none."""
    index = table.schema.get_field_index(MISFITS_COLUMN)
    known = misfits_of(table.column(index)) if index >= 0 else {}
    misfits = known | {row: {name: as_json(value)} | known.get(row, {}) for row in rows}
    column = misfits_array(misfits, table.num_rows)
    return table.append_column(MISFITS_COLUMN, column) if index < 0 else table.set_column(index, MISFITS_COLUMN, column)


def _csv_nulls(table: pa.Table, types: pa.Schema) -> pa.Table:
    """A CSV file's columns, where `types` has no texts with nulls for what Arrow takes for one: an empty field, NA, ..."""
    for field in types:
        if field.name in table.column_names and not is_text_type(field.type):
            index = table.schema.get_field_index(field.name)
            trimmed = pc.utf8_trim_whitespace(table.column(index))
            is_null = pc.is_in(trimmed, pa.array(CSV_NULLS, trimmed.type))
            table = table.set_column(index, field.name, pc.if_else(is_null, None, trimmed))
    return table


def check_columns(columns: list[str], path: str, output: OutputConfig) -> None:
    """Raises UserError if one of the input's `columns` that are kept has the name of a column that labeling adds."""
    for key, name in taken_names(columns, output).items():
        raise UserError(
            f"output.{key}: the input has a column {name!r} of its own ({path}); set output.{key} to another name,"
            f" or leave that column out by output.columns"
        )


def taken_names(columns: Sequence[str], output: OutputConfig) -> dict[str, str]:
    """{key of output: name} of the columns that labeling adds and that are among the input's `columns` that are kept."""
    kept = output.input_columns()
    return {key: name for key, name in output.added_columns().items() if name in columns and (kept is None or name in kept)}


def _reject_unusable(
    table: pa.Table, name: str, keep: np.ndarray, rows: np.ndarray, path: str, config: InputConfig
) -> list[Reject]:
    """Clears `keep` (bool, per row) where the text in column `name` cannot be labeled; returns a reject for each such row."""
    column, rejects = table.column(name), list[Reject]()
    prefix = f"{name}: " if config.text_pair_column is not None else ""

    def reject(bad: np.ndarray, reason: Reason, detail_of: Callable[[int], str]) -> None:
        for index in np.flatnonzero(bad & keep).tolist():
            detail = (prefix + detail_of(index))[:MAX_DETAIL_CHARACTERS]
            rejects.append(Reject(path, int(rows[index]), reason, detail))
        keep[bad] = False

    if pa.types.is_union(column.type):
        texts, other = union_texts(column)
        reject(other, "not_a_string", lambda index: as_json(values_of(column.slice(index, 1))[0]))
        column = texts
    if not (is_text_type(column.type) or pa.types.is_null(column.type)):
        reject(np.ones(len(column), bool), "not_a_string", lambda index: f"{column.type}: {column[index].as_py()!r}")
        return rejects
    reject(column.is_null().to_numpy(), "null_text", lambda index: "the text is null or missing")
    if pa.types.is_null(column.type):
        return rejects
    decoded, errors = decode_texts(column)
    reject(np.array([error is not None for error in errors]) if errors else ~keep, "undecodable", lambda i: str(errors[i]))
    min_characters = config.min_characters if name == config.text_column else 0
    if min_characters and len(column):
        lengths = pc.fill_null(pc.utf8_length(pc.utf8_trim_whitespace(decoded)), 0).to_numpy()
        reject(lengths < min_characters, "too_short", lambda index: f"{lengths[index]} characters")
    return rejects


def decode_texts(column: pa.ChunkedArray) -> tuple[pa.ChunkedArray, list[str | None]]:
    """A column of a text type, or of unions, as large_string; null where its bytes are not UTF-8, or are no text.

    Returns:
        (the column; per row the decoding error or None, [] if there is no error at all).
    """
    if pa.types.is_union(column.type):
        column, _ = union_texts(column)
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    as_bytes = column.cast(pa.large_binary())
    try:
        return as_bytes.cast(pa.large_string()), []  # the cast checks the encoding
    except pa.ArrowInvalid:
        texts: list[str | None] = []
        errors: list[str | None] = []
        for value in as_bytes.to_pylist():
            try:
                texts.append(None if value is None else value.decode())
                errors.append(None)
            except UnicodeDecodeError as error:
                texts.append(None)
                errors.append(str(error))
        return pa.chunked_array([pa.array(texts, pa.large_string())]), errors
