"""Windows: their settings, the aggregation of their values, the documents that they belong to."""

from typing import Any

import numpy as np
import pytest

from pipeline_ops.schema.errors import UserError
from pipeline_ops.tokenizing.windows import LongDocumentsConfig, Windows, documents_of_windows, resolve_windows
from pipeline_ops.writing.window_aggregation import aggregate_windows


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"stride": 3}, "model.stride: 3 is for windows"),
        ({"aggregate": "max"}, "model.aggregate: 'max' is for windows"),
        ({"long_documents": "windows", "stride": 30}, "model.stride: 30 is not less than the 30 tokens of text in a window"),
    ],
)
def test_settings_that_mean_nothing_are_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        resolve_windows(LongDocumentsConfig(**settings), 30, pairs=False)


def test_stride_of_pairs_stays_below_the_smallest_window() -> None:
    config = LongDocumentsConfig(long_documents="windows", stride=14)
    assert resolve_windows(config, 29, pairs=True) == Windows(14, None, "mean", "logits")
    with pytest.raises(UserError, match="less than 14"):
        resolve_windows(config, 28, pairs=True)


@pytest.mark.parametrize("how", ["mean", "max", "first"])
def test_aggregate_is_that_of_a_loop_over_the_documents(how: Any) -> None:
    rng = np.random.default_rng(3)
    counts = rng.integers(1, 9, 200).astype(np.int32)
    values = rng.normal(size=(counts.sum(), 5)).astype(np.float32)
    expected, start = [], 0
    for count in counts:
        mine = values[start : start + count]
        expected.append({"mean": mine.mean(axis=0), "max": mine.max(axis=0), "first": mine[0]}[how])
        start += count
    found = aggregate_windows(values, counts, how)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, np.array(expected), rtol=1e-5, atol=1e-6)
    assert aggregate_windows(values[:0], counts[:0], how).shape == (0, 5)


def test_documents_of_windows_are_those_that_have_them() -> None:
    assert documents_of_windows([0, 1, 2, 3, 5], np.array([2, 1, 3], np.int32)) == [0, 0, 1, 2, 2]
