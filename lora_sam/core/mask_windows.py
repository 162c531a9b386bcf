"""Masks of one image as what lies in their boxes: most of their pixels are outside, and need not be there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lora_sam.core.thin_arrays import thin_zeros, used_rows


@dataclass(frozen=True)
class MaskWindows:
    """N masks, each as the part inside its box.

    Attributes:
        size: (height, width) of the image.
        boxes: The smallest boxes XYXY that hold the masks, float32 [N, 4]; read-only.
        parts: What is in them, N times bool [h, w], in any layout.
    """

    size: tuple[int, int]
    boxes: NDArray[np.float32]
    parts: tuple[NDArray[np.bool_], ...]

    def __post_init__(self) -> None:
        self.boxes.flags.writeable = False

    def __len__(self) -> int:
        return len(self.parts)

    @classmethod
    def of(cls, masks: NDArray[np.bool_], boxes: NDArray[np.float32]) -> MaskWindows:
        """Views of masks [N, H, W] with these boxes."""
        sides = boxes.astype(np.intp).tolist()
        parts = [mask[top:bottom, left:right] for mask, (left, top, right, bottom) in zip(masks, sides, strict=True)]
        return cls((masks.shape[1], masks.shape[2]), boxes, tuple(parts))

    @property
    def corners(self) -> NDArray[np.intp]:
        """Row and column where each begins, [N, 2]."""
        return self.boxes[:, 1::-1].astype(np.intp)

    def masks(self) -> NDArray[np.bool_]:
        """As arrays of the size of the image, bool [N, H, W]."""
        masks = thin_zeros((len(self), *self.size), used_rows(self.boxes, self.size[0]))
        for mask, part, (top, left) in zip(masks, self.parts, self.corners.tolist(), strict=True):
            mask[top : top + part.shape[0], left : left + part.shape[1]] = part
        return masks

    def only(self, rows: NDArray[np.integer[Any]]) -> MaskWindows:
        """Those at `rows`, in that order."""
        return MaskWindows(self.size, self.boxes[rows], tuple(self.parts[row] for row in rows.tolist()))
