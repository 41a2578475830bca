"""Counts of labels against truths -> what they say of a model. Pure numpy; pipeline_ops.analysis.single_label makes the counts.

A label that is no truth and was never given counts in no mean; of a label that was never given the precision is 0, and of
one that is never true the recall, as in scikit-learn with `zero_division=0`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

NUM_BINS = 15  # of scores, for calibration: as in Guo et al.
THRESHOLDS = np.linspace(0, 1, 101).astype(np.float32)  # a score is float32, and so is the threshold that it is compared with
MATRIX_LABELS = 200
MAX_MISTAKEN = 200  # pairs of a truth and a wrong label that are told
DIGITS = 6


def number(value: Any) -> float | None:
    """For JSON: of what is not defined, None."""
    return round(float(value), DIGITS) if np.isfinite(value) else None


def precision_recall_f1(right: np.ndarray, given: np.ndarray, support: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """precision = right / given, recall = right / support, F1 = 2 right / (given + support); of nothing, 0.

    Source: van Rijsbergen, Information Retrieval (1979), chapter 7; F1 is the harmonic mean of the other two.
    """
    return _share(right, given), _share(right, support), _share(2 * np.asarray(right), np.asarray(given) + support)


def _share(part: Any, whole: Any) -> np.ndarray:
    part, whole = np.asarray(part, float), np.asarray(whole, float)
    return np.divide(part, whole, out=np.zeros(np.broadcast(part, whole).shape), where=whole > 0)


def label_measures(names: Sequence[str], right: np.ndarray, given: np.ndarray, support: np.ndarray) -> dict[str, Any]:
    """F1 over all labels, and each label's measures.

    macro_f1 is the mean over labels; micro_f1 that of the sums over labels (Sebastiani 2002, Machine Learning in Automated Text
    Categorization, section 7.1). With one truth and one label per document the latter is the accuracy.

    Args:
        right, given, support: int64 (labels,): documents that have the label rightly, that have it, that should.
    """
    occurs = (given + support) > 0
    precision, recall, f1 = precision_recall_f1(right, given, support)
    micro = precision_recall_f1(right.sum(), given.sum(), support.sum())
    return {
        "macro_f1": number(f1[occurs].mean()) if occurs.any() else None,
        "micro_f1": number(micro[2]),
        "micro_precision": number(micro[0]),
        "micro_recall": number(micro[1]),
        "per_label": [
            {
                "label": names[place],
                "precision": number(precision[place]),
                "recall": number(recall[place]),
                "f1": number(f1[place]),
                "support": int(support[place]),
                "given": int(given[place]),
            }
            for place in np.flatnonzero(occurs).tolist()
        ],
    }


def single_label_measures(pairs: Mapping[tuple[str, str], int], order: Sequence[str]) -> dict[str, Any]:
    """accuracy, label_measures and the confusion of documents that have one truth and one label each.

    A matrix has a row per truth, and there is none of more than MATRIX_LABELS; `mistakes` are the pairs that are not equal, the
    most frequent first.

    Args:
        pairs: documents by (truth, label).
        order: the model's labels; truths that it does not have come behind them.
    """
    occurring = {name for pair in pairs for name in pair}
    names = [name for name in order if name in occurring]
    names += sorted(occurring.difference(names))
    place = {name: number for number, name in enumerate(names)}
    right, given, support = (np.zeros(len(names), np.int64) for _ in range(3))
    matrix = np.zeros((len(names), len(names)), np.int64) if len(names) <= MATRIX_LABELS else None
    for (truth, label), documents in pairs.items():
        support[place[truth]] += documents
        given[place[label]] += documents
        if truth == label:
            right[place[label]] = documents
        if matrix is not None:
            matrix[place[truth], place[label]] = documents
    wrong = sorted(((-count, truth, label) for (truth, label), count in pairs.items() if truth != label))
    return {
        "accuracy": number(_share(right.sum(), support.sum())),
        **label_measures(names, right, given, support),
        "confusion": {
            "labels": names,
            "matrix": None if matrix is None else matrix.tolist(),
            "mistakes": [{"truth": truth, "label": label, "documents": -count} for count, truth, label in wrong[:MAX_MISTAKEN]],
        },
    }


def calibration_bin(scores: np.ndarray) -> np.ndarray:
    """int64, like `scores`: the bin of each score; of NUM_BINS equal ones, each with its upper and without its lower end."""
    return np.clip(np.ceil(scores.astype(np.float64) * NUM_BINS).astype(np.int64) - 1, 0, NUM_BINS - 1)


def calibration(count: np.ndarray, score_sum: np.ndarray, right: np.ndarray) -> dict[str, Any] | None:
    """The expected calibration error, sum over bins of (count / all) |accuracy - mean score|, and the bins; of nothing, None.

    Source: Guo, Pleiss, Sun, Weinberger 2017, On Calibration of Modern Neural Networks, equation 3 (arXiv:1706.04599).

    Args:
        count, score_sum, right: (NUM_BINS,).
    """
    if not count.sum():
        return None
    accuracy, mean = _share(right, count), _share(score_sum, count)
    error = float((count * np.abs(accuracy - mean)).sum() / count.sum())
    bins = [
        {
            "from": number(place / NUM_BINS),
            "to": number((place + 1) / NUM_BINS),
            "count": int(count[place]),
            "mean_score": number(mean[place]) if count[place] else None,
            "accuracy": number(accuracy[place]) if count[place] else None,
        }
        for place in range(NUM_BINS)
    ]
    return {"expected_calibration_error": number(error), "bins": bins}


def threshold_sweep(names: Sequence[str], true: np.ndarray, false: np.ndarray, used: Sequence[float]) -> dict[str, Any]:
    """What each threshold of THRESHOLDS would give, over all labels, and each label's best one by F1.

    Of equally good thresholds the one in their middle: it is the farthest from where F1 falls. These are the best for the
    documents that they were found on, so they promise more than they keep on others.

    Args:
        true, false: int64 (labels, thresholds): scores of documents that should have the label, and of others, that reach this
            threshold and not the next.
        used: the thresholds that the labels were given by.
    """
    right = true[:, ::-1].cumsum(axis=1)[:, ::-1]
    given = right + false[:, ::-1].cumsum(axis=1)[:, ::-1]
    support = np.broadcast_to(true.sum(axis=1, keepdims=True), right.shape)
    _, _, f1 = precision_recall_f1(right, given, support)
    micro = precision_recall_f1(right.sum(axis=0), given.sum(axis=0), support.sum(axis=0))
    known = support[:, 0] > 0
    macro = f1[known].mean(axis=0) if known.any() else np.zeros(len(THRESHOLDS))
    best = [_middle_of_the_best(row) for row in f1]
    return {
        "overall": [
            {
                "threshold": number(THRESHOLDS[place]),
                "precision": number(micro[0][place]),
                "recall": number(micro[1][place]),
                "micro_f1": number(micro[2][place]),
                "macro_f1": number(macro[place]),
            }
            for place in range(len(THRESHOLDS))
        ],
        "best_overall": number(THRESHOLDS[_middle_of_the_best(micro[2])]),
        "per_label": [
            {"label": names[place], "used": number(used[place])}
            | {"best": number(THRESHOLDS[best[place]]), "f1_at_best": number(f1[place, best[place]])}
            for place in np.flatnonzero(known).tolist()
        ],
    }


def _middle_of_the_best(f1: np.ndarray) -> int:
    first = int(f1.argmax())
    others = np.flatnonzero(f1[first:] != f1[first])
    return first + (int(others[0]) if len(others) else len(f1) - first) // 2
