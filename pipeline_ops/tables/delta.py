"""Delta Lake: a folder with `_delta_log/` -> the Parquet files of the table's newest version.

The files of the log that say what the newest version is are copied into a temporary folder, where deltalake reads them.
Requests go through Store, with its retries, checks and credentials, whatever the storage is; log and files are of one listing.
"""

import os
import re
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from urllib.parse import unquote

import pyarrow as pa

from pipeline_ops.schema.errors import UserError, one_line
from pipeline_ops.storage.paths import full_path, join
from pipeline_ops.storage.store import Store, StoredFile
from pipeline_ops.tables.input_table import INPUT_KEY, InputTable, TableFiles, import_extra, stored_files

LOG = "_delta_log"
COMMIT = re.compile(r"(\d{20})\.json")
# of one file, or part M of N; with a UUID those that refer to _sidecars/
CHECKPOINT = re.compile(r"(\d{20})\.checkpoint(?:\.(\d{10})\.(\d{10})|\.[0-9a-fA-F-]{36})?\.(?:parquet|json)")
SIDECARS = f"{LOG}/_sidecars/"
# features that change nothing about how a file's rows are read; the first two are looked for in what the version consists of
READ_FEATURES = {
    *("columnMapping", "deletionVectors"),
    *("timestampNtz", "v2Checkpoint", "vacuumProtocolCheck", "typeWidening", "typeWidening-preview"),
}
NEWEST_READER = 3  # from which on features are listed by name


def read_delta_table(store: Store, files: Sequence[StoredFile]) -> TableFiles:
    """The files of the newest version.

    Args:
        store: of the table's folder.
        files: all below it, hidden ones too.

    Raises:
        UserError: deltalake is not installed, the log cannot be read, or the version has something that is not supported.
    """
    with opened_log(store, files) as (_, opened):
        table = table_of(store, opened)
        check_features(table, opened)
        added = pa.table(opened.get_add_actions())
    if not added.num_rows:
        raise UserError(f"input.path: the Delta table {store.path!r} has no rows in version {table.version}")
    paths = [_full_path(store, unquote(path)) for path in added.column("path").to_pylist()]
    try:
        stored = stored_files(paths, {file.path: file for file in files}, store.config)
    except FileNotFoundError as error:
        raise UserError(
            f"input.path: the Delta table {store.path!r} has no file {error}, which its version {table.version} consists of:"
            f" it was deleted, or not copied; restore it, or FSCK REPAIR TABLE drops its rows from the table"
        ) from error
    found = zip(stored, _partition_values(added, sorted(table.partitions)), strict=True)
    return TableFiles(table, sorted(found, key=lambda one: one[0].path))


def is_log(path: str) -> bool:
    """Whether a file in `_delta_log/` is an entry or a checkpoint: the folder is a table's."""
    name = path.rpartition("/")[2]
    return bool(COMMIT.fullmatch(name) or CHECKPOINT.fullmatch(name))


@contextmanager
def opened_log(store: Store, files: Sequence[StoredFile], key: str = INPUT_KEY) -> Iterator[tuple[str, Any]]:
    """(a temporary folder with a copy of the log, the deltalake.DeltaTable in it) while the block runs.

    Args:
        store: of the table's folder.
        files: of a listing with those of the log.
        key: the setting that names the table, for messages.

    Raises:
        UserError: deltalake is not installed or cannot read the log, also in the block.
    """
    deltalake = import_extra("deltalake", "Delta Lake", store.path, key)
    is_read = key == INPUT_KEY
    remedy = "copy the table to Parquet" if is_read else f"delete its {LOG}, and `label-corpus publish` writes it anew"
    with tempfile.TemporaryDirectory() as folder:
        _copy_log(store, files, folder, key)
        try:
            yield folder, deltalake.DeltaTable(folder)
        except deltalake.exceptions.DeltaError as error:
            raise UserError(
                f"{key}: the log of the Delta table {store.path!r} cannot be read:"
                f" {reason_of(error, folder, store)}; a newer deltalake may read it, or {remedy}"
            ) from error


def reason_of(error: Exception, folder: str, store: Store) -> str:
    """A DeltaError in one line, without frames of Rust, and with the table's path in place of that of its copy in `folder`."""
    return one_line(error).partition(" 0: ")[0].replace(folder, store.path)


def table_of(store: Store, opened: Any, key: str = INPUT_KEY) -> InputTable:
    """What an opened deltalake.DeltaTable is."""
    partitions = frozenset(opened.metadata().partition_columns)
    return InputTable("Delta", store.path, opened.version(), pa.schema(opened.schema().to_arrow()), partitions, key)


def _full_path(store: Store, path: str) -> str:
    """Of a path in the log; of a shallow clone it is a whole one."""
    return full_path(path) if "://" in path or path.startswith("/") else store.join(path)


def _partition_values(added: pa.Table, names: Sequence[str]) -> list[dict[str, str | None]]:
    """{column: value as text} of each added file."""
    if not names:
        return [{} for _ in range(added.num_rows)]
    values = pa.Table.from_struct_array(added.column("partition").combine_chunks())
    return values.select(names).cast(pa.schema([(name, pa.string()) for name in names])).to_pylist()


def check_features(table: InputTable, opened: Any) -> None:
    """Raises UserError where the rows of a version are not those of its files."""
    protocol, settings = opened.protocol(), opened.metadata().configuration
    unknown = sorted({*(protocol.reader_features or ())} - READ_FEATURES)
    if unknown or protocol.min_reader_version > NEWEST_READER:
        what = f"has the reader features {', '.join(unknown)}" if unknown else f"needs reader {protocol.min_reader_version}"
        raise table.refusal(what, "ALTER TABLE ... DROP FEATURE removes a feature, and a copy of the table has none")
    if settings.get("delta.columnMapping.mode", "none") != "none":
        raise table.refusal(
            "has columns under other names in its files (delta.columnMapping.mode)",
            "ALTER TABLE ... DROP FEATURE columnMapping, or a copy of the table, writes them under their own",
        )
    if "deletionVectors" in (protocol.reader_features or ()) and _has_deletion_vectors(opened):
        raise table.refusal("has deletion vectors", "REORG TABLE ... APPLY (PURGE) writes the files without the deleted rows")


def _has_deletion_vectors(opened: Any) -> bool:
    """Whether rows of the version's files are deleted; the feature stays in the protocol after they are purged."""
    from deltalake.exceptions import DeltaError

    try:
        return pa.table(opened.deletion_vectors()).num_rows > 0
    except DeltaError:
        return True  # they are in files of their own, which are not copied with the log


def _copy_log(store: Store, files: Sequence[StoredFile], folder: str, key: str) -> None:
    """Copies the newest complete checkpoint and the commits since into `folder`.

    Raises:
        UserError: there is none, or one of these files is empty: a part of the table was copied, or a write was cut short.
    """
    named = {file: store.relative(file.path) for file in files if f"{LOG}/" in file.path}
    log = {file: name.removeprefix(f"{LOG}/") for file, name in named.items() if name.startswith(f"{LOG}/")}
    checkpoints: dict[int, list[tuple[StoredFile, int]]] = defaultdict(list)  # {version: (file, number of parts)}
    for file, name in log.items():
        found = CHECKPOINT.fullmatch(name)
        if found:
            checkpoints[int(found[1])].append((file, int(found[3] or 1)))
    newest = max((version for version, parts in checkpoints.items() if len(parts) >= min(n for _, n in parts)), default=-1)
    wanted = [file for file, _ in checkpoints.get(newest, ())]
    if any(file.path.endswith(".json") or "-" in log[file] for file in wanted):
        wanted += [file for file, name in named.items() if name.startswith(SIDECARS)]
    wanted += [file for file, name in log.items() if (found := COMMIT.fullmatch(name)) and int(found[1]) >= newest]
    if not wanted:
        raise UserError(f"{key}: {store.path!r} is a Delta table whose log has no version; copy the whole table")
    for file in wanted:
        if not file.size:
            raise UserError(
                f"{key}: the log of the Delta table {store.path!r} has an empty file, {log.get(file, named[file])}; copy"
                f" the whole table, or write that version again"
            )
    for file, content in zip(wanted, store.read_files(wanted), strict=True):
        target = join(folder, named[file])
        os.makedirs(os.path.dirname(target), exist_ok=True)
        with open(target, "wb") as copy:
            copy.write(content)
