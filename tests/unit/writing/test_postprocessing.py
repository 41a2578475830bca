"""Logits -> scores -> labels -> partitions."""

import math
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from pipeline_ops.models.heads import Activation, Head
from pipeline_ops.schema.output_columns import OutputConfig
from pipeline_ops.writing.hive_partitions import split_by_partition
from pipeline_ops.writing.postprocessing import ModelOutputs, label_documents

LABELS = ("NEGATIVE", "POSITIVE")


def label(values: Any, labels: tuple[str, ...] = LABELS, activation: Activation = "softmax", **output: Any):
    array = np.array(values, np.float32).reshape(-1, len(labels))
    documents = pa.table({"text": [f"text {row}" for row in range(len(array))]})
    classified = ModelOutputs(array, np.arange(10, 10 + len(array), dtype=np.int32), np.arange(len(array)) % 2 == 1)
    finite, settings = classified.finite_rows(), OutputConfig(path="out", **output)
    return label_documents(
        documents.filter(pa.array(finite)), classified.filter(finite), head=Head(labels, activation), output=settings
    ), finite


def test_labels_of_known_logits_are_the_published_ones() -> None:
    documents, finite = label([[-1.5607, 1.6123], [4.1692, -3.3464]])
    assert documents["label"].to_pylist() == ["POSITIVE", "NEGATIVE"]
    assert [round(score, 4) for score in documents["score"].to_pylist()] == [0.9598, 0.9995]
    assert finite.tolist() == [True, True]


def test_labeled_documents_have_the_columns_and_types_of_the_contract() -> None:
    documents, _ = label([[0, 1], [1, 0]], scores=True, logits=True)
    assert documents.schema == pa.schema(
        [
            ("text", pa.string()),
            ("label", pa.string()),
            ("score", pa.float32()),
            ("num_tokens", pa.int32()),
            ("truncated", pa.bool_()),
            ("scores", pa.list_(pa.float32(), 2)),
            ("logits", pa.list_(pa.float32(), 2)),
        ]
    )
    assert documents["logits"].to_pylist() == [[0, 1], [1, 0]]
    np.testing.assert_allclose(documents["scores"].to_pylist(), [[0.2689, 0.7311], [0.7311, 0.2689]], atol=1e-4)
    assert documents["num_tokens"].to_pylist() == [10, 11]
    assert documents["truncated"].to_pylist() == [False, True]


def test_labeled_documents_have_the_columns_names_of_the_configuration() -> None:
    documents, _ = label([[0, 1]], label_column="class", score_column="p", num_tokens_column="n", truncated_column="cut")
    assert documents.column_names == ["text", "class", "p", "n", "cut"]


def test_label_of_a_single_sigmoid_label_is_that_label() -> None:
    documents, _ = label([[-3.0], [3.0]], labels=("toxic",), activation="sigmoid")
    assert documents["label"].to_pylist() == ["toxic", "toxic"]
    np.testing.assert_allclose(documents["score"].to_pylist(), [0.0474, 0.9526], atol=1e-4)


def test_label_of_several_sigmoid_labels_is_the_best_one() -> None:
    documents, _ = label([[1.0, 2.0, -1.0]], labels=("a", "b", "c"), activation="sigmoid", scores=True)
    assert documents["label"].to_pylist() == ["b"]
    np.testing.assert_allclose(documents["scores"].to_pylist(), [[0.7311, 0.8808, 0.2689]], atol=1e-4)


def test_score_of_a_regression_is_the_logit() -> None:
    documents, _ = label([[-7.5]], labels=("LABEL_0",), activation="none")
    assert (documents["label"].to_pylist(), documents["score"].to_pylist()) == (["LABEL_0"], [-7.5])


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_row_with_a_non_finite_logit_gets_no_label(bad: float) -> None:
    documents, finite = label([[0, 1], [bad, 0], [1, 0], [bad, bad]], scores=True)
    assert finite.tolist() == [True, False, True, False]
    assert documents["text"].to_pylist() == ["text 0", "text 2"]
    assert documents["label"].to_pylist() == ["POSITIVE", "NEGATIVE"]
    assert documents["num_tokens"].to_pylist() == [10, 12]


def test_label_of_no_documents_has_all_columns() -> None:
    documents, finite = label([], scores=True)
    assert (documents.num_rows, len(finite)) == (0, 0)
    assert documents.schema.field("label").type == pa.string()
    assert documents.schema.field("scores").type == pa.list_(pa.float32(), 2)


def test_label_of_only_non_finite_documents_leaves_none() -> None:
    documents, finite = label([[math.nan, 0]], logits=True)
    assert (documents.num_rows, finite.tolist()) == (0, [False])


def test_partitions_without_columns_are_one() -> None:
    table = pa.table({"a": [1, 2]})
    assert split_by_partition(table, ()) == [((), table)]
    assert split_by_partition(table.slice(0, 0), ()) == []
    assert split_by_partition(table.slice(0, 0), ("a",)) == []


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
