"""One type per column of an output, whatever its input consists of, and values cast to it.

Files of one corpus may have a column in several types: int64 in Parquet, text in CSV, int32 in an older file. Readers of an
output take a column's type from the first file that they see, so all of its files have one. It is settled from a bounded sample
of each format before the first unit is read: the widest of the types, or string where they do not go together. A column, or a
field of an object, that the sample lacks is a string. What is settled is part of `_job.json` and holds for all later runs.
"""

import contextlib
from collections import defaultdict
from collections.abc import Container, Iterable, Mapping, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from pipeline_ops.inputs.config import InputConfig
from pipeline_ops.line_formats.fitted_values import STRINGS, as_json
from pipeline_ops.line_formats.json_types import merge_type, text_for_null
from pipeline_ops.reading.exact_casts import cast_exactly
from pipeline_ops.row_formats.plain_types import as_strings, plain_type, values_of
from pipeline_ops.schema.exact_types import EXACT
from pipeline_ops.schema.misfits import MISFITS_FOLDER

FORMAT_NAMES = {
    "parquet": "Parquet",
    "jsonl": "JSON Lines",
    "csv": "CSV",
    "text": "plain text",
    "arrow": "Arrow",
    "orc": "ORC",
    "avro": "Avro",
    "wet": "WET",
}
TEXT_TYPES = {*STRINGS, pa.string_view(), pa.binary(), pa.large_binary(), pa.binary_view()}
CAST_ROWS = 256  # cast at once
MISFIT_ERRORS = (pa.ArrowException, TypeError, ValueError, OverflowError)


def is_text_type(data_type: pa.DataType) -> bool:
    """True if a column of this type can hold texts: strings, or bytes (UTF-8), dictionary-encoded or not."""
    return (data_type.value_type if pa.types.is_dictionary(data_type) else data_type) in TEXT_TYPES


def may_hold_texts(data_type: pa.DataType) -> bool:
    """True for the type of a sample in which some values are texts, or all are null."""
    mixed_with_texts = pa.types.is_union(data_type) and any(field.name == "string" for field in data_type)
    return is_text_type(data_type) or mixed_with_texts or pa.types.is_null(data_type)


def common_type(types: Iterable[pa.DataType], *, fit: bool = True) -> pa.DataType:
    """The type for values of all `types`: the widest of them; string where none is; null for nulls alone.

    Args:
        fit: False: values may be too large for a double, or a timestamp[ns], to hold exactly; such a column is string.
    """
    distinct = list(dict.fromkeys(plain_type(data_type) for data_type in types if not pa.types.is_null(data_type)))
    if any(map(pa.types.is_union, distinct)):
        return pa.string()
    if len(distinct) < 2:
        return distinct[0] if distinct else pa.null()
    schemas = [pa.schema([("value", data_type)]) for data_type in distinct]
    try:
        common = pa.unify_schemas(schemas, promote_options="permissive").field("value").type
    except pa.ArrowException:
        return pa.string()
    if pa.types.is_decimal128(common) and any(map(pa.types.is_integer, distinct)):  # Arrow's has not enough digits
        common = pa.decimal128(38, common.scale)
    return common if all(can_cast(known, common) and _is_kept(known, common, fit) for known in distinct) else pa.string()


def _is_kept(known: pa.DataType, wanted: pa.DataType, fit: bool) -> bool:
    """Whether a type that Arrow casts to `wanted` keeps its values; see common_type for `fit`."""
    if pa.types.is_struct(known) and pa.types.is_struct(wanted):
        return all(_is_kept(field.type, wanted.field(field.name).type, fit) for field in known)
    if known.num_fields == wanted.num_fields == 1:
        return _is_kept(known.field(0).type, wanted.field(0).type, fit)
    if pa.types.is_floating(wanted):
        return not pa.types.is_decimal(known) and (fit or known not in (pa.int64(), pa.uint64()))
    if pa.types.is_decimal(wanted) and pa.types.is_integer(known):
        return wanted.precision - wanted.scale >= len(str(2**known.bit_width))
    if pa.types.is_timestamp(wanted) and wanted.unit == "ns" and wanted != known:
        return fit
    return not (known == pa.uint64() and pa.types.is_signed_integer(wanted))


def can_cast(known: pa.DataType, wanted: pa.DataType) -> bool:
    """Whether Arrow can cast one type to the other; single values may still not fit."""
    try:
        pa.nulls(0, known).cast(wanted)
    except pa.ArrowException:
        return False
    return True


def settle_types(
    sampled: Mapping[str, Sequence[pa.Schema]], config: InputConfig, known: pa.Schema | None = None
) -> tuple[pa.Schema, list[str]]:
    """The types of an output's input columns, and a sentence about each column whose values change their type.

    Args:
        sampled: {format: schemas of some of its files}, of which each may lack columns; see json_types.exact.
        config: its `column_types` override the sample's types; its text columns are text whatever else a file holds.
        known: types that the output has already; they stay.
    """
    found: dict[str, dict[str, list[pa.DataType]]] = defaultdict(lambda: defaultdict(list))
    inexact = set[str]()
    for file_format, schemas in sampled.items():
        for schema in schemas:
            for field in schema:
                found[field.name][file_format].append(field.type)
                if EXACT not in (field.metadata or ()):
                    inexact.add(field.name)
    types = {field.name: plain_type(field.type) for field in known or ()}  # earlier versions kept dictionaries
    declared = {name: pa.type_for_alias(alias) for name, alias in config.column_types.items()}
    notes = []
    for name, by_format in found.items():
        seen = [data_type for of_format in by_format.values() for data_type in of_format]
        if name in types:
            if name not in config.text_columns and not _holds(types[name], seen, fit=name not in inexact):
                notes.append(
                    f"column {name!r} is {_described(by_format)}, and {types[name]} in the output so far:"
                    f" a value that does not fit is null there, and kept in {MISFITS_FOLDER}/"
                )
        elif name in config.text_columns:
            types[name] = type_of_texts(seen)
        elif name in declared:
            types[name] = declared[name]
        else:
            types[name] = text_for_null(common_type(seen, fit=name not in inexact))
            if types[name] in STRINGS and not all(is_text_type(known) or pa.types.is_null(known) for known in seen):
                notes.append(
                    f"column {name!r} is {_described(by_format)}: written as string; input.column_types decides otherwise"
                )
    if "jsonl" in sampled:  # beyond the sample, lines may have the others
        types = {**types, **{name: declared[name] for name in declared if name not in types}}
    return pa.schema([*types.items()]), notes


def _holds(known: pa.DataType, seen: Iterable[pa.DataType], *, fit: bool) -> bool:
    """Whether `known` is wide enough for values of the types that were seen."""
    return known in STRINGS or common_type([known, *seen], fit=fit) == known


def type_of_texts(seen: Iterable[pa.DataType]) -> pa.DataType:
    """The type of a column that the model reads, strings where some are bytes; values that are no texts are rejected."""
    texts = list(dict.fromkeys(plain_type(data_type) for data_type in seen if is_text_type(data_type)))
    if len(texts) == 1:
        return texts[0]
    return pa.large_string() if pa.large_string() in texts or pa.large_binary() in texts else pa.string()


def _described(by_format: Mapping[str, Sequence[pa.DataType]]) -> str:
    """The types by format, such as "int64 in Parquet and JSON Lines, text in CSV"."""
    formats: dict[str, list[str]] = defaultdict(list)
    for file_format, types in by_format.items():
        names = dict.fromkeys(name for data_type in types if not pa.types.is_null(data_type) for name in _names_of(data_type))
        if names:
            formats["text" if file_format in ("csv", "text") else " or ".join(names)].append(FORMAT_NAMES[file_format])
    return ", ".join(f"{types} in {' and '.join(names)}" for types, names in formats.items())


def _names_of(data_type: pa.DataType) -> list[str]:
    return [field.name for field in data_type] if pa.types.is_union(data_type) else [str(data_type)]


def fit_columns(table: pa.Table, types: pa.Schema, asked: Container[str]) -> tuple[pa.Table, dict[int, dict[str, str]]]:
    """Casts a table to settled types.

    Args:
        asked: columns whose type was asked for, or that are text for values of any type; see cast_exactly.

    Returns:
        (the columns of `types` in their order, of nulls where the table has none, then the table's other columns as strings;
        {index of a row with values that do not fit, for which the table has null: {column: the value's JSON}}).
    """
    columns, misfits = dict[str, pa.ChunkedArray](), dict[int, dict[str, str]]()
    for field in types:
        if field.name not in table.column_names:
            columns[field.name] = pa.chunked_array([pa.nulls(table.num_rows, field.type)])
            continue
        column = table.column(field.name)
        columns[field.name], unfit = _cast(column, field.type, field.name in asked)
        if not unfit:
            continue  # take joins a column's chunks, even to take nothing
        for index, value in zip(unfit, values_of(column.take(pa.array(unfit, pa.int64()))), strict=True):
            misfits.setdefault(index, {})[field.name] = as_json(value)
    for name in table.column_names:
        if name not in columns:
            columns[name], _ = _cast(table.column(name), pa.string(), asked=True)
    return pa.table(columns), misfits


def _cast(column: pa.ChunkedArray, wanted: pa.DataType, asked: bool) -> tuple[pa.ChunkedArray, list[int]]:
    """(the column as `wanted`, or a wider struct; the indices of the values that do not fit, for which it has null)."""
    if column.type == wanted:
        return column, []
    if wanted in STRINGS:
        return as_strings(column).cast(wanted), []
    wanted = merge_type(wanted, column.type)
    if pa.types.is_floating(column.type) and pa.types.is_integer(wanted):
        column = pc.if_else(pc.is_nan(column), None, column)  # pandas' null in a column of integers
    with contextlib.suppress(*MISFIT_ERRORS):
        return cast_exactly(column, wanted, asked), []
    chunks, unfit = list[pa.Array](), list[int]()
    for start in range(0, len(column), CAST_ROWS):  # few misfits cost few ranges, many ones no more than the rows
        part = column.slice(start, CAST_ROWS)
        try:
            chunks += cast_exactly(part, wanted, asked).chunks
        except MISFIT_ERRORS:
            for index in range(len(part)):
                try:
                    chunks += cast_exactly(part.slice(index, 1), wanted, asked).chunks
                except MISFIT_ERRORS:
                    chunks.append(pa.nulls(1, wanted))
                    unfit.append(start + index)
    return pa.chunked_array(chunks, wanted), unfit
