"""The files of a dataset repository on the Hugging Face hub: what they hold, their names, and how one is written.

`datasets` reads no hive partitions, and a repository should have fewer than 100,000 files: so a commit's files, one per
partition, become one file with the partition columns as columns, and a large commit becomes several. A file's name is a hash
of its commit, its number in it and the columns: a commit has the same names, and the same bytes, whenever it is published.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline_ops.line_formats.json_types import with_children
from pipeline_ops.output.compaction import row_groups
from pipeline_ops.output.labeled_output import Labeled, read_batches
from pipeline_ops.schema.units import short_id
from pipeline_ops.storage.paths import base_folder, full_path, join
from pipeline_ops.writing.commit_record import WrittenFile, schema_id
from pipeline_ops.writing.unit_files import ROW_GROUP_ROWS

DATA_FOLDER = "data"
DIGITS, ROWS_DIGITS = 24, 16  # of a name: of all of it, and of its first part, which says what rows there are
# the hub takes up to 10,000 files in a folder: these are 16 folders
HUB_FILE = re.compile(rf"{DATA_FOLDER}/[0-9a-f]/[0-9a-f]{{{DIGITS}}}\.parquet")
FILE_BYTES = 256 * 2**20  # of the committed files that become one: a file that is larger becomes one of its own


def published_schema(schema: pa.Schema) -> pa.Schema:
    """The columns with types that `datasets` has: maps as lists of {key, value}, small decimals as those of 128 bits."""
    return pa.schema([field.with_type(_published_type(field.type)) for field in schema])


def _published_type(data_type: pa.DataType) -> pa.DataType:
    if pa.types.is_map(data_type):
        key, value = _published_type(data_type.key_type), _published_type(data_type.item_type)
        return pa.list_(pa.struct([("key", key), ("value", value)]))
    if pa.types.is_decimal(data_type) and data_type.bit_width < 128:
        return pa.decimal128(data_type.precision, data_type.scale)
    return with_children(data_type, _published_type)


@dataclass(frozen=True)
class HubFile:
    """A file of the repository.

    Attributes:
        path: in the repository.
        files: the committed files whose rows it has.
        replaces: whether its commit replaces earlier ones, whose files may be in the repository.
    """

    path: str
    files: tuple[WrittenFile, ...]
    replaces: bool

    @property
    def bytes(self) -> int:
        """Of the committed files."""
        return sum(file.bytes for file in self.files)


def hub_files(labeled: Labeled, schema: pa.Schema) -> dict[str, HubFile]:
    """{path: file} of the repository that has exactly the labeled rows.

    Args:
        schema: of all rows, by published_schema. If it changes, all names do: all files of a repository have one schema.
    """
    columns, found = schema_id(schema), {}
    for commit in labeled.commits:
        for number, files in enumerate(_together(commit.files)):
            name = short_id([commit.name, number])[:ROWS_DIGITS] + columns[: DIGITS - ROWS_DIGITS]
            path = f"{DATA_FOLDER}/{name[0]}/{name}.parquet"
            found[path] = HubFile(path, tuple(files), bool(commit.replaces))
    return found


def rows_id(path: str) -> str:
    """The part of a published file's name that says which rows it has, whatever their columns."""
    return path.rpartition("/")[2][:ROWS_DIGITS]


def _together(files: Iterable[WrittenFile]) -> Iterator[list[WrittenFile]]:
    held: list[WrittenFile] = []
    size = 0
    for file in files:
        if held and size + file.bytes > FILE_BYTES:
            yield held
            held, size = [], 0
        held.append(file)
        size += file.bytes
    if held:
        yield held


def write_hub_file(labeled: Labeled, file: HubFile, schema: pa.Schema, target: Any) -> None:
    """Writes the file's rows, with `source_file` as public_path gives it.

    Memory: 64 MiB of small files, a row group of the result, a batch of a large file.

    Args:
        target: a local path or an open binary file.

    Raises:
        ReplacedError: a committed file is gone.
        StoreError: the store keeps failing.
        OSError: a file cannot be read, or does not have the rows that its commit says.
    """
    found = read_batches(labeled.store, file.files, schema.names, labeled.partition_types)
    batches = chain.from_iterable(tables for _, tables in found)
    sources, folder = schema.get_field_index(labeled.columns.source_file_column), source_folder(labeled)
    # the page index is what the hub's viewer looks rows up by
    with pq.ParquetWriter(target, schema, compression="zstd", write_page_checksum=True, write_page_index=True) as writer:
        for table in row_groups(table.cast(schema) for table in batches):
            paths = table.column(sources).dictionary_encode().combine_chunks()
            shorter = pa.array([public_path(path, folder) for path in paths.dictionary.to_pylist()], pa.string())
            column = shorter.take(paths.indices).cast(schema.field(sources).type)
            writer.write_table(table.set_column(sources, schema.field(sources), column), row_group_size=ROW_GROUP_ROWS)


def source_folder(labeled: Labeled) -> str:
    """The input's folder: of a glob the part before the first wildcard, of a file its own."""
    return base_folder(full_path(labeled.record["config"]["input"]["path"]))


def public_path(path: str, folder: str) -> str:
    """An input file's path without the folders above the corpus, which are nobody's business: names of users, of buckets."""
    inside = join(folder, "")
    return path.removeprefix(inside) if path.startswith(inside) else path.rpartition("/")[2]
