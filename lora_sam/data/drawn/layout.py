"""How many objects a scene has, how large they are, and where; all in pixels."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from lora_sam.data.drawn.dice import Dice

SMALLEST = 8.0
"""Least diameter."""

LARGEST_SHARE = 0.8
"""Largest diameter, as a share of the picture's side."""

FULL_AREA = 512 * 512
"""Area of the picture that numbers of objects are stated for."""

Point = tuple[float, float]
"""(x, y)."""


def crowd(dice: Dice, side: int, radius: float, most: int) -> int:
    """How many objects of this radius: from some to a dense crowd, at most `most` on 512 × 512 pixels."""
    fitting = 0.6 * side * side / (math.pi * radius * radius)
    limit = max(2.0, min(fitting, most * side * side / FULL_AREA))
    return round(dice.log_uniform(2, limit) if dice.chance(0.4) else dice.log_uniform(limit / 3, limit))


def diameters(dice: Dice, side: int, least: float = SMALLEST) -> tuple[float, float]:
    """Range of diameters in a scene: small ones, all, or some; none below `least`."""
    largest = LARGEST_SHARE * side
    kind = dice.uniform(0, 1)
    if kind < 0.35:
        low, high = 12.0, min(45.0, largest)
    elif kind < 0.65:
        low, high = SMALLEST, largest
    else:
        low = dice.log_uniform(SMALLEST, largest / 2)
        high = min(largest, low * dice.uniform(1.5, 5))
    low = max(low, least)
    return low, max(high, low)


def radii_between(dice: Dice, low: float, high: float, count: int) -> NDArray[np.float64]:
    """`count` radii for diameters from `low` to `high`, uniform in the logarithm."""
    return np.exp(dice.array.uniform(math.log(low / 2), math.log(high / 2), count))


def radii_around(dice: Dice, side: int, middle: float, spread: float, count: int) -> NDArray[np.float64]:
    """`count` radii around `middle`; `spread` is the standard deviation of their logarithm."""
    radii = middle * np.exp(dice.array.normal(0, spread, count))
    return np.clip(radii, SMALLEST / 2, LARGEST_SHARE * side / 2)


def anywhere(dice: Dice, side: int) -> Point:
    """Any place in the picture."""
    return dice.uniform(0, side), dice.uniform(0, side)


def scatter(
    dice: Dice,
    side: int,
    radii: Sequence[float] | NDArray[np.float64],
    *,
    gap: float,
    clusters: int = 0,
    spread: float | None = None,
) -> list[tuple[int, Point, float]]:
    """Places for discs: (index in `radii`, centre (x, y), radius) of those that found room.

    Args:
        dice: Source of the places.
        side: Side of the picture.
        radii: Radii of the discs.
        gap: Least distance of two centres, in sums of their radii: below 1 they overlap.
        clusters: Number of clusters around which they gather; 0 for everywhere.
        spread: Standard deviation of the places in a cluster; None for a share of the side.
    """
    rng = dice.array
    count = len(radii)
    tries = 10
    if clusters:
        centres = rng.uniform(0.05, 0.95, (clusters, 2)) * side
        spread = dice.uniform(0.05, 0.18) * side if spread is None else spread
        candidates = centres[rng.integers(0, clusters, (count, tries))] + rng.normal(0, spread, (count, tries, 2))
    else:
        candidates = rng.uniform(0, side, (count, tries, 2))
    taken = np.empty((count, 2))
    sizes = np.empty(count)
    result: list[tuple[int, Point, float]] = []
    for index in range(count):
        found = len(result)
        options = candidates[index]
        apart = np.hypot(*(options[:, None] - taken[:found]).transpose(2, 0, 1)) - gap * (sizes[:found] + radii[index])
        free = (apart > 0).all(1) & (options >= 0).all(1) & (options < side).all(1)
        if free.any():
            x, y = options[int(free.argmax())].tolist()
            taken[found], sizes[found] = (x, y), radii[index]
            result.append((index, (x, y), float(radii[index])))
    return result
