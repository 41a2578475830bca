"""Logits -> scores -> labels -> partitions."""

import math
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from pipeline_ops.models.heads import Activation, Head
from pipeline_ops.schema.output_columns import OutputConfig
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
    documents, _ = label([[0, 1]], label_name="class", score_column="p", num_tokens_column="n", truncated_column="cut")
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
