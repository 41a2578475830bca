"""Read an output: exactly the rows of the files that current commits name.

A Labeled is a snapshot. It stays readable while a run adds commits, until a later run replaces or merges files and deletes the
old ones.
"""

import difflib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline_ops.models.heads import Head
from pipeline_ops.output.commit_log import Ledger, read_job, read_ledger
from pipeline_ops.output.committed_files import example_files, schemas_of_files
from pipeline_ops.reading.column_types import can_cast, common_type, is_text_type, type_of_texts
from pipeline_ops.schema.errors import ReplacedError, StoreError, UserError, store_access
from pipeline_ops.schema.output_columns import OutputConfig, combined_output
from pipeline_ops.storage.store import Store, StoredFile
from pipeline_ops.writing.commit_record import Commit, WrittenFile
from pipeline_ops.writing.hive_partitions import partition_scalars, partition_types

SMALL_FILE_BYTES = 4 * 2**20  # up to this size files are fetched whole and concurrently: a range costs as much
FETCHED_BYTES = 64 * 2**20  # of small files, held at a time
READ_BUFFER = 2**20
BATCH_ROWS = 4096  # per table of read_batches


@dataclass(frozen=True)
class Labeled:
    """A snapshot of an output: its job record and its commits."""

    store: Store
    record: dict[str, Any]  # _job.json
    ledger: Ledger
    parts: tuple["Labeled", ...] = ()  # of a split job, each an output (joining/parts.py); their files are in `ledger`

    @property
    def path(self) -> str:
        return self.store.path

    @property
    def stores(self) -> list[Store]:
        """Where its runs have written: of a split job the parts' folders."""
        return [part.store for part in self.parts] or [self.store]

    @cached_property
    def commits(self) -> list[Commit]:
        """The current commits that have rows, in the order of the input."""
        found = [commit for commit in self.ledger.current.values() if commit.pieces]
        return sorted(found, key=lambda commit: (commit.pieces[0].path, commit.pieces[0].start_row))

    @cached_property
    def columns(self) -> OutputConfig:
        """The resolved output configuration, which names the columns; with several models, each model's by its name."""
        output = OutputConfig.model_validate({**self.record["config"]["output"], "path": self.path})
        names = [name for name in self.record["models"] if name]
        if not names:
            return output
        return combined_output(
            output, {name: OutputConfig.model_validate(self.record["models"][name]["output"]) for name in names}
        )

    @cached_property
    def partition_types(self) -> dict[str, pa.DataType]:
        """The types of the partition columns, outermost first."""
        return partition_types(self.record, self.columns)

    @property
    def text_columns(self) -> tuple[str, ...]:
        """The names of the columns that the models have read."""
        read = self.record["config"]["input"]
        return tuple(read[key] for key in ("text_column", "text_pair_column") if read.get(key))

    def head(self, model: str = "") -> Head:
        """The classification head of a model, by its name, which is empty for a job's only model."""
        facts = self.record["models"][model]
        given: dict[str, Any] = {name: facts[name] for name in Head.__dataclass_fields__ if name in facts}
        lists: dict[str, Any] = {name: tuple(value) for name, value in given.items() if isinstance(value, list)}
        return Head(**given | lists)

    @property
    def files(self) -> list[WrittenFile]:
        return [file for commit in self.commits for file in commit.files]


def open_labeled(store: Store, key: str = "output.path") -> Labeled:
    """Reads an output's records.

    Args:
        key: the setting or argument that names the output, for error messages.

    Raises:
        UserError: there is no labeled output, or it cannot be read.
        StoreError: the store keeps failing.
    """
    with store_access(key, store.path, "read"):
        ledger = read_ledger(store)
        record = read_job(store)  # after the commits: where an output is begun anew meanwhile, their files are gone
    if record is None or "config" not in record:
        raise UserError(
            f"{key}: {store.path!r} holds no labels (no _job.json); run the job first (if it has been split, its parts' job"
            f" files), or give the folder of another output"
        )
    return Labeled(store, record, ledger)


def schema_of(labeled: Labeled, columns: Sequence[str] | None = None) -> pa.Schema:
    """The schema of the labeled rows, partition columns last. Reads one footer per distinct file schema.

    Args:
        columns: only these, in this order; None: all.

    Raises:
        UserError: there is no such column, or two files have it in types that do not go together; numbers and texts do.
        ReplacedError: a file is gone.
    """
    schemas: list[pa.Schema] = []
    for file in example_files(labeled.commits):
        with reading_snapshot(labeled.store, file):
            schemas += schemas_of_files(labeled.store, [file])
    schemas.append(pa.schema([*labeled.partition_types.items()]))
    known = list(dict.fromkeys(name for schema in schemas for name in schema.names))
    for name in columns or ():
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            remedy = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(known)}"
            raise UserError(f"column {name!r} is not in the labels of {labeled.path!r}; {remedy}")
    wanted = known if columns is None else columns
    types = {name: [schema.field(name).type for schema in schemas if name in schema.names] for name in wanted}
    fields = []
    for name, found in types.items():
        of_texts = name in labeled.text_columns and all(map(is_text_type, found))
        common = type_of_texts(found) if of_texts else common_type(found)
        if not all(can_cast(data_type, common) for data_type in found):
            described = " and ".join(dict.fromkeys(map(str, found)))
            raise UserError(f"{labeled.path!r}: column {name!r} is {described}, which do not go together; name other columns")
        fields.append(pa.field(name, common))
    return pa.schema(fields)


@contextmanager
def reading_snapshot(store: Store, file: WrittenFile) -> Iterator[None]:
    """Turns the error of a file that is gone into a ReplacedError, which names it: S3's answer does not."""
    try:
        yield
    except FileNotFoundError as error:
        raise ReplacedError(
            f"{store.join(file.path)} is gone: a run or compact has replaced it meanwhile, unless it was deleted by hand,"
            f" which `label-corpus verify {store.path}` says"
        ) from error


def read_columns(
    store: Store,
    files: Sequence[WrittenFile],
    columns: Sequence[str],
    partitions: Mapping[str, pa.DataType],
    rows: int | None = None,
) -> Iterator[tuple[WrittenFile, pa.Table]]:
    """Yields (file, its columns) in the order of `files`; columns that a file lacks are null.

    Memory: FETCHED_BYTES of small files, or the columns of one large one.

    Args:
        partitions: Labeled.partition_types.
        rows: at most this many first rows of each file; None: all.

    Raises:
        ReplacedError: a file is gone.
        StoreError: the store keeps failing.
        OSError: a file cannot be read, or does not have the rows that its commit says.
    """
    for file, source in _opened(store, files):
        yield file, _columns_of(store, file, source, columns, partitions, rows)


def read_batches(
    store: Store,
    files: Iterable[WrittenFile],
    columns: Sequence[str],
    partitions: Mapping[str, pa.DataType],
    is_wanted: Callable[[pq.RowGroupMetaData], bool] = lambda group: True,
) -> Iterator[tuple[WrittenFile, Iterator[pa.Table]]]:
    """As read_columns, but yields (file, its rows in tables of at most BATCH_ROWS), for a caller that stops early or keeps few.

    Memory: FETCHED_BYTES of small files, or a batch of a large one. A file's tables are read before the next file is asked for.

    Args:
        partitions: Labeled.partition_types.
        is_wanted: which row groups to read, by their metadata.

    Raises:
        OSError: as read_columns.
    """
    for file, source in _opened(store, files):
        yield file, _batches_of(store, file, source, columns, partitions, is_wanted)


def _opened(store: Store, files: Iterable[WrittenFile]) -> Iterator[tuple[WrittenFile, Any]]:
    """(file, its open source, until the next one); small files are fetched whole, side by side."""
    for together in _together(files):
        if len(together) > 1 or together[0].bytes <= SMALL_FILE_BYTES:
            stored = [StoredFile(store.join(file.path), file.bytes, file.md5) for file in together]
            for file, content in zip(together, store.try_read_files(stored), strict=True):
                with reading_snapshot(store, file):
                    if isinstance(content, Exception):
                        raise content
                yield file, pa.BufferReader(content)
        else:
            with reading_snapshot(store, together[0]):
                source = store.open(store.stat(together[0].path), sequential=False)
            with source:
                yield together[0], source


def _together(files: Iterable[WrittenFile]) -> Iterator[list[WrittenFile]]:
    held: list[WrittenFile] = []
    size = 0
    for file in files:
        small = file.bytes <= SMALL_FILE_BYTES
        if held and (not small or size + file.bytes > FETCHED_BYTES):
            yield held
            held, size = [], 0
        if small:
            held.append(file)
            size += file.bytes
        else:
            yield [file]
    if held:
        yield held


@contextmanager
def _reading(store: Store, file: WrittenFile) -> Iterator[None]:
    """Names the file in the error if it is damaged."""
    try:
        with reading_snapshot(store, file):
            yield
    except (ReplacedError, StoreError):
        raise
    except (OSError, pa.ArrowException) as error:
        raise OSError(f"{file.path}: {error}") from error


def _columns_of(
    store: Store,
    file: WrittenFile,
    source: Any,
    columns: Sequence[str],
    partitions: Mapping[str, pa.DataType],
    rows: int | None,
) -> pa.Table:
    with _reading(store, file):
        parquet, there = _parquet_of(file, source, columns)
        if rows is None or rows >= file.rows:
            table = parquet.read(columns=there, use_threads=False)
        else:
            batches = parquet.iter_batches(batch_size=rows, columns=there, use_threads=False)
            table = pa.Table.from_batches([next(iter(batches))])
    return _with_partition_columns(file, table, columns, partitions)


def _batches_of(
    store: Store,
    file: WrittenFile,
    source: Any,
    columns: Sequence[str],
    partitions: Mapping[str, pa.DataType],
    is_wanted: Callable[[pq.RowGroupMetaData], bool],
) -> Iterator[pa.Table]:
    with _reading(store, file):
        parquet, there = _parquet_of(file, source, columns)
        groups = [index for index in range(parquet.num_row_groups) if is_wanted(parquet.metadata.row_group(index))]
        for batch in parquet.iter_batches(batch_size=BATCH_ROWS, row_groups=groups, columns=there, use_threads=False):
            yield _with_partition_columns(file, pa.Table.from_batches([batch]), columns, partitions)


def _parquet_of(file: WrittenFile, source: Any, columns: Sequence[str]) -> tuple[pq.ParquetFile, list[str]]:
    """(the file, those of the columns that it has)."""
    parquet = pq.ParquetFile(source, buffer_size=READ_BUFFER, page_checksum_verification=True)
    if parquet.metadata.num_rows != file.rows:
        raise OSError(f"{parquet.metadata.num_rows} rows, its commit says {file.rows}")
    return parquet, [name for name in columns if name in parquet.schema_arrow.names]


def _with_partition_columns(
    file: WrittenFile, table: pa.Table, columns: Sequence[str], partitions: Mapping[str, pa.DataType]
) -> pa.Table:
    """The columns in their order: those of the table, those of its folders, others null."""
    values = partition_scalars(file.path, {name: partitions[name] for name in columns if name in partitions})
    found = {
        name: table.column(name)
        if name in table.column_names
        else pa.chunked_array([pa.repeat(values.get(name, pa.scalar(None, pa.string())), table.num_rows)])
        for name in columns
    }
    return pa.table(found)
