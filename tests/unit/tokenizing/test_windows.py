"""Windows: their settings, and the documents that they belong to."""

from typing import Any

import numpy as np
import pytest

from pipeline_ops.schema.errors import UserError
from pipeline_ops.tokenizing.windows import LongDocumentsConfig, Windows, documents_of_windows, resolve_windows


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


def test_documents_of_windows_are_those_that_have_them() -> None:
    assert documents_of_windows([0, 1, 2, 3, 5], np.array([2, 1, 3], np.int32)) == [0, 0, 1, 2, 2]
