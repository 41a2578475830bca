"""An output in numbers: exact where commits say it, weighted where a sample stands for the rest."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pipeline_ops.analysis import summary_statistics
from pipeline_ops.analysis.summary_statistics import (
    WEIGHT,
    example_rows,
    labels_of,
    partitions_of,
    sample_rows,
    statistics_below,
)
from pipeline_ops.output.commit_log import Ledger
from pipeline_ops.output.labeled_output import Labeled
from pipeline_ops.schema.output_columns import OutputConfig
from pipeline_ops.storage.store import Store
from pipeline_ops.writing.commit_record import Commit
from tests.support.labeled_units import whole, write_pieces

COLUMNS = ["label", "score", "num_tokens", "text"]


def output_of(folder: Path, rows: list[int]) -> tuple[Labeled, list[Commit]]:
    """An output with a unit of so many rows each, a third of them in another partition than the rest."""
    output = OutputConfig(path=str(folder))
    commits = [write_pieces(output, whole(f"{number}.jsonl", count)) for number, count in enumerate(rows)]
    record = {"config": {"output": output.model_dump(mode="json")}, "models": {"": {}}}
    return Labeled(Store(str(folder)), record, Ledger({commit.unit: commit for commit in commits})), commits


def test_labels_and_partitions_are_counted_from_the_commits(tmp_path: Path) -> None:
    labeled, commits = output_of(tmp_path, [12, 30])
    counts = labels_of(commits)
    assert sum(counts.values()) == sum(commit.labeled for commit in commits)
    assert list(counts.values()) == sorted(counts.values(), reverse=True)
    partitions = partitions_of(labeled.commits)
    assert {partition.folder.removeprefix("label="): partition.rows for partition in partitions} == counts
    assert sum(partition.files for partition in partitions) == 4
    on_disk = sum(path.stat().st_size for path in tmp_path.glob("label=*/*.parquet"))
    assert sum(partition.bytes for partition in partitions) == on_disk


def test_labels_of_one_of_several_models_are_its_own(tmp_path: Path) -> None:
    _, (commit,) = output_of(tmp_path, [12])
    commit = replace(commit, labels={"a=x": 3, "a=b=c": 5, "ab=x": 7})
    assert labels_of([commit], "a") == {"b=c": 5, "x": 3}


def test_sample_weights_stand_for_every_labeled_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 60 files 7 are read, 5 rows of each: the weights of each partition still add up to its rows."""
    monkeypatch.setattr(summary_statistics, "SAMPLE_FILES", 7)
    monkeypatch.setattr(summary_statistics, "ROWS_PER_FILE", 5)
    labeled, commits = output_of(tmp_path, [40] * 30)
    sample = sample_rows(labeled, COLUMNS)
    assert sample.num_rows == 35
    weights, labels = sample[WEIGHT].to_numpy(), np.array(sample["label"].to_pylist())
    for label, count in labels_of(commits).items():
        assert weights[labels == label].sum() == pytest.approx(count)
    assert sample_rows(labeled, COLUMNS).equals(sample), "the same output gives the same sample"


def test_sample_of_an_output_without_labels_is_empty(tmp_path: Path) -> None:
    labeled, _ = output_of(tmp_path, [])
    assert sample_rows(labeled, COLUMNS).num_rows == 0


def test_share_below_adds_what_is_expected_to_be_wrong() -> None:
    scores, weights = np.array([0.6, 0.8, 0.9]), np.array([1.0, 1.0, 2.0])
    below = {row["threshold"]: row for row in statistics_below(scores, weights, [0.5, 0.7, 1.0])}
    assert (below[0.5]["share"], below[0.5]["expected_wrong"]) == (0, 0)
    assert below[0.7] == {"threshold": 0.7, "share": 0.25, "expected_wrong": pytest.approx(0.1)}
    assert below[1.0]["expected_wrong"] == pytest.approx((0.4 + 0.2 + 2 * 0.1) / 4)


@pytest.mark.parametrize("count", [0, 1, 4, 5, 50])
def test_notable_rows_are_the_surest_the_least_sure_and_others_none_twice(count: int) -> None:
    scores = np.linspace(1, 0, count)
    found = example_rows(scores, 3)
    rows = [row for group in found.values() for row in group]
    assert len(rows) == len(set(rows)) == min(count, 9)
    assert found["highest scores"] == list(range(min(3, count)))
    if count > 6:
        assert found["lowest scores"] == [count - 1, count - 2, count - 3]
