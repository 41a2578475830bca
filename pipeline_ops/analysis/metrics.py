"""Accuracy, precision, recall, F1, calibration and threshold sweep from counts. Pure numpy.

Semantics are scikit-learn's with `zero_division=0`: precision is 0 for a label that was never predicted, recall for one that is
never true. Labels that occur neither as truth nor as prediction are left out of averages.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

NUM_BINS = 15  # of the calibration histogram, as in Guo et al.
THRESHOLDS = np.linspace(0, 1, 101).astype(np.float32)  # float32 like the scores
MAX_MATRIX_LABELS = 200
MAX_CONFUSIONS = 200  # most frequent (truth, wrong label) pairs
DIGITS = 6


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
