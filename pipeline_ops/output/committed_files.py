"""Read committed files, with their bytes and rows checked against the commit."""

import base64
import hashlib
import urllib.parse
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline_ops.row_formats.plain_types import decoded, plain_type
from pipeline_ops.schema.errors import UserError
from pipeline_ops.schema.output_columns import OutputConfig
from pipeline_ops.storage.store import Store, StoredFile
from pipeline_ops.writing.commit_record import Commit, WrittenFile
from pipeline_ops.writing.hive_partitions import NULL_PARTITION

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


def example_files(commits: Iterable[Commit]) -> list[WrittenFile]:
    """A file of each schema of the commits' files, and all files of commits of several schemas."""
    examples: dict[str | None, WrittenFile] = {}
    unknown: list[WrittenFile] = []
    for commit in commits:
        if commit.files and commit.schema is None:
            unknown += commit.files
        elif commit.files:
            examples.setdefault(commit.schema, commit.files[0])
    return [*examples.values(), *unknown]


def schemas_of_files(store: Store, files: Iterable[WrittenFile]) -> Iterator[pa.Schema]:
    """Their schemas by their footers, without metadata."""
    for file in files:
        with store.open(store.stat(file.path), sequential=False) as source:
            yield pq.read_schema(source).remove_metadata()


def read_written(store: Store, file: WrittenFile) -> pa.Table:
    """A committed Parquet file's rows, without its partition columns; dictionaries, of earlier versions, as plain values.

    Raises:
        OSError: its MD5 or number of rows is not the committed one.
    """
    content = read_written_bytes(store, file)
    try:
        # ParquetFile, not read_table: that would take the folders' names for columns
        table = pq.ParquetFile(pa.BufferReader(content), page_checksum_verification=True).read(use_threads=False)
    except (OSError, pa.ArrowException) as error:
        raise OSError(f"{file.path}: {error}") from error
    if table.num_rows != file.rows:
        raise OSError(f"{file.path}: {table.num_rows} rows, its commit says {file.rows}")
    return decoded(table)


def read_written_bytes(store: Store, file: WrittenFile) -> bytes:
    """A committed file's content; raises OSError if its MD5 is not the committed one."""
    (content,) = store.read_files([StoredFile(store.join(file.path), file.bytes, file.md5)])
    if hashlib.md5(content, usedforsecurity=False).hexdigest() != file.md5:
        raise OSError(f"{file.path}: {len(content)} bytes, which are not those that were written (MD5)")
    return content


def column_of(table: pa.Table, name: str, path: str) -> pa.ChunkedArray:
    """A column of a committed file; a partition column, which only the path has, as text."""
    if name in table.column_names:
        return table.column(name)
    return pa.chunked_array([pa.array([hive_values(path)[name]] * table.num_rows, pa.string())])
