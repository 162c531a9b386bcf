"""Run lengths of COCO's masks: their compressed text, and the part of a mask that they fill."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lora_sam.core.errors import DataError

MAX_VALUE_CHARACTERS = 7  # 5 bits each; counts stay below 2^31


def decompressed(encoded: bytes) -> NDArray[np.int64]:
    """Run lengths of a compressed RLE string.

    Each value is stored in groups of 5 bits, least significant first, as characters from chr(48); bit 5 says that the
    value goes on, bit 4 of its last group is the sign, and from the fourth value on it is the difference to the value
    two places before (the format of pycocotools' `rleToString`). Decoded here because C code reads past the end
    of a damaged string.
    """
    damaged = DataError("has a damaged compressed RLE; export it again", "bad_rle")
    groups = np.frombuffer(encoded, dtype=np.uint8).astype(np.int64) - 48
    if groups.size == 0 or groups.min() < 0 or groups.max() > 63 or groups[-1] & 32:
        raise damaged
    last = np.flatnonzero((groups & 32) == 0)
    first = np.concatenate(([0], last[:-1] + 1))
    lengths = last - first + 1
    if lengths.max() > MAX_VALUE_CHARACTERS:
        raise damaged
    place = 5 * (np.arange(groups.size) - np.repeat(first, lengths))
    values = np.add.reduceat((groups & 31) << place, first)
    values -= np.where(groups[last] & 16, np.int64(1) << (5 * lengths), 0)
    values[1::2] = np.cumsum(values[1::2])
    values[2::2] = np.cumsum(values[2::2])
    return values


def window_of(runs: NDArray[np.int64], length: int, box: tuple[int, int, int, int]) -> NDArray[np.bool_]:
    """The part of a mask inside a box that holds all of it.

    Args:
        runs: Run lengths, background first, down columns of `length` pixels.
        length: Height of the whole mask.
        box: Left column, top row, width and height.

    Returns:
        Bool [height, width].
    """
    left, top, width, height = box
    ends = np.cumsum(runs)[: runs.size // 2 * 2].reshape(-1, 2)  # of each run of background and the object's after it
    ends = ends[ends[:, 0] < ends[:, 1]]
    # the first and the last pixel of each run of the object, counted down the columns of the box instead; a run that
    # goes on in the next column makes the box as high as the mask, so its pixels are neighbours there too
    columns, rows = np.divmod(ends - (0, 1), length)
    inside = (columns - left) * height + (rows - top) + (0, 1)
    lengths = np.diff(inside.ravel(), prepend=0, append=width * height)
    return np.repeat(np.arange(lengths.size) % 2 == 1, lengths).reshape(width, height).T
