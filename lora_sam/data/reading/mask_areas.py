"""Areas of a mask's values: connected parts, thin strips, and how many pixels each value has."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lora_sam.core.spaced import evenly_spaced

PART_SHARE = 0.1
"""Parts with a smaller share of the largest one's pixels are specks."""

_MOST_PIXELS = 2**20  # of a mask; a band of rows of larger ones
_OUTLINE, _INSIDE = 2, 2.0  # pixels taken from all sides; times the pixels of a mask
_LARGE, _ALIKE = 0.3, 0.95  # share of the picture, intersection over union
_STRIP, _ACROSS = 5, 9  # a strip has no square of so many pixels a side, and both its sides within so many


def is_hollow(mask: NDArray[np.bool_]) -> bool:
    """Whether a mask [H, W] is thin closed outlines: a few pixels wide, around far more than it covers itself."""
    from scipy.ndimage import binary_erosion, label

    covered = int(np.count_nonzero(mask))
    if not covered or binary_erosion(mask, iterations=_OUTLINE).any():
        return False
    numbers, count = label(~np.pad(mask, 1))
    areas = np.bincount(numbers.ravel(), minlength=count + 1)
    return bool(areas[2:].sum() > _INSIDE * covered)  # 0 is the mask, 1 what is outside


def separate_parts(mask: NDArray[np.bool_]) -> int:
    """How many connected parts a mask [H, W] has, without those small beside the largest; corners connect."""
    from scipy import ndimage

    labels, count = ndimage.label(mask, structure=np.ones((3, 3)))
    areas = np.bincount(labels.ravel(), minlength=2)[1:]
    return int(np.count_nonzero(areas >= PART_SHARE * areas.max())) if count else 0


def parts_of_values(values: NDArray[Any], most: int) -> list[tuple[int, int]]:
    """Values above 0 of a mask [H, W], and how many connected parts each has, as `separate_parts` counts them.

    Args:
        values: Integers.
        most: So many values are looked at, evenly spaced.
    """
    from scipy import ndimage

    stored, numbers = np.unique(values, return_inverse=True)
    windows = ndimage.find_objects(numbers.reshape(values.shape) + 1)
    above = np.flatnonzero(stored > 0)
    rows = above[evenly_spaced(len(above), most)].tolist()
    return [(int(stored[row]), separate_parts(values[windows[row]] == stored[row])) for row in rows]


def are_alike(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> bool:
    """Whether two masks have the same size and nearly the same pixels, many."""
    if one.shape != other.shape:
        return False
    together = int(np.count_nonzero(one | other))
    return together > _LARGE * one.size and int(np.count_nonzero(one & other)) >= _ALIKE * together


def strips_of(values: NDArray[Any]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Where values [H, W] above 0 are thin strips between a smaller and a larger value; and thick, no larger near."""
    from scipy import ndimage

    same = ndimage.maximum_filter(values, _STRIP) == ndimage.minimum_filter(values, _STRIP)
    thick = ndimage.maximum_filter(same, _STRIP)
    low, high = ndimage.minimum_filter(values, _ACROSS), ndimage.maximum_filter(values, _ACROSS)
    strips: NDArray[np.bool_] = (values > 0) & ~thick & (low < values) & (values < high)
    return strips, thick & (high == values)


def tally(counts: dict[int, int], values: NDArray[Any]) -> None:
    """Add how often each value is there."""
    found, numbers = np.unique(values, return_counts=True)
    for value, number in zip(found.tolist(), numbers.tolist(), strict=True):
        counts[value] = counts.get(value, 0) + number


def band_of(values: NDArray[Any], foreground: NDArray[np.bool_]) -> NDArray[Any]:
    """All rows, or of a large mask those around the middle of its foreground."""
    rows = max(3, _MOST_PIXELS // values.shape[1])
    if values.shape[0] <= rows:
        return values
    weights = np.cumsum(foreground.sum(axis=1))
    middle = int(np.searchsorted(weights, weights[-1] / 2))
    top = min(max(0, middle - rows // 2), values.shape[0] - rows)
    return values[top : top + rows]
