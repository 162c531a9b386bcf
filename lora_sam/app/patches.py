"""Masks as windows around their pixels: small to keep, to compare and to send."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Patch:
    """One mask, stored inside its tight box only.

    Attributes:
        top: Row where the window begins.
        left: Column where the window begins.
        bits: bool [h, w]; [0, 0] for an empty mask.
    """

    top: int
    left: int
    bits: NDArray[np.bool_]

    @property
    def area(self) -> int:
        """Pixels of the mask."""
        return int(np.count_nonzero(self.bits))

    def full(self, size: tuple[int, int]) -> NDArray[np.bool_]:
        """The mask in an image of `size` = (height, width), bool [H, W]."""
        mask = np.zeros(size, np.bool_)
        height, width = self.bits.shape
        mask[self.top : self.top + height, self.left : self.left + width] = self.bits
        return mask

    def packed(self, known: Collection[str] = ()) -> dict[str, Any]:
        """For JSON: `id` of the content, `box` [left, top, width, height], and `bits`.

        Bits are rows one after the other, 8 pixels a byte, base 64; left out where the receiver knows the id.
        """
        if self.id in known:
            return {"id": self.id}
        height, width = self.bits.shape
        bits = base64.b64encode(np.packbits(self.bits).tobytes()).decode("ascii")
        return {"id": self.id, "box": [self.left, self.top, width, height], "bits": bits}

    @cached_property
    def id(self) -> str:
        """Hash of place and pixels."""
        place = repr((self.top, self.left, self.bits.shape)).encode()
        return hashlib.sha256(place + np.packbits(self.bits).tobytes()).hexdigest()[:16]


def patch_of(mask: NDArray[np.bool_]) -> Patch:
    """The patch of a mask, bool [H, W]."""
    rows = np.flatnonzero(mask.any(axis=1))
    if not len(rows):
        return Patch(0, 0, np.zeros((0, 0), np.bool_))
    top, bottom = int(rows[0]), int(rows[-1]) + 1
    columns = np.flatnonzero(mask[top:bottom].any(axis=0))
    left, right = int(columns[0]), int(columns[-1]) + 1
    return Patch(top, left, mask[top:bottom, left:right].copy())


def shared(one: Patch, other: Patch) -> int:
    """Pixels that both masks have."""
    top, left = max(one.top, other.top), max(one.left, other.left)
    bottom = min(one.top + one.bits.shape[0], other.top + other.bits.shape[0])
    right = min(one.left + one.bits.shape[1], other.left + other.bits.shape[1])
    if top >= bottom or left >= right:
        return 0
    first, second = (
        patch.bits[top - patch.top : bottom - patch.top, left - patch.left : right - patch.left]
        for patch in (one, other)
    )
    return int(np.count_nonzero(first & second))


def iou(one: Patch, other: Patch) -> float:
    """Intersection over union; 1 for two empty masks."""
    both = shared(one, other)
    union = one.area + other.area - both
    return both / union if union else 1.0


def dice(one: Patch, other: Patch) -> float:
    """Twice the intersection over the sum of the areas; 1 for two empty masks."""
    areas = one.area + other.area
    return 2 * shared(one, other) / areas if areas else 1.0
