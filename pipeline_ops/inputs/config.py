"""InputConfig: which files are labeled and how they are parsed."""

import codecs
from typing import Literal

import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from pipeline_ops.inputs.part import InputPart


class InputConfig(BaseModel):
    """Which files are labeled and how they are parsed; the keys `input.*`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: str = Field(description="file, folder (recursive) or glob; local, s3:// or what fsspec knows")
    format: Literal["auto", "parquet", "jsonl", "csv", "text", "arrow", "orc", "avro", "wet"] = Field(
        default="auto", description="auto: by suffix, per file"
    )
    text_column: str = Field(default="text", description="the column that is labeled")
    text_pair_column: str | None = Field(
        default=None, description="the second text of each document, for models that read two: premise and hypothesis, ..."
    )
    text_unit: Literal["line", "file"] = Field(default="line", description="plain text: a document per line, or per file")
    encoding: str | None = Field(
        default=None,
        description="of text, CSV and JSON Lines: cp1252, shift_jis, utf-16-le, ...; null: by a byte order mark, else UTF-8;"
        " auto: else a guess per file",
    )
    min_characters: int = Field(default=0, ge=0, description="shorter texts (white space at the ends not counted) are rejected")
    max_reject_share: float = Field(
        default=0.5,
        ge=0,
        le=1,
        description="exit 1 if more of a file's documents, or of all, are rejected, or none is labeled; 1 accepts any",
    )
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
    escape: str | None = Field(
        default=None,
        min_length=1,
        max_length=1,
        description='CSV: makes the next character a plain one: a backslash where texts have \\" for a quote;'
        " default: none, quotes are doubled",
    )
    header: bool | tuple[str, ...] = Field(
        default=True,
        description="CSV: true: the first record has the names of the columns; false: it is a document, and the columns are"
        " column_0, column_1, ...; a list: it is a document, and these are the names",
    )
    part: InputPart | None = Field(
        default=None, description="label only the files of this part, such as {number: 0, of: 4}; `split` writes it"
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

    @field_validator("encoding")
    @classmethod
    def _known_encoding(cls, encoding: str | None) -> str | None:
        if encoding not in (None, "auto"):
            try:
                bytes(4).decode(encoding)
                if codecs.lookup(encoding).name in ("idna", "punycode"):
                    raise LookupError("of the names of hosts")
            except (LookupError, UnicodeError) as error:  # not known, or no encoding of text, such as base64
                raise ValueError("no text encoding that Python knows; try cp1252, utf-16 or auto") from error
        return encoding

    @field_validator("delimiter", "quote", "escape")
    @classmethod
    def _another_byte(cls, character: str | None, info: ValidationInfo) -> str | None:
        if character is None:
            return None
        if not character.isascii() or character in "\0\r\n":
            raise ValueError(f"{character!r} is not a single ASCII character")
        for key in ("delimiter", "quote"):
            other = info.data.get(key) or ("," if key == "delimiter" else None)
            if info.field_name not in ("delimiter", key) and character == other:
                raise ValueError(f"{character!r} is the {key} of CSV as well; leave it out, or give another")
        return character

    @field_validator("header")
    @classmethod
    def _names(cls, header: bool | tuple[str, ...]) -> bool | tuple[str, ...]:
        if not isinstance(header, bool) and not (header and all(header) and len({*header}) == len(header)):
            raise ValueError("a list of names has at least one, none twice, and none that is empty")
        return header

    @field_validator("column_types")
    @classmethod
    def _known_types(cls, types: dict[str, str]) -> dict[str, str]:
        for column, name in types.items():
            try:
                pa.type_for_alias(name)
            except ValueError as error:
                raise ValueError(f"{name!r} for column {column!r} is no Arrow type: try int64, double, string") from error
        return types
