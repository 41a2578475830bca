"""Folders with a table in an open format: found by the files that make it one, read as that table or refused.

Their data files are never read one by one: that would label rows that the table has dropped.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor

from pipeline_ops.schema.errors import UserError
from pipeline_ops.storage.paths import base_folder, join, shown
from pipeline_ops.storage.store import Store, StoredFile
from pipeline_ops.tables.delta import read_delta_table
from pipeline_ops.tables.iceberg import (
    CATALOG,
    LIKE_METADATA,
    PUBLISHED,
    metadata_folders,
    metadata_in_catalog,
    newest_metadata,
    read_iceberg_table,
)
from pipeline_ops.tables.input_table import REQUESTS_AT_ONCE, TableFiles

# {format: files that a table has, all of them: (part of the name, the whole name behind the table's folder)};
# of a folder that is two tables, the first one counts
FILES = {
    "Delta": [("_delta_log/", re.compile(r"(?:(.*)/)?_delta_log/(?:\d{20}\.[^/]+|_last_checkpoint)?"))],
    "Iceberg": [(".metadata.json", re.compile(r"(?:(.*?)/)??(?:_iceberg/)?metadata/[^/]+\.metadata\.json(?:\.gz)?"))],
    "Hudi": [(".hoodie/", re.compile(r"(?:(.*?)/)?\.hoodie/.*"))],
    "Lance": [
        ("_versions/", re.compile(r"(?:(.*)/)?_versions/[^/]+\.manifest")),
        (".lance", re.compile(r"(?:(.*)/)?data/[^/]+\.lance")),
    ],
}
DATA_SUFFIXES = (".parquet", ".orc", ".avro")  # of tables' files
REMEDIES = {
    "Hudi": "write its current rows as Parquet, such as with Spark",
    "Lance": "write its current rows as Parquet, such as with lance.dataset(...).to_table()",
}
MOST_NAMES = 3  # of tables in messages


def find_table(store: Store, listed: Sequence[StoredFile], hidden: Sequence[StoredFile]) -> TableFiles | None:
    """The files of the table that the input is; None if it is none.

    Args:
        listed, hidden: as Store.list_with_hidden gives them.

    Raises:
        UserError: the table cannot be read; it is of a format that is not; the input is a folder of tables, or a part of one.
    """
    if [file.path for file in listed] == [store.path]:
        if metadata_folders(store, listed):
            return _iceberg_files(store, store.path)
        _check_no_part(store, listed)
        return None
    files, base = [*listed, *hidden], base_folder(store.path)
    with_metadata = metadata_folders(store, files)
    tables = tables_below(file.path.removeprefix(join(base, "")) for file in files if _may_be_of_log(file.path, with_metadata))
    if not tables:
        _check_no_part(store, listed)
        return None
    if base != store.path and len(tables) == 1:
        (folder,) = tables
        raise _part_of(tables[folder], join(base, folder).rstrip("/"), store)
    if "" not in tables or base != store.path:
        names = ", ".join(shown(join(base, name).rstrip("/")) for name in sorted(tables)[:MOST_NAMES])
        more = f" and {len(tables) - MOST_NAMES:,} more" if len(tables) > MOST_NAMES else ""
        raise UserError(
            f"input.path: {store.path!r} holds tables ({', '.join(sorted({*tables.values()}))}), whose files are not read one"
            f" by one: {names}{more}; give the folder of one table"
        )
    if tables[""] == "Delta":
        return read_delta_table(store, files)
    if tables[""] == "Iceberg":
        return read_iceberg_table(store.path, newest_metadata(store, files), files, store.config)
    raise UserError(f"input.path: {store.path!r} is a {tables['']} table, which cannot be read; {REMEDIES[tables['']]}")


def _may_be_of_log(path: str, with_metadata: set[str]) -> bool:
    return LIKE_METADATA.fullmatch(path) is None or _parent(path) in with_metadata


def is_in_catalog(path: str) -> bool:
    """Whether a path is the name of a table in an Iceberg catalog."""
    return path.startswith(CATALOG)


def find_table_in_catalog(store: Store) -> TableFiles:
    """As find_table, of a table that a catalog knows."""
    return _iceberg_files(store, metadata_in_catalog(store.path, store.config))


def _iceberg_files(store: Store, metadata: str) -> TableFiles:
    """The files of the table with that metadata file, whose folder is listed once in place of a request per file."""
    root = Store(_parent(_parent(metadata)), store.config)
    return read_iceberg_table(store.path, metadata, root.list_all(), store.config)


def tables_below(names: Iterable[str]) -> dict[str, str]:
    """{folder of a table: format} of all tables below a folder that are in no hidden folder, in the order of FILES.

    Args:
        names: of files below the folder, relative to it, hidden ones too; the folder itself is "".
    """
    found: dict[str, dict[str, set[str]]] = {table_format: defaultdict(set) for table_format in FILES}
    for name in names:
        for table_format, patterns in FILES.items():
            for part, pattern in patterns:
                match = pattern.fullmatch(name) if part in name else None
                if match and not any(folder.startswith(("_", ".")) for folder in (match[1] or "").split("/")):
                    found[table_format][match[1] or ""].add(part)
    return {
        folder: table_format
        for table_format in reversed(FILES)
        for folder, parts in found[table_format].items()
        if len(parts) == len(FILES[table_format])
    }


def _check_no_part(store: Store, listed: Sequence[StoredFile]) -> None:
    """Raises UserError for some of a table's files: one of them, a glob, a partition, Iceberg's folder `data`."""
    folders = {_parent(file.path) for file in listed if file.path.endswith(DATA_SUFFIXES)}
    if store.path not in {file.path for file in listed} and base_folder(store.path) == store.path:
        folders = {store.path}
    roots = {_without_partitions(folder) for folder in folders}
    places = [(root, "Delta", "_delta_log") for root in roots if root != store.path]
    places += [(root, "Hudi", ".hoodie") for root in roots if root != store.path]
    places += [(root, "Iceberg", "metadata") for root in {_above_data(root) for root in roots} if root]
    places += [(root, "Iceberg", f"{PUBLISHED}/metadata") for root in roots if root != store.path]
    with ThreadPoolExecutor(REQUESTS_AT_ONCE) as threads:
        found = threads.map(lambda place: _has_log(Store(place[0], store.config), place[2]), places)
    for (root, table_format, _), is_table in zip(places, found, strict=True):
        if is_table:
            raise _part_of(table_format, root, store)


def _part_of(table_format: str, root: str, store: Store) -> UserError:
    return UserError(
        f"input.path: {store.path!r} is a part of the {table_format} table {root!r}, some of whose files may hold rows that it"
        f" has dropped; give the table's folder"
    )


def _has_log(store: Store, name: str) -> bool:
    """Whether the folder of that name in a table's folder has a file of its log, or is empty where it can only be one."""
    names = [f"{name}/{file}" for file in store.names_in(name)]
    if not names and store.has_folder(name):
        names = [f"{name}/"]
    found = tables_below(names)
    if found.get("") == "Iceberg":
        return bool(metadata_folders(store, store.list_all(name)))
    return bool(found)


def _above_data(folder: str) -> str:
    """The folder that holds the folder `data` in which this one lies, or which it is; "" if there is none."""
    above, found, _ = join(folder, "").rpartition("/data/")
    return above if found and not above.endswith(":/") else ""


def _without_partitions(folder: str) -> str:
    """The folder without those at its end whose names are a column and its value."""
    while "=" in folder.rpartition("/")[2]:
        folder = _parent(folder)
    return folder


def _parent(path: str) -> str:
    return path.rpartition("/")[0]
