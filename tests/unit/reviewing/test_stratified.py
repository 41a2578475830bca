"""The estimate from a stratified sample: its interval covers the truth, whatever the strata are."""

import numpy as np
import pytest
from scipy.stats import binomtest

from pipeline_ops.reviewing.stratified import StratumCount, corrected_wilson_interval, estimate_accuracy

LABELS = np.random.default_rng(1)  # of 77 labels: their documents, and how many of them are right
DOCUMENTS_77 = LABELS.lognormal(5, 1, 77).astype(int) + 5
SHARES_77 = LABELS.beta(9, 1, 77)


@pytest.mark.parametrize(
    ("documents", "reviewed", "shares"),
    [
        pytest.param([100_000], [200], [0.95], id="one"),
        pytest.param([100_000], [50], [0.98], id="one-nearly-all-right"),
        pytest.param([200], [150], [0.9], id="most-of-a-small-one"),
        pytest.param([200, 9800], [200, 50], [0.6, 0.98], id="all-uncertain-and-some-others"),
        pytest.param([200, 9800], [200, 100], [0.6, 0.9], id="all-uncertain-and-more-others"),
        pytest.param([4000, 3000, 2000, 1000], [50] * 4, [0.97, 0.92, 0.85, 0.7], id="four-labels"),
        pytest.param(DOCUMENTS_77, [1] * 77, SHARES_77, id="one-of-each-of-77-labels"),
        pytest.param(DOCUMENTS_77, [3] * 77, SHARES_77, id="three-of-each-of-77-labels"),
        pytest.param(DOCUMENTS_77, [3] * 77, SHARES_77**0.1, id="three-of-each-nearly-all-right"),
        pytest.param([100_000, 100, 100], [20] * 3, [0.9, 0.5, 0.3], id="one-that-has-nearly-all"),
        pytest.param([5000, 500], [50, 50], [0.99, 0.5], id="a-bad-small-one"),
        pytest.param([1000] * 5, [2] * 5, [0.95, 0.9, 0.9, 0.8, 0.6], id="two-of-each-of-five"),
        pytest.param([5000, 500], [50, 50], [1.0, 0.0], id="right-and-wrong"),
    ],
)
def test_interval_covers_the_accuracy_in_at_least_93_percent_of_samples(documents, reviewed, shares) -> None:
    documents, reviewed = np.array(documents), np.array(reviewed)
    right = np.rint(documents * np.array(shares)).astype(int)
    accuracy = right.sum() / documents.sum()
    found = np.random.default_rng(0).hypergeometric(right, documents - right, reviewed, size=(400, len(documents)))
    samples = [
        estimate_accuracy([StratumCount("", *counts) for counts in np.stack([documents, reviewed, one], axis=1).tolist()])
        for one in found
    ]
    covered = np.mean([one.low <= accuracy <= one.high for one in samples])
    assert covered >= 0.93
    assert np.mean([one.accuracy for one in samples]) == pytest.approx(accuracy, abs=0.02)  # unbiased
    assert all(one.low <= one.accuracy <= one.high for one in samples)


def test_strata_count_by_their_documents_and_those_reviewed_as_a_whole_add_no_uncertainty() -> None:
    census, sample = StratumCount("uncertain", 200, 200, 120), StratumCount("random", 9800, 100, 98)
    both, alone = estimate_accuracy([census, sample]), estimate_accuracy([sample])
    assert both.accuracy == pytest.approx(0.02 * 0.6 + 0.98 * 0.98)
    assert (both.low, both.high) == pytest.approx((0.012 + 0.98 * alone.low, 0.012 + 0.98 * alone.high))
    whole = estimate_accuracy([census])
    assert (whole.accuracy, whole.low, whole.high, whole.effective_documents) == (0.6, 0.6, 0.6, None)


def test_one_stratum_is_a_simple_random_sample_with_finite_population_correction() -> None:
    found = estimate_accuracy([StratumCount("random", 10**9, 200, 190)])
    expected = binomtest(190, 200).proportion_ci(method="wilsoncc")
    assert found.effective_documents == pytest.approx(200)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))
    assert estimate_accuracy([StratumCount("random", 400, 200, 190)]).effective_documents == pytest.approx(200 * 399 / 200)


def test_strata_that_are_all_right_or_have_one_document_have_an_interval() -> None:
    found = estimate_accuracy([StratumCount("a", 500, 40, 40), StratumCount("b", 500, 1, 1)])
    assert found.accuracy == found.high == 1
    assert 0.1 < found.low < 0.7


@pytest.mark.parametrize(("count", "total"), [(0, 20), (20, 20), (81, 263), (1, 3), (1, 1)])
def test_corrected_interval_is_scipys(count: int, total: int) -> None:
    expected = binomtest(count, total).proportion_ci(method="wilsoncc")
    assert corrected_wilson_interval(count / total, total) == pytest.approx((expected.low, expected.high))
