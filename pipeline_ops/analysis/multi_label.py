"""Multi-label heads: scores and true label lists -> counts."""

from collections import Counter
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline_ops.analysis.metrics import THRESHOLDS, label_measures, number, threshold_sweep
from pipeline_ops.analysis.single_label import Calibration, Mistake, Mistakes, Rows, as_text, check_truths
from pipeline_ops.models.heads import Head


class MultiLabelTally:
    """Any number of labels per document, by the thresholds; the truth is a list of names, or one name."""

    def __init__(self, head: Head) -> None:
        self.head = head
        self.names = head.labels
        size = len(head.labels)
        self.right, self.given, self.support = (np.zeros(size, np.int64) for _ in range(3))
        self.unknown: Counter[str] = Counter()
        self.evaluated = self.whole = self.without_truth = 0
        self.mistakes = Mistakes()
        self.probable = head.activation != "none"
        self.calibration = Calibration()
        self.true, self.false = (np.zeros((size, len(THRESHOLDS)), np.int64) for _ in range(2))

    def add(self, rows: Rows) -> None:
        scores = rows.scores
        assert scores is not None
        told = rows.truth.is_valid().to_numpy(zero_copy_only=False)
        self.without_truth += int((~told).sum())
        self.evaluated += int(told.sum())
        should, others = self._truths(rows.truth)
        given = scores >= np.array(self.head.thresholds, np.float32)
        self.support += should.sum(axis=0)
        self.given += given[told].sum(axis=0)
        self.right += (given & should).sum(axis=0)
        wrong = (given != should) & told[:, None]
        self.whole += int((told & ~wrong.any(axis=1) & ~others).sum())
        if self.probable:
            self.calibration.add(scores[told].reshape(-1), should[told].reshape(-1))
            self._sweep(scores[told], should[told])
        distance = np.where(wrong, np.abs(scores - ~given), -np.inf)  # of what is missing, 1 - its score
        worst = distance.argmax(axis=1) if len(distance) else np.zeros(0, np.int64)
        file, first = rows.place

        def mistake(row: int) -> Mistake:
            names = [self.names[place] for place in np.argsort(-scores[row], kind="stable") if given[row, place]]
            about, truth = int(worst[row]), rows.truth[row].as_py()
            score = float(scores[row, about])
            truth = truth if isinstance(truth, list) else [truth]
            return Mistake(float(distance[row, about]), file, first + row, truth, names, score, self.names[about])

        self.mistakes.add(distance.max(axis=1, initial=-np.inf), mistake)

    def _truths(self, truth: pa.Array) -> tuple[np.ndarray, np.ndarray]:
        """(bool (documents, labels): the truths, bool (documents,): whether there are others that the model does not know)."""
        if is_list(truth.type):
            owner, names = pc.list_parent_indices(truth).to_numpy(), as_text(pc.list_flatten(truth))
        else:
            owner, names = np.arange(len(truth)), as_text(truth)
        owner, names = owner[names.is_valid().to_numpy(zero_copy_only=False)], names.drop_null()
        place = pc.fill_null(pc.index_in(names, pa.array(self.names, pa.string())), -1).to_numpy()
        should = np.zeros((len(truth), len(self.names)), bool)
        should[owner[place >= 0], place[place >= 0]] = True
        others = np.zeros(len(truth), bool)
        others[owner[place < 0]] = True
        if others.any():
            strange = pa.table({"owner": owner[place < 0], "name": names.filter(pa.array(place < 0))})
            counted = strange.group_by(["owner", "name"]).aggregate([]).column("name").value_counts()
            self.unknown.update({pair["values"]: pair["counts"] for pair in counted.to_pylist()})
            check_truths(len(self.unknown))
        return should, others

    def _sweep(self, scores: np.ndarray, should: np.ndarray) -> None:
        labels, size = len(self.names), len(THRESHOLDS)
        steps = np.searchsorted(THRESHOLDS, scores, side="right") - 1
        cells = (np.arange(labels) * size + steps).reshape(-1)
        true = should.reshape(-1)
        self.true += np.bincount(cells[true], minlength=labels * size).reshape(labels, size)
        self.false += np.bincount(cells[~true], minlength=labels * size).reshape(labels, size)

    def truths(self) -> Counter[str]:
        known = {name: int(count) for name, count in zip(self.names, self.support, strict=True) if count}
        return Counter(known) + self.unknown

    def result(self) -> dict[str, Any]:
        others = np.array(list(self.unknown.values()), np.int64)
        none = np.zeros(len(others), np.int64)
        counts = [
            np.concatenate([self.right, none]),
            np.concatenate([self.given, none]),
            np.concatenate([self.support, others]),
        ]
        return {
            "evaluated": self.evaluated,
            "subset_accuracy": number(self.whole / self.evaluated) if self.evaluated else None,
            **label_measures([*self.names, *self.unknown], *counts),
            "calibration": self.calibration.result(),
            "sweep": threshold_sweep(self.names, self.true, self.false, self.head.thresholds) if self.probable else None,
        }


def lists_to_numpy(column: pa.ChunkedArray, length: int) -> np.ndarray:
    """A column of lists of that length as float32 (documents, length)."""
    array = column.combine_chunks()
    return pc.list_flatten(array).cast(pa.float32()).to_numpy().reshape(-1, length)


def is_list(kind: pa.DataType) -> bool:
    return pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
