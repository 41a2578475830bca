"""Evaluation of heads with one value: errors against true values, and label metrics of their bins."""

import math
from collections import Counter
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline_ops.analysis.metrics import number, single_label_metrics
from pipeline_ops.analysis.moments import PairMoments
from pipeline_ops.analysis.single_label import Mistake, Mistakes, Rows, as_text, count_pairs, true_counts
from pipeline_ops.models.heads import Head


class ValueEvaluator:
    """Metrics of one value per document, with or without bins; the truth is a number or the name of a bin.

    A string that is both counts as the name, and as a number only if that number is in the bin of that name.
    """

    def __init__(self, head: Head) -> None:
        self.head = head
        self.names = head.bin_labels
        self.pairs: Counter[tuple[str, str]] = Counter()
        self.evaluated = self.without_truth = 0
        self.invalid: Counter[str] = Counter()  # examples of truths that are neither number nor bin name
        self.mistakes = Mistakes()
        self.moments = PairMoments()  # of (truth, value)

    def add(self, rows: Rows) -> np.ndarray:
        """Add documents; returns bool (documents,): whether the bin, without bins the value, is the true one."""
        numbers, names = self._truths(rows.truth)
        is_number, is_name = np.isfinite(numbers), names.is_valid().to_numpy(zero_copy_only=False)
        has_truth = is_number | is_name
        self.without_truth += int((~has_truth).sum())
        self.evaluated += int(has_truth.sum())
        if self.names:
            count_pairs(self.pairs, names, rows.label)
        error = np.abs(numbers - rows.score.astype(np.float64))
        self.moments.add(numbers[is_number], rows.score[is_number].astype(np.float64))
        wrong = pc.fill_null(pc.not_equal(names, rows.label), False).to_numpy(zero_copy_only=False)
        if not self.names:
            wrong = is_number & (error > 0)
        file, first = rows.position

        def mistake(row: int) -> Mistake:
            truth = float(numbers[row]) if is_number[row] else names[row].as_py()
            label = rows.label[row].as_py() if self.names else None
            return Mistake(
                float(error[row]) if is_number[row] else 0.0, file, first + row, truth, label, float(rows.score[row])
            )

        self.mistakes.add(np.where(wrong, np.where(is_number, error, 0.0), -np.inf), mistake)
        return has_truth & ~wrong

    def _truths(self, truth: pa.Array) -> tuple[np.ndarray, pa.Array]:
        """(true values float64 (documents,), NaN if unknown; true bins as string (documents,), null if unknown)."""
        text = as_text(truth)
        by_name = pc.fill_null(pc.index_in(text, pa.array(self.names, pa.string())), -1).to_numpy()
        if _is_number(truth.type):
            numbers, by_name = pc.fill_null(truth.cast(pa.float64(), safe=False), math.nan).to_numpy(), np.full(len(truth), -1)
        else:
            encoded = text.dictionary_encode()
            values = np.array([*map(_parse_float, encoded.dictionary.to_pylist()), math.nan])
            numbers = values[pc.fill_null(encoded.indices, len(values) - 1).to_numpy()]
            invalid = text.filter(pa.array(np.isnan(numbers) & (by_name < 0)))
            for name in pc.unique(invalid.drop_null()).to_pylist()[: 3 - len(self.invalid)]:
                self.invalid[name] += 1
        if not self.names:
            return numbers, pa.nulls(len(truth), pa.string())
        finite = np.isfinite(numbers)
        by_number = np.where(finite, np.searchsorted(self.head.bins, numbers.astype(np.float32), side="right"), -1)
        numbers = np.where((by_name >= 0) & (by_name != by_number), math.nan, numbers)
        bins = np.where(by_name >= 0, by_name, by_number)
        return numbers, pa.array(self.names, pa.string()).take(pa.array(bins, mask=bins < 0))

    def truths(self) -> Counter[str]:
        return self.invalid if not self.evaluated else true_counts(self.pairs)

    def result(self) -> dict[str, Any]:
        moments, count = self.moments, self.moments.count
        of_bins = single_label_metrics(self.pairs, self.names) if self.names else {}
        baseline = of_bins.pop("baseline", None) or {}
        if (deviation := moments.std_x()) is not None:
            baseline |= {"value": number(moments.means[0]), "root_mean_squared_error": number(deviation)}
        return {
            "evaluated": self.evaluated,
            "mean_absolute_error": number(moments.absolute_difference / count) if count else None,
            "root_mean_squared_error": number(math.sqrt(moments.squared_difference / count)) if count else None,
            "r2": number(r2) if (r2 := moments.r2()) is not None else None,
            "pearson_r": number(r) if (r := moments.pearson_r()) is not None else None,
            **of_bins,
            "baseline": baseline or None,
        }


def _parse_float(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        return math.nan
    return value if math.isfinite(value) else math.nan


def _is_number(data_type: pa.DataType) -> bool:
    kinds = (pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal, pa.types.is_boolean)
    return any(is_kind(data_type) for is_kind in kinds)
