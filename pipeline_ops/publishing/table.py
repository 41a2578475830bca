"""The table that an output is published as: what its newest version consists of, and how one version follows another.

A Table is one format's log (delta.py, iceberg.py). publish.py says what is to change; the log is only ever written here.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol

import pyarrow as pa

from pipeline_ops.schema.errors import UserError
from pipeline_ops.storage.store import Store

PROPERTY_PREFIX = "label-corpus."  # of what a version's metadata says of the run that made it


class TableChangedError(Exception):
    """Another publisher has written the version that was about to be written; nothing was."""


class ForeignTableError(UserError):
    """The table in the output folder is none that was published by this program."""


@dataclass(frozen=True)
class TableFile:
    """A committed file as a table's log describes it.

    Attributes:
        path: relative to the output folder.
        partition: {column: value in the column's type}; the columns of output.partition_by, outermost first.
        statistics: {column: (lowest, highest value, number of nulls)}, where they were taken at writing.
    """

    path: str
    rows: int
    bytes: int
    partition: Mapping[str, Any] = field(default_factory=dict)
    statistics: Mapping[str, tuple[Any, Any, int]] = field(default_factory=dict)


@dataclass(frozen=True)
class TableVersion:
    """What the newest version of a table consists of.

    Attributes:
        version: of Delta the version, of Iceberg the id of the snapshot; None: the table has none yet.
        paths: of its files, relative to the output folder where they are inside it; else full paths.
        schema: of its rows, partition columns too.
        term: of the lease under which it was published, 0 where it does not say.
        is_announced: readers without the catalog find it; not where its publisher was killed before it said so.
    """

    version: int | None
    paths: frozenset[str]
    schema: pa.Schema
    term: int = 0
    is_announced: bool = True


@dataclass(frozen=True)
class TableChange:
    """What the next version differs in.

    Attributes:
        added, removed: files; removed ones by their paths.
        schema: of the new version: the columns of the earlier one, in the types that the files have them, then new ones.
        same_rows: the added files hold the rows of the removed ones, as after a compaction.
        properties: for the version's metadata, by keys with PROPERTY_PREFIX.
    """

    added: tuple[TableFile, ...]
    removed: tuple[str, ...]
    schema: pa.Schema
    same_rows: bool = False
    properties: Mapping[str, str] = field(default_factory=dict)


class Table(Protocol):
    """A table's log. An object of it stays open for a whole run, and remembers what it has read and written."""

    format: str  # Delta or Iceberg

    def read(self) -> TableVersion:
        """The newest version, by the storage; a request or a few where nothing has changed since the last call.

        Raises:
            UserError: the log cannot be read, or the table is none of ours.
        """
        ...

    def write(self, seen: TableVersion, change: TableChange) -> TableVersion:
        """Writes the version that follows `seen`, in one atomic step, even if the change is empty: it is the fence then.

        Raises:
            TableChangedError: there is a newer version than `seen`.
            StoreError: the store kept failing.
        """
        ...

    def kept_paths(self, since: datetime) -> set[str]:
        """Relative paths of the files that the newest version, or one that was the newest at or after `since`, consists of."""
        ...


def check_other_log(store: Store, folder: str, table_format: str) -> None:
    """Raises UserError if the output is published in the other format already, whose table would stay as it is."""
    if store.names_in(folder):
        raise UserError(
            f"output.table: {store.path!r} is published as another table already, in {folder}/; set output.table:"
            f" {table_format}, or delete that folder"
        )
