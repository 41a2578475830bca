"""InputTable: a version of a table in an open format, whose own log, not a listing, says which files are in it."""

import importlib
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from pipeline_ops.schema.errors import UserError
from pipeline_ops.storage.config import StorageConfig
from pipeline_ops.storage.store import Store, StoredFile

INPUT_KEY = "input.path"  # the setting that names a table which is read
REQUESTS_AT_ONCE = 32


@dataclass(frozen=True)
class InputTable:
    """The version of a table that is read."""

    format: str  # Delta or Iceberg
    path: str  # as people know it
    version: int  # of Delta the version, of Iceberg the id of the snapshot
    schema: pa.Schema  # of its rows; files of earlier versions may lack columns, and have narrower types
    partitions: frozenset[str] = frozenset()  # columns that may be in the log alone
    key: str = INPUT_KEY  # the setting that names it, for messages

    def to_dict(self) -> dict[str, Any]:
        """What is recorded of it: {format, version}."""
        return {"format": self.format, "version": self.version}

    def refusal(self, what: str, remedy: str) -> UserError:
        """The error for a table with something that cannot be read."""
        return UserError(f"{self.key}: the {self.format} table {self.path!r} {what}, which cannot be read; {remedy}")


@dataclass(frozen=True)
class TableFiles:
    """The files that a version of a table consists of, all of them Parquet.

    Attributes:
        files: in the order of their paths, each with {column: value as text} of its partition; the same columns in all.
        field_names: (field id, name) of the columns, where names in the files may be outdated.
    """

    table: InputTable
    files: list[tuple[StoredFile, dict[str, str | None]]]
    field_names: tuple[tuple[int, str], ...] = ()


def table_words(recorded: Mapping[str, Any]) -> str:
    """The version of a table for people, from what is recorded of it: Delta table, version 12."""
    return f"{recorded['format']} table, {'version' if recorded['format'] == 'Delta' else 'snapshot'} {recorded['version']}"


def import_extra(module: str, table_format: str, path: str, key: str = INPUT_KEY) -> Any:
    """A module of the extra `tables`; raises UserError, with the command that installs it, where it is missing.

    Args:
        path: of the table.
        key: the setting that asks for it: of a table that is read input.path, of one that is published output.table.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        what = (
            f"{path!r} is a table in the {table_format} format; to read it"
            if key == INPUT_KEY
            else f"to publish {path!r} as a table in the {table_format} format"
        )
        raise UserError(f"{key}: {what}: pip install 'label-corpus[tables]'") from error


def stored_files(paths: Iterable[str], listed: Mapping[str, StoredFile], config: StorageConfig) -> list[StoredFile]:
    """The files at full paths, as a listing gives them; those that `listed` lacks are asked for one by one, side by side.

    Args:
        listed: by full path.

    Raises:
        FileNotFoundError: one does not exist; its argument is the path.
    """

    def find(path: str) -> StoredFile:
        if path in listed:
            return listed[path]
        folder, _, name = path.rpartition("/")
        try:
            return Store(folder, config).stat(name)
        except FileNotFoundError:
            raise FileNotFoundError(path) from None

    with ThreadPoolExecutor(REQUESTS_AT_ONCE) as threads:
        return list(threads.map(find, paths))
