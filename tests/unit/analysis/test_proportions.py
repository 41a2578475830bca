"""Intervals and tests of proportions: those of scipy, and of the paper's definition."""

import math

import numpy as np
import pytest
from scipy.stats import binomtest, chi2

from pipeline_ops.analysis.metrics import MAX_EXACT, mcnemar, paired_difference_interval, wilson_interval


@pytest.mark.parametrize(("count", "total"), [(0, 20), (20, 20), (81, 263), (1, 3)])
def test_wilson_interval_is_scipys(count: int, total: int) -> None:
    expected = binomtest(count, total).proportion_ci(method="wilson")
    assert wilson_interval(count, total) == pytest.approx((expected.low, expected.high))


@pytest.mark.parametrize(("only_a", "only_b"), [(0, 0), (2, 12), (7, 7), (130, 200), (500, 500)])
def test_mcnemar_of_few_discordant_pairs_is_the_binomial_test(only_a: int, only_b: int) -> None:
    expected = binomtest(only_a, only_a + only_b).pvalue if only_a + only_b else 1.0
    assert mcnemar(only_a, only_b) == (pytest.approx(expected), "exact binomial")


def test_mcnemar_of_many_is_chi_square_and_goes_over_smoothly() -> None:
    only_a, only_b = 700, 800
    p_value, test = mcnemar(only_a, only_b)
    assert p_value == pytest.approx(chi2.sf((abs(only_a - only_b) - 1) ** 2 / (only_a + only_b), 1))
    assert test == "chi-square with continuity correction"
    half = MAX_EXACT // 2
    at_limit, beyond = (mcnemar(half - 40, half + more)[0] for more in (40, 41))
    assert beyond == pytest.approx(at_limit, rel=0.1)
    assert mcnemar(10**9, 10**9 + 10**6)[0] < 1e-6


def test_paired_interval_covers_the_difference_in_95_percent_of_samples() -> None:
    random = np.random.default_rng(0)
    for shares in ((0.72, 0.04, 0.24, 0.0), (0.7, 0.1, 0.12, 0.08), (0.5, 0.02, 0.02, 0.46)):
        samples = random.multinomial(120, shares, 2000).tolist()
        intervals = np.array([paired_difference_interval(*sample) for sample in samples])
        assert np.mean((intervals[:, 0] <= shares[2] - shares[1]) & (shares[2] - shares[1] <= intervals[:, 1])) > 0.935


def test_paired_interval_is_that_of_the_definition_and_turns_with_the_sides() -> None:
    both, only_a, only_b, neither = 36, 2, 12, 0
    low, high = paired_difference_interval(both, only_a, only_b, neither)
    phi = (both * neither - only_a * only_b) / math.sqrt(38 * 12 * 48 * 2)
    (low_a, high_a), (low_b, high_b) = wilson_interval(38, 50), wilson_interval(48, 50)
    below, above = (0.96 - low_b, high_a - 0.76), (high_b - 0.96, 0.76 - low_a)
    assert low == pytest.approx(0.2 - math.sqrt(below[0] ** 2 + below[1] ** 2 - 2 * phi * below[0] * below[1]))
    assert high == pytest.approx(0.2 + math.sqrt(above[0] ** 2 + above[1] ** 2 - 2 * phi * above[0] * above[1]))
    assert paired_difference_interval(both, only_b, only_a, neither) == pytest.approx((-high, -low))
    assert paired_difference_interval(0, 0, 0, 0) == (-1, 1)
