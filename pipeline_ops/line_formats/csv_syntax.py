"""The delimiter, the quote, the header and the fields of CSV files."""

import csv
import io

from pipeline_ops.inputs.config import InputConfig
from pipeline_ops.inputs.input_files import InputFile
from pipeline_ops.line_formats import line_records
from pipeline_ops.line_formats.decoding import open_lines
from pipeline_ops.line_formats.line_records import BYTE_ORDER_MARK, MAX_RECORD_BYTES
from pipeline_ops.schema.errors import UserError
from pipeline_ops.storage.store import Store


def csv_delimiter(file: InputFile, config: InputConfig) -> str:
    """`input.delimiter`, or else a tab for .tsv and a comma for any other name."""
    return config.delimiter or ("\t" if ".tsv" in file.path.lower().rsplit("/", 1)[-1] else ",")


def csv_syntax(file: InputFile, config: InputConfig) -> tuple[str | None, str]:
    """(quote, delimiter) of a line file; no quote where every newline ends a record."""
    return (config.quote, csv_delimiter(file, config)) if file.format == "csv" else (None, ",")


def csv_header(file: InputFile, config: InputConfig, store: Store, content: bytes | None = None) -> tuple[list[str], int]:
    """(the names in a CSV file's first record, the offset in bytes of the next record); ([], 0) for an empty file.

    Args:
        content: of the file, where it has been fetched already.
    """
    with open_lines(file, config, store, 0, content) as stream:
        delimiter = csv_delimiter(file, config)
        block = next(line_records.read_record_blocks(stream, target_bytes=1, quote=config.quote, delimiter=delimiter), None)
    if block is None:
        return [], 0
    return csv_fields(block.data, delimiter, config.quote), block.stop_byte


def check_header_names(names: list[str], file: InputFile) -> None:
    """Raises UserError if a CSV header, or the schema of a file of typed rows, has a name twice."""
    if len(set(names)) < len(names):
        where = "header" if file.format == "csv" else "schema"
        raise UserError(f"input.path: the {where} of {file.path} names a column twice: {', '.join(names)}")


def csv_fields(record: bytes, delimiter: str, quote: str | None) -> list[str]:
    """The fields of one CSV record; bytes that are not UTF-8 are replaced."""
    csv.field_size_limit(MAX_RECORD_BYTES)  # for the process; the default is 128 KiB
    text = record.removeprefix(BYTE_ORDER_MARK).decode(errors="replace").rstrip("\r\n")
    quoting = csv.QUOTE_MINIMAL if quote else csv.QUOTE_NONE
    return next(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, quotechar=quote, quoting=quoting), [])
