"""The output as pandas, pyarrow and DuckDB users read it, against the run's JSON line."""

import json

import duckdb
import pandas as pd
import pyarrow as pa
import pyarrow.dataset as ds
import pytest

from tests.integration.conftest import NUM_DOCUMENTS, REJECTED, FinishedJob
from tests.support.invariant import check_exactly_once
from tests.support.running import commit_paths


def test_run_by_command_answers_counts_that_agree_with_the_files(finished_job: FinishedJob):
    result = finished_job.result
    labeled, rejects = check_exactly_once(finished_job.output, finished_job.expected)
    assert (result["documents"], result["labeled"], result["rejected"]) == (NUM_DOCUMENTS + REJECTED, NUM_DOCUMENTS, REJECTED)
    assert (labeled.num_rows, len(rejects)) == (NUM_DOCUMENTS, REJECTED)
    assert result["labels"] == {
        label: labeled["label"].to_pylist().count(label) for label in sorted(set(labeled["label"].to_pylist()))
    }
    assert set(result["labels"]) == {"NEGATIVE", "POSITIVE"}
    assert result["tokens"] == sum(labeled["num_tokens"].to_pylist())
    assert result["truncated"] == sum(labeled["truncated"].to_pylist()) > 0
    assert result["units"] == len(list((finished_job.output / "_commits").iterdir()))
    assert (result["units_skipped"], result["units_failed"]) == (0, 0)
    assert 0 <= result["padding_share"] < 0.5
    assert result["documents_per_second"] > 0
    assert result["tokens_per_second"] > result["documents_per_second"]
    assert result["seconds"] <= finished_job.finished.seconds
    assert result["output"] == str(finished_job.output)


def test_run_by_command_says_where_the_time_went_as_its_commits_do(finished_job: FinishedJob):
    result = finished_job.result
    commits = [json.loads(path.read_text()) for path in commit_paths(finished_job.output)]
    for part in ("waiting", "copying", "computing", "writing"):
        measured = [commit["classify_seconds"][part] for commit in commits]
        assert min(measured) >= 0
        assert result["classify_seconds"][part] == pytest.approx(sum(measured), abs=0.01)
    assert result["classifiers"] == 1
    busy = sum(result["classify_seconds"].values())
    assert 0 < busy <= result["seconds"]
    parts = [result[f"{part}_seconds"] for part in ("startup", "labeling", "finish")]
    assert min(parts) > 0
    assert sum(parts) == pytest.approx(result["seconds"], abs=0.03)
    rate, rounding = result["documents_run"] / result["labeling_seconds"], 0.01 + 0.005 / result["labeling_seconds"]
    assert result["labeling_documents_per_second"] == pytest.approx(rate, rel=rounding)
    flops = sum(commit["flops"] for commit in commits)
    assert flops > 2 * 12 * 32**2 * result["tokens"], "two layers of 12 h² multiplications and additions, and more"
    assert result["model_flops_per_second"] == pytest.approx(flops / result["labeling_seconds"], rel=rounding)
    assert result["mfu"] is None, "no peak is known of a CPU"


def test_output_read_by_pandas_has_the_right_types_and_rows(finished_job: FinishedJob):
    frame = pd.read_parquet(finished_job.output)
    assert frame["label"].value_counts().to_dict() == finished_job.result["labels"]
    assert {name: str(frame[name].dtype) for name in ("score", "num_tokens", "truncated", "source_row", "views", "ratio")} == {
        "score": "float32",
        "num_tokens": "int32",
        "truncated": "bool",
        "source_row": "int64",
        "views": "int64",
        "ratio": "float64",
    }
    texts = {(row.source_file, row.source_row): row.text for row in frame.itertuples()}
    assert texts == finished_job.texts


def test_output_read_by_pyarrow_dataset_has_the_right_types_and_rows(finished_job: FinishedJob):
    dataset = ds.dataset(finished_job.output, format="parquet", partitioning="hive")
    for label, count in finished_job.result["labels"].items():
        assert dataset.count_rows(filter=ds.field("label") == label) == count
    assert {field.name: field.type for field in dataset.schema} == {
        "id": pa.string(),
        "text": pa.string(),
        "views": pa.int64(),
        "ratio": pa.float64(),
        "seen": pa.bool_(),
        "source_file": pa.string(),
        "source_row": pa.int64(),
        "label": pa.string(),
        "score": pa.float32(),
        "num_tokens": pa.int32(),
        "truncated": pa.bool_(),
    }


def test_output_read_by_duckdb_has_the_right_types_and_rows(finished_job: FinishedJob):
    files = f"read_parquet('{finished_job.output}/label=*/*.parquet', hive_partitioning = true)"
    with duckdb.connect() as connection:
        counts = dict(connection.sql(f"select label, count(*) from {files} group by label").fetchall())
        types = {name: kind for name, kind, *_ in connection.sql(f"describe select * from {files}").fetchall()}
        ids = [name for (name,) in connection.sql(f"select id from {files} order by id").fetchall()]
    assert counts == finished_job.result["labels"]
    assert types == {
        "id": "VARCHAR",
        "text": "VARCHAR",
        "views": "BIGINT",
        "ratio": "DOUBLE",
        "seen": "BOOLEAN",
        "source_file": "VARCHAR",
        "source_row": "BIGINT",
        "label": "VARCHAR",
        "score": "FLOAT",
        "num_tokens": "INTEGER",
        "truncated": "BOOLEAN",
    }
    assert ids == [f"{index:03}" for index in range(NUM_DOCUMENTS)]  # the text "000" is no number
