"""The published table as engines read it: each gives all columns of all rows, in the order of (source_file, source_row)."""

import importlib
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import deltalake
import duckdb
import polars as pl
import pyarrow as pa
import pytest
from pyiceberg.catalog.sql import SqlCatalog

from jobs import label_corpus
from tests.conftest import Bucket

REGION = "us-east-1"
KEY = ("source_file", "source_row")


@dataclass(frozen=True)
class Published:
    """An output that is published as a table.

    Attributes:
        path: of the output folder.
        endpoint_url: of the S3 server that it is on; None: it is local.
    """

    path: str
    endpoint_url: str | None = None

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


def by_deltalake(published: Published, version: int | None = None) -> pa.Table:
    """Reads the log and the files with delta-rs, and decodes them with Arrow."""
    table = deltalake.DeltaTable(published.path, version=version, storage_options=published.storage_options)
    return in_order(table.to_pyarrow_table())


def by_polars(published: Published, version: int | None = None) -> pa.Table:
    """Reads the log with delta-rs, and the files with Polars' own reader of Parquet."""
    options: Any = published.storage_options
    return in_order(pl.scan_delta(published.path, version=version, storage_options=options).collect().to_arrow())


def by_duckdb_delta(published: Published, version: int | None = None) -> pa.Table:
    """Reads the log with delta-kernel-rs, and the files with DuckDB's own reader of Parquet."""
    at = "" if version is None else f", version => {version}"
    with duckdb_connection(published, "delta") as connection:
        return in_order(connection.execute(f"SELECT * FROM delta_scan({_quoted(published.path)}{at})").to_arrow_table())


def by_duckdb_iceberg(published: Published, version: int | None = None) -> pa.Table:
    """Reads metadata and files with DuckDB's own readers of Avro and Parquet."""
    at = "" if version is None else f", snapshot_from_id => {version}"
    location = iceberg_table(published).metadata_location
    with duckdb_connection(published, "avro", "iceberg") as connection:
        return in_order(connection.execute(f"SELECT * FROM iceberg_scan({_quoted(location)}{at})").to_arrow_table())


def by_pyiceberg(published: Published, version: int | None = None) -> pa.Table:
    """Reads metadata and files with pyiceberg, and decodes them with Arrow."""
    return in_order(iceberg_table(published).scan(snapshot_id=version).to_arrow())


def by_labels(published: Published) -> pa.Table:
    """Reads the committed files by the commit log."""
    storage = {"endpoint_url": published.endpoint_url} if published.endpoint_url else None
    return in_order(label_corpus.labels(published.path, "arrow", storage=storage).to_table())


DELTA: dict[str, Callable[..., pa.Table]] = {"deltalake": by_deltalake, "Polars": by_polars, "DuckDB": by_duckdb_delta}
ICEBERG: dict[str, Callable[..., pa.Table]] = {"pyiceberg": by_pyiceberg, "DuckDB": by_duckdb_iceberg}
READERS = {"delta": DELTA, "iceberg": ICEBERG}


def iceberg_table(published: Published) -> Any:
    """The table as its default catalog, a file of SQLite in the output folder, knows it now."""
    catalog = SqlCatalog(
        "default", uri=f"sqlite:///{published.path}/_iceberg/catalog.db", warehouse=f"file://{published.path}/_iceberg"
    )
    with closing(catalog):
        return catalog.load_table(f"labels.{Path(published.path).name}")


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
