"""Input, output and model on a real S3 server; the proxy's journal says which bytes moved."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs.label_corpus import run
from jobs.maintenance.verify import verify
from pipeline_ops.storage.s3 import REQUEST_TRIES
from tests.conftest import Bucket
from tests.models.tiny import Architecture
from tests.servers.s3_proxy import FaultProxy
from tests.servers.s3_server import S3Server
from tests.support.corpora import real_documents, write_csv, write_jsonl, write_parquet
from tests.support.invariant import check_exactly_once
from tests.support.running import by_key, command, job_settings, keys, make_job, output_files, write_job_file
from tests.support.serial_chain import run_serially

WRITES = "PutObject|DeleteObjects?|CreateMultipartUpload|UploadPart|CompleteMultipartUpload"
INPUT_KEYS = "in/.*"


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """A local folder of three formats."""
    folder = tmp_path / "in"
    texts = real_documents(60, seed=2)
    write_parquet(folder / "a.parquet", [{"text": text, "id": str(index)} for index, text in enumerate(texts[:25])])
    write_jsonl(folder / "b.jsonl.zst", [{"text": text or None, "id": f"0{index}"} for index, text in enumerate(texts[25:50])])
    write_csv(folder / "c.csv", [{"text": text, "id": f"00{index}"} for index, text in enumerate(texts[50:])])
    return folder


def test_run_on_s3_gives_the_local_rows_and_a_second_run_moves_nothing(
    ray_address: str, s3: Bucket, corpus: Path, model_of: Callable[[Architecture], Path], tmp_path: Path
):
    model = model_of("distilbert")
    s3.filesystem.put(str(corpus), f"{s3.name}/", recursive=True)
    s3.filesystem.put(str(model), f"{s3.name}/models/mine", recursive=True)
    storage = (f"storage.endpoint_url={s3.endpoint_url}", f"storage.cache_folder={tmp_path / 'cache'}")
    job = make_job(f"{s3.url}/in", f"{s3.url}/models/mine", f"{s3.url}/out", "output.logits=true", *storage)
    s3.journal.clear()
    first = run(job, quiet=True)
    expected = keys(f"{s3.url}/in/a.parquet", 25) + keys(f"{s3.url}/in/b.jsonl.zst", 25) + keys(f"{s3.url}/in/c.csv", 10)
    labeled, rejects = check_exactly_once(f"{s3.name}/out", expected, s3.filesystem)
    fetched = s3.journal.requests("GetObject", "models/mine/model.safetensors")
    assert len([request for request in fetched if request.range is None]) == 1, "fetched once per node"
    assert sum(request.range is not None for request in fetched) <= 2, "a look at the names of its tensors"
    assert verify(job)["ok"]

    run_serially(make_job(corpus, model, tmp_path / "out", "output.logits=true"), quiet=True)
    local, local_rejects = check_exactly_once(
        tmp_path / "out", [(file.replace(f"{s3.url}/in", str(corpus)), row) for file, row in expected]
    )
    columns = ["text", "id", "label", "num_tokens", "truncated"]
    assert by_key(labeled, columns) == by_key(local, columns)
    here, there = by_key(local, ["logits"]), by_key(labeled, ["logits"])
    np.testing.assert_allclose(
        np.array([here[key] for key in sorted(here)]), np.array([there[key] for key in sorted(here)]), rtol=0, atol=1e-5
    )
    assert [(reject["source_row"], reject["reason"]) for reject in rejects] == [
        (reject["source_row"], reject["reason"]) for reject in local_rejects
    ]

    # finished: no input is read, nothing is written
    before = output_files(f"{s3.name}/out", s3.filesystem)
    s3.journal.clear()
    second = run(job, quiet=True)
    assert (second.documents, second.documents_run) == (first.documents, 0) == (60, 0)
    assert s3.journal.requests(WRITES) == []
    assert s3.journal.requests("GetObject", INPUT_KEYS) == []
    assert all(request.range is not None for request in s3.journal.requests("GetObject", ".*safetensors"))
    assert output_files(f"{s3.name}/out", s3.filesystem) == before

    # grown: the new file alone is read
    write_jsonl(tmp_path / "new.jsonl", [{"text": "a new one", "id": "new"}])
    s3.filesystem.put(str(tmp_path / "new.jsonl"), f"{s3.name}/in/new.jsonl")
    s3.journal.clear()
    third = run_serially(job, quiet=True)
    check_exactly_once(f"{s3.name}/out", [*expected, *keys(f"{s3.url}/in/new.jsonl", 1)], s3.filesystem)
    assert {request.key for request in s3.journal.requests("GetObject", INPUT_KEYS)} == {"in/new.jsonl"}
    assert (third.documents_run, third.units_skipped) == (1, first.units)


def test_run_on_a_wide_parquet_file_moves_the_text_columns_bytes(s3: Bucket, model: Path, tmp_path: Path):
    rows, groups = 300, 3
    texts = real_documents(10 * rows)
    long_texts = ["\n".join(texts[row::rows]) for row in range(rows)]
    noise = np.random.default_rng(0)
    vectors = {f"vector{index}": pa.array(list(noise.random((rows, 1000)))) for index in range(4)}
    table = pa.table(vectors).add_column(2, "text", pa.array(long_texts))
    path = write_parquet(tmp_path / "wide.parquet", table, row_group_size=rows // groups)
    s3.filesystem.put(str(path), f"{s3.name}/in/wide.parquet")
    metadata = pq.read_metadata(path)
    text_bytes = sum(metadata.row_group(group).column(2).total_compressed_size for group in range(groups))
    assert path.stat().st_size > 8 * text_bytes, "the file is wide"

    # one unit: each task reads the footer, and so does the plan of a file that is cut
    settings = ("output.columns=none", "compute.unit_bytes=33554432", f"storage.endpoint_url={s3.endpoint_url}")
    job = make_job(f"{s3.url}/in", model, f"{s3.url}/out", *settings)
    s3.journal.clear()
    run_serially(job, quiet=True)
    labeled, _ = check_exactly_once(f"{s3.name}/out", keys(f"{s3.url}/in/wide.parquet", rows), s3.filesystem)
    moved = s3.journal.bytes_down("GetObject", INPUT_KEYS)
    # twice: over plain http each range is fetched twice and compared
    assert 2 * text_bytes <= moved < 2 * (1.1 * text_bytes + 4 * 64 * 1024), "the column, and the footer a few times"
    added = {"source_file", "source_row", "label", "score", "num_tokens", "truncated"}
    assert set(labeled.column_names) == added


def test_run_with_wrong_credentials_exits_2_without_trying_again(s3_server_with_checks: S3Server, model: Path, tmp_path: Path):
    filesystem = s3_server_with_checks.filesystem()
    filesystem.mkdir("locked")
    filesystem.pipe_file("locked/in/corpus.jsonl", b'{"text": "one"}\n')
    corpus = write_jsonl(tmp_path / "corpus.jsonl", [{"text": "one"}])
    for source, target in (("s3://locked/in", str(tmp_path / "out")), (str(corpus), "s3://locked/out")):
        with FaultProxy(s3_server_with_checks.endpoint_url) as proxy:
            settings = job_settings(source, model, target, f"storage.endpoint_url={proxy.endpoint_url}")
            finished = command("run", write_job_file(tmp_path / "job.yaml", settings))
        asked = Counter((request.operation, request.key) for request in proxy.journal.requests())
        assert max(asked.values()) < REQUEST_TRIES, asked
        assert finished.code == 2
        assert len(finished.error_lines) == 1, finished.stderr
        assert finished.stdout == ""
    assert not (tmp_path / "out").exists()
    assert filesystem.find("locked") == ["locked/in/corpus.jsonl"]


def test_run_on_an_unreachable_endpoint_exits_2_in_a_line(model: Path, tmp_path: Path):
    settings = job_settings("s3://nowhere/in", model, tmp_path / "out", "storage.endpoint_url=http://127.0.0.1:1")
    finished = command("run", write_job_file(tmp_path / "job.yaml", settings))
    assert (finished.code, len(finished.error_lines)) == (2, 1), finished.stderr
    assert not (tmp_path / "out").exists()
