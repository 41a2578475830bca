"""An Iceberg table of an output on a real S3 server that fails, with a catalog elsewhere."""

import datetime
from pathlib import Path

import pytest
from pyiceberg.catalog.sql import SqlCatalog

from jobs.results.labels import labels
from pipeline_ops.publishing.iceberg import IcebergTable
from pipeline_ops.publishing.publish import publish
from pipeline_ops.publishing.table import TableChange, TableChangedError
from pipeline_ops.schema.errors import StoreError, UserError
from pipeline_ops.schema.output_columns import OutputConfig
from pipeline_ops.storage.config import StorageConfig
from pipeline_ops.storage.store import Store
from tests.conftest import Bucket
from tests.servers.s3_proxy import Rule
from tests.servers.s3_server import S3Server
from tests.support.corpora import write_jsonl
from tests.support.iceberg_output import IcebergOutput
from tests.support.running import make_job
from tests.support.serial_chain import run_serially

pytestmark = pytest.mark.slow

METADATA = r"out/_iceberg/.*"
FAULTS = [
    Rule("status", "PutObject", METADATA, times=3),
    Rule("after_status", "PutObject", METADATA, times=2),
    Rule("after_reset", "PutObject", METADATA, times=2),
    Rule("reset", "PutObject", METADATA, times=2),
    Rule("flip", "PutObject", METADATA, times=2),
    Rule("flip", "GetObject", METADATA, times=2),
    Rule("short", "GetObject", METADATA),
    Rule("reset_mid", "GetObject", METADATA),
    Rule("status", "GetObject", METADATA, times=2, status=503, code="SlowDown"),
    Rule("status", "DeleteObjects", METADATA),
]


def rows(catalog: dict[str, str], server: S3Server) -> list[tuple[str, str, str | None]]:
    """(text, label, more) of the table as another program reads it, straight from the server."""
    properties = {
        "py-io-impl": "pyiceberg.io.fsspec.FsspecFileIO",
        "s3.endpoint": server.endpoint_url,
        "s3.access-key-id": server.access_key,
        "s3.secret-access-key": server.secret_key,
    }
    data = SqlCatalog("default", uri=catalog["uri"], **properties).load_table(catalog["table"]).scan().to_arrow()
    more = data["more"].to_pylist() if "more" in data.schema.names else [None] * data.num_rows
    return sorted(zip(data["text"].to_pylist(), data["label"].to_pylist(), more, strict=True))


def test_a_table_on_a_failing_store_has_the_committed_rows(
    s3: Bucket, s3_server: S3Server, model: Path, tmp_path: Path
) -> None:
    catalog = {"table": "corpora.labels", "type": "sql", "uri": f"sqlite:///{tmp_path}/catalog.db"}
    job = make_job(
        *(tmp_path / "in", model, f"{s3.url}/out", f"storage.endpoint_url={s3.endpoint_url}", "output.table=iceberg"),
        *(f"output.catalog={catalog}", "output.keep_versions_days=0", "output.publish_seconds=0.001"),
    )
    for word in ("one", "two", "three"):
        write_jsonl(tmp_path / "in/a.jsonl", [{"text": f"{word} {row}"} for row in range(9)])
        write_jsonl(tmp_path / f"in/{word}.jsonl", [{"text": f"also {word} {row}", "more": word} for row in range(9)])
        with s3.proxy.faults(*FAULTS, in_a_row=3):
            result = run_serially(job)
        assert result.table is not None
        storage = {"endpoint_url": s3.endpoint_url}
        expected = labels(f"{s3.url}/out", "arrow", columns=["text", "label", "more"], storage=storage).to_table()
        published = rows(catalog, s3_server)
        assert published == sorted(zip(*(expected[name].to_pylist() for name in ("text", "label", "more")), strict=True))
        assert [text for text, _, _ in published if not text.startswith("also")] == [f"{word} {row}" for row in range(9)]


def test_a_publisher_that_has_lost_its_place_writes_nothing(s3: Bucket, tmp_path: Path) -> None:
    catalog = {"table": "corpora.labels", "type": "sql", "uri": f"sqlite:///{tmp_path}/catalog.db"}
    store = Store(f"{s3.url}/out", StorageConfig(endpoint_url=s3.endpoint_url))
    output = OutputConfig(path=store.path, table="iceberg", catalog=catalog)
    stale, later = IcebergTable(store, output), IcebergTable(store, output)
    local = IcebergOutput(tmp_path / "local")
    first = local.add("a.parquet", {"n": [1]}, {"label": "x"})
    options = {"confirm": lambda: None, "run": "run-1", "term": 1}
    publish(later, {"a.parquet": first}, local.schema, **options)
    seen = stale.read()
    publish(later, {"a.parquet": first}, local.schema, fence=True, **options)
    objects = {file.path for file in store.list_all("_iceberg")}
    second = local.add("b.parquet", {"n": [2]}, {"label": "y"})
    change = TableChange((second,), ("a.parquet",), local.schema)
    with pytest.raises(TableChangedError):
        stale.write(seen, change)
    assert {file.path for file in store.list_all("_iceberg")} == objects
    assert later.read().paths == {"a.parquet"}

    with s3.proxy.faults(Rule("status", "PutObject", METADATA, times=None)), pytest.raises(StoreError):
        publish(later, {"b.parquet": second}, local.schema, **options)
    assert stale.read().paths == {"a.parquet"}
    assert publish(later, {"b.parquet": second}, local.schema, **options) is not None
    assert stale.read().paths == {"b.parquet"}
    assert stale.kept_paths(datetime.datetime(2000, 1, 1, tzinfo=datetime.UTC)) == {"a.parquet", "b.parquet"}


def test_an_output_on_s3_without_a_catalog_is_refused_before_anything_is_labeled(
    s3: Bucket, model: Path, tmp_path: Path
) -> None:
    write_jsonl(tmp_path / "in/a.jsonl", [{"text": "a"}])
    settings = (f"storage.endpoint_url={s3.endpoint_url}", "output.table=iceberg")
    with pytest.raises(UserError, match=r"^output\.catalog: .* is on object storage"):
        run_serially(make_job(tmp_path / "in", model, f"{s3.url}/out", *settings))
    assert s3.filesystem.ls(s3.name) == []
