"""An output as its readers see it: the rows of the files that commits name, and no others, whatever else lies there.

While a run goes the commits grow; what is read once stays as it was, until a later run replaces or merges files and sweeps
them.
"""

import difflib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline_ops.models.heads import Head
from pipeline_ops.output.commit_log import Ledger, read_job, read_ledger
from pipeline_ops.output.committed_files import hive_values
from pipeline_ops.schema.errors import UserError, is_store_failing, store_errors
from pipeline_ops.schema.output_columns import OutputConfig, output_of
from pipeline_ops.storage.store import Store, StoredFile
from pipeline_ops.writing.commit_record import Commit, WrittenFile

WHOLE_BYTES = 4 * 2**20  # smaller files are fetched whole and side by side: a range costs as much
TOGETHER_BYTES = 64 * 2**20  # of these, held at a time
READ_BUFFER = 2**20


@dataclass(frozen=True)
class Labeled:
    """What an output's records say of it."""

    store: Store
    record: dict[str, Any]  # _job.json
    ledger: Ledger

    @property
    def path(self) -> str:
        return self.store.path

    @cached_property
    def commits(self) -> list[Commit]:
        """Those that count, in the order of the input."""
        found = [commit for commit in self.ledger.current.values() if commit.pieces]
        return sorted(found, key=lambda commit: (commit.pieces[0].path, commit.pieces[0].start_row))

    @cached_property
    def columns(self) -> OutputConfig:
        """The names of the columns, with what was `auto` filled in; of several models, those of each by its name."""
        output = OutputConfig.model_validate({**self.record["config"]["output"], "path": self.path})
        names = [name for name in self.record["models"] if name]
        if not names:
            return output
        several = output_of(output, names)
        parts = {name: OutputConfig.model_validate(self.record["models"][name]["output"]) for name in names}
        return several.model_copy(update={"parts": parts})

    def head(self, model: str = "") -> Head:
        """The classification head of a model, by its name; of the only one it is empty."""
        facts = self.record["models"][model]
        given: dict[str, Any] = {name: facts[name] for name in Head.__dataclass_fields__ if name in facts}
        lists: dict[str, Any] = {name: tuple(value) for name, value in given.items() if isinstance(value, list)}
        return Head(**given | lists)

    @property
    def files(self) -> list[WrittenFile]:
        return [file for commit in self.commits for file in commit.files]


def open_labeled(store: Store, key: str = "output.path") -> Labeled:
    """The output in a folder, as it is now.

    Args:
        key: what the user has named it by.

    Raises:
        UserError: there is no labeled output, or it cannot be read.
        StoreError: the store keeps failing.
    """
    try:
        record = read_job(store)
        ledger = read_ledger(store)
    except store_errors() as error:
        if is_store_failing(error):
            raise
        raise UserError(f"{key}: {store.path!r} cannot be read: {type(error).__name__}: {error}") from error
    if record is None or "config" not in record:
        raise UserError(
            f"{key}: {store.path!r} holds no labels (no _job.json); run the job first, or give the folder of another output"
        )
    return Labeled(store, record, ledger)


def schema_of(labeled: Labeled, columns: Sequence[str] | None = None) -> pa.Schema:
    """The columns of the labeled rows; folders' are text, and behind the others. Reads a footer of each kind of file.

    Args:
        columns: these, in this order; None: all.

    Raises:
        UserError: there is no such column, or two files have it in types that have nothing in common.
    """
    examples: dict[str | None, WrittenFile] = {}
    unknown = []
    for commit in labeled.commits:
        if commit.files and commit.schema is None:
            unknown += commit.files
        elif commit.files:
            examples.setdefault(commit.schema, commit.files[0])
    schemas = []
    for file in [*examples.values(), *unknown]:
        stored = labeled.store.stat(file.path)
        with labeled.store.open(stored, sequential=False) as source:
            schemas.append(pq.read_schema(source).remove_metadata())
    in_folders = [pa.field(name, pa.string()) for name in labeled.columns.partition_columns()]
    schemas.append(pa.schema(in_folders))
    known = list(dict.fromkeys(name for schema in schemas for name in schema.names))
    for name in columns or ():
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            remedy = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(known)}"
            raise UserError(f"column {name!r} is not in the labels of {labeled.path!r}; {remedy}")
    wanted = known if columns is None else columns
    try:
        unified = pa.unify_schemas(
            [pa.schema([field for field in schema if field.name in wanted]) for schema in schemas],
            promote_options="permissive",
        )
    except pa.ArrowException as error:
        raise UserError(f"{labeled.path!r}: a column has types that do not go together: {error}; name other columns") from error
    return pa.schema([unified.field(name) for name in wanted])


def read_columns(
    store: Store, files: Sequence[WrittenFile], columns: Sequence[str], rows: int | None = None
) -> Iterator[tuple[WrittenFile, pa.Table]]:
    """Some columns of committed files, in their order, a file at a time; those that folders hold as text.

    Memory: TOGETHER_BYTES of small files, or the columns of one large one. A column that a file does not have is null.

    Args:
        rows: so many of each file's first rows at the most; None: all.

    Raises:
        OSError: a file cannot be read, or does not have the rows that its commit says.
    """
    for together in _together(files):
        if len(together) > 1 or together[0].bytes <= WHOLE_BYTES:
            stored = [StoredFile(store.join(file.path), file.bytes, file.md5) for file in together]
            sources: Iterable[Any] = (pa.BufferReader(content) for content in store.read_files(stored))
        else:
            sources = [store.open(store.stat(together[0].path), sequential=False)]
        for file, source in zip(together, sources, strict=True):
            with source:
                yield file, _columns_of(file, source, columns, rows)


def _together(files: Iterable[WrittenFile]) -> Iterator[list[WrittenFile]]:
    held: list[WrittenFile] = []
    size = 0
    for file in files:
        small = file.bytes <= WHOLE_BYTES
        if held and (not small or size + file.bytes > TOGETHER_BYTES):
            yield held
            held, size = [], 0
        if small:
            held.append(file)
            size += file.bytes
        else:
            yield [file]
    if held:
        yield held


def _columns_of(file: WrittenFile, source: Any, columns: Sequence[str], rows: int | None) -> pa.Table:
    try:
        parquet = pq.ParquetFile(source, buffer_size=READ_BUFFER)
        if parquet.metadata.num_rows != file.rows:
            raise OSError(f"{parquet.metadata.num_rows} rows, its commit says {file.rows}")
        there = [name for name in columns if name in parquet.schema_arrow.names]
        if rows is None or rows >= file.rows:
            table = parquet.read(columns=there, use_threads=False)
        else:
            batches = parquet.iter_batches(batch_size=rows, columns=there, use_threads=False)
            table = pa.Table.from_batches([next(iter(batches))])
    except (OSError, pa.ArrowException) as error:
        raise OSError(f"{file.path}: {error}") from error
    values = hive_values(file.path)
    found = {
        name: table.column(name)
        if name in there
        else pa.chunked_array([pa.array([values.get(name)] * table.num_rows, pa.string())])
        for name in columns
    }
    return pa.table(found)
