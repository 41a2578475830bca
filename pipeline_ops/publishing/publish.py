"""Bring a table to what the commit log says, in one version: a difference of two sets, which any later run can repeat."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import pyarrow as pa

from pipeline_ops.publishing.table import PROPERTY_PREFIX, Table, TableChange, TableChangedError, TableFile
from pipeline_ops.schema.errors import UserError
from pipeline_ops.tables.table_types import table_schema

MAX_ATTEMPTS = 5  # a table is written by the holder of the output's lease alone, or by somebody's OPTIMIZE


@dataclass(frozen=True)
class Publication:
    """A version that was published.

    Attributes:
        version: of the table.
        added, removed: numbers of files.
    """

    version: int
    added: int
    removed: int


def publish(
    table: Table,
    files: Mapping[str, TableFile],
    schema: pa.Schema,
    confirm: Callable[[], None],
    *,
    run: str,
    term: int,
    fence: bool = False,
    same_rows: bool = False,
) -> Publication | None:
    """Writes the version that has exactly `files`; None where the newest one has, or there is neither a file nor a table.

    A version that was not announced is followed by another one, which is.

    Exactly once: `files` are those of one moment of the commit log, so no version has a document twice, or an uncommitted one.
    A publisher that has lost its lease writes nothing: `confirm` comes after the table was read, and a version is only written
    as the successor of the one that was read. Whoever takes over publishes with `fence` first, so that a write of the earlier
    holder that is still on its way finds its number taken (Kleppmann, How to do distributed locking, 2016).

    Args:
        files: of the current commits, by path.
        schema: of their rows.
        confirm: Lease.confirm; raises unless the caller holds the lease.
        run: id of the run, or the name of a command.
        term: of the lease.
        fence: write a version even if nothing has changed.
        same_rows: the added files hold the rows of the removed ones, as after a compaction.

    Raises:
        LeaseError: another run holds the lease.
        UserError: the table cannot have a column; or others keep writing to the table.
        StoreError: the store kept failing.
    """
    partitions = [*next(iter(files.values())).partition] if files else []
    for _ in range(MAX_ATTEMPTS):
        seen = table.read()
        added = tuple(file for path, file in files.items() if path not in seen.paths)
        removed = tuple(sorted(seen.paths.difference(files)))
        columns = table_schema(schema, seen.schema, table.format, partitions)
        renews = columns != seen.schema or fence or not seen.is_announced
        if not (added or removed or (seen.version is not None and renews)):
            return None
        change = TableChange(
            added,
            removed,
            columns,
            same_rows=same_rows,
            properties={f"{PROPERTY_PREFIX}run": run, f"{PROPERTY_PREFIX}term": str(term)},
        )
        confirm()
        try:
            written = table.write(seen, change)
        except TableChangedError:
            continue
        assert written.version is not None, "it was written"
        return Publication(written.version, len(added), len(removed))
    raise UserError(
        f"output.table: others wrote to the {table.format} table {MAX_ATTEMPTS} times meanwhile; stop what writes to it besides"
        f" the job"
    )
