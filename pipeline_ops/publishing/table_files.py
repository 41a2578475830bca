"""The files of the current commits as a table's log describes them, and the columns of their rows."""

from collections.abc import Collection, Mapping
from typing import Any

import pyarrow as pa

from pipeline_ops.output.commit_log import Ledger, read_job
from pipeline_ops.output.labeled_output import Labeled, schema_of
from pipeline_ops.publishing.table import TableFile
from pipeline_ops.storage.store import Store
from pipeline_ops.writing.hive_partitions import partition_values


def table_rows(store: Store, ledger: Ledger, known: Collection[str]) -> tuple[dict[str, TableFile], pa.Schema]:
    """({path: file} of the labeled files, the columns of the rows in those that a table lacks).

    Reads the job record, and one footer for each schema of files that the table lacks.

    Args:
        store: of the output folder.
        known: the paths that the table has.

    Raises:
        UserError: two files have a column in types that do not go together.
        StoreError: the store kept failing.
    """
    record = read_job(store)
    if record is None:  # there is one before the first commit
        return {}, pa.schema([])
    current = ledger.current
    new = {unit: commit for unit, commit in current.items() if any(file.path not in known for file in commit.files)}
    labeled = Labeled(store, record, Ledger(new))
    return _table_files(ledger, labeled.partition_types), schema_of(labeled)


def _table_files(ledger: Ledger, types: Mapping[str, pa.DataType]) -> dict[str, TableFile]:
    """{path: file}.

    Args:
        types: of the partition columns, outermost first.
    """
    partitions: dict[str, Mapping[str, Any]] = {}  # by folder: many files have the same
    found = {}
    for commit in ledger.current.values():
        for file in commit.files:
            folder = file.path.rpartition("/")[0]
            if folder not in partitions:
                partitions[folder] = partition_values(file.path, types)
            found[file.path] = TableFile(file.path, file.rows, file.bytes, partitions[folder], file.statistics)
    return found
