"""A folder of Parquet files without their partition columns, published as an Iceberg table without a job."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline_ops.publishing.iceberg import IcebergTable
from pipeline_ops.publishing.publish import Publication, publish
from pipeline_ops.publishing.table import TableChange, TableFile
from pipeline_ops.schema.output_columns import OutputConfig
from pipeline_ops.storage.store import Store


class IcebergOutput:
    """A folder of Parquet files without their partition columns, and its table."""

    def __init__(self, folder: Path, **settings: Any):
        folder.mkdir(exist_ok=True)
        self.folder = folder
        self.settings = OutputConfig(path=str(folder), table="iceberg", **settings)
        self.table = self.another_publisher()
        self.files: dict[str, TableFile] = {}
        self.schema = pa.schema([])

    def another_publisher(self) -> IcebergTable:
        return IcebergTable(Store(str(self.folder)), self.settings)

    def add(self, name: str, rows: Mapping[str, Any], partition: Mapping[str, Any], **types: pa.DataType) -> TableFile:
        table = pa.table(dict(rows))
        pq.write_table(table, self.folder / name)
        size = (self.folder / name).stat().st_size
        statistics = {"n": (min(rows["n"]), max(rows["n"]), 0)} if "n" in rows else {}
        file = self.files[name] = TableFile(name, table.num_rows, size, partition, statistics)
        columns = [*table.schema, *(pa.field(column, types.get(column, pa.string())) for column in partition)]
        self.schema = pa.schema([*self.schema, *(column for column in columns if column.name not in self.schema.names)])
        return file

    def publish(self, **options: Any) -> Publication | None:
        return publish(self.table, self.files, self.schema, lambda: None, run="run-1", term=7, **options)

    def change(self, *added: TableFile, removed: tuple[str, ...] = ()) -> TableChange:
        return TableChange(added, removed, self.schema, properties={"label-corpus.run": "run-2"})
