"""Hive partitions: a labeled table split by its partition columns, their folders' names, and the values in these names."""

import base64
import urllib.parse
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline_ops.row_formats.plain_types import plain_type
from pipeline_ops.schema.errors import UserError
from pipeline_ops.schema.output_columns import OutputConfig

NULL_PARTITION = "__HIVE_DEFAULT_PARTITION__"
ADDED_TYPES = {  # of the columns that labeling adds and that are no lists
    "label_name": pa.string(),
    "score_column": pa.float32(),
    "num_tokens_column": pa.int32(),
    "truncated_column": pa.bool_(),
    "num_windows_column": pa.int32(),
    "source_file_column": pa.string(),
    "source_row_column": pa.int64(),
}
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}


def hive_folder(columns: tuple[str, ...], values: tuple[object, ...]) -> str:
    """The folder of a partition, `label=POSITIVE/…`; values are percent-encoded, as Arrow, Spark and DuckDB decode them."""
    parts = []
    for column, value in zip(columns, values, strict=True):
        text = NULL_PARTITION if value is None else urllib.parse.quote(str(value), safe="")
        if value == NULL_PARTITION:
            text = text.replace("_", "%5F")  # a text like any other
        parts.append(f"{urllib.parse.quote(column, safe='')}={text}")
    return "/".join(parts)


def split_by_partition(documents: pa.Table, columns: tuple[str, ...]) -> Iterator[tuple[tuple[object, ...], pa.Table]]:
    """(values of `columns`, documents without `columns`) per combination of values; each document is in exactly one.

    A combination's documents are copied when it is their turn, so that a caller needs the memory of one of them at a time.
    """
    if not columns:
        if documents.num_rows:
            yield (), documents
        return
    encoded = []
    for name in columns:
        column = documents.column(name)
        plain = column.cast(column.type.value_type) if pa.types.is_dictionary(column.type) else column
        encoded.append(plain.combine_chunks().dictionary_encode(null_encoding="encode"))
    group_of = np.zeros(documents.num_rows, np.int64)
    first_rows = np.empty(0, np.int64)
    # by dictionary index, not by value: NaN equals nothing, and 0.0 equals -0.0
    for array in encoded:  # renumbered after each column: the product over all columns might overflow
        codes = group_of * max(len(array.dictionary), 1) + array.indices.to_numpy()
        _, first_rows, group_of = np.unique(codes, return_index=True, return_inverse=True)
    rest = documents.drop_columns(list(columns))
    for number, row in enumerate(first_rows):
        key = tuple(array.dictionary[array.indices[int(row)].as_py()].as_py() for array in encoded)
        yield key, rest if len(first_rows) == 1 else rest.filter(pa.array(group_of == number))


def hive_values(path: str) -> dict[str, str | None]:
    """The partition values in a relative path, by column."""
    found = {}
    for folder in path.split("/")[:-1]:
        name, equals, value = folder.partition("=")
        if equals:
            found[urllib.parse.unquote(name)] = None if value == NULL_PARTITION else urllib.parse.unquote(value)
    return found


def partition_types(record: Mapping[str, Any], output: OutputConfig) -> dict[str, pa.DataType]:
    """The types of an output's partition columns, outermost first; string of those that an earlier version has not recorded.

    Args:
        record: `_job.json`, with the types of the input's columns.
        output: of the same output, which names the columns.
    """
    added = {name: ADDED_TYPES[key] for one in output.by_model().values() for key, name in _columns_with_types(one)}
    known = pa.ipc.read_schema(pa.py_buffer(base64.b64decode(record["column_types"]))) if "column_types" in record else ()
    types = {field.name: plain_type(field.type) for field in known} | added
    found = {name: types.get(name, pa.string()) for name in output.partition_columns()}
    return {name: data_type if can_partition(data_type) else pa.string() for name, data_type in found.items()}


def _columns_with_types(output: OutputConfig) -> Iterator[tuple[str, str]]:
    return ((key, name) for key, name in output.added_columns().items() if key in ADDED_TYPES)


def can_partition(data_type: pa.DataType) -> bool:
    """Whether the text of a value in a folder's name says which value it is, so that partition_values gives the same."""
    return _reader_of(data_type) is not None


def partition_values(path: str, types: Mapping[str, pa.DataType]) -> dict[str, Any]:
    """The values of the columns of `types` in a relative path, as pyarrow gives them to Python; None for null.

    Raises:
        UserError: a folder's name has a text that is no value of the column's type.
    """
    return {name: scalar.as_py() for name, scalar in partition_scalars(path, types).items()}


def partition_scalars(path: str, types: Mapping[str, pa.DataType]) -> dict[str, pa.Scalar]:
    """As partition_values, in the columns' types."""
    texts = hive_values(path)
    return {name: _scalar_of(path, name, texts.get(name), data_type) for name, data_type in types.items()}


def _scalar_of(path: str, name: str, text: str | None, data_type: pa.DataType) -> pa.Scalar:
    if text is None:
        return pa.scalar(None, data_type)
    read = _reader_of(data_type)
    assert read is not None, "types are of partition_types"
    try:
        return pa.scalar(read(text), data_type)
    except (ValueError, ArithmeticError, KeyError) as error:  # pa.ArrowInvalid is a ValueError
        raise UserError(
            f"{path}: the column {name!r} of the output is {data_type}, of which {text!r} is no value: the folder was renamed,"
            f" or the types in `_job.json` were changed; restore the one or the other"
        ) from error


def _reader_of(data_type: pa.DataType) -> Callable[[str], Any] | None:
    """A function from str() of a value of the type, as Python has it, to that value; None: the text does not say it."""
    of = pa.types
    if of.is_string(data_type) or of.is_large_string(data_type):
        return str
    if of.is_integer(data_type):
        return int
    if of.is_floating(data_type):
        return float
    if of.is_boolean(data_type):
        return {"True": True, "False": False}.__getitem__
    if of.is_decimal(data_type):
        return Decimal
    if of.is_date(data_type):
        return date.fromisoformat
    if of.is_timestamp(data_type):
        return lambda text: _since_epoch(text, data_type.unit)
    if of.is_time(data_type) and data_type.unit != "ns":  # whose last digits Python does not have
        return time.fromisoformat
    return None


def _since_epoch(text: str, unit: str) -> int:
    """The units between the epoch and a date and time, exactly: Python's own have no nanoseconds."""
    whole, _, rest = text.partition(".")
    digits = rest[: len(rest) - len(rest.lstrip("0123456789"))]
    moment = datetime.fromisoformat(whole + rest[len(digits) :])
    seconds = ((moment if moment.tzinfo else moment.replace(tzinfo=UTC)) - EPOCH) // timedelta(seconds=1)
    return seconds * PER_SECOND[unit] + int(digits.ljust(9, "0")) * PER_SECOND[unit] // 10**9
