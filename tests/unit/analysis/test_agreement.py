"""Agreement, kappa, flows, distances: against scikit-learn, numpy and small cases that are plain to see."""

from collections import Counter

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score

from pipeline_ops.analysis.agreement import (
    AgreementCounts,
    AlignedPredictions,
    agreement,
    changed_flows,
    changes_by_label,
    distances,
    interpret_kappa,
    score_differences,
    value_differences,
)
from pipeline_ops.analysis.moments import PairMoments

RANDOM = np.random.default_rng(5)


def answered(labels: list[int], score: list[float], scores: np.ndarray | None = None) -> AlignedPredictions:
    return AlignedPredictions(np.array(labels, np.int64), np.array(score, float), scores)


def tally_of(a: np.ndarray, b: np.ndarray, parts: int = 1) -> AgreementCounts:
    tally = AgreementCounts()
    for part_a, part_b in zip(np.array_split(a, parts), np.array_split(b, parts), strict=True):
        tally.add(answered(part_a.tolist(), [0.5] * len(part_a)), answered(part_b.tolist(), [0.5] * len(part_b)))
    return tally


@pytest.mark.parametrize("labels", [2, 3, 30])
@pytest.mark.parametrize("kept", [0.0, 0.3, 0.95, 1.0])
def test_kappa_is_scikit_learns(labels: int, kept: float) -> None:
    a = RANDOM.integers(0, labels, 500)
    b = np.where(RANDOM.random(500) < kept, a, RANDOM.integers(0, labels, 500))
    agreed, kappa = agreement(tally_of(a, b, parts=7).flows)
    assert agreed == (a == b).sum()
    assert kappa == pytest.approx(cohen_kappa_score(a, b), abs=1e-12)


def test_kappa_below_chance_is_negative() -> None:
    agreed, kappa = agreement(Counter({(0, 1): 5, (1, 0): 5}))
    assert (agreed, kappa) == (0, -1)


def test_kappa_where_both_give_one_label_only_is_not_defined() -> None:
    assert agreement(Counter({(1, 1): 9})) == (9, None)
    assert agreement(Counter({(1, 0): 9})) == (0, 0)
    assert agreement(Counter()) == (0, None)


@pytest.mark.parametrize(
    ("kappa", "word"),
    [
        *((-0.1, "poor"), (0.0, "slight"), (0.2, "slight"), (0.21, "fair"), (0.41, "moderate"), (0.61, "substantial")),
        *((0.81, "almost perfect"), (1.0, "almost perfect"), (None, None)),
    ],
)
def test_reading_is_landis_and_kochs_band(kappa: float | None, word: str | None) -> None:
    assert interpret_kappa(kappa) == word


def test_flows_and_labels_of_a_small_case() -> None:
    flows = Counter({(0, 0): 6, (0, 1): 3, (1, 1): 5, (1, 2): 1, (2, 0): 2})
    names = ["old", "new", "rare"]
    assert changed_flows(flows, names) == [
        {"a": "old", "b": "new", "documents": 3, "share": 3 / 9},
        {"a": "rare", "b": "old", "documents": 2, "share": 1.0},
        {"a": "new", "b": "rare", "documents": 1, "share": 1 / 6},
    ]
    assert changes_by_label(flows, names) == [
        {"label": "old", "in_a": 9, "in_b": 8, "stayed": 6, "left": 3, "came": 2},
        {"label": "new", "in_a": 6, "in_b": 8, "stayed": 5, "left": 1, "came": 3},
        {"label": "rare", "in_a": 2, "in_b": 1, "stayed": 0, "left": 2, "came": 1},
    ]


def softmax(logits: np.ndarray) -> np.ndarray:
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    return shifted / shifted.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("labels", [2, 5, 40])
def test_distance_from_best_scores_is_a_bound_of_the_one_from_all(labels: int) -> None:
    first, second = softmax(RANDOM.normal(size=(2000, labels)) * 3), softmax(RANDOM.normal(size=(2000, labels)) * 3)
    whole = [AlignedPredictions(one.argmax(axis=1), one.max(axis=1), one) for one in (first, second)]
    best = [AlignedPredictions(one.labels, one.score) for one in whole]
    exact, bound = (distances(*pair, activation="softmax", fallbacks=[]) for pair in (whole, best))
    np.testing.assert_allclose(exact, np.maximum(first - second, 0).sum(axis=1), atol=1e-12)
    assert (bound <= exact + 1e-12).all()
    assert (bound >= 0).all()
    if labels == 2:
        np.testing.assert_allclose(bound, exact, atol=1e-12)


def test_distances_of_small_cases() -> None:
    a, b = answered([0, 0, 0, 2], [0.9, 0.9, 0.5, 0.3]), answered([0, 1, 1, 1], [0.6, 0.8, 0.5, 0.9])
    assert distances(a, b, "softmax", [2]).tolist() == pytest.approx([0.3, 0.7, 0, 0.6])
    assert distances(a, b, None, []).tolist() == [0, 1, 1, 1]
    assert distances(answered([0], [-3]), answered([0], [4.5]), "none", []).tolist() == [7.5]
    several = [answered([0], [0.9], np.array([row])) for row in ([0.9, 0.2], [0.8, 0.7])]
    assert distances(*several, activation="sigmoid", fallbacks=[]).tolist() == pytest.approx([0.5])


def test_score_differences_are_of_documents_with_equal_labels() -> None:
    scores_a, scores_b = RANDOM.random(4000), RANDOM.random(4000)
    labels_a, labels_b = RANDOM.integers(0, 2, 4000), RANDOM.integers(0, 2, 4000)
    tally = AgreementCounts()
    for at in np.array_split(np.arange(4000), 3):
        tally.add(AlignedPredictions(labels_a[at], scores_a[at]), AlignedPredictions(labels_b[at], scores_b[at]))
    difference = (scores_b - scores_a)[labels_a == labels_b]
    found = score_differences(tally)
    assert found is not None
    assert found["documents"] == len(difference)
    assert found["mean"] == pytest.approx(difference.mean(), abs=1e-12)
    for name, share in (("p5", 0.05), ("p25", 0.25), ("p50", 0.5), ("p75", 0.75), ("p95", 0.95)):
        assert found[name] == pytest.approx(np.quantile(difference, share, method="inverted_cdf"), abs=0.001)
    assert score_differences(AgreementCounts()) is None


@pytest.mark.parametrize("offset", [0, 1e6])
def test_value_differences_are_numpys_however_the_documents_are_cut(offset: float) -> None:
    a = RANDOM.normal(size=999) + offset
    b = 0.7 * a + RANDOM.normal(size=999)
    values = PairMoments()
    for at in np.array_split(np.arange(999), 5):
        values.add(a[at], b[at])
    found = value_differences(values)
    assert found["pearson_r"] == pytest.approx(np.corrcoef(a, b)[0, 1], abs=1e-9)
    assert found["mean"] == pytest.approx((b - a).mean(), rel=1e-9)
    assert found["mean_absolute"] == pytest.approx(np.abs(b - a).mean(), rel=1e-9)


def test_value_differences_of_a_constant_have_no_correlation() -> None:
    values = PairMoments()
    values.add(np.ones(3), np.arange(3.0))
    assert value_differences(values)["pearson_r"] is None
