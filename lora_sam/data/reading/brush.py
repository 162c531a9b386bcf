"""Brush masks as Label Studio packs them into JSON."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lora_sam.core.errors import DataError
from lora_sam.data.reading.paths import shown

_CHANNELS = 4  # of a brush mask; the last is the mask


def brush_mask(packed: object, size: tuple[int, int]) -> NDArray[np.bool_]:
    """A brush mask out of Label Studio's bytes: bool [H, W], where the last of four channels is not 0.

    The bits are those of the package rle-pack of thi.ng: 32 for the number of values, 5 for their width less 1, four
    times 4 for the widths of run lengths less 1; then for each run one bit (whether one value repeats), two that choose
    the width of its length, the length less 1, and the value or the values.

    Raises:
        DataError: it is damaged, or of another size; does not name the object.
    """
    height, width = size
    if (
        not isinstance(packed, list)
        or len(packed) > 8 * _CHANNELS * height * width + 64
        or not all(type(value) is int and 0 <= value < 256 for value in packed)
    ):
        raise DataError(f"has the brush mask {shown(packed)}; it takes a list of bytes", "bad_rle")
    bits = np.unpackbits(np.array(packed, np.uint8))
    weights = (1 << np.arange(32, dtype=np.int64))[::-1]
    place = 0

    def read(count: int) -> int:
        nonlocal place
        part = bits[place : place + count]
        if len(part) < count:
            raise DataError("has a brush mask that is cut short; export it again", "bad_rle")
        place += count
        return int(part @ weights[-count:])

    total = read(32)
    if total != _CHANNELS * height * width:
        raise DataError(
            f"has a brush mask of {total} values; {width}x{height} pixels have {_CHANNELS * height * width}", "bad_rle"
        )
    word = read(5) + 1
    widths = [read(4) + 1 for _ in range(4)]
    values = np.zeros(total, np.int64)
    done = 0
    while done < total:
        repeats = read(1)
        length = read(widths[read(2)]) + 1
        if done + length > total:
            raise DataError("has a brush mask whose runs are longer than its image; export it again", "bad_rle")
        if repeats:
            values[done : done + length] = read(word)
        else:
            part = bits[place : place + length * word]
            if len(part) < length * word:
                raise DataError("has a brush mask that is cut short; export it again", "bad_rle")
            values[done : done + length] = part.reshape(length, word) @ weights[-word:]
            place += length * word
        done += length
    return values.reshape(height, width, _CHANNELS)[..., -1] > 0
