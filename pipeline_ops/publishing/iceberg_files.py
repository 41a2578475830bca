"""Committed files as Iceberg describes them: the schema and the name mapping by which they are read, and their entries.

Imports pyiceberg, an extra: import this module where it is needed only.
"""

from collections.abc import Iterator
from itertools import count
from typing import Any

import pyarrow as pa
from pyiceberg.conversions import to_bytes
from pyiceberg.io.pyarrow import pyarrow_to_schema
from pyiceberg.manifest import DataFile, DataFileContent, FileFormat
from pyiceberg.partitioning import PartitionField, PartitionSpec, partition_record_value
from pyiceberg.schema import Schema
from pyiceberg.transforms import IdentityTransform
from pyiceberg.typedef import Record
from pyiceberg.types import PrimitiveType

from pipeline_ops.publishing.table import TableFile
from pipeline_ops.schema.errors import UserError, one_line

FIRST_PARTITION_ID = 1000  # as all writers number the fields of a partition spec
FIELD_ID = "PARQUET:field_id"


def check_names(schema: pa.Schema) -> None:
    """Raises UserError for names that Iceberg takes for one: a column `a.b`, and the field `b` of a column `a`."""
    try:
        iceberg_schema(schema)
    except ValueError as error:
        raise UserError(f"output.table: an Iceberg table cannot hold these columns: {one_line(error)}; rename one") from error


def iceberg_schema(schema: pa.Schema) -> Schema:
    """The schema with field ids; all fields are optional, as columns that only some files have are null in the others.

    Raises:
        ValueError: two columns or fields have one name.
    """
    ids = count(1)
    return pyarrow_to_schema(pa.schema([_optional(field, ids) for field in schema]))


def optional_columns(schema: pa.Schema) -> pa.Schema:
    """The columns for an update by name, without ids."""
    return pa.schema([_optional(field, None) for field in schema])


def _optional(field: pa.Field, ids: Iterator[int] | None, nullable: bool = True) -> pa.Field:
    """The field without dictionary, and nullable, in it too; numbered by `ids`."""
    metadata = {} if ids is None else {FIELD_ID: str(next(ids))}
    kind = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
    if pa.types.is_struct(kind):
        kind = pa.struct([_optional(inner, ids) for inner in kind])
    elif pa.types.is_map(kind):
        kind = pa.map_(_optional(kind.key_field, ids, nullable=False), _optional(kind.item_field, ids))
    elif pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        kind = pa.list_(_optional(kind.value_field, ids))
    return pa.field(field.name, kind, nullable, metadata)


def partition_spec(schema: Schema, columns: tuple[str, ...]) -> PartitionSpec:
    """The values of these columns, as they are."""
    return PartitionSpec(
        *(
            PartitionField(schema.find_field(name).field_id, FIRST_PARTITION_ID + number, IdentityTransform(), name)
            for number, name in enumerate(columns)
        )
    )


def data_file(file: TableFile, location: str, schema: Schema, spec: PartitionSpec) -> DataFile:
    """The entry of a Parquet file, with the bounds of the columns that have statistics.

    Args:
        location: of the file.

    Source of the bounds: Iceberg table spec, appendix D, single-value serialization.
    """
    nulls, lower, upper = {}, {}, {}
    for name, (lowest, highest, num_nulls) in file.statistics.items():
        field = schema.find_field(name)
        if not isinstance(field.field_type, PrimitiveType):
            continue
        nulls[field.field_id] = num_nulls
        if lowest is not None and highest is not None:
            lower[field.field_id] = to_bytes(field.field_type, lowest)
            upper[field.field_id] = to_bytes(field.field_type, highest)
    entry = DataFile.from_args(
        content=DataFileContent.DATA,
        file_path=location,
        file_format=FileFormat.PARQUET,
        partition=partition_record(file.partition, schema, spec),
        record_count=file.rows,
        file_size_in_bytes=file.bytes,
        value_counts=dict.fromkeys(nulls, file.rows),
        null_value_counts=nulls,
        lower_bounds=lower,
        upper_bounds=upper,
    )
    entry.spec_id = spec.spec_id
    return entry


def partition_record(values: Any, schema: Schema, spec: PartitionSpec) -> Record:
    """The values of a partition as Iceberg stores them, such as a date as a number of days."""
    return Record(*(partition_record_value(field, values[field.name], schema) for field in spec.fields))
