"""The output folder as a Delta Lake table: its `_delta_log/` is written here, one version by one conditional put.

The log of the Delta protocol (github.com/delta-io/delta, PROTOCOL.md; Armbrust et al., Delta Lake, VLDB 2020) is a sequence of
entries, `<version>.json`, which are only ever created; the next number is the fence. deltalake writes an entry into a temporary
folder, with a log of the table's protocol and metadata alone, and Store puts it: with the retries, checks and credentials of
everything else. An entry's cost does not depend on the size of the table.
"""

import contextlib
import json
import math
import os
import re
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline_ops.publishing.table import (
    PROPERTY_PREFIX,
    ForeignTableError,
    TableChange,
    TableChangedError,
    TableFile,
    TableVersion,
    check_other_log,
)
from pipeline_ops.schema.errors import UserError
from pipeline_ops.schema.output_columns import OutputConfig
from pipeline_ops.storage.store import Store
from pipeline_ops.tables.delta import COMMIT, LOG, check_features, is_log, opened_log, reason_of, table_of
from pipeline_ops.tables.iceberg import PUBLISHED
from pipeline_ops.tables.input_table import import_extra
from pipeline_ops.writing.unit_files import measured_columns

KEY = "output.table"
APPLICATION = "label-corpus"  # whose transactions the log has; its version is the term of the lease
MEASURED = "delta.dataSkippingStatsColumns"  # the columns that files' statistics are of; unset: the first 32
PLAIN_NAME = re.compile(r"[A-Za-z_]\w*", re.ASCII)  # that the setting's list can have
RETENTION = "delta.deletedFileRetentionDuration"  # of the protocol: how long checkpoints keep what was removed
SECONDS_PER_DAY = 86400
KEPT_CHECKPOINTS = 3  # before the newest one: a reader may have begun with an earlier one
VERSIONS_PER_CHECKPOINT = 10  # as Spark's default: a reader reads the newest checkpoint and the entries since


@dataclass(frozen=True)
class _Log:
    """What the log says.

    Attributes:
        heads: {"protocol": …, "metaData": …}, the actions that are in force.
        removed: {path: when it was removed, in ms since 1970}, as far back as the log keeps it.
    """

    seen: TableVersion
    heads: Mapping[str, Any] = field(default_factory=dict)
    removed: Mapping[str, int] = field(default_factory=dict)


NO_LOG = _Log(TableVersion(None, frozenset(), pa.schema([])))


class DeltaTable:
    """The Delta table in an output folder; see Table."""

    format = "Delta"

    def __init__(self, store: Store, output: OutputConfig):
        """Raises UserError if deltalake is not installed."""
        days = output.keep_versions_days
        kept = f"{days:g} days" if days == round(days) else f"{round(days * SECONDS_PER_DAY)} seconds"
        self.store, self.output, self.partition_by = store, output, list(output.partition_columns())
        self.settings = {RETENTION: f"interval {kept}"}
        self._deltalake = import_extra("deltalake", "Delta Lake", store.path, KEY)
        self._log: _Log | None = None

    def read(self) -> TableVersion:
        log = self._log
        is_newest = log is not None and self._exists(log.seen.version) and not self._exists(_next(log.seen))
        if log is None or not is_newest:
            log = self._log = self._read_log()
        return log.seen

    def write(self, seen: TableVersion, change: TableChange) -> TableVersion:
        log = self._log
        assert log is not None, "it was read just now"
        assert log.seen is seen, "and nothing since"
        version, now = _next(seen), round(time.time() * 1000)
        entry, heads = self._entry(log, change, now)
        try:
            is_ours = self.store.put_new(_name(version), entry)
        except FileNotFoundError:  # on local disk its temporary file has been swept, by a run that took over
            is_ours = False
        if not is_ours:
            raise TableChangedError
        paths = seen.paths.difference(change.removed).union(file.path for file in change.added)
        written = TableVersion(version, paths, self._schema_in(heads), int(change.properties[f"{PROPERTY_PREFIX}term"]))
        self._log = _Log(written, heads, {**log.removed, **dict.fromkeys(change.removed, now)})
        if version % VERSIONS_PER_CHECKPOINT == 0 and version:
            self._write_checkpoint()
        return written

    def kept_paths(self, since: datetime) -> set[str]:
        seen, oldest = self.read(), since.timestamp() * 1000
        assert self._log is not None
        return {*seen.paths, *(path for path, moment in self._log.removed.items() if moment >= oldest)}

    def _exists(self, version: int | None) -> bool:
        try:
            return version is not None and self.store.stat(_name(version)).size > 0
        except FileNotFoundError:
            return False

    def _read_log(self) -> _Log:
        files = self.store.list_all(LOG)
        if not any(is_log(file.path) for file in files):
            check_other_log(self.store, PUBLISHED, "iceberg")
            return NO_LOG
        with opened_log(self.store, files, KEY) as (folder, opened):
            table = table_of(self.store, opened, KEY)
            term = opened.transaction_version(APPLICATION)
            if term is None:
                raise ForeignTableError(
                    f"{KEY}: {self.store.path!r} is a Delta table that label-corpus has not written; give another output.path,"
                    f" or delete its {LOG}"
                )
            check_features(table, opened)
            metadata, protocol = opened.metadata(), opened.protocol()
            if metadata.partition_columns != self.partition_by:
                raise UserError(
                    f"{KEY}: the Delta table {self.store.path!r} is partitioned by {metadata.partition_columns}, the output by"
                    f" {self.partition_by}; delete its {LOG}, and `label-corpus publish` writes it anew"
                )
            names = {
                "minReaderVersion": protocol.min_reader_version,
                "minWriterVersion": protocol.min_writer_version,
                "readerFeatures": protocol.reader_features,
                "writerFeatures": protocol.writer_features,
            }
            heads = {
                "protocol": {name: value for name, value in names.items() if value is not None},
                "metaData": {
                    "id": str(metadata.id),
                    "name": metadata.name,
                    "description": metadata.description,
                    "format": {"provider": "parquet", "options": {}},
                    "schemaString": opened.schema().to_json(),
                    "partitionColumns": metadata.partition_columns,
                    "createdTime": metadata.created_time,
                    "configuration": metadata.configuration,
                },
            }
            paths = pa.table(opened.get_add_actions()).column("path").to_pylist()
            seen = TableVersion(table.version, frozenset(map(unquote, paths)), table.schema, term)
            return _Log(seen, heads, dict(_removed_files(os.path.join(folder, LOG))))

    def _entry(self, log: _Log, change: TableChange, now: int) -> tuple[bytes, Mapping[str, Any]]:
        """(the log entry of a change, the protocol and metadata that are in force after it).

        Args:
            now: ms since 1970.
        """
        from deltalake.transaction import AddAction, CommitProperties, PostCommitHookProperties, RemoveAction, Transaction

        term = int(change.properties[f"{PROPERTY_PREFIX}term"])
        measured = self._measured(log.heads, change.schema)
        added = [
            AddAction(
                file.path,
                file.bytes,
                {column: self._partition_text(file, column) for column in self.partition_by},
                now,
                not change.same_rows,
                _statistics(file, measured),
            )
            for file in change.added
        ]
        removed = [RemoveAction(path=path, data_change=not change.same_rows, deletion_timestamp=now) for path in change.removed]
        properties = CommitProperties(
            custom_metadata=dict(change.properties),
            max_commit_retries=0,
            app_transactions=[Transaction(APPLICATION, term)],
        )
        with tempfile.TemporaryDirectory() as folder, self._errors(folder):
            opened = self._table_without_files(folder, log.heads, change.schema)
            hooks = PostCommitHookProperties(create_checkpoint=False, cleanup_expired_logs=False)
            opened.create_write_transaction(
                [*added, *removed],
                "append",
                opened.schema(),
                partition_by=self.partition_by,
                commit_properties=properties,
                post_commithook_properties=hooks,
            )
            entries = sorted(name for name in os.listdir(os.path.join(folder, LOG)) if COMMIT.fullmatch(name))
            *earlier, last = (os.path.join(folder, LOG, name) for name in entries)
            heads: dict[str, Any] = {}
            for action in _actions(earlier):
                heads |= {name: value for name, value in action.items() if name in ("protocol", "metaData")}
            with open(last, "rb") as file:
                entry = file.read()
        changed = [{name: value} for name, value in heads.items() if value != log.heads.get(name)]
        return b"\n".join([entry.rstrip(b"\n"), *(json.dumps(action).encode() for action in changed), b""]), heads

    def _table_without_files(self, folder: str, heads: Mapping[str, Any], schema: pa.Schema) -> Any:
        """A deltalake.DeltaTable in `folder` with this protocol and metadata, and with the columns that they lack."""
        wanted = self._fields(schema)
        if not heads:
            fields = self._deltalake.Schema(list(wanted.values()))
            measured = self._measured(heads, schema)
            settings = self.settings | ({MEASURED: ",".join(measured)} if measured else {})
            return self._deltalake.DeltaTable.create(folder, fields, partition_by=self.partition_by, configuration=settings)
        os.mkdir(os.path.join(folder, LOG))
        with open(os.path.join(folder, _name(0)), "w", encoding="utf-8") as file:
            file.writelines(json.dumps({name: value}) + "\n" for name, value in heads.items())
        opened = self._deltalake.DeltaTable(folder)
        known = {one.name: one for one in opened.schema().fields}
        wider = [one for name, one in wanted.items() if name not in known or known[name].type != one.type]
        if wider:
            opened.alter.add_columns(wider)  # new ones, and objects with new fields
        if any(opened.metadata().configuration.get(name) != value for name, value in self.settings.items()):
            opened.alter.set_table_properties(self.settings)
        return self._deltalake.DeltaTable(folder)

    def _measured(self, heads: Mapping[str, Any], schema: pa.Schema) -> list[str]:
        """The columns that the log has statistics of, now and later: those of the table's first version that are measured."""
        if heads:
            return [name for name in heads["metaData"]["configuration"].get(MEASURED, "").split(",") if name]
        measured = measured_columns(self.output).intersection(schema.names).difference(self.partition_by)
        return sorted(name for name in measured if PLAIN_NAME.fullmatch(name))

    def _fields(self, schema: pa.Schema) -> dict[str, Any]:
        """{column: deltalake.Field}."""
        columns = pa.schema([column.with_nullable(True) for column in schema])
        return {one.name: one for one in self._deltalake.Schema.from_arrow(columns).fields}

    def _schema_in(self, heads: Mapping[str, Any]) -> pa.Schema:
        return pa.schema(self._deltalake.Schema.from_json(heads["metaData"]["schemaString"]).to_arrow())

    @contextlib.contextmanager
    def _errors(self, folder: str) -> Iterator[None]:
        try:
            yield
        except self._deltalake.exceptions.DeltaError as error:
            raise UserError(
                f"{KEY}: the Delta table {self.store.path!r} cannot be written:"
                f" {reason_of(error, folder, self.store)}; delete its {LOG}, and `label-corpus publish` writes it anew"
            ) from error

    def _partition_text(self, file: TableFile, column: str) -> str | None:
        """A partition value as the protocol has it (PROTOCOL.md, Partition Value Serialization)."""
        value = file.partition[column]
        if value == "":
            raise UserError(
                f"{KEY}: {file.path!r} has an empty text in the partition column {column!r}, which Delta Lake takes for"
                f" null; use output.table: iceberg, or leave the column out of output.partition_by, in another output.path"
            )
        if isinstance(value, bool):
            return str(value).lower()
        if isinstance(value, datetime):
            utc = value if value.tzinfo is None else value.astimezone(UTC)
            return utc.strftime("%Y-%m-%d %H:%M:%S.%f")
        if isinstance(value, Decimal):
            return f"{value:f}"
        return None if value is None else str(value)

    def _write_checkpoint(self) -> None:
        """Puts a checkpoint of the newest version, which spares readers the entries before it.

        Deletes those of long ago, of 40 MB each with 100,000 files: all entries stay, which earlier versions are read by.
        """
        files = self.store.list_all(LOG)
        with opened_log(self.store, files, KEY) as (folder, opened):
            opened.create_checkpoint()
            name = f"{LOG}/{opened.version():020}.checkpoint.parquet"
            for one in (name, f"{LOG}/_last_checkpoint"):
                with open(os.path.join(folder, one), "rb") as file, contextlib.suppress(FileNotFoundError):
                    self.store.put(one, file.read())  # a temporary file may be swept: then the next checkpoint does
            oldest = f"{LOG}/{max(opened.version() - KEPT_CHECKPOINTS * VERSIONS_PER_CHECKPOINT, 0):020}"
        names = [self.store.relative(file.path) for file in files if file.path.endswith(".checkpoint.parquet")]
        self.store.delete(name for name in names if name < oldest)


def _next(seen: TableVersion) -> int:
    return 0 if seen.version is None else seen.version + 1


def _name(version: int) -> str:
    return f"{LOG}/{version:020}.json"


def _statistics(file: TableFile, measured: Sequence[str]) -> str:
    """JSON (PROTOCOL.md, Per-file Statistics): of all these columns or of none.

    deltalake's Arrow datasets compare a filter with null where a file has statistics of other columns alone, and lose its rows.
    """
    known = {name: file.statistics[name] for name in measured if name in file.statistics}
    if len(known) < len(measured) or not all(_is_plain(end) for *ends, _ in known.values() for end in ends):
        return json.dumps({"numRecords": file.rows})
    return json.dumps(
        {
            "numRecords": file.rows,
            "minValues": {name: lowest for name, (lowest, _, _) in known.items()},
            "maxValues": {name: highest for name, (_, highest, _) in known.items()},
            "nullCount": {name: nulls for name, (_, _, nulls) in known.items()},
        }
    )


def _is_plain(value: Any) -> bool:
    """Whether JSON has the value."""
    return isinstance(value, str | int) or (isinstance(value, float) and math.isfinite(value))


def _removed_files(folder: str) -> Iterator[tuple[str, int]]:
    """(path, ms since 1970) of the remove actions in the files of a log, sorted by the time."""
    found: list[tuple[int, str]] = []
    names = sorted(os.path.join(parent, name) for parent, _, files in os.walk(folder) for name in files)
    for path in names:
        if path.endswith(".parquet"):
            checkpoint = pq.ParquetFile(path)
            if "remove" in checkpoint.schema_arrow.names:
                removed = checkpoint.read(columns=["remove.path", "remove.deletionTimestamp"]).column("remove")
                found += [(one["deletionTimestamp"] or 0, one["path"]) for one in removed.drop_null().to_pylist()]
    for action in _actions((path for path in names if path.endswith(".json")), only=b'"remove"'):
        if "remove" in action:
            found.append((action["remove"].get("deletionTimestamp") or 0, action["remove"]["path"]))
    return ((unquote(path), moment) for moment, path in sorted(found))


def _actions(paths: Iterable[str], only: bytes = b"") -> Iterator[dict[str, Any]]:
    """The actions in log entries, of the lines that have these bytes."""
    for path in paths:
        with open(path, "rb") as file:
            yield from (json.loads(line) for line in file if only in line and line.strip())
