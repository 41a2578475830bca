"""The files of the current commits as a table's log describes them. No file is opened."""

from collections.abc import Mapping
from typing import Any

from pipeline_ops.output.commit_log import Ledger
from pipeline_ops.output.committed_files import hive_values
from pipeline_ops.publishing.table import TableFile


def table_files(ledger: Ledger) -> dict[str, TableFile]:
    """{path: file} of the labeled files of the current commits."""
    partitions: dict[str, Mapping[str, Any]] = {}  # by folder: many files have the same
    found = {}
    for commit in ledger.current.values():
        for file in commit.files:
            folder = file.path.rpartition("/")[0]
            if folder not in partitions:
                partitions[folder] = hive_values(file.path)
            found[file.path] = TableFile(file.path, file.rows, file.bytes, partitions[folder])
    return found
