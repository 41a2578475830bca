"""Blocks of records -> Arrow tables and bad records; each record that is a document is exactly once in one of them.

All records of a block are parsed together; if that fails, bisection isolates the bad ones.
"""

import contextlib
import csv
import io
import itertools
import json
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.json

from pipeline_ops.reading.json_types import MAX_BRACKETS, check_nesting, is_nested_deeper, merge_types, types_of_lines
from pipeline_ops.reading.line_records import (
    BYTE_ORDER_MARK,
    MAX_RECORD_BYTES,
    RecordBlock,
    has_closed_quotes,
    is_document,
    split_records,
)
from pipeline_ops.schema.bisection import bisect_failures
from pipeline_ops.schema.units import MAX_DETAIL_CHARACTERS, Reason


@dataclass(frozen=True)
class BadRecord:
    """A record that does not parse: its row in the file, the reason, and the parser's message."""

    row: int
    reason: Reason
    detail: str


def parse_text(block: RecordBlock, column: str) -> tuple[pa.Table, np.ndarray, list[BadRecord]]:
    """A document per line, including blank ones.

    Returns:
        (table with one binary column, each row's number in the file as int64, no bad records).
    """
    lines = split_records(block, None)
    rows = np.arange(block.start_row, block.start_row + len(lines))
    return pa.table({column: pa.array(lines, pa.binary())}), rows, []


def parse_jsonl(
    block: RecordBlock, schema: pa.Schema, *, text_columns: tuple[str, ...], only_schema: bool
) -> tuple[pa.Table, np.ndarray, list[BadRecord]]:
    """A document per non-blank line.

    Args:
        schema: the columns' types; a line with a value that does not fit is a bad record.
        text_columns: the columns that the model reads.
        only_schema: drop other columns; otherwise they are added, with types inferred from this block.

    Returns:
        (table, each row's number in the file as int64, bad records).
    """

    def parse(lines: list[bytes]) -> pa.Table:
        table = whole if whole is not None and len(lines) == len(good) else _read_json(b"\n".join(lines), schema, only_schema)
        check_nesting(table.schema)
        columns = [_without_empty_objects(column) for column in table.columns]
        return pa.table(columns, names=table.column_names)

    def reason(line: bytes, error: BaseException) -> tuple[Reason, str]:
        try:
            document = json.loads(line.decode())
        except UnicodeDecodeError as undecodable:
            return "undecodable", str(undecodable)
        except (ValueError, RecursionError) as broken:
            return "broken_json", str(broken)
        if not isinstance(document, dict):
            return "broken_json", f"a JSON {type(document).__name__}, not an object"
        for column in text_columns:
            if not isinstance(document.get(column, ""), str | None):
                return "not_a_string", f"{document[column]!r}"
        return "column_type", str(error)

    def can_parse(line: bytes) -> bool:
        return _is_object(line) and (decodable or _is_utf8(line))  # Arrow does not check the encoding of names

    lines, decodable = split_records(block, None), _is_utf8(block.data)
    parsable = [can_parse(line) for line in lines]
    good = list(itertools.compress(lines, parsable))
    whole: pa.Table | None = None
    if not only_schema and good:
        with contextlib.suppress(pa.ArrowInvalid):  # bad records are isolated below
            whole = _read_json(b"\n".join(good), schema, only_schema=False)
        if whole is None or whole.schema != schema:
            # infer the types of what `schema` lacks here: Arrow's own inference would turn text into dates
            whole, schema = None, merge_types(schema, types_of_lines(good))
    return _parse_records(lines, "jsonl", block.start_row, parse, reason, parsable)


def _is_object(line: bytes) -> bool:
    """True if a line can be one JSON object. Arrow would join two halves of an object on two lines, and crash on `null`."""
    stripped = line.strip()
    return stripped.startswith(b"{") and stripped.endswith(b"}") and not is_nested_deeper(stripped, MAX_BRACKETS)


def _is_utf8(data: bytes) -> bool:
    try:
        pa.array([data], pa.large_binary()).cast(pa.large_string())
    except pa.ArrowInvalid:
        return False
    return True


def _read_json(data: bytes, schema: pa.Schema, only_schema: bool) -> pa.Table:
    return pyarrow.json.read_json(
        pa.BufferReader(data),
        read_options=pyarrow.json.ReadOptions(use_threads=False, block_size=len(data) + 1),  # one block: one set of types
        parse_options=pyarrow.json.ParseOptions(
            explicit_schema=schema, unexpected_field_behavior="ignore" if only_schema else "infer"
        ),
    )


def _without_empty_objects(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """`column` with the string "{}" for objects without any key, at any depth: Parquet has no type for them."""

    def convert(array: pa.Array) -> pa.Array:
        if pa.types.is_struct(array.type) and not array.type.num_fields:
            return pc.if_else(array.is_valid(), "{}", pa.scalar(None, pa.string()))
        if pa.types.is_struct(array.type):
            fields = [convert(array.field(index)) for index in range(array.type.num_fields)]
            names = [field.name for field in array.type]
            return pa.StructArray.from_arrays(fields, names, mask=array.is_null())
        if pa.types.is_list(array.type):
            return pa.ListArray.from_arrays(array.offsets, convert(array.values), mask=array.is_null())
        return array

    return (
        pa.chunked_array([convert(chunk) for chunk in column.chunks], type=None) if _has_empty_objects(column.type) else column
    )


def _has_empty_objects(data_type: pa.DataType) -> bool:
    if pa.types.is_struct(data_type):
        return not data_type.num_fields or any(_has_empty_objects(field.type) for field in data_type)
    return pa.types.is_list(data_type) and _has_empty_objects(data_type.value_type)


def parse_csv(
    block: RecordBlock, header: list[str], delimiter: str, quote: str | None, types: dict[str, pa.DataType]
) -> tuple[pa.Table, np.ndarray, list[BadRecord]]:
    """A document per non-empty record; values are strings, also "", "NA" and "000".

    Args:
        header: the column names.
        types: of columns that are not strings.

    Returns:
        (table, each row's number as int64, counted from the record behind the header, bad records).
    """

    def parse(lines: list[bytes]) -> pa.Table:
        data = b"\n".join(lines) + b"\n"
        return pyarrow.csv.read_csv(
            pa.BufferReader(data),
            read_options=pyarrow.csv.ReadOptions(column_names=header, use_threads=False, block_size=len(data) + 1),
            parse_options=pyarrow.csv.ParseOptions(
                delimiter=delimiter, quote_char=quote or False, newlines_in_values=True, ignore_empty_lines=False
            ),
            convert_options=pyarrow.csv.ConvertOptions(
                column_types={name: types.get(name, pa.string()) for name in header}, strings_can_be_null=False
            ),
        )

    def reason(line: bytes, error: BaseException) -> tuple[Reason, str]:
        if not parsable[-1] and line is lines[-1]:
            return "broken_csv", "a quoted field has no end"
        try:
            line.decode()
        except UnicodeDecodeError as undecodable:
            return "undecodable", str(undecodable)
        if len(csv_fields(line, delimiter, quote)) != len(header):
            return "broken_csv", str(error)
        return "column_type", str(error)

    lines = split_records(block, quote, delimiter)
    # Arrow would accept an unfinished quoted field
    parsable = [line is not lines[-1] or has_closed_quotes(line, quote, delimiter) for line in lines]
    return _parse_records(lines, "csv", block.start_row, parse, reason, parsable)


def csv_fields(record: bytes, delimiter: str, quote: str | None) -> list[str]:
    """The fields of one CSV record; bytes that are not UTF-8 are replaced."""
    csv.field_size_limit(MAX_RECORD_BYTES)  # for the process; the default is 128 KiB
    text = record.removeprefix(BYTE_ORDER_MARK).decode(errors="replace").rstrip("\r\n")
    quoting = csv.QUOTE_MINIMAL if quote else csv.QUOTE_NONE
    return next(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, quotechar=quote, quoting=quoting), [])


def _parse_records(
    lines: list[bytes],
    file_format: str,
    start_row: int,
    parse: Callable[[list[bytes]], pa.Table],
    reason: Callable[[bytes, BaseException], tuple[Reason, str]],
    parsable: list[bool],
) -> tuple[pa.Table, np.ndarray, list[BadRecord]]:
    """Parse the lines that are documents, isolating those that fail.

    Args:
        parse: lines to a table with a row per line.
        reason: (reason, detail) of a line that failed with this exception.
        parsable: per line, False for one that `parse` must not get: a bad record.
    """
    bad: list[BadRecord] = []

    def reject(row: int, line: bytes, error: BaseException) -> None:
        why, detail = reason(line, error)
        bad.append(BadRecord(row, why, detail[:MAX_DETAIL_CHARACTERS]))

    good = []
    for row, (line, may_parse) in enumerate(zip(lines, parsable, strict=True), start_row):
        if not is_document(line, file_format):
            continue
        if may_parse:
            good.append((row, line))
        else:
            reject(row, line, ValueError("not a single object"))
    rows = np.array([row for row, _ in good], np.int64)

    def parse_range(start: int, stop: int) -> pa.Table:
        table = parse([line for _, line in good[start:stop]])
        table.validate(full=True)  # the parsers do not check the encoding
        if table.num_rows != stop - start:
            raise pa.ArrowInvalid(f"{table.num_rows} values where one was expected")
        return table

    # a file in which every record is broken gives rejects only
    parts, failed = bisect_failures(
        parse_range,
        len(good),
        lambda error: isinstance(error, pa.ArrowInvalid | pa.ArrowNotImplementedError),
        may_all_fail=True,
    )
    for index, error in failed.items():
        row, line = good[index]
        reject(row, line, error)
    bad.sort(key=lambda record: record.row)
    if not parts:
        return pa.table({}), np.empty(0, np.int64), bad
    table = pa.concat_tables([part for _, _, part in parts], promote_options="permissive")
    return table, np.concatenate([rows[start:stop] for start, stop, _ in parts]), bad
