"""The input corpus: its settings, its files, their formats, and the types of columns that text formats do not declare."""

from dataclasses import dataclass
from typing import Literal

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, Field, field_validator

from pipeline_ops import parsing, records
from pipeline_ops.schema import UserError
from pipeline_ops.storage import StorageConfig, StoredFile, list_files, open_to_read

FORMATS = {
    ".parquet": "parquet",
    ".pq": "parquet",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".csv": "csv",
    ".tsv": "csv",
    ".txt": "text",
    ".text": "text",
}
COMPRESSIONS = {".gz": "gzip", ".zst": "zstd", ".bz2": "bz2"}
SAMPLED_FILES = 8
SAMPLED_BYTES = 2**20


class InputConfig(BaseModel):
    """What is labelled and how it is read."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: str = Field(description="file, folder (recursive) or glob; local, s3:// or what fsspec knows")
    format: Literal["auto", "parquet", "jsonl", "csv", "text"] = Field(default="auto", description="auto: by suffix, per file")
    text_column: str = Field(default="text", description="the column that is labelled")
    text_unit: Literal["line", "file"] = Field(default="line", description="plain text: a document per line, or per file")
    min_characters: int = Field(default=0, ge=0, description="shorter texts (white space at the ends not counted) are rejected")
    column_types: dict[str, str] = Field(
        default_factory=dict,
        description="Arrow types of JSON Lines and CSV columns, where the sample's would not do: {year: int32}",
    )
    delimiter: str | None = Field(
        default=None, min_length=1, max_length=1, description="CSV; default: tab for .tsv, else comma"
    )
    quote: str | None = Field(
        default='"', min_length=1, max_length=1, description="CSV; null where quotes are plain characters"
    )

    @field_validator("column_types")
    @classmethod
    def _known_types(cls, types: dict[str, str]) -> dict[str, str]:
        for column, name in types.items():
            try:
                pa.type_for_alias(name)
            except ValueError as error:
                raise ValueError(f"{name!r} for column {column!r} is no Arrow type: try int64, double, string") from error
        return types


@dataclass(frozen=True)
class InputFile:
    """A listed input file and how to read it."""

    stored: StoredFile
    format: str  # parquet, jsonl, csv or text
    compression: str | None

    @property
    def path(self) -> str:
        return self.stored.path


def suffixes(path: str) -> tuple[str | None, str | None]:
    """(format, compression) by the name's suffixes; None where they say nothing."""
    name = path.rsplit("/", 1)[-1].lower()
    compression = None
    for suffix, codec in COMPRESSIONS.items():
        if name.endswith(suffix):
            name, compression = name.removesuffix(suffix), codec
    for suffix, file_format in FORMATS.items():
        if name.endswith(suffix):
            return file_format, compression
    return None, compression


def find_inputs(config: InputConfig, storage: StorageConfig) -> tuple[list[InputFile], list[str]]:
    """The input files in path order, and the paths passed over because their suffix says no known format.

    Raises:
        UserError: nothing is there, nothing matches, or nothing that is there has a known format.
    """
    listed = list_files(config.path, storage)
    if not listed:
        what = "matches no file" if any(c in config.path for c in "*?[") else "does not exist or holds no files"
        raise UserError(f"input.path: {config.path!r} {what}; give a file, a folder or a glob that has some")
    files, unknown = [], []
    for stored in listed:
        by_suffix, compression = suffixes(stored.path)
        file_format = by_suffix if config.format == "auto" else config.format
        if file_format is None:
            unknown.append(stored.path)
        else:
            files.append(InputFile(stored, file_format, None if file_format == "parquet" else compression))
    if not files:
        raise UserError(
            f"input.path: no file under {config.path!r} has a known suffix ({', '.join([*FORMATS, *COMPRESSIONS])});"
            f" the first is {unknown[0]!r}; set input.format"
        )
    return files, unknown


def input_schema(files: list[InputFile], config: InputConfig, storage: StorageConfig) -> pa.Schema:
    """The columns of the first of `files`, which are of one format, without reading its rows; JSON Lines: of a sample."""
    file = files[0]
    if file.format == "parquet":
        with open_to_read(file.path, storage, sequential=False) as source:
            return pq.read_schema(source)
    if file.format == "jsonl":
        return sample_types(files, config, storage)
    names = csv_header(file, config, storage)[0] if file.format == "csv" else [config.text_column]
    return pa.schema([(name, pa.string()) for name in names])


def column_names(file: InputFile, config: InputConfig, storage: StorageConfig) -> list[str]:
    return input_schema([file], config, storage).names


def is_text(data_type: pa.DataType) -> bool:
    """Whether a column of this type can hold texts; bytes are decoded as UTF-8."""
    if pa.types.is_dictionary(data_type):
        data_type = data_type.value_type
    return any(
        check(data_type)
        for check in (
            pa.types.is_string,
            pa.types.is_large_string,
            pa.types.is_string_view,
            pa.types.is_binary,
            pa.types.is_large_binary,
            pa.types.is_binary_view,
        )
    )


def csv_delimiter(file: InputFile, config: InputConfig) -> str:
    return config.delimiter or ("\t" if ".tsv" in file.path.lower().rsplit("/", 1)[-1] else ",")


def csv_header(
    file: InputFile, config: InputConfig, storage: StorageConfig, content: bytes | None = None
) -> tuple[list[str], int]:
    """The column names in a CSV file's first record, and where the next record begins (bytes); ([], 0) for an empty file."""
    with records.open_decompressed(file.path, file.compression, storage, 0, content) as stream:
        delimiter = csv_delimiter(file, config)
        block = next(records.cut_records(stream, target_bytes=1, quote=config.quote, delimiter=delimiter), None)
    if block is None:
        return [], 0
    names = parsing.csv_fields(block.data, delimiter, config.quote)
    if len(set(names)) < len(names):
        raise UserError(f"input.path: the header of {file.path} names a column twice: {', '.join(names)}")
    return names, block.stop_byte


def sample_types(files: list[InputFile], config: InputConfig, storage: StorageConfig) -> pa.Schema:
    """Column types of JSON Lines files, from the first mebibyte of some of them, evenly spread; see parsing.types_of_lines.

    Rows that do not fit their column's type are rejected later, with the reason `column_type`.
    """
    if len(files) > SAMPLED_FILES:
        step = len(files) / SAMPLED_FILES
        files = [files[int(index * step)] for index in range(SAMPLED_FILES)]
    lines: list[bytes] = []
    for file in files:
        try:
            with records.open_decompressed(file.path, file.compression, storage) as stream:
                block = next(records.cut_records(stream, target_bytes=SAMPLED_BYTES, quote=None), None)
        except OSError as error:
            error.add_note(f"while reading {file.path}")
            raise
        lines += records.split_records(block, None) if block else []
    sampled = parsing.types_of_lines(lines)
    types = {field.name: field.type for field in sampled}
    types |= {name: pa.type_for_alias(alias) for name, alias in config.column_types.items()}
    if config.text_column in sampled.names:  # else the caller reports it, or the rows are rejected one by one
        types[config.text_column] = pa.string()
    return pa.schema(list(types.items()))
