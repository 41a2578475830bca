"""Iceberg: the committed files as a table of a catalog; one snapshot for each version, by pyiceberg.

Guarantee: a snapshot is only ever made the successor of the one that was read. The catalog compares and swaps the table's
current metadata, and a write that finds another snapshot there has no effect; pyiceberg's own retries, which would apply the
change to that one, are off. Metadata and manifests go through Store (tables/store_file_io.py) to OUTPUT/_iceberg/metadata.
"""

import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa

from pipeline_ops.publishing.iceberg_catalog import IcebergCatalog, NewestMetadata
from pipeline_ops.publishing.table import (
    PROPERTY_PREFIX,
    ForeignTableError,
    TableChange,
    TableChangedError,
    TableVersion,
    check_other_log,
)
from pipeline_ops.schema.errors import UserError, one_line
from pipeline_ops.schema.output_columns import OutputConfig
from pipeline_ops.storage.paths import join
from pipeline_ops.storage.store import Store
from pipeline_ops.tables.delta import LOG
from pipeline_ops.tables.iceberg import METADATA, PUBLISHED, VERSION_HINT, arrow_schema
from pipeline_ops.tables.input_table import REQUESTS_AT_ONCE

OUTPUT = f"{PROPERTY_PREFIX}output"  # the table's property with the output whose committed files it has
NO_RETRIES = {"commit.retry.num-retries": "0"}
PROPERTIES = {
    **NO_RETRIES,
    "write.metadata.delete-after-commit.enabled": "true",  # of earlier metadata files the newest 100 stay
    "commit.manifest-merge.enabled": "true",  # of 100 small manifests that appends have left, one is made
    "commit.manifest.target-size-bytes": str(2 * 2**20),
}
# a removal writes those manifests anew that name a removed file; files are in the order of their partitions
FILES_OF_A_MANIFEST = 10_000
MOST_MANIFESTS = 100
HINT = f"{PUBLISHED}/{METADATA}/{VERSION_HINT}"
CLOCK_TOLERANCE_S = 60
NAME_MAPPING = "schema.name-mapping.default"  # the files have no field ids


class IcebergTable:
    """A table of an Iceberg catalog; see Table."""

    format = "Iceberg"

    def __init__(self, store: Store, output: OutputConfig, catalog: IcebergCatalog | NewestMetadata | None = None):
        """Raises UserError if pyiceberg is missing, or the output needs a catalog and has none.

        Args:
            catalog: that of the settings unless given; with NewestMetadata the table can be read only.
        """
        self.store = store
        self.partitions = output.partition_columns()
        self.keep = timedelta(days=output.keep_versions_days)
        self.catalog: Any = catalog or IcebergCatalog(store, output)
        self._opened: Any = None  # pyiceberg.table.Table, as read or written last
        self._paths: dict[int, frozenset[str]] = {}  # {snapshot id: its files}, of one snapshot
        self._hint: str | None = None  # as read or written last

    def read(self) -> TableVersion:
        """See Table.

        Raises:
            UserError: the catalog cannot be reached, or it has another table of that name.
            StoreError: the catalog or the store kept failing.
        """
        self._opened = self._load()
        if self._opened is None:
            check_other_log(self.store, LOG, "delta")
        return replace(self._version(), is_announced=self._is_announced())

    def write(self, seen: TableVersion, change: TableChange) -> TableVersion:
        """See Table.

        Raises:
            UserError: the catalog cannot be reached, the table cannot have a column of that type, or this clock is slow.
            TableChangedError: there is a newer version than `seen`.
            StoreError: the catalog or the store kept failing; whether the version was written is unknown if the catalog did.
        """
        from pyiceberg.exceptions import CommitFailedException, NoSuchTableError, TableAlreadyExistsError

        from pipeline_ops.publishing.iceberg_files import check_names

        opened = self._opened
        if seen.version != (_current_id(opened) if opened is not None else None):
            raise TableChangedError
        if opened is not None:
            self._check_clock(opened.metadata.last_updated_ms)
        if change.schema != seen.schema:
            check_names(change.schema)
        try:
            if opened is not None and NO_RETRIES.items() - opened.properties.items():
                with self.catalog.requests():
                    opened.transaction().set_properties(NO_RETRIES).commit_transaction()
            transaction = self._create(change.schema) if opened is None else opened.transaction()
            expired = self._stage(transaction, seen, change)
            with self.catalog.requests():
                self._opened = transaction.commit_transaction()
        except (CommitFailedException, NoSuchTableError, TableAlreadyExistsError, FileNotFoundError) as error:
            # or on local disk its temporary file has been swept, by a run that took over
            raise TableChangedError from error
        paths = (seen.paths - {*change.removed}) | {file.path for file in change.added}
        self._paths = {_current_id(self._opened): frozenset(paths)}
        self._put_hint()
        self._delete_metadata_of(expired)
        return self._version()

    def kept_paths(self, since: datetime) -> set[str]:
        """See Table; files of snapshots that a tag or a branch names are kept, too."""
        opened = self._opened = self._load()
        paths = set(self._version().paths)
        if opened is None:
            return paths
        others = {one.snapshot_id: one for one in _kept_snapshots(opened.metadata, since)}
        snapshot = opened.current_snapshot()
        # a file of an earlier snapshot is in the newest one, or one of those between them has removed it
        while snapshot is not None:
            others.pop(snapshot.snapshot_id, None)
            earlier = others.get(snapshot.parent_snapshot_id)
            if earlier is not None:
                paths |= self._removed_by(snapshot)
            snapshot = earlier
        return paths | self._paths_of(others.values())

    def _load(self) -> Any:
        """The table as the catalog has it; None if there is none yet."""
        from pipeline_ops.tables.store_file_io import path_of

        opened = self.catalog.load()
        if opened is None:
            return None
        if opened.properties.get(OUTPUT) != self.store.path:
            raise ForeignTableError(
                f"output.catalog: {self.catalog.words} has a table {self.catalog.table!r} at {path_of(opened.location())!r},"
                f" which is none of this output, {self.store.path!r}; {self.catalog.remedy_for_another_table}"
            )
        found = tuple(field.name for field in opened.spec().fields)
        if found != self.partitions:
            raise UserError(
                f"output.catalog: the table {self.catalog.table!r} is partitioned by {', '.join(found) or 'nothing'}, not by"
                f" {', '.join(self.partitions) or 'nothing'}, as output.partition_by has it;"
                f" {self.catalog.remedy_for_another_table}"
            )
        return opened

    def _version(self) -> TableVersion:
        opened = self._opened
        if opened is None:
            return TableVersion(None, frozenset(), pa.schema([]))
        schema = arrow_schema(opened.schema())
        snapshot = opened.current_snapshot()
        if snapshot is None:
            return TableVersion(None, frozenset(), schema)
        if snapshot.snapshot_id not in self._paths:
            self._paths = {snapshot.snapshot_id: frozenset(self._paths_of([snapshot]))}
        summary = snapshot.summary.additional_properties if snapshot.summary else {}
        term = int(summary.get(f"{PROPERTY_PREFIX}term", 0))
        return TableVersion(snapshot.snapshot_id, self._paths[snapshot.snapshot_id], schema, term)

    def _check_clock(self, updated_ms: int) -> None:
        """Raises UserError where a snapshot by this machine's clock would be older than the table, by more than engines take.

        Of Java, Go and Rust the libraries refuse all of such a table (TableMetadata: `Expected sorted snapshot log entries`).
        """
        behind = updated_ms / 1000 - time.time()
        if behind > CLOCK_TOLERANCE_S:
            raise UserError(
                f"output.table: this machine's clock is {behind:,.0f} s behind the newest snapshot of {self.catalog.table!r},"
                f" and engines read no table whose snapshots are out of order; set the clocks of all machines, such as by NTP"
            )

    def _create(self, schema: pa.Schema) -> Any:
        """The transaction that makes the table."""
        from pyiceberg.table.name_mapping import create_mapping_from_schema

        from pipeline_ops.publishing.iceberg_files import iceberg_schema, partition_spec
        from pipeline_ops.tables.store_file_io import location_of

        columns = iceberg_schema(schema)
        catalog = self.catalog.connect()
        with self.catalog.requests():
            if not catalog.namespace_exists(self.catalog.identifier[:-1]):
                catalog.create_namespace_if_not_exists(self.catalog.identifier[:-1])
            transaction = catalog.create_table_transaction(
                self.catalog.identifier,
                columns,
                location=location_of(self.store.path),
                partition_spec=partition_spec(columns, self.partitions),
                properties={
                    **PROPERTIES,
                    OUTPUT: self.store.path,
                    "write.metadata.path": location_of(self.store.join(PUBLISHED, METADATA)),
                },
            )
        mapping = create_mapping_from_schema(transaction.table_metadata.schema())
        return transaction.set_properties({NAME_MAPPING: mapping.model_dump_json()})

    def _stage(self, transaction: Any, seen: TableVersion, change: TableChange) -> list[Any]:
        """Adds the change to the transaction; returns the snapshots that it expires."""
        from pyiceberg.exceptions import ValidationError
        from pyiceberg.table.update.snapshot import ExpireSnapshots

        from pipeline_ops.publishing.iceberg_files import data_file, optional_columns
        from pipeline_ops.tables.store_file_io import location_of

        if self._opened is not None and change.schema != seen.schema:
            with transaction.update_schema() as update:
                try:
                    update.union_by_name(optional_columns(change.schema))
                except ValidationError as error:
                    raise UserError(
                        f"output.table: the table {self.catalog.table!r} has a column of another type: {one_line(error)};"
                        f" {self.catalog.remedy_for_another_table}"
                    ) from error
        metadata = transaction.table_metadata
        schema, spec = metadata.schema(), metadata.spec()
        added = sorted(change.added, key=lambda file: file.path)
        for start in range(0, max(1, len(added)), FILES_OF_A_MANIFEST):
            removed = change.removed if start == 0 else ()  # first, so that no snapshot has a document twice
            update = transaction.update_snapshot(snapshot_properties=dict(change.properties))
            with update.overwrite() if removed else update.merge_append() as snapshot:
                for file in added[start : start + FILES_OF_A_MANIFEST]:
                    snapshot.append_data_file(data_file(file, location_of(self.store.join(file.path)), schema, spec))
                for entry in self._entries(removed):
                    snapshot.delete_data_file(entry)
        if change.removed and self._num_manifests(transaction.table_metadata) > MOST_MANIFESTS:
            # only an append drops the manifests that earlier removals have left, and merges small ones
            transaction.update_snapshot(snapshot_properties=dict(change.properties)).merge_append().commit()
        metadata = transaction.table_metadata
        kept = {one.snapshot_id for one in _kept_snapshots(metadata, datetime.now(UTC) - self.keep)}
        expired = [one for one in metadata.snapshots if one.snapshot_id not in kept]
        if expired:
            with ExpireSnapshots(transaction) as expire:
                expire.by_ids([one.snapshot_id for one in expired])
        return expired

    def _num_manifests(self, metadata: Any) -> int:
        return len(metadata.current_snapshot().manifests(self._opened.io))

    def _entries(self, paths: Iterable[str]) -> list[Any]:
        """The entries of the current snapshot's files with these paths."""
        from pipeline_ops.tables.store_file_io import path_of

        wanted, found = {*paths}, []
        for manifest in self._opened.current_snapshot().manifests(self._opened.io) if wanted else ():
            files = [entry.data_file for entry in manifest.fetch_manifest_entry(self._opened.io)]
            found += [file for file in files if self._relative(path_of(file.file_path)) in wanted]
            if len(found) == len(wanted):
                break
        return found

    def _paths_of(self, snapshots: Iterable[Any]) -> set[str]:
        """The paths of all files that the snapshots consist of; each manifest is read once."""
        from pipeline_ops.tables.store_file_io import path_of

        io = self._opened.io

        def live(manifest: Any) -> set[str]:
            return {self._relative(path_of(entry.data_file.file_path)) for entry in manifest.fetch_manifest_entry(io)}

        try:
            with ThreadPoolExecutor(REQUESTS_AT_ONCE) as threads:
                lists = threads.map(lambda snapshot: snapshot.manifests(io), snapshots)
                manifests = {one.manifest_path: one for manifests in lists for one in manifests}
                return set().union(*threads.map(live, manifests.values()))
        except FileNotFoundError as error:
            raise self.catalog.missing(error) from error

    def _removed_by(self, snapshot: Any) -> set[str]:
        """The paths of the files that its parent had and it has not."""
        from pyiceberg.manifest import ManifestEntryStatus

        from pipeline_ops.tables.store_file_io import path_of

        if snapshot.summary and snapshot.summary.operation.value == "append":
            return set()
        return {
            self._relative(path_of(entry.data_file.file_path))
            for manifest in snapshot.manifests(self._opened.io)
            if manifest.added_snapshot_id == snapshot.snapshot_id and manifest.deleted_files_count != 0
            for entry in manifest.fetch_manifest_entry(self._opened.io, discard_deleted=False)
            if entry.status == ManifestEntryStatus.DELETED
        }

    def _relative(self, path: str) -> str:
        return self.store.relative(path) if path.startswith(join(self.store.path, "")) else path

    def _put_hint(self) -> None:
        """Says which metadata is the newest, for readers without the catalog: DuckDB, pyiceberg's StaticTable, this program."""
        self.store.put(HINT, self._newest_name().encode())
        self._hint = self._newest_name()

    def _is_announced(self) -> bool:
        """Whether the hint says so; a publisher may have been killed before it put it. There is nothing to say of no table."""
        if self._opened is None or self._hint == self._newest_name():
            return True
        try:
            self._hint = self.store.read(HINT).decode(errors="replace")
        except FileNotFoundError:
            return False
        return self._hint == self._newest_name()

    def _newest_name(self) -> str:
        return self._opened.metadata_location.rpartition("/")[2].removesuffix(".metadata.json")

    def _delete_metadata_of(self, expired: list[Any]) -> None:
        """Deletes the manifests and lists that only expired snapshots name."""
        if not expired:
            return
        io = self._opened.io
        with ThreadPoolExecutor(REQUESTS_AT_ONCE) as threads:

            def named_by(snapshots: Iterable[Any]) -> set[str]:
                manifests = threads.map(lambda snapshot: snapshot.manifests(io), snapshots)
                return {one.manifest_path for found in manifests for one in found}

            unused = named_by(expired) - named_by(self._opened.metadata.snapshots)
            list(threads.map(io.delete, [*unused, *(one.manifest_list for one in expired)]))


def _current_id(opened: Any) -> int | None:
    snapshot = opened.current_snapshot()
    return snapshot.snapshot_id if snapshot else None


def _kept_snapshots(metadata: Any, since: datetime) -> list[Any]:
    """The newest snapshot, those that were it at or after `since`, and those that tags and branches name."""
    log = metadata.snapshot_log
    until = [*(entry.timestamp_ms for entry in log[1:]), float("inf")]
    kept = {entry.snapshot_id for entry, end in zip(log, until, strict=False) if end >= since.timestamp() * 1000}
    kept |= {ref.snapshot_id for ref in metadata.refs.values()}
    return [one for one in metadata.snapshots if one.snapshot_id in kept]
