"""The published table as engines read it: each gives all columns of all rows, in the order of (source_file, source_row)."""

import importlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import deltalake
import duckdb
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from deltalake.exceptions import TableNotFoundError
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.exceptions import NoSuchTableError

from jobs import label_corpus
from tests.conftest import Bucket

REGION = "us-east-1"
KEY = ("source_file", "source_row")
Lowest = tuple[str, Any]  # a column, and its lowest value that is wanted


@dataclass(frozen=True)
class Published:
    """An output that is published as a table.

    Attributes:
        path: of the output folder.
        endpoint_url: of the S3 server that it is on; None: it is local.
        catalog_uri: of the Iceberg catalog; None: the default, a file of SQLite in the output folder.
    """

    path: str
    endpoint_url: str | None = None
    catalog_uri: str | None = None

    @classmethod
    def on(cls, bucket: Bucket, name: str = "out") -> "Published":
        return cls(f"{bucket.url}/{name}", bucket.endpoint_url)

    @property
    def storage_options(self) -> dict[str, str]:
        """What delta-rs' client of S3 wants to know; credentials are in the environment."""
        if self.endpoint_url is None:
            return {}
        return {"AWS_ENDPOINT_URL": self.endpoint_url, "AWS_ALLOW_HTTP": "true", "AWS_REGION": REGION}

    @property
    def fsspec_options(self) -> dict[str, str]:
        """The same for pyiceberg."""
        if self.endpoint_url is None:
            return {}
        credentials = {"s3.access-key-id": "testing", "s3.secret-access-key": "testing", "s3.region": REGION}
        return {"py-io-impl": "pyiceberg.io.fsspec.FsspecFileIO", "s3.endpoint": self.endpoint_url, **credentials}


def in_order(rows: pa.Table) -> pa.Table:
    return rows.sort_by([(name, "ascending") for name in KEY])


def by_deltalake(published: Published, at_least: Lowest | None = None) -> pa.Table:
    """Reads the log and the files with delta-rs, and decodes them with Arrow."""
    filters = None if at_least is None else pc.field(at_least[0]) >= at_least[1]
    return in_order(delta_table(published).to_pyarrow_table(filters=filters))


def by_polars(published: Published, at_least: Lowest | None = None) -> pa.Table:
    """Reads the log with delta-rs, and the files with Polars' own reader of Parquet."""
    options: Any = published.storage_options
    rows = pl.scan_delta(published.path, storage_options=options)
    if at_least is not None:
        rows = rows.filter(pl.col(at_least[0]) >= at_least[1])
    return in_order(rows.collect().to_arrow())


def by_duckdb_delta(published: Published, at_least: Lowest | None = None) -> pa.Table:
    """Reads the log with delta-kernel-rs, and the files with DuckDB's own reader of Parquet."""
    with duckdb_connection(published, "delta") as connection:
        return _selected(connection, f"delta_scan({_quoted(published.path)})", at_least)


def by_duckdb_iceberg(published: Published, at_least: Lowest | None = None) -> pa.Table:
    """Reads metadata and files with DuckDB's own readers of Avro and Parquet."""
    location = iceberg_table(published).metadata_location
    with duckdb_connection(published, "avro", "iceberg") as connection:
        return _selected(connection, f"iceberg_scan({_quoted(location)})", at_least)


def _selected(connection: duckdb.DuckDBPyConnection, table: str, at_least: Lowest | None) -> pa.Table:
    where = "" if at_least is None else f'WHERE "{at_least[0]}" >= CAST({at_least[1]!r} AS DOUBLE)'
    return in_order(connection.execute(f"SELECT * FROM {table} {where}").to_arrow_table())


def by_pyiceberg(published: Published, at_least: Lowest | None = None) -> pa.Table:
    """Reads metadata and files with pyiceberg, and decodes them with Arrow."""
    filters = "true" if at_least is None else f"{at_least[0]} >= {at_least[1]}"
    return in_order(iceberg_table(published).scan(filters).to_arrow())


def by_labels(published: Published) -> pa.Table:
    """Reads the committed files by the commit log."""
    storage = {"endpoint_url": published.endpoint_url} if published.endpoint_url else None
    return in_order(label_corpus.labels(published.path, "arrow", storage=storage).to_table())


DELTA: dict[str, Callable[..., pa.Table]] = {"deltalake": by_deltalake, "Polars": by_polars, "DuckDB": by_duckdb_delta}
ICEBERG: dict[str, Callable[..., pa.Table]] = {"pyiceberg": by_pyiceberg, "DuckDB": by_duckdb_iceberg}
READERS = {"delta": DELTA, "iceberg": ICEBERG}


def iceberg_table(published: Published) -> Any:
    """The table as its catalog knows it now: `labels.NAME`, of the folder's name."""
    uri = published.catalog_uri or f"sqlite:///{published.path}/_iceberg/catalog.db"
    with closing(SqlCatalog("default", uri=uri, **published.fsspec_options)) as catalog:
        return catalog.load_table(f"labels.{published.path.rsplit('/', 1)[-1]}")


def delta_table(published: Published, version: int | None = None) -> deltalake.DeltaTable:
    return deltalake.DeltaTable(published.path, version=version, storage_options=published.storage_options)


def newest_version(kind: str, published: Published) -> int | None:
    """The version that a reader who comes now reads; None: nothing has been published yet."""
    try:
        if kind == "delta":
            return delta_table(published).version()
        snapshot = iceberg_table(published).current_snapshot()
        return None if snapshot is None else snapshot.snapshot_id
    except (TableNotFoundError, NoSuchTableError):
        return None


def all_versions(kind: str, published: Published) -> list[int]:
    """Every version that can be traveled to, first to last."""
    if kind == "delta":
        return [*range(delta_table(published).version() + 1)]
    return [entry.snapshot_id for entry in iceberg_table(published).history()]


def paths_of(kind: str, published: Published, version: int) -> set[str]:
    """The files of a version, relative to the output folder."""
    if kind == "delta":
        found = [unquote(path) for path in pa.table(delta_table(published, version).get_add_actions())["path"].to_pylist()]
    else:
        found = [task.file.file_path for task in iceberg_table(published).scan(snapshot_id=version).plan_files()]
    assert len(found) == len({*found}), "no file twice"
    return {path.removeprefix("file://").removeprefix(f"{published.path}/") for path in found}


def rows_of(kind: str, published: Published, version: int, columns: Sequence[str]) -> list[tuple]:
    """These columns of a version's rows, in no order, by deltalake or pyiceberg."""
    if kind == "delta":
        table = delta_table(published, version).to_pyarrow_table(columns=[*columns])
    else:
        table = iceberg_table(published).scan(snapshot_id=version, selected_fields=(*columns,)).to_arrow()
    return [*zip(*(table[column].to_pylist() for column in columns), strict=True)]


@contextmanager
def duckdb_connection(published: Published, *extensions: str) -> Iterator[duckdb.DuckDBPyConnection]:
    """DuckDB with extensions from their wheels: its server of extensions need not be reachable. Skips a test without them."""
    with duckdb.connect(config={"autoinstall_known_extensions": False}) as connection:
        for name in ("httpfs", *extensions):
            connection.execute(f"LOAD {_quoted(_extension(name))}")
        if published.endpoint_url:
            host = published.endpoint_url.removeprefix("http://")
            connection.execute(
                f"CREATE SECRET (TYPE s3, KEY_ID 'testing', SECRET 'testing', REGION '{REGION}',"
                f" ENDPOINT '{host}', URL_STYLE 'path', USE_SSL false)"
            )
        yield connection


def _extension(name: str) -> str:
    module = f"duckdb_extension_{name}"
    try:
        folder = Path(importlib.import_module(module).__path__[0])
    except ImportError:
        pytest.skip(f"{module} is not installed")
    file = folder / "extensions" / f"v{duckdb.__version__}" / f"{name}.duckdb_extension"
    if not file.exists():
        pytest.skip(f"{module} is not for DuckDB {duckdb.__version__}")
    return str(file)


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
