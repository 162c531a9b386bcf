"""Shapes that learning curves have, the inverse power law a - b n^-c first, fitted by least squares."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

POWERS = np.linspace(0.1, 2.0, 39)
"""The exponents c that are tried."""


@dataclass(frozen=True)
class Shape:
    """Curves level - slope * falling(n, parameter) with a slope of at least 0.

    Attributes:
        parameters: Those that are tried, [K].
        falling: Of n and a parameter, falling with n.
        ends: Whether it comes to an end, the level, which is at most 1.
    """

    parameters: NDArray[np.float64]
    falling: Callable[[NDArray[np.float64], NDArray[np.float64]], NDArray[np.float64]]
    ends: bool

    def nearest(
        self, shots: NDArray[np.float64], means: NDArray[np.float64], weights: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """(level, slope, parameter) of the curve that is nearest to each row of `means` [N, S] at `shots` [S]: [N, 3].

        Args:
            shots: Numbers of images.
            means: At these.
            weights: Of each number, [S].
        """

        def average(values: NDArray[np.float64]) -> NDArray[np.float64]:
            return np.average(values, axis=-1, weights=weights)

        count = len(means)
        best = np.column_stack([average(means), np.zeros(count), np.ones(count)])
        least = np.full(count, np.inf)
        y = weights * (means - average(means)[:, None])
        for parameter in self.parameters:
            falling = self.falling(shots, parameter)
            x = falling - average(falling)
            spread = float((weights * x * x).sum())
            slope = np.maximum(0.0, -(y * x).sum(axis=1) / spread) if spread > 0 else np.zeros(count)
            level = average(means + slope[:, None] * falling)
            if self.ends:
                # no IoU is above 1: the nearest curve that ends there
                above = level > 1.0
                ending = (weights * (1.0 - means) * falling).sum(axis=1) / (weights * falling * falling).sum()
                level, slope = np.where(above, 1.0, level), np.where(above, np.maximum(0.0, ending), slope)
            error = (weights * (means - level[:, None] + slope[:, None] * falling) ** 2).sum(axis=1)
            better = error < least - 1e-15
            least[better] = error[better]
            best[better] = np.column_stack([level, slope, np.full(count, parameter)])[better]
        return best

    def heights(self, curves: NDArray[np.float64], shots: float) -> NDArray[np.float64]:
        """Heights of `curves` [N, 3] at `shots`, at most 1: [N]."""
        level, slope, parameter = curves.T
        return np.asarray(np.minimum(1.0, level - slope * self.falling(np.full(len(curves), shots), parameter)))

    def free(self, curve: NDArray[np.float64]) -> int:
        """How many of the numbers of a curve [3] were fitted: what is at its limit was not."""
        level, slope, parameter = curve.tolist()
        if slope <= 0.0:
            return 1
        inside = len(self.parameters) > 1 and self.parameters[0] < parameter < self.parameters[-1]
        return 1 + int(not (self.ends and level >= 1.0)) + int(inside)


POWER_LAW = Shape(POWERS, lambda shots, power: shots**-power, ends=True)


def shapes_for(shots: NDArray[np.float64]) -> tuple[Shape, ...]:
    """The inverse power law, an exponential approach, and a logarithm: how curves through `shots` may go on."""
    ranges = np.geomspace(shots[0] / 2 + 0.5, 10 * shots[-1], 40)
    return (
        POWER_LAW,
        Shape(ranges, lambda count, range_: np.exp(-count / range_), ends=True),
        Shape(np.ones(1), lambda count, _: -np.log(count), ends=False),
    )


def power_law(
    shots: NDArray[np.float64], means: NDArray[np.float64], weights: NDArray[np.float64]
) -> tuple[float, float, float]:
    """(a, b, c) of the curve a - b n^-c that is nearest to `means` [S] at `shots` [S], weighted by `weights` [S]."""
    ((level, slope, power),) = POWER_LAW.nearest(shots, means[None], weights).tolist()
    return level, slope, power


def value_at(curve: tuple[float, float, float], shots: float) -> float:
    """Height of the curve (a, b, c) at `shots`."""
    level, slope, power = curve
    return float(level - slope * shots**-power)
