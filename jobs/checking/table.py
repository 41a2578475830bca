"""The table that a job is to be published as: whether its format can have the labels' columns and names."""

import pyarrow as pa

from jobs.config import ResolvedJob
from pipeline_ops.publishing.open_table import open_table
from pipeline_ops.schema.errors import UserError
from pipeline_ops.tables.table_types import DELTA, table_schema
from pipeline_ops.writing.hive_partitions import ADDED_TYPES


def check_table(job: ResolvedJob, types: pa.Schema, *, published: bool) -> None:
    """Raises UserError where engines would not read the labels from the table as they are, or its library is missing.

    Args:
        types: of the input's columns, as they are settled.
        published: there may be a table, which the labels have to go with.
    """
    table = open_table(job.output_store, job.output)
    if table is None:
        return
    partitions = job.output.partition_columns()
    if table.format == DELTA:
        _check_empty_labels(job, partitions)
    kept = job.output.input_columns()
    columns = {field.name: field.type for field in types if kept is None or field.name in (*kept, *partitions)}
    for one in job.output.by_model().values():
        columns |= {name: ADDED_TYPES.get(key, pa.list_(pa.float32())) for key, name in one.added_columns().items()}
    known = table.read().schema if published else pa.schema([])
    in_both = [field for field in known if field.name not in job.output.list_columns()]  # of lists of what, these do not say
    table_schema(pa.schema([*columns.items()]), pa.schema(in_both), table.format, partitions)


def _check_empty_labels(job: ResolvedJob, partitions: tuple[str, ...]) -> None:
    for model in job.models:
        head = model.facts.head
        if model.output.label_name in partitions and "" in (*head.labels, *head.bin_labels, head.fallback_label):
            raise UserError(
                f"output.table: the model {model.config.path!r} has a label without a name, which Delta tables take for"
                f" null as a partition's value; name it by model.id2label, set output.table: iceberg or output.partition_by: []"
            )
