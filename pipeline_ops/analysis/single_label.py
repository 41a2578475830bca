"""Evaluation of heads with one label per document: counts accumulated table by table, for the formulas of metrics.py.

Also the parts that the evaluators of all heads share: rows, mistakes, calibration. Memory does not grow with the number of
documents. Rows with a null truth are counted and left out.
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
    single_label_metrics,
)
from pipeline_ops.analysis.risk_coverage import RiskCoverage
from pipeline_ops.models.heads import Head
from pipeline_ops.schema.errors import UserError

MAX_TRUE_LABELS = 10_000  # distinct; a column with more does not hold labels
MAX_MISTAKES = 20
MAX_CELLS = 4 * 2**20  # documents x labels per slice


@dataclass(frozen=True)
class Rows:
    """Labeled documents of one file; truth: the input column as it is; scores: float32 (documents, labels) or None."""

    truth: pa.Array
    label: pa.Array
    score: np.ndarray
    scores: np.ndarray | None
    position: tuple[int, int]  # (index of the file, first row in it)


@dataclass(frozen=True, order=True)
class Mistake:
    """A wrongly labeled document; ordered by severity."""

    severity: float  # how confident the wrong prediction is, or how large the error
    file: int
    row: int
    truth: Any = field(compare=False)
    label: Any = field(compare=False)
    score: float = field(compare=False)
    about: str | None = field(compare=False, default=None)  # multi-label: the label that is missing or wrongly predicted


class Mistakes:
    """The MAX_MISTAKES most severe mistakes."""

    def __init__(self) -> None:
        self._heap: list[Mistake] = []

    def min_severity(self) -> float:
        """Mistakes up to this severity are not kept."""
        return self._heap[0].severity if len(self._heap) == MAX_MISTAKES else -math.inf

    def add(self, severity: np.ndarray, mistake_at: Callable[[int], Mistake]) -> None:
        """Keep the most severe mistakes of these documents.

        Args:
            severity: float (documents,), -inf for correct documents.
            mistake_at: (row) -> Mistake.
        """
        rows = np.flatnonzero(severity > self.min_severity())
        if len(rows) > MAX_MISTAKES:
            rows = np.sort(rows[np.argsort(-severity[rows], kind="stable")[:MAX_MISTAKES]])
        for row in rows:
            heapq.heappush(self._heap, mistake_at(int(row)))
            if len(self._heap) > MAX_MISTAKES:
                heapq.heappop(self._heap)

    def most_severe_first(self) -> list[Mistake]:
        return sorted(self._heap, key=lambda mistake: (-mistake.severity, mistake.file, mistake.row))


class Calibration:
    """Histogram of scores and of correct ones, for the expected calibration error."""

    def __init__(self) -> None:
        self._count, self._correct = np.zeros(NUM_BINS, np.int64), np.zeros(NUM_BINS, np.int64)
        self._sum = np.zeros(NUM_BINS)

    def add(self, scores: np.ndarray, correct: np.ndarray) -> None:
        bins = calibration_bin(scores)
        self._count += np.bincount(bins, minlength=NUM_BINS)
        self._sum += np.bincount(bins, scores, NUM_BINS)
        self._correct += np.bincount(bins[correct], minlength=NUM_BINS)

    def result(self) -> dict[str, Any] | None:
        return calibration(self._count, self._sum, self._correct)


class SingleLabelEvaluator:
    """Metrics of one predicted label per document against one true label."""

    def __init__(self, head: Head) -> None:
        self.head = head
        self.names = (*head.labels, *filter(None, [head.fallback_label]))
        self.pairs: Counter[tuple[str, str]] = Counter()
        self.without_truth = 0
        self.mistakes = Mistakes()
        self.calibration, self.risk_coverage = (Calibration(), RiskCoverage()) if head.activation != "none" else (None, None)

    def add(self, rows: Rows) -> np.ndarray:
        """Add documents; returns bool (documents,): whether the label is the true one."""
        truth = as_text(rows.truth)
        has_truth = truth.is_valid().to_numpy(zero_copy_only=False)
        self.without_truth += int((~has_truth).sum())
        count_pairs(self.pairs, truth, rows.label)
        correct = pc.fill_null(pc.equal(truth, rows.label), False).to_numpy(zero_copy_only=False)
        if self.calibration is not None and self.risk_coverage is not None:
            fallback = pc.equal(rows.label, self.head.fallback_label or "").to_numpy(zero_copy_only=False)
            counted = has_truth if self.head.fallback_label is None else has_truth & ~fallback  # the score is another label's
            self.calibration.add(rows.score[counted], correct[counted])
            self.risk_coverage.add(rows.score[counted], correct[counted])
        file, first = rows.position
        self.mistakes.add(
            np.where(has_truth & ~correct, rows.score, -np.inf),
            lambda row: Mistake(
                float(rows.score[row]), file, first + row, truth[row].as_py(), rows.label[row].as_py(), float(rows.score[row])
            ),
        )
        return correct

    def truths(self) -> Counter[str]:
        return true_counts(self.pairs)

    def result(self) -> dict[str, Any]:
        fallbacks = sum(documents for (_, label), documents in self.pairs.items() if label == self.head.fallback_label)
        return {
            "evaluated": sum(self.pairs.values()),
            **single_label_metrics(self.pairs, self.names),
            "calibration": None if self.calibration is None else self.calibration.result(),
            "risk_coverage": None if self.risk_coverage is None else self.risk_coverage.result(self.head.min_score, fallbacks),
        }


def slices_of(table: pa.Table, num_labels: int) -> Iterator[tuple[int, pa.Table]]:
    """(first row, rows) of consecutive slices of a table, of at most MAX_CELLS scores each."""
    step = max(MAX_CELLS // max(num_labels, 1), 1)
    return ((start, table.slice(start, step)) for start in range(0, table.num_rows, step))


def as_text(values: pa.Array) -> pa.Array:
    """Truths as strings, so that 1, 1.0 and "1" are equal; NaN becomes null.

    Raises:
        UserError: the type cannot be cast to string, such as structs.
    """
    if pa.types.is_floating(values.type):
        values = pc.if_else(pc.is_nan(values), pa.scalar(None, values.type), values)
    try:
        return values.cast(pa.string())
    except pa.ArrowException as error:
        raise UserError(
            f"--truth: a column of type {values.type} cannot be compared with labels; give a column of strings"
        ) from error


def count_pairs(pairs: Counter[tuple[str, str]], truth: pa.Array, label: pa.Array) -> None:
    """Add the documents to `pairs` by (truth, label), without those that have no truth.

    Raises:
        UserError: more than MAX_TRUE_LABELS distinct truths.
    """
    valid = truth.is_valid()
    truths, labels = (column.filter(valid).dictionary_encode() for column in (truth, label))
    names, codes = labels.dictionary.to_pylist(), labels.indices.to_numpy()
    codes_found, counts = np.unique(truths.indices.to_numpy().astype(np.int64) * max(len(names), 1) + codes, return_counts=True)
    true_names = truths.dictionary.to_pylist()
    check_truths(len(true_names))
    for code, count in zip(codes_found.tolist(), counts.tolist(), strict=True):
        pairs[true_names[code // len(names)], names[code % len(names)]] += count
    if len(pairs) > MAX_TRUE_LABELS:
        check_truths(len({truth for truth, _ in pairs}))


def check_truths(distinct: int) -> None:
    """Raise UserError for a truth column with too many distinct values."""
    if distinct > MAX_TRUE_LABELS:
        raise UserError(f"--truth: more than {MAX_TRUE_LABELS:,} distinct values; give the column with the true label")


def true_counts(pairs: Counter[tuple[str, str]]) -> Counter[str]:
    """{truth: documents}."""
    counts: Counter[str] = Counter()
    for (truth, _), documents in pairs.items():
        counts[truth] += documents
    return counts
