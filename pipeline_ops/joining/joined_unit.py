"""Read a unit's rows from all outputs, align them by input file and row, and write the joined ones.

A document that one of the outputs has rejected is a reject, as in a job with several models: it has no labels of the others.
Memory: the unit's rows of all outputs, at most MAX_BYTES of them, and the same once more while they are sorted and written.
"""

import math
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline_ops.analysis.aligned_rows import ROWS_PER_FILE, ids_of
from pipeline_ops.joining.join_plan import halves
from pipeline_ops.output.committed_files import read_written_bytes
from pipeline_ops.output.labeled_output import read_batches, reading_snapshot
from pipeline_ops.schema.errors import UserError
from pipeline_ops.schema.misfits import MISFITS_COLUMN, misfits_array, unpack_misfits
from pipeline_ops.schema.output_columns import OutputConfig
from pipeline_ops.schema.units import MAX_DETAIL_CHARACTERS, Reject, Unit, row_of, unpack_rejects
from pipeline_ops.storage.store import Store
from pipeline_ops.writing.commit_record import Commit, WrittenFile
from pipeline_ops.writing.unit_files import write_unit

MAX_BYTES = 256 * 2**20  # of a unit's rows in memory: one whose rows take more, since they compress well, is halved


@dataclass(frozen=True)
class Source:
    """One of the outputs, and what a join takes of it.

    Attributes:
        schema: the columns to take, with their types.
        partitions: types of its partition columns.
        renamed: {column: name in the joined output}.
        names: of its models in the joined output, for people.
    """

    store: Store
    schema: pa.Schema
    partitions: dict[str, pa.DataType]
    renamed: dict[str, str]
    source_file_column: str
    source_row_column: str
    names: tuple[str, ...]


@dataclass(frozen=True)
class Target:
    """The joined output; `metadata` is recorded in each of its files."""

    store: Store
    output: OutputConfig
    metadata: dict
    fingerprint: str


@dataclass(frozen=True)
class Joined:
    """A unit's commit, and how many of its documents some outputs have labeled and others rejected."""

    commit: Commit
    rejected_in_some: int


class _TooLargeError(Exception):
    """The rows of a unit take more than MAX_BYTES."""


@dataclass(frozen=True)
class _Rows:
    """The unit's documents in one output, in the order of the input; keys are those of _Places."""

    keys: np.ndarray  # int64, of the labeled ones
    table: pa.Table
    rejects: dict[int, Reject]

    @cached_property
    def rejected(self) -> np.ndarray:
        return np.array(sorted(self.rejects), np.int64)

    @cached_property
    def documents(self) -> np.ndarray:
        return np.sort(np.concatenate([self.keys, self.rejected]))


class _Places:
    """The rows of a unit as numbers: the index of the file times ROWS_PER_FILE, plus the row."""

    def __init__(self, unit: Unit):
        self.paths = sorted({piece.path for piece in unit.pieces})
        self.numbers = {path: number for number, path in enumerate(self.paths)}
        starts = [self.numbers[piece.path] * ROWS_PER_FILE + piece.start_row for piece in unit.pieces]
        stops = [self.numbers[piece.path] * ROWS_PER_FILE + piece.stop_row for piece in unit.pieces]
        order = np.argsort(np.array(starts, np.int64), kind="stable")
        self.starts, self.stops = np.array(starts, np.int64)[order], np.array(stops, np.int64)[order]

    def key(self, path: str, row: int) -> int:
        """Negative for other files."""
        return self.numbers.get(path, -1) * ROWS_PER_FILE + row

    def of_key(self, key: int) -> tuple[str, int]:
        return self.paths[key // ROWS_PER_FILE], key % ROWS_PER_FILE

    def inside(self, keys: np.ndarray) -> np.ndarray:
        """bool (rows,): whether each is in the unit."""
        piece = np.searchsorted(self.starts, keys, "right") - 1
        return (piece >= 0) & (keys < self.stops[np.maximum(piece, 0)])

    def may_hold(self, source: Source, group: pq.RowGroupMetaData) -> bool:
        """Whether a row group may have rows of the unit, by its statistics."""
        columns = {(column := group.column(index)).path_in_schema: column for index in range(group.num_columns)}
        files, rows = (columns.get(name) for name in (source.source_file_column, source.source_row_column))
        if files is None or not (files.statistics and files.statistics.has_min_max):
            return True
        low, high = files.statistics.min, files.statistics.max
        place = bisect_left(self.paths, low)
        if place == len(self.paths) or self.paths[place] > high:
            return False
        if low != high or rows is None or not (rows.statistics and rows.statistics.has_min_max):
            return True
        first, last = self.key(low, rows.statistics.min), self.key(low, rows.statistics.max)
        return bool(((self.starts <= last) & (self.stops > first)).any())


def join_unit(unit: Unit, sources: Sequence[Source], commits: Sequence[Sequence[Commit]], target: Target) -> list[Joined]:
    """Writes the joined rows of a unit; returns what is to be committed: one commit, or of a large unit several.

    Args:
        commits: of each source, those that have rows of the unit.

    Raises:
        UserError: the outputs do not have the same documents.
        OSError: a file cannot be read, or is not what was written.
        ReplacedError: a file of an output is gone.
        StoreError: the object store kept failing.
    """
    places = _Places(unit)
    parts = halves(unit, target.fingerprint)
    read = _read_all(sources, commits, places, MAX_BYTES if parts else math.inf)
    if read is None:
        return [joined for part in parts for joined in join_unit(part, sources, commits, target)]
    _check_same_documents(read, sources, places)
    rejected = np.unique(np.concatenate([rows.rejected for rows in read]))
    keys = np.setdiff1d(read[0].keys, rejected, assume_unique=True)
    columns = {}
    for source, rows in zip(sources, read, strict=True):
        table = rows.table if len(rows.keys) == len(keys) else rows.table.take(np.searchsorted(rows.keys, keys))
        columns |= {source.renamed.get(name, name): table.column(name) for name in table.column_names}
    commit = write_unit(
        target.store,
        unit,
        pa.table(columns),
        list(_rejects(rejected.tolist(), read, sources)),
        target.output,
        metadata=target.metadata,
        padded_tokens=0,
    )
    in_all = sum(all(key in rows.rejects for rows in read) for key in rejected.tolist())
    return [Joined(commit, len(rejected) - in_all)]


def _read_all(
    sources: Sequence[Source], commits: Sequence[Sequence[Commit]], places: _Places, room: float
) -> list[_Rows] | None:
    """The unit's documents in each output; None if their tables take more than `room` bytes."""
    read: list[_Rows] = []
    try:
        for source, its in zip(sources, commits, strict=True):
            read.append(_read(source, its, places, room, takes_misfits=source is sources[0]))
            room -= read[-1].table.nbytes
    except _TooLargeError:
        return None
    return read


def _rejects(keys: Iterable[int], read: Sequence[_Rows], sources: Sequence[Source]) -> Iterator[Reject]:
    """The documents that outputs have rejected, each once, with the first one's reason; unless all have, with its models."""
    for key in keys:
        found = [(rows.rejects[key], source) for rows, source in zip(read, sources, strict=True) if key in rows.rejects]
        reject, source = found[0]
        by = "" if len(found) == len(read) else f"{', '.join(source.names)}: "
        yield replace(reject, detail=(by + reject.detail)[:MAX_DETAIL_CHARACTERS])


def _check_same_documents(read: Sequence[_Rows], sources: Sequence[Source], places: _Places) -> None:
    first = read[0].documents
    for rows, source in zip(read, sources, strict=True):
        if (np.diff(rows.documents) == 0).any():
            raise OSError(f"{source.store.path}: a row of {places.paths[0]} or a later file stands twice; verify it")
        if not np.array_equal(rows.documents, first):
            odd = places.of_key(int(np.setxor1d(rows.documents, first)[0]))
            raise UserError(
                f"{row_of(*odd)} is a document in one of {sources[0].store.path!r} and {source.store.path!r}, in the other it"
                f" is none: they have read the input in different ways; label it again for one of them"
            )


def _read(source: Source, commits: Sequence[Commit], places: _Places, room: float, *, takes_misfits: bool) -> _Rows:
    """The unit's documents in one output.

    Args:
        room: bytes that their table may take.
        takes_misfits: add MISFITS_COLUMN, if there are any.
    """
    parts: list[pa.Table] = []
    found: list[np.ndarray] = []
    files = [file for commit in commits for file in commit.files]
    wanted = list(dict.fromkeys([source.source_file_column, source.source_row_column, *source.schema.names]))
    is_wanted = partial(places.may_hold, source)
    for _, batches in read_batches(source.store, files, wanted, source.partitions, is_wanted):
        for batch in batches:
            numbers = ids_of(batch.column(source.source_file_column), lambda path: places.numbers.get(path, -1))
            keys = numbers * ROWS_PER_FILE + batch.column(source.source_row_column).cast(pa.int64()).to_numpy()
            inside = places.inside(keys)
            if not inside.any():
                continue
            part = _conformed(batch, source.schema).filter(pa.array(inside))
            parts.append(part)
            found.append(keys[inside])
            room -= part.nbytes
            if room < 0:
                raise _TooLargeError
    table = pa.concat_tables(parts).combine_chunks() if parts else source.schema.empty_table()
    keys = np.concatenate(found) if found else np.empty(0, np.int64)
    if (np.diff(keys) <= 0).any():
        order = np.argsort(keys, kind="stable")
        table, keys = table.take(order), keys[order]
    if takes_misfits:
        table = _with_misfits(table, keys, source.store, [commit.misfits_file for commit in commits], places)
    rejects = {}
    for content in _lines(source.store, [commit.rejects_file for commit in commits]):
        for reject in unpack_rejects(content):
            key = places.key(reject.source_file, reject.source_row)
            if places.inside(np.array([key]))[0]:
                rejects[key] = reject
    return _Rows(keys, table, rejects)


def _lines(store: Store, files: Iterable[WrittenFile | None]) -> Iterator[bytes]:
    for file in files:
        if file is not None:
            with reading_snapshot(store, file):
                content = read_written_bytes(store, file)
            yield content


def _with_misfits(
    table: pa.Table, keys: np.ndarray, store: Store, files: Iterable[WrittenFile | None], places: _Places
) -> pa.Table:
    misfits: dict[int, dict[str, str]] = {}
    for content in _lines(store, files):
        for misfit in unpack_misfits(content):
            key = places.key(misfit.source_file, misfit.source_row)
            index = int(np.searchsorted(keys, key))
            if index < len(keys) and keys[index] == key:
                misfits.setdefault(index, {})[misfit.column] = misfit.value
    return table.append_column(MISFITS_COLUMN, misfits_array(misfits, table.num_rows)) if misfits else table


def _conformed(batch: pa.Table, schema: pa.Schema) -> pa.Table:
    """The columns of the schema, in its types; what a file lacks is null."""
    columns = []
    for field in schema:
        column = batch.column(field.name)
        lacking = column.null_count == len(column)
        columns.append(pa.chunked_array([pa.nulls(len(column), field.type)]) if lacking else column.cast(field.type))
    return pa.table(columns, schema=schema)
