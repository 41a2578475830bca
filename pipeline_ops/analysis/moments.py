"""Moments of pairs of numbers, accumulated part by part. Pure numpy.

Parts are merged by the pairwise update of T. F. Chan, G. H. Golub, R. J. LeVeque, Algorithms for Computing the Sample Variance:
Analysis and Recommendations, The American Statistician 37 (1983), which keeps its precision where the mean is large.
"""

import math
from dataclasses import dataclass, field

import numpy as np


@dataclass
class PairMoments:
    """Count, means and centered second moments of pairs (x, y), and the sums that their differences need."""

    count: int = 0
    means: np.ndarray = field(default_factory=lambda: np.zeros(2))
    products: np.ndarray = field(default_factory=lambda: np.zeros((2, 2)))  # sums of products of deviations from the means
    absolute_difference: float = 0.0  # sum of |y - x|
    squared_difference: float = 0.0

    def add(self, x: np.ndarray, y: np.ndarray) -> None:
        """Add float64 (pairs,) and (pairs,)."""
        if not len(x):
            return
        self.absolute_difference += float(np.abs(y - x).sum())
        self.squared_difference += float(((y - x) ** 2).sum())
        pairs = np.stack([x, y])
        means = pairs.mean(axis=1)
        deviations, shift = pairs - means[:, None], means - self.means
        total = self.count + len(x)
        self.products += deviations @ deviations.T + np.outer(shift, shift) * self.count * len(x) / total
        self.means += shift * len(x) / total
        self.count = total

    def std_x(self) -> float | None:
        """Population standard deviation of x: the root mean squared error of predicting its mean. None without pairs."""
        return math.sqrt(self.products[0, 0] / self.count) if self.count else None

    def r2(self) -> float | None:
        """Coefficient of determination of y as a prediction of x: 1 - squared errors / squared deviations of x from its mean.

        0 for predicting the mean; None if x is constant.
        """
        deviations = float(self.products[0, 0])
        return 1 - self.squared_difference / deviations if deviations > 0 else None

    def pearson_r(self) -> float | None:
        """Pearson's correlation coefficient; None if x or y is constant."""
        (x, product), (_, y) = self.products.tolist()
        return product / (math.sqrt(x) * math.sqrt(y)) if x > 0 and y > 0 else None
