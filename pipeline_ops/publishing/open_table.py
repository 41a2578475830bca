"""The table that an output is published as, by its settings."""

from pipeline_ops.publishing.table import Table
from pipeline_ops.schema.output_columns import OutputConfig
from pipeline_ops.storage.store import Store


def open_table(store: Store, output: OutputConfig) -> Table | None:
    """The table at an output's folder; None: it is published as none. No request is made yet.

    Args:
        store: of the output folder.

    Raises:
        UserError: the library of its format is not installed; an Iceberg table on object storage has no output.catalog.
    """
    if output.table == "delta":
        from pipeline_ops.publishing.delta import DeltaTable

        return DeltaTable(store, output)
    if output.table == "iceberg":
        from pipeline_ops.publishing.iceberg import IcebergTable

        return IcebergTable(store, output)
    return None
