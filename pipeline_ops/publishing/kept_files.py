"""Files that no commit names any more and that stay nevertheless, for readers of the table's earlier versions.

A file counts as kept by what the log of a table says, not by a setting: also in an output whose output.table was switched off,
and also for a command that has only the folder. A log that cannot be read is an error, so that nothing is deleted for it.
"""

import time
from collections.abc import Iterator
from datetime import UTC, datetime

from pipeline_ops.publishing.open_table import open_table
from pipeline_ops.publishing.table import ForeignTableError, Table
from pipeline_ops.schema.output_columns import OutputConfig
from pipeline_ops.storage.store import Store
from pipeline_ops.tables.delta import LOG, is_log
from pipeline_ops.tables.iceberg import PUBLISHED

SECONDS_PER_DAY = 86400


def kept_files(store: Store, output: OutputConfig, table: Table | None) -> set[str]:
    """Relative paths of the files that a version of the last output.keep_versions_days consists of, the newest one included.

    Args:
        store: of the output folder.
        table: the output's, if it has one.

    Raises:
        UserError: a log cannot be read, or the library of its format is not installed.
    """
    since = datetime.fromtimestamp(max(0.0, time.time() - output.keep_versions_days * SECONDS_PER_DAY), UTC)
    kept = table.kept_paths(since) if table is not None else set[str]()
    for earlier in _earlier_tables(store, output, table):
        try:
            kept |= earlier.kept_paths(since)
        except ForeignTableError:  # somebody's over our files, such as by CONVERT TO DELTA: whoever made it keeps it right
            continue
    return kept


def _earlier_tables(store: Store, output: OutputConfig, table: Table | None) -> Iterator[Table]:
    """The tables in the folder that the output is not published as now."""
    if (table is None or table.format != "Delta") and any(is_log(file.path) for file in store.list_all(LOG)):
        opened = open_table(store, output.model_copy(update={"table": "delta"}))
        assert opened is not None, "it was asked for"
        yield opened
    if (table is None or table.format != "Iceberg") and store.list_all(PUBLISHED):
        from pipeline_ops.publishing.iceberg import IcebergTable, NewestMetadata

        yield IcebergTable(store, output, NewestMetadata(store))
