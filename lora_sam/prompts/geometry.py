"""Boxes and pixels of masks, worked out in the window of the object rather than in the whole image."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from lora_sam.core.structures import Sample, tight_boxes

_SHELF = 1 << 16  # pixels of a distance transform of several masks
_LOW = 128  # rows up to which whole rows at once are faster than scipy, on a canvas that is several times as wide
_SLENDER = 4  # how many times

__all__ = [
    "any_pixel",
    "central_pixel",
    "chessboard_distances",
    "edge_distances",
    "farthest_pixel",
    "farthest_pixels",
    "nth_pixel",
    "spaced",
    "tight_boxes",
    "window_of",
    "windows_of",
]


def window_of(mask: NDArray[np.bool_]) -> tuple[NDArray[np.bool_], int, int]:
    """The part of a mask [H, W] inside its tight box, and the row and column where that begins."""
    left, top, right, bottom = (int(side) for side in tight_boxes(mask[None])[0])
    return mask[top:bottom, left:right], top, left


def windows_of(sample: Sample) -> list[tuple[NDArray[np.bool_], int, int]]:
    """`window_of` every object of a sample."""
    windows = sample.windows
    return [(part, top, left) for part, (top, left) in zip(windows.parts, windows.corners.tolist(), strict=True)]


def edge_distances(window: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Euclidean distance of every pixel of a mask [H, W] from its edge, 0 outside; the border of it is an edge."""
    from scipy.ndimage import distance_transform_edt

    distance: NDArray[np.float64] = distance_transform_edt(_framed(window, 1, False))[1:-1, 1:-1]
    return distance


def farthest_pixel(mask: NDArray[np.bool_]) -> tuple[int, int]:
    """(row, column) of the pixel of a mask [H, W] farthest from its edge; the border of the image is an edge.

    Where several are as far, the first in reading order.
    """
    window, top, left = window_of(mask)
    row, column = farthest_pixels([window])[0]
    return top + row, left + column


def central_pixel(window: NDArray[np.bool_]) -> tuple[int, int]:
    """(row, column) of the pixel of a mask [H, W] nearest to its centre of mass; the first in reading order."""
    columns, rows = np.count_nonzero(window, axis=0), np.count_nonzero(window, axis=1)
    area = columns.sum()
    row, column = float(rows @ np.arange(len(rows)) / area), float(columns @ np.arange(len(columns)) / area)
    if window[round(row), round(column)]:
        return round(row), round(column)
    pixels = np.argwhere(window)
    nearest = pixels[((pixels - (row, column)) ** 2).sum(axis=1).argmin()]
    return int(nearest[0]), int(nearest[1])


def farthest_pixels(windows: Sequence[NDArray[np.bool_]]) -> list[tuple[int, int]]:
    """`farthest_pixel` of each of several masks [H, W], whose own borders are edges.

    Small ones are put side by side and share a distance transform, which takes longer to begin than to go over them.
    """
    places = [(0, 0)] * len(windows)
    order = sorted(range(len(windows)), key=lambda index: windows[index].shape[0])
    while order:
        height, breadth, shelf = 0, 1, 0
        for index in order:
            height, wider = windows[index].shape[0] + 2, breadth + windows[index].shape[1] + 1
            if shelf and height * wider > _SHELF:
                break
            shelf, breadth = shelf + 1, wider
        height = windows[order[shelf - 1]].shape[0] + 2
        together, order = order[:shelf], order[shelf:]
        canvas, left, lefts = np.zeros((height, breadth), np.bool_), 1, []
        for index in together:
            rows, columns = windows[index].shape
            canvas[1 : 1 + rows, left : left + columns] = windows[index]
            lefts.append(left)
            left += columns + 1
        distances = _squared_distances(canvas)
        for index, left in zip(together, lefts, strict=True):
            rows, columns = windows[index].shape
            places[index] = divmod(int(distances[1 : 1 + rows, left : left + columns].argmax()), columns)
    return places


def _squared_distances(canvas: NDArray[np.bool_]) -> NDArray[np.integer]:
    """Squared distance of every pixel of a mask [H, W], framed by pixels outside, from the nearest one outside."""
    if canvas.shape[0] <= _LOW and canvas.shape[1] >= _SLENDER * canvas.shape[0]:
        return _low_squared_distances(canvas)
    from scipy.ndimage import distance_transform_edt

    # where that pixel is: whole numbers decide as the distances would, and need not be converted
    rows, columns = distance_transform_edt(canvas, return_distances=False, return_indices=True)
    rows -= np.arange(canvas.shape[0], dtype=np.int32)[:, None]
    columns -= np.arange(canvas.shape[1], dtype=np.int32)
    rows *= rows
    columns *= columns
    rows += columns
    squared: NDArray[np.int32] = rows
    return squared


def _low_squared_distances(canvas: NDArray[np.bool_]) -> NDArray[np.uint16]:
    """`_squared_distances` of at most `_LOW` rows: first along the columns, then the least over steps along the rows.

    The two passes of Felzenszwalb and Huttenlocher (2012, https://doi.org/10.4086/toc.2012.v008a019), the second as
    shifts of all rows at once, one for each step up to the largest distance.
    """
    above, below = canvas.astype(np.uint16), canvas.astype(np.uint16)
    for before, row in pairwise(above):
        row += before * row
    for before, row in pairwise(below[::-1]):
        row += before * row
    squared = np.minimum(above, below, out=above)
    squared *= squared
    # the rows in one line: what lies beyond the end of a row is farther away than the pixel outside at that end
    along = squared.ravel()
    least, shifted = along.copy(), np.empty_like(along)
    step = 1
    while step * step < least.max():
        length = np.uint16(step * step)
        np.minimum(least[step:], np.add(along[:-step], length, out=shifted[step:]), out=least[step:])
        np.minimum(least[:-step], np.add(along[step:], length, out=shifted[step:]), out=least[:-step])
        step += 1
    return least.reshape(canvas.shape)


def _framed(window: NDArray[np.bool_], width: int, value: bool) -> NDArray[np.bool_]:
    """A mask [H, W] with a frame around it; `np.pad` takes longer than a small distance transform."""
    height, breadth = window.shape
    framed = np.full((height + 2 * width, breadth + 2 * width), value)
    framed[width : width + height, width : width + breadth] = window
    return framed


def nth_pixel(mask: NDArray[np.bool_], place: float) -> tuple[int, int]:
    """(row, column) of the pixel of a mask [H, W] that has the share `place` of its pixels before it, in reading order.

    Uniform among the pixels if `place` is uniform in [0, 1).
    """
    window, top, left = window_of(mask)
    inside = np.flatnonzero(window)
    row, column = divmod(int(inside[int(place * len(inside))]), window.shape[1])
    return top + row, left + column


def any_pixel(window: NDArray[np.bool_], draws: np.random.Generator) -> tuple[int, int]:
    """(row, column) of a pixel of a mask [H, W], each as likely."""
    inside = np.flatnonzero(window)
    row, column = divmod(int(inside[draws.integers(len(inside))]), window.shape[1])
    return row, column


def chessboard_distances(window: NDArray[np.bool_], border: int = 0) -> NDArray[np.int32]:
    """Moves of a chess king from every pixel of a mask [H, W] to the nearest pixel outside, 0 outside.

    Where it is larger than n, the mask survives n erosions by a square of 3 x 3.

    Args:
        window: The mask.
        border: How far the mask goes on around the window; with 0, the border of it is an edge.

    Returns:
        int32 [H + 2 border, W + 2 border], exact up to `border` for pixels of the window itself where that is not 0.
    """
    from scipy.ndimage import distance_transform_cdt

    framed = _framed(window, border, True) if border else window
    distance: NDArray[np.int32] = distance_transform_cdt(_framed(framed, 1, False), "chessboard")[1:-1, 1:-1]
    return distance


def spaced(
    pixels: NDArray[np.float32], usable: NDArray[np.bool_], count: int, distances: NDArray[np.float64]
) -> NDArray[np.intp]:
    """For each of N objects up to `count` of M pixels, earlier ones first, that are some distance apart.

    Where there are too few, half the distance is tried for the rest, and so on until no other pixel is left.

    Args:
        pixels: (row, column) in the order of preference, float32 [N, M, 2]; may repeat.
        usable: Which of them may be chosen, bool [N, M].
        count: How many are wanted for each object.
        distances: Least distance in pixels for each object, [N].

    Returns:
        Indices [N, count], each at most once for an object; -1 where there is no pixel left.
    """
    objects = np.arange(len(pixels))
    chosen = np.full((len(pixels), count), -1, np.intp)
    number = np.zeros(len(pixels), np.intp)
    nearest = np.where(usable, np.float32(np.inf), np.float32(-1))  # squared distance to what was chosen
    limits = np.maximum(distances, 1).astype(np.float32) ** 2
    open_ = number < count
    while open_.any():
        free = nearest >= limits[:, None]
        found = free.any(axis=1) & open_
        index = free.argmax(axis=1)
        rows = objects[found]
        chosen[rows, number[rows]] = index[rows]
        number[rows] += 1
        away = pixels[rows] - pixels[rows, index[rows]][:, None]
        nearest[rows] = np.minimum(nearest[rows], away[..., 0] ** 2 + away[..., 1] ** 2)
        stuck = open_ & ~found
        open_ &= (number < count) & ~(stuck & (limits <= 1))
        limits[stuck] = np.maximum(limits[stuck] / 4, 1)
    return chosen
