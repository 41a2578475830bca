"""Blocks of JSON lines -> Arrow tables and bad records; each line that is a document is exactly once in one of them.

Arrow parses all lines of a block at once. Where it cannot, or would change a value without saying so, Python looks at each line
and decides which ones are bad records, which values become text, and which do not fit their column; Arrow then parses the rest.
"""

import itertools
import json
import re
from collections import Counter
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json

from pipeline_ops.line_formats.fitted_values import (
    EXACT_INTEGERS,
    RepeatedKeys,
    as_json,
    fit_value,
    is_unicode,
    load_json,
    reads,
)
from pipeline_ops.line_formats.json_arrays import array_of_objects, elements_remedy
from pipeline_ops.line_formats.json_types import MAX_BRACKETS, add_late_fields, check_nesting, is_nested_deeper
from pipeline_ops.line_formats.line_records import RecordBlock, is_document, split_records
from pipeline_ops.line_formats.parsing import BadRecord
from pipeline_ops.schema.arrow_cells import binary_cell
from pipeline_ops.schema.bisection import bisect_failures
from pipeline_ops.schema.misfits import MISFITS_COLUMN, check_not_reserved, misfits_array
from pipeline_ops.schema.units import MAX_DETAIL_CHARACTERS, Reason

Document = dict[str, Any]
Parsed = tuple[pa.Table, np.ndarray, list[BadRecord]]  # what parse_jsonl returns
PARSED_BYTES = 4 * 2**20  # at a time: with its copies of a whole unit's lines, Arrow's parser took five times the unit's memory
SHORT_INFINITY = re.compile(rb"Inf(?<=[:,\[\s\-]Inf)(?=[\s,\]}])")  # begins with its letters, which makes it fast


def parse_jsonl(block: RecordBlock, schema: pa.Schema, *, text_columns: tuple[str, ...], only_schema: bool) -> Parsed:
    """A document per non-blank line.

    Args:
        schema: the columns' types. A string takes any value: what is no string becomes its JSON text. Elsewhere a value that
            does not fit is null, and JSON text in MISFITS_COLUMN, which a table without such values lacks.
        text_columns: the columns that the model reads; values that are no strings make bad records.
        only_schema: drop other columns; otherwise they are added, as strings.

    Returns:
        (table, each row's number in the file as int64, bad records).

    Raises:
        UserError: a column is named MISFITS_COLUMN.
    """
    table, rows, bad = _parse(block, schema, text_columns, only_schema)
    if len(rows) == 1 and not bad and block.start_row == 0 and block.last:  # the file is one object
        for column in text_columns:
            if column not in table.column_names or table.column(column).null_count:
                (line,) = (line for line in split_records(block, None) if is_document(line, "jsonl"))
                if (name := array_of_objects(line)) is not None:
                    detail = f"no {column!r}; {elements_remedy(name)}"
                    return pa.table({}), rows[:0], [BadRecord(int(rows[0]), "null_text", detail[:MAX_DETAIL_CHARACTERS])]
    return table, rows, bad


def _parse(block: RecordBlock, schema: pa.Schema, text_columns: tuple[str, ...], only_schema: bool) -> Parsed:
    check_not_reserved(schema.names)
    parts: list[Parsed] = []
    for part in block.lines_in_parts(PARSED_BYTES):
        parsed = _parse_as_it_is(part, schema, text_columns, only_schema)
        if parsed is None:
            return _parse_line_by_line(block, schema, text_columns, only_schema)
        parts.append(parsed)
    tables = [table for table, _, _ in parts if table.num_rows]
    bad = [record for _, _, of_part in parts for record in of_part]
    if not tables:
        return pa.table({}), np.empty(0, np.int64), bad
    return pa.concat_tables(tables), np.concatenate([rows for _, rows, _ in parts]), bad


def _parse_as_it_is(block: RecordBlock, schema: pa.Schema, text_columns: tuple[str, ...], only_schema: bool) -> Parsed | None:
    """What parse_jsonl returns, if Arrow parses all lines but bad records without a change; otherwise None."""
    rows, lines = _documents(block)
    loaded = _load_unparsable(block, lines, text_columns, schema.names if only_schema else None)
    if any(isinstance(found, dict) for found in loaded):
        return None
    parsable = np.array([found is None for found in loaded], bool)
    bad = _bad_records(rows, loaded)
    if not parsable.any():
        return schema.empty_table(), rows[:0], bad
    table = _parse_at_once([*itertools.compress(lines, parsable)], schema, only_schema)
    return None if table is None else (table, rows[parsable], bad)


def _parse_line_by_line(block: RecordBlock, schema: pa.Schema, text_columns: tuple[str, ...], only_schema: bool) -> Parsed:
    rows, lines = _documents(block)
    read_columns = schema.names if only_schema else None
    loaded = [_load(line, text_columns, read_columns) for line in lines]
    bad = _bad_records(rows, loaded)
    documents = [found for found in loaded if isinstance(found, dict)]
    if not documents:
        return pa.table({}), rows[:0], bad
    good = np.array([isinstance(found, dict) for found in loaded])
    rows = rows[good]
    schema = add_late_fields(schema, documents, columns=not only_schema)
    check_not_reserved(schema.names)
    table, refused = _Block([*itertools.compress(lines, good)], documents).parse(schema, text_columns)
    check_nesting(table.schema)
    if refused:
        bad += [BadRecord(int(rows[index]), "broken_json", error) for index, error in refused.items()]
        kept = np.isin(np.arange(len(rows)), [*refused], invert=True)
        table, rows = table.filter(pa.array(kept)), rows[kept]
    return table, rows, sorted(bad, key=lambda record: record.row)


def _documents(block: RecordBlock) -> tuple[np.ndarray, list[bytes]]:
    """(int64: the rows of the lines that are documents, these lines)."""
    numbered = [
        (row, line) for row, line in enumerate(split_records(block, None), block.start_row) if is_document(line, "jsonl")
    ]
    return np.array([row for row, _ in numbered], np.int64), [line for _, line in numbered]


def _load_unparsable(
    block: RecordBlock, lines: list[bytes], text_columns: tuple[str, ...], read_columns: Collection[str] | None
) -> list[Document | tuple[Reason, str] | None]:
    """For each of a block's lines what _load returns; None where Arrow may parse it."""
    decodable = _is_utf8(block.data)
    # Arrow does not check the encoding of names
    parsable = np.array([_is_object(line) and (decodable or _is_utf8(line)) for line in lines], bool)
    if SHORT_INFINITY.search(block.data):
        parsable &= np.array([not _has_short_infinity(line) for line in lines], bool)
    return [
        None if may_parse else _load(line, text_columns, read_columns) for line, may_parse in zip(lines, parsable, strict=True)
    ]


def _bad_records(rows: np.ndarray, loaded: Sequence[Document | tuple[Reason, str] | None]) -> list[BadRecord]:
    return [BadRecord(int(row), *found) for row, found in zip(rows, loaded, strict=True) if isinstance(found, tuple)]


def _parse_at_once(lines: list[bytes], schema: pa.Schema, only_schema: bool) -> pa.Table | None:
    """The table of lines that Arrow parses as they are; None if it does not, or has to change a value."""
    # where it leaves columns out, Arrow leaves fields of the others out as well
    keep_fields = only_schema and any(map(pa.types.is_nested, schema.types))
    try:
        table = _read_json(lines, schema, only_schema and not keep_fields)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        return None
    if keep_fields:
        table = table.select(schema.names)
    return None if table.schema != schema or any(map(_may_be_rounded, table.itercolumns())) else table


def _is_object(line: bytes) -> bool:
    """True if a line can be one JSON object. Arrow would join two halves of an object on two lines, and crash on `null`."""
    stripped = line.strip()
    return stripped.startswith(b"{") and stripped.endswith(b"}") and not is_nested_deeper(stripped, MAX_BRACKETS)


def _has_short_infinity(line: bytes) -> bool:
    """Whether a line has `Inf` for a number, which Arrow reads, and no other parser."""
    if not SHORT_INFINITY.search(line):
        return False
    try:
        load_json(line)
    except (ValueError, RecursionError):
        return True
    return False  # it stands in a text


def _is_utf8(data: bytes) -> bool:
    try:
        binary_cell(pa.py_buffer(data)).cast(pa.large_string())
    except pa.ArrowInvalid:
        return False
    return True


def _may_be_rounded(column: pa.ChunkedArray | pa.Array) -> bool:
    """Whether a float in a column of any type may stand for an integer that it is not equal to."""
    if pa.types.is_floating(column.type):
        greatest = pc.max(pc.abs(column)).as_py()
        return greatest is not None and greatest >= EXACT_INTEGERS[column.type]
    if pa.types.is_struct(column.type):
        return any(map(_may_be_rounded, column.flatten()))
    return pa.types.is_list(column.type) and _may_be_rounded(pc.list_flatten(column))


def _read_json(lines: Sequence[bytes], schema: pa.Schema, only_schema: bool) -> pa.Table:
    """A row per line; raises ArrowInvalid or ArrowNotImplementedError."""
    data = b"\n".join(lines)
    table = pyarrow.json.read_json(
        pa.BufferReader(data),
        read_options=pyarrow.json.ReadOptions(use_threads=False, block_size=len(data) + 1),  # one block: one set of types
        parse_options=pyarrow.json.ParseOptions(
            explicit_schema=schema, unexpected_field_behavior="ignore" if only_schema else "infer"
        ),
    )
    table.validate(full=True)  # the parser does not check the encoding
    if table.num_rows != len(lines):
        raise pa.ArrowInvalid(f"{table.num_rows} values where one was expected")
    return table


def _load(line: bytes, text_columns: tuple[str, ...], read_columns: Collection[str] | None) -> Document | tuple[Reason, str]:
    """The object on a line, or why it is a bad record: (reason, detail).

    Args:
        read_columns: that no object has twice, as where Arrow parses it; None: all.
    """
    try:
        document = load_json(line)
    except UnicodeDecodeError as undecodable:
        return "undecodable", str(undecodable)[:MAX_DETAIL_CHARACTERS]
    except (ValueError, RecursionError) as broken:
        return "broken_json", str(broken)[:MAX_DETAIL_CHARACTERS]
    if not isinstance(document, dict):
        return "broken_json", f"a JSON {type(document).__name__}, not an object"
    if isinstance(document, RepeatedKeys):
        for name, count in Counter(name for name, _ in document.pairs).items():
            if count > 1 and (read_columns is None or name in read_columns):
                return "broken_json", f"the object has the key {as_json(name)} more than once"[:MAX_DETAIL_CHARACTERS]
    for column in text_columns:
        if not isinstance(document.get(column, ""), str | None):
            return "not_a_string", as_json(document[column])[:MAX_DETAIL_CHARACTERS]
    if _has_surrogates(line):
        for text in (*document, *(document.get(column) or "" for column in text_columns)):
            if not is_unicode(text):
                return "undecodable", f"half a surrogate pair: {as_json(text)}"[:MAX_DETAIL_CHARACTERS]
    return document


def _has_surrogates(line: bytes) -> bool:
    """Whether a line may have half a surrogate pair, as an escape."""
    return b"\\ud" in line or b"\\uD" in line


class _Block:
    """Lines that Arrow cannot parse as they are, and the objects in them."""

    def __init__(self, lines: list[bytes], documents: list[Document]):
        self.lines, self.documents = lines, documents
        # neither nested too deep nor with text that Arrow refuses
        self.parsable = [
            _is_object(line) and (not _has_surrogates(line) or is_unicode(document))
            for line, document in zip(lines, documents, strict=True)
        ]
        self.misfits: dict[int, dict[str, str]] = {}
        self.refused: dict[int, str] = {}  # {index: why Arrow cannot parse a column that the model reads}

    def parse(self, schema: pa.Schema, text_columns: tuple[str, ...]) -> tuple[pa.Table, dict[int, str]]:
        """(the columns of `schema`, and MISFITS_COLUMN if there are any; {index of a line that is refused: why})."""
        changed = {f.name: self.fit(f) for f in schema if f.name not in text_columns}
        columns: dict[str, pa.ChunkedArray] = {}
        as_they_are = pa.schema([field for field in schema if not changed.get(field.name)])
        for fields in (as_they_are, *(pa.schema([field]) for field in schema if changed.get(field.name))):
            if len(fields):
                values = changed.get(fields.names[0]) or {}
                part = self.parse_columns(fields, values, text_columns)
                columns |= dict(zip(fields.names, part.itercolumns(), strict=True))
        table = pa.table({name: columns[name] for name in schema.names})
        if self.misfits:
            table = table.append_column(MISFITS_COLUMN, misfits_array(self.misfits, table.num_rows))
        return table, self.refused

    def fit(self, field: pa.Field) -> dict[int, Any]:
        """The values of a column in place of those that Arrow does not read as its type: text, or None for a misfit."""
        is_read, changed = reads(field.type), dict[int, Any]()
        for index, document in enumerate(self.documents):
            value = document.get(field.name)
            if value is None:
                continue
            may_be_text = self.parsable[index] or is_unicode(value)
            if may_be_text and is_read(value):
                continue
            fitted = fit_value(value, field.type)
            if not (may_be_text and is_read(fitted)):
                fitted = None
                self.add_misfit(index, field.name)
            changed[index] = fitted
        return changed

    def add_misfit(self, index: int, name: str) -> None:
        self.misfits.setdefault(index, {})[name] = as_json(self.documents[index][name])

    def parse_columns(self, schema: pa.Schema, changed: dict[int, Any], text_columns: tuple[str, ...]) -> pa.Table:
        """Some of the columns, or one with some of its values `changed`; a value that Arrow cannot parse either is a misfit."""
        lines = [self.line_of(index, schema.names, changed) for index in range(len(self.lines))]

        def read(start: int, stop: int) -> pa.Table:
            return _read_json(lines[start:stop], schema, only_schema=True)

        def read_alone(index: int) -> pa.Table:
            columns = {}
            for field in schema:
                value = changed.get(index, self.documents[index].get(field.name))
                try:
                    columns[field.name] = _read_json([_line({field.name: value})], pa.schema([field]), only_schema=True).column(
                        0
                    )
                except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
                    columns[field.name] = pa.chunked_array([pa.nulls(1, field.type)])
                    if field.name in text_columns:
                        self.refused[index] = str(error)[:MAX_DETAIL_CHARACTERS]
                    else:
                        self.add_misfit(index, field.name)
            return pa.table(columns, schema)

        parts, failed = bisect_failures(
            read,
            len(lines),
            lambda error: isinstance(error, pa.ArrowInvalid | pa.ArrowNotImplementedError),
            may_all_fail=True,
        )
        tables = {start: table for start, _, table in parts} | {index: read_alone(index) for index in failed}
        return pa.concat_tables(tables[start] for start in sorted(tables))

    def line_of(self, index: int, names: list[str], changed: dict[int, Any]) -> bytes:
        """A line with these columns at least, as Arrow can parse it."""
        if index in changed:
            values = {names[0]: changed[index]}
        elif self.parsable[index]:
            return self.lines[index]
        else:
            values = {name: self.documents[index].get(name) for name in names}
        return _line(values)


def _line(values: Document) -> bytes:
    return json.dumps(values, ensure_ascii=False).encode()
