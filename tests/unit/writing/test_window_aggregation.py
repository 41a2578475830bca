"""Values of windows -> values of documents."""

from typing import Any

import numpy as np
import pytest

from pipeline_ops.writing.window_aggregation import aggregate_windows


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
