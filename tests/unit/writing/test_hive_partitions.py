"""Partitions of labeled tables, and the names of their folders."""

import math

import pyarrow as pa
import pytest

from pipeline_ops.writing.hive_partitions import hive_folder, split_by_partition


def test_hive_folder_of_null_is_the_readers_word_for_it() -> None:
    assert hive_folder(("label", "year"), ("P", None)) == "label=P/year=__HIVE_DEFAULT_PARTITION__"
    assert hive_folder((), ()) == ""


def test_partitions_without_columns_are_one() -> None:
    table = pa.table({"a": [1, 2]})
    assert [*split_by_partition(table, ())] == [((), table)]
    assert [*split_by_partition(table.slice(0, 0), ())] == []
    assert [*split_by_partition(table.slice(0, 0), ("a",))] == []


def test_partitions_by_several_columns_hold_each_row_once_without_them() -> None:
    table = pa.table(
        {
            "label": ["P", "N", "P", "P", None, "N"],
            "year": pa.array([1, 1, 2, 1, 1, None], pa.int16()),
            "row": range(6),
        }
    )
    found = {values: part.to_pydict() for values, part in split_by_partition(table, ("label", "year"))}
    assert found == {
        ("P", 1): {"row": [0, 3]},
        ("N", 1): {"row": [1]},
        ("P", 2): {"row": [2]},
        (None, 1): {"row": [4]},
        ("N", None): {"row": [5]},
    }


@pytest.mark.parametrize(
    "values",
    [
        pa.array([1.5, math.nan, None, math.nan, 1.5]),
        pa.array([0.0, -0.0, 1.0]),
        pa.array([True, None, False]),
        pa.array([b"a", b"", None]),
        pa.array(["a", "", None, "a"]).dictionary_encode(),
        pa.array([0, 1, None], pa.timestamp("us", "UTC")),
        pa.array([0, 1, None], pa.date32()),
        pa.array(["a", "b", None], pa.large_string()),
        pa.array(["a", "b", None], pa.string_view()),
        pa.nulls(3),
    ],
    ids=["nan", "signed zero", "bool", "binary", "dictionary", "timestamp", "date", "large text", "text view", "null"],
)
def test_partitions_by_a_column_of_any_scalar_type_hold_each_row_once(values: pa.Array) -> None:
    table = pa.table({"key": values, "row": range(len(values))})
    rows = [row for _, part in split_by_partition(table, ("key",)) for row in part["row"].to_pylist()]
    assert sorted(rows) == list(range(len(values)))


def test_partitions_of_chunked_documents_hold_each_row_once() -> None:
    table = pa.concat_tables([pa.table({"key": ["a", "b"], "row": [0, 1]}), pa.table({"key": ["b"], "row": [2]})])
    assert {values: part["row"].to_pylist() for values, part in split_by_partition(table, ("key",))} == {
        ("a",): [0],
        ("b",): [1, 2],
    }
