"""Values of the windows of long documents -> one value per document: mean, max or first."""

import numpy as np

from pipeline_ops.tokenizing.windows import Aggregate


def aggregate_windows(values: np.ndarray, windows: np.ndarray, how: Aggregate) -> np.ndarray:
    """Aggregate windows' values to documents' values, float32 (documents, values); the mean is computed in float64.

    Args:
        values: float32 (windows, values), the windows of a document one behind the other.
        windows: int32 (documents,), windows per document, at least 1.
    """
    first = np.cumsum(windows) - windows
    if how == "first":
        return values[first]
    if how == "max":
        return np.maximum.reduceat(values, first) if len(first) else values
    sums = np.add.reduceat(values.astype(np.float64), first) if len(first) else values
    return (sums / windows[:, None]).astype(np.float32)
