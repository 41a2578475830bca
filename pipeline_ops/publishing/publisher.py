"""Publisher: brings an output's table to its commit log, as often as whoever holds the output's lease asks for it."""

import time
from typing import Any

from pipeline_ops.output.commit_log import Ledger
from pipeline_ops.output.lease import Lease
from pipeline_ops.publishing.kept_files import kept_files
from pipeline_ops.publishing.open_table import open_table
from pipeline_ops.publishing.publish import Publication, publish
from pipeline_ops.publishing.table_files import table_rows
from pipeline_ops.schema.output_columns import OutputConfig
from pipeline_ops.storage.store import Store


class Publisher:
    """The table of an output, if it has one; without one there is nothing to publish.

    Attributes:
        ledger: of the output; whoever writes the output keeps it up to date.
        run: id of the run, or the name of a command, for the versions' metadata.
    """

    def __init__(self, store: Store, output: OutputConfig, ledger: Ledger, run: str):
        """Raises UserError if the library of the table's format is not installed."""
        self.store, self.output, self.ledger, self.run = store, output, ledger, run
        self.table = open_table(store, output)
        self.published_at = time.monotonic()

    def is_behind(self) -> bool:
        """Whether the newest version has other files than the commit log, or is not announced."""
        if self.table is None:
            return False
        seen, files = self.table.read(), {file.path for commit in self.ledger.current.values() for file in commit.files}
        return seen.paths != files or not seen.is_announced

    def is_due(self) -> bool:
        """Whether output.publish_seconds are over since the last publication, or since the start."""
        return self.table is not None and time.monotonic() - self.published_at >= self.output.publish_seconds

    def kept_files(self) -> set[str]:
        """Relative paths of files that a sweep leaves alone although no commit names them; see kept_files()."""
        return kept_files(self.store, self.output, self.table)

    def put_off(self) -> None:
        """Leaves the next publication until output.publish_seconds from now."""
        self.published_at = time.monotonic()

    def version(self) -> dict[str, Any] | None:
        """{format, version} of the newest version; None without a table."""
        version = None if self.table is None else self.table.read().version
        return None if self.table is None or version is None else {"format": self.table.format, "version": version}

    def publish(self, lease: Lease, *, fence: bool = False, same_rows: bool = False) -> Publication | None:
        """Publishes the difference between commit log and table; arguments, errors and what it returns as publish()."""
        if self.table is None:
            return None
        files, schema = table_rows(self.store, self.ledger, self.table.read().paths)
        publication = publish(
            *(self.table, files, schema, lease.confirm), run=self.run, term=lease.term, fence=fence, same_rows=same_rows
        )
        self.published_at = time.monotonic()
        return publication
