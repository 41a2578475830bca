"""Selective prediction: how many labels a minimum score keeps, and how many of these are right. Pure numpy.

Coverage is the share of documents that keep their label; the selective risk is the share of wrong labels among these, given as
its complement, the accuracy. R. El-Yaniv, Y. Wiener, On the Foundations of Noise-free Selective Classification, Journal of
Machine Learning Research 11 (2010).
"""

from typing import Any

import numpy as np

from pipeline_ops.analysis.metrics import Z_ONE_SIDED, number, wilson_interval

STEPS = 1000
MIN_SCORES = (np.arange(STEPS + 1) / STEPS).astype(np.float32)  # float32, as model.min_score is compared
CURVE_STEP = 10  # of these, every tenth is in the curve
TARGETS = (0.8, 0.9, 0.95, 0.98, 0.99)  # accuracies of the kept labels
SUGGESTED_TARGET = 0.95


class RiskCoverage:
    """Histogram of scores by right and wrong, of documents whose label is that of the score."""

    def __init__(self) -> None:
        self._documents, self._right = (np.zeros(len(MIN_SCORES), np.int64) for _ in range(2))

    def add(self, scores: np.ndarray, correct: np.ndarray) -> None:
        """Add float32 (documents,) in [0, 1] and bool (documents,)."""
        reached = np.searchsorted(MIN_SCORES, scores, side="right") - 1  # the highest min_score that keeps the label
        self._documents += np.bincount(reached, minlength=len(MIN_SCORES))
        self._right += np.bincount(reached[correct], minlength=len(MIN_SCORES))

    def result(self, min_score: float | None, fallbacks: int) -> dict[str, Any] | None:
        """Coverage and accuracy by minimum score; None if there are no scores.

        For each of TARGETS `min_score` is the lowest one, in steps of 1 / STEPS, with which the target is met: the lower end of
        the one-sided 95 % interval of the kept labels' accuracy (Wilson 1927) is at least the target, so that a few right
        labels prove nothing. An unmet target has no `min_score` and covers no documents. `suggested` is the entry of
        SUGGESTED_TARGET, else of the highest lower target that is met; None if the labels meet it as they are, or none is met.

        Args:
            min_score: the head's, below which labels have been replaced already; lower ones cannot be evaluated.
            fallbacks: documents with the fallback label.
        """
        kept, right = (counts[::-1].cumsum()[::-1] for counts in (self._documents, self._right))
        total = int(kept[0]) + fallbacks
        if not total:
            return None
        lowest = 0 if min_score is None else int(np.searchsorted(MIN_SCORES, np.float32(min_score)))
        places = range(min(lowest, STEPS), STEPS + 1)

        def entry(min_score: float | None, place: int | None) -> dict[str, Any]:
            documents = 0 if place is None else int(kept[place])
            return {
                "min_score": None if min_score is None else number(min_score),
                "coverage": number(documents / total),
                "accuracy": number(right[place] / documents) if documents else None,
                "documents": documents,
            }

        bounds = {place: wilson_interval(int(right[place]), int(kept[place]), Z_ONE_SIDED)[0] for place in places}
        targets, suggested = [], None
        for target in TARGETS:
            met = next((place for place in places if bounds[place] >= target), None)
            targets.append({"target": target, **entry(None if met is None else float(MIN_SCORES[met]), met)})
            if target <= SUGGESTED_TARGET and met is not None:
                suggested = None if met == places[0] else targets[-1]
        return {
            "as_labeled": entry(min_score, 0),
            "targets": targets,
            "suggested": suggested,
            "curve": [entry(float(MIN_SCORES[place]), place) for place in places if place % CURVE_STEP == 0 and kept[place]],
        }
