"""Blocks of records -> Arrow tables and bad records; each record that is a document is exactly once in one of them.

All records of a block are parsed together; if that fails, bisection isolates the bad ones.
"""

import contextlib
import itertools
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.json

from pipeline_ops.line_formats.csv_syntax import csv_fields
from pipeline_ops.line_formats.fitted_values import fit_value, has_strings, has_strings_only
from pipeline_ops.line_formats.json_types import MAX_BRACKETS, add_late_fields, check_nesting, is_nested_deeper
from pipeline_ops.line_formats.line_records import (
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
        schema: the columns' types; a line with a value that does not fit is a bad record. A string takes any value: what is no
            string becomes its JSON text.
        text_columns: the columns that the model reads; values that are no strings make bad records.
        only_schema: drop other columns; otherwise they are added, as strings.

    Returns:
        (table, each row's number in the file as int64, bad records).
    """

    def parse(lines: list[bytes]) -> pa.Table:
        if whole is not None and len(lines) == len(good):
            table = whole
        elif mixed:
            table = _read_mixed_json(lines, schema, mixed)
        else:
            table = _read_json(b"\n".join(lines), schema, only_schema)
        check_nesting(table.schema)
        return table

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
    mixed: list[str] = []
    if good:
        # where it leaves columns out, Arrow leaves fields of the others out as well
        keep_fields = only_schema and any(map(pa.types.is_nested, schema.types))
        with contextlib.suppress(pa.ArrowInvalid):  # bad records are isolated below
            table = _read_json(b"\n".join(good), schema, only_schema and not keep_fields)
            whole = table.select(schema.names) if keep_fields else table
        if whole is None or whole.schema != schema:
            documents = [*_objects(good)]
            schema = add_late_fields(schema, documents, columns=not only_schema)
            mixed = _mixed_columns(documents, schema, text_columns)
            whole = whole if whole is not None and whole.schema == schema and not mixed else None
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


def _objects(lines: list[bytes]) -> Iterator[dict[str, Any]]:
    """The JSON objects among the lines."""
    for line in lines:
        with contextlib.suppress(ValueError, RecursionError):  # a bad record
            document = json.loads(line)
            if b"\\ud" in line.lower():
                json.dumps(document, ensure_ascii=False).encode()  # half a surrogate pair is no text
            if isinstance(document, dict):
                yield document


def _mixed_columns(documents: list[dict[str, Any]], schema: pa.Schema, text_columns: tuple[str, ...]) -> list[str]:
    """The columns of `schema` that have a value in some document that is no string where the schema has one, at any depth."""
    fields = {field.name: field.type for field in schema if field.name not in text_columns and has_strings(field.type)}
    return [
        name
        for name, data_type in fields.items()
        if not all(has_strings_only(document.get(name), data_type) for document in documents)
    ]


def _read_mixed_json(lines: list[bytes], schema: pa.Schema, mixed: list[str]) -> pa.Table:
    """The columns of `schema`, those of `mixed` with fit_value.

    Raises:
        pa.ArrowInvalid: as _read_json.
    """
    table = _read_json(b"\n".join(lines), pa.schema([field for field in schema if field.name not in mixed]), only_schema=True)
    fields = [schema.field(name) for name in mixed]
    try:
        fitted = _read_json(b"\n".join(_fitted(line, fields) for line in lines), pa.schema(fields), only_schema=True)
    except (ValueError, RecursionError) as error:
        raise pa.ArrowInvalid(str(error)) from error
    columns = {name: part.column(name) for part in (table, fitted) for name in part.column_names}
    return pa.table({name: columns[name] for name in schema.names})


def _fitted(line: bytes, fields: list[pa.Field]) -> bytes:
    """A JSON line, if need be with fit_value for the values of `fields`, for which Arrow parses numbers, times, ... as ever."""
    document = json.loads(line)
    if all(has_strings_only(document.get(field.name), field.type) for field in fields):
        return line
    values = {field.name: fit_value(document.get(field.name), field.type) for field in fields}
    return json.dumps(values, ensure_ascii=False).encode()


def parse_csv(
    block: RecordBlock, header: list[str], delimiter: str, quote: str | None, types: dict[str, pa.DataType]
) -> tuple[pa.Table, np.ndarray, list[BadRecord]]:
    """A document per non-empty record; values are strings, also "", "NA" and "000".

    Args:
        header: the column names.
        types: of columns that are not strings, as far as CSV can have them; the others stay strings.

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
                column_types={name: _csv_type(types.get(name)) for name in header}, strings_can_be_null=False
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


def _csv_type(data_type: pa.DataType | None) -> pa.DataType:
    """The type if Arrow's CSV parser gives it, else string."""
    is_a = (pa.types.is_integer, pa.types.is_floating, pa.types.is_boolean, pa.types.is_decimal128, pa.types.is_temporal)
    lacks = (pa.types.is_float16, pa.types.is_duration, pa.types.is_interval)
    known = data_type is not None and any(check(data_type) for check in is_a) and not any(lack(data_type) for lack in lacks)
    return data_type if known else pa.string()


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
