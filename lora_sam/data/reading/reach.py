"""How far outlines reach into their images: what tells shares of an image, or another size of it, from pixels."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from lora_sam.core.wording import plural
from lora_sam.data.noticed import LeftOut, Notes

_LEAST_OUTLINES, _LEAST_IMAGES = 20, 5
_LEAST_BOXES, _MOSTLY = 8, 0.9
_QUARTER = 0.55  # of width and height: some outlines reach a little beyond the middle
_CROOKED = 0.02  # of a side: corners are rounded
_SLIP, _SLIP_SHARE = 4.0, 0.02  # pixels, and of the longer side: whoever outlines what the edge cuts draws beyond it
_SMALL = 8  # pixels; in smaller images an object of one pixel may be meant

QUARTER = (
    "warning: no object reaches beyond the left upper quarter of its image, as when the images were enlarged after "
    "labelling; look at the preview, and export labels and images at one size"
)


BOXES = (
    "warning: nearly all outlines are rectangles, as boxes are that were exported as polygons; from boxes no "
    "masks are learned: look at the preview, and outline the objects"
)


@dataclass
class Reach:
    """What is known after a look at many outlines.

    Attributes:
        outlines: How many there were.
        images: Of which images.
        largest: Their largest coordinate.
        share: The same as a share of the width or the height of its image.
        rectangles: How many outlines are rectangles, upright or turned.
        outside: How many reach out of their image by more than a hand slips.
        farthest: By how many pixels at most, and in which image.
        checked: Whether the check names each of these itself.
    """

    outlines: int = 0
    images: set[object] = field(default_factory=set)
    largest: float = 0.0
    share: float = 0.0
    rectangles: int = 0
    outside: int = 0
    farthest: tuple[float, object] = (0.0, None)
    checked: bool = False

    def add(self, image: object, points: NDArray[np.float64], size: tuple[int, int]) -> None:
        """Look at the corners [N, 2] (x, y) of an outline in an image of `size` (H, W)."""
        self.outlines += 1
        self.images.add(image)
        self.rectangles += _is_rectangle(points)
        self.largest = max(self.largest, float(points.max()))
        self.share = max(self.share, float((points.max(axis=0) / (size[1], size[0])).max()))
        beyond = float(np.maximum(-points, points - (size[1], size[0])).max())
        if beyond > _SLIP + _SLIP_SHARE * max(size):
            self.outside += 1
            self.farthest = max(self.farthest, (beyond, image), key=lambda found: found[0])

    def in_quarter(self) -> bool:
        """Whether all of many outlines lie in the left upper quarter of their images."""
        many = self.outlines >= _LEAST_OUTLINES and len(self.images) >= _LEAST_IMAGES
        return many and self.share <= _QUARTER

    def are_boxes(self) -> bool:
        """Whether nearly all outlines are rectangles."""
        return self.outlines >= _LEAST_BOXES and self.rectangles >= _MOSTLY * self.outlines

    def tell(self, place: str, notes: Notes) -> None:
        """Say what a user should look at in the outlines of a place."""
        if self.in_quarter():
            notes.found("objects_in_a_quarter", f"{place}: {QUARTER}")
        if self.are_boxes():
            notes.found("boxes_as_outlines", f"{place}: {BOXES}")
        if self.outside:
            pixels, image = self.farthest
            what = (
                f"of {plural(self.outlines, 'outline')} {'reaches' if self.outside == 1 else 'reach'} out of the image "
                f"(by {pixels:.0f} pixels in {image}), and what is outside is cut off: were images scaled or cut after "
                "labelling? Look at the preview"
            )
            left_out: LeftOut = Counter()
            if self.checked:
                left_out[None, what] = self.outside
            else:
                left_out["polygon_outside_image", what] = self.outside
            notes.counted(place, left_out)


def _is_rectangle(points: NDArray[np.float64]) -> bool:
    if len(points) == 5 and (points[0] == points[4]).all():
        points = points[:4]
    if len(points) != 4:
        return False
    sides = np.roll(points, -1, axis=0) - points
    lengths = np.linalg.norm(sides, axis=1)
    if lengths.min() <= 0:
        return False
    # opposite sides are one vector there and back, and neighbours meet at a right angle
    opposite = np.abs(sides[:2] + sides[2:]).max() < _CROOKED * lengths.max()
    return bool(opposite and abs(float(sides[0] @ sides[1])) < _CROOKED * lengths[0] * lengths[1])


def are_shares(points: NDArray[np.float64], size: tuple[int, int]) -> bool:
    """Whether corners [N, 2] that should be pixels of an image of `size` are rather shares of it, from 0 to 1."""
    return min(size) > _SMALL and bool(points.min() >= 0 and points.max() <= 1)
