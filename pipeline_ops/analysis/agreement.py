"""Agreement of two labelings of the same documents, with each other and with the truth, accumulated part by part.

Pure; memory does not grow with the documents.

Cohen's kappa is (p - e) / (1 - e), with p the share of documents with equal labels and e the share expected by chance, the sum
over labels of the product of the label's shares in both. J. Cohen, A Coefficient of Agreement for
Nominal Scales, Educational and Psychological Measurement 20 (1960).
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pipeline_ops.analysis.metrics import mcnemar, paired_difference_interval
from pipeline_ops.analysis.moments import PairMoments
from pipeline_ops.models.heads import Activation, Head

BINS = 2001  # of score differences: centers from -1 to 1 in steps of 0.001, so that no difference is shown as none
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
# J. R. Landis, G. G. Koch, The Measurement of Observer Agreement for Categorical Data, Biometrics 33 (1977)
LANDIS_KOCH = ((0.8, "almost perfect"), (0.6, "substantial"), (0.4, "moderate"), (0.2, "fair"), (0.0, "slight"))


@dataclass(frozen=True)
class AlignedPredictions:
    """One output's predictions for documents that both outputs have, in the same order as the other's.

    labels: int64 (documents,), ids in a name space shared by both; score: float64 (documents,); scores: float32 (documents,
    labels) or None; predicted: bool (documents, names), the label sets of a multi-label head, or None.
    """

    labels: np.ndarray
    score: np.ndarray
    scores: np.ndarray | None = None
    predicted: np.ndarray | None = None


def distances(
    a: AlignedPredictions, b: AlignedPredictions, activation: Activation | None, fallbacks: Sequence[int]
) -> np.ndarray:
    """Distance between two predictions for each document: float64 (documents,), in [0, 1]; unbounded for values.

    With all scores: for softmax the total variation distance, half the sum of absolute differences; for sigmoid the largest
    absolute difference. With the best label's score only, a lower bound of the softmax distance: |a - b|, and where the best
    labels differ also a + b - 1, as B's score of A's label is at most 1 - b. (Sigmoid scores need not sum to 1: there this is
    a ranking, not a bound.) For values, which have no activation: |a - b|.

    Args:
        activation: of both heads; None if they differ: the distance is then 0 for equal labels, else 1.
        fallbacks: ids of fallback labels, which replace a best label with too low a score.
    """
    if activation is None:
        return (a.labels != b.labels).astype(np.float64)
    if a.scores is not None and b.scores is not None:
        difference = np.abs(a.scores - b.scores)
        return np.asarray(difference.max(axis=1) if activation == "sigmoid" else difference.sum(axis=1) / 2, np.float64)
    difference = np.abs(a.score - b.score)
    if activation == "none":
        return difference
    is_fallback = np.isin(a.labels, list(fallbacks)) | np.isin(b.labels, list(fallbacks))
    differ = (a.labels != b.labels) & ~is_fallback
    return np.where(differ, np.maximum(difference, a.score + b.score - 1), difference)


def fallback_ids(heads: Sequence[Head], names: dict[str, int]) -> list[int]:
    """The ids of the heads' fallback labels."""
    return [names[head.fallback_label] for head in heads if head.fallback_label in names]


@dataclass
class AgreementCounts:
    """Counts over the documents that both outputs have labeled."""

    documents: int = 0
    flows: Counter[tuple[int, int]] = field(default_factory=Counter)  # (label in A, label in B): documents
    differences: np.ndarray = field(
        default_factory=lambda: np.zeros(BINS, np.int64)
    )  # histogram of score differences, equal labels only
    difference_sum: float = 0.0
    jaccard_sum: float = 0.0
    jaccard_documents: int = 0
    values: PairMoments = field(default_factory=PairMoments)  # of heads with one value: (A's, B's)

    def add(self, a: AlignedPredictions, b: AlignedPredictions) -> None:
        self.documents += len(a.labels)
        if not len(a.labels):
            return
        size = int(max(a.labels.max(), b.labels.max())) + 1
        pairs, counts = np.unique(a.labels * size + b.labels, return_counts=True)
        for pair, count in zip(pairs.tolist(), counts.tolist(), strict=True):
            self.flows[divmod(pair, size)] += count
        equal = a.labels == b.labels
        difference = (b.score - a.score)[equal]
        self.difference_sum += float(difference.sum())
        self.differences += np.histogram(np.clip(difference, -1, 1), BINS, (-1.0005, 1.0005))[0]
        if a.predicted is not None and b.predicted is not None:
            either = (a.predicted | b.predicted).sum(axis=1)
            both = (a.predicted & b.predicted).sum(axis=1)
            self.jaccard_sum += float(np.where(either > 0, both / np.maximum(either, 1), 1).sum())
            self.jaccard_documents += len(either)


@dataclass
class PairedAccuracy:
    """Which of the two outputs is right, over the documents that both have labeled and that have a truth."""

    documents: Counter[tuple[bool, bool]] = field(default_factory=Counter)  # {(A is right, B is right): documents}
    by_label: Counter[tuple[int, bool, bool]] = field(default_factory=Counter)  # with the id of a true label before these
    without_truth: int = 0

    def add(self, truths: np.ndarray, has_truth: np.ndarray, right_a: np.ndarray, right_b: np.ndarray) -> None:
        """Add documents.

        Args:
            truths: int64 (documents,), ids of true labels; or bool (documents, labels), sets of true labels.
            has_truth, right_a, right_b: bool (documents,).
        """
        self.without_truth += int((~has_truth).sum())
        cells = right_a * 2 + right_b
        for cell, count in zip(*np.unique(cells[has_truth], return_counts=True), strict=True):
            self.documents[bool(cell & 2), bool(cell & 1)] += int(count)
        owners, labels = np.nonzero(truths & has_truth[:, None]) if truths.ndim == 2 else (has_truth, truths[has_truth])
        for code, count in zip(*np.unique(labels * 4 + cells[owners], return_counts=True), strict=True):
            self.by_label[int(code) // 4, bool(code & 2), bool(code & 1)] += int(count)

    def result(self, names: Sequence[str]) -> dict[str, Any]:
        """Counts, accuracies, their difference with its 95 % interval, McNemar's test, and counts by true label.

        Args:
            names: the labels by id.
        """
        both, only_a = self.documents[True, True], self.documents[True, False]
        only_b, neither = self.documents[False, True], self.documents[False, False]
        total = self.documents.total()
        p_value, test = mcnemar(only_a, only_b)
        return {
            "documents": total,
            "without_truth": self.without_truth,
            "right_in_both": both,
            "became_wrong": only_a,
            "became_right": only_b,
            "wrong_in_both": neither,
            "accuracy_a": (both + only_a) / total if total else None,
            "accuracy_b": (both + only_b) / total if total else None,
            "difference": (only_b - only_a) / total if total else None,
            "difference_interval": list(paired_difference_interval(both, only_a, only_b, neither)),
            "p_value": p_value,
            "test": test,
            "labels": self._by_label(names),
        }

    def _by_label(self, names: Sequence[str]) -> list[dict[str, Any]]:
        """Per true label: documents, those that became right or wrong, share of right ones in A and B; most changes first."""
        rows = []
        for label in {label for label, _, _ in self.by_label}:
            both, only_a, only_b, neither = (
                self.by_label[label, right_a, right_b] for right_a in (True, False) for right_b in (True, False)
            )
            total = both + only_a + only_b + neither
            rows.append(
                {
                    "label": names[label],
                    "documents": total,
                    "became_right": only_b,
                    "became_wrong": only_a,
                    "accuracy_a": (both + only_a) / total,
                    "accuracy_b": (both + only_b) / total,
                }
            )
        return sorted(rows, key=lambda row: (-row["became_right"] - row["became_wrong"], -row["documents"], row["label"]))


def agreement(flows: Counter[tuple[int, int]]) -> tuple[int, float | None]:
    """(documents with equal labels, Cohen's kappa); None where it is not defined: both have one and the same label only."""
    total, agreed = flows.total(), sum(count for (a, b), count in flows.items() if a == b)
    in_a, in_b = margins(flows)
    chance_pairs = sum(count * in_b[label] for label, count in in_a.items())
    if chance_pairs == total * total:  # integers, so that the comparison is exact
        return agreed, None
    expected = chance_pairs / total**2
    return agreed, (agreed / total - expected) / (1 - expected)


def margins(flows: Counter[tuple[int, int]]) -> tuple[Counter[int], Counter[int]]:
    """({label: documents} in A, the same in B)."""
    in_a, in_b = Counter[int](), Counter[int]()
    for (label_a, label_b), count in flows.items():
        in_a[label_a] += count
        in_b[label_b] += count
    return in_a, in_b


def interpret_kappa(kappa: float | None) -> str | None:
    """Landis and Koch's term for a kappa; its limits are a convention."""
    if kappa is None:
        return None
    return next((word for limit, word in LANDIS_KOCH if kappa > limit), "slight" if kappa == 0 else "poor")


def changes_by_label(flows: Counter[tuple[int, int]], names: Sequence[str]) -> list[dict[str, Any]]:
    """Per label: documents in A, in B, in both (stayed), in A only (left), in B only (came); most changes first."""
    in_a, in_b = margins(flows)
    rows = []
    for label in in_a.keys() | in_b.keys():
        stayed = flows[label, label]
        rows.append(
            {
                "label": names[label],
                "in_a": in_a[label],
                "in_b": in_b[label],
                "stayed": stayed,
                "left": in_a[label] - stayed,
                "came": in_b[label] - stayed,
            }
        )
    return sorted(rows, key=lambda label: (-label["left"] - label["came"], -label["in_a"], label["label"]))


def changed_flows(flows: Counter[tuple[int, int]], names: Sequence[str]) -> list[dict[str, Any]]:
    """Changes from a label in A to another in B, most documents first; `share` is relative to A's label."""
    in_a, _ = margins(flows)
    changes = [
        {"a": names[a], "b": names[b], "documents": count, "share": count / in_a[a]}
        for (a, b), count in flows.items()
        if a != b
    ]
    return sorted(changes, key=lambda flow: (-flow["documents"], flow["a"], flow["b"]))


def score_differences(counts: AgreementCounts) -> dict[str, Any] | None:
    """Mean and quantiles of B's score minus A's over documents with equal labels; None if there are none."""
    documents = int(counts.differences.sum())
    if not documents:
        return None
    cumulative = np.cumsum(counts.differences)
    centers = np.arange(BINS) / (BINS // 2) - 1
    quantiles = {
        f"p{100 * share:.0f}": round(float(centers[np.searchsorted(cumulative, share * documents)]), 4) for share in QUANTILES
    }
    return {"documents": documents, "mean": counts.difference_sum / documents, **quantiles}


def value_differences(values: PairMoments) -> dict[str, Any]:
    """Mean and mean absolute difference of B's value minus A's; Pearson's r, None if either is constant.

    Args:
        values: of pairs (A's value, B's value).
    """
    return {
        "documents": values.count,
        "mean": float(values.means[1] - values.means[0]),
        "mean_absolute": values.absolute_difference / max(values.count, 1),
        "pearson_r": values.pearson_r(),
    }
