"""Column names and types of input files; those of JSON Lines, which declare none, are inferred from a sample."""

import contextlib
import itertools
import json
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline_ops.reading import line_records
from pipeline_ops.reading.documents import is_text_type
from pipeline_ops.reading.file_formats import open_decompressed
from pipeline_ops.reading.inputs import MAX_OPENED_FILES, InputConfig, InputFile, evenly_spread, readable_files
from pipeline_ops.reading.json_types import types_of_lines
from pipeline_ops.reading.parsing import csv_fields
from pipeline_ops.schema.errors import UserError
from pipeline_ops.storage.store import Store

TYPE_SAMPLE_FILES = 8  # JSON Lines files whose beginnings declare the types


TYPE_SAMPLE_BYTES = 2**20  # of each, decompressed


def input_schema(files: list[InputFile], config: InputConfig, store: Store) -> tuple[pa.Schema, InputFile]:
    """The columns of the first of `files` that can be read, and that file; rows are read of JSON Lines only (a sample).

    Args:
        files: of one format.

    Raises:
        UnreadableInput: no file can be read.
        UserError: a CSV header has a name twice, or the text column of JSON Lines holds no texts.
    """
    if files[0].format == "jsonl":
        return _infer_types(files, config, store)

    def read_schema(file: InputFile) -> pa.Schema:
        if file.format == "parquet":
            with store.open(file.stored, sequential=False) as source:
                schema = pq.read_schema(source)
            return pa.schema([(field.name, field.type) for field in schema])  # a name that cannot be decoded raises here
        names = csv_header(file, config, store)[0] if file.format == "csv" else [config.text_column]
        check_header_names(names, file)
        return pa.schema([(name, pa.string()) for name in names])

    file, schema = next(readable_files(evenly_spread(files, MAX_OPENED_FILES), read_schema))
    return schema, file


def column_names(file: InputFile, config: InputConfig, store: Store) -> list[str]:
    """The column names of one file, as input_schema."""
    return input_schema([file], config, store)[0].names


def infer_column_types(files: list[InputFile], config: InputConfig, store: Store) -> pa.Schema:
    """Column types of JSON Lines files, from the first TYPE_SAMPLE_BYTES of TYPE_SAMPLE_FILES of them; see types_of_lines.

    `input.column_types` overrides them. Rows that do not fit are rejected later, with the reason `column_type`.

    Raises:
        UnreadableInput: no file can be read.
        UserError: as input_schema.
    """
    return _infer_types(files, config, store)[0] if files else _with_declared_types(pa.schema([]), config)


def _infer_types(files: list[InputFile], config: InputConfig, store: Store) -> tuple[pa.Schema, InputFile]:
    def read_lines(file: InputFile) -> list[bytes]:
        with open_decompressed(file.stored, file.compression, store) as stream:
            block = next(line_records.read_record_blocks(stream, target_bytes=TYPE_SAMPLE_BYTES, quote=None), None)
        return line_records.split_records(block, None) if block else []

    # the files after TYPE_SAMPLE_FILES are opened only in place of unreadable ones
    order = list(dict.fromkeys([*evenly_spread(files, TYPE_SAMPLE_FILES), *evenly_spread(files, MAX_OPENED_FILES)]))
    sampled = list(itertools.islice(readable_files(order, read_lines), TYPE_SAMPLE_FILES))
    types = types_of_lines([line for _, lines in sampled for line in lines])
    for key, column in zip(("input.text_column", "input.text_pair_column"), config.text_columns, strict=False):
        if column in types.names and not is_text_type(types.field(column).type) and not _has_texts(sampled, column):
            raise UserError(
                f"{key}: {column!r} in {sampled[0][0].path} is {types.field(column).type}, not text; name a column of texts"
            )
    return _with_declared_types(types, config), sampled[0][0]


def _has_texts(sampled: Sequence[tuple[InputFile, list[bytes]]], column: str) -> bool:
    """True if some values of a column are strings: then the others are rejected row by row."""
    for _, lines in sampled:
        for line in lines:
            with contextlib.suppress(ValueError, RecursionError):
                document = json.loads(line)
                if isinstance(document, dict) and isinstance(document.get(column), str):
                    return True
    return False


def _with_declared_types(sampled: pa.Schema, config: InputConfig) -> pa.Schema:
    """The types of a sample, overridden by `input.column_types`; text columns are strings."""
    types = {field.name: field.type for field in sampled}
    types |= {name: pa.type_for_alias(alias) for name, alias in config.column_types.items()}
    for column in config.text_columns:
        if column in sampled.names:  # else the caller reports it, or the rows are rejected one by one
            types[column] = pa.string()
    return pa.schema(list(types.items()))


def csv_delimiter(file: InputFile, config: InputConfig) -> str:
    """`input.delimiter`, or else a tab for .tsv and a comma for any other name."""
    return config.delimiter or ("\t" if ".tsv" in file.path.lower().rsplit("/", 1)[-1] else ",")


def csv_header(file: InputFile, config: InputConfig, store: Store, content: bytes | None = None) -> tuple[list[str], int]:
    """(the names in a CSV file's first record, the offset in bytes of the next record); ([], 0) for an empty file.

    Args:
        content: of the file, where it has been fetched already.
    """
    with open_decompressed(file.stored, file.compression, store, 0, content) as stream:
        delimiter = csv_delimiter(file, config)
        block = next(line_records.read_record_blocks(stream, target_bytes=1, quote=config.quote, delimiter=delimiter), None)
    if block is None:
        return [], 0
    return csv_fields(block.data, delimiter, config.quote), block.stop_byte


def check_header_names(names: list[str], file: InputFile) -> None:
    """Raises UserError if a header has a name twice."""
    if len(set(names)) < len(names):
        raise UserError(f"input.path: the header of {file.path} names a column twice: {', '.join(names)}")
