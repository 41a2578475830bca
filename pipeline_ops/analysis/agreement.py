"""How much two labelings of the same documents agree, from tallies that parts of the documents are added to. Pure.

Nothing here grows with the number of documents. Formulas:

Cohen's kappa: (p - e) / (1 - e), p the share of documents with equal labels and e the share that two labelers with these
distributions would have by chance, the sum over labels of the product of its shares. J. Cohen, A Coefficient of Agreement for
Nominal Scales, Educational and Psychological Measurement 20 (1960).
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pipeline_ops.analysis.moments import PairMoments
from pipeline_ops.models.heads import Activation, Head

BINS = 2000  # of score differences from -1 to 1: quantiles are right to a thousandth
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
# J. R. Landis, G. G. Koch, The Measurement of Observer Agreement for Categorical Data, Biometrics 33 (1977)
LANDIS_KOCH = ((0.8, "almost perfect"), (0.6, "substantial"), (0.4, "moderate"), (0.2, "fair"), (0.0, "slight"))


@dataclass(frozen=True)
class AlignedPredictions:
    """What one output says of some documents, in the order in which the other one says it.

    labels: int64 ids of names that both share; score: float64; scores: float32 (documents, labels), or None; given: bool
    (documents, names), the labels of a multi-label head, or None.
    """

    labels: np.ndarray
    score: np.ndarray
    scores: np.ndarray | None = None
    given: np.ndarray | None = None


def distances(
    a: AlignedPredictions, b: AlignedPredictions, activation: Activation | None, fallbacks: Sequence[int]
) -> np.ndarray:
    """How far apart two answers are: float64 (documents,), from 0 to 1, of values without a limit.

    With all scores: of distributions (softmax) the total variation distance, half the sum of the differences; of labels each
    of its own (sigmoid) the largest difference. With the best label's score alone a lower bound of that: |a - b|, as the
    largest of all scores differs by no more than some score does; where the best labels differ also a + b - 1, as B leaves
    A's label no more than 1 - b. (Scores of a sigmoid need not add up to 1: for these that is no bound, but an order.)
    Values, which have no activation: |a - b|.

    Args:
        activation: of both; None where they have different ones: then answers are as far apart as their labels, 0 or 1.
        fallbacks: ids of labels that stand for any best label whose score was too low.
    """
    if activation is None:
        return (a.labels != b.labels).astype(np.float64)
    if a.scores is not None and b.scores is not None:
        difference = np.abs(a.scores - b.scores)
        return np.asarray(difference.max(axis=1) if activation == "sigmoid" else difference.sum(axis=1) / 2, np.float64)
    difference = np.abs(a.score - b.score)
    if activation == "none":
        return difference
    unsure = np.isin(a.labels, list(fallbacks)) | np.isin(b.labels, list(fallbacks))
    differ = (a.labels != b.labels) & ~unsure
    return np.where(differ, np.maximum(difference, a.score + b.score - 1), difference)


def fallback_ids(heads: Sequence[Head], names: dict[str, int]) -> list[int]:
    return [names[head.fallback_label] for head in heads if head.fallback_label in names]


@dataclass
class Tally:
    """What has been found about the documents that both outputs have labeled."""

    documents: int = 0
    flows: Counter[tuple[int, int]] = field(default_factory=Counter)  # (label in A, label in B): documents
    differences: np.ndarray = field(default_factory=lambda: np.zeros(BINS, np.int64))  # of scores, where labels are equal
    difference_sum: float = 0.0
    jaccard_sum: float = 0.0
    jaccard_documents: int = 0
    values: PairMoments = field(default_factory=PairMoments)  # of heads with one value: (A's, B's)

    def add(self, a: AlignedPredictions, b: AlignedPredictions) -> None:
        self.documents += len(a.labels)
        if not len(a.labels):
            return
        names = int(max(a.labels.max(), b.labels.max())) + 1
        pairs, counts = np.unique(a.labels * names + b.labels, return_counts=True)
        for pair, count in zip(pairs.tolist(), counts.tolist(), strict=True):
            self.flows[divmod(pair, names)] += count
        equal = a.labels == b.labels
        difference = (b.score - a.score)[equal]
        self.difference_sum += float(difference.sum())
        self.differences += np.histogram(np.clip(difference, -1, 1), BINS, (-1, 1))[0]
        if a.given is not None and b.given is not None:
            either = (a.given | b.given).sum(axis=1)
            both = (a.given & b.given).sum(axis=1)
            self.jaccard_sum += float(np.where(either > 0, both / np.maximum(either, 1), 1).sum())
            self.jaccard_documents += len(either)


def agreement_of(flows: Counter[tuple[int, int]]) -> tuple[int, float | None]:
    """(documents with equal labels, Cohen's kappa); None where it is not defined: one label is all that either gives."""
    total, agreed = flows.total(), sum(count for (a, b), count in flows.items() if a == b)
    in_a, in_b = margins(flows)
    by_chance = sum(count * in_b[label] for label, count in in_a.items())
    if by_chance == total * total:  # in whole numbers: exact
        return agreed, None
    expected = by_chance / total**2
    return agreed, (agreed / total - expected) / (1 - expected)


def margins(flows: Counter[tuple[int, int]]) -> tuple[Counter[int], Counter[int]]:
    """Documents by label, in A and in B."""
    in_a, in_b = Counter[int](), Counter[int]()
    for (label_a, label_b), count in flows.items():
        in_a[label_a] += count
        in_b[label_b] += count
    return in_a, in_b


def reading_of(kappa: float | None) -> str | None:
    """Landis and Koch's word for a kappa, which they call arbitrary themselves."""
    if kappa is None:
        return None
    return next((word for limit, word in LANDIS_KOCH if kappa > limit), "slight" if kappa == 0 else "poor")


def changes_by_label(flows: Counter[tuple[int, int]], names: Sequence[str]) -> list[dict[str, Any]]:
    """Of each label: documents in A and in B, those that stayed, left and came; the label with the most traffic first."""
    in_a, in_b = margins(flows)
    found = []
    for label in in_a.keys() | in_b.keys():
        stayed = flows[label, label]
        found.append(
            {
                "label": names[label],
                "in_a": in_a[label],
                "in_b": in_b[label],
                "stayed": stayed,
                "left": in_a[label] - stayed,
                "came": in_b[label] - stayed,
            }
        )
    return sorted(found, key=lambda label: (-label["left"] - label["came"], -label["in_a"], label["label"]))


def changed_flows(flows: Counter[tuple[int, int]], names: Sequence[str]) -> list[dict[str, Any]]:
    """Where documents have gone from one label to another, the most first; `share`: of A's label."""
    in_a, _ = margins(flows)
    found = [
        {"a": names[a], "b": names[b], "documents": count, "share": count / in_a[a]}
        for (a, b), count in flows.items()
        if a != b
    ]
    return sorted(found, key=lambda flow: (-flow["documents"], flow["a"], flow["b"]))


def score_differences(tally: Tally) -> dict[str, Any] | None:
    """B's score minus A's, of documents with equal labels: mean and quantiles; None where there are none."""
    count = int(tally.differences.sum())
    if not count:
        return None
    reached = np.cumsum(tally.differences)
    middles = (np.arange(BINS) + 0.5) * 2 / BINS - 1
    quantiles = {
        f"p{100 * share:.0f}": round(float(middles[np.searchsorted(reached, share * count)]), 4) for share in QUANTILES
    }
    return {"documents": count, "mean": tally.difference_sum / count, **quantiles}


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
