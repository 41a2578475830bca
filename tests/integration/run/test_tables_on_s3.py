"""Delta and Iceberg tables on a real S3 server, through the job's endpoint and credentials."""

from pathlib import Path
from urllib.parse import unquote

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake
from pyiceberg.catalog.memory import InMemoryCatalog

from tests.conftest import Bucket
from tests.servers.s3_server import S3Server
from tests.support.invariant import check_exactly_once
from tests.support.running import command, job_settings, keys, make_job, write_job_file
from tests.support.serial_chain import run_serially

pytestmark = pytest.mark.slow


def test_a_delta_table_on_s3(s3: Bucket, model: Path, tmp_path: Path) -> None:
    local = str(tmp_path / "table")
    for number in range(4):
        write_deltalake(local, pa.table({"text": [f"text {number}"], "lang": ["d/é +"]}), mode="append", partition_by=["lang"])
    DeltaTable(local).create_checkpoint()
    DeltaTable(local).delete("text = 'text 1'")
    s3.filesystem.put(local, f"{s3.name}/a table", recursive=True)
    names = pa.table(DeltaTable(local).get_add_actions()).column("path").to_pylist()
    files = [f"{s3.url}/a table/{unquote(name)}" for name in names]
    assert len(files) == 3

    output = tmp_path / "out"
    job = make_job(f"{s3.url}/a table", model, output, f"storage.endpoint_url={s3.endpoint_url}")
    result = run_serially(job)
    assert result.input_table == {"format": "Delta", "version": 4}
    labeled, _ = check_exactly_once(output, [key for file in files for key in keys(file, 1)])
    assert sorted(labeled["text"].to_pylist()) == ["text 0", "text 2", "text 3"]
    assert {*labeled["lang"].to_pylist()} == {"d/é +"}
    settings = job_settings(f"{s3.url}/a table/*/*.parquet", model, output, f"storage.endpoint_url={s3.endpoint_url}")
    refused = command("plan", write_job_file(tmp_path / "job.yaml", settings))
    assert refused.code == 2
    assert f"is a part of the Delta table '{s3.url}/a table'" in refused.stderr


def test_an_iceberg_table_on_s3(s3: Bucket, s3_server: S3Server, model: Path, tmp_path: Path) -> None:
    properties = {
        "py-io-impl": "pyiceberg.io.fsspec.FsspecFileIO",
        "s3.endpoint": s3_server.endpoint_url,
        "s3.access-key-id": s3_server.access_key,
        "s3.secret-access-key": s3_server.secret_key,
    }
    catalog = InMemoryCatalog("test", warehouse=f"{s3.url}/warehouse", **properties)
    catalog.create_namespace("db")
    rows = pa.table({"text": ["one", "two", "three"]})
    table = catalog.create_table("db.table", schema=rows.schema)
    table.append(rows)
    table.delete("text == 'two'")
    files = [task.file.file_path for task in table.scan().plan_files()]
    for number, path in enumerate((table.location(), table.metadata_location)):
        output = tmp_path / f"out-{number}"
        result = run_serially(make_job(path, model, output, f"storage.endpoint_url={s3.endpoint_url}"))
        assert result.input_table == {"format": "Iceberg", "version": table.metadata.current_snapshot_id}
        labeled, _ = check_exactly_once(output, [key for file in files for key in keys(file, 2)])
        assert sorted(labeled["text"].to_pylist()) == ["one", "three"]
