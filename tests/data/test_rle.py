"""Run lengths of masks: the part inside a box, and what is kept of masks that were decoded before."""

from __future__ import annotations

import numpy as np
import pytest

from lora_sam.core.errors import DataError
from lora_sam.data.reading.coco_masks import encode
from lora_sam.data.reading.rle import KeptWindows, decompressed, decompressed_together, window_of


def masks_of(seed: int, size: tuple[int, int], count: int) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        mask = np.zeros(size, np.bool_)
        top, left = rng.integers(0, size[0] - 3), rng.integers(0, size[1] - 3)
        part = mask[top : top + rng.integers(3, 9), left : left + rng.integers(3, 9)]
        part[:] = rng.random(part.shape) < 0.6
        part[0, 0] = True
        found.append(mask)
    found[0][:, 4:6] = True  # a run over the edge of columns
    return found


def rle(mask: np.ndarray) -> bytes:
    flat = np.concatenate(([False], mask.ravel(order="F")))
    runs = np.diff(np.concatenate(([0], np.flatnonzero(np.diff(flat.astype(np.int8))), [mask.size]))).tolist()
    return encode({"size": list(mask.shape), "counts": runs}, (mask.shape[0], mask.shape[1]))[0]


@pytest.mark.parametrize("seed", range(4))
def test_the_part_in_a_box_is_that_of_the_mask(seed: int) -> None:
    for mask in masks_of(seed, (23, 31), 6):
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        left, top = int(columns[0]), int(rows[0])
        width, height = int(columns[-1]) + 1 - left, int(rows[-1]) + 1 - top
        found = window_of(decompressed(rle(mask)), mask.shape[0], (left, top, width, height))
        np.testing.assert_array_equal(found, mask[top : top + height, left : left + width])


@pytest.mark.parametrize("seed", range(2))
def test_masks_that_were_decoded_before_are_the_same_again(seed: int) -> None:
    masks = masks_of(seed, (23, 31), 6)
    encoded, kept = [rle(mask) for mask in masks], KeptWindows(1 << 20)
    for _ in range(2):
        windows = kept.of(encoded, (23, 31))
        np.testing.assert_array_equal(windows.masks(), np.stack(masks))
    assert len(kept) == len(masks)
    # another order, and some of them
    np.testing.assert_array_equal(kept.of(encoded[:2:-1], (23, 31)).masks(), np.stack(masks[:2:-1]))


def test_a_value_has_seven_characters_at_most() -> None:
    # bit 5 says that a value goes on: six such groups of zeros, and the last one
    seven = b"P" * 6 + b"0"
    assert [one.tolist() for one in decompressed_together([seven])] == [[0]]
    with pytest.raises(DataError, match="damaged compressed RLE"):
        decompressed_together([b"P" * 7 + b"0"])
