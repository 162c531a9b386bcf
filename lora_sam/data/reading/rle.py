"""Run lengths of COCO's masks: their compressed text, and the part of a mask that they fill."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray

from lora_sam.core.errors import DataError
from lora_sam.core.mask_windows import MaskWindows

_OVERHEAD = 500  # bytes that Python takes for a mask that is kept
MAX_VALUE_CHARACTERS = 7  # 5 bits each; counts stay below 2^31


def decompressed(encoded: bytes) -> NDArray[np.int64]:
    """Run lengths of a compressed RLE string.

    Each value is stored in groups of 5 bits, least significant first, as characters from chr(48); bit 5 says that the
    value goes on, bit 4 of its last group is the sign, and from the fourth value on it is the difference to the value
    two places before (the format of pycocotools' `rleToString`). Decoded here because C code reads past the end
    of a damaged string.
    """
    return decompressed_together([encoded])[0]


def decompressed_together(encoded: Sequence[bytes]) -> list[NDArray[np.int64]]:
    """`decompressed` of each of several strings, at once: most are so short that beginning takes longest."""
    groups = np.frombuffer(b"".join(encoded), dtype=np.uint8) - np.uint8(48)  # what is below becomes large
    stops = np.array(list(accumulate(map(len, encoded))))
    if not all(encoded) or groups.max() > 63 or (groups[stops - 1] & 32).any():
        raise _damaged()
    last = np.flatnonzero(groups < 32)
    lengths = last + 1
    lengths[1:] -= lengths[:-1].copy()
    if lengths.max() > MAX_VALUE_CHARACTERS:
        raise _damaged()
    # sign and five bits of the last group, then those before it from behind
    values = (groups[last].astype(np.int64) ^ 16) - 16
    for before in range(1, int(lengths.max())):
        some = np.flatnonzero(lengths > before)
        values[some] = (values[some] << 5) + (groups[last[some] - before] & 31)
    runs, start = [], 0
    for stop in (np.searchsorted(last, stops - 1) + 1).tolist():
        own = values[start:stop]
        own[1::2] = np.cumsum(own[1::2])
        own[2::2] = np.cumsum(own[2::2])
        runs.append(own)
        start = stop
    return runs


class KeptWindows:
    """What lies in the boxes of encoded masks, a bit a pixel, for the next epoch: a third of the time to decode it.

    What it says of a mask depends on nothing but its code, so it is never stale. When it is full it takes no more: of
    a set that is gone over again and again, one that forgets the oldest would keep nothing.
    """

    def __init__(self, limit: int) -> None:
        """Keep at most `limit` bytes."""
        self._free = limit
        self._kept: dict[tuple[bytes, int], tuple[tuple[float, ...], NDArray[np.uint8]]] = {}

    def __len__(self) -> int:
        return len(self._kept)

    def of(self, encoded: Sequence[bytes], size: tuple[int, int]) -> MaskWindows:
        """`windows_of` masks as compressed RLE of an image of `size` = (height, width)."""
        found = [self._kept.get((one, size[0])) for one in encoded]
        known = [one for one in found if one is not None]
        if not known or len(known) < len(found):
            windows = windows_of(decompressed_together(encoded) if encoded else [], size)
            for one, box, part in zip(encoded, windows.boxes.tolist(), windows.parts, strict=True):
                self._keep((one, size[0]), tuple(box), part)
            return windows
        packed = [bits for _, bits in known]
        pixels = np.unpackbits(np.concatenate(packed)).view(np.bool_)
        boxes = np.array([box for box, _ in known], np.float32)
        parts, first = [], 0
        for (left, top, right, bottom), bits in known:
            height, area = int(bottom - top), int((bottom - top) * (right - left))
            parts.append(pixels[first : first + area].reshape(-1, height).T)
            first += 8 * len(bits)
        return MaskWindows(size, boxes, tuple(parts))

    def _keep(self, key: tuple[bytes, int], box: tuple[float, ...], part: NDArray[np.bool_]) -> None:
        needed = part.size // 8 + _OVERHEAD
        if needed <= self._free and key not in self._kept:
            self._free -= needed
            self._kept[key] = box, np.packbits(part.T)


def _damaged() -> DataError:
    return DataError("has a damaged compressed RLE; export it again", "bad_rle")


def windows_of(runs: Sequence[NDArray[np.int64]], size: tuple[int, int]) -> MaskWindows:
    """What lies in the boxes of masks of an image.

    Args:
        runs: Run lengths of each mask, background first, down the columns; each has a pixel.
        size: (height, width) of the image.
    """
    length = size[0]
    if not runs:
        return MaskWindows(size, np.zeros((0, 4), np.float32), ())
    # of each run of background and the object's after it
    pairs = [np.cumsum(one)[: one.size // 2 * 2].reshape(-1, 2) for one in runs]
    ends, counts = np.concatenate(pairs), np.array([len(one) for one in pairs])
    some = ends[:, 0] < ends[:, 1]
    if not some.all():
        counts = np.add.reduceat(some, np.cumsum(counts) - counts, dtype=np.intp)
        ends = ends[some]
    starts = np.cumsum(counts) - counts
    # the first and the last pixel of each run of the object
    columns, rows = np.divmod(ends - (0, 1), length)
    over = columns[:, 0] != columns[:, 1]  # a run that goes on in the next column has the last row and the first
    top, bottom = np.where(over, 0, rows[:, 0]), np.where(over, length - 1, rows[:, 1])
    left, right = columns[starts, 0], columns[starts + counts - 1, 1] + 1
    top, bottom = np.minimum.reduceat(top, starts), np.maximum.reduceat(bottom, starts) + 1
    # counted down the columns of the boxes instead, one box after the other; pixels of a run over columns are
    # neighbours there too, as that makes the box as high as the image
    heights, areas = bottom - top, (bottom - top) * (right - left)
    before = np.cumsum(areas) - areas
    mask = np.repeat(np.arange(len(counts)), counts)[:, None]
    inside = before[mask] + (columns - left[mask]) * heights[mask] + (rows - top[mask]) + (0, 1)
    places = np.concatenate(([0], inside.ravel(), [areas.sum()]))
    lengths = places[1:] - places[:-1]
    pixels = np.repeat(np.arange(lengths.size) % 2 == 1, lengths)
    parts = tuple(
        pixels[first : first + area].reshape(-1, height).T
        for first, area, height in zip(before.tolist(), areas.tolist(), heights.tolist(), strict=True)
    )
    return MaskWindows(size, np.stack([left, top, right, bottom], axis=1).astype(np.float32), parts)


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
