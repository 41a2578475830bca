"""The input corpus: its settings, its files, their formats, and the types of columns that text formats do not declare."""

import contextlib
import itertools
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from pipeline_ops.reading import line_records as records
from pipeline_ops.reading import parsing
from pipeline_ops.schema.errors import UserError, is_store_fault
from pipeline_ops.storage.files import StorageConfig, StoredFile, list_files, open_to_read

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
TYPE_SAMPLE_FILES = 8
TYPE_SAMPLE_BYTES = 2**20
MAX_OPENED_FILES = 100  # of a format, until one can be read: a corpus nobody may read is known to be one within seconds

Content = TypeVar("Content")


class UnreadableInput(UserError):
    """None of the files of a format can be read."""


class InputConfig(BaseModel):
    """What is labeled and how it is read."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: str = Field(description="file, folder (recursive) or glob; local, s3:// or what fsspec knows")
    format: Literal["auto", "parquet", "jsonl", "csv", "text"] = Field(default="auto", description="auto: by suffix, per file")
    text_column: str = Field(default="text", description="the column that is labeled")
    text_pair_column: str | None = Field(
        default=None, description="the second text of each document, for models that read two: premise and hypothesis, ..."
    )
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

    @property
    def text_columns(self) -> tuple[str, ...]:
        """The columns that the model reads."""
        return (self.text_column,) if self.text_pair_column is None else (self.text_column, self.text_pair_column)

    @field_validator("text_pair_column")
    @classmethod
    def _another_column(cls, column: str | None, info: ValidationInfo) -> str | None:
        if column is not None and column == info.data.get("text_column"):
            raise ValueError(f"{column!r} is input.text_column as well; a pair is two columns")
        return column

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


def format_and_compression(path: str) -> tuple[str | None, str | None]:
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
        by_suffix, compression = format_and_compression(stored.path)
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


def input_schema(files: list[InputFile], config: InputConfig, storage: StorageConfig) -> tuple[pa.Schema, InputFile]:
    """The columns of the first of `files` that can be read, without reading its rows (JSON Lines: of a sample), and that file.

    Args:
        files: of one format.

    Raises:
        UnreadableInput: none can be read.
    """
    if files[0].format == "jsonl":
        return _sample(files, config, storage)

    def read_schema(file: InputFile) -> pa.Schema:
        if file.format == "parquet":
            with open_to_read(file.stored, storage, sequential=False) as source:
                schema = pq.read_schema(source)
            return pa.schema([(field.name, field.type) for field in schema])  # a name that cannot be decoded raises here
        names = csv_header(file, config, storage)[0] if file.format == "csv" else [config.text_column]
        check_header_names(names, file)
        return pa.schema([(name, pa.string()) for name in names])

    file, schema = next(readable_files(evenly_spread(files, MAX_OPENED_FILES), read_schema))
    return schema, file


def column_names(file: InputFile, config: InputConfig, storage: StorageConfig) -> list[str]:
    return input_schema([file], config, storage)[0].names


def evenly_spread(files: Sequence[InputFile], count: int) -> list[InputFile]:
    """At most `count` of the files, evenly spread; the first is among them."""
    step = max(len(files) / count, 1)
    return [files[int(index * step)] for index in range(min(count, len(files)))]


def readable_files(files: Sequence[InputFile], read: Callable[[InputFile], Content]) -> Iterator[tuple[InputFile, Content]]:
    """Each file that can be read, and what `read` gives of it: one that is broken is quarantined later, when it is its turn.

    Raises:
        UnreadableInput: none can be read, and why the first cannot.
        Exception: the object store is at fault, not the file.
    """
    broken: list[str] = []
    for file in files:
        try:
            content = read(file)
        except Exception as error:  # a broken file can make the parsers raise anything
            if is_store_fault(error):
                raise
            why = f"{type(error).__name__}: {' '.join(str(error).split()) or 'no reason given'}"
            broken.append(str(error) if isinstance(error, UserError) else f"input.path: {file.path} cannot be read: {why}")
        else:
            yield file, content
    if broken and len(broken) == len(files):
        raise UnreadableInput(
            broken[0] + (f"; nor can {len(files) - 1} others of this format be read" if len(files) > 1 else "")
        )


def is_text_type(data_type: pa.DataType) -> bool:
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


def decode_texts(column: pa.ChunkedArray) -> tuple[pa.ChunkedArray, list[str | None]]:
    """A text column of any text type as large_string, and per row the decoding error; [] when there is none."""
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    as_bytes = column.cast(pa.large_binary())
    try:
        return as_bytes.cast(pa.large_string()), []  # the cast checks the encoding
    except pa.ArrowInvalid:
        texts: list[str | None] = []
        errors: list[str | None] = []
        for value in as_bytes.to_pylist():
            try:
                texts.append(None if value is None else value.decode())
                errors.append(None)
            except UnicodeDecodeError as error:
                texts.append(None)
                errors.append(str(error))
        return pa.chunked_array([pa.array(texts, pa.large_string())]), errors


def csv_delimiter(file: InputFile, config: InputConfig) -> str:
    return config.delimiter or ("\t" if ".tsv" in file.path.lower().rsplit("/", 1)[-1] else ",")


def csv_header(
    file: InputFile, config: InputConfig, storage: StorageConfig, content: bytes | None = None
) -> tuple[list[str], int]:
    """The column names in a CSV file's first record, and where the next record begins (bytes); ([], 0) for an empty file."""
    with records.open_decompressed(file.stored, file.compression, storage, 0, content) as stream:
        delimiter = csv_delimiter(file, config)
        block = next(records.read_record_blocks(stream, target_bytes=1, quote=config.quote, delimiter=delimiter), None)
    if block is None:
        return [], 0
    return parsing.csv_fields(block.data, delimiter, config.quote), block.stop_byte


def check_header_names(names: list[str], file: InputFile) -> None:
    """Raises UserError when a CSV file's header names a column twice."""
    if len(set(names)) < len(names):
        raise UserError(f"input.path: the header of {file.path} names a column twice: {', '.join(names)}")


def infer_column_types(files: list[InputFile], config: InputConfig, storage: StorageConfig) -> pa.Schema:
    """Column types of JSON Lines files, from the first mebibyte of some of them, evenly spread; see parsing.types_of_lines.

    Rows that do not fit their column's type are rejected later, with the reason `column_type`.

    Raises:
        UnreadableInput: none can be read.
    """
    return _sample(files, config, storage)[0] if files else _typed(pa.schema([]), config)


def _sample(files: list[InputFile], config: InputConfig, storage: StorageConfig) -> tuple[pa.Schema, InputFile]:
    def read_lines(file: InputFile) -> list[bytes]:
        with records.open_decompressed(file.stored, file.compression, storage) as stream:
            block = next(records.read_record_blocks(stream, target_bytes=TYPE_SAMPLE_BYTES, quote=None), None)
        return records.split_records(block, None) if block else []

    # others than the first choice are only opened in place of what cannot be read
    order = list(dict.fromkeys([*evenly_spread(files, TYPE_SAMPLE_FILES), *evenly_spread(files, MAX_OPENED_FILES)]))
    sampled = list(itertools.islice(readable_files(order, read_lines), TYPE_SAMPLE_FILES))
    types = parsing.types_of_lines([line for _, lines in sampled for line in lines])
    for key, column in zip(("input.text_column", "input.text_pair_column"), config.text_columns, strict=False):
        if column in types.names and not is_text_type(types.field(column).type) and not _has_texts(sampled, column):
            raise UserError(
                f"{key}: {column!r} in {sampled[0][0].path} is {types.field(column).type}, not text; name a column of texts"
            )
    return _typed(types, config), sampled[0][0]


def _has_texts(sampled: Sequence[tuple[InputFile, list[bytes]]], column: str) -> bool:
    """Whether there are texts among a column's values of other types, which are rejected one by one."""
    for _, lines in sampled:
        for line in lines:
            with contextlib.suppress(ValueError, RecursionError):
                document = json.loads(line)
                if isinstance(document, dict) and isinstance(document.get(column), str):
                    return True
    return False


def _typed(sampled: pa.Schema, config: InputConfig) -> pa.Schema:
    """The types that a sample has, those of `column_types` in place of its own."""
    types = {field.name: field.type for field in sampled}
    types |= {name: pa.type_for_alias(alias) for name, alias in config.column_types.items()}
    for column in config.text_columns:
        if column in sampled.names:  # else the caller reports it, or the rows are rejected one by one
            types[column] = pa.string()
    return pa.schema(list(types.items()))
