"""The Python interface: runs that are given as settings, and labels as pandas, pyarrow and Ray Data have them."""

import sys
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from jobs import label_corpus
from pipeline_ops.schema.errors import UserError
from tests.conftest import Bucket
from tests.support.corpora import real_documents, write_jsonl, write_parquet
from tests.support.invariant import check_exactly_once
from tests.support.running import job_settings, keys, make_job, write_job_file
from tests.support.serial_chain import run_serially

LABELS = {0: "1", 1: "a/b=c"}  # a number to those that guess, and a name that a folder cannot have


@pytest.fixture
def labeled(model: Path, tmp_path: Path) -> Path:
    """Files of two kinds: one has a column that the other has not."""
    texts = real_documents(40)
    first = write_parquet(tmp_path / "in" / "a.parquet", [{"text": text, "views": row} for row, text in enumerate(texts[:25])])
    second = write_jsonl(tmp_path / "in" / "b.jsonl", [{"text": text} for text in texts[25:]])
    settings = job_settings(tmp_path / "in", model, tmp_path / "out", "compute.unit_bytes=4000")
    settings["model"]["id2label"] = LABELS
    result = run_serially(settings, quiet=True)
    assert result.complete
    assert (result.documents, result.labeled, sum(result.labels.values())) == (40, 40, 40)
    check_exactly_once(tmp_path / "out", keys(first, 25) + keys(second, 15))
    return tmp_path / "out"


def as_tuples(frame: pd.DataFrame) -> list[tuple]:
    return sorted((row.source_file, row.source_row, row.label, round(row.score, 5)) for row in frame.itertuples())


def test_run_takes_the_path_of_a_job_file(model: Path, tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "in.jsonl", [{"text": "one"}])
    job_file = write_job_file(tmp_path / "job.yaml", job_settings(source, model, tmp_path / "out"))
    assert run_serially(str(job_file), quiet=True).documents == 1


def test_labels_are_the_committed_rows_however_they_are_asked_for(labeled: Path, ray_address: str) -> None:
    (labeled / "label=1" / "not-committed.parquet").write_bytes(next(labeled.glob("label=*/*.parquet")).read_bytes())
    frame = label_corpus.labels(str(labeled))
    assert set(frame.label) == set(LABELS.values())
    assert len(frame) == frame.drop_duplicates(["source_file", "source_row"]).shape[0] == 40
    assert frame.views.notna().sum() == 25
    dataset = label_corpus.labels(str(labeled), "arrow")
    assert dataset.count_rows() == 40
    assert dataset.schema.field("label").type == pa.string()
    assert as_tuples(dataset.to_table().to_pandas()) == as_tuples(frame)
    only = dataset.to_table(columns=["score"], filter=pa.compute.field("label") == "a/b=c")
    assert only.num_rows == (frame.label == "a/b=c").sum()
    on_ray = label_corpus.labels(str(labeled), "ray", columns=["source_file", "source_row", "label", "score"])
    assert as_tuples(on_ray.to_pandas()) == as_tuples(frame)


def test_labels_as_polars_are_the_committed_rows(labeled: Path) -> None:
    (labeled / "label=1" / "not-committed.parquet").write_bytes(next(labeled.glob("label=*/*.parquet")).read_bytes())
    frame = label_corpus.labels(str(labeled), "polars")
    assert isinstance(frame, pl.DataFrame)
    assert frame.schema["label"] == pl.String
    assert sorted(frame.select("source_file", "source_row", "label").rows()) == sorted(
        label_corpus.labels(str(labeled), columns=["source_file", "source_row", "label"]).itertuples(index=False, name=None)
    )
    assert label_corpus.labels(str(labeled), "polars", columns=["label", "views"]).columns == ["label", "views"]


def test_labels_as_something_unknown_or_without_polars_is_refused(labeled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    unknown: Any = "panda"
    with pytest.raises(UserError, match="invalid value 'panda' of as_; expected 'pandas', 'polars'"):
        label_corpus.labels(str(labeled), unknown)
    monkeypatch.setattr(sys, "path", [])  # nothing more can be imported
    monkeypatch.delitem(sys.modules, "polars", raising=False)
    with pytest.raises(UserError, match=r"pip install 'label-corpus\[polars\]'"):
        label_corpus.labels(str(labeled), "polars")


def test_labels_of_some_columns_are_these_in_that_order(labeled: Path) -> None:
    frame = label_corpus.labels(str(labeled), columns=["label", "views"])
    assert list(frame.columns) == ["label", "views"]
    with pytest.raises(UserError, match="did you mean 'score'"):
        label_corpus.labels(str(labeled), columns=["scor"])
    with pytest.raises(UserError, match="neither a job file"):
        label_corpus.labels(str(labeled / "nothing"))


def test_labels_on_object_storage_equal_what_duckdb_reads(s3: Bucket, model: Path, tmp_path: Path) -> None:
    rows = b"".join(b'{"text": "document %d"}\n' % row for row in range(30))
    s3.filesystem.pipe_file(f"{s3.name}/in/a.jsonl", rows)
    run_serially(
        make_job(f"{s3.url}/in", model, f"{s3.url}/out", f"storage.endpoint_url={s3.endpoint_url}"), quiet=True, report=False
    )
    frame = label_corpus.labels(f"{s3.url}/out", storage={"endpoint_url": s3.endpoint_url})
    s3.filesystem.get(f"{s3.name}/out", str(tmp_path / "copy"), recursive=True)
    files = f"{tmp_path}/copy/label=*/*.parquet"
    counted = duckdb.execute(f"SELECT label, count(*) FROM read_parquet('{files}', hive_partitioning=true) GROUP BY 1")
    assert frame.label.value_counts().to_dict() == dict(counted.fetchall())
