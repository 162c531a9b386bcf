"""Arrays of which little is used: memory that nobody writes to costs nothing."""

from __future__ import annotations

import math
import mmap
from typing import Any

import numpy as np
from numpy.typing import NDArray

_LEAST = 2**20  # bytes; smaller arrays come from memory that is there already
_MOST_USED = 0.1  # clearing a huge page takes as long as one page in ten of it on first use
_PRIVATE = getattr(mmap, "MAP_PRIVATE", 0) | getattr(mmap, "MAP_ANONYMOUS", 0)
_NO_HUGE_PAGES = getattr(mmap, "MADV_NOHUGEPAGE", None)


def thin_zeros(shape: tuple[int, ...], used: float) -> NDArray[np.bool_]:
    """`numpy.zeros` of bool, for masks that are background but for a window.

    NumPy asks for huge pages, so that one pixel takes 2 MiB of memory and the time to clear them. Where little is used,
    pages are small here, and those that are only read are the one page of zeros that all processes share.

    Args:
        shape: [N, H, W].
        used: Which share of the rows will be written to.
    """
    size = math.prod(shape)
    if size < _LEAST or used > _MOST_USED or _NO_HUGE_PAGES is None:
        return np.zeros(shape, np.bool_)
    memory = mmap.mmap(-1, size, flags=_PRIVATE)
    memory.madvise(_NO_HUGE_PAGES)
    return np.frombuffer(memory, np.bool_).reshape(shape)


def used_rows(boxes: NDArray[np.float32], height: int) -> float:
    """Which share of the rows of masks of this height their boxes XYXY [N, 4] reach over."""
    return float((boxes[:, 3] - boxes[:, 1]).mean()) / height if len(boxes) else 0.0


def thin_copy(
    masks: NDArray[np.bool_], boxes: NDArray[np.float32], rows: NDArray[np.integer[Any]] | None = None
) -> NDArray[np.bool_]:
    """A copy of masks [N, H, W], in any layout, for which only the pixels in their boxes are read.

    Args:
        masks: Bool [N, H, W].
        boxes: XYXY [N, 4], outside of which they are false.
        rows: Which masks, in this order; None for all.
    """
    wanted = range(len(masks)) if rows is None else rows.tolist()
    sides = boxes.astype(int).tolist()
    copy = thin_zeros((len(wanted), *masks.shape[1:]), used_rows(boxes, masks.shape[1]))
    for target, row in zip(copy, wanted, strict=True):
        left, top, right, bottom = sides[row]
        target[top:bottom, left:right] = masks[row, top:bottom, left:right]
    return copy
