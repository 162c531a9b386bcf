"""Masks of a large image, each as the rectangle that holds it: a thousand of them take megabytes, not gigabytes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Crop:
    """A mask that is not empty, as the part of the image that holds it.

    Attributes:
        x: Column of the image where `mask` begins.
        y: Row of the image where `mask` begins.
        mask: bool [h, w].
    """

    x: int
    y: int
    mask: NDArray[np.bool_]

    @classmethod
    def of(cls, mask: NDArray[np.bool_], x: int = 0, y: int = 0) -> Crop | None:
        """The smallest crop that holds `mask` [H, W], whose first pixel is (x, y); None where it is empty."""
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        if not len(rows):
            return None
        top, left = int(rows[0]), int(columns[0])
        return cls(x + left, y + top, mask[top : int(rows[-1]) + 1, left : int(columns[-1]) + 1].copy())

    @property
    def box(self) -> tuple[int, int, int, int]:
        """XYXY in whole pixels, its end not included; that of the mask where the crop is the smallest."""
        height, width = self.mask.shape
        return self.x, self.y, self.x + width, self.y + height

    @property
    def window(self) -> tuple[slice, slice]:
        """Rows and columns of the image that it covers."""
        height, width = self.mask.shape
        return slice(self.y, self.y + height), slice(self.x, self.x + width)

    @property
    def area(self) -> int:
        """Pixels of the mask."""
        return int(np.count_nonzero(self.mask))

    def within(self, box: tuple[int, int, int, int]) -> NDArray[np.bool_]:
        """The mask in the part `box` (XYXY, whole pixels) of the image, bool [y2 - y1, x2 - x1]."""
        x1, y1, x2, y2 = box
        part = np.zeros((max(0, y2 - y1), max(0, x2 - x1)), np.bool_)
        left, top, right, bottom = shared((box, self.box))
        if left < right and top < bottom:
            part[top - y1 : bottom - y1, left - x1 : right - x1] = self.mask[
                top - self.y : bottom - self.y, left - self.x : right - self.x
            ]
        return part

    def full(self, size: tuple[int, int]) -> NDArray[np.bool_]:
        """The mask of the whole image of `size` = (height, width), bool [H, W]."""
        return self.within((0, 0, size[1], size[0]))

    def joined(self, other: Crop) -> Crop:
        """Both masks as one."""
        a, b = self.box, other.box
        whole = min(a[0], b[0]), min(a[1], b[1]), max(a[2], b[2]), max(a[3], b[3])
        return Crop(whole[0], whole[1], self.within(whole) | other.within(whole))

    def counts(self, size: tuple[int, int]) -> list[int]:
        """Run lengths as in COCO's uncompressed RLE: column by column, beginning with the background.

        Args:
            size: (height, width) of the image.
        """
        height, width = size
        # of each column of the crop the rows where the mask changes, one pixel of background above and below
        padded = np.zeros((self.mask.shape[0] + 2, self.mask.shape[1]), np.int8)
        padded[1:-1] = self.mask
        columns, rows = np.nonzero(np.diff(padded, axis=0).T)
        places = (self.x + columns.astype(np.int64)) * height + self.y + rows
        # where one column ends with the object and the next begins with it the run goes on
        meets = np.flatnonzero(np.diff(places) == 0)
        places = np.delete(places, np.concatenate([meets, meets + 1]))
        lengths = np.diff(np.concatenate([[0], places, [height * width]]))
        return [int(length) for length in (lengths if lengths[-1] else lengths[:-1])]

    def rle(self, size: tuple[int, int]) -> dict[str, Any]:
        """The mask in an image of `size` = (height, width) as COCO's compressed RLE: `size`, and `counts` as bytes."""
        from faster_coco_eval.core import mask as coco_mask

        found: dict[str, Any] = coco_mask.frPyObjects({"size": list(size), "counts": self.counts(size)}, *size)
        return found


# of a mask: below it the runs of the crop are found sooner than COCO's code reads the whole image, column by column
_SMALL = 0.1


def rle_of(mask: NDArray[np.bool_]) -> dict[str, Any]:
    """A mask [H, W], which may be empty, as COCO's compressed RLE: `size`, and `counts` as bytes."""
    from faster_coco_eval.core import mask as coco_mask

    crop = Crop.of(mask)
    if crop is not None and crop.mask.size <= _SMALL * mask.size:
        return crop.rle(mask.shape)
    found: dict[str, Any] = coco_mask.encode(np.asfortranarray(mask.view(np.uint8)))
    return found


def shared(boxes: tuple[tuple[int, int, int, int], tuple[int, int, int, int]]) -> tuple[int, int, int, int]:
    """The part of the image that two boxes (XYXY) have in common; without width or height where there is none."""
    a, b = boxes
    return max(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3])
