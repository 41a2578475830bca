"""Confidence intervals of proportions, and the paired comparison of two of them. Pure.

Wilson's interval holds for small samples and near 0 and 1, where the normal approximation fails.
"""

import math

Z_TWO_SIDED = 1.959963984540054  # 97.5th percentile of the normal distribution: 95 % between -Z and Z
Z_ONE_SIDED = 1.6448536269514722  # 95th percentile
MAX_EXACT = 1000  # discordant pairs; with more, chi-square is accurate


def wilson_interval(count: int, total: int, z: float = Z_TWO_SIDED) -> tuple[float, float]:
    """Wilson's score interval of count / total, without continuity correction; (0, 1) for an empty sample.

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
