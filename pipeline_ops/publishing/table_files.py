"""The files of the current commits as a table's log describes them. No file is opened."""

from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from pipeline_ops.output.commit_log import Ledger
from pipeline_ops.output.committed_files import partition_values
from pipeline_ops.publishing.table import TableFile


def table_files(ledger: Ledger, types: Mapping[str, pa.DataType]) -> dict[str, TableFile]:
    """{path: file} of the labeled files of the current commits.

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
            found[file.path] = TableFile(file.path, file.rows, file.bytes, partitions[folder])
    return found
