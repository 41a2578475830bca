"""Partition columns keep their type, whatever their values look like, however the labels are read."""

import json
import math
from datetime import date, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.dataset as ds
import pytest

from jobs.results.labels import _read_files, labels
from jobs.results.open_output import find_labeled
from pipeline_ops.output.labeled_output import schema_of
from tests.support.corpora import write_parquet
from tests.support.running import command, make_job
from tests.support.serial_chain import run_serially

TABLE = pa.table(
    {
        "text": ["good", "bad", "fine", "poor"],
        "year": pa.array([2024, 2025, 2024, None], pa.int16()),
        "day": pa.array([date(2024, 2, 29), None, date(1969, 12, 31), date(2024, 2, 29)]),
        "at": pa.array([datetime(2024, 10, 27), None, *[datetime(1, 1, 2)] * 2], pa.timestamp("us", "Europe/Berlin")),
        "weight": pa.array([0.1, math.nan, -0.0, None], pa.float32()),
        "name": ["0", "", None, "a/b = ü%"],
        "good": [True, None, False, True],
    }
)
PARTITIONS = ("label", *TABLE.column_names[1:])


@pytest.fixture(scope="module")
def output(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    tmp_path = tmp_path_factory.mktemp("partitions")
    source = write_parquet(tmp_path / "in" / "a.parquet", TABLE)
    by = f"output.partition_by=[{', '.join(PARTITIONS)}]"
    run_serially(make_job(source, model, tmp_path / "out", by, "model.id2label={0: '0', 1: '01'}"), quiet=True)
    return tmp_path / "out"


def test_labels_have_partition_columns_in_their_type(output: Path) -> None:
    dataset = labels(str(output), "arrow")
    read = dataset.to_table().sort_by("source_row")
    assert read.select(TABLE.column_names).cast(TABLE.schema).to_pylist().__repr__() == TABLE.to_pylist().__repr__()
    assert [read.schema.field(name).type for name in TABLE.column_names] == TABLE.schema.types
    assert read.schema.field("label").type == pa.string()
    assert {*read["label"].to_pylist()} <= {"0", "01"}

    found = find_labeled(str(output))
    schema = schema_of(found)
    assert schema.equals(dataset.schema)
    numbers = pa.table({"file": [*range(len(found.files))]})
    in_tasks = pa.concat_tables(_read_files(numbers, found.store, found.files, schema, found.partition_types))
    assert repr(in_tasks.sort_by("source_row").to_pylist()) == repr(read.to_pylist())
    assert labels(str(output), "polars", columns=["year", "name"]).to_arrow().sort_by("name")["year"].to_pylist() == [
        *(2025, 2024, None, 2024)  # of "", "0", "a/b = ü%" and null
    ]

    assert dataset.to_table(filter=ds.field("year") == 2024).num_rows == 2
    assert dataset.to_table(filter=ds.field("day") < date(2000, 1, 1))["text"].to_pylist() == ["fine"]
    assert dataset.to_table(filter=ds.field("name").is_null())["text"].to_pylist() == ["fine"]
    assert dataset.to_table(filter=ds.field("name") == "")["text"].to_pylist() == ["bad"]
    assert dataset.to_table(filter=~ds.field("good"))["text"].to_pylist() == ["fine"]


def test_show_and_evaluate_read_partition_columns_in_their_type(output: Path) -> None:
    shown = [json.loads(line) for line in command("show", output, "-n", "4").stdout.splitlines()]
    assert [row["year"] for row in shown] == [2024, 2025, 2024, None]
    assert [row["good"] for row in shown] == [True, None, False, True]
    assert {row["label"] for row in shown} <= {"0", "01"}
    evaluated = command("evaluate", output, "--truth", "year")
    assert evaluated.code == 2
    assert "'year' holds '2024', '2025', but the model's labels are '0', '01'" in evaluated.stderr
