"""Masks are painted window by window: every pixel is that of the whole image."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import binary_erosion

from lora_sam.core.painting import FILL, PALETTE, paint


def test_windows_paint_what_whole_masks_paint() -> None:
    draws = np.random.default_rng(0)
    rows, columns = np.mgrid[:40, :60]
    masks = np.stack(
        [
            (rows - draws.integers(0, 40)) ** 2 + (columns - draws.integers(0, 60)) ** 2 < draws.integers(1, 20) ** 2
            for _ in range(9)
        ]
        + [rows < 0, rows >= 0, rows == 39]
    )
    photograph = draws.integers(0, 255, (40, 60, 3), dtype=np.uint8)
    order = draws.permutation(len(masks))
    whole = photograph.astype(np.float32)
    for n in order:
        colour = np.array(PALETTE[n % len(PALETTE)], np.float32)
        whole[masks[n]] += FILL * (colour - whole[masks[n]])
        whole[masks[n] & ~binary_erosion(masks[n], iterations=2)] = colour
    assert np.array_equal(paint(photograph, masks, order), whole.round().astype(np.uint8))
