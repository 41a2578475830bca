"""Read committed files, with their bytes and rows checked against the commit."""

import hashlib
from collections.abc import Iterable, Iterator

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline_ops.row_formats.plain_types import decoded
from pipeline_ops.storage.store import Store, StoredFile
from pipeline_ops.writing.commit_record import Commit, WrittenFile
from pipeline_ops.writing.hive_partitions import hive_values


def example_files(commits: Iterable[Commit]) -> list[WrittenFile]:
    """A file of each schema of the commits' files, and all files of commits of several schemas."""
    examples: dict[str | None, WrittenFile] = {}
    unknown: list[WrittenFile] = []
    for commit in commits:
        if commit.files and commit.schema is None:
            unknown += commit.files
        elif commit.files:
            examples.setdefault(commit.schema, commit.files[0])
    return [*examples.values(), *unknown]


def schemas_of_files(store: Store, files: Iterable[WrittenFile]) -> Iterator[pa.Schema]:
    """Their schemas by their footers, without metadata."""
    for file in files:
        with store.open(store.stat(file.path), sequential=False) as source:
            yield pq.read_schema(source).remove_metadata()


def read_written(store: Store, file: WrittenFile) -> pa.Table:
    """A committed Parquet file's rows, without its partition columns; dictionaries, of earlier versions, as plain values.

    Raises:
        OSError: its MD5 or number of rows is not the committed one.
    """
    content = read_written_bytes(store, file)
    try:
        # ParquetFile, not read_table: that would take the folders' names for columns
        table = pq.ParquetFile(pa.BufferReader(content), page_checksum_verification=True).read(use_threads=False)
    except (OSError, pa.ArrowException) as error:
        raise OSError(f"{file.path}: {error}") from error
    if table.num_rows != file.rows:
        raise OSError(f"{file.path}: {table.num_rows} rows, its commit says {file.rows}")
    return decoded(table)


def read_written_bytes(store: Store, file: WrittenFile) -> bytes:
    """A committed file's content; raises OSError if its MD5 is not the committed one."""
    (content,) = store.read_files([StoredFile(store.join(file.path), file.bytes, file.md5)])
    if hashlib.md5(content, usedforsecurity=False).hexdigest() != file.md5:
        raise OSError(f"{file.path}: {len(content)} bytes, which are not those that were written (MD5)")
    return content


def column_of(table: pa.Table, name: str, path: str) -> pa.ChunkedArray:
    """A column of a committed file; a partition column, which only the path has, as text."""
    if name in table.column_names:
        return table.column(name)
    return pa.chunked_array([pa.array([hive_values(path)[name]] * table.num_rows, pa.string())])
