"""Masks drawn on an image: one colour per object, or what was gained and lost."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_erosion

from lora_sam.app.patches import Patch
from lora_sam.core.painting import PALETTE

GAINED, LOST = PALETTE[1], PALETTE[4]


def overlay(image: NDArray[np.uint8], patches: Sequence[Patch | None], opacity: float) -> NDArray[np.uint8]:
    """Masks on an RGB image uint8 [H, W, 3]: large ones first, filled with `opacity` from 0 to 1, with solid contours.

    Object n has colour n of `painting.PALETTE`, beginning again at its end.
    """
    canvas = image.astype(np.float32)
    present = [(number, patch) for number, patch in enumerate(patches) if patch is not None and patch.area]
    for number, patch in sorted(present, key=lambda pair: -pair[1].area):
        height, width = patch.bits.shape
        window = canvas[patch.top : patch.top + height, patch.left : patch.left + width]
        colour = np.array(PALETTE[number % len(PALETTE)], np.float32)
        window[patch.bits] += opacity * (colour - window[patch.bits])
        window[patch.bits & ~binary_erosion(patch.bits)] = colour
    return canvas.round().astype(np.uint8)


def difference(
    image: NDArray[np.uint8], before: Sequence[Patch | None], after: Sequence[Patch | None], opacity: float
) -> NDArray[np.uint8]:
    """What the masks of an image gained (`GAINED`) and lost (`LOST`) between two models, all objects together."""
    size = image.shape[0], image.shape[1]
    base, tuned = (_union(patches, size) for patches in (before, after))
    canvas = image.astype(np.float32)
    for part, colour in ((tuned & ~base, GAINED), (base & ~tuned, LOST)):
        canvas[part] += opacity * (np.array(colour, np.float32) - canvas[part])
    return canvas.round().astype(np.uint8)


def _union(patches: Sequence[Patch | None], size: tuple[int, int]) -> NDArray[np.bool_]:
    mask = np.zeros(size, np.bool_)
    for patch in patches:
        if patch is not None:
            height, width = patch.bits.shape
            mask[patch.top : patch.top + height, patch.left : patch.left + width] |= patch.bits
    return mask
