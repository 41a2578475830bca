"""Column names and types of input files, from a bounded sample of each format."""

import contextlib
import itertools
from collections import defaultdict
from collections.abc import Iterable

import pyarrow as pa
from pyarrow.parquet import FileMetaData

from pipeline_ops.inputs.config import InputConfig
from pipeline_ops.inputs.input_files import MAX_OPENED_FILES, InputFile, UnreadableInput, evenly_spread, readable_files
from pipeline_ops.line_formats import line_records
from pipeline_ops.line_formats.csv_header import check_header_names, csv_header
from pipeline_ops.line_formats.decoding import open_lines
from pipeline_ops.line_formats.first_bytes import check_no_pointer_file
from pipeline_ops.line_formats.json_types import types_of_lines
from pipeline_ops.reading.column_types import may_hold_texts, settle_types
from pipeline_ops.row_formats.parquet_files import read_footers, sampled_schema
from pipeline_ops.row_formats.row_files import ROW_FORMATS, open_row_file
from pipeline_ops.storage.store import Store

TYPE_SAMPLE_FILES = 8  # of each format but Parquet: files whose columns are looked at
TYPE_SAMPLE_BYTES = 2**20  # of each of JSON Lines, decompressed


def sample_columns(
    files: list[InputFile], config: InputConfig, store: Store, unreadable: dict[str, str] | None = None
) -> list[tuple[InputFile, pa.Schema]]:
    """(file, its columns) of some files, those of folders too; of a table the first readable file with the table's columns.

    Args:
        files: of one format.
        unreadable: as readable_files.

    Raises:
        UnreadableInput: as columns_in_files.
    """
    return with_columns_around(columns_in_files(files, config, store, unreadable))


def with_columns_around(sampled: list[tuple[InputFile, pa.Schema]]) -> list[tuple[InputFile, pa.Schema]]:
    """Columns of sampled files of one format, with those that are around the files: of folders, or a table's instead.

    A column that is in some of the files has the type that it has there. A file without columns has no rows, and gets none.
    """
    if not sampled:
        return sampled
    file, _ = sampled[0]
    around = [name for name, _ in file.columns]
    if file.table is not None:
        own = [field for field in file.table.schema if field.name not in file.table.partitions or field.name in around]
        return [(file, pa.schema(own))]
    inside = {name for _, schema in sampled for name in schema.names}
    added = [pa.field(name, pa.null() if name in inside else pa.string()) for name in around]
    return [
        (file, pa.schema([*schema, *(field for field in added if field.name not in schema.names)]) if schema.names else schema)
        for file, schema in sampled
    ]


def columns_in_files(
    files: list[InputFile], config: InputConfig, store: Store, unreadable: dict[str, str] | None = None
) -> list[tuple[InputFile, pa.Schema]]:
    """(file, the columns in it) of some files, by their headers or footers; rows are read of JSON Lines only.

    Of Parquet these are up to MAX_OPENED_FILES files, whose footers are fetched side by side; else TYPE_SAMPLE_FILES at most.

    JSON Lines declare no types: the beginnings of the files together have the types of types_of_lines, as those of the first.

    Args:
        files: of one format.
        unreadable: as readable_files.

    Raises:
        UnreadableInput: no file can be read; a header with a name twice cannot.
    """
    file_format = files[0].format
    footers: dict[str, FileMetaData | Exception] = {}

    def read_lines(file: InputFile) -> list[bytes]:
        with open_lines(file, config, store) as stream:
            block = next(line_records.read_record_blocks(stream, target_bytes=TYPE_SAMPLE_BYTES), None)
        return line_records.split_records(block) if block else []

    def read_schema(file: InputFile) -> pa.Schema:
        if file.format == "parquet":
            footer = footers[file.path]
            if isinstance(footer, Exception):
                check_no_pointer_file(file, store)
                raise footer
            schema = sampled_schema(footer)
        elif file.format in ROW_FORMATS:
            with open_row_file(file, store) as source:
                schema = source.schema
        else:
            names = csv_header(file, config, store)[0] if file.format == "csv" else [config.text_column]
            schema = pa.schema([(name, pa.string()) for name in names])
        check_header_names(schema.names, file)
        return schema

    if file_format == "parquet":
        spread = evenly_spread(files, MAX_OPENED_FILES)
        footers |= zip((file.path for file in spread), read_footers([file.stored for file in spread], store), strict=True)
        return [*readable_files(spread, read_schema, unreadable)]
    # the files after TYPE_SAMPLE_FILES are opened only in place of unreadable ones
    order = list(dict.fromkeys([*evenly_spread(files, TYPE_SAMPLE_FILES), *evenly_spread(files, MAX_OPENED_FILES)]))
    if file_format != "jsonl":
        return list(
            itertools.islice(readable_files(order, read_schema, unreadable), 1 if file_format == "text" else TYPE_SAMPLE_FILES)
        )
    sampled = list(itertools.islice(readable_files(order, read_lines, unreadable), TYPE_SAMPLE_FILES))
    first = sampled[0][0]
    types = {field.name: field for field in types_of_lines([line for _, lines in sampled for line in lines])}
    for column in config.text_columns:
        if column in types and may_hold_texts(types[column].type):
            types[column] = pa.field(column, pa.string())
    return [(first, pa.schema([*types.values()]))]


def files_by_format(files: Iterable[InputFile]) -> dict[str, list[InputFile]]:
    """{format: its files that are not empty, or all of them if all are}."""
    found: dict[str, list[InputFile]] = defaultdict(list)
    for file in files:
        found[file.format].append(file)
    return {file_format: [file for file in alike if file.stored.size] or alike for file_format, alike in found.items()}


def column_names(file: InputFile, config: InputConfig, store: Store) -> list[str]:
    """The column names of one file, as sample_columns."""
    return sample_columns([file], config, store)[0][1].names


def infer_column_types(files: Iterable[InputFile], config: InputConfig, store: Store) -> pa.Schema:
    """The column types of an input, from a sample of each format; see column_types.settle_types.

    A format of which no file can be read has no columns here.
    """
    sampled = {}
    for file_format, alike in files_by_format(files).items():
        with contextlib.suppress(UnreadableInput):
            sampled[file_format] = [schema for _, schema in sample_columns(alike, config, store)]
    return settle_types(sampled, config)[0]
