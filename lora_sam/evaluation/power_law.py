"""The inverse power law a - b n^-c that learning curves follow, fitted by least squares."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

POWERS = np.linspace(0.1, 2.0, 39)
"""The exponents c that are tried."""


def power_law(
    shots: NDArray[np.float64], means: NDArray[np.float64], weights: NDArray[np.float64]
) -> tuple[float, float, float]:
    """(a, b, c) of the curve a - b n^-c that is nearest to `means` [S] at `shots` [S], weighted by `weights` [S]."""
    ((level, slope, power),) = power_laws(shots, means[None], weights).tolist()
    return level, slope, power


def power_laws(
    shots: NDArray[np.float64], means: NDArray[np.float64], weights: NDArray[np.float64]
) -> NDArray[np.float64]:
    """`power_law` of every row of `means` [N, S]: [N, 3]."""

    def average(values: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.average(values, axis=-1, weights=weights)

    count = len(means)
    best = np.column_stack([average(means), np.zeros(count), np.ones(count)])
    least = np.full(count, np.inf)
    y = weights * (means - average(means)[:, None])
    for power in POWERS.tolist():
        falling = shots**-power
        x = falling - average(falling)
        spread = float((weights * x * x).sum())
        slope = np.maximum(0.0, -(y * x).sum(axis=1) / spread) if spread > 0 else np.zeros(count)
        level = average(means + slope[:, None] * falling)
        # no IoU is above 1: the nearest curve that ends there
        above = level > 1.0
        ending = (weights * (1.0 - means) * falling).sum(axis=1) / (weights * falling * falling).sum()
        level, slope = np.where(above, 1.0, level), np.where(above, np.maximum(0.0, ending), slope)
        error = (weights * (means - level[:, None] + slope[:, None] * falling) ** 2).sum(axis=1)
        better = error < least - 1e-15
        least[better] = error[better]
        best[better] = np.column_stack([level, slope, np.full(count, power)])[better]
    return best


def value_at(curve: tuple[float, float, float], shots: float) -> float:
    """Height of the curve (a, b, c) at `shots`."""
    level, slope, power = curve
    return float(level - slope * shots**-power)
