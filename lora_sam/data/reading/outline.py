"""One object as a labelling tool outlines it: polygons with holes, a bitmap or RLE, in the pixels of its image."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lora_sam.core.crops import rle_of
from lora_sam.core.errors import DataError
from lora_sam.data.reading.coco_masks import EncodedMasks, encode, with_line
from lora_sam.data.reading.numbers import as_float, is_number
from lora_sam.data.reading.paths import shown
from lora_sam.data.reading.pixel_centres import Course

ELLIPSE_POINTS = 720
"""Corners of an ellipse or a circle."""


_LINE = 4  # numbers of a ring of two points


@dataclass(frozen=True)
class Bitmap:
    """A part of a mask.

    Attributes:
        left: Column of its first pixel in the image.
        top: Row of its first pixel.
        pixels: Bool [h, w].
    """

    left: int
    top: int
    pixels: NDArray[np.bool_]


@dataclass(frozen=True)
class Outline:
    """One object, or a part of one, in pixels of the image as it is shown: x to the right, y down.

    Attributes:
        name: Its id; empty where the tool gives none.
        label: Its class; None for none.
        rings: Outer outlines, each flat [x0, y0, x1, y1, ...]; the object is all that any of them encloses ...
        holes: ... but for what these enclose.
        bitmap: The object as pixels, instead.
        group: Outlines of one label with the same group are one object; None for an object of its own.
        rle: The object as COCO's RLE {"size", "counts"}, instead.
        course: Where rings and holes run.
    """

    name: str = ""
    label: str | None = None
    rings: tuple[object, ...] = ()
    holes: tuple[object, ...] = ()
    bitmap: Bitmap | None = None
    group: str | None = None
    rle: Mapping[str, Any] | None = None
    course: Course = "edges"

    def encoded(self, size: tuple[int, int]) -> bytes:
        """Its mask in an image of `size` (H, W) as compressed RLE. Raises `DataError`, which does not name it."""
        if self.rle is not None:
            return encode(dict(self.rle), size)[0]
        if self.bitmap is not None:
            return _placed(self.bitmap, size)
        # a point or a line encloses nothing: it is no fault beside a ring that does
        rings = [ring for ring in self.rings if not isinstance(ring, list) or len(ring) > _LINE] or list(self.rings)
        counts, _ = encode(rings, size, course=self.course)
        if not self.holes:
            return counts
        mask = EncodedMasks((counts,)).read(size)[0]
        holes = [hole for hole in self.holes if not isinstance(hole, list) or len(hole) > _LINE]
        for hole in holes:
            try:
                inner, _ = encode([hole], size, course="edges" if self.course == "edges" else "between")
                mask &= ~EncodedMasks((inner,)).read(size)[0]
            except DataError as error:
                if "empty mask" not in str(error):  # a hole of no pixel changes nothing
                    raise
        if self.course != "centres" or not holes:
            return encode_mask(mask)
        whole: bytes = with_line(rle_of(mask), holes)["counts"]  # pixels of the object, around its holes
        return whole


def encode_mask(mask: NDArray[np.bool_]) -> bytes:
    """A mask [H, W] as compressed RLE. Raises `DataError` where it is empty."""
    if not mask.any():
        raise DataError(
            "has an empty mask (no pixel inside the image); correct it or remove the annotation", "bad_annotation"
        )
    counts: bytes = rle_of(mask)["counts"]
    return counts


def area_of(counts: bytes, size: tuple[int, int]) -> int:
    """Pixels of a mask that is compressed RLE."""
    from faster_coco_eval.core import mask as coco_mask

    return int(coco_mask.area({"size": list(size), "counts": counts}))


def flat(points: object) -> list[float]:
    """Corners [[x, y], ...] as [x0, y0, x1, y1, ...]. Raises `DataError`, which does not name the object."""
    if not isinstance(points, list | tuple) or not all(
        isinstance(point, list | tuple) and len(point) >= 2 and is_number(point[0]) and is_number(point[1])
        for point in points
    ):
        raise DataError(f"has the points {shown(points)}; it takes a list of [x, y]", "bad_polygon")
    return [as_float(value) for point in points for value in point[:2]]


def ellipse(x: float, y: float, across: float, down: float, degrees: float = 0.0) -> list[float]:
    """The outline of an ellipse by its centre, its two radii, and its turn (clockwise as it is seen)."""
    if not all(is_number(value) for value in (x, y, across, down, degrees)) or across <= 0 or down <= 0:
        raise DataError(
            f"has an ellipse at {shown((x, y))} with the radii {shown((across, down))}; it takes numbers > 0",
            "bad_polygon",
        )
    angles = np.linspace(0, 2 * np.pi, ELLIPSE_POINTS, endpoint=False)
    turn = np.deg2rad(degrees)
    u, v = across * np.cos(angles), down * np.sin(angles)
    outline = np.stack([x + u * np.cos(turn) - v * np.sin(turn), y + u * np.sin(turn) + v * np.cos(turn)], axis=1)
    corners: list[float] = outline.ravel().tolist()
    return corners


def scaled(outline: Outline, size: tuple[int, int]) -> Outline:
    """The outline in pixels, out of shares of width and height."""

    def ring(values: object) -> list[float]:
        if not isinstance(values, list) or not all(is_number(value) for value in values):
            raise DataError(f"has the points {shown(values)}; it takes numbers from 0 to 1", "bad_polygon")
        if min(values, default=0) < -0.01 or max(values, default=0) > 1.01:
            raise DataError(
                f"has coordinates from {min(values):g} to {max(values):g}, where shares of the image from 0 to 1 are "
                "needed; divide x by its width and y by its height",
                "bad_polygon",
            )
        return [value * size[1 - place % 2] for place, value in enumerate(values)]

    return replace(
        outline, rings=tuple(ring(one) for one in outline.rings), holes=tuple(ring(one) for one in outline.holes)
    )


def _placed(bitmap: Bitmap, size: tuple[int, int]) -> bytes:
    height, width = bitmap.pixels.shape
    if bitmap.left < 0 or bitmap.top < 0 or bitmap.left + width > size[1] or bitmap.top + height > size[0]:
        raise DataError(
            f"has a bitmap of {width}x{height} pixels at ({bitmap.left}, {bitmap.top}), which leaves the image of "
            f"{size[1]}x{size[0]}; export the annotations again",
            "bad_rle",
        )
    mask = np.zeros(size, np.bool_)
    mask[bitmap.top : bitmap.top + height, bitmap.left : bitmap.left + width] = bitmap.pixels
    return encode_mask(mask)
