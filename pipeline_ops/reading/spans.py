"""What a read task is given, and what it gives: spans of files, the settings of reading, pieces with their documents."""

import json
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple

import pyarrow as pa

from pipeline_ops.inputs.config import InputConfig
from pipeline_ops.inputs.input_files import InputFile
from pipeline_ops.reading.unit_sizes import UnitSizes
from pipeline_ops.schema.output_columns import OutputConfig
from pipeline_ops.schema.units import Piece, Range, Reject
from pipeline_ops.storage.config import StorageConfig
from pipeline_ops.storage.store import Store, StoredFile


@dataclass(frozen=True)
class Span:
    """The ranges of one file that a task reads. A range is one piece in Parquet, and any number of them in other formats."""

    file: InputFile
    ranges: tuple[Range, ...]
    replaces: tuple[str, ...] = ()  # names of the commits whose rows of this file are outdated
    behind: int = 0  # bytes that are left to read when the span has been read, decompressed, estimated


@dataclass(frozen=True)
class ReadSettings:
    """What reading depends on, the same for every task of a job."""

    input: InputConfig
    storage: StorageConfig
    output: OutputConfig
    column_types: pa.Schema  # of the input's columns; see column_types.settle_types
    unit_sizes: UnitSizes  # of documents in memory
    fingerprint: str  # of the settings that change results

    @property
    def store(self) -> Store:
        """Of the input."""
        return Store(self.input.path, self.storage)

    @property
    def unit_bytes(self) -> int:
        """Of a unit, at the most, about."""
        return self.unit_sizes.largest


class PieceContent(NamedTuple):
    """A piece with its documents and rejects."""

    piece: Piece
    documents: pa.Table
    rejects: list[Reject]
    unit_bytes: int  # of a unit that begins with it


def spans_to_json(spans: list[Span]) -> str:
    """The spans of a task as a cell of Ray's input; without InputFile.table, of which the files have what reading needs."""
    return json.dumps([span_fields(span) for span in spans])


def span_fields(span: Span) -> dict[str, Any]:
    """What JSON holds of a span."""
    return asdict(replace(span, file=replace(span.file, table=None)))


def spans_from_json(text: str) -> list[Span]:
    """The spans in what spans_to_json returns."""
    return [
        Span(
            InputFile(
                **{
                    **span["file"],
                    "stored": StoredFile(**span["file"]["stored"]),
                    **{name: tuple(map(tuple, span["file"][name])) for name in ("columns", "field_names")},
                }
            ),
            tuple(Range(**fields) for fields in span["ranges"]),
            tuple(span["replaces"]),
            span["behind"],
        )
        for span in json.loads(text)
    ]
