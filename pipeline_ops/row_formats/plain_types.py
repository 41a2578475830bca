"""Arrow types without encodings: dictionaries, views, run ends and extension types become what they stand for."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline_ops.line_formats.fitted_values import as_text, fit_value
from pipeline_ops.line_formats.json_types import with_children

PLAIN_TYPES = {pa.string_view(): pa.large_string(), pa.binary_view(): pa.large_binary()}
BYTES_OR_STRINGS = {*PLAIN_TYPES, pa.string(), pa.large_string(), pa.binary(), pa.large_binary()}


def plain_type(data_type: pa.DataType) -> pa.DataType:
    """A type without dictionaries, views, run ends, unions and extension types, at any depth.

    The dictionaries of two files have other values, maybe more than an index of one file can count, and readers that join the
    files fail. Arrow cannot filter views and run ends. An extension type may be known to one process and unknown to another.
    """
    if pa.types.is_dictionary(data_type) or pa.types.is_run_end_encoded(data_type):
        return plain_type(data_type.value_type)
    if isinstance(data_type, pa.BaseExtensionType):
        return plain_type(data_type.storage_type)
    if pa.types.is_list_view(data_type):
        return pa.list_(data_type.value_field.with_type(plain_type(data_type.value_type)))
    if pa.types.is_large_list_view(data_type):
        return pa.large_list(data_type.value_field.with_type(plain_type(data_type.value_type)))
    if pa.types.is_union(data_type) or data_type == pa.month_day_nano_interval():  # Parquet cannot hold them
        return pa.string()
    return PLAIN_TYPES.get(data_type, with_children(data_type, plain_type))


def plain_schema(schema: pa.Schema) -> pa.Schema:
    """A schema with its columns' plain types, its metadata kept; unlike some others it has an empty table."""
    return pa.schema([field.with_type(plain_type(field.type)) for field in schema], schema.metadata)


def without_encodings(table: pa.Table) -> pa.Table:
    """A table as `decoded`, but whose columns of unions stay: which of their values are texts can still be seen."""
    plain = decoded(table)
    for index, field in enumerate(table.schema):
        if pa.types.is_union(field.type):
            plain = plain.set_column(index, field, table.column(index))
    return plain


def decoded(table: pa.Table) -> pa.Table:
    """A table with its columns in their plain types, its schema's metadata kept."""
    for index, field in enumerate(table.schema):
        if pa.types.is_union(field.type):
            table = table.set_column(index, field.name, _unions_as_strings(table.column(index)))
    schema = plain_schema(table.schema)
    if any(map(_has_list_views, table.schema.types)):
        return _rebuilt(table, schema)
    try:
        return table.cast(schema)
    except pa.ArrowNotImplementedError:
        return _rebuilt(table, schema)


def _has_list_views(data_type: pa.DataType) -> bool:
    """Casts of list views give arrays that are not valid (pyarrow 26)."""
    if pa.types.is_list_view(data_type) or pa.types.is_large_list_view(data_type):
        return True
    return any(_has_list_views(data_type.field(index).type) for index in range(data_type.num_fields))


def _rebuilt(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """A table cast value by value, where its columns have not the types of the schema already."""
    columns = [
        column
        if column.type == field.type
        else pa.chunked_array([pa.array([fit_value(value, field.type) for value in column.to_pylist()], field.type)])
        for column, field in zip(table.columns, schema, strict=True)
    ]
    return pa.table(columns, schema)


def union_texts(column: pa.ChunkedArray) -> tuple[pa.ChunkedArray, np.ndarray]:
    """(the texts of a column of unions, strings or bytes, as large_binary; bool per row: its value is none)."""
    other = np.zeros(len(column), bool)

    def texts_of(rows: np.ndarray, values: pa.Array) -> pa.Array:
        values = decoded(pa.table({"branch": values})).column(0).combine_chunks()
        if values.type in BYTES_OR_STRINGS:
            return values.cast(pa.large_binary())
        other[rows] = values.is_valid().to_numpy(zero_copy_only=False)
        return pa.nulls(len(values), pa.large_binary())

    return _of_branches(column, texts_of, pa.large_binary()), other


def _unions_as_strings(column: pa.ChunkedArray) -> pa.ChunkedArray:
    def strings_of(rows: np.ndarray, values: pa.Array) -> pa.Array:
        return as_strings(pa.chunked_array([values])).cast(pa.string()).combine_chunks()

    return _of_branches(column, strings_of, pa.string())


def _of_branches(
    column: pa.ChunkedArray, change: Callable[[np.ndarray, pa.Array], pa.Array], data_type: pa.DataType
) -> pa.ChunkedArray:
    """A column of unions as `data_type`: `change` is given the rows and the values of each branch."""
    chunks, start = list[pa.Array](), 0
    for chunk in column.chunks:
        codes, order, parts = chunk.type_codes.to_numpy(), list[np.ndarray](), list[pa.Array]()
        for index, code in enumerate(chunk.type.type_codes):
            here = np.flatnonzero(codes == code)
            places = here if chunk.type.mode == "sparse" else chunk.offsets.to_numpy()[here]
            order.append(here)
            parts.append(change(start + here, chunk.field(index).take(pa.array(places, pa.int64()))))
        if len(chunk):
            chunks.append(pa.concat_arrays(parts).take(pa.array(np.argsort(np.concatenate(order)))))
        start += len(chunk)
    return pa.chunked_array(chunks, data_type)


def as_strings(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """A column of any type as large_string: numbers and dates as Arrow prints them, lists and structs as JSON."""
    try:
        return column.cast(pa.large_string())
    except pa.ArrowException:  # lists, structs, bytes that are not UTF-8, ...
        return pa.chunked_array([pa.array([as_text(value) for value in values_of(column)], pa.large_string())])


def values_of(column: pa.ChunkedArray) -> list[Any]:
    """The values of a column for Python; as text those that it has no dates and times for: before the year 1, behind 9999."""
    try:
        return column.to_pylist()
    except (ValueError, OverflowError):
        return column.cast(_without_times(column.type)).to_pylist()


def _without_times(data_type: pa.DataType) -> pa.DataType:
    return pa.string() if pa.types.is_temporal(data_type) else with_children(data_type, _without_times)
