"""How far the outlines of two masks are apart: boundary F1 and Hausdorff 95."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_erosion, distance_transform_edt
from scipy.spatial import KDTree


def window_of_both(predicted: NDArray[np.bool_], true: NDArray[np.bool_]) -> tuple[slice, slice] | None:
    """Smallest rectangle with every pixel of both masks [H, W], or None where both are empty.

    What lies outside a mask's own rectangle is background, and so is what lies outside the image, so contours found
    within this window are those of the whole image.
    """
    rows = np.flatnonzero(predicted.any(axis=1) | true.any(axis=1))
    if not len(rows):
        return None
    band = slice(int(rows[0]), int(rows[-1]) + 1)
    columns = np.flatnonzero(predicted[band].any(axis=0) | true[band].any(axis=0))
    return band, slice(int(columns[0]), int(columns[-1]) + 1)


def boundary_f1(predicted: NDArray[np.bool_], true: NDArray[np.bool_], tolerance: float) -> float:
    """F-measure of the contours of two masks [H, W], at least one of them not empty.

    Precision is the share of predicted contour pixels with a true one at most `tolerance` away (Euclidean, between
    pixel centres), recall the reverse; matches need not be one to one, as in DAVIS (Perazzi et al., 2016). Distances
    come from a search tree over contour pixels: their number grows with the perimeter, not with the area.
    """
    contours = [np.argwhere(_contour(predicted)), np.argwhere(_contour(true))]
    if not (len(contours[0]) and len(contours[1])):
        return 0.0
    trees = [KDTree(contour, balanced_tree=False, compact_nodes=False) for contour in contours]
    shares = []
    for contour, other in ((contours[0], trees[1]), (contours[1], trees[0])):
        # the search is for distances strictly below its bound; without a bound it would be slow for poor masks
        distance, _ = other.query(contour, distance_upper_bound=tolerance + 0.5)
        shares.append(np.count_nonzero(distance <= tolerance) / len(contour))
    precision, recall = shares
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def hausdorff95(predicted: NDArray[np.bool_], true: NDArray[np.bool_]) -> float:
    """95 % Hausdorff distance of two contours in pixels: 0 is perfect.

    The larger of two 95th percentiles: of the distances of predicted contour pixels from the nearest true one, and the
    reverse (Euclidean, between pixel centres), as `monai.metrics.compute_hausdorff_distance(..., percentile=95)`.
    Contours are those of the boundary F1. An empty mask for an empty truth is 0; where just one is empty there is no
    distance, and the diagonal of the image stands for it, the largest that could be.

    Args:
        predicted: bool [H, W].
        true: bool [H, W].
    """
    window = window_of_both(predicted, true)
    if window is None:
        return 0.0
    contours = [_contour(predicted[window]), _contour(true[window])]
    if not (contours[0].any() and contours[1].any()):
        return math.hypot(*true.shape)
    return max(
        float(np.percentile(distance_transform_edt(~other)[contour], 95))
        for contour, other in (contours, contours[::-1])
    )


def _contour(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The pixels of `mask` that touch background, or the edge of the image, with a side: bool [H, W]."""
    contour: NDArray[np.bool_] = mask & ~binary_erosion(mask)
    return contour
