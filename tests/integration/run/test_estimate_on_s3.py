"""`plan --cluster` of an input on object storage, and its count of requests beside those of the run."""

from pathlib import Path

import pytest

from jobs.run.estimate import plan_on, target_of
from tests.conftest import Bucket
from tests.support.corpora import real_documents, write_jsonl, write_parquet
from tests.support.invariant import check_exactly_once
from tests.support.running import keys, make_job
from tests.support.serial_chain import run_serially

KINDS = {"put": "PutObject", "get": "GetObject", "list": "ListObjects.*", "delete": "DeleteObjects?"}
DOCUMENTS = 300


@pytest.mark.slow
def test_requests_of_a_run_are_about_those_of_the_estimate(s3: Bucket, model: Path, tmp_path: Path) -> None:
    texts = real_documents(DOCUMENTS)
    write_jsonl(tmp_path / "in" / "a.jsonl", [{"text": text} for text in texts[:150]])
    write_parquet(tmp_path / "in" / "b.parquet", [{"text": text} for text in texts[150:]], row_group_size=5)
    s3.filesystem.put(str(tmp_path / "in"), f"{s3.name}/", recursive=True)
    storage = f"storage.endpoint_url={s3.endpoint_url}"
    job = make_job(f"{s3.url}/in", model, f"{s3.url}/out", "compute.unit_bytes=4000", storage)
    target = target_of("4xMI300X", 1000.0, None)
    assert target is not None
    found = plan_on(job, target)["estimate"]
    assert found["documents"]["value"] == DOCUMENTS
    assert s3.filesystem.find(f"{s3.name}/out") == [], "nothing is written"
    s3.journal.clear()
    summary = run_serially(
        job, quiet=True, report=False
    )  # which reads a hundred files at the most, nothing to a run worth estimating
    asked = {kind: len(s3.journal.requests(operation)) for kind, operation in KINDS.items()}
    check_exactly_once(f"{s3.name}/out", keys(f"{s3.url}/in/a.jsonl", 150) + keys(f"{s3.url}/in/b.parquet", 150), s3.filesystem)
    # the proxy's http has each range read twice, and a unit's documents may all have one label
    said = {kind: count * summary.units / found["units"] for kind, count in found["requests"].items()}
    assert 0.6 * said["put"] <= asked["put"] <= 1.2 * said["put"] + 10, (said, asked)
    assert asked["delete"] <= 1.2 * said["delete"] + 10, (said, asked)
    assert asked["list"] <= 1.2 * said["list"] + 10, (said, asked)
    assert 0.4 * said["get"] <= asked["get"] <= 2 * said["get"] + 10, (said, asked)
