"""Accuracy, precision, recall, F1, calibration, threshold sweep, intervals and tests of accuracies, from counts. Pure numpy.

Semantics are scikit-learn's with `zero_division=0`: precision is 0 for a label that was never predicted, recall for one that is
never true. Labels that occur neither as truth nor as prediction are left out of averages.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

NUM_BINS = 15  # of the calibration histogram, as in Guo et al.
THRESHOLDS = np.linspace(0, 1, 101).astype(np.float32)  # float32 like the scores
MAX_MATRIX_LABELS = 200
MAX_CONFUSIONS = 200  # most frequent (truth, wrong label) pairs
DIGITS = 6
Z_TWO_SIDED = 1.959963984540054  # 97.5th percentile of the normal distribution: 95 % between -Z and Z
Z_ONE_SIDED = 1.6448536269514722  # 95th percentile
MAX_EXACT = 1000  # discordant pairs; with more, chi-square is accurate


def number(value: Any) -> float | None:
    """Rounded, for JSON; None if not finite."""
    return round(float(value), DIGITS) if np.isfinite(value) else None


def precision_recall_f1(
    correct: np.ndarray, predicted: np.ndarray, support: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """precision = correct / predicted, recall = correct / support, F1 = 2 correct / (predicted + support); 0 for 0 / 0.

    Source: van Rijsbergen, Information Retrieval (1979), chapter 7; F1 is the harmonic mean of the other two.
    """
    return (
        _ratio(correct, predicted),
        _ratio(correct, support),
        _ratio(2 * np.asarray(correct), np.asarray(predicted) + support),
    )


def _ratio(numerator: Any, denominator: Any) -> np.ndarray:
    """Elementwise quotient; 0 where the denominator is 0."""
    numerator, denominator = np.asarray(numerator, float), np.asarray(denominator, float)
    zeros = np.zeros(np.broadcast(numerator, denominator).shape)
    return np.divide(numerator, denominator, out=zeros, where=denominator > 0)


def label_metrics(names: Sequence[str], correct: np.ndarray, predicted: np.ndarray, support: np.ndarray) -> dict[str, Any]:
    """Macro- and micro-averaged F1, and precision, recall, F1 and counts per label.

    macro_f1 is the mean of the labels' F1, micro_f1 the F1 of the summed counts (Sebastiani 2002, Machine Learning in Automated
    Text Categorization, section 7.1); with one true label and one prediction per document the latter equals the accuracy.

    Args:
        correct, predicted, support: int64 (labels,): documents for which the label is correctly predicted, predicted, true.
    """
    occurs = (predicted + support) > 0
    precision, recall, f1 = precision_recall_f1(correct, predicted, support)
    micro = precision_recall_f1(correct.sum(), predicted.sum(), support.sum())
    return {
        "macro_f1": number(f1[occurs].mean()) if occurs.any() else None,
        "micro_f1": number(micro[2]),
        "micro_precision": number(micro[0]),
        "micro_recall": number(micro[1]),
        "per_label": [
            {
                "label": names[at],
                "precision": number(precision[at]),
                "recall": number(recall[at]),
                "f1": number(f1[at]),
                "support": int(support[at]),
                "given": int(predicted[at]),
            }
            for at in np.flatnonzero(occurs).tolist()
        ],
    }


def single_label_metrics(pairs: Mapping[tuple[str, str], int], order: Sequence[str]) -> dict[str, Any]:
    """Accuracy, its majority baseline, label_metrics() and confusion of documents with one true label and one prediction each.

    The baseline gives every document the most frequent true label. The confusion matrix has a row per true label; None for more
    than MAX_MATRIX_LABELS labels. `mistakes` are the most frequent (truth, label) pairs that differ; `share` is relative to the
    documents of the truth.

    Args:
        pairs: {(true label, predicted label): documents}.
        order: the model's labels; other true labels are appended in alphabetical order.
    """
    occurring = {name for pair in pairs for name in pair}
    names = [name for name in order if name in occurring]
    names += sorted(occurring.difference(names))
    index = {name: number for number, name in enumerate(names)}
    correct, predicted, support = (np.zeros(len(names), np.int64) for _ in range(3))
    matrix = np.zeros((len(names), len(names)), np.int64) if len(names) <= MAX_MATRIX_LABELS else None
    for (truth, label), documents in pairs.items():
        support[index[truth]] += documents
        predicted[index[label]] += documents
        if truth == label:
            correct[index[label]] = documents
        if matrix is not None:
            matrix[index[truth], index[label]] = documents
    wrong = sorted(((-count, truth, label) for (truth, label), count in pairs.items() if truth != label))
    majority = int(support.argmax()) if names else None
    return {
        "accuracy": number(_ratio(correct.sum(), support.sum())),
        "baseline": None
        if majority is None
        else {"label": names[majority], "accuracy": number(support[majority] / support.sum())},
        **label_metrics(names, correct, predicted, support),
        "confusion": {
            "labels": names,
            "matrix": None if matrix is None else matrix.tolist(),
            "mistakes": [
                {"truth": truth, "label": label, "documents": -count, "share": number(-count / support[index[truth]])}
                for count, truth, label in wrong[:MAX_CONFUSIONS]
            ],
        },
    }


def calibration_bin(scores: np.ndarray) -> np.ndarray:
    """int64, shaped like `scores`: the index of each score's bin (lower, upper], of NUM_BINS equal ones over [0, 1]."""
    return np.clip(np.ceil(scores.astype(np.float64) * NUM_BINS).astype(np.int64) - 1, 0, NUM_BINS - 1)


def calibration(count: np.ndarray, score_sum: np.ndarray, correct: np.ndarray) -> dict[str, Any] | None:
    """Expected calibration error, the sum over bins of (count / total) |accuracy - mean score|, and the bins.

    Source: Guo, Pleiss, Sun, Weinberger 2017, On Calibration of Modern Neural Networks, equation 3 (arXiv:1706.04599).

    Args:
        count, score_sum, correct: (NUM_BINS,), per bin.

    Returns:
        None if there are no scores.
    """
    if not count.sum():
        return None
    accuracy, mean = _ratio(correct, count), _ratio(score_sum, count)
    error = float((count * np.abs(accuracy - mean)).sum() / count.sum())
    bins = [
        {
            "from": number(at / NUM_BINS),
            "to": number((at + 1) / NUM_BINS),
            "count": int(count[at]),
            "mean_score": number(mean[at]) if count[at] else None,
            "accuracy": number(accuracy[at]) if count[at] else None,
        }
        for at in range(NUM_BINS)
    ]
    return {"expected_calibration_error": number(error), "bins": bins}


def threshold_sweep(
    names: Sequence[str], positives: np.ndarray, negatives: np.ndarray, used: Sequence[float]
) -> dict[str, Any]:
    """Precision, recall and F1 at each of THRESHOLDS over all labels, and each label's best threshold by F1.

    Of several thresholds with the best F1 the middle one, the farthest from where F1 drops. The best thresholds are selected on
    the evaluated documents, so their F1 is optimistic for others.

    Args:
        positives, negatives: int64 (labels, thresholds): number of scores of documents with and without the true label that
            reach this threshold and not the next.
        used: each label's threshold in the job.
    """
    correct = positives[:, ::-1].cumsum(axis=1)[:, ::-1]
    predicted = correct + negatives[:, ::-1].cumsum(axis=1)[:, ::-1]
    support = np.broadcast_to(positives.sum(axis=1, keepdims=True), correct.shape)
    _, _, f1 = precision_recall_f1(correct, predicted, support)
    micro = precision_recall_f1(correct.sum(axis=0), predicted.sum(axis=0), support.sum(axis=0))
    known = support[:, 0] > 0
    macro = f1[known].mean(axis=0) if known.any() else np.zeros(len(THRESHOLDS))
    best = [_middle_of_best(row) for row in f1]
    return {
        "overall": [
            {
                "threshold": number(THRESHOLDS[at]),
                "precision": number(micro[0][at]),
                "recall": number(micro[1][at]),
                "micro_f1": number(micro[2][at]),
                "macro_f1": number(macro[at]),
            }
            for at in range(len(THRESHOLDS))
        ],
        "best_overall": number(THRESHOLDS[_middle_of_best(micro[2])]),
        "per_label": [
            {"label": names[at], "used": number(used[at])}
            | {"best": number(THRESHOLDS[best[at]]), "f1_at_best": number(f1[at, best[at]])}
            for at in np.flatnonzero(known).tolist()
        ],
    }


def _middle_of_best(f1: np.ndarray) -> int:
    first = int(f1.argmax())
    others = np.flatnonzero(f1[first:] != f1[first])
    return first + (int(others[0]) if len(others) else len(f1) - first) // 2


def wilson_interval(count: int, total: int, z: float = Z_TWO_SIDED) -> tuple[float, float]:
    """Wilson's score interval of count / total, without continuity correction; (0, 1) for an empty sample.

    Unlike the normal approximation it holds for small samples and for shares near 0 and 1.

    Source: E. B. Wilson, Probable Inference, the Law of Succession, and Statistical Inference, Journal of the American
    Statistical Association 22 (1927).
    """
    if not total:
        return 0.0, 1.0
    share = count / total
    center = share + z**2 / (2 * total)
    half = z * math.sqrt(share * (1 - share) / total + z**2 / (4 * total**2))
    scale = 1 + z**2 / total
    return max((center - half) / scale, 0.0), min((center + half) / scale, 1.0)


def paired_difference_interval(both: int, only_a: int, only_b: int, neither: int) -> tuple[float, float]:
    """95 % interval of B's proportion minus A's, both measured on the same documents; (-1, 1) without documents.

    Source: R. G. Newcombe, Improved Confidence Intervals for the Difference between Binomial Proportions Based on Paired Data,
    Statistics in Medicine 17 (1998), method 10: Wilson's intervals of the two, joined by their correlation phi.
    """
    total = both + only_a + only_b + neither
    if not total:
        return -1.0, 1.0
    a, b = both + only_a, both + only_b
    margins = a * (total - a) * b * (total - b)
    excess = both * neither - only_a * only_b
    if excess > 0:  # continuity correction of phi, as in the source
        excess = max(excess - total / 2, 0)
    phi = excess / math.sqrt(margins) if margins else 0.0
    (low_a, high_a), (low_b, high_b) = wilson_interval(a, total), wilson_interval(b, total)
    share_a, share_b = a / total, b / total

    def distance(first: float, second: float) -> float:
        return math.sqrt(max(first**2 - 2 * phi * first * second + second**2, 0.0))

    difference = share_b - share_a
    return (
        max(difference - distance(share_b - low_b, high_a - share_a), -1.0),
        min(difference + distance(high_b - share_b, share_a - low_a), 1.0),
    )


def mcnemar(only_a: int, only_b: int) -> tuple[float, str]:
    """(two-sided p-value, name of the test) of the hypothesis that A and B are right equally often.

    Of the documents that exactly one of them labels right, half would be A's. Up to MAX_EXACT such documents the p-value is
    that of the binomial distribution, beyond that of chi-square with one degree of freedom and continuity correction.

    Source: Q. McNemar, Note on the Sampling Error of the Difference between Correlated Proportions or Percentages,
    Psychometrika 12 (1947); the correction: A. L. Edwards, Psychometrika 13 (1948).
    """
    discordant = only_a + only_b
    if discordant <= MAX_EXACT:
        tail = sum(math.comb(discordant, count) for count in range(min(only_a, only_b) + 1))
        return min(2 * tail / 2**discordant, 1.0), "exact binomial"
    statistic = max(abs(only_a - only_b) - 1, 0) ** 2 / discordant
    return math.erfc(math.sqrt(statistic / 2)), "chi-square with continuity correction"
