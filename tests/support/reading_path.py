"""Reads input files with the functions that the job's read tasks use, in this process."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipeline_ops.inputs.config import InputConfig
from pipeline_ops.inputs.input_files import InputFile
from pipeline_ops.inputs.listing import find_inputs
from pipeline_ops.reading.input_schema import infer_column_types
from pipeline_ops.reading.reader import read_units
from pipeline_ops.reading.spans import ReadSettings, Span
from pipeline_ops.reading.unit_sizes import UnitSizes
from pipeline_ops.schema.failures import Attempts, Failure
from pipeline_ops.schema.misfits import MISFITS_COLUMN
from pipeline_ops.schema.output_columns import OutputConfig
from pipeline_ops.schema.units import Piece, Range, Reject, Unit
from pipeline_ops.storage.config import StorageConfig
from pipeline_ops.storage.store import Store
from pipeline_ops.writing.unit_files import take_misfits
from tests.support.corpora import (
    write_arrow,
    write_avro,
    write_bytes,
    write_csv,
    write_jsonl,
    write_orc,
    write_parquet,
    write_text,
    write_wet,
)

MEBIBYTE = 2**20
SOURCE_COLUMNS = ("source_file", "source_row")


@dataclass(frozen=True)
class Result:
    """What reading gave, unit by unit."""

    units: list[Unit]
    tables: list[pa.Table]
    rejects: list[Reject]
    failures: tuple[Failure, ...] = ()

    @property
    def pieces(self) -> list[Piece]:
        return [piece for unit in self.units for piece in unit.pieces]

    @property
    def documents(self) -> list[dict[str, Any]]:
        """Without the column of misfits."""
        return [document for table in self.tables for document in table.drop_columns([MISFITS_COLUMN]).to_pylist()]

    @property
    def misfits(self) -> list[tuple[int, str, str]]:
        """(row, column, JSON of the value) of each value that does not fit its column's type."""
        return [
            (misfit.source_row, misfit.column, misfit.value)
            for table in self.tables
            for misfit in take_misfits(table, OutputConfig(path="out"))[1]
        ]

    def column(self, name: str) -> list[Any]:
        return [document[name] for document in self.documents]

    @property
    def rejected(self) -> list[tuple[int, str]]:
        """(row, reason) of each reject."""
        return [(reject.source_row, reject.reason) for reject in self.rejects]


def input_of(path: Path | str, **settings: Any) -> InputConfig:
    """The `input` section of a job with these keys."""
    return InputConfig(path=str(path), **settings)


def prepare(
    path: Path | str, *, unit_bytes: int = MEBIBYTE, columns: Any = "all", storage: StorageConfig | None = None, **settings: Any
) -> tuple[list[InputFile], ReadSettings]:
    """The input files at `path`, and the settings of the read tasks; `settings` are keys of `input`."""
    config, storage = input_of(path, **settings), storage or StorageConfig()
    store = Store(config.path, storage)
    files, _ = find_inputs(config, store)
    types = infer_column_types(files, config, store)
    return files, ReadSettings(
        config, storage, OutputConfig(path="out", columns=columns), types, UnitSizes(unit_bytes), "fingerprint"
    )


def spans_of(files: list[InputFile]) -> list[Span]:
    """The files from beginning to end."""
    return [Span(file, (Range(0, None),)) for file in files]


def try_spans(spans: list[Span], settings: ReadSettings, attempts: Attempts | None = None) -> Result:
    """Reads what can be read."""
    units, tables, rejects, failures = [], [], [], []
    for done in read_units(spans, settings, attempts):
        if isinstance(done, Failure):
            failures.append(done)
            continue
        units.append(done[0])
        tables.append(done[1])
        rejects += done[2]
    return Result(units, tables, rejects, tuple(failures))


def read_spans(spans: list[Span], settings: ReadSettings) -> Result:
    """Reads spans of which nothing fails."""
    result = try_spans(spans, settings)
    assert result.failures == ()
    return result


def try_path(path: Path | str, **options: Any) -> Result:
    """Reads what can be read of `path`; `options` as for `prepare`."""
    files, settings = prepare(path, **options)
    return try_spans(spans_of(files), settings)


def read_path(path: Path | str, **options: Any) -> Result:
    """Reads all of `path`, of which nothing fails; `options` as for `prepare`."""
    files, settings = prepare(path, **options)
    return read_spans(spans_of(files), settings)


def write_rows(path: Path, rows: list[dict[str, Any]]) -> Path:
    """Rows in the format that the name says."""
    if "json" in path.name:
        return write_jsonl(path, rows)
    if ".parquet" in path.name:
        return write_parquet(path, rows, row_group_size=max(len(rows) // 7, 1))
    if path.name.endswith((".arrow", ".feather")):
        return write_arrow(path, rows, batch_rows=max(len(rows) // 7, 1))
    if path.name.endswith(".avro"):
        return write_avro(path, rows, sync_interval=200)
    if path.name.endswith(".orc"):
        return write_orc(path, rows)
    if ".wet" in path.name:
        return write_wet(path, [row["text"] for row in rows])
    if ".txt" in path.name:
        return write_text(path, [row["text"] for row in rows])
    if ".tsv" in path.name:
        lines = ["id\ttext", *('{}\t"{}"'.format(row["id"], row["text"].replace('"', '""')) for row in rows)]
        return write_bytes(path, "".join(line + "\n" for line in lines).encode())
    return write_csv(path, rows)
