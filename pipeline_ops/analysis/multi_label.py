"""Evaluation of multi-label heads: scores against lists of true labels, accumulated table by table."""

from collections import Counter
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline_ops.analysis.metrics import THRESHOLDS, label_metrics, number, threshold_sweep
from pipeline_ops.analysis.single_label import Calibration, Mistake, Mistakes, Rows, as_text, check_truths
from pipeline_ops.models.heads import Head

MAX_LABEL_SETS = 100_000  # distinct ones that are counted


class MultiLabelEvaluator:
    """Metrics of the labels whose scores reach their thresholds; the truth is a list of names or one name."""

    def __init__(self, head: Head) -> None:
        self.head = head
        self.names = head.labels
        size = len(head.labels)
        self.correct, self.predicted, self.support = (np.zeros(size, np.int64) for _ in range(3))
        self.unknown: Counter[str] = Counter()
        self.evaluated = self.all_correct = self.without_truth = 0
        self.label_sets: Counter[bytes] = (
            Counter()
        )  # {true labels as packed bits: documents without labels unknown to the model}
        self.mistakes = Mistakes()
        self.has_probabilities = head.activation != "none"
        self.calibration = Calibration()
        self.positives, self.negatives = (np.zeros((size, len(THRESHOLDS)), np.int64) for _ in range(2))

    def add(self, rows: Rows) -> np.ndarray:
        """Add documents; returns bool (documents,): whether the labels are exactly the true ones."""
        scores = rows.scores
        assert scores is not None
        has_truth = rows.truth.is_valid().to_numpy(zero_copy_only=False)
        self.without_truth += int((~has_truth).sum())
        self.evaluated += int(has_truth.sum())
        truths, has_unknown = self._truths(rows.truth)
        self._count_sets(truths[has_truth & ~has_unknown])
        predicted = scores >= np.array(self.head.thresholds, np.float32)
        self.support += truths.sum(axis=0)
        self.predicted += predicted[has_truth].sum(axis=0)
        self.correct += (predicted & truths).sum(axis=0)
        wrong = (predicted != truths) & has_truth[:, None]
        all_correct = has_truth & ~wrong.any(axis=1) & ~has_unknown
        self.all_correct += int(all_correct.sum())
        if self.has_probabilities:
            self.calibration.add(scores[has_truth].reshape(-1), truths[has_truth].reshape(-1))
            self._sweep(scores[has_truth], truths[has_truth])
        severity = np.where(wrong, np.abs(scores - ~predicted), -np.inf)  # 1 - score for a missing label
        worst = severity.argmax(axis=1) if len(severity) else np.zeros(0, np.int64)
        file, first = rows.position

        def mistake(row: int) -> Mistake:
            names = [self.names[index] for index in np.argsort(-scores[row], kind="stable") if predicted[row, index]]
            about, truth = int(worst[row]), rows.truth[row].as_py()
            score = float(scores[row, about])
            truth = truth if isinstance(truth, list) else [truth]
            return Mistake(float(severity[row, about]), file, first + row, truth, names, score, self.names[about])

        self.mistakes.add(severity.max(axis=1, initial=-np.inf), mistake)
        return all_correct

    def _truths(self, truth: pa.Array) -> tuple[np.ndarray, np.ndarray]:
        """(bool (documents, labels): the true labels; bool (documents,): whether the truth has labels unknown to the model)."""
        if is_list(truth.type):
            owner, names = pc.list_parent_indices(truth).to_numpy(), as_text(pc.list_flatten(truth))
        else:
            owner, names = np.arange(len(truth)), as_text(truth)
        owner, names = owner[names.is_valid().to_numpy(zero_copy_only=False)], names.drop_null()
        index = pc.fill_null(pc.index_in(names, pa.array(self.names, pa.string())), -1).to_numpy()
        truths = np.zeros((len(truth), len(self.names)), bool)
        truths[owner[index >= 0], index[index >= 0]] = True
        has_unknown = np.zeros(len(truth), bool)
        has_unknown[owner[index < 0]] = True
        if has_unknown.any():
            unknown = pa.table({"owner": owner[index < 0], "name": names.filter(pa.array(index < 0))})
            counted = unknown.group_by(["owner", "name"]).aggregate([]).column("name").value_counts()
            self.unknown.update({pair["values"]: pair["counts"] for pair in counted.to_pylist()})
            check_truths(len(self.unknown))
        return truths, has_unknown

    def _count_sets(self, truths: np.ndarray) -> None:
        """Count distinct rows; beyond MAX_LABEL_SETS only those that are known by then, among which the most frequent is."""
        sets, counts = np.unique(np.packbits(truths, axis=1), axis=0, return_counts=True)
        for packed, count in zip(map(bytes, sets), counts.tolist(), strict=True):
            if packed in self.label_sets or len(self.label_sets) < MAX_LABEL_SETS:
                self.label_sets[packed] += count

    def _baseline(self) -> dict[str, Any] | None:
        """The most frequent set of true labels, which may be empty, and the subset accuracy of predicting it always."""
        if not self.label_sets:
            return None
        [(packed, documents)] = self.label_sets.most_common(1)
        is_true = np.unpackbits(np.frombuffer(packed, np.uint8), count=len(self.names)).tolist()
        labels = [name for name, true in zip(self.names, is_true, strict=True) if true]
        return {"labels": labels, "subset_accuracy": number(documents / self.evaluated)}

    def _sweep(self, scores: np.ndarray, truths: np.ndarray) -> None:
        labels, size = len(self.names), len(THRESHOLDS)
        steps = np.searchsorted(THRESHOLDS, scores, side="right") - 1
        cells = (np.arange(labels) * size + steps).reshape(-1)
        is_true = truths.reshape(-1)
        self.positives += np.bincount(cells[is_true], minlength=labels * size).reshape(labels, size)
        self.negatives += np.bincount(cells[~is_true], minlength=labels * size).reshape(labels, size)

    def truths(self) -> Counter[str]:
        known = {name: int(count) for name, count in zip(self.names, self.support, strict=True) if count}
        return Counter(known) + self.unknown

    def result(self) -> dict[str, Any]:
        unknown = np.array(list(self.unknown.values()), np.int64)
        zeros = np.zeros(len(unknown), np.int64)
        counts = [
            np.concatenate([self.correct, zeros]),
            np.concatenate([self.predicted, zeros]),
            np.concatenate([self.support, unknown]),
        ]
        return {
            "evaluated": self.evaluated,
            "subset_accuracy": number(self.all_correct / self.evaluated) if self.evaluated else None,
            "baseline": self._baseline(),
            **label_metrics([*self.names, *self.unknown], *counts),
            "calibration": self.calibration.result(),
            "sweep": threshold_sweep(self.names, self.positives, self.negatives, self.head.thresholds)
            if self.has_probabilities
            else None,
        }


def lists_to_numpy(column: pa.ChunkedArray, length: int) -> np.ndarray:
    """A column of lists of equal length as float32 (documents, length)."""
    array = column.combine_chunks()
    return pc.list_flatten(array).cast(pa.float32()).to_numpy().reshape(-1, length)


def is_list(data_type: pa.DataType) -> bool:
    """True for all list types."""
    return pa.types.is_list(data_type) or pa.types.is_large_list(data_type) or pa.types.is_fixed_size_list(data_type)
