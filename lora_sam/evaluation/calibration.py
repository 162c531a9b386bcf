"""Whether a model knows how good its masks are: its predicted IoU against the IoU that they have."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

BINS = 10


@dataclass(frozen=True)
class Bin:
    """The masks whose predicted IoU lies in one part of 0 to 1.

    Attributes:
        low: Least predicted IoU.
        high: Upper end, which belongs to the next bin.
        objects: Number of masks.
        predicted: Mean of their predicted IoU; None without masks.
        actual: Mean of the IoU that they have; None without masks.
    """

    low: float
    high: float
    objects: int
    predicted: float | None
    actual: float | None


@dataclass(frozen=True)
class Reliability:
    """How far predicted IoU can be trusted.

    Attributes:
        error: Expected calibration error (Naeini et al., 2015): over bins, the difference of mean predicted and mean
            actual IoU, weighted by the share of the masks; 0 is perfect, 1 the worst.
        bias: Mean of predicted minus actual IoU: above 0 where the model is too sure.
        bins: The bins from 0 to 1.
    """

    error: float
    bias: float
    bins: tuple[Bin, ...]


def reliability_of(
    predicted: NDArray[np.floating[Any]], actual: NDArray[np.floating[Any]], bins: int = BINS
) -> Reliability:
    """Compare predicted with actual IoU in bins of equal width.

    Args:
        predicted: IoU that the model predicts, float [N], N >= 1; the head is a regression, so values beyond 0 and 1
            count as 0 and 1.
        actual: IoU with the truth, float [N].
        bins: Number of bins.
    """
    assert predicted.shape == actual.shape, f"{predicted.shape} predicted, {actual.shape} actual"
    assert predicted.ndim == 1, "one number per object"
    assert len(predicted), "no object"
    predicted, actual = np.clip(predicted.astype(np.float64), 0, 1), actual.astype(np.float64)
    edges = np.linspace(0, 1, bins + 1)
    places = np.minimum(np.searchsorted(edges, predicted, side="right") - 1, bins - 1)
    counts = np.bincount(places, minlength=bins)
    sums = [np.bincount(places, weights=values, minlength=bins) for values in (predicted, actual)]
    table = tuple(
        Bin(
            float(edges[index]),
            float(edges[index + 1]),
            int(count),
            float(sums[0][index] / count) if count else None,
            float(sums[1][index] / count) if count else None,
        )
        for index, count in enumerate(counts)
    )
    error = float(np.abs(sums[0] - sums[1]).sum() / len(predicted))
    return Reliability(error, float((predicted - actual).mean()), table)
