"""The points of an image that are tried where nothing shows its objects."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def grid_points(per_side: int, size: tuple[int, int]) -> NDArray[np.float32]:
    """Centres (x, y) of `per_side` x `per_side` equal cells of an image of `size` = (height, width), row by row."""
    steps = (np.arange(per_side) + 0.5) / per_side
    x, y = np.meshgrid(steps * size[1], steps * size[0])
    return np.stack([x.ravel(), y.ravel()], axis=1).astype(np.float32)


def points_in_holes(per_side: int, masks: NDArray[np.bool_], tried_per_side: int) -> NDArray[np.float32]:
    """Points of a grid that lie on none of N masks [N, H, W], and that are none of an earlier grid."""
    height, width = size = (int(masks.shape[1]), int(masks.shape[2]))
    points = grid_points(per_side, size)
    covered = np.any(masks, axis=0)
    columns, rows = (
        np.minimum(values.astype(np.intp), limit - 1)
        for values, limit in ((points[:, 0], width), (points[:, 1], height))
    )
    # a centre of a cell is one of the other grid where (2i + 1) / (2 per_side) is (2j + 1) / (2 tried_per_side)
    shares = (2 * np.arange(per_side) + 1) * tried_per_side
    again = (shares % per_side == 0) & (shares // per_side % 2 == 1)
    open_: NDArray[np.bool_] = ~covered[rows, columns] & ~(again[:, None] & again[None, :]).ravel()
    return points[open_]
