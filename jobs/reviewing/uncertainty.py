"""How sure a model is of a document's label, from the columns that its output has."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline_ops.models.heads import Head
from pipeline_ops.schema.output_columns import OutputConfig


@dataclass(frozen=True)
class Certainty:
    """A measure of a row: the lower, the less sure.

    Attributes:
        name: for people.
        columns: that `of` reads.
        of: table of these columns -> float64 (rows,).
    """

    name: str
    columns: tuple[str, ...]
    of: Callable[[pa.Table], np.ndarray]


def certainty_of(head: Head, output: OutputConfig) -> Certainty:
    """The measure for a head, by what the output holds; in the words of Settles, Active Learning Literature Survey (2009), 3.1.

    One label of several: the margin between the two best scores, or the best score alone (least confidence). Any number of
    labels: the distance to its threshold of the score that is nearest to it. A value in bins: the distance to the nearest
    limit.

    Args:
        head: if its kind is "value", it has bins.
        output: of a multi-label head, it has scores.
    """
    score = output.score_column
    if head.kind == "value":
        limits = np.array(head.bins)
        return Certainty(
            "distance to the nearest limit of a bin", (score,), lambda table: _nearest(_numbers(table, score)[:, None], limits)
        )
    if head.kind == "multi_label":
        thresholds = np.array(head.thresholds)
        return Certainty(
            "distance to the nearest threshold",
            (output.scores_column,),
            lambda table: np.abs(_lists(table, output.scores_column) - thresholds).min(axis=1),
        )
    if output.scores or (output.top_k or 0) > 1:
        lists = output.scores_column if output.scores else output.top_scores_column
        return Certainty("margin between the two best scores", (lists,), lambda table: _margin(_lists(table, lists)))
    return Certainty("score", (score,), lambda table: _numbers(table, score))


def _numbers(table: pa.Table, column: str) -> np.ndarray:
    """float64 (rows,)."""
    return table.column(column).cast(pa.float64()).to_numpy()


def _lists(table: pa.Table, column: str) -> np.ndarray:
    """float64 (rows, values of each list)."""
    flat = pc.list_flatten(table.column(column).combine_chunks()).cast(pa.float64())
    return flat.to_numpy(zero_copy_only=False).reshape(table.num_rows, -1)


def _margin(scores: np.ndarray) -> np.ndarray:
    best = np.partition(scores, -2, axis=1)[:, -2:]
    return best[:, 1] - best[:, 0]


def _nearest(values: np.ndarray, limits: np.ndarray) -> np.ndarray:
    return np.abs(values - limits).min(axis=1)
