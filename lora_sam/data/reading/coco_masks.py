"""COCO segmentations (polygons, uncompressed and compressed RLE), validated before C++ code sees them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from lora_sam.core.errors import DataError
from lora_sam.core.mask_windows import MaskWindows
from lora_sam.data.reading.numbers import are_numbers, is_number
from lora_sam.data.reading.paths import shown
from lora_sam.data.reading.pixel_centres import Course, drawn, shifted
from lora_sam.data.reading.rle import MAX_VALUE_CHARACTERS, KeptWindows, decompressed, decompressed_together, windows_of

MAX_VERTICES = 10**5
"""More polygon vertices in one annotation are refused."""

MAX_OUTLINE = 2 * 10**6
"""Longer outlines of one annotation, in pixels, are refused: the memory to rasterise them grows with their length."""

_MIN_VERTICES = 3
_ENCLOSE_NOTHING = (2, 4)  # numbers of a point and of a line
_KEPT = KeptWindows(64 << 20)  # bytes
_AT_ONCE = 64  # masks of which only the union is wanted


@dataclass(frozen=True)
class EncodedMasks:
    """Masks of one image as compressed COCO RLE.

    Attributes:
        counts: The objects.
        left_out: What is neither object nor background: crowds, objects that are too small.
    """

    counts: tuple[bytes, ...]
    left_out: tuple[bytes, ...] = ()

    def read(self, size: tuple[int, int]) -> NDArray[np.bool_]:
        """Bool [N, H, W] for an image of `size` = (H, W)."""
        return _windows(self.counts, size).masks()

    def windows(self, size: tuple[int, int], rows: NDArray[np.int64] | None = None) -> MaskWindows:
        """See `lora_sam.data.reading.labelled.StoredApart`."""
        counts = self.counts if rows is None else tuple(self.counts[row] for row in rows.tolist())
        return _KEPT.of(counts, size)

    def union(self, size: tuple[int, int]) -> NDArray[np.bool_]:
        """See `lora_sam.data.reading.labelled.StoredApart`."""
        return _united(self.counts, size)

    def ignored_pixels(self, size: tuple[int, int]) -> NDArray[np.bool_] | None:
        """See `lora_sam.data.reading.labelled.IgnoresPixels`."""
        return _united(self.left_out, size) if self.left_out else None


def _windows(counts: tuple[bytes, ...], size: tuple[int, int]) -> MaskWindows:
    return windows_of(decompressed_together(counts) if counts else [], size)


def _united(counts: tuple[bytes, ...], size: tuple[int, int]) -> NDArray[np.bool_]:
    """The pixels [H, W] of all masks."""
    whole = np.zeros(size, np.bool_)
    for first in range(0, len(counts), _AT_ONCE):
        windows = _windows(counts[first : first + _AT_ONCE], size)
        for part, (top, left) in zip(windows.parts, windows.corners.tolist(), strict=True):
            whole[top : top + part.shape[0], left : left + part.shape[1]] |= part
    return whole


Rings = Literal["auto", "union", "even_odd"]
"""What several polygons of one annotation make together: all that any encloses, or what an odd number of them does."""


def encode(
    segmentation: object,
    size: tuple[int, int],
    rings: Rings = "union",
    stated: object = None,
    course: Course = "edges",
) -> tuple[bytes, int]:
    """A segmentation from an annotation file as (compressed RLE, area in pixels).

    Polygons are rasterised by faster-coco-eval, as pycocotools does it; where they leave the image they are cut.

    Args:
        segmentation: As parsed from JSON: a list of flat polygons [x0, y0, x1, y1, ...], or
            {"size": [h, w], "counts": [...] or "..."}.
        size: (height, width) of the image in pixels.
        rings: What several polygons make together.
        stated: The area that the annotation states, for `rings="auto"`.
        course: Where polygons run.

    Raises:
        DataError: it is none of these, or not of this size, or has no foreground. Does not name the annotation.
    """
    from faster_coco_eval.core import mask as coco_mask

    height, width = size
    if isinstance(segmentation, dict):
        counts = _checked_counts(segmentation, size)
        rle = coco_mask.frPyObjects({"size": [height, width], "counts": counts}, height, width)
    elif isinstance(segmentation, list) and segmentation:
        polygons = _checked_polygons(_enclosing(_nested(segmentation)), size)
        rles = coco_mask.frPyObjects(polygons if course == "edges" else shifted(polygons, course), height, width)
        rle = rles[0] if len(rles) == 1 else _together(rles, rings, stated)
        if course == "centres":
            rle = with_line(rle, polygons)
    elif segmentation == []:
        raise DataError("has an empty segmentation; give a polygon or RLE, or remove the annotation", "empty_mask")
    else:
        raise DataError(
            "has no segmentation; boxes alone cannot train masks: give a polygon or RLE, or remove it", "bad_annotation"
        )
    area = int(coco_mask.area(rle))
    if area == 0:
        raise DataError(
            "has an empty mask (no pixel inside the image); correct it or remove the annotation", "empty_mask"
        )
    return rle["counts"], area


def _together(rles: list[Any], rings: Rings, stated: object) -> Any:
    """Several polygons as one RLE.

    With `auto` a polygon inside another one is a hole if the area that the annotation states says so, or if none is
    stated: it would add nothing otherwise.
    """
    from faster_coco_eval.core import mask as coco_mask

    union = coco_mask.merge(rles)
    if rings == "union" or (rings == "auto" and not _one_inside_another(rles)):
        return union
    odd = rles[0]
    for rle in rles[1:]:
        both, shared = coco_mask.merge([odd, rle]), coco_mask.merge([odd, rle], intersect=True)
        odd = _without(both, shared)
    if rings == "even_odd" or not is_number(stated):
        return odd
    areas = [int(coco_mask.area(rle)) for rle in (union, odd)]
    off = [abs(area - float(stated)) for area in areas]  # type: ignore[arg-type]
    return odd if off[1] < off[0] else union


def with_line(rle: Any, polygons: list[Any]) -> Any:
    """An RLE with the pixels through whose centres polygons run."""
    from faster_coco_eval.core import mask as coco_mask

    height, width = rle["size"]
    line = drawn(polygons, (height, width))
    return rle if line is None else coco_mask.merge([rle, coco_mask.frPyObjects(line, height, width)])


def _one_inside_another(rles: list[Any]) -> bool:
    from faster_coco_eval.core import mask as coco_mask

    boxes = coco_mask.toBbox(rles)
    low, high = boxes[:, :2], boxes[:, :2] + boxes[:, 2:]
    for one, two in zip(
        *np.nonzero((low[:, None] >= low).all(axis=2) & (high[:, None] <= high).all(axis=2)), strict=True
    ):
        area = int(coco_mask.area(rles[one]))
        if one != two and area and area == int(coco_mask.area(coco_mask.merge([rles[one], rles[two]], intersect=True))):
            return True
    return False


def _without(whole: Any, part: Any) -> Any:
    """RLE of `whole` without `part`, which lies inside it: the union with the opposite, taken the other way round."""
    from faster_coco_eval.core import mask as coco_mask

    height, width = whole["size"]
    runs = decompressed(part["counts"]).tolist()
    outside = runs[1:] if runs[0] == 0 else [0, *runs]
    opposite = coco_mask.frPyObjects({"size": [height, width], "counts": outside}, height, width)
    return coco_mask.merge([whole, opposite], intersect=True)


def _nested(segmentation: list[Any], deepest: int = 8) -> list[Any]:
    """Polygons that are flat lists of numbers, also where a tool nested one list too few, or some too many.

    What lies deeper than any tool nests it stays as it is: JSON may hold thousands of lists in each other.
    """
    if all(is_number(value) for value in segmentation):
        return [segmentation]
    if all(isinstance(part, list) and len(part) == 2 and all(map(is_number, part)) for part in segmentation):
        return [[value for point in segmentation for value in point]]
    lists = all(
        isinstance(part, list) and part and all(isinstance(inner, list) for inner in part) for part in segmentation
    )
    if lists and deepest:
        return [polygon for part in segmentation for polygon in _nested(part, deepest - 1)]
    return segmentation


def _enclosing(polygons: list[Any]) -> list[Any]:
    """The polygons without points and lines, which enclose nothing, where others do."""
    rings = [
        part
        for part in polygons
        if not isinstance(part, list) or len(part) not in _ENCLOSE_NOTHING or not are_numbers(part)
    ]
    return rings or polygons


def _checked_polygons(polygons: list[Any], size: tuple[int, int]) -> list[list[float]]:
    limits = size[1], size[0]
    vertices, outline = 0, 0.0
    for polygon in polygons:
        if not isinstance(polygon, list) or not are_numbers(polygon):
            raise DataError(
                "has a polygon that is not a flat list of finite numbers [x0, y0, x1, y1, ...]", "bad_polygon"
            )
        if len(polygon) % 2 or len(polygon) < 2 * _MIN_VERTICES:
            raise DataError(
                f"has a polygon of {len(polygon)} numbers; it takes an even count, and at least 3 points", "bad_polygon"
            )
        vertices += len(polygon) // 2
        if vertices > MAX_VERTICES:
            raise DataError(
                f"has more than {MAX_VERTICES} polygon vertices; simplify it or store it as RLE", "bad_polygon"
            )
        extent = 0.0
        for axis, limit in enumerate(limits):
            values = polygon[axis::2]
            low, high = min(values), max(values)
            if low < -limit or high > 2 * limit:
                raise DataError(
                    f"has a polygon far outside the image of {size[1]}x{size[0]} pixels; correct it", "bad_polygon"
                )
            extent = max(extent, high - low)
        longest = extent * (len(polygon) // 2)
        if outline + longest > MAX_OUTLINE:  # seldom, and only then worth the exact length
            points = np.array(polygon, dtype=np.float64).reshape(-1, 2)
            longest = float(np.abs(points - np.roll(points, 1, axis=0)).max(axis=1).sum())
        outline += longest
        if outline > MAX_OUTLINE:
            raise DataError(
                f"has outlines of more than {MAX_OUTLINE} pixels; simplify them or store the mask as RLE", "bad_polygon"
            )
    return polygons


def _checked_counts(rle: dict[str, Any], size: tuple[int, int]) -> list[int]:
    stored = rle.get("size")
    if stored != list(size):
        raise DataError(
            f"has an RLE of size {shown(stored)}, but its image is [{size[0]}, {size[1]}] (height, width); "
            "export the annotation again for this image",
            "bad_rle",
        )
    counts = rle.get("counts")
    pixels = size[0] * size[1]
    if isinstance(counts, str | list) and len(counts) > MAX_VALUE_CHARACTERS * (pixels + 2):
        raise DataError(f"has an RLE of {len(counts)} values for {pixels} pixels; export it again", "bad_rle")
    if isinstance(counts, str):
        runs = decompressed(counts.encode("utf-8", "surrogatepass"))
    elif isinstance(counts, list) and all(type(count) is int and 0 <= count <= pixels for count in counts):
        runs = np.array(counts, dtype=np.int64)
    else:
        raise DataError(
            "has an RLE whose counts are neither a string nor whole numbers from 0 to height * width", "bad_rle"
        )
    wild = runs[(runs < 0) | (runs > pixels)]  # looked at first, so that the sum cannot overflow
    total = int(wild[0]) if wild.size else int(runs.sum())
    if wild.size or total != pixels:
        what = "a run" if wild.size else "runs"
        raise DataError(
            f"has an RLE with {what} of {total} pixels; height * width is {pixels}: export it again", "bad_rle"
        )
    return runs.tolist()  # type: ignore[no-any-return]
