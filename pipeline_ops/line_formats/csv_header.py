"""The columns of a CSV file, and where its documents begin."""

import re
from collections import Counter

from pipeline_ops.inputs.config import InputConfig
from pipeline_ops.inputs.input_files import InputFile
from pipeline_ops.line_formats.csv_syntax import QUOTE_REMEDY, CsvSyntax, csv_syntax
from pipeline_ops.line_formats.decoding import open_lines
from pipeline_ops.line_formats.line_records import read_record_blocks, split_records
from pipeline_ops.schema.errors import UserError
from pipeline_ops.storage.store import Store

BEGINNING_BYTES = 2**16  # of a file, and more where its first record has more
DELIMITER_LINE = re.compile(rb"sep=(.)", re.IGNORECASE)  # Excel's, before the header


def csv_header(file: InputFile, config: InputConfig, store: Store, content: bytes | None = None) -> tuple[list[str], int]:
    """(the names of a CSV file's columns, the offset in bytes of its first document); ([], 0) for a file without records.

    Args:
        content: of the file, where it has been fetched already.

    Raises:
        UserError: the file's first line names another delimiter; its header takes in rows, or ends otherwise than its other
            lines; its records have not as many fields as `input.header` names.
    """
    syntax = csv_syntax(file, config) or CsvSyntax()
    start = 0
    with open_lines(file, config, store, 0, content) as stream:
        for block in read_record_blocks(stream, target_bytes=BEGINNING_BYTES, syntax=syntax):
            records, ends = split_records(block, syntax), block.record_ends(syntax)
            if start == 0 and (delimiter := named_delimiter(records[0])):
                if delimiter != syntax.delimiter:
                    raise UserError(
                        f"input.delimiter: {file.path} begins with sep={delimiter}, but the delimiter is {syntax.delimiter!r};"
                        f" set input.delimiter={delimiter!r}"
                    )
                start = int(ends[0])
                records[0] = b""
            filled = [index for index, record in enumerate(records) if record]
            if not filled:
                continue
            if config.header is True:
                record = records[filled[0]]
                _check_header_record(record, syntax, file)
                return syntax.fields(record), block.start_byte + int(ends[filled[0]])
            return _names_given([records[index] for index in filled], syntax, file, config), start
    return [], 0


def named_delimiter(record: bytes) -> str | None:
    """The delimiter that a first line such as `sep=;` names; None for any other record."""
    found = DELIMITER_LINE.fullmatch(record)
    return found[1].decode(errors="replace") if found else None


def _check_header_record(record: bytes, syntax: CsvSyntax, file: InputFile) -> None:
    """Raises UserError for a header that would take in rows, of which nobody would hear."""
    fault = syntax.quoting_fault(record, 0)
    first, *between = record.split(b"\n")[:-1] or [record]
    delimiters = first.count(syntax.delimiter.encode())
    if (
        fault is None
        and delimiters
        and between
        and all(line.count(syntax.delimiter.encode()) == delimiters for line in between)
    ):
        fault = f"a quoted name takes in rows: {len(between) + 2:,} lines; {QUOTE_REMEDY}"
    if fault is not None:
        raise UserError(f"input.path: the header of {file.path} cannot be read: {fault}")


def check_header_names(names: list[str], file: InputFile) -> None:
    """Raises UserError if a CSV header, or the schema of a file of typed rows, has a name twice."""
    if len(set(names)) < len(names):
        where = "header" if file.format == "csv" else "schema"
        raise UserError(f"input.path: the {where} of {file.path} names a column twice: {', '.join(names)}")


def numbered_names(num_columns: int) -> list[str]:
    """The names of the columns of a file without a header: column_0, column_1, ..."""
    return [f"column_{number}" for number in range(num_columns)]


def _names_given(records: list[bytes], syntax: CsvSyntax, file: InputFile, config: InputConfig) -> list[str]:
    """The names of the columns of a file without a header, as many as most of its first records have fields."""
    num_columns = Counter(len(syntax.fields(record)) for record in records).most_common(1)[0][0]
    if isinstance(config.header, bool):
        return numbered_names(num_columns)
    if len(config.header) != num_columns:
        raise UserError(
            f"input.header: names in it: {len(config.header)}, fields in the records of {file.path}: {num_columns}; name each"
            f" column, or set input.header=false for {', '.join(numbered_names(num_columns)[:2])}, ..."
        )
    return [*config.header]
