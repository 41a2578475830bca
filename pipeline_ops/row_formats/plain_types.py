"""Arrow types without encodings: dictionaries, views, run ends and extension types become what they stand for."""

import pyarrow as pa

from pipeline_ops.line_formats.fitted_values import fit_value
from pipeline_ops.line_formats.json_types import with_children

PLAIN_TYPES = {pa.string_view(): pa.large_string(), pa.binary_view(): pa.large_binary()}


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


def decoded(table: pa.Table) -> pa.Table:
    """A table with its columns in their plain types, its schema's metadata kept."""
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
