"""The input corpus: its settings (InputConfig) and its files."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from pipeline_ops.reading.file_formats import COMPRESSIONS, FORMATS, format_and_compression
from pipeline_ops.schema.errors import UserError, is_store_fault, one_line
from pipeline_ops.schema.units import Range
from pipeline_ops.storage.paths import did_you_mean
from pipeline_ops.storage.store import Store, StoredFile

MAX_OPENED_FILES = 100  # per format, until one can be read: a corpus without read permission is reported within seconds

Content = TypeVar("Content")


class UnreadableInput(UserError):
    """None of the files of a format can be read."""


class InputConfig(BaseModel):
    """Which files are labeled and how they are parsed; the keys `input.*`."""

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
        description="Arrow types of columns, where the input's own would not do: {year: int32}",
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
    stop_row: int | None = None  # exclusive: of a trial's last file only the first rows are labeled; None: all
    stop_byte: int | None = None  # where that row begins in the decompressed stream of a line format

    @property
    def path(self) -> str:
        return self.stored.path

    @property
    def rows(self) -> Range:
        """The rows that are to be labeled."""
        return Range(0, self.stop_row, 0, self.stop_byte)


def find_inputs(config: InputConfig, store: Store) -> tuple[list[InputFile], list[str]]:
    """(the input files in the order of their paths, the paths that are skipped because no suffix gives a format).

    Raises:
        UserError: the path does not exist, matches no file, or no file has a known format.
    """
    listed = store.list_files()
    if not listed:
        what = "matches no file" if any(c in store.path for c in "*?[") else "does not exist or holds no files"
        remedy = did_you_mean(store.path) or "; give a file, a folder or a glob that has some"
        raise UserError(f"input.path: {store.path!r} {what}{remedy}")
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
            f"input.path: no file under {store.path!r} has a known suffix ({', '.join([*FORMATS, *COMPRESSIONS])});"
            f" the first is {unknown[0]!r}; set input.format"
        )
    return files, unknown


def evenly_spread(files: Sequence[InputFile], count: int) -> list[InputFile]:
    """At most `count` of the files at even distances, beginning with the first."""
    step = max(len(files) / count, 1)
    return [files[int(index * step)] for index in range(min(count, len(files)))]


def readable_files(files: Sequence[InputFile], read: Callable[[InputFile], Content]) -> Iterator[tuple[InputFile, Content]]:
    """(file, what `read` returns) of each file that can be read; the others are skipped here and fail when the run reads them.

    Raises:
        UnreadableInput: no file can be read; the message is that of the first.
        Exception: the object store is at fault, not the file.
    """
    broken: list[str] = []
    for file in files:
        try:
            content = read(file)
        except Exception as error:  # a broken file can make the parsers raise anything
            if is_store_fault(error):
                raise
            reason = f"{type(error).__name__}: {one_line(error)}"
            broken.append(str(error) if isinstance(error, UserError) else f"input.path: {file.path} cannot be read: {reason}")
        else:
            yield file, content
    if broken and len(broken) == len(files):
        raise UnreadableInput(
            broken[0] + (f"; nor can {len(files) - 1} others of this format be read" if len(files) > 1 else "")
        )
