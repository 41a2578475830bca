"""Records of line formats -> Arrow tables, with every record accounted for; the column types that JSON Lines do not declare.

Records are parsed together; what fails is halved until the records at fault stand alone: those become rejects.
"""

import contextlib
import csv
import io
import itertools
import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.json

from pipeline_ops.reading.line_records import (
    BYTE_ORDER_MARK,
    MAX_RECORD_BYTES,
    RecordBlock,
    has_closed_quotes,
    is_document,
    split_records,
)
from pipeline_ops.schema.bisection import bisect_failures
from pipeline_ops.schema.units import MAX_DETAIL_CHARACTERS

# Lists and objects in each other: with 50, Parquet readers refuse the file; with 64, Arrow the table.
MAX_NESTING = 40
# With 16,000, Arrow's JSON parser overflows a stack of 8 MiB. Lines of fewer brackets are left to it: looking is slow.
MAX_BRACKETS = 5_000
NOT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))


@dataclass(frozen=True)
class BadRecord:
    """A record that does not parse: its row in the file, a reason of schema.REASONS, and the parser's words."""

    row: int
    reason: str
    detail: str


def parse_text(block: RecordBlock, column: str) -> tuple[pa.Table, np.ndarray, list[BadRecord]]:
    """A document per line, blank ones too. Returns (table of bytes, rows, no bad records)."""
    lines = split_records(block, None)
    rows = np.arange(block.start_row, block.start_row + len(lines))
    return pa.table({column: pa.array(lines, pa.binary())}), rows, []


def parse_jsonl(
    block: RecordBlock, schema: pa.Schema, *, text_columns: tuple[str, ...], only_schema: bool
) -> tuple[pa.Table, np.ndarray, list[BadRecord]]:
    """A document per non-blank line.

    Args:
        schema: the columns' types; a line whose value does not fit is a bad record.
        text_columns: the columns that the model reads.
        only_schema: leave other columns out; otherwise they are added, with the types that this block's values have.

    Returns:
        (table, each row's number in the file as int64, bad records).
    """

    def parse(lines: list[bytes]) -> pa.Table:
        table = whole if whole is not None and len(lines) == len(good) else _read_json(b"\n".join(lines), schema, only_schema)
        check_nesting(table.schema)
        columns = [_without_empty_objects(column) for column in table.columns]
        return pa.table(columns, names=table.column_names)

    def reason(line: bytes, error: BaseException) -> tuple[str, str]:
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
        return _is_object(line) and (decodable or _is_utf8(line))  # Arrow does not look at the encoding of names

    lines, decodable = split_records(block, None), _is_utf8(block.data)
    parsable = [can_parse(line) for line in lines]
    good = list(itertools.compress(lines, parsable))
    whole: pa.Table | None = None
    if not only_schema and good:
        with contextlib.suppress(pa.ArrowInvalid):  # what is wrong is found below, record by record
            whole = _read_json(b"\n".join(good), schema, only_schema=False)
        if whole is None or whole.schema != schema:
            # columns, or fields of them, that `schema` does not have: Arrow's own inference would turn text into dates
            whole, schema = None, merge_types(schema, types_of_lines(good))
    return _parse_records(lines, "jsonl", block.start_row, parse, reason, parsable)


def _is_object(line: bytes) -> bool:
    """Whether a line can be one JSON object. Arrow would take two lines of half an object each for one, and crash at `null`."""
    stripped = line.strip()
    return stripped.startswith(b"{") and stripped.endswith(b"}") and not _is_nested_deeper(stripped, MAX_BRACKETS)


def _is_nested_deeper(line: bytes, brackets: int = MAX_NESTING) -> bool:
    """Whether a line of more than that many opening brackets has over MAX_NESTING lists and objects in each other."""
    if len(line) <= brackets or line.count(b"[") + line.count(b"{") <= brackets:
        return False
    outside = line.replace(b"\\\\", b"").replace(b'\\"', b"").split(b'"')[::2]  # of strings
    found = np.frombuffer(b"".join(outside).translate(None, NOT_BRACKETS), np.uint8)
    steps = np.where((found == ord("[")) | (found == ord("{")), 1, -1)
    return bool(steps.cumsum().max(initial=0) > MAX_NESTING)


def check_nesting(schema: pa.Schema) -> None:
    """Raises ArrowInvalid when a column's lists and objects are nested deeper than MAX_NESTING."""
    types = list(schema.types)
    for _ in range(MAX_NESTING + 1):
        types = [data_type.field(index).type for data_type in types for index in range(data_type.num_fields)]
    if types:
        raise pa.ArrowInvalid(f"nested deeper than {MAX_NESTING} levels")


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


def types_of_lines(lines: list[bytes]) -> pa.Schema:
    """The types of the values in JSON lines; lines that are broken do not count.

    JSON's own types are kept: text stays text also where it looks like a date or a number, unlike Arrow's and pandas' own
    inference. A column of mixed types takes the type that most values have; one without any value is text.
    """
    values: dict[str, list[object]] = {}
    for line in lines:
        try:
            document = None if _is_nested_deeper(line) else json.loads(line.decode())
            if b"\\ud" in line.lower():
                json.dumps(document, ensure_ascii=False).encode()  # half a surrogate pair is no text
        except ValueError:
            continue  # it becomes a reject when it is parsed
        if isinstance(document, dict):
            for name, value in document.items():
                values.setdefault(name, []).append(value)
    return pa.schema([(name, _common_type(column)) for name, column in values.items()])


def merge_types(schema: pa.Schema, late: pa.Schema) -> pa.Schema:
    """`schema` with the columns, and the fields of its columns, that only `late` has; where they disagree `schema` stays."""
    fields = [f.with_type(_merge_type(f.type, late.field(f.name).type)) if f.name in late.names else f for f in schema]
    return pa.schema([*fields, *(field for field in late if field.name not in schema.names)])


def _merge_type(known: pa.DataType, late: pa.DataType) -> pa.DataType:
    """`known` with the object fields that only `late` has, at any depth."""
    if pa.types.is_struct(known) and pa.types.is_struct(late):
        theirs = {field.name: field.type for field in late}
        ours = [f.with_type(_merge_type(f.type, theirs[f.name])) if f.name in theirs else f for f in known]
        return pa.struct([*ours, *(field for field in late if field.name not in {f.name for f in known})])
    if pa.types.is_list(known) and pa.types.is_list(late):
        return pa.list_(_merge_type(known.value_type, late.value_type))
    return known


def _common_type(values: list[object]) -> pa.DataType:
    present = [value for value in values if value is not None]
    if any(type(value) is int and value >= 2**63 for value in present):
        return pa.uint64()  # 64-bit hashes as numbers; Arrow would take int64 and then refuse them
    try:
        return text_for_null(pa.array(present).type)  # infer_type would take [1, "a"] for integers
    except (pa.ArrowException, OverflowError):  # mixed types
        return text_for_null(_most_common_type(present))


def _most_common_type(values: list[object]) -> pa.DataType:
    """The type that most values have, with what others of the same kind (list, object, ...) add without contradicting it."""
    kinds = [float if type(value) is int else type(value) for value in values]
    most = Counter(kinds).most_common(1)[0][0]
    types: Counter[pa.DataType] = Counter()
    for value, kind in zip(values, kinds, strict=True):
        if kind is most:
            with contextlib.suppress(pa.ArrowException, OverflowError):  # mixed within itself
                types[pa.array([value]).type] += 1
    common = pa.null()
    for data_type, _ in types.most_common():
        with contextlib.suppress(pa.ArrowException):
            fields = [pa.schema([("value", known)]) for known in (common, data_type)]
            common = pa.unify_schemas(fields, promote_options="permissive").field("value").type
    return common


def text_for_null(data_type: pa.DataType) -> pa.DataType:
    """`data_type` with `string` wherever it has `null` or a date that was inferred from text, at any depth."""
    if pa.types.is_null(data_type) or pa.types.is_temporal(data_type):
        return pa.string()
    if pa.types.is_list(data_type):
        return pa.list_(text_for_null(data_type.value_type))
    if pa.types.is_struct(data_type):
        return pa.struct([field.with_type(text_for_null(field.type)) for field in data_type])
    return data_type


def _without_empty_objects(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """`column` with the text "{}" for objects that never have a key, at any depth: Parquet has no type for them."""

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
    """A document per non-empty record. Values are text as they stand, also "", "NA" and "000", unless `types` says otherwise.

    Returns:
        (table, each row's number behind the header as int64, bad records).
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

    def reason(line: bytes, error: BaseException) -> tuple[str, str]:
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
    # Arrow would take what is there of an unfinished field for all of it
    parsable = [line is not lines[-1] or has_closed_quotes(line, quote, delimiter) for line in lines]
    return _parse_records(lines, "csv", block.start_row, parse, reason, parsable)


def csv_fields(record: bytes, delimiter: str, quote: str | None) -> list[str]:
    """The fields of one CSV record, undecodable bytes replaced."""
    csv.field_size_limit(MAX_RECORD_BYTES)  # it has one of 128 KiB, for all of the process
    text = record.removeprefix(BYTE_ORDER_MARK).decode(errors="replace").rstrip("\r\n")
    quoting = csv.QUOTE_MINIMAL if quote else csv.QUOTE_NONE
    return next(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, quotechar=quote, quoting=quoting), [])


def _parse_records(
    lines: list[bytes],
    file_format: str,
    start_row: int,
    parse: Callable[[list[bytes]], pa.Table],
    reason: Callable[[bytes, BaseException], tuple[str, str]],
    parsable: list[bool],
) -> tuple[pa.Table, np.ndarray, list[BadRecord]]:
    """Parses the lines that are documents together; halves what fails until the lines at fault stand alone."""
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
        table.validate(full=True)  # the parsers do not look at the encoding
        if table.num_rows != stop - start:
            raise pa.ArrowInvalid(f"{table.num_rows} values where one was expected")
        return table

    # a file of nothing but broken records is a file of rejects
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
