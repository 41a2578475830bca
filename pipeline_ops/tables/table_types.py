"""The type that a table has for a column of the labels: one that engines read the files' values in exactly, if there is one.

A wider type takes the place of one that the format lacks, as of unsigned integers and half floats. Nanoseconds are refused:
neither format has them in the versions that engines read. What engines read was tried with deltalake, Polars, pyiceberg and
DuckDB (tests/integration/publishing/test_types.py).
"""

from collections.abc import Iterable, Sequence

import pyarrow as pa

from pipeline_ops.schema.errors import UserError

DELTA, ICEBERG = "Delta", "Iceberg"
SAME = {pa.bool_(), pa.int32(), pa.int64(), pa.float32(), pa.float64(), pa.string(), pa.binary(), pa.date32()}
WIDER = {
    pa.uint32(): pa.int64(),
    pa.float16(): pa.float32(),
    pa.large_string(): pa.string(),
    pa.large_binary(): pa.binary(),
    pa.date64(): pa.date32(),
}
WIDER_IN = {
    DELTA: {pa.int8(): pa.int8(), pa.int16(): pa.int16(), pa.uint8(): pa.int16(), pa.uint16(): pa.int32()},
    ICEBERG: {
        **dict.fromkeys([pa.int8(), pa.int16(), pa.uint8(), pa.uint16()], pa.int32()),
        pa.time64("us"): pa.time64("us"),
    },
}
MOST_DIGITS = 38  # of a decimal, in both formats
UTC_NAMES = {"UTC", "Etc/UTC", "+00:00"}  # as which pyiceberg reads a file's time zone


def table_type(data_type: pa.DataType, table_format: str) -> pa.DataType | None:
    """The table's type for values of a type of Arrow; None if it has none that holds them.

    Args:
        table_format: DELTA or ICEBERG.
    """
    of, is_delta = pa.types, table_format == DELTA
    if data_type in SAME:
        return data_type
    if of.is_dictionary(data_type):
        return table_type(data_type.value_type, table_format)
    if of.is_fixed_size_binary(data_type):
        return pa.binary() if is_delta else data_type
    if of.is_timestamp(data_type):
        fits = data_type.unit != "ns" and (is_delta or data_type.tz is None or data_type.tz in UTC_NAMES)
        return pa.timestamp("us", data_type.tz and "UTC") if fits else None
    if of.is_decimal(data_type):
        fits = data_type.precision <= MOST_DIGITS and 0 <= data_type.scale <= data_type.precision
        fits = fits and (is_delta or of.is_decimal128(data_type))
        return pa.decimal128(data_type.precision, data_type.scale) if fits else None
    if of.is_list(data_type) or of.is_large_list(data_type) or of.is_fixed_size_list(data_type):
        inner = table_type(data_type.value_type, table_format)
        return None if inner is None else pa.list_(inner)
    if of.is_map(data_type):
        key, item = table_type(data_type.key_type, table_format), table_type(data_type.item_type, table_format)
        return None if key is None or item is None else pa.map_(key, item)
    if of.is_struct(data_type):
        fields = {field.name: table_type(field.type, table_format) for field in data_type}
        missing = not fields or None in fields.values() or _twins(field.name for field in data_type) is not None
        return None if missing else pa.struct([*fields.items()])
    return {**WIDER, **WIDER_IN[table_format]}.get(data_type)


def united_type(left: pa.DataType, right: pa.DataType) -> pa.DataType | None:
    """The type with the fields of both, at any depth, as readers unite columns by name; None where the two do not agree."""
    if left == right:
        return left
    if pa.types.is_struct(left) and pa.types.is_struct(right):
        fields = {field.name: field.type for field in left}
        for field in right:
            united = united_type(fields.get(field.name, field.type), field.type)
            if united is None:
                return None
            fields[field.name] = united
        return pa.struct(list(fields.items()))
    for is_list, make in ((pa.types.is_list, pa.list_), (pa.types.is_large_list, pa.large_list)):
        if is_list(left) and is_list(right):
            united = united_type(left.value_type, right.value_type)
            return None if united is None else make(united)
    return None


def table_schema(columns: pa.Schema, known: pa.Schema, table_format: str, partitions: Sequence[str]) -> pa.Schema:
    """The schema of a table that gets files with these columns: its own, then new columns; new fields of objects in both.

    Args:
        known: of the table so far; an empty schema of a new one.
        partitions: names of the partition columns.

    Raises:
        UserError: the format lacks the type of a column, or a pair of names; or the type has changed.
    """
    fields = {field.name: field.type for field in known}
    for column in columns:
        kind = table_type(column.type, table_format)
        if kind is None:
            raise UserError(
                f"output.table: column {column.name!r} is {column.type}, which engines do not read from {table_format} tables;"
                f" {_remedy(column, table_format)}"
            )
        if table_format == ICEBERG and column.name in partitions and pa.types.is_floating(kind):
            # pyiceberg 0.12 reads a double as a float (its pull request 3808), and cannot remove files of NaN and infinity
            raise UserError(
                f"output.partition_by: {column.name!r} is {column.type}, which pyiceberg rounds as a partition's value; name"
                f" another column, or set output.table: delta"
            )
        united = united_type(fields.get(column.name, kind), kind)
        if united is None:
            raise UserError(
                f"output.table: column {column.name!r} is {kind}, and {fields[column.name]} in the {table_format} table so far;"
                f" delete the table, and `label-corpus publish` writes it anew, without earlier versions"
            )
        fields[column.name] = united
    pair = _twins(fields)
    if pair is not None:
        raise UserError(
            f"output.table: the columns {pair[0]!r} and {pair[1]!r} differ in upper and lower case alone, and engines take them"
            f" for one; leave one out by output.columns, or rename an added one, such as by output.label_name"
        )
    return pa.schema([*fields.items()])


def _twins(names: Iterable[str]) -> tuple[str, str] | None:
    """Two names that most engines cannot distinguish."""
    known: dict[str, str] = {}
    for name in names:
        if name.lower() in known:
            return known[name.lower()], name
        known[name.lower()] = name
    return None


def _remedy(column: pa.Field, table_format: str) -> str:
    """What to set for a column of a type that a table cannot have."""
    kind, of = column.type, pa.types
    wanted = "string"
    if of.is_timestamp(kind) and kind.tz is None:
        wanted = "timestamp[us]"
    elif kind == pa.uint64():
        wanted = "int64"
    elif of.is_time(kind) and table_format == ICEBERG:
        wanted = "time64[us]"
    return (
        f"set input.column_types={{{column.name}: {wanted}}}, or leave it out by output.columns; where there are labels by now,"
        f" in another output.path"
    )
