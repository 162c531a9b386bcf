"""Random numbers of one image: scalars from the standard library (fast), arrays from NumPy, both from one seed."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from typing import TypeVar

import numpy as np

T = TypeVar("T")


class Dice:
    """Throws that depend on the generator it was made from only.

    Attributes:
        array: For many numbers at once.
    """

    def __init__(self, rng: np.random.Generator) -> None:
        self.array = rng
        self._scalar = random.Random(int(rng.integers(2**62)))

    def chance(self, probability: float) -> bool:
        """True with this probability."""
        return self._scalar.random() < probability

    def uniform(self, low: float, high: float) -> float:
        """Uniform in [low, high)."""
        return low + (high - low) * self._scalar.random()

    def angle(self) -> float:
        """Uniform in [0, 2π), in radians."""
        return self.uniform(0, math.tau)

    def log_uniform(self, low: float, high: float) -> float:
        """Uniform in the logarithm: as many between 1 and 2 as between 2 and 4; `high` below `low` counts as `low`."""
        return float(low * (max(high, low) / low) ** self._scalar.random())

    def normal(self, spread: float) -> float:
        """Normal with mean 0."""
        return self._scalar.gauss(0.0, spread)

    def integer(self, low: int, high: int) -> int:
        """Uniform in low, …, high; `high` below `low` counts as `low`."""
        return low + int(self._scalar.random() * (max(high, low) - low + 1))

    def pick(self, options: Sequence[T]) -> T:
        """One of the options, equally likely."""
        return options[int(self._scalar.random() * len(options))]

    def sign(self) -> int:
        """-1 or 1."""
        return 1 if self._scalar.random() < 0.5 else -1
