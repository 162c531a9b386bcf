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

from lora_sam.core.crops import Crop, shared


@dataclass(frozen=True)
class Patch(Crop):
    """A crop that has a name and can be sent; [0, 0] at (0, 0) for an empty mask."""

    def packed(self, known: Collection[str] = ()) -> dict[str, Any]:
        """For JSON: `id` of the content, `box` [left, top, width, height], and `bits`.

        Bits are rows one after the other, 8 pixels a byte, base 64; left out where the receiver knows the id.
        """
        if self.id in known:
            return {"id": self.id}
        height, width = self.mask.shape
        bits = base64.b64encode(np.packbits(self.mask).tobytes()).decode("ascii")
        return {"id": self.id, "box": [self.x, self.y, width, height], "bits": bits}

    @cached_property
    def id(self) -> str:
        """Hash of place and pixels."""
        place = repr((self.y, self.x, self.mask.shape)).encode()
        return hashlib.sha256(place + np.packbits(self.mask).tobytes()).hexdigest()[:16]


def patch_of(mask: NDArray[np.bool_]) -> Patch:
    """The patch of a mask, bool [H, W]."""
    crop = Crop.of(mask)
    return Patch(0, 0, np.zeros((0, 0), np.bool_)) if crop is None else Patch(crop.x, crop.y, crop.mask)


def pixels_shared(one: Patch, other: Patch) -> int:
    """Pixels that both masks have."""
    both = shared((one.box, other.box))
    return int(np.count_nonzero(one.within(both) & other.within(both)))


def iou(one: Patch, other: Patch) -> float:
    """Intersection over union; 1 for two empty masks."""
    both = pixels_shared(one, other)
    union = one.area + other.area - both
    return both / union if union else 1.0


def dice(one: Patch, other: Patch) -> float:
    """Twice the intersection over the sum of the areas; 1 for two empty masks."""
    areas = one.area + other.area
    return 2 * pixels_shared(one, other) / areas if areas else 1.0
