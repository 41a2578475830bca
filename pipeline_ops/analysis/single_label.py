"""Labeled rows and their truths -> counts, a table at a time; pipeline_ops.analysis.metrics says what they mean.

Columns in: the truth, what a model has added, and where a document came from. Memory does not grow with the documents: labels
by labels, bins and thresholds, and the worst few mistakes. A null truth is counted and left out.
"""

import heapq
import math
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline_ops.analysis.metrics import (
    NUM_BINS,
    calibration,
    calibration_bin,
    single_label_measures,
)
from pipeline_ops.models.heads import Head
from pipeline_ops.schema.errors import UserError

MAX_TRUTHS = 10_000  # different ones: more are no labels but names of documents
MISTAKES = 20
CELLS = 4 * 2**20  # documents by labels, handled at a time


@dataclass(frozen=True)
class Rows:
    """Some labeled documents of a file. truth: as the input has it; scores: float32 (documents, labels), or None."""

    truth: pa.Array
    label: pa.Array
    score: np.ndarray
    scores: np.ndarray | None
    place: tuple[int, int]  # number of the file, and of the first row in it


@dataclass(frozen=True, order=True)
class Mistake:
    """A document that is labeled wrong; the larger the worse."""

    worse: float
    file: int
    row: int
    truth: Any = field(compare=False)
    label: Any = field(compare=False)
    score: float = field(compare=False)
    about: str | None = field(compare=False, default=None)  # multi-label: the label that is missing, or too much


class Mistakes:
    """The worst few."""

    def __init__(self) -> None:
        self._heap: list[Mistake] = []

    def floor(self) -> float:
        """What is not above it is none of them."""
        return self._heap[0].worse if len(self._heap) == MISTAKES else -math.inf

    def add(self, worse: np.ndarray, found: Callable[[int], Mistake]) -> None:
        """Takes the worst rows in.

        Args:
            worse: float (documents,), -inf where there is no mistake.
            found: (row) -> Mistake.
        """
        rows = np.flatnonzero(worse > self.floor())
        if len(rows) > MISTAKES:
            rows = np.sort(rows[np.argsort(-worse[rows], kind="stable")[:MISTAKES]])
        for row in rows:
            heapq.heappush(self._heap, found(int(row)))
            if len(self._heap) > MISTAKES:
                heapq.heappop(self._heap)

    def worst_first(self) -> list[Mistake]:
        return sorted(self._heap, key=lambda mistake: (-mistake.worse, mistake.file, mistake.row))


class Calibration:
    """Scores that are probabilities, by bin."""

    def __init__(self) -> None:
        self._count, self._right = np.zeros(NUM_BINS, np.int64), np.zeros(NUM_BINS, np.int64)
        self._sum = np.zeros(NUM_BINS)

    def add(self, scores: np.ndarray, right: np.ndarray) -> None:
        bins = calibration_bin(scores)
        self._count += np.bincount(bins, minlength=NUM_BINS)
        self._sum += np.bincount(bins, scores, NUM_BINS)
        self._right += np.bincount(bins[right], minlength=NUM_BINS)

    def result(self) -> dict[str, Any] | None:
        return calibration(self._count, self._sum, self._right)


class SingleLabelTally:
    """One label per document, and one truth."""

    def __init__(self, head: Head) -> None:
        self.head = head
        self.names = (*head.labels, *filter(None, [head.fallback_label]))
        self.pairs: Counter[tuple[str, str]] = Counter()
        self.without_truth = 0
        self.mistakes = Mistakes()
        self.calibration = Calibration() if head.activation != "none" else None

    def add(self, rows: Rows) -> None:
        truth = as_text(rows.truth)
        told = truth.is_valid().to_numpy(zero_copy_only=False)
        self.without_truth += int((~told).sum())
        count_pairs(self.pairs, truth, rows.label)
        right = pc.fill_null(pc.equal(truth, rows.label), False).to_numpy(zero_copy_only=False)
        if self.calibration is not None:
            fallback = pc.equal(rows.label, self.head.fallback_label or "").to_numpy(zero_copy_only=False)
            judged = told if self.head.fallback_label is None else told & ~fallback  # the score is another label's
            self.calibration.add(rows.score[judged], right[judged])
        file, first = rows.place
        self.mistakes.add(
            np.where(told & ~right, rows.score, -np.inf),
            lambda row: Mistake(
                float(rows.score[row]), file, first + row, truth[row].as_py(), rows.label[row].as_py(), float(rows.score[row])
            ),
        )

    def truths(self) -> Counter[str]:
        return sums_of(self.pairs, 0)

    def result(self) -> dict[str, Any]:
        return {
            "evaluated": sum(self.pairs.values()),
            **single_label_measures(self.pairs, self.names),
            "calibration": None if self.calibration is None else self.calibration.result(),
        }


def slices_of(table: pa.Table, num_labels: int) -> Iterator[tuple[int, pa.Table]]:
    """(first row, rows) of a file's table, so many at a time as CELLS allows."""
    step = max(CELLS // max(num_labels, 1), 1)
    return ((start, table.slice(start, step)) for start in range(0, table.num_rows, step))


def as_text(values: pa.Array) -> pa.Array:
    """Truths as they are compared: 1, 1.0 and "1" are one; raises UserError for what has no text, such as structs."""
    if pa.types.is_floating(values.type):
        values = pc.if_else(pc.is_nan(values), pa.scalar(None, values.type), values)
    try:
        return values.cast(pa.string())
    except pa.ArrowException as error:
        raise UserError(f"--truth: a column of {values.type} cannot be compared with labels; give one with text") from error


def count_pairs(pairs: Counter[tuple[str, str]], truth: pa.Array, label: pa.Array) -> None:
    """Adds documents by (truth, label), those without a truth left out.

    Raises:
        UserError: there are more than MAX_TRUTHS different truths.
    """
    there = truth.is_valid()
    truths, labels = (column.filter(there).dictionary_encode() for column in (truth, label))
    names, codes = labels.dictionary.to_pylist(), labels.indices.to_numpy()
    found, counts = np.unique(truths.indices.to_numpy().astype(np.int64) * max(len(names), 1) + codes, return_counts=True)
    known = truths.dictionary.to_pylist()
    check_truths(len(known))
    for code, count in zip(found.tolist(), counts.tolist(), strict=True):
        pairs[known[code // len(names)], names[code % len(names)]] += count
    if len(pairs) > MAX_TRUTHS:
        check_truths(len({truth for truth, _ in pairs}))


def check_truths(different: int) -> None:
    if different > MAX_TRUTHS:
        raise UserError(f"--truth: has more than {MAX_TRUTHS:,} different values; give the column that names the right label")


def sums_of(pairs: Counter[tuple[str, str]], side: int) -> Counter[str]:
    counts: Counter[str] = Counter()
    for pair, documents in pairs.items():
        counts[pair[side]] += documents
    return counts
