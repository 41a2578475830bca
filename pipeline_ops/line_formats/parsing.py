"""Blocks of records -> Arrow tables and bad records; each record that is a document is exactly once in one of them.

All records of a block are parsed together; if that fails, bisection isolates the bad ones.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.csv

from pipeline_ops.line_formats.csv_syntax import QUOTE_REMEDY, CsvSyntax
from pipeline_ops.line_formats.line_records import (
    RecordBlock,
    is_document,
    split_quoted_records,
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


def parse_csv(block: RecordBlock, header: list[str], syntax: CsvSyntax) -> tuple[pa.Table, np.ndarray, list[BadRecord]]:
    """A document per non-empty record; values are strings, also "", "NA" and "000".

    Args:
        header: the column names.

    Returns:
        (table, each row's number as int64, counted from the first document, bad records).
    """

    def parse(lines: list[bytes]) -> pa.Table:
        data = b"\n".join(lines) + b"\n"
        return pyarrow.csv.read_csv(
            pa.BufferReader(data),
            read_options=pyarrow.csv.ReadOptions(column_names=header, use_threads=False, block_size=len(data) + 1),
            parse_options=pyarrow.csv.ParseOptions(
                delimiter=syntax.delimiter,
                quote_char=syntax.quote or False,
                escape_char=syntax.escape or False,
                newlines_in_values=True,
                ignore_empty_lines=False,
            ),
            convert_options=pyarrow.csv.ConvertOptions(
                column_types=dict.fromkeys(header, pa.string()), strings_can_be_null=False
            ),
        )

    def reason(line: bytes, error: BaseException) -> tuple[Reason, str]:
        fault = syntax.quoting_fault(line, len(header))
        if fault is not None:
            return "broken_csv", fault
        try:
            line.decode()
        except UnicodeDecodeError as undecodable:
            return "undecodable", str(undecodable)
        if len(syntax.fields(line)) != len(header):
            lines_of_it = line.count(b"\n") + 1
            remedy = f"; it has {lines_of_it:,} lines: {QUOTE_REMEDY}" if syntax.quote and lines_of_it > 1 else ""
            return "broken_csv", f"{error}"[: MAX_DETAIL_CHARACTERS - len(remedy)] + remedy
        return "broken_csv", str(error)

    # Arrow would accept all of these
    lines, faulty = split_quoted_records(block, syntax)
    parsable = [True] * len(lines)
    for number in faulty:
        parsable[number] = False
    if block.data.count(b"\n") > len(lines):
        for number, line in enumerate(lines):
            if b"\n" in line and syntax.takes_in_rows(line, len(header)):
                parsable[number] = False
    return _parse_records(lines, "csv", block.start_row, parse, reason, parsable)


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
