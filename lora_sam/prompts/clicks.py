"""Simulated clicks: where an annotator would correct a predicted mask."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lora_sam.prompts.geometry import edge_distances, nth_pixel, window_of


class Click(NamedTuple):
    """A click in the frame of `Prompts`: (x, y) in the middle of a pixel; label 1 for foreground, 0 for background."""

    x: float
    y: float
    label: int


def next_click(
    predicted: NDArray[np.bool_],
    true: NDArray[np.bool_],
    draws: np.random.Generator | None = None,
    *,
    clicked: NDArray[np.float32] | None = None,
) -> Click:
    """The click that corrects a prediction: `central_click` without `draws`, else `random_click`.

    Args:
        predicted: The mask so far, bool [H, W]; all False before the first click.
        true: The object, bool [H, W], not empty.
        draws: Decides where in the error region; None takes the middle of its largest part.
        clicked: (x, y) of earlier clicks, float [K, 2], whose pixels are not clicked again; None for none. Only
            without `draws`.
    """
    if draws is None:
        return central_click(predicted, true, clicked)
    return random_click(predicted, true, float(draws.random()))


def central_click(
    predicted: NDArray[np.bool_], true: NDArray[np.bool_], clicked: NDArray[np.float32] | None = None
) -> Click:
    """The pixel farthest from the edge of the error, among what is missing and what is too much.

    As the simulated user of Sofiiuk et al. (2021), "Reviving iterative training with mask guidance for interactive
    segmentation": the larger of the two distances decides the label, background where they are equal; of pixels that
    are as far, the first in reading order. The border of the image is an edge. Where nothing is wrong, or all of it
    was clicked, the middle of the object.

    Args:
        predicted: The mask so far, bool [H, W].
        true: The object, bool [H, W], not empty.
        clicked: (x, y) of earlier clicks, float [K, 2], whose pixels are not clicked again; None for none.
    """
    taken = np.empty((0, 2), np.intp) if clicked is None else np.floor(clicked).astype(np.intp)
    far_missing, missing = _deepest(true & ~predicted, taken)
    far_surplus, surplus = _deepest(predicted & ~true, taken)
    if far_missing == far_surplus == 0:
        _, middle = _deepest(true, taken[:0])
        return _click(middle, 1)
    return _click(missing, 1) if far_missing > far_surplus else _click(surplus, 0)


def random_click(predicted: NDArray[np.bool_], true: NDArray[np.bool_], place: float) -> Click:
    """A pixel of the error region, each as likely if `place` is drawn uniformly; where nothing is wrong, of the object.

    As in Kirillov et al. (2023), "Segment Anything", appendix A, "Training algorithm".

    Args:
        predicted: The mask so far, bool [H, W].
        true: The object, bool [H, W], not empty.
        place: Which pixel, as the share of the region before it in reading order, 0 <= `place` < 1.
    """
    error = predicted != true
    row, column = nth_pixel(error if error.any() else true, place)
    return _click((row, column), int(true[row, column]))


def _deepest(region: NDArray[np.bool_], taken: NDArray[np.intp]) -> tuple[float, tuple[int, int]]:
    """How far the pixel of a region [H, W] farthest from its edge is from it, and its (row, column)."""
    if not region.any():
        return 0.0, (0, 0)
    window, top, left = window_of(region)
    distance = edge_distances(window)
    columns, rows = taken[:, 0] - left, taken[:, 1] - top
    inside = (rows >= 0) & (rows < window.shape[0]) & (columns >= 0) & (columns < window.shape[1])
    distance[rows[inside], columns[inside]] = 0
    row, column = divmod(int(distance.argmax()), window.shape[1])
    return float(distance[row, column]), (top + row, left + column)


def _click(pixel: tuple[int, int], label: int) -> Click:
    row, column = pixel
    return Click(column + 0.5, row + 0.5, label)
