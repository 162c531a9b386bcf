"""How much of a rise of the validation IoU is chance: what trained weights have to gain to take the base's place."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

ClusterSums = tuple[tuple[int, float], ...]
"""(values, their sum) of every independent part of a validation: an image, or all images of a group."""

_ENOUGH = 10  # parts from which on their spread alone tells the error of a mean
_SURE, _LIKELY = 2.0, 1.5  # standard errors that are more than chance: one-sided some 97 %, and 90 % of six images


def sums_of(scores: Sequence[NDArray[np.float64]], clusters: NDArray[np.intp]) -> ClusterSums:
    """The parts of a validation.

    Args:
        scores: IoU of the objects of every image, float [N] each.
        clusters: Which part each image belongs to, int [images], from 0.
    """
    found = [(0, 0.0)] * (int(clusters.max()) + 1)
    for part, values in zip(clusters.tolist(), scores, strict=True):
        count, total = found[part]
        found[part] = (count + len(values), total + float(values.sum()))
    return tuple(found)


def least_rise(least: float, before: ClusterSums, after: ClusterSums) -> float:
    """What the mean IoU per object has to rise by, so that it is hardly chance: `least`, unless the parts say more.

    They say it by the standard error of the paired difference (a ratio estimator: Cochran, Sampling Techniques, 1977,
    chapter 6). The rise has to be one and a half of it. Two are enough where ten parts or more tell it, however small
    the rise is. 0 takes whatever is above.
    """
    if not least or len(before) < 2 or len(before) != len(after):
        return least
    (count, mean), (new_count, new_mean) = map(_mean, (before, after))
    residuals = [
        (new - new_mean * m) / new_count - (old - mean * n) / count
        for (n, old), (m, new) in zip(before, after, strict=True)
    ]
    parts = len(residuals)
    error = math.sqrt(parts / (parts - 1) * sum(value**2 for value in residuals))
    return max(min(least, _SURE * error) if parts >= _ENOUGH else least, _LIKELY * error)


def _mean(parts: ClusterSums) -> tuple[int, float]:
    """Number of values, and their mean."""
    count = sum(n for n, _ in parts)
    return count, sum(total for _, total in parts) / count
